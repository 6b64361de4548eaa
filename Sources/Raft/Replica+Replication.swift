// SPDX-License-Identifier: Apache-2.0

// Replication of the log: dissertation, 3.5; pipelined and batched, 10.2.
extension Replica {
  func peerNumber(_ member: MemberID) -> Int? { self.peers.firstIndex { $0.member == member } }
  func peer(_ member: MemberID) -> Progress? { self.peers.first { $0.member == member } }

  // MARK: - The leader

  mutating func propose(_ id: ProposalID, byteCount: Int, into effects: inout [Effect]) {
    if let rejection = self.rejection(byteCount: byteCount) {
      effects.append(.rejected(id, rejection))
      return
    }
    self.appendAsLeader(EntryHeader(term: self.term, kind: .command, byteCount: byteCount), into: &effects)
    effects.append(.accepted(id, at: self.log.last))
  }

  private func rejection(byteCount: Int) -> ProposalRejection? {
    if let rejection = self.rejectionOfAll { return rejection }
    if byteCount < 0 || byteCount > Limits.entryByteCountMax { return .tooLarge }
    // One entry goes through however large it is, if nothing else waits.
    let count = self.log.lastIndex.distance(after: self.commit)
    let isFull =
      count >= self.configuration.uncommittedEntriesMax
      || (self.uncommittedBytes > 0 && self.uncommittedBytes + byteCount > self.configuration.uncommittedBytesMax)
    return isFull ? .tooMuchInFlight : nil
  }

  /// Why nothing at all can be proposed here, if that is so.
  var rejectionOfAll: ProposalRejection? {
    guard self.role == .leader else { return .notLeader(leader: self.leader) }
    if let transfer = self.transfer { return .transferring(to: transfer.target) }
    if !self.isWritable || self.isStalled { return .unwritable }
    return self.log.lastIndex < Limits.indexMax ? nil : .tooMuchInFlight
  }

  mutating func appendAsLeader(_ header: EntryHeader, into effects: inout [Effect]) {
    self.log.append(header)
    self.uncommittedBytes += header.byteCount
    if self.mutation == .leaderCountsUnpersisted { self.advanceCommit(into: &effects) }
  }

  /// Sends everybody what it has not been sent, as far as its window goes.
  mutating func sendAppends(into effects: inout [Effect]) {
    guard self.role == .leader else { return }
    for number in self.peers.indices { self.sendAppends(toPeer: number, into: &effects) }
  }

  private mutating func sendAppends(toPeer number: Int, into effects: inout [Effect]) {
    let member = self.peers[number].member
    while self.peers[number].maySend(
      appendsMax: self.configuration.appendsInFlightMax, bytesMax: self.configuration.bytesInFlightMax)
    {
      let previous = self.peers[number].next.previous
      guard let term = self.log.term(at: previous) else {
        self.peers[number].beginSnapshot(at: self.now)
        effects.append(.sendSnapshot(to: member, atLeast: self.log.base.index))
        return
      }
      // A probe goes out even without entries; and where nobody answers, always without.
      let isProbe = self.peers[number].state == .probe
      guard isProbe || previous < self.log.lastIndex else { return }
      let entries =
        isProbe && self.peers[number].unansweredProbes > 0
        ? []
        : self.log.headers(
          from: previous.next, countMax: min(self.configuration.entriesPerAppendMax, Limits.entriesPerAppendMax),
          byteCountMax: self.configuration.bytesPerAppendMax)
      let last = LogIndex(previous.rawValue &+ UInt64(entries.count))
      let byteCount = entries.reduce(0) { $0 + $1.byteCount }
      self.peers[number].sent(through: last, byteCount: byteCount, at: self.now)
      self.send(
        .append(after: LogPosition(index: previous, term: term), entries: entries, commit: self.commit),
        to: member, into: &effects)
      if isProbe { return }
    }
  }

  mutating func receiveAppendReply(
    _ result: Message.AppendResult, from sender: MemberID, into effects: inout [Effect]
  ) {
    guard self.role == .leader, let number = self.peerNumber(sender) else { return }
    self.peers[number].lastHeard = self.now
    switch result {
    case .matched(let index):
      guard index <= self.log.lastIndex else { return self.violated(.matchBeyondLog, by: sender, into: &effects) }
      // While a snapshot is on its way, an answer to an earlier append must not end that state before the logs meet.
      if self.peers[number].matched(index, at: self.now) { self.advanceCommit(into: &effects) }
      guard let number = self.peerNumber(sender) else { return }
      if self.peers[number].state == .snapshot, self.peers[number].match >= self.log.base.index {
        self.peers[number].endSnapshot(through: self.peers[number].match, at: self.now)
      }
    case .mismatched(let after, let hint):
      // Both sides skip a whole term at a time (3.5, end): the follower from its end, the leader from there.
      let meeting =
        hint.index < self.log.base.index
        ? hint.index : self.log.lastPosition(upTo: min(hint.index, after), termAtMost: hint.term).index
      self.peers[number].mismatched(after: after, hint: meeting, at: self.now)
    case .unwritable:
      self.peers[number].isWritable = false
      self.peers[number].lost(at: self.now)
    }
  }

  mutating func unreachable(_ member: MemberID) {
    guard self.role == .leader, let number = self.peerNumber(member) else { return }
    self.peers[number].lost(at: self.now)
  }

  // MARK: - The follower

  mutating func receiveAppend(
    after: LogPosition, entries: [EntryHeader], commit: LogIndex, from sender: MemberID, into effects: inout [Effect]
  ) {
    if let kind = self.violation(after: after, entries: entries, commit: commit) {
      return self.violated(kind, by: sender, into: &effects)
    }
    guard self.hear(sender, into: &effects) else { return }
    guard self.isWritable || entries.isEmpty else {
      return self.send(.appendReply(.unwritable), to: sender, into: &effects)
    }

    // What is committed here is in every later leader's log (3.6.1), so it need not be compared, nor can it: the
    // headers up to the base are gone.
    var previous = after
    var rest = entries[...]
    if previous.index < self.log.base.index {
      let known = self.log.base.index.distance(after: previous.index)
      let last = rest.prefix(known).last
      if rest.count >= known, let last, last.term != self.log.base.term {
        return self.violated(.committedEntryContradicted, by: sender, into: &effects)
      }
      rest = rest.dropFirst(known)
      previous = self.log.base
    } else if self.log.term(at: previous.index) != previous.term, !self.toleratesMismatch(at: previous.index) {
      if previous.index <= self.commit {
        return self.violated(.committedEntryContradicted, by: sender, into: &effects)
      }
      let hint = self.log.lastPosition(upTo: previous.index, termAtMost: previous.term)
      return self.send(
        .appendReply(.mismatched(after: previous.index, hint: hint)), to: sender, into: &effects)
    }
    guard self.take(rest, after: previous.index) else {
      return self.violated(.committedEntryContradicted, by: sender, into: &effects)
    }
    let last = LogIndex(previous.index.rawValue &+ UInt64(rest.count))
    self.matched = min(max(self.matched, last, self.commit), self.log.lastIndex)
    self.owesAcknowledgement = true
    // Figure 3.1: what follows in this log beyond the message may be of another leader.
    self.advanceCommit(to: min(commit, self.mutation == .commitBeyondMatch ? self.log.lastIndex : self.matched))
  }

  private func toleratesMismatch(at index: LogIndex) -> Bool {
    self.mutation == .appendWithoutPreviousCheck && index <= self.log.lastIndex
  }

  private func violation(after: LogPosition, entries: [EntryHeader], commit: LogIndex) -> Violation.Kind? {
    if entries.count > Limits.entriesPerAppendMax { return .tooManyEntries }
    if after.index > Limits.indexMax || commit > Limits.indexMax { return .indexBeyondLimit }
    if after.index.rawValue + UInt64(entries.count) > Limits.indexMax.rawValue { return .indexBeyondLimit }
    var term = after.term
    for entry in entries {
      if entry.term < term || entry.term > self.term || entry.term == .zero { return .termOutOfOrder }
      if entry.byteCount < 0 || entry.byteCount > Limits.entryByteCountMax { return .entryTooLarge }
      term = entry.term
    }
    return nil
  }

  /// Appends what is new, after removing what contradicts it (figure 3.1). False if that is committed.
  private mutating func take(_ entries: ArraySlice<EntryHeader>, after previous: LogIndex) -> Bool {
    var index = previous
    for entry in entries {
      index = index.next
      if let term = self.log.term(at: index) {
        if term == entry.term || self.mutation == .keepConflictingSuffix { continue }
        guard index > self.commit else { return false }
        self.truncateLog(from: index)
      }
      self.log.append(entry)
    }
    return true
  }

  private mutating func truncateLog(from index: LogIndex) {
    let kept = self.mutation == .membershipKeptOnTruncation ? self.log.membership : nil
    self.log.truncate(from: index)
    if let kept, kept.index >= index { self.log.rebase(on: kept) }
    self.ledger.truncated(from: index)
    self.matched = min(self.matched, index.previous)
  }

  /// Answers for what is durable, at most once for each that is more.
  mutating func acknowledge(into effects: inout [Effect]) {
    guard self.owesAcknowledgement, self.role == .follower, let leader = self.leader else { return }
    // It would wait for the term to be durable, and then another one would say more.
    guard self.ledger.hardStateGate == nil || self.mutation == .acknowledgeBeforePersisted else { return }
    let durable =
      self.mutation == .acknowledgeBeforePersisted ? self.matched : min(self.matched, self.ledger.persisted)
    guard durable >= self.matched || durable > self.acknowledged else { return }
    self.acknowledged = durable
    self.owesAcknowledgement = durable < self.matched
    self.send(.appendReply(.matched(durable)), to: leader, into: &effects)
  }
}
