// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import SwiftProtobuf
internal import Trust

/// The operations on files that fit into one request and one answer.
///
/// ``Client`` makes a call for each of them; a ``FileSession`` has many in flight over one stream. A path is `/a/b` or
/// `bt://<domain>/a/b`; symbolic links on the way are followed. What changes something is durable when the method
/// returns, and is repeated safely when its answer was lost.
///
/// All methods throw ``BlocktreeError``, or `CancellationError` when the task is cancelled.
public protocol FileOperations: Sendable {
  /// The id of the domain that paths are in.
  var domain: String { get }

  /// Performs one operation. The methods of the extension build and read what goes through here.
  func perform(_ request: FileRequest) async throws -> FileResponse
}

/// An operation on its way to a process.
public struct FileRequest: Sendable {
  var operation: Blocktree_V1_FilesystemOperation.OneOf_Operation
}

/// What came of an operation.
public struct FileResponse: Sendable {
  var result: Blocktree_V1_FilesystemResult.OneOf_Result
}

/// Bytes of a file, all of one version.
public struct FileBytes: Hashable, Sendable {
  /// The file as it was read.
  public var info: FileInfo
  public var bytes: [UInt8]
}

/// A part of a directory's entries.
public struct DirectoryPage: Hashable, Sendable {
  public var entries: [DirectoryEntry]
  /// Where the next page begins; nil when this was the last.
  public var nextCursor: [UInt8]?
  /// As in ``FileInfo/isStale``, of the directory.
  public var isStale = false
}

extension FileOperations {
  /// The most bytes that one read or write of this kind takes.
  public static var transferByteCountMax: Int { 1 << 20 }

  /// Describes a file.
  ///
  /// - Parameter followsLink: whether a symbolic link at the end is followed.
  public func stat(_ path: String, followsLink: Bool = true) async throws -> FileInfo {
    let path = try self.treePath(path)
    return try await self.info(
      .stat(
        .with {
          $0.path = path
          $0.follow = followsLink
        }))
  }

  /// Whether there is something at the path; false as well when the caller may not know.
  public func exists(_ path: String) async throws -> Bool {
    do {
      _ = try await self.stat(path, followsLink: false)
      return true
    } catch let error as BlocktreeError where error.code == .notFound || error.code == .permissionDenied {
      return false
    }
  }

  /// One page of a directory.
  ///
  /// - Parameters:
  ///   - cursor: `nextCursor` of the page before; nil for the first page.
  ///   - count: entries on the page, at most 1,000.
  ///   - includesInfo: whether entries are to be described.
  public func listPage(
    _ path: String, from cursor: [UInt8]? = nil, count: Int = 1000, includesInfo: Bool = false
  ) async throws -> DirectoryPage {
    let path = try self.treePath(path)
    let response = try await self.perform(
      FileRequest(
        operation: .list(
          .with {
            $0.path = path
            $0.cursor = Data(cursor ?? [])
            $0.pageSize = UInt32(clamping: count)
            $0.withInfo = includesInfo
          })))
    guard case .list(let page) = response.result else { throw BlocktreeError.malformedAnswer("list") }
    return DirectoryPage(
      entries: try page.entries.map { try DirectoryEntry($0) },
      nextCursor: page.nextCursor.isEmpty ? nil : Array(page.nextCursor), isStale: page.isStale)
  }

  /// All entries of a directory, in no order that means something. Entries that stay are listed once, whatever else
  /// changes meanwhile.
  public func list(_ path: String, includesInfo: Bool = false) -> DirectoryListing<Self> {
    DirectoryListing(operations: self, path: path, includesInfo: includesInfo, noteStale: nil)
  }

  /// The same.
  ///
  /// - Parameter noteStale: called when a page comes from a copy that may be old; see ``FileInfo/isStale``.
  public func list(
    _ path: String, includesInfo: Bool = false, noteStale: @escaping @Sendable () -> Void
  ) -> DirectoryListing<Self> {
    DirectoryListing(operations: self, path: path, includesInfo: includesInfo, noteStale: noteStale)
  }

  /// Makes a directory.
  ///
  /// - Parameter makesParents: whether missing parents are made too, and an existing directory is no error.
  @discardableResult
  public func makeDirectory(
    _ path: String, mode: FileMode = 0o755, makesParents: Bool = false
  ) async throws -> FileInfo {
    let path = try self.treePath(path)
    return try await self.info(
      .makeDirectory(
        .with {
          $0.path = path
          $0.mode = UInt32(mode.rawValue)
          $0.parents = makesParents
        }))
  }

  /// Makes a symbolic link.
  ///
  /// - Parameter target: what the link says, 1 to 4,095 bytes: relative to its directory, or absolute in the domain.
  @discardableResult
  public func makeSymbolicLink(_ path: String, to target: String) async throws -> FileInfo {
    let path = try self.treePath(path)
    return try await self.info(
      .makeSymbolicLink(
        .with {
          $0.path = path
          $0.target = target
        }))
  }

  /// What a symbolic link says.
  public func readSymbolicLink(_ path: String) async throws -> String {
    let path = try self.treePath(path)
    let response = try await self.perform(FileRequest(operation: .readSymbolicLink(.with { $0.path = path })))
    guard case .symbolicLink(let link) = response.result else { throw BlocktreeError.malformedAnswer("symbolic_link") }
    return link.target
  }

  /// Gives an existing file, which is no directory, another name.
  @discardableResult
  public func makeLink(_ path: String, to existing: String) async throws -> FileInfo {
    let (path, existing) = (try self.treePath(path), try self.treePath(existing))
    return try await self.info(
      .makeLink(
        .with {
          $0.existing = existing
          $0.path = path
        }))
  }

  /// Reads at most 1 MiB. Beyond the end nothing is read.
  public func readBytes(_ path: String, at offset: UInt64 = 0, count: Int = 1 << 20) async throws -> FileBytes {
    guard count > 0, count <= Self.transferByteCountMax else {
      throw BlocktreeError.invalid("One read takes 1 byte to 1 MiB.", field: "length")
    }
    let path = try self.treePath(path)
    let response = try await self.perform(
      FileRequest(
        operation: .read(
          .with {
            $0.path = path
            $0.offset = offset
            $0.length = UInt64(count)
          })))
    guard case .read(let read) = response.result, read.hasInfo else { throw BlocktreeError.malformedAnswer("read") }
    return FileBytes(info: try FileInfo(read.info), bytes: Array(read.data))
  }

  /// Writes at most 1 MiB in one atomic step.
  ///
  /// - Parameters:
  ///   - writeMode: what happens to what is there.
  ///   - mode: of a file that is made.
  ///   - modified: the modification time to set; nil for now.
  @discardableResult
  public func writeBytes(
    _ bytes: [UInt8], to path: String, _ writeMode: WriteMode = .replace, mode: FileMode = 0o644,
    modified: Timestamp? = nil
  ) async throws -> FileInfo {
    guard bytes.count <= Self.transferByteCountMax else {
      throw BlocktreeError.invalid("One write takes at most 1 MiB.", field: "data")
    }
    let path = try self.treePath(path)
    return try await self.info(
      .write(
        .with {
          $0.header = .init(path, writeMode, mode: mode, modified: modified)
          $0.data = Data(bytes)
        }))
  }

  /// Sets the size of a file; what is added reads as zeros.
  @discardableResult
  public func truncate(_ path: String, to size: UInt64) async throws -> FileInfo {
    let path = try self.treePath(path)
    return try await self.info(
      .truncate(
        .with {
          $0.path = path
          $0.size = size
        }))
  }

  /// Renames atomically, over an existing file or empty directory if there is one.
  ///
  /// - Parameter replaces: whether there may be one; if not, that is an error.
  @discardableResult
  public func rename(_ path: String, to newPath: String, replaces: Bool = true) async throws -> FileInfo {
    let (path, newPath) = (try self.treePath(path), try self.treePath(newPath))
    return try await self.info(
      .rename(
        .with {
          $0.from = path
          $0.to = newPath
          $0.noReplace = !replaces
        }))
  }

  /// Removes a name. A symbolic link at the end is not followed.
  public func remove(_ path: String, _ kind: RemovalKind = .file) async throws {
    let path = try self.treePath(path)
    _ = try await self.perform(
      FileRequest(
        operation: .remove(
          .with {
            $0.path = path
            $0.kind = kind.message
          })))
  }

  /// Sets mode, owner, group, access list or times.
  @discardableResult
  public func setAttributes(
    _ path: String, _ changes: AttributeChanges, followsLink: Bool = true
  ) async throws -> FileInfo {
    let path = try self.treePath(path)
    return try await self.info(
      .setAttributes(
        .with {
          $0.path = path
          $0.follow = followsLink
          changes.apply(to: &$0)
        }))
  }

  /// How much room there is in the generation that a path belongs to.
  public func statFilesystem(_ path: String = "/") async throws -> FilesystemStatus {
    let path = try self.treePath(path)
    let response = try await self.perform(FileRequest(operation: .statFilesystem(.with { $0.path = path })))
    guard case .filesystem(let status) = response.result else { throw BlocktreeError.malformedAnswer("filesystem") }
    return FilesystemStatus(status)
  }

  // MARK: Helpers

  private func info(_ operation: Blocktree_V1_FilesystemOperation.OneOf_Operation) async throws -> FileInfo {
    let response = try await self.perform(FileRequest(operation: operation))
    guard case .info(let info) = response.result else { throw BlocktreeError.malformedAnswer("info") }
    return try FileInfo(info)
  }

  /// The path within the domain, checked.
  func treePath(_ text: String) throws(BlocktreeError) -> String {
    do {
      guard text.hasPrefix(DomainPath.scheme) else { return try TreePath(parsing: text).description }
      let place = try DomainPath(parsing: text)
      guard place.domain.description == self.domain else {
        throw BlocktreeError.invalidPath("otherDomain", path: text)
      }
      return place.path.description
    } catch let error as PathError {
      throw .invalidPath(error.rawValue, path: text)
    } catch {
      throw error as? BlocktreeError ?? .invalidPath("\(error)", path: text)
    }
  }
}

extension Blocktree_V1_WriteHeader {
  /// A header without operation id.
  init(_ path: String, _ writeMode: WriteMode, mode: FileMode, modified: Timestamp?) {
    self.init()
    self.path = path
    self.mode = UInt32(mode.rawValue)
    if let modified { self.modifiedNs = modified.nanoseconds }
    writeMode.apply(to: &self)
  }
}
