// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import DNSFixture
import Foundation
import Synchronization
import Testing
import Trust

@Suite(
  "A client that reaches nobody",
  .enabled(if: DNSServer.program != nil, "It needs dnsmasq, from the package dnsmasq-base."))
struct BootstrapTests {
  /// A DNS server that names these members, in this order.
  private func dns(_ members: [TestCluster.Member]) async throws -> DNSServer {
    try await DNSServer(
      ["--host-record=here.example.test,127.0.0.1"]
        + members.enumerated().map { index, member in
          "--srv-host=_blocktree._tcp.example.test,here.example.test,\(member.address.port),\(index),0"
        })
  }

  private func configuration(_ dns: DNSServer) -> ClientConfiguration {
    // No patience at all with processes that can not be reached.
    ClientConfiguration(
      connectionPatience: .zero, reconnectionPatience: .zero, dnsServers: ["127.0.0.1:\(dns.port)"])
  }

  /// The profile of a person with processes to start from, perhaps none, and a name in DNS.
  private func withClient(
    of domain: TestDomain, knowing processes: [Profile.Process] = [], _ dns: DNSServer,
    name: String = "example.test", _ body: (Client) async throws -> Void
  ) async throws {
    let keys = PrincipalKeys()
    let file = try domain.credential(.user, "/ann", keys: keys)
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try Profile.create(
        at: place, root: domain.authority.root, credential: file.chain, keys: keys, path: TreePath(parsing: "/ann"),
        processes: processes)
      try Profile.setDNS(name, in: place)
      try await BlocktreeClient.withClient(
        Profile(contentsOf: place), configuration: self.configuration(dns), body)
    }
  }

  @Test("finds processes by DNS where the profile names none")
  func withoutStartingPoints() async throws {
    try await TestCluster.run { cluster in
      // The first that it finds does not lead.
      cluster.state.withLock { $0.leader = 2 }
      let dns = try await self.dns(cluster.members)
      try await self.withClient(of: cluster.domain, dns) { client in
        let info = try await client.makeDirectory("/a")
        #expect(cluster.state.withLock { $0.files["/a"]?.inode } == info.id.inode)
      }
    }
  }

  @Test("finds processes by DNS where those of the profile are gone, for all calls at the time")
  func unreachable() async throws {
    try await TestCluster.run { cluster in
      let dns = try await self.dns(cluster.members)
      let gone = Profile.Process(path: "/node9", addresses: ["127.0.0.1:\(try DatagramSocket().port)"])
      try await self.withClient(of: cluster.domain, knowing: [gone], dns) { client in
        try await withThrowingTaskGroup(of: Void.self) { group in
          for index in 0..<20 { group.addTask { try await client.makeDirectory("/\(index)") } }
          try await group.waitForAll()
        }
        #expect(cluster.state.withLock { $0.files.count } == 20)
      }
    }
  }

  @Test("finds processes by DNS for sessions, too", arguments: [true, false])
  func session(knows: Bool) async throws {
    try await TestCluster.run(2) { cluster in
      let dns = try await self.dns(cluster.members)
      let gone = Profile.Process(path: "/node9", addresses: ["127.0.0.1:\(try DatagramSocket().port)"])
      try await self.withClient(of: cluster.domain, knowing: knows ? [gone] : [], dns) { client in
        try await client.withFileSession { session in _ = try await session.makeDirectory("/a") }
        #expect(cluster.state.withLock { $0.files["/a"] } != nil)
      }
      try await self.withClient(of: cluster.domain, dns, name: "nowhere.example.test") { client in
        let error = await #expect(throws: BlocktreeError.self) {
          try await client.withFileSession { session in _ = try await session.makeDirectory("/b") }
        }
        #expect(error?.code == .unavailable)
      }
    }
  }

  @Test("finds the root's processes for sessions that are about a delegated directory, too")
  func delegatedSession() async throws {
    try await TestCluster.run(1) { cluster in
      let dns = try await self.dns(cluster.members)
      let gone = Profile.Process(path: "/site-b/nas1", addresses: ["127.0.0.1:\(try DatagramSocket().port)"])
      try await self.withClient(of: cluster.domain, knowing: [gone], dns) { client in
        try await client.withFileSession { session in _ = try await session.makeDirectory("/site-b/a") }
        #expect(cluster.state.withLock { $0.files["/site-b/a"] } != nil)
      }
    }
  }

  @Test("does not ask DNS while somebody can be reached")
  func reachable() async throws {
    try await TestCluster.run(1) { cluster in
      // Nobody is there who could answer.
      let silent = try await self.dns([])
      let member = Profile.Process(path: "/node1", addresses: ["\(cluster.members[0].address)"])
      try await self.withClient(of: cluster.domain, knowing: [member], silent, name: "nowhere.example.test") { client in
        try await client.makeDirectory("/a")
      }
    }
  }

  @Test("finds the root's processes where those of a delegated directory are gone")
  func delegated() async throws {
    try await TestCluster.run(1) { cluster in
      let dns = try await self.dns(cluster.members)
      let gone = Profile.Process(path: "/site-b/nas1", addresses: ["127.0.0.1:\(try DatagramSocket().port)"])
      try await self.withClient(of: cluster.domain, knowing: [gone], dns) { client in
        try await client.makeDirectory("/site-b/a")
        try await client.makeDirectory("/c")
        #expect(cluster.state.withLock { Set($0.files.keys) } == ["/site-b/a", "/c"])
      }
    }
  }

  @Test("refuses a process of another domain that DNS names, and goes on to the next")
  func impostor() async throws {
    try await TestCluster.run(1) { impostors in
      try await TestCluster.run(1) { cluster in
        let dns = try await self.dns(impostors.members + cluster.members)
        try await self.withClient(of: cluster.domain, dns) { client in
          try await client.makeDirectory("/a")
        }
        #expect(cluster.state.withLock { $0.files["/a"] } != nil)
        #expect(impostors.state.withLock { $0.askedPaths }.isEmpty)
      }
    }
  }

  @Test("does nothing where DNS names processes of another domain only")
  func impostorsOnly() async throws {
    try await TestCluster.run(2) { impostors in
      let dns = try await self.dns(impostors.members)
      try await self.withClient(of: try TestDomain(), dns) { client in
        let error = await #expect(throws: BlocktreeError.self) { try await client.makeDirectory("/a") }
        #expect([.peerNotTrusted, .credentialRefused, .peerUnreachable].contains(error?.reason))
        #expect(impostors.state.withLock { $0.askedPaths }.isEmpty)
      }
    }
  }

  @Test("passes over processes of other directories, which may answer for less than the root's")
  func otherDirectory() async throws {
    let domain = try TestDomain()
    try await TestCluster.run(1, in: "/site-b", of: domain) { others in
      try await TestCluster.run(1, of: domain) { cluster in
        let dns = try await self.dns(others.members + cluster.members)
        try await self.withClient(of: domain, dns) { client in try await client.makeDirectory("/a") }
        #expect(cluster.state.withLock { $0.files["/a"] } != nil)
        #expect(others.state.withLock { $0.askedPaths }.isEmpty)
      }
    }
  }

  @Test("gives up where DNS names processes of other directories only", arguments: [false, true])
  func otherDirectoryOnly(inSession: Bool) async throws {
    let domain = try TestDomain()
    try await TestCluster.run(1, in: "/site-b", of: domain) { others in
      let dns = try await self.dns(others.members)
      try await self.withClient(of: domain, dns) { client in
        let error = await #expect(throws: BlocktreeError.self) {
          if inSession {
            try await client.withFileSession { session in _ = try await session.makeDirectory("/a") }
          } else {
            try await client.makeDirectory("/a")
          }
        }
        // Not that time ran out.
        #expect(error?.code == .unavailable && error?.reason == .peerUnreachable, "\(String(describing: error))")
      }
      #expect(others.state.withLock { $0.askedPaths }.isEmpty)
    }
  }

  @Test("says what DNS says when that knows nobody, either")
  func unknown() async throws {
    let dns = try await self.dns([])
    try await self.withClient(of: try TestDomain(), dns, name: "nowhere.example.test") { client in
      let error = await #expect(throws: BlocktreeError.self) { try await client.makeDirectory("/a") }
      #expect(error?.code == .unavailable)
      #expect(error?.message.contains("nowhere.example.test") == true, "\(String(describing: error))")
    }
  }

  @Test("refuses servers that are none")
  func servers() async throws {
    try await withDirectory { directory in
      try TestDomain().makeProfile(at: "\(directory)/profile")
      try Profile.setDNS("example.test", in: "\(directory)/profile")
      let profile = try Profile(contentsOf: "\(directory)/profile")
      let error = #expect(throws: BlocktreeError.self) {
        try Client(profile, configuration: ClientConfiguration(dnsServers: ["localhost"]))
      }
      #expect(error?.code == .invalidArgument)
    }
  }
}

@Suite("A profile's name in DNS")
struct ProfileNameTests {
  @Test("is kept by everything else that changes the profile, until it is taken out")
  func kept() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try TestDomain().makeProfile(at: place)
      #expect(try Profile(contentsOf: place).dns == nil)
      try Profile.setDNS("Example.TEST.", in: place)
      #expect(try Profile(contentsOf: place).dns == "example.test")
      try Profile.add(.init(path: "/node2", addresses: ["127.0.0.1:7002"]), in: place)
      let profile = try Profile(contentsOf: place)
      #expect(profile.dns == "example.test")
      #expect(profile.anonymous.dns == "example.test")
      #expect(try profile.starting(from: ["127.0.0.1:1"]).dns == "example.test")
      #expect(try profile.finding(by: "example.invalid").dns == "example.invalid")
      #expect(profile.startingPoints.count == 3)
      try Profile.setDNS(nil, in: place)
      #expect(try Profile(contentsOf: place).dns == nil)
      #expect(try Profile(contentsOf: place).startingPoints.count == 3)
    }
  }

  @Test("is one that DNS could know")
  func malformed() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try TestDomain().makeProfile(at: place)
      let before = try String(contentsOfFile: "\(place)/profile.json", encoding: .utf8)
      for name in ["", "a..b", "a b", "[::1]:53", String(repeating: "a", count: 300)] {
        #expect(throws: ProfileError.self) { try Profile.setDNS(name, in: place) }
        #expect(throws: ProfileError.self) { try Profile(contentsOf: place).finding(by: name) }
      }
      #expect(try String(contentsOfFile: "\(place)/profile.json", encoding: .utf8) == before)
    }
  }
}
