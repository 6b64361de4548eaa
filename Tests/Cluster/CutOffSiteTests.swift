// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Filesystem
import Foundation
import Inodes
import Testing
import Trust

@testable import Node

@Suite("Sites that nobody above can be reached from", .timeLimit(.minutes(3)))
struct CutOffSiteTests {
  private static func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

  /// Waits until each process of a site has a copy of its directory on its disk that is at least as new.
  private static func copies(of directory: String, at version: UInt64, on cluster: TestCluster) async throws {
    for member in cluster.site(directory) {
      try await eventually("member \(member) has copies of what lies above") {
        let file = try? AboveFile.read("\(cluster.directory(member))/above")
        return file?.copies.content != nil && file?.copies.records.first?.version.rawValue ?? 0 >= version
      }
    }
  }

  @Test("serve what they hold after all their processes began again, and say what they do not know")
  func beganAgain() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      let site = try await cluster.add(3, to: "/site")
      var version: UInt64 = 0
      try await cluster.withClient { client in
        for name in ["/site/people", "/site/d"] { try await client.makeDirectory(name) }
        try await client.write(Self.bytes("deep"), to: "/site/d/file")
        try await client.write(Self.bytes("direct"), to: "/site/file-with-a-name")
      }
      let ann = try await cluster.addUser("/site/people/ann")
      try await cluster.btrpc("chmod", "0777", "/site")
      try await cluster.btrpc("chown", "/site/people/ann", "/site/d")
      try await cluster.withClient { version = try await $0.stat("/site").version }
      try await Self.copies(of: "/site", at: version, on: cluster)
      for member in site {
        let kept = try Data(contentsOf: URL(filePath: "\(cluster.directory(member))/above"))
        #expect(kept.range(of: Data("file-with-a-name".utf8)) == nil)
      }

      await cluster.kill(0)
      for member in site { await cluster.kill(member) }
      for member in site { try await cluster.start(member) }
      try await withClient(cluster.profile(ann, startingFrom: site)) { client in
        #expect(try await client.readAll("/site/d/file").bytes == Self.bytes("deep"))
        #expect(try await client.readAll("/site/file-with-a-name").bytes == Self.bytes("direct"))
        // What is old is said to be.
        #expect(try await client.stat("/site").isStale)
        let listed = try await client.listPage("/site")
        #expect(listed.isStale && listed.entries.contains { $0.name == "d" })
        #expect(try await !client.stat("/site/d").isStale)
        // Deeper, everything goes on.
        try await client.write(Self.bytes("new"), to: "/site/d/new")
        try await client.rename("/site/d/new", to: "/site/d/renamed")
        #expect(try await client.readAll("/site/d/renamed").bytes == Self.bytes("new"))
        var impatient = client
        impatient.timeout = .seconds(5)
        let error = await #expect(throws: BlocktreeError.self) { try await impatient.makeDirectory("/site/other") }
        #expect(error?.reason?.rawValue == "PARENT_UNREACHABLE", "\(String(describing: error))")

        try await cluster.start(0)
        try await eventually("what is made directly in it works again") {
          (try? await impatient.makeDirectory("/site/other", makesParents: true)) != nil
        }
        try await eventually("nothing is old any more") { try await !client.stat("/site").isStale }
        #expect(try await client.readAll("/site/d/renamed").bytes == Self.bytes("new"))
        #expect(try await client.readAll("/site/file-with-a-name").bytes == Self.bytes("direct"))
      }
    }
  }

  @Test("begin again without copies that were damaged, and have them anew")
  func damagedCopies() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      let member = try await cluster.add(1, to: "/site")[0]
      var version: UInt64 = 0
      try await cluster.withClient { client in
        try await client.write([1], to: "/site/file")
        version = try await client.stat("/site").version
      }
      try await Self.copies(of: "/site", at: version, on: cluster)
      try await cluster.stop(member)
      let path = "\(cluster.directory(member))/above"
      var bytes = Array(try Data(contentsOf: URL(filePath: path)))
      bytes[bytes.count / 2] ^= 1
      try Data(bytes).write(to: URL(filePath: path))
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
      try await cluster.start(member)
      try await cluster.withClient { client in
        let bytes = try await client.readAll("/site/file").bytes
        #expect(bytes == [1])
      }
      try await Self.copies(of: "/site", at: version, on: cluster)
    }
  }
}
