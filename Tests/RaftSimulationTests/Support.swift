// SPDX-License-Identifier: Apache-2.0

import Foundation
import RaftSimulation
import Testing

/// Seeds for a test: the one in the environment variable `BLOCKTREE_SEED`, if there is one, else those given.
func seeds(_ usual: ClosedRange<UInt64>) -> [UInt64] {
  let named = ProcessInfo.processInfo.environment["BLOCKTREE_SEED"].flatMap { UInt64($0) }
  return named.map { [$0] } ?? Array(usual)
}

/// How a world went.
struct Outcome: Sendable {
  let failure: Failure?
  let coverage: Coverage
}

/// Runs a world to its end.
func outcome(of scenario: Scenario, seed: UInt64) async -> Outcome {
  await inTheBackground {
    var world = World(scenario, seed: seed)
    let failure = world.run()
    return Outcome(failure: failure, coverage: world.coverage)
  }
}

/// Runs a world that must not fail, and tells how to see it again if it does.
@discardableResult
func run(_ scenario: Scenario, seed: UInt64, _ options: String = "") async -> Coverage {
  let outcome = await outcome(of: scenario, seed: seed)
  if let failure = outcome.failure {
    Issue.record(
      """
      Seed \(seed) of \(scenario.name): \(failure)
      Again: swift run simulate --seed \(seed) --trace\(options), or this test with BLOCKTREE_SEED=\(seed)
      """)
  }
  return outcome.coverage
}

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
