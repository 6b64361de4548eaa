// SPDX-License-Identifier: Apache-2.0

import DiscoverySimulation
import Routes
import Testing

/// Counts only, which follow from the seed: no time is measured here. `btbench routes` runs larger domains for longer.
@Suite("A simulated domain")
struct DomainTests {
  private func run(_ shape: DomainShape, seed: UInt64, _ change: (inout Behaviour) -> Void) async -> SimulationReport {
    var behaviour = Behaviour()
    change(&behaviour)
    let simulation = DomainSimulation(shape, behaviour, seed: seed)
    return await inTheBackground {
      var simulation = simulation
      return simulation.run()
    }
  }

  @Test("finds what is there, and nothing else, however deep and whatever is remembered", arguments: seeds(1...4))
  func truth(seed: UInt64) async {
    for climbs in [true, false] {
      let report = await self.run(DomainShape(processCount: 120, fanOut: 2), seed: seed) {
        $0.findsPerSecond = 1
        $0.globalPerMille = 400
        $0.climbs = climbs
        $0.warmUp = .zero
        $0.measured = .seconds(40)
      }
      #expect(report.findCount > 3_000 && report.levelCount >= 5, again(seed))
      #expect(report.wrongCount == 0, again(seed))
      #expect(report.failureCount == 0, again(seed))
    }
  }

  @Test("goes on finding when every tenth process can not be reached", arguments: seeds(1...2))
  func failures(seed: UInt64) async {
    let report = await self.run(DomainShape(processCount: 200, fanOut: 3), seed: seed) {
      $0.findsPerSecond = 0.5
      $0.failingPerMille = 100
      $0.warmUp = .seconds(10)
      $0.measured = .seconds(40)
    }
    // All three of a cluster are gone once in a thousand.
    #expect(report.findCount > 2_000, again(seed))
    #expect(report.failureCount * 50 < report.findCount, again(seed))
  }

  @Test("goes the same way with the same seed")
  func determinism() async {
    let shape = DomainShape(processCount: 60)
    let first = await self.run(shape, seed: 5) { $0.measured = .seconds(20) }
    let second = await self.run(shape, seed: 5) { $0.measured = .seconds(20) }
    let other = await self.run(shape, seed: 6) { $0.measured = .seconds(20) }
    #expect(first == second)
    #expect(first != other)
  }

  @Test("does not ask its root more the larger it is, once routes are known", arguments: seeds(1...1))
  func growth(seed: UInt64) async {
    var climbing: [SimulationReport] = []
    var rootFirst: [SimulationReport] = []
    for count in [60, 240, 960] {
      for climbs in [true, false] {
        let report = await self.run(DomainShape(processCount: count, fanOut: 3), seed: seed) {
          $0.climbs = climbs
          $0.warmUp = .seconds(40)
          $0.measured = .seconds(20)
        }
        #expect(report.wrongCount == 0 && report.failureCount == 0, again(seed))
        if climbs { climbing.append(report) } else { rootFirst.append(report) }
      }
    }
    // Sixteen times the processes. What the root is asked about others' directories is bounded by who is directly
    // below it ...
    #expect(climbing[2].rootPassingPerSecond < 4 * climbing[0].rootPassingPerSecond, again(seed))
    // ... for each process it falls ...
    for (smaller, larger) in zip(climbing, climbing.dropFirst()) {
      let ratio = Double(larger.processCount) / Double(smaller.processCount)
      #expect(larger.rootRequestsPerSecond < 0.75 * ratio * smaller.rootRequestsPerSecond, again(seed))
    }
    // ... and without the rule that processes ask the cluster above theirs it would be several times as much.
    #expect(rootFirst[2].rootPassingPerSecond > 3 * climbing[2].rootPassingPerSecond, again(seed))
  }
}
