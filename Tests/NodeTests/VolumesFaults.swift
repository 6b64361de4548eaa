// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import GRPCCore
import Sectors
import SwiftProtobuf
import Synchronization
import Transport

/// What goes wrong in a process, by the name of the method; and how often each was called.
final class VolumeFaults: Sendable {
  enum Fault: Sendable {
    /// Nothing is done.
    case refuse(SectorError)
    /// It is done, then this, and the answer is lost.
    case loseAnswer(@Sendable () async throws -> Void)
    /// No answer ever.
    case hang
  }

  private struct State {
    var next: [String: [Fault]] = [:]
    var always: [String: Fault] = [:]
    var counts: [String: Int] = [:]
  }

  private let state = Mutex(State())

  /// The next calls of a method fail so, one after the other.
  func inject(_ faults: Fault..., into method: String) {
    self.state.withLock { $0.next[method, default: []] += faults }
  }

  /// All calls of a method fail so that have no fault of their own; nil: not any more.
  func set(_ fault: Fault?, for method: String) { self.state.withLock { $0.always[method] = fault } }

  func count(_ method: String) -> Int { self.state.withLock { $0.counts[method] ?? 0 } }

  func calling<Answer>(_ method: String, _ body: () async throws -> Answer) async throws -> Answer {
    let fault = self.state.withLock { state -> Fault? in
      state.counts[method, default: 0] += 1
      if state.next[method]?.isEmpty == false { return state.next[method]?.removeFirst() }
      return state.always[method]
    }
    switch fault {
    case nil: return try await body()
    case .refuse(let error): throw error
    case .loseAnswer(let then):
      _ = try await body()
      try await then()
      throw RPCError(code: .unavailable, message: "The answer is lost.")
    case .hang:
      try await Task.sleep(for: .seconds(600))
      throw RPCError(code: .unavailable, message: "")
    }
  }
}

struct VolumeHealth: Grpc_Health_V1_Health.SimpleServiceProtocol {
  let faults: VolumeFaults

  func check(
    request: Grpc_Health_V1_HealthCheckRequest, context: ServerContext
  ) async throws -> Grpc_Health_V1_HealthCheckResponse {
    try await self.faults.calling("Check") { .with { $0.status = .serving } }
  }

  func watch(
    request: Grpc_Health_V1_HealthCheckRequest, response: RPCWriter<Grpc_Health_V1_HealthCheckResponse>,
    context: ServerContext
  ) async throws {}
}

/// The sector service with its faults. Operations of a session stream count as calls of their methods, and are done one
/// after the other.
struct FaultySectorService: Blocktree_V1_SectorService.SimpleServiceProtocol {
  let handler: SectorServiceHandler
  let faults: VolumeFaults

  func readRecords(
    request: Blocktree_V1_ReadRecordsRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadRecordsResponse {
    try await self.faults.calling("ReadRecords") {
      try await self.handler.readRecords(request: request, context: context)
    }
  }

  func readSectors(
    request: Blocktree_V1_ReadSectorsRequest, response: RPCWriter<Blocktree_V1_ReadSectorsResponse>,
    context: ServerContext
  ) async throws {
    try await self.faults.calling("ReadSectors") {
      try await self.handler.readSectors(request: request, response: response, context: context)
    }
  }

  func readCertificates(
    request: Blocktree_V1_ReadCertificatesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadCertificatesResponse {
    try await self.faults.calling("ReadCertificates") {
      try await self.handler.readCertificates(request: request, context: context)
    }
  }

  func openSession(
    request: Blocktree_V1_SectorServiceOpenSessionRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SectorServiceOpenSessionResponse {
    try await self.faults.calling("OpenSession") {
      try await self.handler.openSession(request: request, context: context)
    }
  }

  func findOperation(
    request: Blocktree_V1_FindOperationRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FindOperationResponse {
    try await self.faults.calling("FindOperation") {
      try await self.handler.findOperation(request: request, context: context)
    }
  }

  func allocateGeneration(
    request: Blocktree_V1_AllocateGenerationRequest, context: ServerContext
  ) async throws -> Blocktree_V1_AllocateGenerationResponse {
    try await self.handler.allocateGeneration(request: request, context: context)
  }

  func setFreeze(
    request: Blocktree_V1_SetFreezeRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SetFreezeResponse {
    try await self.handler.setFreeze(request: request, context: context)
  }

  func findCredentials(
    request: Blocktree_V1_FindCredentialsRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FindCredentialsResponse {
    try await self.handler.findCredentials(request: request, context: context)
  }

  func allocateInodes(
    request: Blocktree_V1_AllocateInodesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_AllocateInodesResponse {
    try await self.faults.calling("AllocateInodes") {
      try await self.handler.allocateInodes(request: request, context: context)
    }
  }

  func commit(
    request: Blocktree_V1_CommitRequest, context: ServerContext
  ) async throws -> Blocktree_V1_CommitResponse {
    try await self.faults.calling("Commit") { try await self.handler.commit(request: request, context: context) }
  }

  func status(
    request: Blocktree_V1_SectorServiceStatusRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SectorServiceStatusResponse {
    try await self.faults.calling("Status") { try await self.handler.status(request: request, context: context) }
  }

  func session(
    request: RPCAsyncSequence<Blocktree_V1_SectorServiceSessionRequest, any Error>,
    response: RPCWriter<Blocktree_V1_SectorServiceSessionResponse>, context: ServerContext
  ) async throws {
    for try await message in request {
      for operation in message.operations {
        var result = Blocktree_V1_SectorResult()
        result.id = operation.id
        do {
          switch operation.operation {
          case .commit(let request): result.commit = try await self.commit(request: request, context: context)
          case .readRecords(let request):
            result.readRecords = try await self.readRecords(request: request, context: context)
          case .allocateInodes(let request):
            result.allocateInodes = try await self.allocateInodes(request: request, context: context)
          // Only the service itself can put these into one message; tests with faults read what needs a call.
          case .readSectors, nil: throw RPCError(code: .unimplemented, message: "")
          }
        } catch let error as SectorError {
          let details = StatusDetails(RPCError(error))
          result.failure = .with {
            $0.code = Int32(details.code.rawValue)
            $0.reason = details.reason ?? ""
            $0.metadata = details.metadata
          }
        }
        try await response.write(.with { $0.results = [result] })
      }
    }
  }
}
