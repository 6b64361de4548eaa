// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Foundation

/// `btbench node`: a node in a process of its own, a client in this one, and what the machine itself can do.
struct NodeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "node",
    abstract: "Measures a node over mutual TLS, beside what the machine's disk and TLS give.",
    discussion: """
      Starts the btnode that lies beside this program, in a temporary directory. Figures are medians of all runs.
      Targets are shown, and missing one is no failure: the exit status is 0 when everything could be measured.
      Programs that yardsticks need (fio, openssl, nginx, curl) may be missing; their rows are then, too.
      """)

  @Option(
    help: ArgumentHelp(
      "Measure only this, may be repeated: \(Phase.allCases.map(\.rawValue).joined(separator: ", ")).",
      valueName: "name"))
  var only: [Phase] = []

  @Option(help: "How often everything is measured.")
  var runs: Int?

  @Flag(help: "A smoke run of a few seconds: small sizes, once.")
  var quick = false

  @Option(help: ArgumentHelp("Write all figures there.", valueName: "file"), completion: .file())
  var json: String?

  @Option(
    help: ArgumentHelp(
      "Work in a new directory below this one, on the disk to be measured. Default: $BENCH_DIR, then beside this program.",
      valueName: "dir"))
  var dir: String?

  @Option(help: ArgumentHelp("The node's program. Default: btnode beside this program.", valueName: "file"))
  var node: String?

  func validate() throws {
    if let runs, !(1...100).contains(runs) { throw ValidationError("There can be 1 to 100 runs.") }
  }

  func run() async throws {
    let programs = BTBench.programDirectory
    let directory = try BTBench.workDirectory(in: self.dir)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let phases = Phase.allCases.filter { self.only.isEmpty || self.only.contains($0) }
    let bench = Bench(
      scale: self.quick ? .quick : .full, phases: phases, runCount: self.runs ?? (self.quick ? 1 : 3),
      directory: directory, node: self.node ?? "\(programs)/btnode")
    let report = try await BTBench.interruptible { try await bench.run() }
    print(report.table)
    if let json { try report.json.write(to: URL(fileURLWithPath: json), options: .atomic) }
  }
}
