// SPDX-License-Identifier: Apache-2.0

/// Decides whether and when a failed call is made again. Has no clock of its own.
package struct RetrySchedule: Sendable {
  package typealias Instant = ContinuousClock.Instant

  /// After the first failure; doubles with each further one.
  package static let initialDelay: Duration = .milliseconds(50)
  package static let maxDelay: Duration = .seconds(2)
  /// For calls without a deadline.
  package static let attemptsMax = 10

  /// When the caller wants to have heard.
  package let deadline: Instant?
  /// Until when a process that can not be reached is asked again.
  package private(set) var patience: Instant
  private var failureCount = 0

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
  package mutating func delay(
    after error: BlocktreeError, wasSent: Bool, isRepeatable: Bool, now: Instant,
    using random: inout some RandomNumberGenerator
  ) -> Duration? {
    guard error.isTransient, !wasSent || isRepeatable || error.isCertainlyUndone else { return nil }
    if !wasSent, now >= self.patience { return nil }
    self.failureCount += 1
    if self.deadline == nil, self.failureCount >= Self.attemptsMax { return nil }
    let step = min(Self.initialDelay * (1 << min(self.failureCount - 1, 16)), Self.maxDelay)
    let delay = max(step * Double.random(in: 0.5...1, using: &random), error.retryDelay ?? .zero)
    if let deadline, now + delay >= deadline { return nil }
    return delay
  }
}
