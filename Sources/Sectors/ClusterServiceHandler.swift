// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
package import GRPCCore
internal import SwiftProtobuf
internal import Transport
package import Trust

/// The cluster service as gRPC clients see it: how a cluster is, and who leads it.
///
/// Callers are principals of the domain whose credentials stand in the tree. Nobody is served anonymously.
package struct ClusterServiceHandler: Blocktree_V1_ClusterService.SimpleServiceProtocol {
  private let group: SectorGroup
  private let recovered: @Sendable (RecoveryWarrant) async throws -> Void
  /// Who looks after what is stored; nil where nobody does.
  private let upkeep: (any StoreUpkeep)?

  /// As many as an answer may have.
  private static let setAsideMax = 16
  /// Bytes in a second.
  private static let scrubRateMax: UInt64 = 1 << 40

  /// - Parameter recovered: begins again as what a warrant says that is good for this member now. On return that is
  ///   decided, durably.
  package init(
    _ group: SectorGroup, upkeep: (any StoreUpkeep)? = nil,
    recovered: @escaping @Sendable (RecoveryWarrant) async throws -> Void
  ) {
    self.group = group
    self.upkeep = upkeep
    self.recovered = recovered
  }

  package func getStatus(
    request: Blocktree_V1_ClusterServiceGetStatusRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ClusterServiceGetStatusResponse {
    _ = try self.caller(context)
    var response = Blocktree_V1_ClusterServiceGetStatusResponse(self.group.clusterStatus())
    if let upkeep {
      response.scrub = .init(upkeep.scrubStatus, generation: self.group.generation)
      response.storesSetAside = Array(upkeep.storesSetAside.prefix(Self.setAsideMax))
    }
    return response
  }

  package func transferLeadership(
    request: Blocktree_V1_TransferLeadershipRequest, context: ServerContext
  ) async throws -> Blocktree_V1_TransferLeadershipResponse {
    let caller = try self.caller(context)
    // Before the permission: who owns what, only the leader knows for sure.
    try await self.group.lead()
    guard try await self.group.mayOperate(caller) else { throw SectorError.permissionDenied }
    var target: TreePath?
    if !request.to.isEmpty {
      do { target = try TreePath(parsing: request.to) } catch { throw SectorError.invalid(field: "to") }
    }
    let (leader, term) = try await self.group.transferLeadership(to: target)
    return .with {
      $0.leader = .init(leader)
      $0.term = term
    }
  }

  package func recover(
    request: Blocktree_V1_RecoverRequest, context: ServerContext
  ) async throws -> Blocktree_V1_RecoverResponse {
    _ = try self.caller(context)
    // The warrant is what allows it, whoever brings it.
    if let warrant = try self.group.acceptRecovery(Array(request.warrant)) { try await self.recovered(warrant) }
    return Blocktree_V1_RecoverResponse()
  }

  package func scrub(
    request: Blocktree_V1_ScrubRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ScrubResponse {
    let caller = try self.caller(context)
    // By what this member knows: it may be the one that has lost the others.
    guard try await self.group.mayLookAfter(caller) else { throw SectorError.permissionDenied }
    guard request.rate <= Self.scrubRateMax else { throw SectorError.invalid(field: "rate") }
    guard let upkeep else { throw SectorError.notServing }
    return .with { $0.pass = upkeep.beginScrub(rate: request.rate == 0 ? nil : request.rate) }
  }

  /// Who calls: a principal that stands in the tree with this very key.
  private func caller(_ context: ServerContext) throws(SectorError) -> Credential {
    guard case .credential(let credential) = context.caller, self.group.confirms(credential) else {
      throw .permissionDenied
    }
    return credential
  }
}
