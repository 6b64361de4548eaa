// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import GRPCCore
import Node
import SwiftProtobuf
import Testing
import Transport
import Trust

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite("A node's process", .timeLimit(.minutes(5)))
struct ProcessTests {
  @Test("says when it is ready, serves, and ends with status 0 on SIGTERM")
  func startAndStop() async throws {
    let node = try await NodeUnderTest.initialized()
    let profile = try node.profile
    let process = try node.launch(["run", "--dir", node.directory])
    let line = try #require(try await process.line(within: NodeUnderTest.patience), "\(node.logText)")
    let address = try #require(profile.startingPoints.first?.address)
    #expect(line == "ready \(profile.domain) /node1 \(address)")
    try await withClient(profile) { client in
      let root = try await client.stat("/")
      #expect(root.type == .directory)
      try await client.write(Array("hello".utf8), to: "/greeting")
      #expect(try await client.readAll("/greeting").bytes == Array("hello".utf8))
    }
    process.signal(SIGTERM)
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
    // What was written is there after the next start.
    let next = try await node.start()
    try await withClient(profile) { client in
      let bytes = try await client.readAll("/greeting").bytes
      #expect(bytes == Array("hello".utf8))
    }
    next.signal(SIGINT)
    #expect(try await next.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
  }

  @Test("ends with status 0 on a SIGTERM that comes while it starts")
  func stopsWhileStarting() async throws {
    let node = try await NodeUnderTest.initialized()
    for round in 0..<8 {
      let process = try node.launch(["run", "--dir", node.directory])
      try await eventually { process.pollEnd() != nil || Self.catches(SIGTERM, process.pid) }
      // At once, and at some other moments before it serves or soon after.
      for _ in 0..<round { await Task.yield() }
      process.signal(SIGTERM)
      #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
    }
  }

  /// Whether a process has taken over a signal; proc_pid_status(5).
  private static func catches(_ signal: Int32, _ pid: Int32) -> Bool {
    let status = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
    return SignalSet(named: "SigCgt", in: status).contains(signal)
  }

  @Test("begins without blocked signals, whatever the thread that made it blocks")
  func signalMask() async throws {
    let node = try NodeUnderTest()
    let process = try Self.blocking(SIGUSR1) {
      try NodeProcess("/bin/cat", ["/proc/self/status"], environment: [], log: node.log)
    }
    var status = ""
    while let line = try await process.line(within: NodeUnderTest.patience) { status += line + "\n" }
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0))
    #expect(SignalSet(named: "SigBlk", in: status) == SignalSet(bits: 0))
    #expect(!SignalSet(named: "SigIgn", in: status).contains(SIGPIPE))
  }

  /// What `body` does, on a thread that blocks a signal.
  private static func blocking<Result>(_ signal: Int32, _ body: () throws -> Result) rethrows -> Result {
    var (blocked, before) = (sigset_t(), sigset_t())
    sigemptyset(&blocked)
    sigaddset(&blocked, signal)
    pthread_sigmask(SIG_BLOCK, &blocked, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    return try body()
  }

  @Test("stops within its time of grace though a client keeps a stream open")
  func stopsWithOpenStreams() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start(["--grace", "1"])
    try await node.withConnection { connection in
      let health = Grpc_Health_V1_Health.Client(wrapping: connection.client)
      // The watch ends with the node, in whatever way.
      try? await health.watch(.init()) { response in
        for try await answer in response.messages where answer.status == .serving {
          process.signal(SIGTERM)
        }
      }
    }
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
  }

  @Test("refuses a directory that another one runs on")
  func lockedDirectory() async throws {
    let node = try await NodeUnderTest.initialized()
    let first = try await node.start()
    let second = try await node.run(["run", "--dir", node.directory, "--listen", "127.0.0.1:0"])
    #expect(second == .exited(1))
    #expect(node.logText.contains("is in use"))
    #expect(first.pollEnd() == nil)
  }

  @Test("refuses an address that is taken")
  func addressInUse() async throws {
    let node = try await NodeUnderTest.initialized()
    let first = try await node.start()
    let other = try await NodeUnderTest.initialized()
    let address = try #require(try node.profile.startingPoints.first?.address)
    #expect(try await other.run(["run", "--dir", other.directory, "--listen", "\(address)"]) == .exited(1))
    #expect(other.logText.contains("can not listen on \(address)"), "\(other.logText)")
    #expect(first.pollEnd() == nil)
  }

  @Test("refuses a key file that others may read")
  func openKeyFile() async throws {
    let node = try await NodeUnderTest.initialized()
    #expect(chmod("\(node.directory)/key.pem", 0o640) == 0)
    #expect(try await node.run(["run", "--dir", node.directory]) == .exited(1))
    #expect(node.logText.contains("key.pem is open to others (mode 0640)"), "\(node.logText)")
  }

  @Test("refuses a directory that others may enter")
  func openDirectory() async throws {
    let node = try await NodeUnderTest.initialized()
    #expect(chmod(node.directory, 0o750) == 0)
    #expect(try await node.run(["run", "--dir", node.directory]) == .exited(1))
    #expect(node.logText.contains("is open to others (mode 0750)"), "\(node.logText)")
  }

  @Test("refuses a description of a newer release, and says so")
  func newerDescription() async throws {
    let node = try await NodeUnderTest.initialized()
    let path = "\(node.directory)/node.json"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let newer = text.replacingOccurrences(of: "\"version\" : 1", with: "\"version\" : 2")
    #expect(newer != text)
    try newer.write(toFile: path, atomically: false, encoding: .utf8)
    #expect(try await node.run(["run", "--dir", node.directory]) == .exited(1))
    #expect(node.logText.contains("has version 2; this release knows versions up to 1"), "\(node.logText)")
  }

  @Test("refuses a directory that is no node's, and wrong usage with status 64")
  func wrongUsage() async throws {
    let node = try NodeUnderTest()
    #expect(try await node.run(["run", "--dir", node.directory]) == .exited(1))
    #expect(node.logText.contains("is not a node's directory"))
    #expect(try await node.run(["run"]) == .exited(64))
    #expect(try await node.run(["init", "--dir", node.directory, "--listen", "nowhere"]) == .exited(64))
    #expect(try await node.run(["run", "--dir", node.directory, "--no-such-flag"]) == .exited(64))
  }

  @Test("takes settings from flags before the environment, and from that before the file")
  func settings() async throws {
    let node = try await NodeUnderTest.initialized()
    let path = "\(node.directory)/node.json"
    var text = try String(contentsOfFile: path, encoding: .utf8)
    text = text.replacingOccurrences(
      of: "\"version\"", with: "\"log\" : {\"format\": \"json\", \"level\": \"nonsense\"}, \"version\"")
    try text.write(toFile: path, atomically: false, encoding: .utf8)
    #expect(try await node.run(["run", "--dir", node.directory]) == .exited(1))
    #expect(node.logText.contains("the setting log.level should be trace, debug"), "\(node.logText)")
    let process = try await node.start(environment: ["BLOCKTREE_LOG_LEVEL=info"])
    #expect(node.logText.contains(#""level":"info","message":"serving""#), "\(node.logText)")
    process.signal(SIGTERM)
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0))
    let quiet = try await node.start(["--log-level", "critical"], environment: ["BLOCKTREE_LOG_LEVEL=info"])
    let before = node.logText
    quiet.signal(SIGTERM)
    #expect(try await quiet.end(within: NodeUnderTest.patience) == .exited(0))
    #expect(node.logText == before)
  }

  @Test("finds everything that was acknowledged after kill -9 under writes")
  func killUnderWrites() async throws {
    var random = SeededGenerator()
    let seed = random.seed
    let node = try await NodeUnderTest.initialized()
    let acknowledged = Notes<[String: [UInt8]]>([:])
    for round in 0..<4 {
      let process = try await node.start()
      let moment = Int.random(in: 5...60, using: &random)
      try await withClient(
        node.profile, configuration: ClientConfiguration(timeout: .seconds(5), connectionPatience: .zero)
      ) {
        client in
        await withTaskGroup(of: Void.self) { group in
          for writer in 0..<4 {
            group.addTask {
              for number in 0..<1_000 {
                let path = "/file-\(round)-\(writer)-\(number)"
                let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 1 + number * 977 % 20_000)
                guard (try? await client.write(bytes, to: path)) != nil else { return }
                let count = acknowledged.change { files in
                  files[path] = bytes
                  return files.count
                }
                if count % moment == 0 { process.signal(SIGKILL) }
              }
            }
          }
        }
      }
      // When all writers have given up before.
      process.signal(SIGKILL)
      #expect(try await process.end(within: NodeUnderTest.patience) == .killed(signal: SIGKILL), "seed \(seed)")
    }
    let process = try await node.start()
    try await withClient(node.profile) { client in
      let files = acknowledged.value
      #expect(files.count >= 4, "seed \(seed)")
      for (path, bytes) in files {
        let found = try await client.readAll(path).bytes
        #expect(found == bytes, "\(path), seed \(seed)")
      }
    }
    process.signal(SIGTERM)
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
  }
}

/// A set of signals, as `/proc` has it.
private struct SignalSet: Equatable {
  let bits: UInt64

  init(bits: UInt64) { self.bits = bits }

  /// Empty where there is no such line.
  init(named name: String, in status: String) {
    let line = status.split(separator: "\n").first { $0.hasPrefix("\(name):") }
    self.bits = line.flatMap { UInt64($0.dropFirst(name.count + 1).drop(while: \.isWhitespace), radix: 16) } ?? 0
  }

  func contains(_ signal: Int32) -> Bool { self.bits & 1 << UInt64(signal - 1) != 0 }
}
