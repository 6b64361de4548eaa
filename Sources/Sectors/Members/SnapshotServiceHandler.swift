// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
package import GRPCCore
package import Raft
internal import SectorStore
internal import SwiftProtobuf
internal import Transport
package import Trust

/// Takes snapshots from the other members of the group.
///
/// Callers are processes that the cluster admits, as for ``MemberServiceHandler``, and name the member that they are.
/// All runs on the event loop of the connection, but for the import itself, which has a thread of the inbox.
package struct SnapshotServiceHandler: Blocktree_V1_SnapshotService.SimpleServiceProtocol {
  /// What the handler needs to know of the process. All functions are called on event loops and must answer from memory.
  package struct Configuration: Sendable {
    /// Who this process is; nil when it does not serve. Its member id is needed also while it has no store. Asked for
    /// each call.
    package var identity: @Sendable () -> MemberIdentity?
    /// Whether a process may speak here. Asked for each message of a stream, too: a stream may outlive a credential.
    package var admits: @Sendable (Credential) -> Bool
    /// The member that the process at a path is known as; nil if none is known. Then it is who it says.
    package var memberID: @Sendable (TreePath) -> MemberID?
    /// Where snapshots go at present; nil while none are taken. Asked for each call.
    package var inbox: @Sendable () -> SnapshotInbox?
    /// Refuses snapshots of a life of the group that is over.
    package var lives: LifeGuard

    package init(
      identity: @escaping @Sendable () -> MemberIdentity?, admits: @escaping @Sendable (Credential) -> Bool,
      memberID: @escaping @Sendable (TreePath) -> MemberID?, inbox: @escaping @Sendable () -> SnapshotInbox?,
      lives: LifeGuard
    ) {
      self.identity = identity
      self.admits = admits
      self.memberID = memberID
      self.inbox = inbox
      self.lives = lives
    }
  }

  private typealias Requests = RPCAsyncSequence<Blocktree_V1_InstallRequest, any Error>

  private let configuration: Configuration

  package init(_ configuration: Configuration) { self.configuration = configuration }

  package func install(
    request: RPCAsyncSequence<Blocktree_V1_InstallRequest, any Error>,
    response: RPCWriter<Blocktree_V1_InstallResponse>, context: ServerContext
  ) async throws {
    guard case .credential(let caller) = context.caller, caller.kind == .process, self.configuration.admits(caller)
    else { throw MemberError.permissionDenied }
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { try await self.install(request, response, from: caller) }
      tasks.addTask {
        // The stream would hold up a server that shuts down.
        try await context.cancellation.cancelled
        throw MemberError.notServing
      }
      defer { tasks.cancelAll() }
      try await tasks.next()
    }
  }

  private func install(
    _ requests: Requests, _ response: RPCWriter<Blocktree_V1_InstallResponse>, from caller: Credential
  ) async throws {
    var requests = requests.makeAsyncIterator()
    guard let first = try await requests.next(), first.hasHeader, first.items.isEmpty, first.itemByteCounts.isEmpty
    else { throw MemberError.invalid(field: "header") }
    let header = try self.header(first, caller)
    guard let inbox = self.configuration.inbox() else { throw MemberError.notServing }
    let intake = try await inbox.begin(header)
    do {
      try await response.write(.init(durable: intake.start, receivedByteCount: 0))
      let byteCount = try await self.receive(&requests, response, intake, from: caller)
      try await intake.finish()
      // Whether or not the sender is still there: it is done.
      var last = Blocktree_V1_InstallResponse(durable: .end, receivedByteCount: byteCount)
      last.installed = true
      try? await response.write(last)
    } catch {
      await intake.end()
      throw error
    }
    await intake.end()
    // Last of all: the process ends its calls now, and this one is to be answered.
    intake.installed()
  }

  /// Has everything imported that comes in, up to the last item. While one piece is imported, the next one is received,
  /// and no more. Returns how many bytes the items had.
  private func receive(
    _ requests: inout Requests.AsyncIterator, _ response: RPCWriter<Blocktree_V1_InstallResponse>,
    _ intake: SnapshotIntake, from caller: Credential
  ) async throws -> UInt64 {
    var assembly = SnapshotAssembly()
    var piece: [[UInt8]] = []
    var (pieceByteCount, byteCount) = (0, UInt64(0))
    // A sender that went on before has nothing left where all of it has come.
    var isWhole = intake.start == .end
    return try await withThrowingTaskGroup(of: Bool.self) { imports in
      while let request = try await requests.next() {
        guard self.configuration.admits(caller) else { throw MemberError.permissionDenied }
        guard !request.hasHeader else { throw MemberError.invalid(field: "header") }
        intake.heard(request.items.count)
        for item in try assembly.receive(request) {
          pieceByteCount += item.count
          piece.append(item)
        }
        guard pieceByteCount >= SnapshotLimits.pieceByteCount else { continue }
        // The one before.
        if let wasLast = try await imports.next() { isWhole = wasLast }
        byteCount += UInt64(pieceByteCount)
        imports.addTask { [piece, byteCount] in try await self.take(piece, upTo: byteCount, response, intake) }
        piece = []
        pieceByteCount = 0
      }
      if let wasLast = try await imports.next() { isWhole = wasLast }
      if !piece.isEmpty {
        byteCount += UInt64(pieceByteCount)
        isWhole = try await self.take(piece, upTo: byteCount, response, intake)
      }
      guard isWhole, assembly.isWhole else { throw MemberError.invalid(field: "items") }
      return byteCount
    }
  }

  /// Imports a piece and says so. Returns whether it was the last one.
  private func take(
    _ piece: [[UInt8]], upTo byteCount: UInt64, _ response: RPCWriter<Blocktree_V1_InstallResponse>,
    _ intake: SnapshotIntake
  ) async throws -> Bool {
    let (durable, isWhole) = try await intake.add(piece)
    try await response.write(.init(durable: durable, receivedByteCount: byteCount))
    return isWhole
  }

  /// The header, if both ends are who it says.
  private func header(
    _ request: Blocktree_V1_InstallRequest, _ caller: Credential
  ) throws(MemberError) -> SnapshotHeader {
    let header = try SnapshotHeader(request.header)
    guard let identity = self.configuration.identity() else { throw .notServing }
    guard header.generation == identity.generation else { throw .wrongGeneration(identity.generation) }
    try self.configuration.lives.check(incarnation: header.incarnation, warrant: header.warrant)
    guard let own = identity.member else { throw .notServing }
    guard header.receiver == own else { throw .wrongMember(.receiver, expected: own) }
    let known = self.configuration.memberID(caller.path)
    guard header.sender != own, known == nil || known == header.sender else {
      throw .wrongMember(.sender, expected: known)
    }
    return header
  }
}

extension Blocktree_V1_InstallResponse {
  fileprivate init(durable: SnapshotCursor?, receivedByteCount: UInt64) {
    self.init()
    self.durableCursor = .init(durable?.encoded() ?? [])
    self.receivedByteCount = receivedByteCount
  }
}
