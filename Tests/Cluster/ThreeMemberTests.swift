// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite("A cluster of three processes", .timeLimit(.minutes(3)))
struct ThreeMemberTests {
  @Test("loses nothing when its leader is killed under load, again and again")
  func killLeader() async throws {
    var random = SeededGenerator(for: "kill the leader")
    try await Self.underLoad(seed: random.seed) { cluster, load in
      for _ in 0..<3 {
        try await load.progress(by: Int.random(in: 1...60, using: &random))
        let leader = try await cluster.leader()
        await cluster.kill(leader)
        // The others go on without it.
        try await load.progress(by: 20)
        try await cluster.start(leader)
        try await cluster.settle()
      }
      try await load.progress(by: 20)
    }
  }

  @Test("loses nothing when a follower is killed under load")
  func killFollower() async throws {
    var random = SeededGenerator(for: "kill a follower")
    try await Self.underLoad(seed: random.seed) { cluster, load in
      for _ in 0..<3 {
        try await load.progress(by: Int.random(in: 1...40, using: &random))
        let leader = try await cluster.leader()
        let follower = (leader + Int.random(in: 1..<cluster.count, using: &random)) % cluster.count
        await cluster.kill(follower)
        try await load.progress(by: 20)
        try await cluster.start(follower)
        try await cluster.settle()
      }
    }
  }

  @Test("loses nothing when all of it is killed at once under load")
  func killAll() async throws {
    var random = SeededGenerator(for: "kill all")
    try await Self.underLoad(seed: random.seed) { cluster, load in
      for _ in 0..<2 {
        try await load.progress(by: Int.random(in: 1...60, using: &random))
        for member in cluster.members { await cluster.kill(member) }
        // None of them may have to wait for another one before it says that it is ready.
        for member in cluster.members { try await cluster.start(member) }
        try await load.progress(by: 20)
      }
    }
  }

  @Test("replaces a leader that hangs, which finds itself replaced when it goes on")
  func pauseLeader() async throws {
    var random = SeededGenerator(for: "pause the leader")
    try await Self.underLoad(seed: random.seed) { cluster, load in
      for _ in 0..<2 {
        try await load.progress(by: Int.random(in: 1...40, using: &random))
        let leader = try await cluster.leader()
        cluster.pause(leader)
        _ = try await cluster.leader(except: [leader])
        try await load.progress(by: 20)
        cluster.resume(leader)
        try await load.progress(by: 20)
      }
    }
  }

  @Test("is restarted one process after the other under load")
  func rollingRestart() async throws {
    var random = SeededGenerator(for: "rolling restart")
    try await Self.underLoad(seed: random.seed) { cluster, load in
      for member in cluster.members {
        try await load.progress(by: Int.random(in: 1...40, using: &random))
        try await cluster.stop(member)
        try await load.progress(by: 20)
        try await cluster.start(member)
        try await cluster.settle()
      }
      try await load.progress(by: 20)
    }
  }

  @Test("takes a process back whose disk was lost, under load")
  func lostDisk() async throws {
    var random = SeededGenerator(for: "lost disk")
    try await Self.underLoad(seed: random.seed) { cluster, load in
      try await load.progress(by: Int.random(in: 1...40, using: &random))
      let member = Int.random(in: 0..<cluster.count, using: &random)
      await cluster.kill(member)
      try FileManager.default.removeItem(atPath: "\(cluster.directory(member))/generation-1")
      try await load.progress(by: 20)
      // It has forgotten what it promised, and so comes back as another member.
      try await cluster.start(member)
      try await cluster.settle()
      try await load.progress(by: 20)
    }
  }

  /// A cluster, clients, what happens to it, and then the judgement.
  static func underLoad(
    seed: UInt64, on network: TestCluster.Network = .loopback,
    _ body: (TestCluster, Workload) async throws -> Void
  ) async throws {
    try await TestCluster.with(3, on: network) { cluster in
      let workload = Workload(cluster, seed: seed)
      try await workload.prepare()
      try await workload.run { load in try await body(cluster, load) }
      try await workload.verify()
      try await cluster.expectAllApplied()
    }
  }
}

@Suite(
  "A cluster of three processes in a network that breaks", .timeLimit(.minutes(3)),
  .enabled("Network namespaces can be made here.") { await NamespaceSupport.isPresent })
struct PartitionTests {
  /// How members are cut off.
  enum Partition: CaseIterable, Sendable {
    /// The leader from everybody.
    case full
    /// The leader from the other members, not from clients: it must not serve them.
    case fromMembers
    /// The leader from one other member; both reach the third one.
    case partial
    /// The leader hears the others, and they do not hear it.
    case mute
    /// The others hear the leader, and it does not hear them.
    case deaf
  }

  @Test("loses nothing when its leader is cut off under load, and heals", arguments: Partition.allCases)
  func partition(_ partition: Partition) async throws {
    var random = SeededGenerator(for: "\(partition)")
    try await ThreeMemberTests.underLoad(seed: random.seed, on: .namespaces) { cluster, load in
      try await load.progress(by: Int.random(in: 1...40, using: &random))
      let leader = try await cluster.leader()
      let other = (leader + Int.random(in: 1..<cluster.count, using: &random)) % cluster.count
      switch partition {
      case .full: try await cluster.isolate(leader, fromClients: true)
      case .fromMembers: try await cluster.isolate(leader, fromClients: false)
      case .partial: try await cluster.separate(leader, other)
      case .mute: try await cluster.mute(leader)
      case .deaf: try await cluster.deafen(leader)
      }
      try await load.progress(by: 40)
      try await cluster.heal()
      try await load.progress(by: 20)
    }
  }
}
