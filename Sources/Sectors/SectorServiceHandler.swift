// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
package import GRPCCore
internal import Inodes
internal import Raft
internal import Replication
internal import SectorStore
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// The sector service as gRPC clients see it. Every handler asks the connection who calls, parses the request into
/// domain types, and leaves the rest to `SectorGroup`.
///
/// Callers are principals of the domain whose credentials stand in the tree. Nobody is served anonymously.
package struct SectorServiceHandler: Blocktree_V1_SectorService.SimpleServiceProtocol {
  let group: SectorGroup

  package init(_ group: SectorGroup) { self.group = group }

  package func readRecords(
    request: Blocktree_V1_ReadRecordsRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadRecordsResponse {
    try await self.reader(context).records(request)
  }

  package func readSectors(
    request: Blocktree_V1_ReadSectorsRequest, response: RPCWriter<Blocktree_V1_ReadSectorsResponse>,
    context: ServerContext
  ) async throws {
    let reading = try await self.reader(context).open(request)
    // What is read stays readable to the end, whatever is committed meanwhile.
    for piece in reading.pieces { try await response.write(reading.read(piece)) }
  }

  package func readCertificates(
    request: Blocktree_V1_ReadCertificatesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadCertificatesResponse {
    try await self.reader(context).certificates(request)
  }

  package func openSession(
    request: Blocktree_V1_SectorServiceOpenSessionRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SectorServiceOpenSessionResponse {
    let caller = try self.caller(context)
    guard request.session.isEmpty else {
      guard let owner = try? TreePath(parsing: request.owner) else { throw SectorError.invalid(field: "owner") }
      guard let owner = self.group.sessionOwner(owner, actedForBy: caller) else { throw SectorError.permissionDenied }
      _ = try await self.group.openSession(owner: owner, adopting: Array(request.session))
      return .with { $0.session = request.session }
    }
    guard request.owner.isEmpty else { throw SectorError.invalid(field: "owner") }
    let session = try await self.group.openSession(owner: caller.path)
    return .with { $0.session = Data(session) }
  }

  package func findOperation(
    request: Blocktree_V1_FindOperationRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FindOperationResponse {
    let caller = try self.caller(context)
    let operation = try OperationID(schema: request.operation, field: "operation")
    var owner = SessionOwner(caller.path)
    if !request.owner.isEmpty {
      guard let other = try? TreePath(parsing: request.owner) else { throw SectorError.invalid(field: "owner") }
      guard let acted = self.group.sessionOwner(other, actedForBy: caller) ?? (other == caller.path ? owner : nil)
      else { throw SectorError.permissionDenied }
      owner = acted
    }
    let result = try await self.group.result(of: operation, by: owner)
    return .with {
      $0.wasApplied = result != nil
      $0.result = Data(result ?? [])
    }
  }

  package func allocateGeneration(
    request: Blocktree_V1_AllocateGenerationRequest, context: ServerContext
  ) async throws -> Blocktree_V1_AllocateGenerationResponse {
    let caller = try self.caller(context)
    guard self.group.generation == .root else { throw SectorError.wrongGeneration(.root) }
    guard self.group.hostsSectors(caller) else { throw SectorError.permissionDenied }
    let generation = try await self.group.allocateGeneration(claim: Array(request.claim), for: caller.path)
    return .with { $0.generation = generation.rawValue }
  }

  package func setFreeze(
    request: Blocktree_V1_SetFreezeRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SetFreezeResponse {
    let caller = try self.caller(context)
    guard self.group.isFilesystemAbove(caller) else { throw SectorError.permissionDenied }
    guard let state = FreezeState(request.state) else { throw SectorError.invalid(field: "state") }
    try await self.group.setFreeze(state, by: caller.path)
    return .init()
  }

  package func findCredentials(
    request: Blocktree_V1_FindCredentialsRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FindCredentialsResponse {
    let caller = try self.caller(context)
    let directory = try FileID(schema: request.directory, field: "directory")
    guard let served = self.group.filesystemDirectory(of: caller),
      try await self.group.isAtOrAbove(served, [directory], SectorGroup.View(term: 0))
    else { throw SectorError.permissionDenied }
    let areThere = try await self.group.holdsCredentials(atOrBelow: directory)
    return .with { $0.areThere = areThere }
  }

  package func allocateInodes(
    request: Blocktree_V1_AllocateInodesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_AllocateInodesResponse {
    try await self.reader(context).allocate(request)
  }

  package func commit(
    request: Blocktree_V1_CommitRequest, context: ServerContext
  ) async throws -> Blocktree_V1_CommitResponse {
    let caller = try self.caller(context)
    let commit = try Commit(request, sectorSize: self.group.sectorSize)
    let operation = commit.operations.first?.id
    switch try await self.group.perform(commit, by: caller) {
    case .repeated: return Blocktree_V1_CommitResponse(repeating: operation)
    case .applied(let receipt):
      let signature = receipt.records.isEmpty ? nil : try self.group.sign([receipt]).first
      return Blocktree_V1_CommitResponse(
        receipt, operation: operation, signature: signature, signer: self.group.signer)
    }
  }

  package func session(
    request: RPCAsyncSequence<Blocktree_V1_SectorServiceSessionRequest, any Error>,
    response: RPCWriter<Blocktree_V1_SectorServiceSessionResponse>, context: ServerContext
  ) async throws {
    var limits = SessionLimits()
    limits.operationCountMax = SectorLimits.sessionOperationsMax
    limits.byteCountMax = SectorLimits.sessionByteCountMax
    limits.messageByteCount = SectorLimits.messageByteCount
    let session = SectorSession(reader: try self.reader(context))
    try await SessionStream(session, limits: limits).run(request, response)
  }

  package func status(
    request: Blocktree_V1_SectorServiceStatusRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SectorServiceStatusResponse {
    _ = try self.caller(context)
    let group = self.group
    let status = group.status()
    return .with {
      $0.generation = group.generation.rawValue
      $0.superblock = group.superblock(status)
      $0.appliedIndex = status.appliedIndex
      $0.logBytes = status.logBytes
      $0.sectorBytesUsed = status.usedBytes
      $0.sectorBytesAllocated = status.allocatedBytes
      $0.diskBytesFree = status.diskFreeBytes
      $0.inodes = status.inodes
      $0.member = group.memberPath.description
      $0.role = group.replica.leader == group.replica.member ? "leader" : "follower"
      $0.freeze = group.freeze.message
    }
  }

  /// Who calls: a principal that stands in the tree with this very key.
  private func caller(_ context: ServerContext) throws(SectorError) -> Credential {
    guard case .credential(let credential) = context.caller, self.group.confirms(credential) else {
      throw .permissionDenied
    }
    return credential
  }

  private func reader(_ context: ServerContext) throws(SectorError) -> SectorReader {
    SectorReader(group: self.group, caller: try self.caller(context))
  }
}

extension FreezeState {
  /// Nil for none, and for what a newer release may say.
  package init?(_ message: Blocktree_V1_FreezeState) {
    switch message {
    case .open: self = .open
    case .frozen: self = .frozen
    case .retired: self = .retired
    case .unspecified, .UNRECOGNIZED: return nil
    }
  }

  package var message: Blocktree_V1_FreezeState {
    switch self {
    case .open: .open
    case .frozen: .frozen
    case .retired: .retired
    }
  }
}

extension SectorGroup {
  /// What the superblock says at the moment.
  func superblock(_ status: SectorStatus) -> Blocktree_V1_Superblock {
    .with {
      $0.generation = self.generation.rawValue
      $0.formatVersion = 1
      $0.sectorSize = UInt32(self.sectorSize)
      $0.cipherSuite = .aes256GcmSha256
      $0.nextInode = status.inodeNumbers + 1
      $0.nextGeneration = self.nextGeneration
      $0.incarnation = self.life.incarnation.rawValue
    }
  }
}
