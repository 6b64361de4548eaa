// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Testing

@Suite("Operating a cluster of three processes", .timeLimit(.minutes(3)))
struct OperatingTests {
  @Test("'cluster status' shows each process, and says which of them does not answer")
  func status() async throws {
    try await TestCluster.with(3) { cluster in
      let leader = try await cluster.withClient { client in
        let overview = try await cluster.settledOverview(client)
        #expect(overview.members.map(\.member.process) == cluster.members.map(TestCluster.path))
        for (number, member) in overview.members.enumerated() {
          let own = try member.own.get()
          #expect(own.process == TestCluster.path(number) && own.disk.freeBytes > 0)
          #expect(own.role == (own.process == overview.view.process ? .leader : .follower))
          #expect(own.leader.process == overview.view.process && own.leader.addresses.count == 1)
          #expect(member.member.hasProgress)
        }
        return try cluster.number(overview.view.process)
      }

      let dead = (leader + 1) % 3
      await cluster.kill(dead)
      try await cluster.withClient { client in
        let overview = try await client.cluster.overview()
        #expect(overview.members.count == 3)
        for (number, member) in overview.members.enumerated() {
          #expect(((try? member.own.get()) == nil) == (number == dead), "\(number)")
        }
      }
      try await cluster.start(dead)
    }
  }

  @Test("'cluster transfer' hands leadership over, to whom is named or to anybody")
  func transfer() async throws {
    try await TestCluster.with(3) { cluster in
      try await cluster.withClient { client in
        let leader = try cluster.number(await cluster.settledOverview(client).view.process)
        let target = TestCluster.path((leader + 1) % 3)
        let answer = try await client.cluster.transferLeadership(to: target)
        #expect(answer.leader.process == target)
        #expect(try await cluster.settledOverview(client).view.process == target)
        // Files are served by the one that leads now.
        _ = try await client.makeDirectory("/moved")
        let next = try await client.cluster.transferLeadership()
        #expect(next.leader.process != target && next.term > answer.term)
        #expect(try await client.stat("/moved").type == .directory)
      }
    }
  }
}

extension TestCluster {
  fileprivate func number(_ path: String) throws -> Int {
    try #require(self.members.first { Self.path($0) == path })
  }

  /// What there is to see once all members vote and agree on who leads.
  fileprivate func settledOverview(_ client: Client) async throws -> ClusterOverview {
    var settled: ClusterOverview?
    try await eventually("all members vote and say the same") {
      let overview = try await client.cluster.overview()
      let agree = overview.members.allSatisfy { member in
        let own = try? member.own.get()
        return member.member.vote == .voter && own?.term == overview.view.term
          && own?.leader.process == overview.view.process
      }
      if agree, overview.hasLeader, overview.members.count == self.count { settled = overview }
      return settled != nil
    }
    return try #require(settled)
  }
}
