// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials

/// A point in time, to the nanosecond, without leap seconds.
public struct Timestamp: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// Since 1970 UTC.
  public let nanoseconds: Int64

  public init(nanoseconds: Int64) {
    self.nanoseconds = nanoseconds
  }

  /// Whole seconds since 1970 UTC. The end of a root certificate, in the year 9999, is more than nanoseconds can count:
  /// such a time becomes one in the year 2255.
  package init(clampingSeconds seconds: Double) {
    self.init(nanoseconds: Int64(min(max(seconds, 0), 9_000_000_000)) * 1_000_000_000)
  }

  /// Whole seconds since 1970 UTC, rounded down.
  public var seconds: Int64 { Self.floor(self.nanoseconds, 1_000_000_000).quotient }

  /// This machine's clock, to some hundred nanoseconds.
  public static var now: Timestamp {
    Timestamp(nanoseconds: Int64(Date.now.timeIntervalSince1970 * 1e9))
  }

  public static func < (left: Self, right: Self) -> Bool { left.nanoseconds < right.nanoseconds }

  /// RFC 3339 in UTC with all nine digits: `2026-03-01T12:00:00.000000000Z`.
  public var description: String {
    let (seconds, nanoseconds) = Self.floor(self.nanoseconds, 1_000_000_000)
    let (days, second) = Self.floor(seconds, 86_400)
    let (year, month, day) = Self.civil(days: days)
    let date = "\(Self.padded(year, 4))-\(Self.padded(month, 2))-\(Self.padded(day, 2))"
    let time = [second / 3600, second / 60 % 60, second % 60].map { Self.padded($0, 2) }.joined(separator: ":")
    return "\(date)T\(time).\(Self.padded(nanoseconds, 9))Z"
  }

  private static func floor(_ value: Int64, _ divisor: Int64) -> (quotient: Int64, remainder: Int64) {
    let (quotient, remainder) = value.quotientAndRemainder(dividingBy: divisor)
    return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
  }

  /// The Gregorian date of a day counted from 1970-01-01. Years begin in March here, so that a leap day comes last.
  private static func civil(days: Int64) -> (year: Int64, month: Int64, day: Int64) {
    let (era, dayOfEra) = Self.floor(days + 719_468, 146_097)
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let marchMonth = (5 * dayOfYear + 2) / 153
    let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
    return (era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * marchMonth + 2) / 5 + 1)
  }

  private static func padded(_ value: Int64, _ width: Int) -> String {
    let digits = "\(value)"
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
  }
}
