// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Foundation
internal import UnixSignals

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// The benchmark: a node in a process of its own, a client in this one, and what the machine itself can do beside them.
@main
struct BTBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "btbench",
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
    let programs = Self.programDirectory
    let place = self.dir ?? ProcessInfo.processInfo.environment["BENCH_DIR"] ?? programs
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
    let directory = try Self.temporaryDirectory(in: place)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let phases = Phase.allCases.filter { self.only.isEmpty || self.only.contains($0) }
    let bench = Bench(
      scale: self.quick ? .quick : .full, phases: phases, runCount: self.runs ?? (self.quick ? 1 : 3),
      directory: directory, node: self.node ?? "\(programs)/btnode")
    let report = try await Self.interruptible { try await bench.run() }
    print(report.table)
    if let json { try report.json.write(to: URL(fileURLWithPath: json), options: .atomic) }
  }

  /// Ends `body` on SIGINT and SIGTERM, so that it can clean up.
  private static func interruptible<Result: Sendable>(
    _ body: @escaping @Sendable () async throws -> Result
  ) async throws -> Result {
    try await withThrowingTaskGroup(of: Result?.self) { group in
      group.addTask { try await body() }
      group.addTask {
        for await _ in await UnixSignalsSequence(trapping: .sigint, .sigterm) { return nil }
        return nil
      }
      let first = try await group.next() ?? nil
      group.cancelAll()
      guard let first else { throw BenchFailure("interrupted") }
      return first
    }
  }

  private static var programDirectory: String {
    URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path
  }

  private static func temporaryDirectory(in parent: String) throws -> String {
    var template = Array("\(parent)/bench.XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw BenchFailure("no temporary directory can be made in \(parent)") }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// Why something could not be measured.
struct BenchFailure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
