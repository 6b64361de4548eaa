// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Foundation

/// `btbench reads`
struct ReadsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reads",
    abstract: "Measures reads of what other clusters serve and store.",
    discussion: """
      Makes a domain on this machine with a directory whose own processes serve it, and one whose own processes only \
      store. A client that knew the root's processes alone reads over a warm route, beside one that begins at the \
      directory's own. All take turns within each round, and so do two of the same kind: what these differ by is noise.
      Targets are shown, and missing one is no failure: the exit status is 0 when everything could be measured.
      """)

  @Option(help: "How many processes the root directory and the delegated one have, each: 1 to 5.")
  var members = 1

  @Option(help: "How often everything is measured.")
  var rounds: Int?

  @Option(help: "How many delegations lie one inside the other where processes are looked for: 1 to 8.")
  var depth: Int?

  @Flag(help: "A smoke run: short loads, a small file, once.")
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

  @Option(help: ArgumentHelp("Our client's program. Default: btrpc beside this program.", valueName: "file"))
  var tool: String?

  func validate() throws {
    guard (1...5).contains(self.members) else { throw ValidationError("--members: 1 to 5") }
    guard (1...100).contains(self.rounds ?? 1) else { throw ValidationError("--rounds: 1 to 100") }
    guard (1...8).contains(self.depth ?? 1) else { throw ValidationError("--depth: 1 to 8") }
  }

  func run() async throws {
    let programs = BTBench.programDirectory
    let directory = try BTBench.workDirectory(in: self.dir)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let bench = ReadsBench(
      scale: self.quick ? ReadsBench.quick : ReadsBench.full, roundCount: self.rounds ?? (self.quick ? 1 : 15),
      memberCount: self.members, depth: self.depth ?? (self.quick ? 2 : 4), directory: "\(directory)/domain",
      node: self.node ?? "\(programs)/btnode", tool: self.tool ?? "\(programs)/btrpc")
    let report = try await BTBench.interruptible { try await bench.run() }
    print(report.table)
    if let json { try report.json.write(to: URL(fileURLWithPath: json), options: .atomic) }
  }
}
