// SPDX-License-Identifier: Apache-2.0

public import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf
internal import Transport
internal import Trust

extension ClusterClient {
  /// Has a member verify all that it stores, from the beginning, and heal what is damaged from the others. Returns when
  /// that has begun; ``status(of:)`` says how far it is.
  ///
  /// - Parameters:
  ///   - member: as ``ClusterOverview`` has it. No other store at its addresses is taken for it.
  ///   - rate: bytes in a second; 0 for what the process is set to.
  /// - Returns: the number of the pass. It is done when the last pass has this number, or a higher one.
  public func beginScrub(of member: Blocktree_V1_ClusterMember, rate: UInt64 = 0) async throws -> UInt64 {
    let request = Blocktree_V1_ScrubRequest.with { $0.rate = rate }
    return try await self.ask(member) { connection, options in
      try await connection.cluster.scrub(request, options: options)
    }.pass
  }

  /// What a process says of itself, whichever member it is by now: one whose store was replaced is another.
  public func status(
    of member: Blocktree_V1_ClusterMember
  ) async throws -> Blocktree_V1_ClusterServiceGetStatusResponse {
    let status = try await self.ask(member) { connection, options in
      try await connection.cluster.getStatus(.init(), options: options)
    }
    try Self.check(status)
    return status
  }

  /// Calls one process over a connection of its own. Each address may take up to ``memberTimeout``.
  private func ask<Answer: Sendable>(
    _ member: Blocktree_V1_ClusterMember,
    _ call: @escaping @Sendable (NodeConnection, CallOptions) async throws -> Answer
  ) async throws -> Answer {
    let dialer = try self.dialer()
    var error = BlocktreeError(
      code: .unavailable, reason: .peerUnreachable, message: "No address of the process is known.", retry: .never)
    guard let path = try? TreePath(parsing: member.process) else { throw error }
    var options = CallOptions.defaults
    options.timeout = min(self.timeout ?? Self.memberTimeout, Self.memberTimeout)
    let callOptions = options
    for text in member.addresses.prefix(Self.addressCountMax) {
      guard let address = try? NetworkAddress(parsing: text) else { continue }
      do {
        return try await dialer.withConnection(to: address, expecting: path) { connection in
          try await call(connection, callOptions)
        }
      } catch let thrown {
        error = try BlocktreeError(thrown: thrown)
      }
    }
    throw error
  }
}
