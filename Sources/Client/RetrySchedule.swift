// SPDX-License-Identifier: Apache-2.0

/// Decides whether and when a failed call is made again. Has no clock of its own.
package struct RetrySchedule: Sendable {
  package typealias Instant = ContinuousClock.Instant

  /// After the first failure; doubles with each further one.
  package static let initialDelay: Duration = .milliseconds(50)
  package static let maxDelay: Duration = .seconds(2)
  /// For calls without a deadline.
  package static let attemptsMax = 10
  /// While a cluster has no leader: the first pause; doubles with each round of asking.
  package static let initialElectionDelay: Duration = .milliseconds(10)
  package static let maxElectionDelay: Duration = .milliseconds(100)
  /// How long a call without a deadline waits for a leader.
  package static let electionPatience: Duration = .seconds(30)
  /// How long a call without a deadline waits while a directory is taken back from its cluster.
  package static let freezePatience: Duration = .seconds(60)

  /// When the caller wants to have heard.
  package let deadline: Instant?
  /// Until when a process that can not be reached is asked again.
  package private(set) var patience: Instant
  private var failureCount = 0
  /// Since when nobody leads.
  private var leaderlessSince: Instant?
  /// Since when nothing can be changed where the call goes.
  private var frozenSince: Instant?

  package init(timeout: Duration?, patience: Duration, now: Instant) {
    self.deadline = timeout.map { now + $0 }
    self.patience = now + patience
  }

  /// A process was reached: should it go away, this is how long it may take to come back.
  package mutating func reached(_ now: Instant, patience: Duration) {
    self.patience = max(self.patience, now + patience)
  }

  /// How long the next attempt may take; nil for no limit. Not positive when it is too late.
  package func remaining(_ now: Instant) -> Duration? { self.deadline.map { $0 - now } }

  /// How long to wait before the next attempt; nil when the error is final.
  ///
  /// - Parameters:
  ///   - wasSent: Whether the request may have reached a process.
  ///   - isRepeatable: Whether it may be made again even then.
  ///   - pause: What the search for a process needs.
  package mutating func delay(
    after error: BlocktreeError, wasSent: Bool, isRepeatable: Bool, pause: LeaderSearch.Pause = .outage, now: Instant,
    using random: inout some RandomNumberGenerator
  ) -> Duration? {
    // Whatever is wrong with one process, another one may do.
    if !wasSent, pause == .none { return self.isInTime(now) ? .zero : nil }
    // Time does not teach a process a call, but others may know it.
    if error.isUnknownCall {
      guard pause != .outage else { return nil }
    } else {
      guard error.isTransient, !wasSent || isRepeatable || error.isCertainlyUndone else { return nil }
      if wasSent, error.reason != .notLeader { self.leaderlessSince = nil }
    }
    let delay: Duration
    switch pause {
    case .none: delay = .zero
    case .election(let round):
      let since = self.leaderlessSince ?? now
      self.leaderlessSince = since
      if self.deadline == nil, now - since >= Self.electionPatience { return nil }
      let step = min(Self.initialElectionDelay * (1 << min(max(round, 0), 16)), Self.maxElectionDelay)
      delay = step * Double.random(in: 0.5...1, using: &random)
    case .outage:
      // All have been asked, and all that they lack is somebody else.
      if error.reason == .parentUnreachable { return nil }
      if !wasSent, now >= self.patience { return nil }
      self.failureCount += 1
      if error.reason == .generationFrozen {
        let since = self.frozenSince ?? now
        self.frozenSince = since
        if self.deadline == nil, now - since >= Self.freezePatience { return nil }
        // It is over in a moment, and waited for by somebody.
        self.failureCount = min(self.failureCount, 4)
      } else if self.deadline == nil, self.failureCount >= Self.attemptsMax {
        return nil
      }
      let step = min(Self.initialDelay * (1 << min(self.failureCount - 1, 16)), Self.maxDelay)
      delay = max(step * Double.random(in: 0.5...1, using: &random), error.retryDelay ?? .zero)
    }
    return self.isInTime(now + delay) ? delay : nil
  }

  private func isInTime(_ instant: Instant) -> Bool { self.deadline.map { instant < $0 } ?? true }
}
