// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
package import GRPCCore
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// The cluster service as gRPC clients see it: how a cluster is, and who leads it.
///
/// Callers are principals of the domain whose credentials stand in the tree. Nobody is served anonymously.
package struct ClusterServiceHandler: Blocktree_V1_ClusterService.SimpleServiceProtocol {
  private let group: SectorGroup

  package init(_ group: SectorGroup) { self.group = group }

  package func getStatus(
    request: Blocktree_V1_ClusterServiceGetStatusRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ClusterServiceGetStatusResponse {
    _ = try self.caller(context)
    return Blocktree_V1_ClusterServiceGetStatusResponse(self.group.clusterStatus())
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

  /// Who calls: a principal that stands in the tree with this very key.
  private func caller(_ context: ServerContext) throws(SectorError) -> Credential {
    guard case .credential(let credential) = context.caller, self.group.confirms(credential) else {
      throw .permissionDenied
    }
    return credential
  }
}
