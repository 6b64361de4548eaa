// SPDX-License-Identifier: Apache-2.0

/// What a leader knows of one other member's log, and what it may send it.
package struct Progress: Hashable, Sendable {
  package enum State: Hashable, Sendable {
    /// Where the logs agree is not known: one message at a time.
    case probe
    /// Messages follow one another without waiting, as far as the window goes.
    case replicate
    /// The member gets a snapshot, and no entries meanwhile.
    case snapshot
  }

  private struct Batch: Hashable, Sendable {
    var through: LogIndex
    var byteCount: Int
  }

  package let member: MemberID
  /// Everything through here is known to be the same, and durable there.
  package private(set) var match: LogIndex = .zero
  /// The first entry to send next.
  package private(set) var next: LogIndex
  package private(set) var state: State = .probe
  package var lastHeard: Instant
  package var acknowledgedRound: HeartbeatRound = .zero
  package var isWritable = true

  // On their way, oldest first: replicate only. `answered` many at the front are done.
  private var window: [Batch] = []
  private var answered = 0
  private var byteCount = 0
  /// When something was last sent or answered: after a silence, what is on its way counts as lost.
  package private(set) var lastActivity: Instant
  private var probeIsOut = false
  /// Probes without an answer. Only the first carries entries: a dead member should cost little.
  package private(set) var unansweredProbes = 0

  package init(member: MemberID, next: LogIndex, now: Instant) {
    self.member = member
    self.next = next
    self.lastHeard = now
    self.lastActivity = now
  }

  package var appendsInFlight: Int { self.window.count - self.answered }

  /// True if an append may go out now, apart from whether there is something to send.
  package func maySend(appendsMax: Int, bytesMax: Int) -> Bool {
    guard self.isWritable else { return false }
    return switch self.state {
    case .probe: !self.probeIsOut
    case .replicate: self.appendsInFlight < appendsMax && self.byteCount < bytesMax
    case .snapshot: false
    }
  }

  /// An append with the entries from `next` through `last` is on its way.
  package mutating func sent(through last: LogIndex, byteCount: Int, at now: Instant) {
    if self.state == .probe {
      self.probeIsOut = true
      self.unansweredProbes += 1
      self.lastActivity = now
      return
    }
    if self.appendsInFlight == 0 { self.lastActivity = now }
    self.window.append(Batch(through: last, byteCount: byteCount))
    self.byteCount += byteCount
    self.next = last.next
  }

  /// The member has everything through `index`. True if that is news.
  package mutating func matched(_ index: LogIndex, at now: Instant) -> Bool {
    let isNews = index > self.match
    self.match = max(self.match, index)
    self.lastActivity = now
    if self.state == .probe {
      self.become(.replicate, next: self.match.next, at: now)
    } else {
      self.next = max(self.next, self.match.next)
      while self.answered < self.window.count, self.window[self.answered].through <= index {
        self.byteCount -= self.window[self.answered].byteCount
        self.answered += 1
      }
      if self.answered == self.window.count {
        self.window.removeAll(keepingCapacity: true)
        self.answered = 0
      } else if self.answered >= 64 {
        self.window.removeSubrange(..<self.answered)
        self.answered = 0
      }
    }
    return isNews
  }

  /// The member has something else at `after`; the logs can agree no later than at `hint`. Old news changes
  /// nothing.
  package mutating func mismatched(after: LogIndex, hint: LogIndex, at now: Instant) {
    let isNews =
      switch self.state {
      case .snapshot: false
      case .probe: after == self.next.previous
      case .replicate: after > self.match
      }
    guard isNews else { return }
    self.become(.probe, next: max(self.match, min(hint, after.previous)).next, at: now)
  }

  /// What is on its way is lost, or counts as such.
  package mutating func lost(at now: Instant) {
    switch self.state {
    case .snapshot: break
    case .probe:
      self.probeIsOut = false
      self.lastActivity = now
    case .replicate:
      self.become(.probe, next: self.match.next, at: now)
      self.unansweredProbes = 1
    }
  }

  /// True if something is on its way since so long that it counts as lost.
  package func isSilent(probeLimit: UInt64, limit: UInt64, at now: Instant) -> Bool {
    switch self.state {
    case .probe: self.probeIsOut && now >= self.lastActivity.advanced(by: probeLimit)
    case .replicate: self.appendsInFlight > 0 && now >= self.lastActivity.advanced(by: limit)
    case .snapshot: false
    }
  }

  package mutating func beginSnapshot(at now: Instant) { self.become(.snapshot, next: self.next, at: now) }

  /// The snapshot is there, and covers everything through `index`; or it failed, and `index` is nil.
  package mutating func endSnapshot(through index: LogIndex?, at now: Instant) {
    guard self.state == .snapshot else { return }
    self.become(.probe, next: max(self.match, index ?? self.match).next, at: now)
    // After a failure, wait for as long as for a lost probe before trying again.
    if index == nil { self.probeIsOut = true }
  }

  private mutating func become(_ state: State, next: LogIndex, at now: Instant) {
    self.state = state
    self.next = next
    self.window.removeAll(keepingCapacity: true)
    self.answered = 0
    self.byteCount = 0
    self.probeIsOut = false
    self.unansweredProbes = 0
    self.lastActivity = now
  }
}
