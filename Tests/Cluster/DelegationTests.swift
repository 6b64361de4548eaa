// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Testing

@Suite("Directories with clusters of their own", .timeLimit(.minutes(5)))
struct DelegationTests {
  private static func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

  @Test("serve their files under one tree, one inside the other, whichever one process of each is killed")
  func nested() async throws {
    var random = SeededGenerator(for: "nested delegation")
    try await TestCluster.with(3) { cluster in
      try await cluster.withClient { client in
        try await client.makeDirectory("/site")
        try await client.write(Self.bytes("old"), to: "/site/old")
      }
      let site = try await cluster.add(3, to: "/site")
      try await cluster.withClient { _ = try await $0.makeDirectory("/site/lab") }
      let lab = try await cluster.add(3, to: "/site/lab")
      try await cluster.withClient { client in
        let places = ["/", "/site/", "/site/lab/"]
        for (number, place) in places.enumerated() {
          let info = try await client.write(Self.bytes(place), to: place + "file")
          #expect(info.id.generation == UInt64(number + 1))
        }
        // What was there before stays where it was.
        #expect(try await client.stat("/site/old").id.generation == 1)
        #expect(try await client.readAll("/site/old").bytes == Self.bytes("old"))
        #expect(try await client.stat("/site").servedByGeneration == 2)
        // Whoever owns a directory operates its cluster.
        let backup = "\(cluster.directory(0))-backup"
        try await eventually("the cluster knows who owns its directory") {
          (try? await cluster.btrpc("cluster", "backup", backup, "--path", "/site")) != nil
        }
        try await cluster.btrpc("cluster", "verify-backup", backup)
        for group in [cluster.members, site, lab] {
          await cluster.kill(group[Int.random(in: group.indices, using: &random)])
        }
        for place in places {
          #expect(try await client.readAll(place + "file").bytes == Self.bytes(place))
          try await client.write(Self.bytes("again"), to: place + "file")
          try await client.makeDirectory(place + "directory")
          try await client.write(Self.bytes("deep"), to: place + "directory/file")
          try await client.rename(place + "directory/file", to: place + "directory/renamed")
          #expect(try await client.readAll(place + "directory/renamed").bytes == Self.bytes("deep"))
        }
      }
    }
  }

  @Test("that are gone as a whole leave the rest of the tree usable, and are named in the error")
  func lostSite() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      let site = try await cluster.add(1, to: "/site")
      try await cluster.withClient { client in
        try await client.write(Self.bytes("here"), to: "/site/file")
        await cluster.kill(site[0])
        var copy = client
        copy.timeout = .seconds(5)
        let error = await #expect(throws: BlocktreeError.self) { try await copy.readAll("/site/file") }
        #expect(error.map { "\($0)" }?.contains("/site") == true, "\(String(describing: error))")
        try await client.write(Self.bytes("elsewhere"), to: "/file")
        #expect(try await client.stat("/site").type == .directory)
        try await cluster.start(site[0])
        #expect(try await client.readAll("/site/file").bytes == Self.bytes("here"))
      }
    }
  }

  @Test("have one generation, however many processes begin to serve them at once")
  func race() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      var members: [Int] = []
      for _ in 0..<3 { members.append(try await cluster.enroll(in: "/site")) }
      try await withThrowingTaskGroup(of: Void.self) { group in
        for member in members { group.addTask { try await cluster.start(member) } }
        try await group.waitForAll()
      }
      var generations: Set<UInt64> = []
      try await eventually("all three vote in one cluster") {
        generations = []
        for member in members {
          guard let status = try? await cluster.status(of: member),
            status.members.count(where: { $0.vote == .voter }) == 3
          else { return false }
          generations.insert(status.generation)
        }
        return true
      }
      #expect(generations.count == 1)
      try await cluster.withClient { client in
        #expect(try await client.stat("/site").servedByGeneration == generations.first)
        try await client.write([1], to: "/site/file")
      }
    }
  }

  @Test("lose no acknowledged file, and have no name that leads nowhere, when processes of both clusters are killed")
  func killed() async throws {
    var random = SeededGenerator(for: "killed in steps over two clusters")
    try await TestCluster.with(3) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      try await cluster.add(3, to: "/site")
      try await cluster.withClient { client in
        var expected: [String: [UInt8]] = [:]
        var number = 0
        for round in 0..<6 {
          let directory = round.isMultiple(of: 2) ? "/site" : nil
          let victim = try await cluster.leader(of: directory)
          let begun = number
          try await withThrowingTaskGroup(of: Void.self) { group in
            let delay = Int.random(in: 0...300, using: &random)
            group.addTask {
              try await Task.sleep(for: .milliseconds(delay))
              await cluster.kill(victim)
            }
            while number < begun + 12 {
              number += 1
              let name = "/site/f\(number)"
              try await client.write(Self.bytes(name), to: name)
              expected[name] = Self.bytes(name)
              switch number % 4 {
              case 1:
                try await client.rename(name, to: name + "-renamed")
                expected[name] = nil
                expected[name + "-renamed"] = Self.bytes(name)
              case 2:
                try await client.remove(name)
                expected[name] = nil
              default: break
              }
            }
            try await group.waitForAll()
          }
          try await cluster.start(victim)
        }
        try await cluster.settle()
        try await cluster.settle("/site")
        var names: Set<String> = []
        for try await entry in client.list("/site", includesInfo: true) where entry.type == .file {
          #expect(!entry.isDamaged, "\(entry.name)")
          names.insert("/site/\(entry.name)")
        }
        #expect(names == Set(expected.keys))
        for (name, bytes) in expected { #expect(try await client.readAll(name).bytes == bytes, "\(name)") }
      }
    }
  }

  @Test("lock out a process whose credential is removed, and go on without it")
  func revoked() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      let site = try await cluster.add(3, to: "/site")
      let revoked = site[2]
      try await cluster.btrpc("process", "remove", cluster.path(of: revoked))
      cluster.forget(revoked)
      try await cluster.settle("/site")
      try await cluster.withClient { client in
        try await client.write([1], to: "/site/file")
        // The last two can go down to one, but not to none.
        try await cluster.btrpc("process", "remove", cluster.path(of: site[1]))
        cluster.forget(site[1])
        try await cluster.settle("/site")
        let error = await #expect(throws: BlocktreeError.self) { try await client.remove(cluster.path(of: site[0])) }
        #expect(error?.reason?.rawValue == "DELEGATED", "\(String(describing: error))")
        #expect(try await client.readAll("/site/file").bytes == [1])
      }
    }
  }

  @Test("go on when they are cut off from the cluster above, but for what is made directly in them")
  func cutOff() async throws {
    try await TestCluster.with(1, on: .namespaces, spare: 1) { cluster in
      try await cluster.withClient { _ = try await $0.makeDirectory("/site") }
      let site = try await cluster.add(1, to: "/site")
      try await withClient(cluster.profile(startingFrom: site[0])) { client in
        try await client.makeDirectory("/site/d")
        try await client.write([1], to: "/site/d/file")
        try await client.write([2], to: "/site/file")
        #expect(try await client.readAll("/site/d/file").bytes == [1])
        #expect(try await client.readAll("/site/file").bytes == [2])
        try await cluster.cutOff("/site")
        #expect(try await client.readAll("/site/d/file").bytes == [1])
        #expect(try await client.readAll("/site/file").bytes == [2])
        try await client.write([3], to: "/site/d/new")
        var copy = client
        copy.timeout = .seconds(20)
        let error = await #expect(throws: BlocktreeError.self) { try await copy.makeDirectory("/site/other") }
        #expect(error?.code == .unavailable, "\(String(describing: error))")
        let listed = try await client.listPage("/site")
        #expect(listed.entries.contains { $0.name == "d" })
        try await cluster.heal()
        try await eventually("what is made directly in it works again") {
          (try? await copy.makeDirectory("/site/other", makesParents: true)) != nil
        }
        #expect(try await client.readAll("/site/d/new").bytes == [3])
      }
    }
  }
}
