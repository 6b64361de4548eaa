// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Testing

@Suite("A process that has moved", .timeLimit(.minutes(3)))
struct AddressTests {
  /// Where the tree says that a member is.
  private func published(_ member: Int, _ cluster: TestCluster) async throws -> [String] {
    struct Row: Decodable {
      let path: String
      let addresses: [String]?
    }
    // The owner's profile does not know of it.
    let address = try #require(try cluster.profile.startingPoints.first?.address)
    var lines: [String]?
    // It may just be beginning again with what the others have sent it.
    for _ in 0..<20 where lines == nil {
      do { lines = try await cluster.btrpc("process", "list", "--json", "--address", "\(address)") } catch {
        try await Task.sleep(for: .seconds(1))
      }
    }
    let text = try #require(lines).joined(separator: "\n")
    let rows = try JSONDecoder().decode([Row].self, from: Data(text.utf8))
    return rows.first { $0.path == TestCluster.path(member) }?.addresses ?? []
  }

  @Test("is found again by the others and by clients, whether it led or not", arguments: [true, false])
  func moved(led: Bool) async throws {
    try await TestCluster.with(3) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/before") }
      let leader = try await cluster.leader()
      let moved = led ? leader : (leader + 1) % 3
      let (stays, dies) = ((moved + 1) % 3, (moved + 2) % 3)
      try await cluster.stop(moved)
      let address = try await cluster.startElsewhere(moved)
      try await cluster.settle()
      #expect(try await self.published(moved, cluster) == [address])
      // From here on nothing is done without it.
      await cluster.kill(dies)
      try await withClient(cluster.profile(startingFrom: stays)) { client in
        try await client.makeDirectory("/after")
        #expect(try await client.stat("/before").type == .directory)
      }
      try await cluster.transferLeadership(to: moved)
      // A client that knows only the other one is sent to where it is now.
      try await withClient(cluster.profile(startingFrom: stays)) { _ = try await $0.makeDirectory("/at-its-new-place") }
      try await cluster.start(dies)
      try await cluster.settle()
    }
  }

  @Test("says so when the others are back, if nobody leads at the time")
  func movedAlone() async throws {
    try await TestCluster.with(3) { cluster in
      for member in cluster.members { try await cluster.stop(member) }
      let address = try await cluster.startElsewhere(0)
      try await cluster.start(1)
      try await cluster.start(2)
      try await cluster.settle()
      #expect(try await self.published(0, cluster) == [address])
    }
  }

  @Test("says so when it is the only one, and goes back as well")
  func onlyOne() async throws {
    try await TestCluster.with(1) { cluster in
      let first = try await self.published(0, cluster)
      try await cluster.stop(0)
      let address = try await cluster.startElsewhere(0)
      try await eventually("the tree says where it is") { try await self.published(0, cluster) == [address] }
      try await cluster.stop(0)
      try await cluster.start(0, listeningOn: first[0])
      try await eventually("the tree says where it is") { try await self.published(0, cluster) == first }
    }
  }

  @Test("becomes a member though it has moved before it was one")
  func movedBefore() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/before") }
      try await cluster.add(moves: true)
      try await cluster.settle()
    }
  }
}
