// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Foundation
internal import UnixSignals

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// The benchmarks.
@main
struct BTBench: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "btbench",
    abstract: "Measures nodes over mutual TLS, beside what the machine and others give.",
    subcommands: [
      NodeCommand.self, ClusterCommand.self, ClusterLoadCommand.self, ReadsCommand.self, RoutesCommand.self,
      MessagesCommand.self,
    ],
    defaultSubcommand: NodeCommand.self)

  /// Ends `body` on SIGINT and SIGTERM, so that it can clean up.
  static func interruptible<Result: Sendable>(
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

  /// Where this program lay when it began: a build may replace it meanwhile.
  static let programDirectory = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    .deletingLastPathComponent().path

  /// Makes a new directory, which the caller removes.
  ///
  /// - Parameter place: where; nil for `$BENCH_DIR`, and beside this program without it.
  static func workDirectory(in place: String?) throws -> String {
    let parent = place ?? ProcessInfo.processInfo.environment["BENCH_DIR"] ?? self.programDirectory
    try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
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
