// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Discovery
internal import GRPCCore
internal import Inodes
internal import Routes
internal import Sectors
internal import SwiftProtobuf
internal import Trust

/// The cluster that stores what a gateway serves, as the gateway answers queries about it: it asks one of the members
/// each time, in its own name, and tells callers what they may know of the answer.
struct GatewayCluster: OwnCluster, AnsweringCluster {
  /// The directory that the gateway's credential lies in, which may have no cluster of its own.
  let home: TreePath
  let volume: RemoteVolume
  /// Everybody is confirmed by the clusters that store their credential files.
  let guests: GuestDirectory
  /// The gateway itself.
  let identity: Credential

  // MARK: To itself

  var isKnownHere: Bool { false }
  func answer(_: FindQuery) -> FindAnswer? { nil }
  func redirect(toCredential _: TreePath) -> FindAnswer? { nil }

  // MARK: To others

  func isStoredHere(_: TreePath) -> Bool { false }

  func confirms(_ credential: Credential) -> Bool {
    credential.keyID == self.identity.keyID || self.guests.guest(credential) != nil
  }

  /// The members say by themselves when what they say may be old.
  func isCurrent() async -> Bool { true }

  func isFilesystemService(_ credential: Credential) -> Bool {
    credential.keyID == self.identity.keyID || self.guests.guest(credential)?.hosts(.filesystem) ?? false
  }

  func answer(to query: FindQuery) async throws(DiscoveryError) -> FindAnswer {
    let answer = try await self.ask { call in
      try FindAnswer(try await call.discovery.find(query.message, options: call.options))
    }
    // The members may answer for more than the home. Who is above that is for others to say.
    if case .found(let found) = answer, let directory = found.directory, !self.home.isSameOrAncestor(of: directory) {
      return .found(.nobody(for: found.lifetime))
    }
    return answer
  }

  func credential(at path: TreePath) async throws(DiscoveryError) -> ClusterCredential {
    let request = Blocktree_V1_ReadCredentialRequest.with { $0.path = path.description }
    return .answer(
      try await self.ask { call in
        try CredentialAnswer(try await call.discovery.readCredential(request, options: call.options))
      })
  }

  func credentialDigest(_: TreePath) -> Digest32? { nil }

  private func ask<Answer: Sendable>(
    _ body: @concurrent @escaping @Sendable (RemoteCluster.Call) async throws -> Answer
  ) async throws(DiscoveryError) -> Answer {
    do {
      return try await self.volume.cluster.call(.read, body)
    } catch {
      throw error == .permissionDenied ? .permissionDenied : .notServing
    }
  }
}
