// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
package import GRPCCore
internal import Inodes
internal import SwiftProtobuf
internal import Sectors
internal import Transport
package import Trust

/// The filesystem service as gRPC clients see it. Every handler asks the connection who calls, parses the request into
/// domain types, and leaves the rest to `Filesystem`.
package struct FilesystemServiceHandler: Blocktree_V1_FilesystemService.SimpleServiceProtocol {
  let filesystem: Filesystem
  /// What a new process needs to find the domain, beside its credential.
  let introduction: Introduction

  /// How a new process finds the domain.
  package struct Introduction: Sendable {
    package let rootCertificate: [UInt8]
    /// Processes to start from, with "host:port" addresses.
    package let startFrom: @Sendable () -> [(path: TreePath, addresses: [String])]

    package init(
      rootCertificate: [UInt8], startFrom: @escaping @Sendable () -> [(path: TreePath, addresses: [String])]
    ) {
      self.rootCertificate = rootCertificate
      self.startFrom = startFrom
    }
  }

  package init(_ filesystem: Filesystem, introduction: Introduction) {
    self.filesystem = filesystem
    self.introduction = introduction
  }

  /// Who calls: anonymous, or a principal whose credential stands in the tree with this very key.
  func caller(_ context: ServerContext) throws(FilesystemError) -> CallerIdentity { try self.confirm(context.caller) }

  /// The same for whom a connection has proved.
  func confirm(_ caller: Caller) throws(FilesystemError) -> CallerIdentity {
    switch caller {
    case .anonymous: return .anonymous
    case .credential(let credential):
      guard self.filesystem.isConfirmed(credential) else { throw .permissionDenied }
      return .principal(credential.path)
    }
  }

  package func stat(
    request: Blocktree_V1_StatRequest, context: ServerContext
  ) async throws -> Blocktree_V1_StatResponse {
    let info = try await self.stat(request, self.caller(context))
    return .with { $0.info = info.message }
  }

  package func list(
    request: Blocktree_V1_ListRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ListResponse {
    try await self.list(request, self.caller(context))
  }

  package func makeDirectory(
    request: Blocktree_V1_MakeDirectoryRequest, context: ServerContext
  ) async throws -> Blocktree_V1_MakeDirectoryResponse {
    let info = try await self.makeDirectory(request, self.caller(context))
    return .with { $0.info = info.message }
  }

  package func makeSymbolicLink(
    request: Blocktree_V1_MakeSymbolicLinkRequest, context: ServerContext
  ) async throws -> Blocktree_V1_MakeSymbolicLinkResponse {
    let info = try await self.makeSymbolicLink(request, self.caller(context))
    return .with { $0.info = info.message }
  }

  package func readSymbolicLink(
    request: Blocktree_V1_ReadSymbolicLinkRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadSymbolicLinkResponse {
    try await self.readSymbolicLink(request, self.caller(context))
  }

  package func makeLink(
    request: Blocktree_V1_MakeLinkRequest, context: ServerContext
  ) async throws -> Blocktree_V1_MakeLinkResponse {
    let info = try await self.makeLink(request, self.caller(context))
    return .with { $0.info = info.message }
  }

  package func truncate(
    request: Blocktree_V1_TruncateRequest, context: ServerContext
  ) async throws -> Blocktree_V1_TruncateResponse {
    let info = try await self.truncate(request, self.caller(context))
    return .with { $0.info = info.message }
  }

  package func rename(
    request: Blocktree_V1_RenameRequest, context: ServerContext
  ) async throws -> Blocktree_V1_RenameResponse {
    let info = try await self.rename(request, self.caller(context))
    return .with { $0.info = info.message }
  }

  package func remove(
    request: Blocktree_V1_RemoveRequest, context: ServerContext
  ) async throws -> Blocktree_V1_RemoveResponse {
    try await self.remove(request, self.caller(context))
  }

  package func setAttributes(
    request: Blocktree_V1_SetAttributesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SetAttributesResponse {
    let info = try await self.setAttributes(request, self.caller(context))
    return .with { $0.info = info.message }
  }

  package func statFilesystem(
    request: Blocktree_V1_StatFilesystemRequest, context: ServerContext
  ) async throws -> Blocktree_V1_StatFilesystemResponse {
    try await self.statFilesystem(request, self.caller(context))
  }

  package func openSession(
    request: Blocktree_V1_FilesystemServiceOpenSessionRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FilesystemServiceOpenSessionResponse {
    let writer = try Request(caller: self.caller(context)).writer()
    let session = try await self.filesystem.sectors.openSession(owner: writer)
    return .with { $0.session = Data(session) }
  }

  package func addCredential(
    request: Blocktree_V1_AddCredentialRequest, context: ServerContext
  ) async throws -> Blocktree_V1_AddCredentialResponse {
    let admission = try await self.filesystem.addCredential(
      Array(request.credential), Request(self.caller(context), request.hasOperation ? request.operation : nil))
    return .with {
      $0.joinPackage = .with { join in
        join.rootCertificate = Data(self.introduction.rootCertificate)
        join.credential = request.credential
        join.directory = admission.directory.message
        join.above = self.filesystem.clustersAbove(admission.directory).map { cluster in
          .with {
            $0.generation = cluster.generation.rawValue
            $0.path = cluster.path.description
            $0.fileID = cluster.fileID.message
          }
        }
        join.startFrom = self.introduction.startFrom().map { process in
          .with {
            $0.path = process.path.description
            $0.addresses = process.addresses
          }
        }
        if let readcap = admission.readcap {
          join.readcaps = [
            .with {
              $0.path = readcap.directory.description
              $0.fileID = readcap.fileID.message
              $0.readcap = readcap.readcap.message
            }
          ]
        }
      }
    }
  }

  // MARK: Keys and tasks

  package func grant(
    request: Blocktree_V1_GrantRequest, context: ServerContext
  ) async throws -> Blocktree_V1_GrantResponse {
    let permission = request.permission
    guard permission <= 7 else { throw FilesystemError.invalid(field: "permission") }
    let info = try await self.filesystem.grant(
      TreePath(request: request.path), to: Self.subject(request.principal, isGroup: request.isGroup),
      Permission(rawValue: UInt8(permission)), withKey: request.withKey,
      Request(self.caller(context), request.hasOperation ? request.operation : nil))
    return .with { $0.info = info.message }
  }

  package func revoke(
    request: Blocktree_V1_RevokeRequest, context: ServerContext
  ) async throws -> Blocktree_V1_RevokeResponse {
    let (info, task) = try await self.filesystem.revoke(
      TreePath(request: request.path), from: Self.subject(request.principal, isGroup: request.isGroup),
      Request(self.caller(context), request.hasOperation ? request.operation : nil))
    return .with {
      $0.info = info.message
      if let task { $0.task = task.message }
    }
  }

  package func rekey(
    request: Blocktree_V1_RekeyRequest, context: ServerContext
  ) async throws -> Blocktree_V1_RekeyResponse {
    let (info, task) = try await self.filesystem.rekey(
      TreePath(request: request.path),
      Request(self.caller(context), request.hasOperation ? request.operation : nil))
    return .with {
      $0.info = info.message
      $0.task = task.message
    }
  }

  package func cutOff(
    request: Blocktree_V1_CutOffRequest, context: ServerContext
  ) async throws -> Blocktree_V1_CutOffResponse {
    let info = try await self.filesystem.cutOff(
      TreePath(request: request.path), request.isCutOff,
      Request(self.caller(context), request.hasOperation ? request.operation : nil))
    return .with { $0.info = info.message }
  }

  package func drain(
    request: Blocktree_V1_DrainRequest, context: ServerContext
  ) async throws -> Blocktree_V1_DrainResponse {
    let path = try TreePath(request: request.path)
    let task =
      request.cancel
      ? try await self.filesystem.cancelDrain(path, for: self.caller(context))
      : try await self.filesystem.beginDrain(path, for: self.caller(context))
    return .with { $0.task = task.message }
  }

  package func listTasks(
    request: Blocktree_V1_ListTasksRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ListTasksResponse {
    let path = request.path.isEmpty ? TreePath.root : try TreePath(request: request.path)
    let tasks = try await self.filesystem.tasks(at: path, for: self.caller(context))
    return .with { $0.tasks = tasks.map(\.message) }
  }

  private static func subject(
    _ path: String, isGroup: Bool
  ) throws(FilesystemError) -> AccessEntry.Subject {
    let path = try TreePath(request: path)
    return isGroup ? .group(path) : .principal(path)
  }

  // MARK: Streams

  package func read(
    request: Blocktree_V1_ReadRequest, response: RPCWriter<Blocktree_V1_ReadResponse>, context: ServerContext
  ) async throws {
    var reader = try await self.filesystem.open(TreePath(request: request.path), for: self.caller(context))
    try await response.write(.with { $0.info = reader.info.message })
    let size = reader.info.size
    guard request.offset < size else { return }
    let available = size - request.offset
    let end = request.offset + (request.length == 0 ? available : min(request.length, available))
    func count(from offset: UInt64) -> Int { Int(min(end - offset, UInt64(Self.readByteCount))) }
    var offset = request.offset
    var bytes: [UInt8]
    (reader, bytes) = try await reader.reading(offset: offset, count: count(from: offset))
    while !bytes.isEmpty {
      offset += UInt64(bytes.count)
      // The next piece is read and opened while this one is sent.
      let (present, start, wanted) = (reader, offset, offset < end ? count(from: offset) : 0)
      async let next = present.reading(offset: start, count: wanted)
      // The transport does best with messages of this size.
      for start in stride(from: 0, to: bytes.count, by: SectorLimits.messageByteCount) {
        let part = bytes[start..<min(start + SectorLimits.messageByteCount, bytes.count)]
        self.filesystem.noteSent(plain: part.count)
        try await response.write(.with { $0.data = Data(part) })
      }
      (reader, bytes) = try await next
    }
  }

  /// Bytes that are read from the store at once.
  private static let readByteCount = Filesystem.readByteCountMax

  package func write(
    request: RPCAsyncSequence<Blocktree_V1_WriteRequest, any Error>, context: ServerContext
  ) async throws -> Blocktree_V1_WriteResponse {
    let caller = try self.caller(context)
    var messages = request.makeAsyncIterator()
    guard let first = try await messages.next(), first.hasHeader else { throw FilesystemError.invalid(field: "header") }
    let header = first.header
    let path = try TreePath(request: header.path)
    let mode = try Mode(request: header.mode, default: 0o644)
    let asked = try Request(caller, header.hasOperation ? header.operation : nil)
    var info: FileInfo
    switch header.writeMode {
    case .replace, .create:
      var upload = try await self.filesystem.upload(path, mode: mode, mustBeNew: header.writeMode == .create, asked)
      do {
        try Self.check(first, isFirst: true)
        var piece = Array(first.data)
        var hasMore = try await Self.gather(&piece, from: &messages)
        while true {
          // One piece is sealed and stored while the next one is received.
          let present = upload
          let received = piece
          async let stored = present.appending(received)
          piece = []
          if hasMore { hasMore = try await Self.gather(&piece, from: &messages) }
          upload = try await stored
          if piece.isEmpty, !hasMore { break }
        }
        // A stream that was broken off is not a file that ended.
        try Task.checkCancellation()
        info = try await upload.finish(modified: header.modifiedNs == 0 ? nil : header.modifiedNs)
      } catch {
        await upload.abandon()
        throw error
      }
    case .atOffset, .append:
      // Of several steps none can be told from a repetition.
      guard !header.hasOperation else { throw FilesystemError.invalid(field: "operation") }
      if header.writeMode == .append { try await self.makeFileIfMissing(path, mode: mode, caller) }
      info = try await self.writeInPlace(first, &messages, header: header, path: path, caller)
    case .unspecified, .UNRECOGNIZED: throw FilesystemError.invalid(field: "write_mode")
    }
    return .with { $0.info = info.message }
  }

  /// Receives until there is a piece; false when the stream has ended.
  private static func gather(
    _ piece: inout [UInt8], from messages: inout RPCAsyncSequence<Blocktree_V1_WriteRequest, any Error>.AsyncIterator
  ) async throws -> Bool {
    if piece.isEmpty { piece.reserveCapacity(Filesystem.Upload.bufferByteCount + SectorLimits.messageByteCount) }
    while piece.count < Filesystem.Upload.bufferByteCount {
      guard let message = try await messages.next(isolation: #isolation) else { return false }
      try Self.check(message, isFirst: false)
      piece.append(contentsOf: message.data)
    }
    return true
  }

  private static func check(_ message: Blocktree_V1_WriteRequest, isFirst: Bool) throws(FilesystemError) {
    guard isFirst || !message.hasHeader else { throw .invalid(field: "header") }
    guard message.data.count <= Filesystem.writeByteCountMax else {
      throw .tooLarge("data", limit: Filesystem.writeByteCountMax, found: message.data.count)
    }
  }

  func makeFileIfMissing(
    _ path: TreePath, mode: Mode, _ caller: CallerIdentity
  ) async throws(FilesystemError) {
    do throws(FilesystemError) {
      _ = try await self.filesystem.stat(path, follow: true, for: caller)
    } catch {
      guard case .notFound = error else { throw error }
      do throws(FilesystemError) {
        try await self.filesystem.makeFile(path, mode: mode, Request(caller: caller))
      } catch {
        // Somebody else may have made it meanwhile.
        guard case .alreadyExists = error else { throw error }
      }
    }
  }

  /// Writes in atomic steps: messages are gathered, so that small ones do not cost a commit each.
  private func writeInPlace(
    _ first: Blocktree_V1_WriteRequest,
    _ messages: inout RPCAsyncSequence<Blocktree_V1_WriteRequest, any Error>.AsyncIterator,
    header: Blocktree_V1_WriteHeader, path: TreePath, _ caller: CallerIdentity
  ) async throws -> FileInfo {
    let appends = header.writeMode == .append
    var offset = header.offset
    var buffer = Array(first.data)
    try Self.check(first, isFirst: true)
    var info: FileInfo?
    while true {
      let message = try await messages.next(isolation: #isolation)
      if let message {
        try Self.check(message, isFirst: false)
        buffer += message.data
      }
      while buffer.count >= Filesystem.writeByteCountMax || message == nil && (!buffer.isEmpty || info == nil) {
        try Task.checkCancellation()
        let step = buffer.prefix(Filesystem.writeByteCountMax)
        info = try await self.filesystem.write(step, to: path, at: appends ? nil : offset, Request(caller: caller))
        offset += UInt64(step.count)
        buffer.removeFirst(step.count)
      }
      if message == nil, let info { return info }
    }
  }
}

extension Filesystem {
  /// Whether a credential stands in the tree, with this key.
  func isConfirmed(_ credential: Credential) -> Bool {
    credential.keyID == self.identity.keyID
      || (self.member?.confirms(credential) ?? self.neighbours.confirms(credential))
  }
}
