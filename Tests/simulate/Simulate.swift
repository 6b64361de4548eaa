// SPDX-License-Identifier: Apache-2.0

import Raft
import RaftSimulation

/// Runs the simulated world outside of the tests: any number of seeds, one of them with a trace, or the mutations.
struct Simulate {
  static let usage = """
    simulate [--seeds COUNT] [--from SEED]     runs so many seeds, from this one on (100, from 1)
    simulate --seed SEED [--trace]             runs one seed, and tells all that happens in it
    simulate --mutations [NAME] [--seeds MAX]  tells in which seed the world finds each way to break the core
             --mutation NAME                   with seeds: in the world that is aimed at it, with the core so broken
             --aimed NAME                      with seeds: in that world, with a sound core
    simulate --measure                         measures the core without a world around it
    """

  let options: Options

  private func scenario(seed: UInt64) -> Scenario {
    if let mutation = self.options["--mutation"].flatMap({ Mutation(rawValue: $0) }) { return .aimed(at: mutation) }
    let aimed = self.options["--aimed"].flatMap { Mutation(rawValue: $0) }
    var scenario = aimed.map { Scenario.aimed(at: $0) } ?? .random(seed: seed)
    scenario.mutation = nil
    return scenario
  }

  /// What shows a seed again, in the same world.
  private func command(seed: UInt64) -> String {
    let world = ["--mutation", "--aimed"].compactMap { option in self.options[option].map { " \(option) \($0)" } }
    return "\(CommandLine.arguments[0]) --seed \(seed) --trace" + world.joined()
  }

  /// Returns the number of failures.
  func run() -> Int {
    if self.options.has("--mutations") {
      return self.runMutations(atMost: self.options.integer("--seeds") ?? 100)
    }
    if let seed = self.options.integer("--seed") { return self.run(seeds: seed...seed) }
    let first = self.options.integer("--from") ?? 1
    return self.run(seeds: first...(first + max(1, self.options.integer("--seeds") ?? 100) - 1))
  }

  private func run(seeds: ClosedRange<UInt64>) -> Int {
    var coverage = Coverage()
    var failures = 0
    var steps = 0
    for seed in seeds {
      var world = World(self.scenario(seed: seed), seed: seed)
      if self.options.has("--trace") { world.trace = { print($0) } }
      if let failure = world.run() {
        failures += 1
        print("seed \(seed): \(failure)\n  again: \(self.command(seed: seed))")
      }
      steps += world.stepCount
      coverage = coverage + world.coverage
    }
    print("\(seeds.count) seeds, \(failures) failures, \(steps) steps\n\(coverage)")
    return failures
  }

  /// Returns the number of those that were not found, or found in a sound core.
  private func runMutations(atMost count: UInt64) -> Int {
    var failures = 0
    for mutation in Mutation.allCases where self.options["--mutations"] ?? mutation.rawValue == mutation.rawValue {
      var found: (UInt64, Failure)?
      var seed: UInt64 = 0
      while found == nil, seed < count {
        seed += 1
        var scenario = Scenario.aimed(at: mutation)
        var broken = World(scenario, seed: seed)
        found = broken.run().map { (seed, $0) }
        scenario.mutation = nil
        var sound = World(scenario, seed: seed)
        if let failure = sound.run() {
          failures += 1
          print("\(mutation.rawValue), sound core, seed \(seed): \(failure)")
        }
      }
      if found == nil { failures += 1 }
      print("\(mutation.rawValue): " + (found.map { "seed \($0.0), \($0.1)" } ?? "not found in \(count) seeds"))
    }
    return failures
  }
}
