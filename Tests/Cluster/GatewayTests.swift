// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Filesystem
import Foundation
import Inodes
import Testing
import Trust

@testable import Node

/// Processes with the filesystem mark that store nothing.
@Suite("A gateway", .timeLimit(.minutes(4)))
struct GatewayTests {
  private static let marker = "the-plain-text-that-must-not-be-there\n"
  private static let bytes = Array(String(repeating: Self.marker, count: (3 << 20) / Self.marker.utf8.count).utf8)

  private static func expect(_ path: String, _ client: Client, has bytes: [UInt8]) async throws {
    #expect(try await client.readAll(path).bytes == bytes, "\(path)")
  }

  /// Does what people do with files, below a directory, through one process.
  private static func useFiles(in directory: String, _ client: Client) async throws {
    let base = directory == "/" ? "/work" : "\(directory)/work"
    try await client.makeDirectory(base)
    try await client.write(Self.bytes, to: "\(base)/large")
    try await client.write(Array("small".utf8), to: "\(base)/small")
    try await Self.expect("\(base)/large", client, has: Self.bytes)
    try await client.rename("\(base)/small", to: "\(base)/renamed")
    try await client.makeLink("\(base)/link", to: "\(base)/renamed")
    try await client.makeSymbolicLink("\(base)/symbolic", to: "renamed")
    try await Self.expect("\(base)/symbolic", client, has: Array("small".utf8))
    try await client.write(Array("SMALLER".utf8), to: "\(base)/renamed")
    try await client.makeDirectory("\(base)/directory")
    try await client.write([1, 2, 3], to: "\(base)/directory/file")
    try await client.rename("\(base)/directory", to: "\(base)/moved")
    try await Self.expect("\(base)/moved/file", client, has: [1, 2, 3])
    try await client.remove("\(base)/link")
    let names = try await client.listPage(base).entries.map(\.name).sorted()
    #expect(names == ["large", "moved", "renamed", "symbolic"])
  }

  /// What a member has handed out of files, and of sealed sectors.
  private static func sent(_ cluster: TestCluster, by member: Int) async throws -> (plain: Double, sealed: Double) {
    (
      try await cluster.metric("blocktree_plain_bytes_sent_total", of: member),
      try await cluster.metric("blocktree_sealed_bytes_sent_total", of: member)
    )
  }

  @Test("serves the root directory, and passes on to a member what only members do")
  func root() async throws {
    try await TestCluster.with(1, metrics: true) { cluster in
      let gateway = try await cluster.addGateway()
      let owner = try cluster.profile(Profile(contentsOf: cluster.profileDirectory), startingFrom: [gateway])
      let ann = try await cluster.addUser("/ann")
      try await withClient(owner) { client in
        // As a profile starts there, everything goes that way, as long as it is not passed on.
        #expect(try await client.listPage("/").entries.map(\.name).contains("node1"))
        #expect(try await client.stat("/").id.generation == 1)
        try await client.write(Self.bytes, to: "/first")
        let before = try await Self.sent(cluster, by: 0)
        try await Self.expect("/first", client, has: Self.bytes)
        #expect(try await Self.sent(cluster, by: gateway).plain == Double(Self.bytes.count))
        let after = try await Self.sent(cluster, by: 0)
        #expect(after.plain == before.plain && after.sealed - before.sealed >= Double(Self.bytes.count))
        try await Self.useFiles(in: "/", client)
        try await client.grant("/first", to: "/ann", permission: 4, withKey: true)
        let (_, task) = try await client.rekey("/work")
        #expect(task?.kind == .rekey)
      }
      // What one process did the other one sees at once.
      try await cluster.withClient { client in
        try await Self.expect("/work/renamed", client, has: Array("SMALLER".utf8))
      }
      try await withClient(try cluster.profile(ann, startingFrom: [gateway])) { client in
        try await Self.expect("/first", client, has: Self.bytes)
        let error = await #expect(throws: BlocktreeError.self) { try await client.write([1], to: "/first") }
        #expect(error?.code == .permissionDenied)
      }
      try await withClient(try cluster.profile(ann, startingFrom: [gateway]).anonymous) { client in
        let names = try await client.listPage("/").entries.map(\.name)
        #expect(names.contains("work"))
      }
    }
  }

  @Test("serves a directory that has no cluster of its own, and its cluster as soon as it has one")
  func ordinaryDirectory() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { client in _ = try await client.makeDirectory("/dir") }
      let gateway = try await cluster.addGateway(to: "/dir")
      let owner = try cluster.profile(Profile(contentsOf: cluster.profileDirectory), startingFrom: [gateway])
      try await withClient(owner) { client in
        try await Self.useFiles(in: "/dir", client)
        #expect(try await client.stat("/dir/work").id.generation == 1)
        // What lies elsewhere is answered by those above.
        #expect(try await client.stat("/").id.generation == 1)
        try await client.write([4], to: "/dir/file")
        let contained = try await client.find(.contained, service: "filesystem", scope: "/dir").found
        #expect(contained.processes.map(\.path) == [cluster.path(of: gateway)])
      }
      try await cluster.withClient { client in
        let nearest = try await client.find(.nearest, service: "filesystem", scope: "/dir/work/moved").found
        #expect(nearest.directory == "/dir" && nearest.processes.map(\.path) == [cluster.path(of: gateway)])
        let sector = try await client.find(.nearest, service: "sector", scope: "/dir/work/moved").found
        #expect(sector.directory == "/" && sector.processes.map(\.path) == ["/node1"])
      }
      try await cluster.add(1, to: "/dir")
      try await withClient(owner) { client in
        try await eventually("the gateway works on the new cluster") {
          let name = "/dir/new-\(UInt32.random(in: 0 ... .max))"
          guard (try? await client.write([5], to: name)) != nil else { return false }
          return try await client.stat(name).id.generation == 2
        }
        try await Self.expect("/dir/file", client, has: [4])
        try await Self.useFiles(in: "/dir/work", client)
      }
    }
  }

  @Test("reads and writes what the processes of its directory only store, which they can not read")
  func storedOnly() async throws {
    try await TestCluster.with(1, metrics: true) { cluster in
      try await cluster.withClient { client in _ = try await client.makeDirectory("/vault") }
      let stores = try await cluster.add(1, to: "/vault", services: "sector")
      let gateway = try await cluster.addGateway(to: "/vault")
      let ann = try await cluster.addUser("/ann")
      try await cluster.withClient { client in
        try await client.write(Self.bytes, to: "/vault/file")
        #expect(try await client.stat("/vault/file").id.generation == 2)
        let before = (root: try await Self.sent(cluster, by: 0), own: try await Self.sent(cluster, by: gateway))
        try await Self.expect("/vault/file", client, has: Self.bytes)
        // Led on to the gateway, and opened there.
        #expect(try await Self.sent(cluster, by: gateway).plain - before.own.plain == Double(Self.bytes.count))
        #expect(try await Self.sent(cluster, by: 0).plain == before.root.plain)
        try await Self.useFiles(in: "/vault", client)
        // Nobody there can write down what is to be done: so it is done above.
        try await client.grant("/vault/work", to: "/ann", permission: 5, withKey: true)
        let (_, task) = try await client.revoke("/vault/work", from: "/ann")
        #expect(task?.kind == .rekey)
        try await eventually("the keys are drawn anew") {
          try await client.tasks(at: "/vault").allSatisfy { $0.state == .finished }
        }
        try await Self.expect("/vault/work/large", client, has: Self.bytes)
        let found = try await client.find(.contained, service: "filesystem", scope: "/vault").found
        #expect(found.processes.map(\.path) == [cluster.path(of: gateway)])
      }
      try await withClient(ann) { client in
        try await Self.expect("/vault/file", client, has: Self.bytes)
      }
      try await cluster.withClient { client in
        // Without it, those above serve the directory as before: clients pass over who can not be reached.
        await cluster.kill(gateway)
        _ = try await client.remove("/vault/nas\(gateway)")
        try await eventually("those above serve the directory") {
          (try? await client.readAll("/vault/file").bytes) == Self.bytes
        }
      }
      let marker = Data(Self.marker.utf8)
      for store in stores {
        let directory = cluster.directory(store)
        for name in try FileManager.default.subpathsOfDirectory(atPath: directory) {
          let data = FileManager.default.contents(atPath: "\(directory)/\(name)")
          #expect(data?.range(of: marker) == nil, "\(name)")
        }
      }
    }
  }

  @Test("is locked out when its credential is removed, and starts again by itself from where it was")
  func removed() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { client in _ = try await client.makeDirectory("/site") }
      try await cluster.add(1, to: "/site")
      let gateway = try await cluster.addGateway(to: "/site")
      let owner = try cluster.profile(Profile(contentsOf: cluster.profileDirectory), startingFrom: [gateway])
      try await withClient(owner) { client in _ = try await client.write([1], to: "/site/file") }
      await cluster.kill(gateway)
      try await cluster.start(gateway)
      try await withClient(owner) { client in
        try await Self.expect("/site/file", client, has: [1])
      }
      try await cluster.btrpc("process", "remove", cluster.path(of: gateway))
      // Within the lifetime of what others know of it.
      let deadline = ContinuousClock.now + .seconds(60)
      var isLockedOut = false
      while !isLockedOut, ContinuousClock.now < deadline {
        isLockedOut = try await withClient(owner) { client in
          // Whoever is led to another process gets an answer from that one.
          let explained = try? await client.stat("/site/file")
          return explained == nil
        }
        if !isLockedOut { try await Task.sleep(for: .seconds(1)) }
      }
      #expect(isLockedOut)
      try await cluster.withClient { client in
        try await Self.expect("/site/file", client, has: [1])
      }
    }
  }

  @Test("goes on while nobody above can be reached, also when it begins again meanwhile")
  func cutOff() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { client in _ = try await client.makeDirectory("/site") }
      try await cluster.add(1, to: "/site")
      let gateway = try await cluster.addGateway(to: "/site")
      var version: UInt64 = 0
      try await cluster.withClient { client in
        for name in ["/site/people", "/site/d"] { try await client.makeDirectory(name) }
        try await client.write(Self.bytes, to: "/site/d/file")
      }
      let ann = try await cluster.addUser("/site/people/ann")
      try await cluster.btrpc("chmod", "0777", "/site")
      try await cluster.btrpc("chown", "/site/people/ann", "/site/d")
      try await cluster.withClient { client in version = try await client.stat("/site").version }
      try await eventually("the gateway has copies of what lies above") {
        let file = try? AboveFile.read("\(cluster.directory(gateway))/above")
        return file?.copies.content != nil && file?.copies.records.first?.version.rawValue ?? 0 >= version
      }
      await cluster.kill(0)
      try await withClient(cluster.profile(ann, startingFrom: [gateway])) { client in
        for isAgain in [false, true] {
          if isAgain {
            await cluster.kill(gateway)
            try await cluster.start(gateway)
          }
          try await Self.expect("/site/d/file", client, has: Self.bytes)
          #expect(try await client.stat("/site").isStale)
          #expect(try await !client.stat("/site/d").isStale)
          try await client.write([1], to: "/site/d/new-\(isAgain)")
        }
        var impatient = client
        impatient.timeout = .seconds(5)
        let error = await #expect(throws: BlocktreeError.self) { try await impatient.makeDirectory("/site/other") }
        #expect(error?.reason?.rawValue == "PARENT_UNREACHABLE", "\(String(describing: error))")
        try await cluster.start(0)
        try await eventually("what is made directly in it works again") {
          (try? await impatient.makeDirectory("/site/other", makesParents: true)) != nil
        }
        try await Self.expect("/site/d/new-true", client, has: [1])
      }
    }
  }
}
