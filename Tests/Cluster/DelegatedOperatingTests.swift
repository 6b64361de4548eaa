// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Testing

@Suite("Operating the cluster of a directory", .timeLimit(.minutes(4)))
struct DelegatedOperatingTests {
  @Test("hands over, verifies, backs up, recovers and restores it, as its owner can do with any")
  func all() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      let site = try await cluster.add(3, to: "/site")
      try await cluster.withClient { client in
        try await client.makeDirectory("/site/d")
        try await client.write([1], to: "/site/d/file")
        try await client.write([2], to: "/site/direct")
      }
      let leader = try await cluster.leader(of: "/site")
      let target = try #require(site.first { $0 != leader })
      try await eventually("the cluster knows who owns its directory") {
        (try? await cluster.btrpc("cluster", "transfer", "--path", "/site", "--to", cluster.path(of: target))) != nil
      }
      let leading = try await cluster.leader(of: "/site")
      #expect(leading == target)
      try await cluster.btrpc("cluster", "scrub", "--path", "/site", "--wait")

      // Two are lost for good: the third goes on with all that was acknowledged.
      let survivor = try await cluster.leader(of: "/site")
      let lost = site.filter { $0 != survivor }
      for member in lost { await cluster.kill(member) }
      try await eventually("nobody leads") { try await !cluster.status(of: survivor).hasLeader }
      let key = "\(cluster.directory(0))/root-key.pem"
      try await cluster.btrpc(
        "cluster", "recover", "--address", "\(cluster.networkAddress(of: survivor))", "--root-key", key)
      try await cluster.withClient { client in
        #expect(try await client.readAll("/site/d/file").bytes == [1])
        #expect(try await client.readAll("/site/direct").bytes == [2])
        try await client.write([3], to: "/site/d/after")
      }
      for member in lost { try await cluster.start(member) }
      try await cluster.settle("/site")

      // All are lost, but for a backup and a machine that nothing was ever stored on.
      let fresh = try await cluster.enroll(in: "/site")
      let backup = "\(cluster.directory(0))-site-backup"
      let name = Data(cluster.path(of: fresh).utf8)
      try await eventually("the backup knows the new process") {
        try? FileManager.default.removeItem(atPath: backup)
        try await cluster.btrpc("cluster", "backup", backup, "--path", "/site")
        return try Data(contentsOf: URL(filePath: backup)).range(of: name) != nil
      }
      try await cluster.withClient { _ = try await $0.write([4], to: "/site/d/too-late") }
      for member in site { await cluster.kill(member) }
      try await cluster.restore(backup, at: fresh, serving: "/site", rootKey: key)
      try await cluster.withClient { client in
        #expect(try await client.readAll("/site/d/file").bytes == [1])
        #expect(try await client.readAll("/site/d/after").bytes == [3])
        #expect(try await client.readAll("/site/direct").bytes == [2])
        #expect(try await !client.exists("/site/d/too-late"))
        try await client.write([5], to: "/site/d/new")
        try await client.write([6], to: "/site/new")
      }
      // Those that come back are no other truth.
      for member in site { try await cluster.start(member) }
      try await cluster.settle("/site")
      try await cluster.withClient { client in
        let deep = try await client.readAll("/site/d/new").bytes
        #expect(deep == [5])
        #expect(try await client.readAll("/site/new").bytes == [6])
        #expect(try await !client.exists("/site/d/too-late"))
      }
    }
  }
}
