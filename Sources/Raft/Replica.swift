// SPDX-License-Identifier: Apache-2.0

/// One member of a Raft group: it decides, and performs nothing. No clock, disk, network or global randomness can be
/// reached from here: the same configuration, state and events always give the same effects.
///
/// It follows Ongaro, "Consensus: Bridging Theory and Practice" (2014), whose sections the comments cite. What goes
/// beyond, or differs:
///
/// - Time is an input. Deadlines are kept here, and ``wakeAt`` names the next; between heartbeats nothing happens.
/// - Entries are headers. Payloads stay with the driver, who finds them by index and term.
/// - Writes are asynchronous. Whatever promises something waits in here until the write that it rests on is reported as
///   durable, so that each ``Effect/send(_:to:)`` may leave at once.
/// - Work is collected: ``step(_:at:into:)`` takes in any number of events, ``flush(at:into:)`` then gives one write
///   and one append for each follower.
public struct Replica: Sendable {
  public let configuration: ReplicaConfiguration
  public internal(set) var hardState: HardState
  public internal(set) var role: Role = .follower
  public internal(set) var leader: MemberID?
  /// Everything through here is committed, as far as this member knows.
  public internal(set) var commit: LogIndex
  /// The driver must send ``Event/wake`` then, or sooner. `zero` after a step that no flush has followed.
  public internal(set) var wakeAt: Instant = .zero

  let timing: Timing
  var random: SeededGenerator
  var now: Instant
  var log: LogHeaders

  // What was told to the driver, to tell it of changes only.
  var announcedLeadership: Leadership
  var announcedMembership: LogHeaders.MembershipRecord
  var applying: LogIndex

  // The disk
  var ledger: WriteLedger
  var deferred: [DeferredMessage] = []
  var isWritable = true
  var isDeclaredStalled = false

  // Following
  var electionDeadline: Instant = .never
  /// When a leader was heard last. Starting counts as that: a former life may have promised something to a leader.
  var heardFromLeader: Instant
  /// The log is that of this term's leader through here.
  var matched: LogIndex = .zero
  var acknowledged: LogIndex = .zero
  var owesAcknowledgement = false
  var unsentReads: [ReadID] = []
  var forwardedReads: [ForwardedRead] = []
  var lastNonce: UInt64

  // Campaigning
  var votes: [MemberID] = []

  // Leading
  var peers: [Progress] = []
  /// The index of this leader's no-op.
  var termStart: LogIndex = .zero
  var heartbeatDeadline: Instant = .never
  var rounds = RoundClock()
  var leaseIsForfeited = false
  var reads: [PendingRead] = []
  var readsInRound = 0
  var transfer: Transfer?
  var uncommittedBytes = 0

  var id: MemberID { self.configuration.member }
  var term: Term { self.hardState.term }
  var mutation: Mutation? { self.configuration.mutation }
  /// Who belongs to the group by the newest entry that says so, committed or not.
  public var membership: Membership { self.log.membership.membership }

  /// Takes up what is on the disk. `now` is this member's clock; a group's first leader is there an election timeout
  /// later, or at once if there is but one voter.
  public init(
    _ configuration: ReplicaConfiguration, restoring state: PersistentState, at now: Instant
  ) throws(RestoreError) {
    let restored = try Self.restoreLog(state)
    self.configuration = configuration
    self.hardState = state.hardState
    self.timing = Timing(configuration)
    self.random = SeededGenerator(seed: configuration.seed)
    self.lastNonce = self.random.next()
    self.now = now
    self.log = restored.log
    self.ledger = WriteLedger(persisted: restored.log.lastIndex)
    self.commit = state.applied
    self.applying = state.applied
    self.heardFromLeader = now
    self.announcedLeadership = Leadership(term: state.hardState.term, role: .follower, leader: nil)
    self.announcedMembership = restored.log.membership
    if restored.discardsLog {
      self.ledger.snapshotInstalled(through: restored.log.base.index, discardsLog: true)
    }
    if restored.log.base.term > self.hardState.term {
      // The snapshot was ahead of all messages.
      self.hardState = HardState(term: restored.log.base.term, vote: nil)
      self.ledger.hardStateChanged()
    }
    if self.mutation == .forgetVote { self.hardState.vote = nil }
    if self.mutation == .restartWithoutGrace { self.heardFromLeader = .zero }
    self.resetElectionDeadline()
    if self.membership.voters == [self.id], !self.membership.isJoint { self.electionDeadline = now }
    self.wakeAt = .zero
  }

  /// Takes one event and adds to `effects` what the world must now do. More may come at the next flush.
  ///
  /// `now` is read from the member's clock after the event arrived, and before any effect is performed. Where it is
  /// before an earlier reading, the earlier one counts.
  public mutating func step(_ event: Event, at now: Instant, into effects: inout [Effect]) {
    self.now = max(self.now, now)
    self.wakeAt = .zero
    switch event {
    case .wake: self.wake(into: &effects)
    case .received(let message, let sender): self.receive(message, from: sender, into: &effects)
    case .persisted(let write): self.persisted(write, into: &effects)
    case .propose(let id, let byteCount): self.propose(id, byteCount: byteCount, into: &effects)
    case .read(let id): self.read(id, into: &effects)
    case .changeMembership(let id, let target, let expected):
      self.changeMembership(id, to: target, expecting: expected, into: &effects)
    case .transferLeadership(let target): self.beginTransfer(to: target, into: &effects)
    case .snapshotSent(let member, let metadata): self.snapshotEnded(for: member, through: metadata.position.index)
    case .snapshotFailed(let member): self.snapshotEnded(for: member, through: nil)
    case .snapshotInstalled(let metadata): self.installed(metadata, into: &effects)
    case .compacted(let index): self.compacted(through: index, into: &effects)
    case .setWritable(let isWritable): self.setWritable(isWritable, into: &effects)
    case .storageStalled(let isStalled): self.setStalled(isStalled, into: &effects)
    case .unreachable(let member): self.unreachable(member)
    }
    self.announceChanges(into: &effects)
    assert(self.mutation != nil || self.brokenInvariant == nil, self.brokenInvariant ?? "")
  }

  /// Ends a batch of steps: adds to `effects` the write and the messages that they led to, and sets ``wakeAt``.
  public mutating func flush(at now: Instant, into effects: inout [Effect]) {
    self.now = max(self.now, now)
    self.flushReads(into: &effects)
    self.sendAppends(into: &effects)
    self.flushTransfer(into: &effects)
    self.flushWrite(into: &effects)
    self.acknowledge(into: &effects)
    self.flushApply(into: &effects)
    self.announceChanges(into: &effects)
    self.setWakeAt()
    assert(self.mutation != nil || self.brokenInvariant == nil, self.brokenInvariant ?? "")
  }

  /// One step and a flush: for tests, and for drivers that are in no hurry.
  public mutating func step(_ event: Event, at now: Instant) -> [Effect] {
    var effects: [Effect] = []
    self.step(event, at: now, into: &effects)
    self.flush(at: now, into: &effects)
    return effects
  }

  // MARK: - Time

  private mutating func wake(into effects: inout [Effect]) {
    if self.role == .leader {
      self.leaderWoke(into: &effects)
    } else if self.now >= self.electionDeadline {
      self.electionTimedOut(into: &effects)
    }
    self.expireForwardedReads(into: &effects)
  }

  private mutating func setWakeAt() {
    var next: Instant
    if self.role == .leader {
      next = min(self.heartbeatDeadline, self.transfer?.deadline ?? .never)
      if let waitingSince = self.ledger.waitingSince {
        next = min(next, waitingSince.advanced(by: self.timing.storageStallLimit))
      }
    } else {
      next = self.electionDeadline
      if let oldest = self.forwardedReads.first { next = min(next, oldest.deadline) }
    }
    self.wakeAt = next
  }

  // MARK: - Messages

  private mutating func receive(_ message: Message, from sender: MemberID, into effects: inout [Effect]) {
    // Another life of the group: nothing that it says means anything here.
    guard message.incarnation == self.configuration.incarnation, sender != self.id else { return }
    guard message.term <= Limits.termMax else { return self.violated(.termBeyondLimit, by: sender, into: &effects) }

    // These two do not make anybody take over a term by themselves: see Replica+Election.
    switch message.body {
    case .preVoteRequest(let last):
      return self.receivePreVoteRequest(term: message.term, last: last, from: sender, into: &effects)
    case .voteRequest(let last, let isTransfer):
      return self.receiveVoteRequest(
        term: message.term, last: last, isTransfer: isTransfer, from: sender, into: &effects)
    case .preVoteReply(let term, let granted) where message.term <= self.term:
      // Of use even from a member whose term is behind: it grants a vote in a term that neither has reached.
      return self.receivePreVoteReply(for: term, granted: granted, from: sender, into: &effects)
    default: break
    }

    // Dissertation, 3.3: whoever sees a later term follows in it, and what is of an earlier term is void.
    if message.term > self.term {
      self.becomeFollower(in: message.term, leader: nil, into: &effects)
    } else if message.term < self.term {
      let isAccepted = self.mutation == .acceptOlderTerm && message.body.isOfLeader && self.role != .leader
      if !isAccepted {
        if message.body.isOfLeader { self.send(.termNotice, to: sender, into: &effects) }
        return
      }
    }

    switch message.body {
    case .preVoteRequest, .preVoteReply, .voteRequest, .termNotice: break
    case .voteReply(let granted): self.receiveVoteReply(granted: granted, from: sender, into: &effects)
    case .heartbeat(let round, let commit):
      self.receiveHeartbeat(round: round, commit: commit, from: sender, into: &effects)
    case .heartbeatReply(let round, let isWritable):
      self.receiveHeartbeatReply(round: round, isWritable: isWritable, from: sender, into: &effects)
    case .append(let position, let entries, let commit):
      self.receiveAppend(after: position, entries: entries, commit: commit, from: sender, into: &effects)
    case .appendReply(let result): self.receiveAppendReply(result, from: sender, into: &effects)
    case .timeoutNow: self.receiveTimeoutNow(from: sender, into: &effects)
    case .readRequest(let nonce): self.receiveReadRequest(nonce, from: sender, into: &effects)
    case .readReply(let nonce, let index):
      self.receiveReadReply(nonce, index: index, from: sender, into: &effects)
    }
  }

  /// Adds a message that leaves as soon as the present term and vote are durable.
  mutating func send(_ body: Message.Body, to member: MemberID, into effects: inout [Effect]) {
    let message = Message(incarnation: self.configuration.incarnation, term: self.term, body: body)
    if let gate = self.ledger.hardStateGate, self.mutation != .voteBeforePersisted {
      // A disk that hangs must not fill the memory. Messages may get lost anyway.
      if self.deferred.count >= DeferredMessage.countMax { self.deferred.removeFirst() }
      self.deferred.append(DeferredMessage(gate: gate, member: member, message: message))
    } else {
      effects.append(.send(message, to: member))
    }
  }

  func violated(_ kind: Violation.Kind, by member: MemberID?, into effects: inout [Effect]) {
    effects.append(.violation(Violation(kind: kind, member: member)))
  }

  private mutating func announceChanges(into effects: inout [Effect]) {
    let leadership = Leadership(term: self.term, role: self.role, leader: self.leader)
    if leadership != self.announcedLeadership {
      self.announcedLeadership = leadership
      effects.append(.leadershipChanged(leadership))
    }
    if self.log.membership.index != self.announcedMembership.index
      || self.log.membership.membership != self.announcedMembership.membership
    {
      self.announcedMembership = self.log.membership
      effects.append(
        .membershipChanged(self.announcedMembership.membership, at: self.announcedMembership.index))
    }
  }
}

/// A message that waits for the disk.
struct DeferredMessage: Sendable {
  static let countMax = 1024
  var gate: WriteID
  var member: MemberID
  var message: Message
}

extension Message.Body {
  /// True for what only a leader says on its own accord.
  var isOfLeader: Bool {
    switch self {
    case .heartbeat, .append, .timeoutNow: true
    default: false
    }
  }
}
