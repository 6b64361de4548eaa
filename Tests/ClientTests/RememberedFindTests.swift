// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Routes
import SwiftProtobuf
import Synchronization
import Testing
import Trust
import btrpc

@Suite("What a client has found", .timeLimit(.minutes(2)))
struct RememberedFindTests {
  private static func found(
    _ directory: String, _ names: [String], for milliseconds: UInt32 = 30_000, isStale: Bool = false
  ) -> Blocktree_V1_FoundProcesses {
    .with { found in
      found.directory = names.isEmpty ? "" : directory
      found.processes = names.map { name in
        .with {
          $0.path = "\(directory == "/" ? "" : directory)/\(name)"
          $0.services = ["filesystem", "sector"]
          $0.addresses = ["10.0.0.1:1", "[::1]:2"]
        }
      }
      found.lifetimeMs = milliseconds
      found.isStale = isStale
    }
  }

  /// Runs a cluster, and a client of it; `count` tells how many queries have come.
  private func withClient(
    in directory: String = "/", _ answer: @escaping @Sendable (Blocktree_V1_FindRequest) -> Blocktree_V1_FoundProcesses,
    _ body: (_ client: Client, _ clock: TestClock, _ count: () -> Int) async throws -> Void
  ) async throws {
    let clock = TestClock()
    try await TestCluster.run(1, in: directory) { cluster in
      let asked = Self.answer(cluster, answer)
      try await cluster.withProfile([0]) { profile in
        try await BlocktreeClient.withClient(profile, now: clock.now) { client in
          try await body(client, clock) { asked.count }
        }
      }
    }
  }

  private final class Counter: Sendable {
    private let value = Atomic(0)

    var count: Int { self.value.load(ordering: .relaxed) }
    func add() { self.value.add(1, ordering: .relaxed) }
  }

  private static func answer(
    _ cluster: TestCluster, _ answer: @escaping @Sendable (Blocktree_V1_FindRequest) -> Blocktree_V1_FoundProcesses
  ) -> Counter {
    let asked = Counter()
    cluster.state.withLock { state in
      state.findings = { request in
        asked.add()
        return .with { $0.found = answer(request) }
      }
    }
    return asked
  }

  @Test("is told again without a message, with the time that is left")
  func warm() async throws {
    try await self.withClient({ _ in Self.found("/home", ["nas1", "nas2"]) }) { client, clock, count in
      let cold = try await client.find(.contained, service: "sector", scope: "/home")
      clock.advance(by: .seconds(12))
      let warm = try await client.find(.contained, service: "sector", scope: "/home")
      #expect(count() == 1)
      #expect(warm.found.directory == cold.found.directory && warm.found.processes == cold.found.processes)
      #expect(warm.found.processes.map(\.path) == ["/home/nas1", "/home/nas2"])
      #expect(warm.found.lifetime == .seconds(18))
      #expect(
        warm.steps == [FindStep(directory: "/home", process: nil, event: .remembered(lifetime: .seconds(18)))])
      let lines = ["nobody is asked: the answer, about /home, is remembered for 18s"]
      #expect(FindReport.lines(warm.steps) == lines)
      // About another service, directory or kind nothing is known.
      _ = try await client.find(.contained, service: "filesystem", scope: "/home")
      _ = try await client.find(.contained, service: nil, scope: "/home")
      #expect(count() == 3)
    }
  }

  @Test("is asked for again when its time is over: 30 seconds at most, whatever the answer says")
  func expiry() async throws {
    for (said, seconds) in [(UInt32(10_000), 10), (UInt32.max, 30)] {
      try await self.withClient({ _ in Self.found("/", ["node1"], for: said) }) { client, clock, count in
        for (pause, expected) in [(Duration.zero, 1), (.seconds(seconds) - .nanoseconds(1), 1), (.nanoseconds(1), 2)] {
          clock.advance(by: pause)
          _ = try await client.find(.nearest, service: "sector", scope: "/home/x")
          #expect(count() == expected, "\(said) ms, after \(pause) more")
        }
      }
    }
  }

  @Test("is remembered for two seconds when it is nobody")
  func negative() async throws {
    for kind in [BlocktreeClient.FindKind.contained, .nearest] {
      try await self.withClient({ _ in Self.found("/", []) }) { client, clock, count in
        for (pause, expected) in [(Duration.zero, 1), (.milliseconds(1999), 1), (.milliseconds(1), 2)] {
          clock.advance(by: pause)
          let result = try await client.find(kind, service: "relay", scope: "/home")
          #expect(result.found.processes.isEmpty && result.found.directory == nil)
          #expect(count() == expected, "\(kind), after \(pause) more")
        }
      }
    }
  }

  @Test("is asked for anew by whoever wants to, and then remembered for others")
  func refresh() async throws {
    let names = Mutex(["node1"])
    try await self.withClient({ _ in Self.found("/", names.withLock { $0 }) }) { client, _, count in
      _ = try await client.find(.contained, service: nil, scope: "/")
      names.withLock { $0 = ["node2"] }
      let fresh = try await client.find(.contained, service: nil, scope: "/", refresh: true)
      let next = try await client.find(.contained, service: nil, scope: "/")
      #expect(count() == 2)
      #expect([fresh, next].map { $0.found.processes.map(\.path) } == [["/node2"], ["/node2"]])
    }
  }

  @Test("is not remembered when it comes from a copy that may be out of date")
  func stale() async throws {
    try await self.withClient({ _ in Self.found("/", ["node1"], isStale: true) }) { client, _, count in
      for _ in 0..<2 { _ = try await client.find(.contained, service: nil, scope: "/") }
      #expect(count() == 2)
    }
  }

  @Test("is not remembered when those who say it are beside the scope or below it")
  func offTheWay() async throws {
    try await self.withClient(in: "/site-b", { Self.found($0.scope, ["evil"]) }) { client, _, count in
      for scope in ["/home", "/home", "/", "/"] { _ = try await client.find(.contained, service: nil, scope: scope) }
      #expect(count() == 4)
      for _ in 0..<2 { _ = try await client.find(.contained, service: nil, scope: "/site-b/x") }
      #expect(count() == 5)
    }
  }

  @Test("is asked for once by all who ask at the same time")
  func coalescing() async throws {
    let slow: @Sendable (Blocktree_V1_FindRequest) -> Blocktree_V1_FoundProcesses = { _ in
      Thread.sleep(forTimeInterval: 0.2)
      return Self.found("/", ["node1"])
    }
    try await self.withClient(slow) { client, _, count in
      try await withThrowingTaskGroup(of: String?.self) { group in
        for _ in 0..<50 {
          group.addTask { try await client.find(.contained, service: nil, scope: "/").found.processes.first?.path }
        }
        for try await path in group { #expect(path == "/node1") }
      }
      #expect(count() == 1)
    }
  }

  @Test("is heard by those who wait even if the first to ask is cancelled")
  func cancelledLeader() async throws {
    let slow: @Sendable (Blocktree_V1_FindRequest) -> Blocktree_V1_FoundProcesses = { _ in
      Thread.sleep(forTimeInterval: 0.3)
      return Self.found("/", ["node1"])
    }
    try await self.withClient(slow) { client, _, count in
      let first = Task { try await client.find(.contained, service: nil, scope: "/") }
      while count() == 0 { try await Task.sleep(for: .milliseconds(1)) }
      async let second = client.find(.contained, service: nil, scope: "/")
      try await Task.sleep(for: .milliseconds(50))
      first.cancel()
      #expect(try await second.found.processes.map(\.path) == ["/node1"])
    }
  }

  @Test("is forgotten when a process of the directory can not be reached")
  func failedDelivery() async throws {
    let domain = try TestDomain()
    let clock = TestClock()
    try await TestCluster.run(1, of: domain) { root in
      try await TestCluster.run(1, in: "/site-b", of: domain) { site in
        root.redirect(to: site) { $0.hasPrefix("/site-b/") }
        let asked = Self.answer(root) { Self.found($0.scope, ["node1"]) }
        try await root.withProfile([0]) { profile in
          let configuration = ClientConfiguration(
            timeout: .seconds(20), connectionPatience: .milliseconds(200), reconnectionPatience: .milliseconds(200))
          try await BlocktreeClient.withClient(profile, configuration: configuration, now: clock.now) { client in
            func find(_ scope: String) async throws -> Int {
              _ = try await client.find(.contained, service: nil, scope: scope)
              return asked.count
            }
            try await client.makeDirectory("/site-b/x")
            for (scope, count) in [("/site-b", 1), ("/other", 2), ("/site-b", 2)] {
              #expect(try await find(scope) == count)
            }
            site.members[0].kill()
            await #expect(throws: BlocktreeError.self) { try await client.stat("/site-b/x") }
            for (scope, count) in [("/site-b", 3), ("/other", 3), ("/site-b", 3)] {
              #expect(try await find(scope) == count)
            }
          }
        }
      }
    }
  }
}
