// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Foundation

/// `btbench cluster`
struct ClusterCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cluster",
    abstract: "Measures a cluster of processes, beside one of etcd.",
    discussion: """
      Both have their members on this machine, speak mutual TLS, and sync what they acknowledge. Values and sectors \
      have 4 KiB. Each load is tried with one connection, several, and several processes of the client, and the best counts.
      Targets are shown, and missing one is no failure: the exit status is 0 when everything could be measured.
      """)

  @Option(
    help: ArgumentHelp(
      "Measure only this, may be repeated: \(ClusterPhase.allCases.map(\.rawValue).joined(separator: ", ")).",
      valueName: "name"))
  var only: [ClusterPhase] = []

  @Option(help: ArgumentHelp("Measure only this one's cluster: etcd or blocktree.", valueName: "name"))
  var peer: ClusterPeer?

  @Option(help: "How many members each cluster has.")
  var members = 3

  @Option(help: "How often loads are measured.")
  var runs: Int?

  @Option(help: "How often a leader is killed.")
  var trials: Int?

  @Option(
    help: ArgumentHelp(
      "Measure with so many operations in flight, may be repeated. Default: 1, 16, 64 and 256.", valueName: "number"))
  var inFlight: [Int] = []

  @Flag(help: "A smoke run: short loads, once.")
  var quick = false

  @Option(help: ArgumentHelp("Write all figures there.", valueName: "file"), completion: .file())
  var json: String?

  @Option(
    help: ArgumentHelp(
      "Work in a new directory below this one, on the disk to be measured. Default: $BENCH_DIR, then beside this program.",
      valueName: "dir"))
  var dir: String?

  @Option(help: ArgumentHelp("Where scripts/install-etcd has put etcd and its load.", valueName: "dir"))
  var etcd = ".build/etcd/bin"

  @Option(help: ArgumentHelp("The node's program. Default: btnode beside this program.", valueName: "file"))
  var node: String?

  @Option(help: ArgumentHelp("Our client's program. Default: btrpc beside this program.", valueName: "file"))
  var tool: String?

  func validate() throws {
    guard (1...100).contains(self.runs ?? 1), (1...100).contains(self.trials ?? 1) else {
      throw ValidationError("There can be 1 to 100 runs and trials.")
    }
    guard (1...7).contains(self.members) else { throw ValidationError("A cluster can have 1 to 7 members.") }
    guard self.inFlight.allSatisfy({ (1...4_096).contains($0) }) else {
      throw ValidationError("There can be 1 to 4096 operations in flight.")
    }
    guard self.members >= 3 || (!self.only.isEmpty && !self.only.contains(.failover)) else {
      throw ValidationError("Without its leader a cluster of less than three members is gone: use --only.")
    }
  }

  func run() async throws {
    let programs = BTBench.programDirectory
    let directory = try BTBench.workDirectory(in: self.dir)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let bench = ClusterBench(
      phases: ClusterPhase.allCases.filter { self.only.isEmpty || self.only.contains($0) },
      peers: ClusterPeer.allCases.filter { self.peer == nil || self.peer == $0 }, memberCount: self.members,
      runCount: self.runs ?? (self.quick ? 1 : 3), trialCount: self.trials ?? (self.quick ? 2 : 10),
      inFlight: self.inFlight.isEmpty ? [1, 16, 64, 256] : self.inFlight,
      loadMilliseconds: self.quick ? 300 : 2_000, headMilliseconds: self.quick ? 400 : 1_500,
      scale: self.quick ? .quick : .full, directory: directory,
      etcd: self.etcd,
      node: self.node ?? "\(programs)/btnode", tool: self.tool ?? "\(programs)/btrpc")
    let report = try await BTBench.interruptible { try await bench.run() }
    print(report.table)
    if let json { try report.json.write(to: URL(fileURLWithPath: json), options: .atomic) }
  }
}
