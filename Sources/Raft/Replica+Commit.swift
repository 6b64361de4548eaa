// SPDX-License-Identifier: Apache-2.0

// Commitment: dissertation, 3.5 and 3.6.2.
extension Replica {
  /// Commits what a majority has, if the last of it is of the present term.
  mutating func advanceCommit(into effects: inout [Effect]) {
    guard self.role == .leader else { return }
    guard let index = self.quorumIndex, index > self.commit else { return }
    // 3.6.2, figure 3.7: an entry of an earlier term commits only together with one of the present term.
    guard self.log.term(at: index) == self.term || self.mutation == .commitOlderTerm else { return }
    self.advanceCommit(to: index)
    self.continueMembershipChange(into: &effects)
  }

  mutating func advanceCommit(to index: LogIndex) {
    guard index > self.commit else { return }
    if self.role == .leader {
      var committed = self.commit.next
      while committed <= index {
        self.uncommittedBytes -= self.log.byteCount(at: committed)
        committed = committed.next
      }
    }
    self.commit = index
  }

  /// Through where a majority has the log durably, this member counted like the others (10.2.1). Others may be ahead of
  /// it: then what it has only in memory is committed all the same.
  private var quorumIndex: LogIndex? {
    let own = self.mutation == .leaderCountsUnpersisted ? self.log.lastIndex : self.ledger.persisted
    let match = { (member: MemberID) -> LogIndex in
      member == self.id ? own : self.peer(member)?.match ?? .zero
    }
    if self.mutation == .removedLeaderCountsItself, !self.membership.voters.contains(self.id) {
      let voters = self.membership.voters
      return (voters.map(match) + [own]).sorted(by: >)[voters.count / 2]
    }
    return self.quorumMembership.quorumValue(match)
  }

  /// Lets the driver apply what is committed and on the own disk. Not more, although a majority has it: so the state
  /// machine is never ahead of the log beside it, whatever a crash leaves.
  mutating func flushApply(into effects: inout [Effect]) {
    let index = min(self.commit, self.ledger.persisted)
    guard index > self.applying else { return }
    self.applying = index
    effects.append(.apply(through: index))
  }
}
