// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Testing

@Suite("A cluster of three processes that has lost two of them", .timeLimit(.minutes(3)))
struct RecoveryTests {
  @Test("goes on with the third under load, loses nothing, and takes the others back as new members")
  func recovered() async throws {
    var random = SeededGenerator(for: "recover")
    try await TestCluster.with(3) { cluster in
      let workload = Workload(cluster, seed: random.seed)
      try await workload.prepare()
      try await workload.run { load in
        try await load.progress(by: Int.random(in: 40...80, using: &random))
        // The leader has all that was acknowledged. It notices that it leads nobody any more.
        let survivor = try await cluster.leader()
        let lost = cluster.members.filter { $0 != survivor }
        for member in lost { await cluster.kill(member) }
        try await cluster.expectNoLeader(known: survivor)
        try await cluster.recover(with: survivor)
        try await load.progress(by: 30)
        for member in lost { try await cluster.start(member) }
        // One is killed again as soon as it has heard that its life is over.
        try await eventually("member \(lost[0]) knows") {
          FileManager.default.fileExists(atPath: "\(cluster.directory(lost[0]))/warrant-1")
        }
        await cluster.kill(lost[0])
        try await cluster.start(lost[0])
        try await cluster.settle()
        try await load.progress(by: 30)
        try await cluster.expectLife(2)
        for member in lost { #expect(try cluster.supersededStores(of: member).count == 1, "member \(member)") }
        #expect(try cluster.supersededStores(of: survivor).isEmpty)
      }
      try await workload.verify()
      try await cluster.expectAllApplied()
    }
  }

  @Test("is no other truth for a client that has seen the recovered one, even where the others meet only each other")
  func otherTruth() async throws {
    try await TestCluster.with(3) { cluster in
      let survivor = try await cluster.leader()
      let lost = cluster.members.filter { $0 != survivor }
      try await cluster.withClient { _ = try await $0.makeDirectory("/before") }
      try await cluster.expectAllApplied()
      // A profile of somebody who will not hear of the recovery.
      let unaware = "\(cluster.directory(0))/unaware"
      try FileManager.default.copyItem(atPath: cluster.profileDirectory, toPath: unaware)

      for member in lost { await cluster.kill(member) }
      try await cluster.expectNoLeader(known: survivor)
      try await cluster.recover(with: survivor)
      try await cluster.withClient { _ = try await $0.makeDirectory("/after") }

      // The two are a majority of what they know.
      cluster.pause(survivor)
      for member in lost { try await cluster.start(member) }
      _ = try await cluster.leader(except: [survivor])
      let patience = ClientConfiguration(
        timeout: .seconds(3), connectionPatience: .seconds(1), reconnectionPatience: .seconds(1))
      let addresses = try lost.map { try cluster.address(of: $0) }
      // Whoever does not know better believes them: this is what the fence can not do.
      try await withClient(Profile(contentsOf: unaware).starting(from: addresses)) { client in
        _ = try await client.stat("/before")
        _ = try await client.makeDirectory("/astray")
      }
      // Whoever does, does not: neither in this process, nor in another one with the same profile.
      try await withClient(cluster.profile.starting(from: addresses), configuration: patience) { client in
        for _ in 0..<2 {
          await Self.expectStale { _ = try await client.stat("/before") }
          await Self.expectStale { _ = try await client.stat("/astray") }
          await Self.expectStale { _ = try await client.makeDirectory("/lost") }
          await Self.expectStale { try await client.writeBytes([1], to: "/lost", .create) }
        }
      }

      // Now they meet it.
      cluster.resume(survivor)
      try await cluster.settle()
      try await cluster.expectLife(2)
      try await cluster.withClient { client in
        _ = try await client.stat("/after")
        await Self.expect(.notFound) { _ = try await client.stat("/astray") }
      }
      // Whoever knew nothing has heard of it with the first answer, and is led back.
      try await withClient(Profile(contentsOf: unaware).starting(from: addresses)) { client in
        _ = try await client.stat("/after")
        await Self.expect(.notFound) { _ = try await client.stat("/astray") }
      }
      for member in lost { #expect(try cluster.supersededStores(of: member).count == 1, "member \(member)") }
      try await cluster.expectAllApplied()
    }
  }

  private static func expectStale(
    sourceLocation: SourceLocation = #_sourceLocation, _ body: () async throws -> Void
  ) async {
    do {
      try await body()
      Issue.record("A member of a former life was believed.", sourceLocation: sourceLocation)
    } catch let error as BlocktreeError {
      // Or the paused process was asked last, which does not answer.
      let isRefused = error.reason == .staleIncarnation || error.reason == .peerUnreachable
      #expect(isRefused || error.code == .deadlineExceeded, "\(error)", sourceLocation: sourceLocation)
    } catch {
      Issue.record(error, sourceLocation: sourceLocation)
    }
  }

  @Test("finishes a recovery that a crash interrupts")
  func crash() async throws {
    try await TestCluster.with(3) { cluster in
      let survivor = try await cluster.leader()
      try await cluster.withClient { _ = try await $0.makeDirectory("/before") }
      for member in cluster.members where member != survivor { await cluster.kill(member) }
      try await cluster.expectNoLeader(known: survivor)
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await cluster.recover(with: survivor) }
        try await eventually("the warrant is on the disk") {
          FileManager.default.fileExists(atPath: "\(cluster.directory(survivor))/warrant-1")
        }
        await cluster.kill(survivor)
        try await cluster.start(survivor)
        try await tasks.waitForAll()
      }
      try await cluster.withClient { _ = try await $0.stat("/before") }
      #expect(try await cluster.status(of: survivor).incarnation == 2)
      for member in cluster.members where member != survivor { try await cluster.start(member) }
      try await cluster.settle()
    }
  }

  @Test("is not recovered while it lives, nor with another key than the root principal's")
  func refused() async throws {
    try await TestCluster.with(3) { cluster in
      let leader = try await cluster.leader()
      let follower = (leader + 1) % 3
      await #expect(throws: ClusterFailure.self) { try await cluster.recover(with: follower) }
      let profile = try cluster.profile.starting(from: [cluster.address(of: follower)])
      try await withClient(profile) { client in
        let survey = try await client.cluster.recoverySurvey()
        #expect(survey.survivor.process == TestCluster.path(follower))
        #expect(survey.objections.contains(.majorityAnswers(3, of: 3)))
        #expect(
          survey.objections.contains(
            .leaderKnown(by: TestCluster.path(follower), leader: TestCluster.path(leader))))
        // The process itself refuses, too.
        await Self.expect(.recoveryRefused) {
          _ = try await client.cluster.recover(survey, rootKey: cluster.rootKey)
        }
        await Self.expect(.profile) {
          _ = try await client.cluster.recover(survey, rootKey: "\(cluster.profileDirectory)/key.pem")
        }
      }
      try await cluster.settle()
      try await cluster.expectLife(1)
    }
  }

  private static func expect(
    _ reason: BlocktreeError.Reason, sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () async throws -> Void
  ) async {
    do {
      try await body()
      Issue.record("It was not refused.", sourceLocation: sourceLocation)
    } catch {
      #expect((error as? BlocktreeError)?.reason == reason, "\(error)", sourceLocation: sourceLocation)
    }
  }

  @Test("gives way to a backup that was restored with the root principal's key")
  func restored() async throws {
    try await TestCluster.with(3) { cluster in
      let backup = "\(cluster.directory(0))/backup"
      try await cluster.withClient { _ = try await $0.makeDirectory("/before") }
      try await cluster.btrpc("cluster", "backup", backup)
      try await cluster.withClient { _ = try await $0.makeDirectory("/after") }
      for member in cluster.members { await cluster.kill(member) }
      let store = "\(cluster.directory(0))/generation-1"
      try FileManager.default.moveItem(atPath: store, toPath: store + ".lost")
      try await Command.run(
        Installed.product("btnode"), ["restore", "--dir", cluster.directory(0), "--backup", backup],
        log: "\(cluster.directory(0))/restore.log")
      // The others still have what came after the backup, and would go on with it.
      for member in cluster.members { try await cluster.start(member) }
      try await cluster.settle()
      try await cluster.expectLife(2)
      try await cluster.withClient { client in
        _ = try await client.stat("/before")
        await Self.expect(.notFound) { _ = try await client.stat("/after") }
      }
      for member in [1, 2] { #expect(try cluster.supersededStores(of: member).count == 1, "member \(member)") }
      try await cluster.expectAllApplied()
    }
  }

  @Test("keeps the credential of the process that is left when the others are removed")
  func lastProcess() async throws {
    try await TestCluster.with(1) { cluster in
      await #expect(throws: ClusterFailure.self) { try await cluster.btrpc("process", "remove", TestCluster.path(0)) }
      try await cluster.withClient { client in
        await Self.expect(.lastProcess) { _ = try await client.remove(TestCluster.path(0)) }
        _ = try await client.makeDirectory("/still")
      }
    }
  }
}

extension TestCluster {
  fileprivate var rootKey: String { "\(self.directory(0))/root-key.pem" }

  /// Recovers the cluster with one process, as a user does.
  fileprivate func recover(with member: Int) async throws {
    try await self.btrpc("cluster", "recover", "--address", self.address(of: member), "--root-key", self.rootKey)
  }

  /// Waits until a process knows nobody who leads, itself included.
  fileprivate func expectNoLeader(known member: Int) async throws {
    try await eventually("member \(member) knows no leader") { try await !self.status(of: member).hasLeader }
  }

  fileprivate func expectLife(_ incarnation: UInt64, sourceLocation: SourceLocation = #_sourceLocation) async throws {
    for member in self.members {
      let status = try await self.status(of: member)
      #expect(status.incarnation == incarnation, "member \(member)", sourceLocation: sourceLocation)
    }
  }

  fileprivate func address(of member: Int) throws -> String {
    struct Description: Decodable { let listen: String }
    let file = URL(filePath: "\(self.directory(member))/node.json")
    return try JSONDecoder().decode(Description.self, from: Data(contentsOf: file)).listen
  }

  /// What a member has set aside, and was told that it is over.
  fileprivate func supersededStores(of member: Int) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: self.directory(member))
      .filter { $0.hasPrefix("generation-1.superseded-") }
  }
}
