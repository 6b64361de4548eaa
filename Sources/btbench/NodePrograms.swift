// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// `btnode` and `btrpc`, as people use them to make a domain.
struct NodePrograms: Sendable {
  let node: String
  let tool: String
  /// Where their standard error goes.
  let log: String

  /// - Throws: when a program is missing.
  init(node: String, tool: String, log: String) throws {
    for program in [node, tool] where !FileManager.default.isExecutableFile(atPath: program) {
      throw BenchFailure("\(program) is missing")
    }
    self.node = node
    self.tool = tool
    self.log = log
  }

  /// Makes a domain, and its first process.
  func makeDomain(in directory: String) async throws {
    _ = try await Program.run(self.node, ["init", "--dir", directory, "--listen", "127.0.0.1:0"], log: self.log)
  }

  /// Makes one more process, and gives it its credential.
  ///
  /// - Parameters:
  ///   - directory: of the process; must not exist. What is needed meanwhile lies beside it.
  ///   - path: of its credential.
  ///   - services: its marks, with commas between.
  ///   - owner: the profile of whoever may do that.
  func join(_ directory: String, as path: String, services: String, owner: String) async throws {
    let (request, package) = ("\(directory).request", "\(directory).package")
    defer { for file in [request, package] { try? FileManager.default.removeItem(atPath: file) } }
    let lines = try await Program.run(
      self.node, ["request", "--dir", directory, "--listen", "127.0.0.1:0"], log: self.log)
    try (lines.joined(separator: "\n") + "\n").write(toFile: request, atomically: true, encoding: .utf8)
    _ = try await Program.run(
      self.tool,
      [
        "process", "add", "--profile", owner, path, "--services", services, "--request", request, "--output", package,
      ], log: self.log)
    _ = try await Program.run(self.node, ["join", "--dir", directory, "--credential", package], log: self.log)
  }

  private struct Description: Decodable {
    let listen: String
  }

  /// `host:port` of a process, by its description.
  static func address(of directory: String) throws -> String {
    let file = URL(fileURLWithPath: "\(directory)/node.json")
    return try JSONDecoder().decode(Description.self, from: Data(contentsOf: file)).listen
  }
}
