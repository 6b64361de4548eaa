// SPDX-License-Identifier: Apache-2.0

package import Raft
package import SectorStore
internal import Synchronization

/// One member of a group: performs what the consensus decides, with a store beneath it and other members around.
///
/// Whoever has something for the consensus takes the lock, steps, and performs the effects, which only puts work into
/// queues: of the store, which has a thread of its own, and of the connections to the others. So a heartbeat never
/// waits for the disk, and nothing waits for another thread without need.
package final class ReplicaDriver: Sendable {
  package let store: SectorStore
  package let member: MemberID
  private let transport: any ReplicaTransport
  let state: Mutex<State>
  private let timer = Monitor(Timer())
  private let fetching = Mutex<Task<Void, Never>?>(nil)
  private let observer = Mutex(Observer())
  /// Members that messages wait for in the outbox: each at most once, so there is no need for another bound.
  private let lagging: AsyncStream<MemberID>.Continuation
  private let laggingMembers: AsyncStream<MemberID>

  /// Who hears of what happens. Called without any lock held; in order for each function, from any thread.
  package struct Observer: Sendable {
    /// Entries were applied, before anybody who waits for them hears of it.
    package var applied: @Sendable ([AppliedEntry]) -> Void = { _ in }
    /// Who leads, and who belongs to the group, has changed; or a snapshot is asked for.
    package var changed: @Sendable () -> Void = {}
    /// Something that a correct member would not have said or done.
    package var violated: @Sendable (Violation) -> Void = { _ in }

    package init() {}
  }

  struct State {
    var replica: Replica
    var payloads: PayloadCache
    var lastProposal: UInt64 = 0
    /// Who waits for entries of this member's terms as a leader, by index.
    var waiting: [UInt64: (term: UInt64, pending: PendingChange)] = [:]
    var lastRead: UInt64 = 0
    var reads: [ReadID: ReadWaiter] = [:]
    /// Reads that wait until an index is applied.
    var confirmed: [(index: UInt64, waiter: ReadWaiter)] = []
    var applied: UInt64
    /// Messages that wait for payloads from the disk, by member, in their order.
    var outbox: [MemberID: [Message]] = [:]
    var fetching: Set<MemberID> = []
    var snapshotsWanted: [MemberID: UInt64] = [:]
    var transfer: CheckedContinuation<TransferResult, Never>?
    /// When leadership was last handed over for want of room.
    var lastHandover: Raft.Instant?
    /// Who waits for somebody to lead, and until when.
    var leaderWaiters: [(deadline: UInt64, continuation: CheckedContinuation<Void, Never>)] = []
    var isOutOfSpace = false
    var isStopped = false
  }

  struct ReadWaiter {
    var continuation: CheckedContinuation<Result<Void, StoreError>, Never>
  }

  private struct Timer: Sendable {
    var target: UInt64 = 0
    var isStopped = false
    var isRunning = false
  }

  /// Takes up what the store has. Nothing happens before ``start()``.
  ///
  /// - Parameters:
  ///   - log: what the store had when it was opened, or what ``bootstrap(_:facts:)`` gave.
  ///   - configuration: its member is the store's.
  ///   - transport: how the others are reached.
  package init(
    store: SectorStore, log: RecoveredLog, configuration: ReplicaConfiguration, transport: any ReplicaTransport
  ) throws {
    var entries: [EntryHeader] = []
    for (offset, header) in log.entries.enumerated() {
      let kind: EntryHeader.Kind
      switch header.kind {
      case .change: kind = .command
      case .noop: kind = .noop
      case .membership(let bytes):
        guard let membership = Membership(bytes: bytes) else {
          throw StoreError.damaged(.logEntry(StoreLogIndex(log.applied.rawValue + 1 + UInt64(offset))))
        }
        kind = .membership(membership)
      }
      entries.append(EntryHeader(term: Term(header.term), kind: kind, byteCount: header.byteCount))
    }
    guard let stored = try store.membership(), let membership = Membership(bytes: stored.bytes) else {
      throw StoreError.damaged(.fact("membership"))
    }
    let snapshot = SnapshotMetadata(
      position: LogPosition(index: Raft.LogIndex(log.applied.rawValue), term: Term(log.appliedTerm)),
      membership: membership, membershipIndex: Raft.LogIndex(stored.index.rawValue))
    let restored = PersistentState(
      hardState: HardState(term: Term(log.hardState.term), vote: log.hardState.vote.map { MemberID($0) }),
      snapshot: snapshot, firstIndex: snapshot.position.index.next, entries: entries,
      applied: snapshot.position.index)
    self.store = store
    self.member = configuration.member
    self.transport = transport
    (self.laggingMembers, self.lagging) = AsyncStream.makeStream(of: MemberID.self)
    let replica = try Replica(configuration, restoring: restored, at: MonotonicClock.now)
    self.state = Mutex(
      State(replica: replica, payloads: PayloadCache(applied: log.applied.rawValue), applied: log.applied.rawValue))
    store.setOwner(self)
    store.setRetainsEntries(membership.members.count > 1)
  }

  /// Makes the first member of a group out of an empty store. Durable when it returns.
  ///
  /// - Parameter facts: what the layer above keeps of it from the beginning.
  package static func bootstrap(_ store: SectorStore, facts: [Change.Fact]) async throws(StoreError) -> RecoveredLog {
    guard let member = store.configuration.memberID, let membership = Membership(voters: [MemberID(member)]) else {
      throw .damaged(.header)
    }
    // Before any election, so of a term that no leader can have.
    var change = Change(term: 1)
    change.facts = [SectorStore.membershipFact(membership.bytes)] + facts
    let index = try await store.commit(change)
    // From the log alone it would have to be committed first to be known again, and until then the store would look like
    // that of a new group. Before anything else can be in the log.
    try await store.checkpoint()
    return RecoveredLog(hardState: LogHardState(term: 1), applied: index, appliedTerm: 1, entries: [])
  }

  /// Who hears of what happens from now on: to be set before ``start()``.
  package func setObserver(_ observer: Observer) { self.observer.withLock { $0 = observer } }

  /// Begins to take part. Returns false where the system has no thread left.
  package func start() -> Bool {
    self.timer.withLock { $0.isRunning = true }
    guard WorkerThread.start({ self.runTimer() }) else {
      self.timer.withLock { $0.isRunning = false }
      return false
    }
    // It ends with `end(_:)`, which everything ends with, and is waited for by `ended()`.
    let fetching = Task { await self.fetchForLaggingMembers() }
    self.fetching.withLock { $0 = fetching }
    self.deliver([.wake])
    return true
  }

  /// Takes no more part: whoever waits for something is told so. The store is left as it is.
  package func stop() {
    self.end(.closed)
    self.timer.wait { $0.isRunning ? nil : () }
  }

  /// Returns when nothing of the driver runs any more, after ``stop()`` or the end of the store.
  package func ended() async { await self.fetching.withLock { $0 }?.value }

  private func end(_ error: StoreError) {
    var waiters: [CheckedContinuation<Void, Never>] = []
    let (pending, reads, transfer) = self.state.withLock { state in
      state.isStopped = true
      let pending = state.waiting.values.map(\.pending)
      let reads = Array(state.reads.values) + state.confirmed.map(\.waiter)
      let transfer = state.transfer
      state.waiting = [:]
      state.reads = [:]
      state.confirmed = []
      state.transfer = nil
      state.outbox = [:]
      waiters = state.leaderWaiters.map(\.continuation)
      state.leaderWaiters = []
      return (pending, reads, transfer)
    }
    self.lagging.finish()
    self.timer.withLock { $0.isStopped = true }
    self.timer.wakeAll()
    for waiter in waiters { waiter.resume() }
    for item in pending { item.complete(.failure(error)) }
    for read in reads { read.continuation.resume(returning: .failure(error)) }
    transfer?.resume(returning: .leadershipLost)
  }

  // MARK: Time

  private func runTimer() {
    var nextRetry = UInt64(0)
    while true {
      let (target, isStopped) = self.timer.withLock { ($0.target, $0.isStopped) }
      if isStopped { break }
      let now = MonotonicClock.now.nanoseconds
      if target > now {
        // Not for ever: a write that found no room is tried again.
        self.timer.wait(nanoseconds: min(target - now, Self.retryInterval)) { $0.isStopped || $0.target < target }
      } else {
        self.deliver([.wake])
      }
      self.expireWaiters()
      if MonotonicClock.now.nanoseconds >= nextRetry {
        nextRetry = MonotonicClock.now.nanoseconds + Self.retryInterval
        if self.state.withLock({ $0.isOutOfSpace }) { self.store.retryWrites() }
      }
    }
    self.timer.withLock { $0.isRunning = false }
    self.timer.wakeAll()
  }

  private func expireWaiters() {
    let expired = self.state.withLock { state -> [CheckedContinuation<Void, Never>] in
      guard !state.leaderWaiters.isEmpty else { return [] }
      let now = MonotonicClock.now.nanoseconds
      let expired = state.leaderWaiters.filter { $0.deadline <= now }.map(\.continuation)
      if !expired.isEmpty { state.leaderWaiters.removeAll { $0.deadline <= now } }
      return expired
    }
    for waiter in expired { waiter.resume() }
  }

  private static let retryInterval: UInt64 = 1_000_000_000

  private func wakeTimer(at instant: Raft.Instant) {
    let isEarlier = self.timer.withLock { timer in
      defer { timer.target = instant.nanoseconds }
      return instant.nanoseconds < timer.target
    }
    if isEarlier { self.timer.wakeAll() }
  }

  // MARK: Stepping

  /// Steps through events, and performs all that follows from them.
  func deliver(_ events: [Event]) {
    let aftermath = self.state.withLock { state -> Aftermath in
      guard !state.isStopped else { return Aftermath() }
      var effects: [Effect] = []
      let now = MonotonicClock.now
      for event in events { state.replica.step(event, at: now, into: &effects) }
      state.replica.flush(at: now, into: &effects)
      return self.perform(effects, &state)
    }
    self.conclude(aftermath)
  }

  /// Ends a turn: what was proposed leaves for the disk and for the other members.
  package func flush() { self.deliver([]) }

  /// What is done when the lock is free again.
  struct Aftermath {
    /// Entries through here are to be applied.
    var apply: StoreLogIndex?
    var results: [(pending: PendingChange, result: Result<StoreLogIndex, StoreError>)] = []
    var reads: [(waiter: ReadWaiter, result: Result<Void, StoreError>)] = []
    var transfers: [(continuation: CheckedContinuation<TransferResult, Never>, result: TransferResult)] = []
    var leaderWaiters: [CheckedContinuation<Void, Never>] = []
    var violations: [Violation] = []
    var hasChanged = false
    var fetches: [MemberID] = []
    /// A fault of ours that makes the log incomplete: this member must not go on.
    var fault: StoreError?
  }

  func conclude(_ aftermath: Aftermath) {
    if let fault = aftermath.fault { self.end(fault) }
    // First, as somebody waits for it, and often it is done here and now.
    if let index = aftermath.apply { self.store.apply(through: index) }
    for waiter in aftermath.leaderWaiters { waiter.resume() }
    for item in aftermath.results { item.pending.complete(item.result) }
    for read in aftermath.reads { read.waiter.continuation.resume(returning: read.result) }
    for transfer in aftermath.transfers { transfer.continuation.resume(returning: transfer.result) }
    let observer = self.observer.withLock { $0 }
    for violation in aftermath.violations { observer.violated(violation) }
    if aftermath.hasChanged || aftermath.fault != nil { observer.changed() }
    for member in aftermath.fetches { self.lagging.yield(member) }
  }

  func perform(_ effects: [Effect], _ state: inout State) -> Aftermath {
    var aftermath = Aftermath()
    // Under the lock, or an earlier turn could put off what a later one asked for.
    self.wakeTimer(at: state.replica.wakeAt)
    for effect in effects {
      switch effect {
      case .send(let message, let member): self.send(message, to: member, &state, &aftermath)
      case .persist(let write):
        guard self.persist(write, &state) else {
          state.isStopped = true
          aftermath.fault = .failed("the payload of an entry is missing")
          return aftermath
        }
      case .apply(let index): aftermath.apply = StoreLogIndex(index.rawValue)
      case .accepted, .rejected: break  // Seen to by whoever proposed.
      case .readReady(let id, let index):
        guard let waiter = state.reads.removeValue(forKey: id) else { continue }
        if index.rawValue <= state.applied {
          aftermath.reads.append((waiter, .success(())))
        } else {
          state.confirmed.append((index.rawValue, waiter))
        }
      case .readFailed(let id, let why):
        guard let waiter = state.reads.removeValue(forKey: id) else { continue }
        aftermath.reads.append((waiter, .failure(why == .tooManyReads ? .queueFull : .notLeader)))
      case .sendSnapshot(let member, let index):
        state.snapshotsWanted[member] = index.rawValue
        aftermath.hasChanged = true
      case .membershipChanged(let membership, _):
        self.store.setRetainsEntries(membership.members.count > 1)
        aftermath.hasChanged = true
      case .leadershipChanged(let leadership):
        aftermath.hasChanged = true
        if leadership.leader != nil {
          aftermath.leaderWaiters += state.leaderWaiters.map(\.continuation)
          state.leaderWaiters = []
        } else {
          // When what they wait for will be here can not be told.
          aftermath.reads += state.confirmed.map { ($0.waiter, .failure(.notLeader)) }
          state.confirmed = []
        }
        guard leadership.role != .leader else { continue }
        // Whoever waits asks the next leader, under the same name.
        aftermath.results += state.waiting.values.map { ($0.pending, .failure(.leadershipLost)) }
        state.waiting = [:]
        state.snapshotsWanted = [:]
        state.outbox = [:]
      case .transferEnded(_, let result):
        if let transfer = state.transfer { aftermath.transfers.append((transfer, result)) }
        state.transfer = nil
      case .violation(let violation): aftermath.violations.append(violation)
      }
    }
    return aftermath
  }

  /// Returns false when the payload of an entry is missing.
  private func persist(_ write: Write, _ state: inout State) -> Bool {
    var index = write.firstIndex.rawValue
    if let truncation = write.truncation { state.payloads.truncate(from: truncation.rawValue, keeping: write) }
    var entries: [LogWrite.Entry] = []
    entries.reserveCapacity(write.entries.count)
    for header in write.entries {
      let payload: LogPayload
      switch header.kind {
      case .noop: payload = .noop
      case .membership(let membership): payload = .membership(membership.bytes)
      case .command:
        // Put there before the replica heard of it.
        guard let known = state.payloads.payload(index: index, term: header.term.rawValue) else { return false }
        payload = known
      }
      entries.append(.init(term: header.term.rawValue, payload: payload))
      index += 1
    }
    let hardState = write.hardState.map { LogHardState(term: $0.term.rawValue, vote: $0.vote?.rawValue) }
    // A store that is closed tells so by itself.
    try? self.store.write(
      LogWrite(
        id: write.id.rawValue, hardState: hardState, truncation: write.truncation.map { StoreLogIndex($0.rawValue) },
        firstIndex: StoreLogIndex(write.firstIndex.rawValue), entries: entries))
    return true
  }

  // MARK: Sending

  private func send(_ message: Message, to member: MemberID, _ state: inout State, _ aftermath: inout Aftermath) {
    guard case .append(_, let entries, _) = message.body, !entries.isEmpty else {
      return self.transport.send(message, payloads: [], to: member)
    }
    if state.outbox[member] == nil, let payloads = state.payloads.payloads(of: message) {
      return self.transport.send(message, payloads: payloads, to: member)
    }
    // In their order, or the member would have to ask for what is on its way.
    let waiting = state.outbox[member, default: []].count
    guard waiting < Self.outboxMax else { return }
    state.outbox[member, default: []].append(message)
    if state.fetching.insert(member).inserted { aftermath.fetches.append(member) }
  }

  private static let outboxMax = 128

  /// The only task of the driver: it lives from `start()` until the driver has ended and all that was being read is
  /// there or refused. One member whose entries are slow to read holds up no other.
  private func fetchForLaggingMembers() async {
    await withDiscardingTaskGroup { group in
      for await member in self.laggingMembers { group.addTask { await self.fetch(for: member) } }
    }
  }

  /// Reads payloads from the disk, for as long as messages to that member wait for some.
  private func fetch(for member: MemberID) async {
    while true {
      let next = self.state.withLock { state -> Message? in
        guard !state.isStopped, let first = state.outbox[member]?.first else {
          state.outbox[member] = nil
          state.fetching.remove(member)
          return nil
        }
        state.outbox[member]?.removeFirst()
        return first
      }
      guard let next else { return }
      do throws(StoreError) {
        let payloads = try await self.payloads(of: next)
        self.transport.send(next, payloads: payloads, to: member)
      } catch {
        // It is sent again later, or a snapshot is: entries may be gone for want of room before the store says so, and
        // what is damaged is as good as gone where the state has it.
        var gone: StoreLogIndex?
        switch error {
        case .entriesGone: gone = self.store.retainedAfter
        case .damaged:
          if case .append(let after, let entries, _) = next.body {
            gone = StoreLogIndex(after.index.rawValue + UInt64(entries.count))
          }
        default: break
        }
        let compacted = gone.map { Event.compacted(through: Raft.LogIndex(min($0, self.store.appliedIndex).rawValue)) }
        self.deliver((compacted.map { [$0] } ?? []) + [.unreachable(member)])
      }
    }
  }

  private func payloads(of message: Message) async throws(StoreError) -> [LogPayload?] {
    guard case .append(let after, let entries, _) = message.body else { return [] }
    var payloads: [LogPayload?] = []
    while payloads.count < entries.count {
      // What is not on the disk yet is here.
      let done = payloads.count
      payloads += self.state.withLock {
        $0.payloads.payloads(after: after.index.rawValue + UInt64(done), entries[done...])
      }
      guard payloads.count < entries.count else { break }
      let first = after.index.rawValue + 1 + UInt64(payloads.count)
      let last = after.index.rawValue + UInt64(entries.count)
      let found = try await self.store.entries(StoreLogIndex(first)...StoreLogIndex(last), byteCountMax: 1 << 20)
      guard !found.isEmpty else { throw .entriesGone }
      for item in found {
        guard item.index.rawValue == after.index.rawValue + 1 + UInt64(payloads.count),
          item.entry.term == entries[payloads.count].term.rawValue
        else { throw .entriesGone }
        payloads.append(item.entry.payload)
      }
    }
    return payloads
  }

  // MARK: Receiving

  /// A member's message has arrived, whose name the connection proved.
  ///
  /// - Parameter payloads: one for each entry of an append.
  package func receive(_ message: Message, payloads: [LogPayload?], from member: MemberID) {
    let aftermath = self.state.withLock { state -> Aftermath in
      guard !state.isStopped else { return Aftermath() }
      var effects: [Effect] = []
      let now = MonotonicClock.now
      if case .append(let after, let entries, _) = message.body {
        guard Self.fits(payloads, entries) else { return Aftermath() }
        state.payloads.setAside(payloads, after: after.index.rawValue, entries)
      }
      state.replica.step(.received(message, from: member), at: now, into: &effects)
      state.replica.flush(at: now, into: &effects)
      defer { state.payloads.forgetAside() }
      return self.perform(effects, &state)
    }
    self.conclude(aftermath)
  }

  /// Whether each command has its change: an entry without one could not be written.
  private static func fits(_ payloads: [LogPayload?], _ entries: [EntryHeader]) -> Bool {
    payloads.count == entries.count
      && zip(payloads, entries).allSatisfy { payload, header in
        guard header.kind == .command else { return true }
        if case .change = payload { return true }
        return false
      }
  }

  package func unreachable(_ member: MemberID) { self.deliver([.unreachable(member)]) }
}

extension StoreError {
  init(_ rejection: ProposalRejection) {
    switch rejection {
    case .notLeader, .transferring: self = .notLeader
    case .tooMuchInFlight, .membershipConflict, .membershipPending: self = .queueFull
    case .tooLarge: self = .invalidChange(.changeTooLong)
    case .unwritable: self = .noSpace
    }
  }
}

// MARK: - What the store says

extension ReplicaDriver: LogOwner {
  package func persisted(through id: UInt64) { self.deliver([.persisted(WriteID(id))]) }

  package func applied(_ entries: [AppliedEntry]) {
    self.observer.withLock { $0 }.applied(entries)
    let aftermath = self.state.withLock { state in
      var aftermath = Aftermath()
      for entry in entries {
        state.applied = entry.index.rawValue
        guard let waiting = state.waiting.removeValue(forKey: entry.index.rawValue) else { continue }
        let result: Result<StoreLogIndex, StoreError> =
          waiting.term == entry.term ? entry.result.map { entry.index } : .failure(.leadershipLost)
        aftermath.results.append((waiting.pending, result))
      }
      state.payloads.applied(through: state.applied)
      if !state.confirmed.isEmpty {
        aftermath.reads += state.confirmed.filter { $0.index <= state.applied }.map { ($0.waiter, .success(())) }
        state.confirmed.removeAll { $0.index <= state.applied }
      }
      return aftermath
    }
    self.conclude(aftermath)
  }

  package func compacted(through index: StoreLogIndex) {
    self.deliver([.compacted(through: Raft.LogIndex(index.rawValue))])
  }

  package func ranOutOfSpace() {
    self.state.withLock { $0.isOutOfSpace = true }
    self.deliver([.setWritable(false)])
  }

  package func foundSpace() {
    self.state.withLock { $0.isOutOfSpace = false }
    self.deliver([.setWritable(true)])
  }

  package func stopped(_ error: StoreError) { self.end(error) }
}
