// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import DiscoverySimulation
internal import Foundation

/// `btbench routes`
struct RoutesCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "routes",
    abstract: "Measures the trie of routes, and simulates domains that find by it.",
    discussion: """
      The trie is filled with scopes of a few sites, users and projects. The domains run in virtual time: their figures \
      are counts, the same for each run with the same seed, and say nothing about this machine.
      """)

  @Option(help: "How many scopes the trie gets.")
  var scopes = 1_000_000

  @Option(help: "How often lookups are measured.")
  var runs = 5

  @Option(
    help: ArgumentHelp(
      "Simulate a domain of so many processes, may be repeated. Default: 100, 1000 and 10000.", valueName: "number"))
  var processes: [Int] = []

  @Option(help: "Of the domains.")
  var seed: UInt64 = 1

  @Option(help: ArgumentHelp("Write all figures there.", valueName: "file"), completion: .file())
  var json: String?

  @Flag(help: "A smoke run: a small trie, and small domains.")
  var quick = false

  func validate() throws {
    guard (1_000...10_000_000).contains(self.scopes) else { throw ValidationError("--scopes: 1000 to 10000000") }
    guard (1...100).contains(self.runs) else { throw ValidationError("--runs: 1 to 100") }
    guard self.processes.allSatisfy({ (10...100_000).contains($0) }) else {
      throw ValidationError("--processes: 10 to 100000")
    }
  }

  func run() async throws {
    let trie = TrieFigures.measure(
      scopeCount: self.quick ? min(self.scopes, 20_000) : self.scopes, runCount: self.quick ? 1 : self.runs)
    print(trie.table)
    print("")
    let usual = self.quick ? [100, 300] : [100, 1_000, 10_000]
    var reports: [[DomainFigures]] = []
    for climbs in [true, false] {
      var behaviour = Behaviour()
      behaviour.climbs = climbs
      var figures: [DomainFigures] = []
      for count in self.processes.isEmpty ? usual : self.processes {
        var simulation = DomainSimulation(DomainShape(processCount: count), behaviour, seed: self.seed)
        figures.append(DomainFigures(simulation.run()))
      }
      print(
        climbs ? "Processes ask the cluster above theirs first:" : "For comparison, all begin at the root's cluster:")
      print(DomainFigures.table(of: figures))
      print("")
      reports.append(figures)
    }
    if let json {
      struct Document: Encodable {
        let format = 1
        let trie: TrieFigures
        let climbing: [DomainFigures]
        let rootFirst: [DomainFigures]
      }
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      let document = Document(trie: trie, climbing: reports[0], rootFirst: reports[1])
      try encoder.encode(document).write(to: URL(fileURLWithPath: json))
    }
  }
}
