// SPDX-License-Identifier: Apache-2.0

import Foundation
import Node
import Testing

/// Where the programs are that clusters are made of.
enum Installed {
  /// An executable of this package: beside the tests, or where the build has put it.
  static func product(_ name: String) throws -> String {
    let beside = URL(filePath: NodeProcess.ownExecutable).deletingLastPathComponent()
    var package = URL(filePath: #filePath)
    for _ in 0..<4 { package.deleteLastPathComponent() }
    let folders = [beside] + ["debug", "release"].map { package.appending(path: ".build/\($0)") }
    return try #require(
      folders.map { $0.appending(path: name).path() }.first { FileManager.default.isExecutableFile(atPath: $0) },
      "\(name) is missing: swift build --product \(name)")
  }

  /// A program of the system; nil when it is not installed. Those that manage the network are in no user's PATH.
  static func tool(_ name: String) -> String? {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map { "\($0)/\(name)" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }
}

/// Programs that run to their end.
enum Command {
  /// Longer than any of them takes on a machine that has other things to do.
  private static let patience = Duration.seconds(60)

  /// Runs a program that must succeed, and returns the lines that it printed.
  ///
  /// - Parameter log: a file that its standard error is appended to.
  @discardableResult
  static func run(_ executable: String, _ arguments: [String], log: String) async throws -> [String] {
    let process = try NodeProcess(executable, arguments, environment: Self.environment, log: log)
    var lines: [String] = []
    while let line = try await process.line(within: self.patience) { lines.append(line) }
    guard process.pollEnd() == .exited(0) else {
      throw ClusterFailure("\(executable) \(arguments.joined(separator: " ")) failed\(LogFile.tail(of: log))")
    }
    return lines
  }

  /// Nothing of ours that would change what a node does.
  static var environment: [String] {
    ProcessInfo.processInfo.environment["PATH"].map { ["PATH=\($0)"] } ?? []
  }
}

/// Why a cluster could not be made, or did not do what it must.
struct ClusterFailure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

enum LogFile {
  /// The end of a log, for a failure; empty when there is nothing.
  static func tail(of path: String, lines count: Int = 12) -> String {
    guard let text = try? String(contentsOfFile: path, encoding: .utf8), !text.isEmpty else { return "" }
    return "\n" + text.split(separator: "\n").suffix(count).joined(separator: "\n")
  }
}
