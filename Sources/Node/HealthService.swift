// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf

/// `grpc.health.v1`: for the empty name and each service, whether the node serves. Anybody may ask.
struct HealthService: Grpc_Health_V1_Health.SimpleServiceProtocol {
  let state: HealthState
  /// The full names of the services that the node has.
  let services: Set<String>

  func check(
    request: Grpc_Health_V1_HealthCheckRequest, context: ServerContext
  ) async throws -> Grpc_Health_V1_HealthCheckResponse {
    guard self.knows(request.service) else {
      throw RPCError(code: .notFound, message: "There is no such service here.")
    }
    return self.response(self.state.isServing)
  }

  func watch(
    request: Grpc_Health_V1_HealthCheckRequest, response: RPCWriter<Grpc_Health_V1_HealthCheckResponse>,
    context: ServerContext
  ) async throws {
    guard self.knows(request.service) else {
      // The definition of the protocol has this as an answer: the service might come.
      try await response.write(.with { $0.status = .serviceUnknown })
      for await _ in self.state.changes() {}
      return
    }
    for await isServing in self.state.changes() { try await response.write(self.response(isServing)) }
  }

  private func knows(_ service: String) -> Bool { service.isEmpty || self.services.contains(service) }

  private func response(_ isServing: Bool) -> Grpc_Health_V1_HealthCheckResponse {
    .with { $0.status = isServing ? .serving : .notServing }
  }
}
