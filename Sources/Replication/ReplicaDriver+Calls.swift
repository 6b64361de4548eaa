// SPDX-License-Identifier: Apache-2.0

package import Raft
package import SectorStore
internal import Synchronization

extension ReplicaDriver {
  // MARK: Changing

  /// Puts a change into the log, if this member leads. The order of calls is the order of the log, and of application.
  /// It leaves with the next ``flush()``. Short and without waiting.
  ///
  /// - Parameter term: the only term that it may be proposed in, for what was decided by what is known in that one; nil:
  ///   whichever.
  /// - Throws: `notLeader`, `leadershipLost` in another term, `queueFull`, `noSpace`, `invalidChange`, `closed`, with
  ///   nothing done.
  /// - Returns: what says when the change is durable on a majority and applied here, or why nothing of it was done.
  package func propose(_ change: Change, term: UInt64? = nil) throws(StoreError) -> PendingChange {
    try change.check(self.store.configuration)
    let pending = PendingChange()
    let byteCount = change.byteCount
    let blockBytes = change.blocks.reduce(0) { $0 + $1.bytes.count }
    // Not under the lock, as the system may have to be asked.
    let hasRoom = blockBytes == 0 || self.store.hasRoom(for: blockBytes + self.state.withLock { $0.payloads.byteCount })
    let refusal = self.state.withLock { state -> Refusal? in
      guard !state.isStopped else { return Refusal(.closed) }
      if let term, state.replica.hardState.term.rawValue != term { return Refusal(.leadershipLost) }
      if !hasRoom, state.replica.role == .leader { return self.refuseForWantOfRoom(&state) }
      state.lastProposal += 1
      let id = ProposalID(state.lastProposal)
      var effects: [Effect] = []
      state.replica.step(.propose(id, byteCount: byteCount), at: MonotonicClock.now, into: &effects)
      for effect in effects {
        switch effect {
        case .accepted(_, let position):
          state.payloads.insert(.change(change), index: position.index.rawValue, term: position.term.rawValue)
          state.waiting[position.index.rawValue] = (position.term.rawValue, pending)
        case .rejected(_, let why): return Refusal(StoreError(why))
        default: break
        }
      }
      return nil
    }
    guard let refusal else { return pending }
    self.conclude(refusal.aftermath)
    throw refusal.error
  }

  private struct Refusal {
    var error: StoreError
    var aftermath = Aftermath()

    init(_ error: StoreError) { self.error = error }
  }

  /// Another member may have the room that this one lacks: it is asked to lead. Not too often, as they may all be full.
  private func refuseForWantOfRoom(_ state: inout State) -> Refusal {
    var refusal = Refusal(.noSpace)
    let now = MonotonicClock.now
    let isSoon = state.lastHandover.map { now.nanoseconds < $0.nanoseconds + Self.handoverInterval } ?? false
    guard !isSoon, state.transfer == nil, state.replica.status.membership.voters.count > 1 else { return refusal }
    state.lastHandover = now
    var effects: [Effect] = []
    state.replica.step(.transferLeadership(to: nil), at: now, into: &effects)
    state.replica.flush(at: now, into: &effects)
    refusal.aftermath = self.perform(effects, &state)
    return refusal
  }

  private static let handoverInterval: UInt64 = 10_000_000_000

  // MARK: Reading

  /// Returns when what this member has applied includes everything that was acknowledged before the call, by whichever
  /// member. On a leader with a lease that is at once; on a follower the leader is asked.
  ///
  /// - Throws: `notLeader` where that can not be told, as nobody leads who could be reached.
  package func confirmRead() async throws(StoreError) {
    let result: Result<Void, StoreError> = await withCheckedContinuation { continuation in
      let aftermath = self.state.withLock { state -> Aftermath in
        guard !state.isStopped else {
          var aftermath = Aftermath()
          aftermath.reads.append((ReadWaiter(continuation: continuation), .failure(.closed)))
          return aftermath
        }
        state.lastRead += 1
        state.reads[ReadID(state.lastRead)] = ReadWaiter(continuation: continuation)
        var effects: [Effect] = []
        let now = MonotonicClock.now
        state.replica.step(.read(ReadID(state.lastRead)), at: now, into: &effects)
        state.replica.flush(at: now, into: &effects)
        return self.perform(effects, &state)
      }
      self.conclude(aftermath)
    }
    try result.get()
  }

  /// Whether ``confirmRead()`` would return at once.
  package var isReadConfirmed: Bool {
    self.state.withLock { state in
      guard let index = state.replica.readableIndex(at: MonotonicClock.now) else { return false }
      return index.rawValue <= state.applied && !state.isStopped
    }
  }

  // MARK: Leading

  /// The term that this member leads in, when it has applied all that was committed before it: it knows the state then.
  /// Nil otherwise.
  package var leadingTerm: UInt64? {
    self.state.withLock { state in
      let replica = state.replica
      guard replica.role == .leader, !state.isStopped, let start = replica.leadershipStart,
        state.applied >= start.rawValue
      else { return nil }
      return replica.hardState.term.rawValue
    }
  }

  /// Who leads, as far as this member knows.
  package var leader: MemberID? { self.state.withLock { $0.replica.leader } }

  /// Returns when somebody is known to lead, or the time is up.
  package func waitForLeader(_ timeout: Duration) async {
    let nanoseconds = UInt64(max(timeout / .nanoseconds(1), 0))
    await withCheckedContinuation { continuation in
      let isOver = self.state.withLock { state in
        if state.replica.leader != nil || state.isStopped { return true }
        state.leaderWaiters.append((MonotonicClock.now.nanoseconds + nanoseconds, continuation))
        return false
      }
      if isOver { continuation.resume() }
    }
  }

  /// The members that are known to have an entry on their disks: this one, and, if it leads, others.
  package func holders(of index: StoreLogIndex) -> [MemberID] {
    self.state.withLock { state in
      let members = state.replica.membership.members
      return members.filter { member in
        member == self.member || (state.replica.progress(of: member)?.match.rawValue ?? 0) >= index.rawValue
      }
    }
  }

  package var status: ReplicaStatus { self.state.withLock { $0.replica.status } }

  /// Whether a snapshot through this entry has something that this member's log has not. Where it has that very entry,
  /// all before it is there as well, and what it has acknowledged behind it must not be lost.
  package func lacks(_ index: StoreLogIndex, term: UInt64) -> Bool {
    self.state.withLock { state in
      let index = Raft.LogIndex(index.rawValue)
      return index > state.replica.commit && state.replica.term(at: index) != Term(term)
    }
  }

  /// What this member must never forget.
  package var hardState: HardState { self.state.withLock { $0.replica.hardState } }

  /// How far this member has applied the log.
  package var appliedIndex: UInt64 { self.state.withLock { $0.applied } }

  /// Asks for another membership; see `Event.changeMembership`. Returns when the first entry of the change is in the log,
  /// which does not mean that it is committed.
  package func changeMembership(to target: Membership, expecting index: Raft.LogIndex) throws(StoreError) {
    let (rejection, aftermath) = self.state.withLock { state -> (StoreError?, Aftermath) in
      guard !state.isStopped else { return (.closed, Aftermath()) }
      state.lastProposal += 1
      var effects: [Effect] = []
      let now = MonotonicClock.now
      state.replica.step(
        .changeMembership(ProposalID(state.lastProposal), to: target, expecting: index), at: now, into: &effects)
      state.replica.flush(at: now, into: &effects)
      var rejection: StoreError?
      for case .rejected(_, let why) in effects { rejection = StoreError(why) }
      return (rejection, self.perform(effects, &state))
    }
    self.conclude(aftermath)
    if let rejection { throw rejection }
  }

  /// Hands leadership over, to the member that is furthest if none is named. `impossible` where that is under way for
  /// somebody else already.
  package func transferLeadership(to member: MemberID? = nil) async -> TransferResult {
    await withCheckedContinuation { continuation in
      let isTaken = self.state.withLock { state in
        guard !state.isStopped, state.transfer == nil else { return false }
        state.transfer = continuation
        return true
      }
      guard isTaken else { return continuation.resume(returning: .impossible) }
      self.deliver([.transferLeadership(to: member)])
    }
  }

  // MARK: Snapshots

  /// Members that need a snapshot, each with the entry that it has to reach at least. Each is named once; afterwards
  /// ``snapshotEnded(for:through:)`` has to be said.
  package func takeSnapshotRequests() -> [MemberID: UInt64] {
    self.state.withLock { state in
      defer { state.snapshotsWanted = [:] }
      return state.snapshotsWanted
    }
  }

  /// - Parameter index: where the snapshot stands that the member has; nil where it has none.
  package func snapshotEnded(for member: MemberID, through index: StoreLogIndex?) {
    let metadata = index.flatMap { index in
      self.state.withLock { $0.replica.snapshotMetadata(at: Raft.LogIndex(index.rawValue)) }
    }
    if let metadata {
      self.deliver([.snapshotSent(to: member, metadata)])
    } else {
      self.deliver([.snapshotFailed(to: member)])
    }
  }
}
