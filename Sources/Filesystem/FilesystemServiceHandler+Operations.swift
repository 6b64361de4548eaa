// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Foundation
internal import Inodes
internal import SwiftProtobuf
internal import Sectors
internal import Trust

/// Operations as single calls and the session stream share them.
extension FilesystemServiceHandler {
  func stat(_ request: Blocktree_V1_StatRequest, _ caller: CallerIdentity) async throws(FilesystemError) -> FileInfo {
    try await self.filesystem.stat(TreePath(request: request.path), follow: request.follow, for: caller)
  }

  func list(
    _ request: Blocktree_V1_ListRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> Blocktree_V1_ListResponse {
    let pageSizeMax = 1_000
    let pageSize = Int(request.pageSize)
    guard pageSize <= pageSizeMax else { throw .tooLarge("page_size", limit: pageSizeMax, found: pageSize) }
    let page = try await self.filesystem.list(
      TreePath(request: request.path), after: Array(request.cursor), count: pageSize == 0 ? pageSizeMax : pageSize,
      withInfo: request.withInfo, for: caller)
    return .with {
      $0.entries = page.entries.map(\.message)
      $0.nextCursor = Data(page.next)
      $0.isStale = page.isStale
    }
  }

  func makeDirectory(
    _ request: Blocktree_V1_MakeDirectoryRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> FileInfo {
    try await self.filesystem.makeDirectory(
      TreePath(request: request.path), mode: Mode(request: request.mode, default: 0o755), parents: request.parents,
      Request(caller, request.hasOperation ? request.operation : nil))
  }

  func makeSymbolicLink(
    _ request: Blocktree_V1_MakeSymbolicLinkRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> FileInfo {
    try await self.filesystem.makeSymbolicLink(
      TreePath(request: request.path), target: Array(request.target.utf8),
      Request(caller, request.hasOperation ? request.operation : nil))
  }

  func readSymbolicLink(
    _ request: Blocktree_V1_ReadSymbolicLinkRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> Blocktree_V1_ReadSymbolicLinkResponse {
    let target = try await self.filesystem.readSymbolicLink(TreePath(request: request.path), for: caller)
    return .with { $0.target = String(decoding: target, as: UTF8.self) }
  }

  func makeLink(
    _ request: Blocktree_V1_MakeLinkRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> FileInfo {
    try await self.filesystem.makeLink(
      TreePath(request: request.existing), as: TreePath(request: request.path),
      Request(caller, request.hasOperation ? request.operation : nil))
  }

  func truncate(
    _ request: Blocktree_V1_TruncateRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> FileInfo {
    try await self.filesystem.truncate(
      TreePath(request: request.path), to: request.size,
      Request(caller, request.hasOperation ? request.operation : nil))
  }

  func rename(
    _ request: Blocktree_V1_RenameRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> FileInfo {
    try await self.filesystem.rename(
      TreePath(request: request.from), to: TreePath(request: request.to), noReplace: request.noReplace,
      Request(caller, request.hasOperation ? request.operation : nil))
  }

  func remove(
    _ request: Blocktree_V1_RemoveRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> Blocktree_V1_RemoveResponse {
    let kind: Filesystem.RemovalKind
    switch request.kind {
    case .unspecified, .file: kind = .file
    case .directory: kind = .directory
    case .any: kind = .any
    case .UNRECOGNIZED: throw .invalid(field: "kind")
    }
    try await self.filesystem.remove(
      TreePath(request: request.path), expecting: kind,
      Request(caller, request.hasOperation ? request.operation : nil))
    return Blocktree_V1_RemoveResponse()
  }

  func setAttributes(
    _ request: Blocktree_V1_SetAttributesRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> FileInfo {
    var change = AttributeChange()
    if request.hasMode {
      guard let bits = UInt16(exactly: request.mode), let mode = Mode(rawValue: bits) else {
        throw .invalid(field: "mode")
      }
      change.mode = mode
    }
    if request.hasOwner { change.owner = try TreePath(request: request.owner) }
    if request.hasGroup { change.group = try TreePath(request: request.group) }
    if request.hasAccessedNs { change.accessed = request.accessedNs }
    if request.hasModifiedNs { change.modified = request.modifiedNs }
    if request.setAccess {
      do { change.access = try request.access.map { try AccessEntry($0) } } catch { throw .invalid(field: "access") }
    }
    return try await self.filesystem.setAttributes(
      TreePath(request: request.path), follow: request.follow, change,
      Request(caller, request.hasOperation ? request.operation : nil))
  }

  func statFilesystem(
    _ request: Blocktree_V1_StatFilesystemRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> Blocktree_V1_StatFilesystemResponse {
    let path = request.path.isEmpty ? TreePath.root : try TreePath(request: request.path)
    let info = try await self.filesystem.statFilesystem(path, for: caller)
    return .with {
      $0.totalBytes = info.totalBytes
      $0.usedBytes = info.usedBytes
      $0.freeBytes = info.freeBytes
      $0.inodes = info.inodes
      $0.sectorSize = UInt32(info.sectorSize)
      $0.generation = info.generation.rawValue
    }
  }

  /// Reads a range in one message, for the session stream.
  func readAtOnce(
    _ request: Blocktree_V1_ReadRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> Blocktree_V1_ReadResponse {
    var reader = try await self.filesystem.open(TreePath(request: request.path), for: caller)
    let available = reader.info.size - min(request.offset, reader.info.size)
    let count = request.length == 0 ? available : min(request.length, available)
    let limit = Filesystem.readByteCountMax
    guard count <= limit else { throw .tooLarge("length", limit: limit, found: Int(clamping: count)) }
    let bytes = try await reader.read(offset: request.offset, count: Int(count))
    self.filesystem.noteSent(plain: bytes.count)
    return .with {
      $0.info = reader.info.message
      $0.data = Data(bytes)
    }
  }

  /// Writes in one atomic step, for the session stream.
  func writeAtOnce(
    _ request: Blocktree_V1_WriteRequest, _ caller: CallerIdentity
  ) async throws(FilesystemError) -> FileInfo {
    guard request.hasHeader else { throw .invalid(field: "header") }
    let limit = Filesystem.writeByteCountMax
    guard request.data.count <= limit else { throw .tooLarge("data", limit: limit, found: request.data.count) }
    let header = request.header
    let path = try TreePath(request: header.path)
    let mode = try Mode(request: header.mode, default: 0o644)
    let asked = try Request(caller, header.hasOperation ? header.operation : nil)
    switch header.writeMode {
    case .replace, .create:
      var upload = try await self.filesystem.upload(path, mode: mode, mustBeNew: header.writeMode == .create, asked)
      do throws(FilesystemError) {
        try await upload.append(Array(request.data))
        return try await upload.finish(modified: header.modifiedNs == 0 ? nil : header.modifiedNs)
      } catch {
        await upload.abandon()
        throw error
      }
    case .atOffset:
      return try await self.filesystem.write(Array(request.data)[...], to: path, at: header.offset, asked)
    case .append:
      try await self.makeFileIfMissing(path, mode: mode, caller)
      return try await self.filesystem.write(Array(request.data)[...], to: path, at: nil, asked)
    case .unspecified, .UNRECOGNIZED: throw .invalid(field: "write_mode")
    }
  }
}
