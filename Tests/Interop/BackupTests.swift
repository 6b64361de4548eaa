// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Backup and restoration as operators do them, with the programs themselves.
@Suite("A backup", .serialized, .timeLimit(.minutes(5)))
struct BackupTests {
  private let scratch: Scratch
  private var directory: String { self.scratch.path }

  init() throws { self.scratch = try Scratch() }

  private struct Report: Decodable {
    var index: UInt64
    var term: UInt64
    var records: UInt64
    var bytes: UInt64
    var process: String
    var domain: String
  }

  @Test("that is taken while files are written has all that were there before, and a cluster is made of it")
  func restored() async throws {
    try await self.btnode(["init", "--listen", "127.0.0.1:0"])
    let first = try await self.start()
    try FileManager.default.createDirectory(atPath: "\(self.directory)/before", withIntermediateDirectories: true)
    for number in 0..<20 {
      let size = number * number * 7_001
      let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }
      try Data(bytes).write(to: URL(filePath: "\(self.directory)/before/\(number)"))
    }
    try await self.btrpc(["put", "-r", "\(self.directory)/before", "/"])
    try await self.btrpc(["user", "add", "/alice", "--create-profile", "\(self.directory)/alice"])

    // Writing goes on until the backup is there.
    let backup = "\(self.directory)/backup"
    let isDone = Atomic(false)
    let writing = Task {
      var count = 0
      while !isDone.load(ordering: .acquiring) {
        try await self.btrpc(["put", "\(self.directory)/before/\(count % 20)", "/late-\(count)"])
        count += 1
      }
      return count
    }
    let made = try await self.report(["--json", "cluster", "backup", backup])
    isDone.store(true, ordering: .releasing)
    #expect(try await writing.value > 0)
    #expect(made.process == "/node1" && made.records > 20 && made.bytes > 1 << 20)
    let mode = try FileManager.default.attributesOfItem(atPath: backup)[.posixPermissions] as? Int
    #expect(mode == 0o600)
    // It replaces nothing, and is for the owner.
    let again = try await self.run("btrpc", ["cluster", "backup", backup])
    #expect(again.status == 1 && again.errors.hasPrefix("btrpc: \(backup): "), "\(again)")
    let refused = try await self.run(
      "btrpc", ["--profile", "\(self.directory)/alice", "cluster", "backup", "\(self.directory)/other"])
    #expect(refused.status == 1 && refused.errors.contains("permission denied"), "\(refused)")
    #expect(!FileManager.default.fileExists(atPath: "\(self.directory)/other.partial"))
    // To a pipe, too.
    let piped = "\(self.directory)/piped"
    let end = try await Program.run(
      "/bin/sh", ["-c", "'\(Installed.product("btrpc"))' cluster backup - > '\(piped)'"],
      environment: self.environment)
    #expect(end.status == 0, "\(end)")
    _ = try await self.report(["--json", "cluster", "verify-backup", piped])
    try await self.stop(first)

    // Without any process.
    let verified = try await self.report(["--json", "cluster", "verify-backup", backup])
    #expect(verified.index == made.index && verified.records == made.records && verified.domain == made.domain)

    // The disk is lost.
    let store = "\(self.directory)/node/generation-1"
    let occupied = try await self.run("btnode", ["restore", "--dir", "\(self.directory)/node", "--backup", backup])
    #expect(occupied.status == 1 && occupied.errors.contains("move it away"), "\(occupied)")
    try FileManager.default.moveItem(atPath: store, toPath: "\(self.directory)/lost")

    // A damaged one leaves no store.
    var bytes = try Data(contentsOf: URL(filePath: backup))
    bytes[bytes.count / 2] ^= 4
    try bytes.write(to: URL(filePath: "\(self.directory)/damaged"))
    let damaged = try await self.run(
      "btnode", ["restore", "--dir", "\(self.directory)/node", "--backup", "\(self.directory)/damaged"])
    #expect(damaged.status == 1 && damaged.errors.contains("checksumWrong"), "\(damaged)")
    let left = try FileManager.default.contentsOfDirectory(atPath: "\(self.directory)/node")
    #expect(left.allSatisfy { !$0.hasPrefix("generation-1") }, "\(left)")

    let said = try await self.btnode(["restore", "--backup", backup])
    #expect(said.hasPrefix("restored /node1 from log entry \(made.index): "), "\(said)")
    let second = try await self.start()
    try await self.btrpc(["get", "-r", "/before", "\(self.directory)/after"])
    let diff = try await Program.run(
      "/usr/bin/diff", ["--recursive", "\(self.directory)/before", "\(self.directory)/after"])
    #expect(diff.status == 0, "\(diff.output)")
    // Who could call still can, and it goes on: writing, being verified, and being backed up.
    try await self.btrpc(["--profile", "\(self.directory)/alice", "ls", "/"])
    try await self.btrpc(["put", "\(self.directory)/before/9", "/new"])
    try await self.btrpc(["sector", "verify", "/before/19"])
    try await self.btrpc(["sector", "verify", "/new"])
    let status = try await self.btrpc(["cluster", "status"])
    #expect(status.contains("\nleader:      /node1\n"), "\(status)")
    let next = try await self.report(["--json", "cluster", "backup", "\(self.directory)/next"])
    #expect(next.index > made.index && next.term > made.term)
    try await self.stop(second)
    // And is there after a start that is not the first.
    let third = try await self.start()
    try await self.btrpc(["get", "/new", "\(self.directory)/new"])
    try await self.stop(third)
  }

  @Test("is refused by a node of another domain")
  func foreign() async throws {
    try await self.btnode(["init", "--listen", "127.0.0.1:0"])
    let node = try await self.start()
    try await self.btrpc(["cluster", "backup", "\(self.directory)/backup"])
    try await self.stop(node)
    let other = "\(self.directory)/other"
    let made = try await self.run("btnode", ["init", "--dir", other, "--listen", "127.0.0.1:0"])
    try #require(made.status == 0, "\(made)")
    try FileManager.default.removeItem(atPath: "\(other)/generation-1")
    let end = try await self.run("btnode", ["restore", "--dir", other, "--backup", "\(self.directory)/backup"])
    #expect(end.status == 1 && end.errors.contains("is a backup of another domain"), "\(end)")
    #expect(!FileManager.default.fileExists(atPath: "\(other)/generation-1"))
  }

  // MARK: Programs

  private var environment: [String: String] { ["BLOCKTREE_PROFILE": "\(self.directory)/node/profile"] }

  private func run(_ name: String, _ arguments: [String]) async throws -> Program.End {
    try await Program.run(Installed.product(name), arguments, environment: self.environment)
  }

  @discardableResult
  private func btnode(_ arguments: [String]) async throws -> String {
    try await Program.output(
      Installed.product("btnode"), arguments.prefix(1) + ["--dir", "\(self.directory)/node"] + arguments.dropFirst())
  }

  @discardableResult
  private func btrpc(_ arguments: [String]) async throws -> String {
    try await Program.output(Installed.product("btrpc"), arguments, environment: self.environment)
  }

  private func report(_ arguments: [String]) async throws -> Report {
    try await self.run("btrpc", arguments).json(Report.self)
  }

  private func start() async throws -> Program {
    let node = try Program(Installed.product("btnode"), ["run", "--dir", "\(self.directory)/node"])
    let line = await node.line()
    try #require(line.hasPrefix("ready "), "\(line) \(node.errors)")
    return node
  }

  private func stop(_ node: Program) async throws {
    node.signal(SIGTERM)
    let end = try await node.end()
    #expect(end.status == 0, "\(end.errors)")
    #expect(!end.errors.contains("fault in a call"), "\(end.errors)")
  }
}
