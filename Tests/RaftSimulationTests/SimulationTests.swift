// SPDX-License-Identifier: Apache-2.0

import Raft
import RaftSimulation
import Testing

// One world at a time: tests that wait for processes get the places beside it.
@Suite("The simulated world", .serialized)
struct SimulationTests {
  @Test("is safe whatever goes wrong, and goes on when all is repaired")
  func anything() async {
    // After those that are always run, those that once failed.
    let seeds = seeds(1...40) + [101_993]
    var coverage = Coverage()
    for seed in seeds { coverage = await coverage + run(.random(seed: seed), seed: seed) }
    if seeds.count > 2 { #expect(coverage.missing == []) }
  }

  @Test("is the same for the same seed")
  func deterministic() async {
    @Sendable func story() -> [String] {
      var lines: [String] = []
      var scenario = Scenario.random(seed: 12)
      scenario.duration = 2_000_000_000
      var world = World(scenario, seed: 12)
      world.trace = { lines.append($0) }
      _ = world.run()
      return lines
    }
    let (first, second) = await inTheBackground { (story(), story()) }
    #expect(first.count > 1000)
    #expect(first == second)
  }

  @Test("keeps a leader that is well, whoever comes back to it")  // Dissertation, 4.2.3 and 9.6
  func leaderStays() async {
    for mutation in [Mutation.campaignWithoutPreVote, .ignoreStickiness] {
      for seed in seeds(1...5) {
        var scenario = Scenario.aimed(at: mutation)
        scenario.mutation = nil
        await run(scenario, seed: seed, " --aimed \(mutation.rawValue)")
      }
    }
  }

  @Test("finds a new leader soon after one is lost")
  func failover() async {
    for seed in seeds(1...10) {
      let time = await inTheBackground {
        var scenario = Scenario(name: "failover")
        scenario.duration = 3_000_000_000
        var world = World(scenario, seed: seed)
        return world.failoverTime()
      }
      #expect(time.map { $0 < 800_000_000 } == true, "seed \(seed)")
    }
  }
}

@Suite("A bound on clocks")
struct ClockTests {
  private func firstFailure(bound: UInt64) async -> Failure? {
    for seed in seeds(1...6) {
      var scenario = Scenario.aimed(at: .leaseWithoutDriftBound)
      scenario.mutation = nil
      scenario.lease = ClockDriftBound(perThousand: bound)
      if let failure = await outcome(of: scenario, seed: seed).failure { return failure }
    }
    return nil
  }

  @Test("is what leases rest on: with clocks worse than that, and only then, reads are stale")
  func matters() async {
    // The clocks of this world are wrong by 300 in a thousand.
    #expect(await self.firstFailure(bound: 300) == nil)
    #expect(await self.firstFailure(bound: 5)?.rule == .recency)
  }
}

@Suite("A core broken on purpose", .serialized)
struct MutationTests {
  /// In how many seeds each must show. Most do in the first few.
  private static let seedsMax: UInt64 = 60

  @Test("is found in a few seeds, in which a sound one passes", arguments: Mutation.allCases)
  func found(_ mutation: Mutation) async {
    var failure: Failure?
    for seed in seeds(1...Self.seedsMax) where failure == nil {
      var scenario = Scenario.aimed(at: mutation)
      failure = await outcome(of: scenario, seed: seed).failure
      guard failure != nil else { continue }
      scenario.mutation = nil
      await run(scenario, seed: seed, " --aimed \(mutation.rawValue)")
    }
    #expect(failure != nil, "Nothing showed that the core is broken: \(mutation.rawValue)")
  }

  @Test(
    "is found by what clients see alone, where reads are broken",
    arguments: [
      Mutation.readWithoutQuorum, .readBeforeTermCommit, .leaseWithoutDriftBound, .leaseKeptAcrossTransfer,
    ])
  func foundByHistory(_ mutation: Mutation) async {
    var rules: Set<Failure.Rule> = []
    for seed in seeds(1...Self.seedsMax) where rules.isEmpty {
      var scenario = Scenario.aimed(at: mutation)
      scenario.judgesRecency = false
      if let failure = await outcome(of: scenario, seed: seed).failure { rules.insert(failure.rule) }
    }
    #expect(rules == [.linearizability])
  }
}
