// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Testing

@Suite("A cluster whose processes come and go", .timeLimit(.minutes(3)))
struct MembershipTests {
  @Test("grows from one process to five under load, and shrinks to one again, losing nothing")
  func growAndShrink() async throws {
    var random = SeededGenerator(for: "grow and shrink")
    try await TestCluster.with(1) { cluster in
      let workload = Workload(cluster, seed: random.seed)
      try await workload.prepare()
      try await workload.run { load in
        while cluster.count < 5 {
          try await load.progress(by: Int.random(in: 1...40, using: &random))
          try await cluster.add()
          // From one to three, and from three to five.
          if !cluster.count.isMultiple(of: 2) { try await cluster.settle() }
        }
        try await load.progress(by: 20)
        while cluster.count > 1 {
          try await load.progress(by: Int.random(in: 1...40, using: &random))
          let leader = try await cluster.leader()
          // The one that leads, and then one that does not.
          let isLeader = !cluster.count.isMultiple(of: 2)
          let others = cluster.members.filter { $0 != leader }
          try await cluster.remove(isLeader ? leader : others[Int.random(in: others.indices, using: &random)])
        }
        try await load.progress(by: 20)
      }
      // There is nobody else to ask.
      try await workload.verify()
    }
  }

  @Test("does not let a member go that it can not do without, and lets it go when it can")
  func neededMember() async throws {
    let random = SeededGenerator(for: "needed member")
    try await TestCluster.with(3) { cluster in
      let workload = Workload(cluster, seed: random.seed)
      try await workload.prepare()
      try await workload.run { load in
        let leader = try await cluster.leader()
        let (dead, needed) = ((leader + 1) % 3, (leader + 2) % 3)
        await cluster.kill(dead)
        try await eventually("the leader misses one") {
          try await cluster.status(of: leader).members.contains { $0.progress.silenceMs > 1_000 }
        }
        let error = await #expect(throws: BlocktreeError.self) {
          try await cluster.withClient { try await $0.remove(TestCluster.path(needed)) }
        }
        #expect(error?.reason == .processNeeded)
        try await load.progress(by: 20)
        // It goes on as a member.
        try await cluster.start(dead)
        try await cluster.settle()
        try await cluster.remove(needed)
        try await load.progress(by: 20)
      }
      try await workload.verify()
      try await cluster.expectAllApplied()
    }
  }

  @Test("serves a client that knew only the process that is gone")
  func learnedMembers() async throws {
    try await TestCluster.with(3) { cluster in
      let leader = try await cluster.leader()
      try await withClient(cluster.profile(startingFrom: leader)) { client in
        try await client.makeDirectory("/before")
        // It asks for the others when it has been at work for a second.
        try await Task.sleep(for: .seconds(3))
        await cluster.kill(leader)
        try await client.makeDirectory("/after")
        #expect(try await client.stat("/before").type == .directory)
        #expect(try await client.stat("/after").type == .directory)
      }
    }
  }

  @Test("is restored from a backup on a fresh machine, grows again, and goes on without that one")
  func restore() async throws {
    let random = SeededGenerator(for: "restore")
    try await TestCluster.with(3) { cluster in
      let workload = Workload(cluster, seed: random.seed)
      try await workload.prepare()
      try await workload.run { try await $0.progress(by: 60) }
      let fresh = try await cluster.enroll()
      let former = cluster.members
      let backup = try Scratch()
      let file = "\(backup.path)/backup"
      try await cluster.btrpc("cluster", "backup", file)
      for member in former { await cluster.kill(member) }

      try await cluster.restore(file, at: fresh)
      #expect(cluster.members == [fresh])
      // Those that are lost, disks and all.
      for member in former {
        try FileManager.default.removeItem(atPath: "\(cluster.directory(member))/generation-1")
        try await cluster.btrpc("process", "remove", TestCluster.path(member))
      }
      try await workload.run { load in
        try await load.progress(by: 40)
        for _ in 0..<2 { try await cluster.add() }
        try await cluster.settle()
        try await load.progress(by: 20)
      }
      // The others have everything, too.
      try await workload.run { load in
        await cluster.kill(fresh)
        try await load.progress(by: 20)
        try await cluster.start(fresh)
        try await cluster.settle()
      }
      try await workload.verify()
      try await cluster.expectAllApplied()
    }
  }
}
