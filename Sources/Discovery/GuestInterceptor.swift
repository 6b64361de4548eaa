// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
package import GRPCCore
internal import Transport
internal import Trust

/// Lets calls of principals whose credential files other clusters store wait until they are confirmed, and refuses
/// those that are not. Whoever is stored here was judged at the handshake; anonymous callers have nothing to confirm.
package struct GuestInterceptor: ServerInterceptor {
  /// Services that anybody may call.
  private static let open: Set<String> = [
    Grpc_Health_V1_Health.descriptor.fullyQualifiedService,
    Grpc_Reflection_V1_ServerReflection.descriptor.fullyQualifiedService,
  ]

  private let principals: any PrincipalJudge
  private let lookup: CredentialLookup

  package init(principals: any PrincipalJudge, lookup: CredentialLookup) {
    self.principals = principals
    self.lookup = lookup
  }

  package func intercept<Input: Sendable, Output: Sendable>(
    request: StreamingServerRequest<Input>, context: ServerContext,
    next:
      @concurrent @Sendable (StreamingServerRequest<Input>, ServerContext) async throws
      -> StreamingServerResponse<Output>
  ) async throws -> StreamingServerResponse<Output> {
    if case .credential(let credential) = context.caller,
      !Self.open.contains(context.descriptor.service.fullyQualifiedService)
    {
      try await self.require(credential)
    }
    return try await next(request, context)
  }

  private func require(_ credential: Credential) async throws(DiscoveryError) {
    // Not `confirms`: a guest that is in use is asked for again in time.
    if self.principals.isStoredHere(credential.path) { return }
    switch await self.lookup.confirm(credential) {
    case .confirmed: return
    case .refused: throw .permissionDenied
    case .unreachable: throw .parentUnreachable(nil)
    case .busy: throw .busy
    }
  }
}
