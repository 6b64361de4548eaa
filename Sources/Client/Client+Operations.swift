// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import Transport

extension Client {
  public func perform(_ request: FileRequest) async throws -> FileResponse {
    guard request.takesID else { return try await self.attempt(request) { _ in } }
    return try await self.core.withOperationID(timeout: self.timeout) { id, wasRepeated in
      var request = request
      request.id = id
      var attemptCount = 0
      defer { wasRepeated = attemptCount > 1 }
      return try await self.attempt(request) { attemptCount = $0 }
    }
  }

  private func attempt(_ request: FileRequest, counting: (Int) -> Void) async throws -> FileResponse {
    var count = 0
    return try await self.core.call(timeout: self.timeout, isRepeatable: { request.isRepeatable }) {
      connection, options in
      count += 1
      counting(count)
      return FileResponse(result: try await request.send(over: connection, options))
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
