// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import Transport

extension Client {
  public func perform(_ request: FileRequest) async throws -> FileResponse {
    try await self.core.routed(request, timeout: self.timeout) { request, attempt in
      guard request.takesID else {
        return FileResponse(
          result: try await attempt.call(isRepeatable: { request.isRepeatable }) { connection, options in
            try await request.send(over: connection, options)
          })
      }
      let (cluster, timeout) = (attempt.cluster, attempt.timeout)
      return try await cluster.withOperationID(timeout: timeout, &attempt.trace) { id, trace, wasRepeated in
        var numbered = request
        numbered.id = id
        let request = numbered
        var attemptCount = 0
        defer { wasRepeated = attemptCount > 1 }
        let result = try await cluster.call(timeout: timeout, &trace, isRepeatable: { request.isRepeatable }) {
          connection, options in
          attemptCount += 1
          return try await request.send(over: connection, options)
        }
        return FileResponse(result: result)
      }
    }
  }
}

extension FileRequest {
  /// Makes the one call that this operation is.
  fileprivate func send(
    over connection: NodeConnection, _ options: CallOptions
  ) async throws -> Blocktree_V1_FilesystemResult.OneOf_Result {
    let service = connection.filesystem
    switch self.operation {
    case .stat(let request): return .info(try await service.stat(request, options: options).info)
    case .list(let request): return .list(try await service.list(request, options: options))
    case .makeDirectory(let request): return .info(try await service.makeDirectory(request, options: options).info)
    case .makeSymbolicLink(let request):
      return .info(try await service.makeSymbolicLink(request, options: options).info)
    case .readSymbolicLink(let request):
      return .symbolicLink(try await service.readSymbolicLink(request, options: options))
    case .makeLink(let request): return .info(try await service.makeLink(request, options: options).info)
    case .read(let request):
      let read = try await service.read(request, options: options) { response in
        var whole = Blocktree_V1_ReadResponse()
        for try await part in response.messages {
          if part.hasInfo { whole.info = part.info }
          whole.data.append(part.data)
        }
        return whole
      }
      return .read(read)
    case .write(let request):
      let response = try await service.write(options: options) { try await $0.write(request) }
      return .info(response.info)
    case .truncate(let request): return .info(try await service.truncate(request, options: options).info)
    case .rename(let request): return .info(try await service.rename(request, options: options).info)
    case .remove(let request): return .remove(try await service.remove(request, options: options))
    case .setAttributes(let request): return .info(try await service.setAttributes(request, options: options).info)
    case .statFilesystem(let request):
      return .filesystem(try await service.statFilesystem(request, options: options))
    }
  }
}
