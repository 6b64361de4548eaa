// SPDX-License-Identifier: Apache-2.0

package import Inodes
package import Raft
internal import Replication
package import SectorStore
package import Trust

/// How a cluster is, as one of its members sees it at one moment.
package struct ClusterStatus: Sendable {
  /// A member, and how far it is as the leader sees it.
  package struct Member: Hashable, Sendable {
    package enum Vote: Hashable, Sendable {
      /// Now, and after the change that is under way, if any.
      case voter
      /// Now, and made a voter by the change that is under way.
      case coming
      /// Until the change that is under way is done.
      case going
      case learner
    }

    package var id: MemberID
    /// Nil where it is not known.
    package var process: TreePath?
    package var addresses: [NetworkAddress]
    package var vote: Vote
    /// Nil unless this member leads.
    package var progress: Progress?
  }

  package struct Progress: Hashable, Sendable {
    /// Everything through here is durable there.
    package var match: Raft.LogIndex
    /// The next entry to send.
    package var next: Raft.LogIndex
    /// Entries of the leader's log that are not known to be durable there.
    package var lag: UInt64
    /// Since it was heard last.
    package var silence: Duration
    package var replication: ReplicaStatus.Member.Replication
    package var isWritable: Bool
  }

  package let generation: Generation
  package let life: GroupLife
  /// The path of this member.
  package let process: TreePath
  /// This member's part in the consensus.
  package let replica: ReplicaStatus
  /// The last entry that this member has applied.
  package let applied: UInt64
  /// Who leads, and how to get there, where that is known.
  package let leader: Member?
  /// By path, then by id.
  package let members: [Member]
  /// This member's disk.
  package let disk: SectorStatus
  /// Why this member's store refuses every call, if so.
  package let failure: StoreError?
}

extension ClusterStatus.Member.Vote {
  /// Nil for who is no member.
  package init?(of member: MemberID, in membership: Membership) {
    let isComing = membership.voters.contains(member)
    let isFormer = membership.outgoing.contains(member)
    switch (isComing, isFormer) {
    case (true, true): self = .voter
    case (true, false): self = membership.isJoint ? .coming : .voter
    case (false, true): self = .going
    case (false, false):
      guard membership.learners.contains(member) else { return nil }
      self = .learner
    }
  }
}

extension SectorGroup {
  /// How the cluster is, as this member sees it. Also while its store has failed.
  ///
  /// - Parameter now: by ``MonotonicClock``.
  package func clusterStatus(at now: Raft.Instant = MonotonicClock.now) -> ClusterStatus {
    let replica = self.replica.status
    let members = replica.membership.members.compactMap { id -> ClusterStatus.Member? in
      guard let vote = ClusterStatus.Member.Vote(of: id, in: replica.membership) else { return nil }
      return self.clusterMember(id, vote, progress: ClusterStatus.Progress(of: id, in: replica, at: now))
    }
    let leader = replica.leadership.leader.map { id in
      // A member that was removed may still lead to the end of its removal.
      members.first { $0.id == id } ?? self.clusterMember(id, .going, progress: nil)
    }
    return ClusterStatus(
      generation: self.generation, life: self.life, process: self.memberPath, replica: replica,
      applied: self.replica.appliedIndex, leader: leader,
      members: members.sorted { left, right in
        if let left = left.process, let right = right.process, left != right { return left < right }
        if (left.process == nil) != (right.process == nil) { return right.process == nil }
        return left.id < right.id
      }, disk: self.status(), failure: self.store.status().failure)
  }

  private func clusterMember(
    _ id: MemberID, _ vote: ClusterStatus.Member.Vote, progress: ClusterStatus.Progress?
  ) -> ClusterStatus.Member {
    let process = self.path(of: id)
    return ClusterStatus.Member(
      id: id, process: process, addresses: process.map { self.addresses(of: $0) } ?? [], vote: vote,
      progress: progress)
  }
}

extension ClusterStatus.Progress {
  /// Nil unless the replica leads.
  init?(of member: MemberID, in status: ReplicaStatus, at now: Raft.Instant) {
    guard status.leadership.role == .leader else { return nil }
    let last = status.last.index
    if member == status.member {
      self.init(
        match: status.persisted, next: last.next, lag: Self.count(from: status.persisted, through: last),
        silence: .zero, replication: .replicating, isWritable: status.isWritable)
      return
    }
    guard let other = status.members.first(where: { $0.member == member }) else { return nil }
    let silence = now > other.lastHeard ? now.nanoseconds - other.lastHeard.nanoseconds : 0
    self.init(
      match: other.match, next: other.next, lag: Self.count(from: other.match, through: last),
      silence: .nanoseconds(Int64(clamping: silence)), replication: other.replication, isWritable: other.isWritable)
  }

  private static func count(from match: Raft.LogIndex, through last: Raft.LogIndex) -> UInt64 {
    last > match ? last.rawValue - match.rawValue : 0
  }
}
