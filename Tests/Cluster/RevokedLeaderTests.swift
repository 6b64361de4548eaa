// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Testing

/// Who leads the cluster of a directory and loses its credential gets no answer from the cluster above any more. So the
/// others have to see it.
@Suite("A leader whose credential was removed", .timeLimit(.minutes(3)))
struct RevokedLeaderTests {
  /// Writes until it succeeds, and says so only of what was acknowledged.
  private static func write(_ path: String, _ client: Client) async throws {
    try await eventually("\(path) is written") { (try? await client.write([1], to: path)) != nil }
  }

  private static func revoke(_ leader: Int, in site: String, of cluster: TestCluster) async throws {
    try await cluster.withClient { try await Self.write(site + "/before", $0) }
    try await cluster.btrpc("process", "remove", cluster.path(of: leader))
    cluster.forget(leader)
    try await cluster.settle(site)
    try await cluster.withClient { client in
      #expect(try await client.readAll(site + "/before").bytes == [1])
      try await Self.write(site + "/after", client)
    }
    let now = try await cluster.leader(of: site)
    #expect(now != leader)
  }

  @Test("hands over when it is asked, and leaves, also where both votes of two are needed for that")
  func handsOver() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      try await cluster.add(2, to: "/site")
      try await Self.revoke(try await cluster.leader(of: "/site"), in: "/site", of: cluster)
    }
  }

  @Test(
    "is not followed any more when it does not hear that it is asked",
    .enabled("Network namespaces can be made here.") { await NamespaceSupport.isPresent })
  func isNotFollowed() async throws {
    try await TestCluster.with(1, on: .namespaces, spare: 3) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      let site = try await cluster.add(3, to: "/site")
      let leader = try await cluster.leader(of: "/site")
      try await cluster.keepNewConnections(from: site.filter { $0 != leader }, to: leader)
      try await Self.revoke(leader, in: "/site", of: cluster)
    }
  }
}
