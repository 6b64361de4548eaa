// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Foundation
internal import GRPCCore
internal import SwiftProtobuf

/// `grpc.reflection.v1`: describes the node's services to tools that have no schema. Anybody may ask; there is nothing
/// secret about a schema.
struct ReflectionService: Grpc_Reflection_V1_ServerReflection.SimpleServiceProtocol {
  let index: SchemaIndex
  /// The full names of the services that the node has, in order.
  let services: [String]

  func serverReflectionInfo(
    request: RPCAsyncSequence<Grpc_Reflection_V1_ServerReflectionRequest, any Error>,
    response: RPCWriter<Grpc_Reflection_V1_ServerReflectionResponse>, context: ServerContext
  ) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask {
        for try await question in request { try await response.write(self.answer(to: question)) }
      }
      // A tool may keep its stream open for as long as it likes, but not beyond the node's shutdown.
      group.addTask { try await context.cancellation.cancelled }
      try await group.next()
      group.cancelAll()
    }
  }

  private func answer(
    to request: Grpc_Reflection_V1_ServerReflectionRequest
  ) -> Grpc_Reflection_V1_ServerReflectionResponse {
    var response = Grpc_Reflection_V1_ServerReflectionResponse()
    response.validHost = request.host
    response.originalRequest = request
    response.messageResponse = self.result(request.messageRequest)
    return response
  }

  private func result(
    _ request: Grpc_Reflection_V1_ServerReflectionRequest.OneOf_MessageRequest?
  ) -> Grpc_Reflection_V1_ServerReflectionResponse.OneOf_MessageResponse {
    switch request {
    case .fileByFilename(let name): self.files(from: name, "file \(name)")
    case .fileContainingSymbol(let symbol): self.files(from: self.index.file(declaring: symbol), "symbol \(symbol)")
    case .fileContainingExtension(let item):
      self.files(
        from: self.index.file(extending: item.containingType, number: item.extensionNumber),
        "extension \(item.extensionNumber) of \(item.containingType)")
    case .allExtensionNumbersOfType(let type):
      if let numbers = self.index.extensionNumbers(of: type) {
        .allExtensionNumbersResponse(
          .with {
            $0.baseTypeName = type
            $0.extensionNumber = numbers
          })
      } else {
        self.failure(.notFound, "There is no type \(type).")
      }
    case .listServices:
      .listServicesResponse(.with { $0.service = self.services.map { name in .with { $0.name = name } } })
    case nil: self.failure(.invalidArgument, "The request asks for nothing.")
    }
  }

  private func files(
    from name: String?, _ what: String
  ) -> Grpc_Reflection_V1_ServerReflectionResponse.OneOf_MessageResponse {
    guard let name, let files = self.index.files(from: name) else {
      return self.failure(.notFound, "There is no \(what).")
    }
    return .fileDescriptorResponse(.with { $0.fileDescriptorProto = files.map { Data($0) } })
  }

  private func failure(
    _ code: Status.Code, _ message: String
  ) -> Grpc_Reflection_V1_ServerReflectionResponse.OneOf_MessageResponse {
    .errorResponse(
      .with {
        $0.errorCode = Int32(code.rawValue)
        $0.errorMessage = message
      })
  }
}
