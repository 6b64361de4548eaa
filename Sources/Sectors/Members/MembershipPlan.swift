// SPDX-License-Identifier: Apache-2.0

package import Raft

/// What the membership of a cluster should become next: that of the credentials, step by step. Decides, and performs
/// nothing.
package enum MembershipPlan {
  /// A learner becomes a voter when it lacks at most so many entries: it will have them before the change is committed.
  static let lagMax: UInt64 = 128

  /// The next membership; nil when there is nothing to do, or nothing can be done now.
  ///
  /// - Parameters:
  ///   - status: of this member; only a leader that is not changing the membership already has a plan.
  ///   - wanted: the members that there should be.
  ///   - now: by the clock of the status.
  ///   - silenceMax: nanoseconds; a member that was not heard for longer is not there.
  package static func next(
    _ status: ReplicaStatus, wanted: Set<MemberID>, at now: Raft.Instant, silenceMax: UInt64
  ) -> Membership? {
    guard status.leadership.role == .leader, !status.membershipIsPending else { return nil }
    let current = status.membership
    var voters = current.voters.filter(wanted.contains)
    var learners = current.learners.filter(wanted.contains)
    learners += wanted.filter { !current.contains($0) }
    for learner in learners where self.isCaughtUp(learner, status) {
      learners.removeAll { $0 == learner }
      voters.append(learner)
    }
    // Somebody has to decide: a group that is wanted by nobody stays as it is.
    guard let target = Membership(voters: voters, learners: learners), target != current else { return nil }
    // A change that its own majority can not commit would stand in the way of everything else.
    let present = target.voters.count { voter in
      let lastHeard = status.members.first { $0.member == voter }?.lastHeard.nanoseconds ?? 0
      return voter == status.member || lastHeard + silenceMax > now.nanoseconds
    }
    return target.voters == current.voters || 2 * present > target.voters.count ? target : nil
  }

  private static func isCaughtUp(_ learner: MemberID, _ status: ReplicaStatus) -> Bool {
    guard let member = status.members.first(where: { $0.member == learner }) else { return false }
    return member.replication == .replicating && member.match > .zero
      && member.match.rawValue + self.lagMax >= status.last.index.rawValue
  }
}
