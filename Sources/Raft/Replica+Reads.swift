// SPDX-License-Identifier: Apache-2.0

/// A read that a leader has taken, its own or a follower's.
struct PendingRead: Sendable {
  enum Reader: Sendable {
    case local(ReadID)
    case remote(MemberID, ReadNonce)
  }
  var reader: Reader
  // Both are set when a round begins that the read can wait for.
  var round: HeartbeatRound = .zero
  var index: LogIndex = .zero
}

/// Reads that a follower has asked its leader about, in one question.
struct ForwardedRead: Sendable {
  var nonce: ReadNonce
  var deadline: Instant
  var reads: [ReadID]
}

// Reads without writing to the log: dissertation, 6.4; by lease, 6.4.1; on followers, 6.4, end.
extension Replica {
  /// Rounds for reads that may be under way at once; more reads share the next one.
  private static let readRoundsMax = 4

  mutating func read(_ id: ReadID, into effects: inout [Effect]) {
    if self.role == .leader {
      self.takeRead(.local(id), into: &effects)
    } else if self.leader == nil {
      effects.append(.readFailed(id, .noLeader))
    } else if self.unsentReads.count >= self.configuration.pendingReadsMax
      || self.forwardedReads.count >= self.configuration.pendingReadsMax
    {
      effects.append(.readFailed(id, .tooManyReads))
    } else {
      self.unsentReads.append(id)
    }
  }

  /// What a leader with a lease may serve reads by at once, as if they had been asked for now; nil for everybody else.
  /// `now` as for a step.
  public func readableIndex(at now: Instant) -> LogIndex? {
    guard self.role == .leader, self.timing.lease > 0, !self.leaseIsForfeited, self.commit >= self.termStart,
      let since = self.rounds.confirmedSince, max(now, self.now) < since.advanced(by: self.timing.lease)
    else { return nil }
    return self.commit
  }

  // MARK: - The leader

  private mutating func takeRead(_ reader: PendingRead.Reader, into effects: inout [Effect]) {
    // 6.4, step 1: before an entry of its term is committed, a leader does not know what is.
    let knowsCommit = self.commit >= self.termStart || self.mutation == .readBeforeTermCommit
    if knowsCommit, self.holdsLease || self.mutation == .readWithoutQuorum {
      self.complete(PendingRead(reader: reader, index: self.commit), into: &effects)
    } else if self.reads.count >= self.configuration.pendingReadsMax {
      self.fail(reader, .tooManyReads, into: &effects)
    } else {
      self.reads.append(PendingRead(reader: reader))
      if self.mutation == .readBeforeTermCommit { self.termStart = .zero }
    }
  }

  /// True while no other member can have become leader: those that answered the last confirmed round promised to wait
  /// for an election timeout from then on, which by the worst clocks is no shorter than the lease.
  var holdsLease: Bool {
    guard self.timing.lease > 0, !self.leaseIsForfeited, let since = self.rounds.confirmedSince else { return false }
    return self.now < since.advanced(by: self.timing.lease)
  }

  mutating func receiveReadRequest(_ nonce: ReadNonce, from sender: MemberID, into effects: inout [Effect]) {
    guard self.role == .leader, let number = self.peerNumber(sender) else {
      return self.send(.readReply(nonce, index: nil), to: sender, into: &effects)
    }
    self.peers[number].lastHeard = self.now
    self.takeRead(.remote(sender, nonce), into: &effects)
  }

  /// Begins a round if reads wait for one.
  private mutating func flushLeaderReads(into effects: inout [Effect]) {
    if self.readsInRound < self.reads.count, self.commit >= self.termStart,
      self.rounds.unconfirmedCount < Self.readRoundsMax
    {
      self.beginRound(into: &effects)
    }
  }

  /// Answers the reads whose round is confirmed.
  mutating func completeReads(into effects: inout [Effect]) {
    var count = 0
    while count < self.readsInRound, self.reads[count].round <= self.rounds.confirmed {
      self.complete(self.reads[count], into: &effects)
      count += 1
    }
    self.reads.removeFirst(count)
    self.readsInRound -= count
  }

  private mutating func complete(_ read: PendingRead, into effects: inout [Effect]) {
    switch read.reader {
    case .local(let id): effects.append(.readReady(id, at: read.index))
    case .remote(let member, let nonce):
      self.send(.readReply(nonce, index: read.index), to: member, into: &effects)
    }
  }

  private mutating func fail(_ reader: PendingRead.Reader, _ failure: ReadFailure, into effects: inout [Effect]) {
    switch reader {
    case .local(let id): effects.append(.readFailed(id, failure))
    case .remote(let member, let nonce): self.send(.readReply(nonce, index: nil), to: member, into: &effects)
    }
  }

  mutating func failPendingReads(into effects: inout [Effect]) {
    let reads = self.reads
    self.reads = []
    self.readsInRound = 0
    for read in reads { self.fail(read.reader, .leadershipLost, into: &effects) }
  }

  // MARK: - The follower

  /// Sends what was collected: one round, or one question to the leader, for all.
  mutating func flushReads(into effects: inout [Effect]) {
    if self.role == .leader { return self.flushLeaderReads(into: &effects) }
    guard let leader = self.leader, !self.unsentReads.isEmpty else { return }
    // Nonces begin at random, so that an answer to a former life of this member is not taken for one to this.
    self.lastNonce &+= 1
    let nonce = ReadNonce(self.lastNonce)
    self.forwardedReads.append(
      ForwardedRead(
        nonce: nonce, deadline: self.now.advanced(by: self.timing.electionTimeoutMax), reads: self.unsentReads))
    self.unsentReads = []
    self.send(.readRequest(nonce), to: leader, into: &effects)
  }

  mutating func receiveReadReply(
    _ nonce: ReadNonce, index: LogIndex?, from sender: MemberID, into effects: inout [Effect]
  ) {
    guard let number = self.forwardedReads.firstIndex(where: { $0.nonce == nonce }) else { return }
    if let index, index > Limits.indexMax { return self.violated(.indexBeyondLimit, by: sender, into: &effects) }
    let forwarded = self.forwardedReads.remove(at: number)
    guard let index else {
      for read in forwarded.reads { effects.append(.readFailed(read, .leadershipLost)) }
      return
    }
    // The leader's word that this much is committed.
    self.advanceCommit(to: min(index, self.matched))
    for read in forwarded.reads { effects.append(.readReady(read, at: index)) }
  }

  mutating func expireForwardedReads(into effects: inout [Effect]) {
    while let oldest = self.forwardedReads.first, oldest.deadline <= self.now {
      self.forwardedReads.removeFirst()
      for read in oldest.reads { effects.append(.readFailed(read, .timeout)) }
    }
  }

  mutating func failForwardedReads(_ failure: ReadFailure, into effects: inout [Effect]) {
    let forwarded = self.forwardedReads
    let unsent = self.unsentReads
    self.forwardedReads = []
    self.unsentReads = []
    for read in forwarded.flatMap(\.reads) + unsent { effects.append(.readFailed(read, failure)) }
  }
}
