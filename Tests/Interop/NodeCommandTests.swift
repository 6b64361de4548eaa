// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite("btnode", .serialized, .timeLimit(.minutes(5)))
struct NodeCommandTests {
  private let scratch: Scratch
  private var directory: String { self.scratch.path }

  init() throws { self.scratch = try Scratch() }

  private func btnode(_ line: String, environment: [String: String] = [:]) async throws -> Program.End {
    let words = line.split(separator: " ").map { String($0).replacing("DIR", with: self.directory) }
    return try await Program.run(Installed.product("btnode"), words, environment: environment)
  }

  @Test("answers wrong usage with 64, whether it shows in parsing or only then, and makes nothing")
  func wrongUsage() async throws {
    for line in [
      "nonsense", "init --dir DIR/new", "init --dir DIR/new --listen nowhere",
      "init --dir DIR/new --listen 127.0.0.1:0 --sector-size 5000",
      "init --dir DIR/new --listen 127.0.0.1:0 --name a/b", "init --dir DIR/new --listen 127.0.0.1:0 --user node1",
      "request --dir DIR/new", "run --dir DIR/new --log-level loud",
    ] {
      let end = try await self.btnode(line)
      #expect(end.status == 64 && end.output.isEmpty && end.errors.contains("Usage: "), "\(line): \(end)")
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: self.directory) == [])
  }

  @Test("says which option is wrong, and tells it from a setting of the environment")
  func settings() async throws {
    let made = try await self.btnode("init --dir DIR/node --listen 127.0.0.1:0")
    try #require(made.status == 0, "\(made.errors)")
    for (option, value) in [("--threads", 0), ("--grace", -1), ("--checkpoint-bytes", 1)] {
      let end = try await self.btnode("run --dir DIR/node \(option)=\(value)")
      #expect(end.status == 64 && end.errors.hasPrefix("Error: \(option) should be from "), "\(end)")
    }
    let end = try await self.btnode("run --dir DIR/node --grace 1", environment: ["BLOCKTREE_THREADS": "0"])
    #expect(end.status == 1 && end.errors == "btnode: the setting threads should be from 1 to 64\n", "\(end)")
  }

  @Test("fails with 1 and one line that says what to do")
  func failures() async throws {
    for (line, text) in [
      ("run --dir DIR/new", "make one with 'btnode init' or 'btnode request'"),
      ("init --dir DIR --listen 127.0.0.1:0", "choose another directory"),
    ] {
      try "taken".write(toFile: "\(self.directory)/file", atomically: true, encoding: .utf8)
      let end = try await self.btnode(line)
      #expect(end.status == 1 && end.output.isEmpty && end.errors.contains(text), "\(end)")
      #expect(end.errors.hasPrefix("btnode: ") && end.errors.firstIndex(of: "\n") == end.errors.indices.last, "\(end)")
    }
  }

  // MARK: The tour

  private func demo() throws -> Program {
    try Program(
      Installed.product("btnode"), ["demo", "--source", Installed.schema], environment: ["TMPDIR": self.directory])
  }

  @Test("shows the whole tour, and leaves nothing behind")
  func tour() async throws {
    let end = try await self.demo().end()
    #expect(end.status == 0 && end.errors.isEmpty, "\(end.output)\(end.errors)")
    let steps = end.output.split(separator: "\n").compactMap { line in
      line.firstMatch(of: /^([0-9]+)\. (.*)$/).map { "\($0.1) \($0.2.prefix(12))" }
    }
    #expect(
      steps == [
        "1 Make a domai", "2 Start the pr", "3 Store a dire", "4 Read everyth", "5 Look for the", "6 Kill the lea",
        "7 Come without", "8 Hand a direc", "9 Change one b", "10 Stop the pro",
      ])
    #expect(end.output.split(separator: "refused: ").count == 5, "\(end.output)")
    #expect(end.output.contains("All of this took "))
    try self.scratch.expectNothingLeft()
  }

  @Test("cleans up after a tour that is interrupted", arguments: [SIGINT, SIGTERM])
  func interrupted(signal: Int32) async throws {
    let program = try self.demo()
    var line = ""
    repeat { line = await program.line() } while !line.contains("ready ") && program.isRunning
    program.signal(signal)
    let end = try await program.end()
    #expect(end.status == 1 && end.errors.contains("interrupted"), "\(line)\(end)")
    try self.scratch.expectNothingLeft()
  }
}
