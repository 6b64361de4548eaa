// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
package import GRPCCore
internal import GRPCProtobuf
internal import Sectors
internal import SwiftProtobuf
internal import Transport
internal import Trust

extension FilesystemServiceHandler {
  package func session(
    request: RPCAsyncSequence<Blocktree_V1_FilesystemServiceSessionRequest, any Error>,
    response: RPCWriter<Blocktree_V1_FilesystemServiceSessionResponse>, context: ServerContext
  ) async throws {
    var limits = SessionLimits()
    limits.operationCountMax = SectorLimits.sessionOperationsMax
    limits.byteCountMax = SectorLimits.sessionByteCountMax
    let session = try FilesystemSession(self, context.caller)
    try await SessionStream(session, limits: limits).run(request, response)
  }
}

/// The filesystem's operations on a session stream.
struct FilesystemSession: SessionService {
  private let handler: FilesystemServiceHandler
  /// As the connection proved it.
  private let connected: Caller
  private let caller: CallerIdentity

  init(_ handler: FilesystemServiceHandler, _ connected: Caller) throws(FilesystemError) {
    self.handler = handler
    self.connected = connected
    self.caller = try handler.confirm(connected)
  }

  /// What a record and its message take, beside contents.
  private static let overheadByteCount = 1_024

  func operations(
    in request: Blocktree_V1_FilesystemServiceSessionRequest
  ) throws -> [Blocktree_V1_FilesystemOperation] {
    // The stream may outlive the credential.
    _ = try self.handler.confirm(self.connected)
    guard request.operations.count <= SectorLimits.sessionOperationsMax else {
      throw FilesystemError.tooLarge(
        "operations", limit: SectorLimits.sessionOperationsMax, found: request.operations.count)
    }
    return request.operations
  }

  func byteCount(of operation: Blocktree_V1_FilesystemOperation) -> Int {
    switch operation.operation {
    case .write(let write): Self.overheadByteCount + write.data.count
    case .read(let read):
      Self.overheadByteCount
        + (read.length == 0
          ? Filesystem.readByteCountMax : Int(clamping: min(read.length, UInt64(Filesystem.readByteCountMax))))
    case .list(let list):
      Self.overheadByteCount
        + min(
          Filesystem.pageByteCountMax,
          (list.withInfo ? 1_024 : 320) * (list.pageSize == 0 ? 1_000 : Int(clamping: min(list.pageSize, 1_000))))
    default: Self.overheadByteCount
    }
  }

  func perform(
    _ operations: [Blocktree_V1_FilesystemOperation], _ answers: SessionAnswers<Blocktree_V1_FilesystemResult>
  ) async {
    await withDiscardingTaskGroup { tasks in
      for (index, operation) in operations.enumerated() {
        tasks.addTask {
          let result = await self.perform(operation)
          answers.send(result, for: index)
        }
      }
    }
  }

  private func perform(_ operation: Blocktree_V1_FilesystemOperation) async -> Blocktree_V1_FilesystemResult {
    var result = Blocktree_V1_FilesystemResult()
    result.id = operation.id
    do throws(FilesystemError) {
      result.result = try await self.result(of: operation)
    } catch {
      result.failure = Blocktree_V1_Failure(error.status)
    }
    return result
  }

  private func result(
    of operation: Blocktree_V1_FilesystemOperation
  ) async throws(FilesystemError) -> Blocktree_V1_FilesystemResult.OneOf_Result {
    let handler = self.handler
    switch operation.operation {
    case .stat(let request): return .info(try await handler.stat(request, self.caller).message)
    case .list(let request): return .list(try await handler.list(request, self.caller))
    case .makeDirectory(let request): return .info(try await handler.makeDirectory(request, self.caller).message)
    case .makeSymbolicLink(let request): return .info(try await handler.makeSymbolicLink(request, self.caller).message)
    case .readSymbolicLink(let request): return .symbolicLink(try await handler.readSymbolicLink(request, self.caller))
    case .makeLink(let request): return .info(try await handler.makeLink(request, self.caller).message)
    case .read(let request): return .read(try await handler.readAtOnce(request, self.caller))
    case .write(let request): return .info(try await handler.writeAtOnce(request, self.caller).message)
    case .truncate(let request): return .info(try await handler.truncate(request, self.caller).message)
    case .rename(let request): return .info(try await handler.rename(request, self.caller).message)
    case .remove(let request): return .remove(try await handler.remove(request, self.caller))
    case .setAttributes(let request): return .info(try await handler.setAttributes(request, self.caller).message)
    case .statFilesystem(let request): return .filesystem(try await handler.statFilesystem(request, self.caller))
    case nil: throw .invalid(field: "operation")
    }
  }

  func byteCount(of answer: Blocktree_V1_FilesystemResult) -> Int {
    switch answer.result {
    case .read(let read): Self.overheadByteCount + read.data.count
    case .list(let list): list.entries.reduce(64) { $0 + Self.byteCount(of: $1) }
    default: Self.overheadByteCount / 4
    }
  }

  private static func byteCount(of entry: Blocktree_V1_DirectoryEntry) -> Int {
    var byteCount = 64 + entry.name.utf8.count
    if entry.hasInfo {
      byteCount += 128
      for access in entry.info.access { byteCount += 16 + access.path.utf8.count }
    }
    return byteCount
  }

  func response(
    _ answers: [Blocktree_V1_FilesystemResult]
  ) throws -> Blocktree_V1_FilesystemServiceSessionResponse {
    .with { $0.results = answers }
  }
}
