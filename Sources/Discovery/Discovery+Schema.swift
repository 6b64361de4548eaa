// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
package import Inodes
package import Routes
internal import SwiftProtobuf
internal import Trust

// Between the schema's messages and what discovery works with. What a client parses comes from another process, so it
// is as strict there.

// MARK: Requests

extension FindQuery {
  init(_ request: Blocktree_V1_FindRequest) throws(DiscoveryError) {
    let scope: TreePath
    do { scope = try TreePath(parsing: request.scope) } catch { throw .invalidPath(error) }
    let service: Service?
    do { service = request.service.isEmpty ? nil : try Service(request.service) } catch {
      throw .invalid(field: "service")
    }
    let kind: FindKind
    switch request.kind {
    case .contained: kind = .contained
    case .nearest: kind = .nearest
    case .unspecified, .UNRECOGNIZED: throw .invalid(field: "kind")
    }
    self.init(kind: kind, service: service, scope: scope)
  }

  package var message: Blocktree_V1_FindRequest {
    .with {
      $0.scope = self.scope.description
      $0.service = self.service?.name ?? ""
      $0.kind = self.kind == .contained ? .contained : .nearest
    }
  }
}

// MARK: Answers

/// An answer that breaks a rule. Names the field.
package struct MalformedAnswer: Error, Hashable, Sendable, CustomStringConvertible {
  package let field: String

  package var description: String { "the answer is malformed: \(self.field)" }
}

extension RouteProcess {
  /// - Parameter digest: of the credential file, where that is known.
  func found(digest: Digest32? = nil) -> Blocktree_V1_FoundProcess {
    .with {
      $0.path = self.path.description
      $0.services = self.services.map(\.name)
      $0.addresses = self.addresses.map(\.description)
      if let digest { $0.credentialDigest = Data(digest.bytes) }
    }
  }

  var address: Blocktree_V1_ProcessAddress {
    .with {
      $0.path = self.path.description
      $0.addresses = self.addresses.map(\.description)
    }
  }

  init(_ message: Blocktree_V1_FoundProcess) throws(MalformedAnswer) {
    guard message.services.count <= Service.countMax else { throw MalformedAnswer(field: "services") }
    var services: [Service] = []
    for name in message.services {
      // One that this release could not have made is none that anybody asks it for.
      if let service = try? Service(name) { services.append(service) }
    }
    try self.init(path: message.path, services: services, addresses: message.addresses)
  }

  init(_ message: Blocktree_V1_ProcessAddress) throws(MalformedAnswer) {
    try self.init(path: message.path, services: [], addresses: message.addresses)
  }

  private init(path: String, services: [Service], addresses: [String]) throws(MalformedAnswer) {
    guard let path = try? TreePath(parsing: path), !path.isRoot else { throw MalformedAnswer(field: "path") }
    guard addresses.count <= NetworkAddress.countMax else { throw MalformedAnswer(field: "addresses") }
    var parsed: [NetworkAddress] = []
    for address in addresses {
      guard let address = try? NetworkAddress(parsing: address) else { throw MalformedAnswer(field: "addresses") }
      parsed.append(address)
    }
    self.init(path: path, services: services, addresses: parsed)
  }
}

extension Found {
  /// - Parameter digest: says the digest of the credential file at a path.
  func message(_ digest: (TreePath) -> Digest32?) -> Blocktree_V1_FoundProcesses {
    .with {
      $0.directory = self.directory?.description ?? ""
      $0.processes = self.processes.prefix(DiscoveryLimits.foundMax).map { $0.found(digest: digest($0.path)) }
      $0.lifetimeMs = self.lifetime.wireMilliseconds
      $0.isStale = self.isStale
    }
  }

  /// - Throws: when the processes do not lie in the directory, or a part is malformed or too large.
  init(_ message: Blocktree_V1_FoundProcesses) throws(MalformedAnswer) {
    guard message.processes.count <= DiscoveryLimits.foundMax else { throw MalformedAnswer(field: "processes") }
    var processes: [RouteProcess] = []
    for process in message.processes { processes.append(try RouteProcess(process)) }
    var directory: TreePath?
    if !message.directory.isEmpty {
      guard let path = try? TreePath(parsing: message.directory) else { throw MalformedAnswer(field: "directory") }
      directory = path
    }
    // What is said of processes elsewhere is not believed.
    guard processes.allSatisfy({ $0.path.parent == directory }) else { throw MalformedAnswer(field: "processes") }
    self.init(
      directory: directory, processes: processes, lifetime: .milliseconds(Int64(message.lifetimeMs)),
      isStale: message.isStale)
  }
}

extension Redirect {
  /// - Parameter digest: says the digest of the credential file at a path.
  func message(_ digest: (TreePath) -> Digest32?) -> Blocktree_V1_Redirect {
    .with {
      $0.directory = self.directory.description
      $0.processes = self.processes.prefix(Redirect.processCountMax).map(\.address)
      $0.lifetimeMs = self.lifetime.wireMilliseconds
      if let nearest = self.nearestAbove { $0.nearestAbove = nearest.message(digest) }
    }
  }

  /// - Throws: when the processes do not lie in the directory, or a part is malformed or too large.
  init(_ message: Blocktree_V1_Redirect) throws(MalformedAnswer) {
    guard let directory = try? TreePath(parsing: message.directory) else { throw MalformedAnswer(field: "directory") }
    guard message.processes.count <= Redirect.processCountMax else { throw MalformedAnswer(field: "processes") }
    var processes: [RouteProcess] = []
    for process in message.processes { processes.append(try RouteProcess(process)) }
    guard !processes.isEmpty, processes.allSatisfy({ $0.path.parent == directory }) else {
      throw MalformedAnswer(field: "processes")
    }
    self.init(
      directory: directory, processes: processes, lifetime: .milliseconds(Int64(message.lifetimeMs)),
      nearestAbove: message.hasNearestAbove ? try Found(message.nearestAbove) : nil)
  }
}

extension FindAnswer {
  /// - Parameter digest: says the digest of the credential file at a path.
  func message(_ digest: (TreePath) -> Digest32?) -> Blocktree_V1_FindResponse {
    .with {
      switch self {
      case .found(let found): $0.found = found.message(digest)
      case .redirect(let redirect): $0.redirect = redirect.message(digest)
      }
    }
  }

  package init(_ message: Blocktree_V1_FindResponse) throws(MalformedAnswer) {
    switch message.answer {
    case .found(let found)?: self = .found(try Found(found))
    case .redirect(let redirect)?: self = .redirect(try Redirect(redirect))
    case nil: throw MalformedAnswer(field: "answer")
    }
  }
}

/// What is at the path of a credential file.
package enum CredentialAnswer: Hashable, Sendable {
  case file(StoredCredential, lifetime: Duration)
  /// There is none at this path.
  case absent(lifetime: Duration)
  /// Others know.
  case redirect(Redirect)

  var message: Blocktree_V1_ReadCredentialResponse {
    .with {
      switch self {
      case .file(let stored, let lifetime):
        $0.credential = .with {
          $0.credential = Data(stored.bytes)
          if let file = stored.file { $0.fileID = file.message }
          if let directory = stored.directory { $0.directory = directory.message }
          $0.lifetimeMs = lifetime.wireMilliseconds
        }
      case .absent(let lifetime): $0.credential = .with { $0.lifetimeMs = lifetime.wireMilliseconds }
      case .redirect(let redirect): $0.redirect = redirect.message { _ in nil }
      }
    }
  }

  package init(_ message: Blocktree_V1_ReadCredentialResponse) throws(MalformedAnswer) {
    switch message.answer {
    case .credential(let answer)?:
      guard answer.credential.count <= CredentialFile.byteCountMax else { throw MalformedAnswer(field: "credential") }
      let lifetime = Duration.milliseconds(Int64(answer.lifetimeMs))
      guard !answer.credential.isEmpty else {
        self = .absent(lifetime: lifetime)
        return
      }
      self = .file(
        StoredCredential(
          bytes: Array(answer.credential), file: try Self.file(answer.fileID, answer.hasFileID, "file_id"),
          directory: try Self.file(answer.directory, answer.hasDirectory, "directory")), lifetime: lifetime)
    case .redirect(let redirect)?: self = .redirect(try Redirect(redirect))
    case nil: throw MalformedAnswer(field: "answer")
    }
  }

  private static func file(
    _ message: Blocktree_V1_FileId, _ isThere: Bool, _ field: String
  ) throws(MalformedAnswer) -> FileID? {
    guard isThere else { return nil }
    do { return try FileID(message) } catch { throw MalformedAnswer(field: field) }
  }
}

/// A credential file as a cluster stores it, not verified.
package struct StoredCredential: Hashable, Sendable {
  package let bytes: [UInt8]
  package let file: FileID?
  /// The directory that it lies in.
  package let directory: FileID?

  package init(bytes: [UInt8], file: FileID?, directory: FileID?) {
    self.bytes = bytes
    self.file = file
    self.directory = directory
  }
}

extension Duration {
  /// As it stands in a message: whole milliseconds, and no more than fits.
  var wireMilliseconds: UInt32 {
    let (seconds, attoseconds) = self.components
    guard seconds >= 0 else { return 0 }
    guard seconds < Int64(UInt32.max / 1_000) else { return .max }
    return UInt32(clamping: seconds * 1_000 + attoseconds / 1_000_000_000_000_000)
  }
}
