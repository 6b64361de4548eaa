// SPDX-License-Identifier: Apache-2.0

internal import Glibc
package import Raft

/// The clock that `Raft` asks for: it goes on while the process is stopped or the machine suspended.
package enum MonotonicClock {
  package static var now: Raft.Instant {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Raft.Instant(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
  }
}
