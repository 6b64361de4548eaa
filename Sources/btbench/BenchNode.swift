// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import Node

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// The node that is measured: a new domain, served by a process of its own on the loopback interface.
struct BenchNode: Sendable {
  let profile: Profile
  private let process: NodeProcess
  private let log: String

  private static let patience = Duration.seconds(30)

  /// Makes a domain below `directory`, and starts its process.
  static func start(_ executable: String, directory: String) async throws -> BenchNode {
    let home = "\(directory)/node"
    let log = "\(directory)/node.log"
    _ = try await Program.run(executable, ["init", "--dir", home, "--listen", "127.0.0.1:0"], log: log)
    let process = try Program.start(executable, ["run", "--dir", home], log: log)
    guard let line = try await process.line(within: self.patience), line.hasPrefix("ready ") else {
      throw BenchFailure("the node did not get ready\(Program.tail(of: log))")
    }
    return BenchNode(profile: try Profile(contentsOf: "\(home)/profile"), process: process, log: log)
  }

  var pid: Int32 { self.process.pid }

  var logTail: String { Program.tail(of: self.log) }

  /// Ends the node in good order.
  func stop() async throws {
    self.process.signal(SIGTERM)
    guard try await self.process.end(within: Self.patience) == .exited(0) else {
      throw BenchFailure("the node did not stop as it should\(self.logTail)")
    }
  }
}
