// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf
package import Trust

extension FileRequest {
  /// What an operation is about.
  enum Place {
    /// - `levels`: how far above the path those are that do it; see ``RouteSearch/init(_:levels:)``.
    case one(String, levels: Int)
    /// Two names, both of which have to be of one generation.
    case two(String, String)
  }

  var place: Place {
    switch self.operation {
    case .stat(let request): .one(request.path, levels: 0)
    case .list(let request): .one(request.path, levels: 0)
    case .read(let request): .one(request.path, levels: 0)
    case .write(let request): .one(request.header.path, levels: 0)
    case .truncate(let request): .one(request.path, levels: 0)
    case .setAttributes(let request): .one(request.path, levels: 0)
    case .statFilesystem(let request): .one(request.path, levels: 0)
    // These are about the name, which the directory above holds.
    case .readSymbolicLink(let request): .one(request.path, levels: 1)
    case .makeDirectory(let request): .one(request.path, levels: 1)
    case .makeSymbolicLink(let request): .one(request.path, levels: 1)
    case .remove(let request): .one(request.path, levels: 1)
    case .rename(let request): .two(request.from, request.to)
    case .makeLink(let request): .two(request.existing, request.path)
    }
  }

  /// The same about another path.
  func moved(to path: String) -> FileRequest {
    var moved = self
    switch self.operation {
    case .stat(var request):
      request.path = path
      moved.operation = .stat(request)
    case .list(var request):
      request.path = path
      moved.operation = .list(request)
    case .read(var request):
      request.path = path
      moved.operation = .read(request)
    case .write(var request):
      request.header.path = path
      moved.operation = .write(request)
    case .truncate(var request):
      request.path = path
      moved.operation = .truncate(request)
    case .setAttributes(var request):
      request.path = path
      moved.operation = .setAttributes(request)
    case .statFilesystem(var request):
      request.path = path
      moved.operation = .statFilesystem(request)
    case .readSymbolicLink(var request):
      request.path = path
      moved.operation = .readSymbolicLink(request)
    case .makeDirectory(var request):
      request.path = path
      moved.operation = .makeDirectory(request)
    case .makeSymbolicLink(var request):
      request.path = path
      moved.operation = .makeSymbolicLink(request)
    case .remove(var request):
      request.path = path
      moved.operation = .remove(request)
    case .rename, .makeLink: break
    }
    return moved
  }

  /// The same about two other paths.
  func moved(to first: String, _ second: String) -> FileRequest {
    var moved = self
    switch self.operation {
    case .rename(var request):
      request.from = first
      request.to = second
      moved.operation = .rename(request)
    case .makeLink(var request):
      request.existing = first
      request.path = second
      moved.operation = .makeLink(request)
    default: break
    }
    return moved
  }
}

extension ClientCore {
  /// Performs an operation at the cluster that serves its path, or its paths.
  func routed(
    _ request: FileRequest, timeout: Duration?,
    _ attempt: (FileRequest, inout ClusterAttempt) async throws -> FileResponse
  ) async throws -> FileResponse {
    switch request.place {
    case .one(let path, let levels):
      return try await self.routed(path, levels: levels, timeout: timeout, isMutation: request.isMutation) { now in
        try await attempt(now.path == path ? request : request.moved(to: now.path), &now)
      }
    case .two(let first, let second):
      return try await self.routed(request, first, second, timeout: timeout, attempt)
    }
  }

  /// How often links are followed to where two names really are.
  private static var linkCountMax: Int { 8 }

  /// Two names of one generation are asked for at the processes of the nearest directory that is above both: where these
  /// do not serve both, or send to one that does, they are of two generations.
  private func routed(
    _ request: FileRequest, _ first: String, _ second: String, timeout: Duration?,
    _ attempt: (FileRequest, inout ClusterAttempt) async throws -> FileResponse
  ) async throws -> FileResponse {
    let deadline = timeout.map { ContinuousClock.now + $0 }
    var pair = try TwoPaths(first, second)
    for _ in 0..<Self.linkCountMax {
      let (present, moved) = (pair, request.moved(to: "\(pair.first)", "\(pair.second)"))
      var search = RouteSearch(present.common)
      let remaining = deadline.map { $0 - ContinuousClock.now }
      do {
        return try await self.routed(&search, timeout: remaining, isMutation: true) { now in
          do {
            return try await attempt(moved, &now)
          } catch let error as BlocktreeError {
            try present.check(error, by: now.cluster.scope)
            throw error
          }
        }
      } catch is TwoPaths.Elsewhere {
        // One of them leads through a link to somewhere else. Which one, it does not say.
        pair = TwoPaths(
          try await self.resolved(present.first, deadline), try await self.resolved(present.second, deadline))
        guard pair != present else { break }
      }
    }
    throw BlocktreeError.crossGeneration(first, second)
  }

  /// Where a name is, when links on the way to it lead to another cluster.
  private func resolved(_ path: TreePath, _ deadline: ContinuousClock.Instant?) async throws -> TreePath {
    guard let parent = path.parent, let name = path.last else { return path }
    var search = RouteSearch(parent, isConfined: true)
    do {
      _ = try await self.routed(
        &search, timeout: deadline.map { $0 - ContinuousClock.now }, isMutation: false
      ) { now in
        let path = now.path
        return try await now.call { connection, options in
          try await connection.filesystem.list(
            .with {
              $0.path = path
              $0.pageSize = 1
            }, options: options)
        }
      }
    } catch let error as BlocktreeError where error.reason == .permissionDenied || error.reason == .notFound {
      // What is there may be hidden; how far the way led is known.
    }
    guard let resolved = try? search.path.appending(name) else { return path }
    return resolved
  }
}

/// The names of an operation that takes two.
package struct TwoPaths: Hashable, Sendable {
  package let first: TreePath
  package let second: TreePath

  package init(_ first: TreePath, _ second: TreePath) {
    self.first = first
    self.second = second
  }

  init(_ first: String, _ second: String) throws(BlocktreeError) {
    guard let one = try? TreePath(parsing: first), let other = try? TreePath(parsing: second) else {
      throw .invalidPath("malformed", path: first)
    }
    self.init(one, other)
  }

  /// The nearest directory that is above both.
  package var common: TreePath {
    let others = Set(self.second.ancestors)
    return self.first.ancestors.last { others.contains($0) } ?? .root
  }

  /// A link has to be followed before it can be told where the names are.
  package struct Elsewhere: Error {}

  /// Throws unless a redirect leads to processes that answer for both names.
  ///
  /// - Parameter directory: of those who redirect.
  package func check(_ error: BlocktreeError, by directory: TreePath) throws {
    guard let redirection = try ClientRedirection(error) else { return }
    // The path that it names takes the place of one of the two.
    if let path = redirection.path {
      guard directory.isSameOrAncestor(of: path) else {
        throw BlocktreeError.leadsOut(of: directory, to: path, from: self.first)
      }
      throw Elsewhere()
    }
    let leadsUp = redirection.directory.isAncestor(of: directory)
    guard leadsUp || redirection.directory.isSameOrAncestor(of: self.common) else {
      throw BlocktreeError.crossGeneration("\(self.first)", "\(self.second)")
    }
  }
}

extension BlocktreeError {
  static func crossGeneration(_ first: String, _ second: String) -> BlocktreeError {
    BlocktreeError(
      code: .failedPrecondition, reason: .crossGeneration,
      message: "The two places belong to different clusters; copy instead.",
      metadata: ["from": first, "to": second])
  }
}
