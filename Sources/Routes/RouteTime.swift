// SPDX-License-Identifier: Apache-2.0

/// A moment, as the caller counts: nanoseconds since any moment of its choice, on a clock that does not go back.
/// Nothing in this module reads a clock; whoever calls says what time it is.
package struct RouteTime: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// Later than every other. A route with this expiry stays until it is dropped, replaced or evicted.
  package static let never = RouteTime(nanoseconds: .max)

  package let nanoseconds: Int64

  package init(nanoseconds: Int64) {
    self.nanoseconds = nanoseconds
  }

  package var description: String { self == .never ? "never" : "\(self.nanoseconds) ns" }

  package static func < (left: Self, right: Self) -> Bool { left.nanoseconds < right.nanoseconds }

  /// Stops at the ends of what can be said. What is added to `never` is `never`.
  package static func + (time: Self, duration: Duration) -> RouteTime {
    guard time != .never else { return .never }
    let (sum, overflow) = time.nanoseconds.addingReportingOverflow(duration.wholeNanoseconds)
    return RouteTime(nanoseconds: overflow ? (duration < .zero ? .min : .max) : sum)
  }

  /// How long it is from then until now.
  package static func - (time: Self, earlier: Self) -> Duration {
    let (difference, overflow) = time.nanoseconds.subtractingReportingOverflow(earlier.nanoseconds)
    return .nanoseconds(overflow ? (time < earlier ? .min : .max) : difference)
  }
}

extension Duration {
  /// Rounded towards zero, and no more than fits: some 292 years.
  fileprivate var wholeNanoseconds: Int64 {
    let (seconds, attoseconds) = self.components
    let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    guard !overflow else { return seconds < 0 ? .min : .max }
    let (sum, again) = whole.addingReportingOverflow(attoseconds / 1_000_000_000)
    return again ? (seconds < 0 ? .min : .max) : sum
  }
}
