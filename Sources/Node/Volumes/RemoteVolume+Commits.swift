// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import BlocktreeSchema
internal import Filesystem
internal import Foundation
internal import GRPCCore
internal import Inodes
internal import Sectors
internal import SwiftProtobuf
internal import Trust

extension RemoteVolume {
  /// Performs a commit. One that completes no operations is given an id here, so that it is applied once even when its
  /// answer is lost and it is sent again.
  ///
  /// - Parameter committer: has to be this process, as the connection says who commits.
  /// - Returns: `repeated` only for commits with operations, and then without what the operation was answered with, as
  ///   that can not be told without its owner: see `result(of:by:)`. When the first answer was lost, a record that was
  ///   overtaken before its acceptance could be read has none.
  /// - Throws: `notServing` when it can not be told whether the commit was applied, `unreachable` when it was not.
  func perform(_ commit: Commit, by committer: Credential) async throws(SectorError) -> CommitOutcome {
    for record in commit.records { try self.require(record.fileID) }
    let outcome: CommitOutcome
    if commit.operations.isEmpty {
      outcome = .applied(try await self.performNumbered(commit))
    } else {
      let response = try await self.send(Blocktree_V1_CommitRequest(commit))
      outcome = try CommitOutcome(response, to: commit)
    }
    for file in commit.removals { self.forget(file) }
    if case .applied(let receipt) = outcome {
      for record in receipt.records where record.acceptance != nil { self.remember(record) }
    }
    return outcome
  }

  private func send(_ request: Blocktree_V1_CommitRequest) async throws(SectorError) -> Blocktree_V1_CommitResponse {
    let byteCount = Self.byteCount(of: request)
    return try await self.cluster.call(.change) { call in
      guard byteCount <= SectorStream.operationByteCountMax else {
        return try await call.sectors.commit(request, options: call.options)
      }
      let outcome = try await call.stream.perform(.commit(request), byteCount: byteCount, deadline: call.deadline)
      guard case .commit(let response) = outcome else { throw SectorError.malformedAnswer("result") }
      return response
    }
  }

  /// About what it takes in a message.
  private static func byteCount(of request: Blocktree_V1_CommitRequest) -> Int {
    request.blocks.reduce(256 + 2_048 * request.records.count) { sum, blocks in
      sum + blocks.blocks.reduce(0) { $0 + $1.bytes.count + 32 }
    }
  }

  /// Performs a commit under an id of this process's own session.
  private func performNumbered(_ commit: Commit) async throws(SectorError) -> CommitReceipt {
    var request = Blocktree_V1_CommitRequest(commit)
    var mayOpenAnew = true
    while true {
      let id = try await self.nextOperationID()
      request.operation = id
      do throws(SectorError) {
        switch try CommitOutcome(await self.send(request), to: commit) {
        case .applied(let receipt): return receipt
        case .repeated: return await self.receipt(again: commit)
        }
      } catch {
        // Sessions are forgotten after a while. This is thrown only when nothing can have been done.
        guard case .sessionUnknown = error, mayOpenAnew else { throw error }
        self.operationIDs.forget(id)
        mayOpenAnew = false
      }
    }
  }

  private func nextOperationID() async throws(SectorError) -> Blocktree_V1_OperationId {
    do {
      return try await self.operationIDs.next {
        let session = try await self.cluster.call(.read) { call in
          try await call.sectors.openSession(.init(), options: call.options).session
        }
        guard session.count == Self.sessionByteCount else { throw SectorError.malformedAnswer("session") }
        return session
      }
    } catch {
      throw error as? SectorError ?? .internalFault("session")
    }
  }

  private static let sessionByteCount = 16

  /// The receipt of a commit that is known to have been applied, though its answer was lost.
  private func receipt(again commit: Commit) async -> CommitReceipt {
    var records = commit.records
    for (index, sent) in commit.records.enumerated() {
      // Nothing but the acceptances is missing, and they are worth nothing once there is a newer version.
      guard let stored = try? await self.record(sent.fileID), stored.version == sent.version,
        stored.acceptanceDigest == sent.acceptanceDigest
      else { continue }
      records[index] = stored
    }
    // Where it stands in the log, and who had it then, is lost with the answer.
    return CommitReceipt(
      records: records, logIndex: 0, members: [],
      acceptancesDigest: Digest32(sha256: records.flatMap { $0.acceptanceDigest.bytes }))
  }

  // MARK: Operations, sessions, numbers

  func result(of operation: OperationID, by principal: TreePath) async throws(SectorError) -> [UInt8]? {
    let request = Blocktree_V1_FindOperationRequest.with {
      $0.operation = operation.message
      $0.owner = principal.description
    }
    return try await self.cluster.call(.read) { call in
      let response = try await call.sectors.findOperation(request, options: call.options)
      return response.wasApplied ? Array(response.result) : nil
    }
  }

  /// The session's name is chosen here: the cluster opens sessions of its own only for whoever asks.
  func openSession(owner: TreePath) async throws(SectorError) -> [UInt8] {
    var random = SystemRandomNumberGenerator()
    let session = (0..<Self.sessionByteCount).map { _ in UInt8.random(in: .min ... .max, using: &random) }
    try await self.adopt(session: session, owner: owner)
    return session
  }

  func adopt(session: [UInt8], owner: TreePath) async throws(SectorError) {
    let request = Blocktree_V1_SectorServiceOpenSessionRequest.with {
      $0.session = Data(session)
      $0.owner = owner.description
    }
    // To do it twice changes nothing.
    _ = try await self.cluster.call(.read) { call in
      try await call.sectors.openSession(request, options: call.options)
    }
  }

  func freezeState() async throws(SectorError) -> FreezeState {
    let status = try await self.status()
    // Earlier releases do not say.
    guard status.freeze != .unspecified else { return .open }
    guard let state = FreezeState(status.freeze) else { throw SectorError.malformedAnswer("freeze") }
    return state
  }

  func holdsCredentials(atOrBelow directory: FileID) async throws(SectorError) -> Bool {
    try self.require(directory)
    let request = Blocktree_V1_FindCredentialsRequest.with { $0.directory = directory.message }
    return try await self.cluster.call(.read) { call in
      try await call.sectors.findCredentials(request, options: call.options).areThere
    }
  }

  func usage() async throws(SectorError) -> VolumeUsage {
    let status = try await self.status()
    return VolumeUsage(usedBytes: status.sectorBytesUsed, freeBytes: status.diskBytesFree, inodes: status.inodes)
  }

  private func status() async throws(SectorError) -> Blocktree_V1_SectorServiceStatusResponse {
    let generation = self.generation
    return try await self.cluster.call(.read) { call in
      let status = try await call.sectors.status(.init(), options: call.options)
      guard status.generation == generation.rawValue else { throw SectorError.malformedAnswer("generation") }
      return status
    }
  }

  func setFreeze(_ state: FreezeState, by process: Credential) async throws(SectorError) {
    let request = Blocktree_V1_SetFreezeRequest.with { $0.state = state.message }
    _ = try await self.cluster.call(.read) { call in
      try await call.sectors.setFreeze(request, options: call.options)
    }
  }

  /// When the answer is lost, other numbers are taken: those are never handed out then.
  func allocateInodes(_ count: UInt32) async throws(SectorError) -> UInt64 {
    let request = Blocktree_V1_AllocateInodesRequest.with { $0.count = count }
    let generation = self.generation
    return try await self.cluster.call(.read) { call in
      let outcome = try await call.stream.perform(.allocateInodes(request), byteCount: 64, deadline: call.deadline)
      guard case .allocateInodes(let response) = outcome else { throw SectorError.malformedAnswer("result") }
      guard response.generation == generation.rawValue, response.count == count, response.first > 0,
        response.first <= UInt64(Int64.max)
      else { throw SectorError.malformedAnswer("allocate_inodes") }
      return response.first
    }
  }
}
