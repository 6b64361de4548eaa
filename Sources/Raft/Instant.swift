// SPDX-License-Identifier: Apache-2.0

/// A reading of one member's monotonic clock, in nanoseconds. Readings of different members are never compared.
///
/// The clock must go on while the process or the machine is suspended (on Linux, `CLOCK_BOOTTIME`).
public struct Instant: Hashable, Comparable, Sendable {
  public var nanoseconds: UInt64
  public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
  public static let zero = Instant(nanoseconds: 0)
  /// Later than every reading.
  public static let never = Instant(nanoseconds: .max)
  public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }

  /// The reading that many nanoseconds later, at most `never`.
  public func advanced(by nanoseconds: UInt64) -> Instant {
    let (sum, overflow) = self.nanoseconds.addingReportingOverflow(nanoseconds)
    return overflow ? .never : Instant(nanoseconds: sum)
  }
}

extension Duration {
  /// Zero for what is negative, and the greatest number for what is too long.
  var clampedNanoseconds: UInt64 {
    let (seconds, attoseconds) = self.components
    guard seconds >= 0, attoseconds >= 0 else { return 0 }
    let (whole, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
    if overflow { return .max }
    let (sum, carried) = whole.addingReportingOverflow(UInt64(attoseconds) / 1_000_000_000)
    return carried ? .max : sum
  }
}
