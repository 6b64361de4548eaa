// SPDX-License-Identifier: Apache-2.0

/// Remembers when heartbeat rounds began, until a quorum has answered them: for reads and for the lease.
package struct RoundClock: Hashable, Sendable {
  private struct Begun: Hashable, Sendable {
    var round: HeartbeatRound
    var at: Instant
  }

  package private(set) var last: HeartbeatRound = .zero
  package private(set) var confirmed: HeartbeatRound = .zero
  /// When the last confirmed round began: the leader led then, and those that answered stand by it for a while.
  package private(set) var confirmedSince: Instant?
  private var begun: [Begun] = []

  package init() {}

  package var unconfirmedCount: Int { self.begun.count }

  package mutating func begin(at now: Instant) -> HeartbeatRound {
    self.last = HeartbeatRound(self.last.rawValue &+ 1)
    // Without answers only the newest matter; a leader without answers steps down soon.
    if self.begun.count >= 64 { self.begun.removeFirst() }
    self.begun.append(Begun(round: self.last, at: now))
    return self.last
  }

  /// A quorum has answered this round or a later one. True if that is news.
  package mutating func confirm(_ round: HeartbeatRound) -> Bool {
    guard round > self.confirmed else { return false }
    self.confirmed = round
    while let first = self.begun.first, first.round <= round {
      self.confirmedSince = first.at
      self.begun.removeFirst()
    }
    return true
  }
}
