// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Testing

/// A delegated directory whose key nobody above has: in no directory entry, only in the readcaps of its own processes.
@Suite("A delegated directory that is cut off from the one above", .timeLimit(.minutes(3)))
struct CutOffDirectoryTests {
  @Test("is read and written, takes processes in and lets them go, and is joined again")
  func all() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      try await cluster.add(2, to: "/site")
      try await cluster.withClient { client in
        try await client.makeDirectory("/site/d")
        try await client.write([1], to: "/site/d/file")
      }
      try await cluster.btrpc("revoke", "/site", "--parent")
      try await cluster.withClient { client in
        #expect(try await client.stat("/site").isCutOff)
        try await eventually("its processes go on with the new key") {
          (try? await client.write([2], to: "/site/direct")) != nil
        }
        #expect(try await client.readAll("/site/d/file").bytes == [1])
        #expect(try await client.listPage("/site").entries.map(\.name).sorted() == ["d", "direct", "nas1", "nas2"])
      }

      let added = try await cluster.add(1, to: "/site")[0]
      try await withClient(cluster.profile(cluster.profile, startingFrom: [added])) { client in
        let bytes = try await client.readAll("/site/direct").bytes
        #expect(bytes == [2])
      }
      try await cluster.btrpc("process", "remove", cluster.path(of: added))
      cluster.forget(added)
      try await cluster.settle("/site")

      // What began again finds its key.
      let restarted = cluster.site("/site")[0]
      await cluster.kill(restarted)
      try await cluster.start(restarted)
      try await cluster.settle("/site")
      try await withClient(cluster.profile(cluster.profile, startingFrom: [restarted])) { client in
        try await client.write([3], to: "/site/after")
        let bytes = try await client.readAll("/site/direct").bytes
        #expect(bytes == [2])
      }

      // Its own processes give its key to one above, which puts it back.
      try await cluster.btrpc("grant", "/site", "/node1", "--key")
      try await cluster.btrpc("grant", "/site", "--parent")
      try await cluster.withClient { client in
        #expect(try await !client.stat("/site").isCutOff)
        try await eventually("its processes go on with the new key") {
          (try? await client.write([4], to: "/site/joined")) != nil
        }
        for (name, byte) in [("d/file", UInt8(1)), ("direct", 2), ("after", 3), ("joined", 4)] {
          #expect(try await client.readAll("/site/" + name).bytes == [byte])
        }
      }
    }
  }
}
