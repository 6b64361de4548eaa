// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCProtobuf
internal import Inodes
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// The sector service's operations on a session stream. The commits of a message are accepted together, and the
/// receipts that go out together are signed together.
struct SectorSession: SessionService {
  let reader: SectorReader

  private var group: SectorGroup { self.reader.group }

  /// What an operation and its answer take beside sectors.
  private static let overheadByteCount = 1_024
  /// What a record takes in a message.
  private static let recordByteCount = 2_048

  enum Answer: Sendable {
    case result(Blocktree_V1_SectorResult)
    /// Still to be signed.
    case receipt(id: UInt64, OperationID?, CommitReceipt)
  }

  func operations(in request: Blocktree_V1_SectorServiceSessionRequest) throws -> [Blocktree_V1_SectorOperation] {
    // The stream may outlive the credential.
    guard self.group.confirms(self.reader.caller) else { throw SectorError.permissionDenied }
    let found = request.operations.count
    guard found <= SectorLimits.sessionOperationsMax else {
      throw SectorError.tooLarge("operations", limit: SectorLimits.sessionOperationsMax, found: found)
    }
    return request.operations
  }

  func byteCount(of operation: Blocktree_V1_SectorOperation) -> Int {
    switch operation.operation {
    case .commit(let commit):
      commit.blocks.reduce(Self.overheadByteCount + commit.records.count * Self.recordByteCount) { sum, blocks in
        sum + blocks.blocks.reduce(0) { $0 + $1.bytes.count }
      }
    case .readSectors(let request):
      Self.overheadByteCount + min(self.reader.byteCount(of: request), SectorLimits.sessionReadByteCountMax)
    case .readRecords(let request): Self.overheadByteCount + request.fileIds.count * Self.recordByteCount
    case .allocateInodes, nil: Self.overheadByteCount
    }
  }

  func byteCount(of answer: Answer) -> Int {
    switch answer {
    case .receipt(_, _, let receipt): 512 + receipt.records.count * 256
    case .result(let result):
      switch result.result {
      case .readSectors(let response): response.blocks.reduce(64) { $0 + $1.bytes.count + 16 }
      case .readRecords(let response): 64 + response.records.count * Self.recordByteCount
      default: 256
      }
    }
  }

  func perform(_ operations: [Blocktree_V1_SectorOperation], _ answers: SessionAnswers<Answer>) async {
    let commits = operations.indices.filter { if case .commit = operations[$0].operation { true } else { false } }
    // The most common messages need no tasks of their own.
    if commits.count == operations.count { return await self.commit(operations, commits, answers) }
    if let operation = operations.first, operations.count == 1 {
      return answers.send(.result(await self.result(of: operation)), for: 0)
    }
    await withDiscardingTaskGroup { tasks in
      if !commits.isEmpty { tasks.addTask { await self.commit(operations, commits, answers) } }
      for (index, operation) in operations.enumerated() {
        if case .commit = operation.operation { continue }
        tasks.addTask { answers.send(.result(await self.result(of: operation)), for: index) }
      }
    }
  }

  private func commit(
    _ operations: [Blocktree_V1_SectorOperation], _ indexes: [Int], _ answers: SessionAnswers<Answer>
  ) async {
    var commits: [Commit] = []
    var taken: [Int] = []
    for index in indexes {
      do throws(SectorError) {
        commits.append(try Commit(operations[index].commit, sectorSize: self.group.sectorSize))
        taken.append(index)
      } catch {
        answers.send(.failed(operations[index].id, error), for: index)
      }
    }
    let outcomes = await self.group.perform(commits, by: self.reader.caller)
    for (number, outcome) in outcomes.enumerated() {
      let index = taken[number]
      let id = operations[index].id
      let operation = commits[number].operations.first?.id
      switch outcome {
      case .success(.applied(let receipt)): answers.send(.receipt(id: id, operation, receipt), for: index)
      case .success(.repeated):
        answers.send(
          .result(
            .with {
              $0.id = id
              $0.commit = Blocktree_V1_CommitResponse(repeating: operation)
            }), for: index)
      case .failure(let error): answers.send(.failed(id, error), for: index)
      }
    }
  }

  /// Performs anything but a commit.
  private func result(of operation: Blocktree_V1_SectorOperation) async -> Blocktree_V1_SectorResult {
    var result = Blocktree_V1_SectorResult()
    result.id = operation.id
    do throws(SectorError) {
      switch operation.operation {
      case .readSectors(let request):
        let byteCount = self.reader.byteCount(of: request)
        guard byteCount <= SectorLimits.sessionReadByteCountMax else {
          throw .tooLarge("runs", limit: SectorLimits.sessionReadByteCountMax, found: byteCount)
        }
        result.readSectors = try await self.reader.open(request).readAll()
      case .readRecords(let request): result.readRecords = try await self.reader.records(request)
      case .allocateInodes(let request): result.allocateInodes = try await self.reader.allocate(request)
      case .commit, nil: throw .invalid(field: "operation")
      }
    } catch {
      result.failure = Blocktree_V1_Failure(error.status)
    }
    return result
  }

  func response(_ answers: [Answer]) throws -> Blocktree_V1_SectorServiceSessionResponse {
    var receipts: [CommitReceipt] = []
    for case .receipt(_, _, let receipt) in answers where !receipt.records.isEmpty { receipts.append(receipt) }
    var signatures = try self.group.sign(receipts)[...]
    var response = Blocktree_V1_SectorServiceSessionResponse()
    response.results.reserveCapacity(answers.count)
    for answer in answers {
      switch answer {
      case .result(let result): response.results.append(result)
      case .receipt(let id, let operation, let receipt):
        let signature = receipt.records.isEmpty ? nil : signatures.popFirst()
        response.results.append(
          .with {
            $0.id = id
            $0.commit = Blocktree_V1_CommitResponse(
              receipt, operation: operation, signature: signature, signer: self.group.signer)
          })
      }
    }
    return response
  }
}

extension SectorSession.Answer {
  fileprivate static func failed(_ id: UInt64, _ error: SectorError) -> Self {
    .result(
      .with {
        $0.id = id
        $0.failure = Blocktree_V1_Failure(error.status)
      })
  }
}
