// SPDX-License-Identifier: Apache-2.0

// Changes of the membership by joint consensus: dissertation, 4.3; learners, 4.2.1.
extension Replica {
  /// The membership whose majorities decide.
  var quorumMembership: Membership {
    let membership = self.membership
    switch self.mutation {
    case .singleQuorumInJoint: return membership.left ?? membership
    case .learnerCountsAsVoter: return Membership(voters: membership.members) ?? membership
    default: return membership
    }
  }

  mutating func changeMembership(
    _ id: ProposalID, to target: Membership, expecting expected: LogIndex, into effects: inout [Effect]
  ) {
    if let rejection = self.rejection(of: target, expecting: expected) {
      effects.append(.rejected(id, rejection))
      return
    }
    guard let step = self.membership.step(to: target) else {
      effects.append(.rejected(id, .tooLarge))
      return
    }
    self.appendMembership(step, into: &effects)
    effects.append(.accepted(id, at: self.log.last))
    if self.mutation == .leaveJointBeforeCommit, step.isJoint, let left = step.left {
      self.appendMembership(left, into: &effects)
    }
  }

  private func rejection(of target: Membership, expecting expected: LogIndex) -> ProposalRejection? {
    if let rejection = self.rejectionOfAll { return rejection }
    let current = self.log.membership
    // One change at a time (4.3), and none before the leader's own entry is committed: it might build on a change that
    // the former leader did not finish.
    let isPending = current.index > self.commit || self.commit < self.termStart || current.membership.isJoint
    if isPending, self.mutation != .changesOverlap { return .membershipPending }
    return current.index == expected && !target.isJoint ? nil : .membershipConflict(current: current.index)
  }

  /// A membership is in force as soon as it stands in the log (4.1).
  private mutating func appendMembership(_ membership: Membership, into effects: inout [Effect]) {
    self.appendAsLeader(EntryHeader(term: self.term, kind: .membership(membership)), into: &effects)
    self.syncPeers()
    if self.heartbeatDeadline == .never, !self.peers.isEmpty { self.beginRound(into: &effects) }
  }

  /// Follows those that belong to the group, and nobody else.
  mutating func syncPeers() {
    let members = self.membership.members
    self.peers.removeAll { !members.contains($0.member) }
    for member in members where member != self.id && self.peerNumber(member) == nil {
      self.peers.append(Progress(member: member, next: self.log.lastIndex.next, now: self.now))
    }
    self.peers.sort { $0.member < $1.member }
  }

  /// What the commitment of a membership leads to: a joint one is left, and a leader outside of the new one goes.
  mutating func continueMembershipChange(into effects: inout [Effect]) {
    let current = self.log.membership
    guard self.role == .leader, current.index <= self.commit else { return }
    if current.membership.isJoint {
      if self.isWritable, let left = current.membership.left {
        self.appendMembership(left, into: &effects)
        // Where this member alone decides, nobody's answer will follow.
        self.advanceCommit(into: &effects)
      }
    } else if !current.membership.voters.contains(self.id), self.commit >= self.termStart {
      // 4.2.2: it led until its removal was committed.
      self.abdicate(into: &effects)
    }
  }
}
