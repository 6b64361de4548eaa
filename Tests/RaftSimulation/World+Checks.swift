// SPDX-License-Identifier: Apache-2.0

import Raft

extension World {
  /// After every step of a member.
  mutating func inspect(_ number: Int) {
    guard self.failure == nil, let replica = self.nodes[number].replica else { return }
    if let broken = replica.brokenInvariant { return self.fail(.invariant, "\(number + 1): \(broken)") }
    let term = replica.hardState.term
    if term < self.nodes[number].lastTerm {
      return self.fail(.monotony, "the term of \(number + 1) goes back")
    }
    self.nodes[number].lastTerm = term
    if replica.role == .leader {
      let isFirst = self.judge.leaders[term] == nil
      self.fail(self.judge.leads(self.nodes[number].id, replica))
      if isFirst, self.scenario.leaderMustStay, self.judge.leaders.count > 1 {
        return self.fail(.leaderStays, "\(number + 1) replaces a leader that was well")
      }
      if isFirst, self.scenario.faults.contains(.crashNewLeader), !self.isHealing { self.crashSoon(number) }
    }
    self.checkCommit(number, replica)
  }

  private mutating func checkCommit(_ number: Int, _ replica: Replica) {
    let checked = self.nodes[number].checkedCommit
    guard replica.commit != checked else { return }
    if replica.commit < checked { return self.fail(.monotony, "what \(number + 1) has committed goes back") }
    let snapshot = replica.status.compacted
    if snapshot.index > checked, !self.judge.agrees(snapshot) {
      return self.fail(.stateMachineSafety, "\(number + 1) has a snapshot of another history, \(snapshot)")
    }
    var index = max(checked, snapshot.index).next
    while index <= replica.commit {
      guard let term = replica.term(at: index) else {
        return self.fail(.invariant, "\(number + 1) commits \(index.rawValue), which it lacks")
      }
      let command = self.nodes[number].commands[LogPosition(index: index, term: term)]
      self.coverage.commits += 1
      self.fail(self.judge.commits(term, command, at: index, in: replica.hardState.term))
      index = index.next
    }
    self.nodes[number].checkedCommit = replica.commit
    let status = replica.status
    if status.membershipIndex <= replica.commit,
      !self.judge.hasMembership(status.membership, at: status.membershipIndex)
    {
      return self.fail(.stateMachineSafety, "\(number + 1) is in another membership than was committed")
    }
    if replica.role == .leader, let term = replica.term(at: replica.commit) {
      self.checkDurability(of: LogPosition(index: replica.commit, term: term), number, replica)
    }
  }

  /// What a leader commits is on the disks of a majority: one of each set while the membership is joint.
  private mutating func checkDurability(of position: LogPosition, _ number: Int, _ replica: Replica) {
    let membership = replica.status.membership
    for voters in [membership.voters, membership.outgoing] where !voters.isEmpty {
      let holding = voters.filter { self.nodes[self.number(of: $0)].disk.holds(position) }
      if holding.count <= voters.count / 2 {
        return self.fail(
          .commitIsDurable,
          "\(number + 1) commits \(position), which only \(holding.map(\.rawValue)) have stored of "
            + "\(voters.map(\.rawValue))")
      }
    }
  }

  /// Before a message leaves: what it promises is on the disk.
  mutating func checkPromise(_ message: Message, from sender: Int, to receiver: MemberID) {
    self.nodes[sender].spokenTerm = max(self.nodes[sender].spokenTerm, message.term)
    let node = self.nodes[sender]
    if message.term > node.disk.hardState.term {
      self.fail(.termIsDurable, "\(sender + 1) speaks of term \(message.term.rawValue), which it may forget")
    }
    switch message.body {
    case .voteReply(granted: true):
      let stored = node.disk.hardState
      if stored.term < message.term || stored.term == message.term && stored.vote != receiver {
        self.fail(.voteIsDurable, "\(sender + 1) votes for \(receiver.rawValue), and may forget it")
      }
      self.fail(self.judge.votes(node.id, for: receiver, in: message.term))
    case .voteRequest: self.fail(self.judge.votes(node.id, for: node.id, in: message.term))
    case .preVoteReply(let term, granted: true) where self.scenario.judgesPreVotes:
      // Its log may grow while it waits for its disk: only what it says at once is judged.
      guard let replica = node.replica, let request = node.preVoteRequest,
        request.term.rawValue + 1 == term.rawValue
      else { return }
      if term <= message.term || request.last < replica.last {
        self.fail(.preVoteIsHonest, "\(sender + 1) encourages \(receiver.rawValue), which could not win")
      }
    case .appendReply(.matched(let index)):
      guard let replica = node.replica, let term = replica.term(at: index) else { return }
      if !node.disk.holds(LogPosition(index: index, term: term)) {
        self.fail(.acknowledgedIsDurable, "\(sender + 1) acknowledges \(index.rawValue), and may forget it")
      }
    default: break
    }
  }

  // MARK: - At the end

  /// Repairs everything, and waits until a write commits and all members agree.
  mutating func healAndCheckLiveness() {
    self.note("all is repaired")
    self.isHealing = true
    self.cuts = self.cuts.map { $0.map { _ in 0 } }
    for number in self.nodes.indices {
      self.nodes[number].diskIsSlow = false
      self.nodes[number].diskIsStalled = false
      self.runDisk(number)
      self.resume(number)
      self.start(number)
      if self.nodes[number].diskIsFull {
        self.nodes[number].diskIsFull = false
        self.step(number, .setWritable(true))
      }
    }
    let limit = self.time + 20_000_000_000
    let before = self.coverage.writesAnswered
    while self.failure == nil, self.time < limit {
      self.advance(to: self.time + 100_000_000)
      if self.coverage.writesAnswered > before, self.hasConverged { return }
    }
    let roles = self.nodes.map { node in
      let status = node.replica?.status
      return "\(node.id.rawValue): \(status.map { "\($0.leadership) \($0.last) commit \($0.commit.rawValue)" } ?? "-")"
    }
    self.fail(.liveness, "no progress or no agreement: \(roles)")
  }

  /// All members of the leader's membership have applied what it had committed a moment ago.
  private var hasConverged: Bool {
    let leaders = self.nodes.compactMap { node in node.replica.flatMap { $0.role == .leader ? $0.status : nil } }
    guard let leader = leaders.max(by: { $0.leadership.term < $1.leadership.term }), !leader.membershipIsPending else {
      return false
    }
    return leader.membership.members.allSatisfy {
      self.nodes[self.number(of: $0)].machine.applied.rawValue + 30 >= leader.commit.rawValue
    }
  }
}
