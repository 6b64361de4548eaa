// SPDX-License-Identifier: Apache-2.0

/// A moment, in nanoseconds since some beginning that only its clock knows.
package struct ActorTime: Hashable, Comparable, Sendable {
  package let nanoseconds: Int64

  package init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

  package static func < (left: Self, right: Self) -> Bool { left.nanoseconds < right.nanoseconds }

  /// Later than any other.
  static let never = ActorTime(nanoseconds: .max)

  /// Ends at the latest moment that there is, and at the earliest.
  package func advanced(by duration: Duration) -> ActorTime {
    let (sum, overflow) = self.nanoseconds.addingReportingOverflow(duration.wholeNanoseconds)
    guard overflow else { return ActorTime(nanoseconds: sum) }
    return ActorTime(nanoseconds: duration < .zero ? .min : .max)
  }

  /// From this moment to the other one.
  package func duration(to other: ActorTime) -> Duration {
    let (difference, overflow) = other.nanoseconds.subtractingReportingOverflow(self.nanoseconds)
    return .nanoseconds(overflow ? (other > self ? .max : .min) : difference)
  }
}

extension Duration {
  /// In nanoseconds, as far as an integer goes.
  var wholeNanoseconds: Int64 {
    let (seconds, attoseconds) = self.components
    let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    let (sum, overflowOfSum) = product.addingReportingOverflow(attoseconds / 1_000_000_000)
    return overflow || overflowOfSum ? (seconds < 0 ? .min : .max) : sum
  }
}

/// Where a runtime has its time from. Tests bring one of their own.
package protocol ActorClock: Sendable {
  /// Never goes back.
  var now: ActorTime { get }

  /// Returns at that moment or soon after.
  ///
  /// - Throws: `CancellationError`.
  func sleep(until time: ActorTime) async throws
}

/// Time as it passes on this machine, also while it is suspended.
package struct SystemActorClock: ActorClock {
  private let start = ContinuousClock.now

  package init() {}

  package var now: ActorTime {
    ActorTime(nanoseconds: self.start.duration(to: ContinuousClock.now).wholeNanoseconds)
  }

  package func sleep(until time: ActorTime) async throws {
    try await ContinuousClock().sleep(until: self.start.advanced(by: .nanoseconds(time.nanoseconds)))
  }
}
