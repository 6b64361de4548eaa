// SPDX-License-Identifier: Apache-2.0

extension Replica {
  /// What must hold between any two events, and does not; nil as it should be.
  package var brokenInvariant: String? {
    if self.log.base.index > self.commit { return "The log is compacted beyond what is committed." }
    if self.commit > self.log.lastIndex { return "More is committed than the log has." }
    if self.applying > self.commit { return "More is applied than is committed." }
    if self.ledger.persisted > self.log.lastIndex { return "More is durable than the log has." }
    if self.log.last.term > self.term { return "The log has an entry of a later term." }
    if self.matched > self.log.lastIndex { return "More is acknowledged than the log has." }
    if self.log.membership.index > self.log.base.index, !self.log.hasMembership(at: self.log.membership.index) {
      return "The membership in force does not stand in the log."
    }
    if self.readsInRound > self.reads.count { return "More reads wait for a round than there are." }
    if self.role == .leader {
      if self.leader != self.id { return "A leader follows somebody else." }
      if self.uncommittedBytes < 0 { return "The count of uncommitted bytes is off." }
      if self.termStart <= self.log.lastIndex, self.log.term(at: self.log.lastIndex) != self.term {
        return "A leader's log ends with an entry of another term."
      }
      if let peer = self.peers.first(where: { $0.match > self.log.lastIndex || $0.next > self.log.lastIndex.next }) {
        return "Member \(peer.member.rawValue) is ahead of its leader."
      }
    } else if !self.peers.isEmpty || self.transfer != nil || !self.reads.isEmpty {
      return "Something of a leadership is left over."
    }
    return nil
  }
}
