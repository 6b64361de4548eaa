// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// The machine's idea of the present time.
enum WallClock {
  /// Since 1970 UTC.
  static func nanoseconds() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }

  static func milliseconds() -> UInt64 { UInt64(max(self.nanoseconds(), 0)) / 1_000_000 }

  static func date() -> Date { Date(timeIntervalSince1970: Double(self.nanoseconds()) / 1e9) }
}
