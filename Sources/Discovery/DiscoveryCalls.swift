// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
package import Routes
internal import SwiftProtobuf
package import Transport
package import Trust

/// Asks one process at a time.
package protocol DiscoveryCaller: Sendable {
  /// - Throws: `UnreachableProcess`; `MalformedAnswer`; `StatusDetails`, what the process has said.
  func find(_ query: FindQuery, at process: RouteProcess) async throws -> FindAnswer
  /// As `find`.
  func readCredential(_ path: TreePath, at process: RouteProcess) async throws -> CredentialAnswer
}

/// Asks over connections of a pool.
package struct DiscoveryCalls: DiscoveryCaller {
  private let pool: ConnectionPool
  private let timeout: Duration

  package init(_ pool: ConnectionPool, timeout: Duration = DiscoveryLimits.callTimeout) {
    self.pool = pool
    self.timeout = timeout
  }

  package func find(_ query: FindQuery, at process: RouteProcess) async throws -> FindAnswer {
    try await self.withConnection(to: process) { connection, options in
      let client = Blocktree_V1_DiscoveryService.Client(wrapping: connection.client)
      return try FindAnswer(try await client.find(query.message, options: options))
    }
  }

  package func readCredential(_ path: TreePath, at process: RouteProcess) async throws -> CredentialAnswer {
    try await self.withConnection(to: process) { connection, options in
      let client = Blocktree_V1_DiscoveryService.Client(wrapping: connection.client)
      let request = Blocktree_V1_ReadCredentialRequest.with { $0.path = path.description }
      return try CredentialAnswer(try await client.readCredential(request, options: options))
    }
  }

  /// Calls at the first address that the process answers at. An error of the service's own comes from the process
  /// itself, and would be the same at each of its addresses.
  ///
  /// - Throws: `UnreachableProcess` when it answers at none; what the call threw.
  private func withConnection<Result: Sendable>(
    to process: RouteProcess, _ body: @Sendable (NodeConnection, CallOptions) async throws -> Result
  ) async throws -> Result {
    var reason = "it has no address"
    for address in process.addresses {
      let connection: NodeConnection
      do {
        connection = try await withTimeout(self.timeout) {
          try await self.pool.connection(to: address, expecting: process.path)
        }
      } catch {
        try Task.checkCancellation()
        reason = "\(error)"
        continue
      }
      do {
        var options = CallOptions.defaults
        options.timeout = self.timeout
        return try await body(connection, options)
      } catch let error as MalformedAnswer {
        throw error
      } catch {
        try Task.checkCancellation()
        let details = StatusDetails(describing: error)
        guard details.reason == nil else { throw details }
        reason = details.message
      }
    }
    throw UnreachableProcess(path: process.path, reason: reason)
  }
}

/// A process answers at none of its addresses.
package struct UnreachableProcess: Error, Hashable, Sendable {
  package let path: TreePath
  /// For people.
  package let reason: String

  package init(path: TreePath, reason: String) {
    self.path = path
    self.reason = reason
  }
}
