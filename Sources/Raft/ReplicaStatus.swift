// SPDX-License-Identifier: Apache-2.0

/// What an operator wants to see of a replica.
public struct ReplicaStatus: Hashable, Sendable {
  /// How a leader sees another member.
  public struct Member: Hashable, Sendable {
    public enum Replication: Hashable, Sendable { case probing, replicating, snapshot }
    public var member: MemberID
    /// Durable there.
    public var match: LogIndex
    /// The next entry to send.
    public var next: LogIndex
    public var replication: Replication
    /// When it was last heard, by this member's clock.
    public var lastHeard: Instant
    public var isWritable: Bool
  }

  public var member: MemberID
  public var leadership: Leadership
  public var vote: MemberID?
  public var last: LogPosition
  public var commit: LogIndex
  /// Through where the own disk has the log.
  public var persisted: LogIndex
  /// Through where ``Effect/apply(through:)`` has gone.
  public var applying: LogIndex
  public var compacted: LogPosition
  public var membership: Membership
  /// The entry that the membership stands in: what ``Event/changeMembership(_:to:expecting:)`` expects.
  public var membershipIndex: LogIndex
  /// True while a change of the membership goes on.
  public var membershipIsPending: Bool
  /// The other members, sorted; empty unless this one leads.
  public var members: [Member]
  public var holdsLease: Bool
  public var transferTarget: MemberID?
  public var isWritable: Bool
  public var isStalled: Bool
}

extension Replica {
  public var status: ReplicaStatus {
    let membership = self.log.membership
    return ReplicaStatus(
      member: self.id, leadership: Leadership(term: self.term, role: self.role, leader: self.leader),
      vote: self.hardState.vote, last: self.log.last, commit: self.commit, persisted: self.ledger.persisted,
      applying: self.applying, compacted: self.log.base, membership: membership.membership,
      membershipIndex: membership.index,
      membershipIsPending: membership.index > self.commit || membership.membership.isJoint,
      members: self.peers.map(ReplicaStatus.Member.init), holdsLease: self.role == .leader && self.holdsLease,
      transferTarget: self.transfer?.target, isWritable: self.isWritable, isStalled: self.isStalled)
  }

  /// The first entry of this leader's term: when it is applied, so is all that was committed before. Nil unless it leads.
  public var leadershipStart: LogIndex? { self.role == .leader ? self.termStart : nil }

  /// How a leader sees another member; nil if this one does not lead, or there is none such. Cheaper than ``status``:
  /// a learner is worth promoting when its `match` is close to this replica's ``commit``.
  public func progress(of member: MemberID) -> ReplicaStatus.Member? {
    self.peer(member).map(ReplicaStatus.Member.init)
  }

  /// The term of the entry there; nil before the compaction point and after the end.
  public func term(at index: LogIndex) -> Term? { self.log.term(at: index) }

  /// The last entry of the log, committed or not.
  public var last: LogPosition { self.log.last }
}

extension ReplicaStatus.Member {
  init(_ progress: Progress) {
    let replication: Replication =
      switch progress.state {
      case .probe: .probing
      case .replicate: .replicating
      case .snapshot: .snapshot
      }
    self.init(
      member: progress.member, match: progress.match, next: progress.next, replication: replication,
      lastHeard: progress.lastHeard, isWritable: progress.isWritable)
  }
}
