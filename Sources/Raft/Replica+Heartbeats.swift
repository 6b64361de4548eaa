// SPDX-License-Identifier: Apache-2.0

// Heartbeats: that the leader lives (dissertation, 3.4), that it is still followed (6.2), and since when (6.4).
extension Replica {
  /// What a leader does when time has passed.
  mutating func leaderWoke(into effects: inout [Effect]) {
    if self.isStalled { return self.abdicate(into: &effects) }
    if let transfer = self.transfer, self.now >= transfer.deadline { self.abortTransfer(into: &effects) }
    guard self.now >= self.heartbeatDeadline else { return }

    // 6.2: a leader that hears no majority steps down, so that clients turn elsewhere. By the same clock it stops
    // refusing votes to others.
    let heard = self.quorumMembership.quorumValue { member in
      member == self.id ? self.now : self.peer(member)?.lastHeard ?? .zero
    }
    if let heard, heard.advanced(by: self.timing.electionTimeoutMax) <= self.now {
      return self.becomeFollower(in: self.term, leader: nil, into: &effects)
    }
    for number in self.peers.indices
    where self.peers[number].isSilent(
      probeLimit: self.timing.heartbeatInterval, limit: self.timing.electionTimeoutMax, at: self.now)
    {
      self.peers[number].lost(at: self.now)
    }
    if !self.isWritable { self.handOverIfPossible(into: &effects) }
    self.beginRound(into: &effects)
  }

  /// Asks everybody whether they still follow. Reads that wait for such a round go with it.
  mutating func beginRound(into effects: inout [Effect]) {
    let round = self.rounds.begin(at: self.now)
    if self.commit >= self.termStart {
      for number in self.readsInRound..<self.reads.count {
        self.reads[number].round = round
        self.reads[number].index = self.commit
      }
      self.readsInRound = self.reads.count
    }
    for peer in self.peers {
      // What it is known to have, and no more: a heartbeat does not show where the logs agree.
      self.send(
        .heartbeat(round: round, commit: min(self.commit, peer.match)), to: peer.member, into: &effects)
    }
    self.heartbeatDeadline = self.peers.isEmpty ? .never : self.now.advanced(by: self.timing.heartbeatInterval)
    self.confirmRounds(into: &effects)
  }

  /// Notes that a leader of the present term was heard. False if it can not be one.
  mutating func hear(_ sender: MemberID, into effects: inout [Effect]) -> Bool {
    if self.role == .leader || (self.leader != nil && self.leader != sender && self.mutation != .acceptOlderTerm) {
      self.violated(.secondLeader, by: sender, into: &effects)
      return false
    }
    if self.leader != sender || self.role != .follower {
      self.becomeFollower(in: self.term, leader: sender, into: &effects)
    } else {
      self.resetElectionDeadline()
    }
    self.heardFromLeader = self.now
    return true
  }

  mutating func receiveHeartbeat(
    round: HeartbeatRound, commit: LogIndex, from sender: MemberID, into effects: inout [Effect]
  ) {
    guard self.hear(sender, into: &effects) else { return }
    if commit > self.log.lastIndex {
      self.violated(.commitBeyondLog, by: sender, into: &effects)
    } else {
      self.advanceCommit(to: commit)
    }
    self.send(.heartbeatReply(round: round, isWritable: self.isWritable), to: sender, into: &effects)
  }

  mutating func receiveHeartbeatReply(
    round: HeartbeatRound, isWritable: Bool, from sender: MemberID, into effects: inout [Effect]
  ) {
    guard self.role == .leader, let number = self.peerNumber(sender) else { return }
    guard round <= self.rounds.last else { return self.violated(.unknownRound, by: sender, into: &effects) }
    self.peers[number].lastHeard = self.now
    if round >= self.peers[number].acknowledgedRound {
      self.peers[number].acknowledgedRound = round
      self.peers[number].isWritable = isWritable
    }
    self.confirmRounds(into: &effects)
  }

  private mutating func confirmRounds(into effects: inout [Effect]) {
    let confirmed = self.quorumMembership.quorumValue { member in
      member == self.id ? self.rounds.last : self.peer(member)?.acknowledgedRound ?? .zero
    }
    if let confirmed, self.rounds.confirm(confirmed) { self.completeReads(into: &effects) }
  }
}
