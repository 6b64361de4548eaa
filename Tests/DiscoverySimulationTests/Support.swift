// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Seeds for a test: the one in the environment variable `BLOCKTREE_SEED`, if there is one, else those given.
func seeds(_ usual: ClosedRange<UInt64>) -> [UInt64] {
  let named = ProcessInfo.processInfo.environment["BLOCKTREE_SEED"].flatMap { UInt64($0) }
  return named.map { [$0] } ?? Array(usual)
}

/// What a failure of a random test says: how to see it again.
func again(_ seed: UInt64) -> Comment { "Again: this test with BLOCKTREE_SEED=\(seed)" }

/// Runs what computes for long on a thread of its own, which steps back behind all others: tests with deadlines run at
/// the same time, and the threads that tasks share are few.
func inTheBackground<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
  await withCheckedContinuation { continuation in
    Thread.detachNewThread {
      // On Linux this is for the calling thread alone. If it fails, the others just get less time.
      _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
      continuation.resume(returning: body())
    }
  }
}
