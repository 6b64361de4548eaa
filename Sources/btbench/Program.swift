// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Node

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// Other programs that yardsticks are taken with.
enum Program {
  /// Where the shell looks, and where servers are.
  private static let places =
    (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin").split(separator: ":").map(String.init)
    + ["/usr/local/sbin", "/usr/sbin", "/sbin"]

  /// Where a program is; nil when it is not installed.
  static func find(_ name: String) -> String? {
    self.places.map { "\($0)/\(name)" }.first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  /// Starts a program of the system, or one that a path names.
  static func start(_ name: String, _ arguments: [String], log: String) throws -> NodeProcess {
    guard let path = name.contains("/") ? name : self.find(name) else {
      throw BenchFailure("\(name) is not installed")
    }
    let environment = ProcessInfo.processInfo.environment
      .filter { !$0.key.hasPrefix("BLOCKTREE_") }.map { "\($0.key)=\($0.value)" }
    return try NodeProcess(path, arguments, environment: environment, log: log)
  }

  /// Runs a program to its end, and returns the lines that it printed.
  static func run(_ name: String, _ arguments: [String], log: String) async throws -> [String] {
    let process = try self.start(name, arguments, log: log)
    var lines: [String] = []
    while let line = try await process.line(within: .seconds(600)) { lines.append(line) }
    guard process.pollEnd() == .exited(0) else {
      throw BenchFailure("\(name) failed: \(lines.last ?? "")\(self.tail(of: log))")
    }
    return lines
  }

  /// The end of a log, for a failure.
  static func tail(of log: String) -> String {
    guard let text = try? String(contentsOfFile: log, encoding: .utf8), !text.isEmpty else { return "" }
    return "\n" + text.split(separator: "\n").suffix(10).joined(separator: "\n")
  }
}
