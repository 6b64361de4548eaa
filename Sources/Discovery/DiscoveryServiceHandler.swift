// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
package import GRPCCore
package import Routes
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// The discovery service as gRPC clients see it.
package struct DiscoveryServiceHandler: Blocktree_V1_DiscoveryService.SimpleServiceProtocol {
  private let answers: DiscoveryAnswers
  private let routes: any RouteList

  package init(_ answers: DiscoveryAnswers, routes: any RouteList) {
    self.answers = answers
    self.routes = routes
  }

  package func find(
    request: Blocktree_V1_FindRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FindResponse {
    let query = try FindQuery(request)
    return try await self.answers.find(query, by: context.caller).message(self.answers.credentialDigest)
  }

  package func readCredential(
    request: Blocktree_V1_ReadCredentialRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadCredentialResponse {
    let path: TreePath
    do { path = try TreePath(parsing: request.path) } catch { throw DiscoveryError.invalidPath(error) }
    return try await self.answers.readCredential(path, by: context.caller).message
  }

  package func listRoutes(
    request: Blocktree_V1_ListRoutesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ListRoutesResponse {
    guard request.count <= DiscoveryLimits.routesMax else { throw DiscoveryError.invalid(field: "count") }
    try await self.answers.requireOwner(context.caller)
    let count = request.count == 0 ? DiscoveryLimits.routesMax : Int(request.count)
    let (routes, total) = self.routes.list(countMax: count)
    return .with {
      $0.routes = routes.map(\.message)
      $0.total = UInt64(total)
    }
  }
}

/// What a process remembers of who serves which scope.
package protocol RouteList: Sendable {
  /// Routes by their scopes, with how long they are still remembered, and how many there are in all.
  func list(countMax: Int) -> (routes: [ListedRoute], total: Int)
}

/// A route, and for how long it is still remembered.
package struct ListedRoute: Hashable, Sendable {
  package let known: KnownRoute
  package let rest: Duration

  package init(_ known: KnownRoute, rest: Duration) {
    self.known = known
    self.rest = rest
  }

  fileprivate var message: Blocktree_V1_KnownRoute {
    .with {
      $0.scope = self.known.scope.description
      $0.service = self.known.service?.name ?? ""
      $0.processes = self.known.route.processes.prefix(DiscoveryLimits.foundMax).map { $0.found() }
      $0.lifetimeMs = self.rest.wireMilliseconds
    }
  }
}
