// SPDX-License-Identifier: Apache-2.0

// Elections: dissertation, 3.4; pre-vote, 9.6; servers that disrupt, 4.2.3.
extension Replica {
  mutating func resetElectionDeadline() {
    let timeout = UInt64.random(
      in: self.timing.electionTimeoutMin...self.timing.electionTimeoutMax, using: &self.random)
    self.electionDeadline = self.now.advanced(by: timeout)
  }

  /// Learners and members that were removed do not campaign, nor do those that could not store what they would lead.
  ///
  /// Whoever is removed by an entry that may not be committed yet still does (4.2.2): its log may be the only one with
  /// which an election can be won. What counts is every membership that may be the last one committed, and after a
  /// restart, when little is known to be committed, these may be many.
  var mayCampaign: Bool {
    guard self.isWritable, !self.isStalled else { return false }
    if self.mutation == .removedNeverCampaigns { return self.membership.isVoter(self.id) }
    return self.log.mayBeVoter(self.id, from: self.commit)
  }

  /// True while this member stands by the leader that it heard last: it then helps nobody else into the lead
  /// (4.2.3, 6.4.1). Leases rest on this.
  private var isLoyal: Bool {
    if self.mutation == .ignoreStickiness { return false }
    // A leader ends this by itself when it does not hear a majority any more: see `leaderWoke`.
    if self.role == .leader { return true }
    return self.heardFromLeader.advanced(by: self.timing.electionTimeoutMin) > self.now
  }

  mutating func electionTimedOut(into effects: inout [Effect]) {
    guard self.mayCampaign else { return self.becomeFollower(in: self.term, leader: nil, into: &effects) }
    if self.mutation == .campaignWithoutPreVote {
      self.campaign(isTransfer: false, into: &effects)
    } else {
      self.askForPreVotes(into: &effects)
    }
  }

  private mutating func askForPreVotes(into effects: inout [Effect]) {
    self.becomeFollower(in: self.term, leader: nil, into: &effects)
    guard self.term < Limits.termMax else { return }
    self.role = .preCandidate
    self.votes = [self.id]  // Promises nothing, so it need not be durable.
    self.askVoters(.preVoteRequest(last: self.log.last), into: &effects)
    self.countPreVotes(into: &effects)
  }

  /// Becomes a candidate in a new term (3.4). With `isTransfer`, by order of the leader (3.10).
  mutating func campaign(isTransfer: Bool, into effects: inout [Effect]) {
    guard self.term < Limits.termMax else { return }
    self.becomeFollower(in: self.term.next, leader: nil, into: &effects)
    self.role = .candidate
    self.votes = []
    self.hardState.vote = self.id
    self.ledger.hardStateChanged()
    self.askVoters(.voteRequest(last: self.log.last, isTransfer: isTransfer), into: &effects)
    self.countVotes(into: &effects)
  }

  private mutating func askVoters(_ body: Message.Body, into effects: inout [Effect]) {
    let membership = self.membership
    for member in membership.members where member != self.id && membership.isVoter(member) {
      self.send(body, to: member, into: &effects)
    }
  }

  // MARK: - Voting

  mutating func receivePreVoteRequest(
    term: Term, last: LogPosition, from sender: MemberID, into effects: inout [Effect]
  ) {
    // The sender's next term must be one in which it could win, and its log one with which it could.
    let isLater = term >= self.term || self.mutation == .preVoteWithoutTermCheck
    let isUpToDate =
      last >= self.log.last || self.mutation == .preVoteWithoutLogCheck || self.mutation == .voteWithoutLogCheck
    let granted = isLater && isUpToDate && !self.isLoyal
    self.send(.preVoteReply(for: term.next, granted: granted), to: sender, into: &effects)
  }

  mutating func receiveVoteRequest(
    term: Term, last: LogPosition, isTransfer: Bool, from sender: MemberID, into effects: inout [Effect]
  ) {
    if term < self.term { return self.send(.voteReply(granted: false), to: sender, into: &effects) }
    if term > self.term {
      // Not even the term is taken over: a member that was removed, or cut off, would depose the leader (4.2.3).
      guard isTransfer || !self.isLoyal else { return }
      self.becomeFollower(in: term, leader: nil, into: &effects)
    }
    // 3.4: one vote in a term. 3.6.1: only for a log that has all that may be committed.
    let isFree =
      self.hardState.vote == sender || self.hardState.vote == nil && self.leader == nil
      || self.mutation == .voteTwice && self.role != .leader
    let isUpToDate = last >= self.log.last || self.mutation == .voteWithoutLogCheck
    guard isFree, isUpToDate else {
      return self.send(.voteReply(granted: false), to: sender, into: &effects)
    }
    if self.hardState.vote != sender {
      self.hardState.vote = sender
      self.ledger.hardStateChanged()
    }
    self.resetElectionDeadline()
    self.send(.voteReply(granted: true), to: sender, into: &effects)
  }

  mutating func receivePreVoteReply(
    for term: Term, granted: Bool, from sender: MemberID, into effects: inout [Effect]
  ) {
    guard self.role == .preCandidate, granted, term == self.term.next, !self.votes.contains(sender) else { return }
    self.votes.append(sender)
    self.countPreVotes(into: &effects)
  }

  mutating func receiveVoteReply(granted: Bool, from sender: MemberID, into effects: inout [Effect]) {
    guard self.role == .candidate, granted, !self.votes.contains(sender) else { return }
    self.votes.append(sender)
    self.countVotes(into: &effects)
  }

  private mutating func countPreVotes(into effects: inout [Effect]) {
    if self.quorumMembership.hasQuorum({ self.votes.contains($0) }) {
      self.campaign(isTransfer: false, into: &effects)
    }
  }

  /// The own vote counts when it is durable, as any other.
  mutating func countVotes(into effects: inout [Effect]) {
    guard self.role == .candidate else { return }
    if self.ledger.hardStateGate == nil, !self.votes.contains(self.id) { self.votes.append(self.id) }
    if self.quorumMembership.hasQuorum({ self.votes.contains($0) }) { self.becomeLeader(into: &effects) }
  }

  // MARK: - Changing roles

  /// Follows in a term, which is the present or a later one.
  mutating func becomeFollower(in term: Term, leader: MemberID?, into effects: inout [Effect]) {
    if self.role == .leader { self.endLeading(isSuperseded: term > self.term, into: &effects) }
    let isLater = term > self.term
    if isLater {
      self.hardState = HardState(term: term, vote: nil)
      self.ledger.hardStateChanged()
      // A term has one leader, so these are good for as long as it lasts.
      self.matched = .zero
      self.acknowledged = .zero
      self.owesAcknowledgement = false
    }
    if isLater || leader != self.leader { self.failForwardedReads(.leadershipLost, into: &effects) }
    self.role = .follower
    self.leader = leader
    self.votes = []
    self.resetElectionDeadline()
  }

  private mutating func becomeLeader(into effects: inout [Effect]) {
    self.role = .leader
    self.leader = self.id
    self.votes = []
    self.rounds = RoundClock()
    self.leaseIsForfeited = false
    self.uncommittedBytes = 0
    var index = self.commit.next
    while index <= self.log.lastIndex {
      self.uncommittedBytes += self.log.byteCount(at: index)
      index = index.next
    }
    self.peers = []
    self.syncPeers()
    // 3.6.2: only an entry of its own term shows a leader what is committed.
    self.appendAsLeader(EntryHeader(term: self.term, kind: .noop), into: &effects)
    self.termStart = self.log.lastIndex
    self.beginRound(into: &effects)
    self.advanceCommit(into: &effects)
  }

  private mutating func endLeading(isSuperseded: Bool, into effects: inout [Effect]) {
    self.failPendingReads(into: &effects)
    if let transfer = self.transfer {
      let result: TransferResult = transfer.isSent && isSuperseded ? .handedOver : .leadershipLost
      effects.append(.transferEnded(to: transfer.target, result))
      self.transfer = nil
    }
    self.peers = []
    self.heartbeatDeadline = .never
    // It was there to hear itself. What it promised to nobody but itself, its own lease, it gave up just now.
    self.rounds = RoundClock()
  }
}
