// SPDX-License-Identifier: Apache-2.0

public import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf
internal import Transport

/// Many operations of the sector service over one long-lived stream, many of them in one message.
public final class SectorSession: Sendable {
  private typealias Operation = Blocktree_V1_SectorOperation.OneOf_Operation
  private typealias Outcome = Blocktree_V1_SectorResult.OneOf_Result

  private let timeout: Duration?
  private let stream: OperationStream<Operation, Outcome>

  init(_ cluster: ClusterCore, timeout: Duration?) {
    self.timeout = timeout
    self.stream = OperationStream(cluster) { outcome in
      if case .failure(let failure) = outcome { BlocktreeError(failure) } else { nil }
    } open: { connection, next, answered in
      try await connection.sectors.session { writer in
        while let batch = await next() {
          try await writer.write(
            .with { message in
              message.operations = batch.map { id, operation in
                .with {
                  $0.id = id
                  $0.operation = operation
                }
              }
            })
        }
      } onResponse: { response in
        for try await message in response.messages {
          for result in message.results {
            guard let outcome = result.result else { throw BlocktreeError.malformedAnswer("result") }
            try answered(result.id, outcome)
          }
        }
      }
    }
  }

  func run() async { await self.stream.run() }

  func close() { self.stream.close() }

  /// As ``SectorClient/commit(_:)``.
  public func commit(_ request: Blocktree_V1_CommitRequest) async throws -> Blocktree_V1_CommitResponse {
    let byteCount = request.blocks.reduce(0) { $0 + $1.blocks.reduce(0) { $0 + $1.bytes.count + 32 } }
    let outcome = try await self.perform(
      .commit(request), byteCount: byteCount + 2048 * request.records.count + 256, isRepeatable: request.hasOperation)
    guard case .commit(let response) = outcome else { throw BlocktreeError.malformedAnswer("commit") }
    return response
  }

  /// Reads at most 1 MiB of sealed sectors or tree nodes.
  public func readSectors(_ request: Blocktree_V1_ReadSectorsRequest) async throws -> Blocktree_V1_ReadSectorsResponse {
    let outcome = try await self.perform(.readSectors(request), byteCount: 256 + 64 * request.runs.count)
    guard case .readSectors(let response) = outcome else { throw BlocktreeError.malformedAnswer("read_sectors") }
    return response
  }

  /// As ``SectorClient/readRecords(_:)``.
  public func readRecords(_ files: [FileID]) async throws -> [Blocktree_V1_InodeRecord] {
    let outcome = try await self.perform(
      .readRecords(.with { $0.fileIds = files.map(\.message) }), byteCount: 64 + 24 * files.count)
    guard case .readRecords(let response) = outcome, response.records.count == files.count else {
      throw BlocktreeError.malformedAnswer("read_records")
    }
    return response.records
  }

  /// As ``SectorClient/allocateInodes(_:)``.
  public func allocateInodes(_ count: Int) async throws -> Blocktree_V1_AllocateInodesResponse {
    let outcome = try await self.perform(.allocateInodes(.with { $0.count = UInt32(clamping: count) }), byteCount: 64)
    guard case .allocateInodes(let response) = outcome else { throw BlocktreeError.malformedAnswer("allocate_inodes") }
    return response
  }

  private func perform(_ operation: Operation, byteCount: Int, isRepeatable: Bool = true) async throws -> Outcome {
    var schedule = RetrySchedule(timeout: self.timeout, patience: .zero, now: .now)
    var trace = CallTrace()
    while true {
      let (outcome, _) = try await self.stream.perform(
        operation, byteCount: byteCount, messageByteCount: byteCount, isRepeatable: isRepeatable,
        deadline: schedule.deadline, &trace)
      guard case .failure(let failure) = outcome else { return outcome }
      let error = BlocktreeError(failure)
      var random = SystemRandomNumberGenerator()
      let delay = schedule.delay(
        after: error, wasSent: true, isRepeatable: isRepeatable, now: .now, using: &random)
      guard let delay else { throw error }
      try await Task.sleep(for: delay)
    }
  }
}

extension Client {
  /// Opens a session of the sector service for as long as `body` runs; see ``withFileSession(_:)``.
  public func withSectorSession<Result>(_ body: (SectorSession) async throws -> Result) async throws -> Result {
    let session = SectorSession(self.core.home, timeout: self.timeout)
    return try await withSession(run: { await session.run() }, close: { session.close() }) {
      try await body(session)
    }
  }
}
