// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import NIOPosix
import Node
import Synchronization
import Testing
import Transport
import Trust

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A directory that is removed with all that is in it.
final class Scratch: Sendable {
  let path: String

  init() throws {
    var template = Array("\(FileManager.default.temporaryDirectory.path)/blocktree-node.XXXXXX".utf8CString)
    try #require(mkdtemp(&template) != nil)
    self.path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit { try? FileManager.default.removeItem(atPath: self.path) }
}

/// A `btnode` that was built beside these tests, and what it needs to run.
struct NodeUnderTest {
  /// From a start to the ready line, and from a signal to the end. Generous: nothing waits for it when all is well.
  static let patience = Duration.seconds(60)

  let scratch: Scratch
  var directory: String { "\(self.scratch.path)/node" }
  var profile: Profile { get throws { try Profile(contentsOf: "\(self.directory)/profile") } }
  var log: String { "\(self.scratch.path)/log" }

  init() throws { self.scratch = try Scratch() }

  /// What the build put beside the test bundle.
  static var executable: String {
    get throws {
      let named = ProcessInfo.processInfo.environment["BLOCKTREE_BTNODE"]
      let beside = URL(fileURLWithPath: NodeProcess.ownExecutable).deletingLastPathComponent()
      // The bundle is the executable itself here; in a private copy the build's own folder is further away.
      var candidates = [named, beside.appendingPathComponent("btnode").path].compactMap { $0 }
      var folder = URL(fileURLWithPath: #filePath)
      for _ in 0..<3 { folder.deleteLastPathComponent() }
      for configuration in ["debug", "release"] {
        candidates.append(folder.appendingPathComponent(".build/\(configuration)/btnode").path)
      }
      return try #require(candidates.first { FileManager.default.isExecutableFile(atPath: $0) }, "btnode is not built")
    }
  }

  /// A domain whose process listens on a free port, which stays free: it is one of an address that no other test has.
  static func initialized() async throws -> NodeUnderTest {
    let node = try NodeUnderTest()
    let host = "127." + (0..<3).map { _ in "\(UInt8.random(in: 1...254))" }.joined(separator: ".")
    _ = try await DomainCreation(listen: ListenAddress(host: host, port: 0)).run(at: NodeDirectory(node.directory))
    return node
  }

  func launch(_ arguments: [String], environment: [String] = []) throws -> NodeProcess {
    let path = ProcessInfo.processInfo.environment["PATH"].map { ["PATH=\($0)"] } ?? []
    return try NodeProcess(Self.executable, arguments, environment: path + environment, log: self.log)
  }

  /// Starts the node, and waits until it serves.
  func start(_ more: [String] = [], environment: [String] = []) async throws -> NodeProcess {
    let process = try self.launch(["run", "--dir", self.directory] + more, environment: environment)
    let line = try await process.line(within: Self.patience)
    try #require(line?.hasPrefix("ready ") == true, "\(line ?? "no line") \(self.logText)")
    return process
  }

  /// Runs the node to its end.
  func run(_ arguments: [String]) async throws -> NodeProcess.End? {
    try await self.launch(arguments).end(within: Self.patience)
  }

  var logText: String { (try? String(contentsOfFile: self.log, encoding: .utf8)) ?? "" }

  /// Calls on one connection, as the person or as somebody else.
  func withConnection<Result: Sendable>(
    to address: NetworkAddress? = nil, anonymous: Bool = false, _ body: (NodeConnection) async throws -> Result
  ) async throws -> Result {
    let profile = try self.profile
    let identity = profile.caller.map {
      TransportSecurity.Identity(chain: $0.credential.chain, key: $0.keys.signing)
    }
    let security = try TransportSecurity(root: profile.root, identity: anonymous ? nil : identity)
    let point = try #require(profile.startingPoints.first)
    return try await Dialer(security, group: .singletonMultiThreadedEventLoopGroup)
      .withConnection(to: address ?? point.address, expecting: point.path, body)
  }
}

/// A sequence of random numbers that a failing test can be run with again.
struct SeededGenerator: RandomNumberGenerator {
  let seed: UInt64
  private var state: UInt64

  /// From the environment variable `BLOCKTREE_TEST_SEED`, or at random.
  init() {
    let given = ProcessInfo.processInfo.environment["BLOCKTREE_TEST_SEED"].flatMap { UInt64($0) }
    self.seed = given ?? UInt64.random(in: .min ... .max)
    self.state = self.seed
  }

  /// SplitMix64.
  mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = self.state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}

/// What several tasks write down.
final class Notes<Value: Sendable>: Sendable {
  private let state: Mutex<Value>

  init(_ value: Value) { self.state = Mutex(value) }

  var value: Value { self.state.withLock { $0 } }

  @discardableResult
  func change<Result: Sendable>(_ body: (inout Value) -> Result) -> Result {
    self.state.withLock { value in
      var changed = value
      defer { value = changed }
      return body(&changed)
    }
  }
}

/// Waits until `condition` holds. Fails the test after a time that only a broken program needs.
func eventually(_ condition: () async throws -> Bool) async throws {
  let deadline = ContinuousClock.now + NodeUnderTest.patience
  while try await !condition() {
    try #require(ContinuousClock.now < deadline, "The condition never came true.")
    try await Task.sleep(for: .milliseconds(1))
  }
}
