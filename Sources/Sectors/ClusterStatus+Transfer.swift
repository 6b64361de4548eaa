// SPDX-License-Identifier: Apache-2.0

package import GRPCProtobuf
internal import GRPCCore
package import Inodes
internal import Raft
internal import Replication
internal import Transport
internal import Synchronization
package import Trust

/// Why leadership was not handed over.
package enum TransferError: Error, Hashable, Sendable {
  /// No member of the cluster is there.
  case unknownMember(TreePath)
  case failed(Cause)

  package enum Cause: String, Hashable, Sendable {
    /// Leadership is being handed over already.
    case underWay = "UNDER_WAY"
    /// The target is no voter or can not write; or no other voter is there, was heard lately, and can write.
    case unfit = "UNFIT"
    /// The target did not take over in time. This member leads on.
    case timeout = "TIMEOUT"
    /// This member does not lead any more, and who does instead is not known yet.
    case leadershipLost = "LEADERSHIP_LOST"
  }
}

extension TransferError: StatusConvertible {
  package var status: GoogleRPCStatus {
    switch self {
    case .unknownMember(let path):
      .init(.notFound, "No member of the cluster is there.", reason: "NOT_FOUND", ["path": "\(path)"])
    case .failed(let cause):
      .init(
        .failedPrecondition, "Leadership was not handed over.", reason: "TRANSFER_FAILED",
        ["cause": cause.rawValue])
    }
  }
}

extension SectorGroup {
  /// Whether somebody may decide who leads: whoever owns the home, and the cluster's own processes.
  func mayOperate(_ credential: Credential) async throws(SectorError) -> Bool {
    if self.isMember(credential) { return true }
    guard self.generation == .root else { return try await self.mayLookAfter(credential) }
    return try await self.record(.rootDirectory)?.attributes.part.rules.owner == credential.path
  }

  /// The same, by what this member has applied: for what it does alone.
  func mayLookAfter(_ credential: Credential) async throws(SectorError) -> Bool {
    if self.isMember(credential) { return true }
    guard self.generation == .root else { return self.homeOwner.withLock { $0 } == credential.path }
    return try await self.storedRecord(.rootDirectory)?.attributes.part.rules.owner == credential.path
  }

  /// Takes note of who owns the home of a delegated cluster, and who has its key, as the cluster above says, which stores
  /// it.
  ///
  /// - Parameter home: the home's record.
  package func noteHome(_ home: AttributesPart) {
    // The home was taken back as a whole: whose credentials hold in it, the cluster above says from now on.
    if self.isRetired, home.servedByGeneration != self.generation { self.credentials.retire() }
    self.homeOwner.withLock { $0 = home.rules.owner }
    self.homeReaders.withLock { $0 = Set(home.readcaps.map(\.principal)) }
  }

  /// Whether somebody has the key of the home of a delegated cluster by a readcap, as far as that is known.
  func isHomeReader(_ path: TreePath) -> Bool { self.homeReaders.withLock { $0.contains(path) } }

  /// Hands leadership over. Returns when another member is known to lead: the target, if there is one, or whoever was
  /// quicker.
  ///
  /// - Parameter path: the process that is to lead; nil for the voter that is furthest. If it leads already, this
  ///   returns at once.
  /// - Returns: who leads, and in which term.
  package func transferLeadership(
    to path: TreePath?
  ) async throws -> (leader: ClusterStatus.Member, term: UInt64) {
    try await self.lead()
    var target: MemberID?
    if let path {
      guard let member = self.member(at: path) else { throw TransferError.unknownMember(path) }
      if member == self.replica.member, let present = self.presentLeader { return present }
      target = member
    }
    // The consensus has one at a time, and would answer both alike.
    guard self.replica.status.transferTarget == nil else { throw TransferError.failed(.underWay) }
    switch await self.replica.transferLeadership(to: target) {
    case .impossible: throw TransferError.failed(.unfit)
    case .timeout: throw TransferError.failed(.timeout)
    case .handedOver, .leadershipLost: break
    }
    // The one that was elected says so with its first heartbeat.
    await self.replica.waitForLeader(Self.handoverPatience)
    guard let present = self.presentLeader, present.leader.id != self.replica.member else {
      throw TransferError.failed(.leadershipLost)
    }
    return present
  }

  /// For an election that was ordered, and for one more if that fails.
  private static let handoverPatience = Duration.seconds(1)

  private var presentLeader: (leader: ClusterStatus.Member, term: UInt64)? {
    let status = self.clusterStatus()
    return status.leader.map { ($0, status.replica.leadership.term.rawValue) }
  }
}
