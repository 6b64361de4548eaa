// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import GRPCCore
import NIOPosix
import Testing
import Transport
import Trust

@testable import Node

@Suite("A tree of four clusters", .timeLimit(.minutes(5)))
struct TourTests {
  /// Where each of them serves, from the root's on.
  private static let places = ["", "/site-a", "/site-b", "/site-b/lab"]

  private static func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

  @Test(
    "is one tree for all who use it, whichever one process of each is killed, and whichever one cluster is gone",
    .enabled("Network namespaces can be made here.") { await NamespaceSupport.isPresent })
  func tour() async throws {
    var random = SeededGenerator(for: "tour of four clusters")
    try await TestCluster.with(3, on: .namespaces, spare: 9) { cluster in
      for site in Self.places.dropFirst() {
        try await cluster.withClient { _ = try await $0.makeDirectory(site) }
        try await cluster.add(3, to: site)
      }
      try await Self.look(around: cluster)

      // One process of each is killed at once, under load in each.
      let loads = Self.places.map { place in
        Workload(cluster, seed: random.next(), in: place + "/histories", clientCount: 2)
      }
      for load in loads { try await load.prepare() }
      let victims = ([cluster.members] + Self.places.dropFirst().map(cluster.site)).map { group in
        group[Int.random(in: group.indices, using: &random)]
      }
      try await Self.run(loads[...]) {
        for load in loads { try await load.progress(by: 10) }
        await withTaskGroup(of: Void.self) { group in
          for victim in victims { group.addTask { await cluster.kill(victim) } }
        }
        for load in loads { try await load.progress(by: 20) }
      }
      for victim in victims { try await cluster.start(victim) }
      for load in loads {
        try await load.verify()
        #expect(load.recorder.failures == [], "\(load.directory)")
      }

      try await Self.lose("/site-b", of: cluster)
      // One that leads, which hears nothing from above any more.
      try await Self.revoke(try await cluster.leader(of: "/site-a"), of: cluster)
    }
  }

  /// Runs several loads while `body` runs.
  private static func run(_ loads: ArraySlice<Workload>, _ body: () async throws -> Void) async throws {
    guard let first = loads.first else { return try await body() }
    try await first.run { _ in try await Self.run(loads.dropFirst(), body) }
  }

  // MARK: Looking around

  private static func look(around cluster: TestCluster) async throws {
    try await cluster.withClient { client in
      for (index, place) in Self.places.enumerated() {
        let info = try await client.write(Self.bytes(place + "/plan\n"), to: place + "/plan.txt")
        #expect(info.id.generation == UInt64(index + 1))
        try await client.makeDirectory(place + "/papers/old", makesParents: true)
        try await client.rename(place + "/plan.txt", to: place + "/renamed.txt")
        #expect(try await client.readAll(place + "/renamed.txt").bytes == Self.bytes(place + "/plan\n"))
        try await client.write(Self.bytes(place + "/plan\n"), to: place + "/papers/plan.txt")
        #expect(try await client.readAll(place + "/papers/plan.txt").bytes == Self.bytes(place + "/plan\n"))
        try await client.write([1], to: place + "/papers/old/draft")
        try await client.remove(place + "/papers/old/draft")
        #expect(try await !client.exists(place + "/papers/old/draft"))
        let names = try await client.listPage(place + "/papers").entries.map(\.name).sorted()
        #expect(names == ["old", "plan.txt"])
      }
      for (index, place) in Self.places.enumerated() where index > 0 {
        #expect(try await client.stat(place).servedByGeneration == UInt64(index + 1))
        let found = try await client.find(.contained, service: "sector", scope: place).found
        #expect(found.processes.count == 3 && found.directory == place)
        let nearest = try await client.find(.nearest, service: "filesystem", scope: place + "/papers/old").found
        #expect(nearest.directory == place)
      }
      let routes = try await client.knownRoutes().routes
      #expect(routes.isEmpty || routes.allSatisfy { !$0.processes.isEmpty })
    }
    // As one does it at a terminal.
    #expect(try await cluster.btrpc("cat", "/site-b/lab/papers/plan.txt") == ["/site-b/lab/plan"])
    try await cluster.btrpc("mv", "/site-a/papers/plan.txt", "/site-b/lab/papers/moved.txt")
    #expect(try await cluster.btrpc("cat", "/site-b/lab/papers/moved.txt") == ["/site-a/plan"])
    try await cluster.btrpc("mv", "/site-b/lab/papers/moved.txt", "/site-a/papers/plan.txt")
    #expect(try await cluster.btrpc("ls", "/").contains { $0.contains("site-b") })
  }

  // MARK: Losing a cluster

  private static func lose(_ site: String, of cluster: TestCluster) async throws {
    let members = cluster.site(site)
    for member in members { await cluster.kill(member) }
    try await cluster.withClient { client in
      #expect(try await client.listPage("/").entries.contains { "/" + $0.name == site })
      #expect(try await client.stat(site).type == .directory)
      for place in Self.places where place != site {
        // What lies deeper has processes of its own, which go on. Who comes from outside is told of them by those above.
        if place.hasPrefix(site) { continue }
        #expect(try await client.readAll(place + "/papers/plan.txt").bytes == Self.bytes(place + "/plan\n"))
        try await client.write([2], to: place + "/papers/meanwhile")
      }
      var impatient = client
      impatient.timeout = .seconds(5)
      let error = await #expect(throws: BlocktreeError.self) { try await impatient.readAll(site + "/papers/plan.txt") }
      #expect(error?.reason == .peerUnreachable, "\(String(describing: error))")
      #expect(error.map { "\($0)" }?.contains(site) == true, "\(String(describing: error))")
    }
    // Those who know where the deeper cluster is still use it.
    try await withClient(cluster.profile(cluster.profile, startingFrom: cluster.site(site + "/lab"))) { client in
      let deeper = site + "/lab"
      let bytes = try await client.readAll(deeper + "/papers/plan.txt").bytes
      #expect(bytes == Self.bytes(deeper + "/plan\n"))
    }
    for member in members { try await cluster.start(member) }
    try await cluster.withClient { client in
      #expect(try await client.readAll(site + "/papers/plan.txt").bytes == Self.bytes(site + "/plan\n"))
      try await client.write([3], to: site + "/papers/afterwards")
    }
  }

  // MARK: Revoking a process

  /// Removes the credential of a process that goes on running, and expects it to be locked out: by its own cluster, and by
  /// others.
  private static func revoke(_ revoked: Int, of cluster: TestCluster) async throws {
    let identity = try NodeDirectory(cluster.directory(revoked)).identity(at: Date())
    let security = try TransportSecurity(
      root: identity.root, identity: .init(chain: identity.credential.chain, key: identity.keys.signing))
    let dialer = Dialer(security, group: .singletonMultiThreadedEventLoopGroup)
    let path = cluster.path(of: revoked)
    // Each with a connection of its own to one process of its cluster, of the root's, and of another one's.
    let sibling = try #require(cluster.site("/site-a").first { $0 != revoked })
    let others = [sibling, cluster.members[0], cluster.site("/site-b")[0]]
    try await withThrowingTaskGroup(of: Void.self) { group in
      let (opened, open) = AsyncStream.makeStream(of: Void.self)
      for other in others {
        let (address, expected) = (try cluster.networkAddress(of: other), cluster.path(of: other))
        group.addTask {
          let connection = try await dialer.dial(address, expecting: try TreePath(parsing: expected))
          try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { await connection.run() }
            try await Self.ask(connection)
            open.yield()
            // Ends when the other side closes it.
            try await tasks.waitForAll()
          }
          // And there is no new one, or nothing to be done over it.
          await #expect(throws: (any Error).self, "\(expected)") {
            try await dialer.withConnection(to: address, expecting: try TreePath(parsing: expected)) {
              try await Self.ask($0)
            }
          }
        }
      }
      var count = 0
      for await _ in opened {
        count += 1
        if count == others.count { break }
      }
      try await cluster.btrpc("process", "remove", path)
      cluster.forget(revoked)
      try await group.waitForAll()
    }
    try await cluster.settle("/site-a")
    try await cluster.withClient { client in
      try await eventually("nobody finds its services") {
        let found = try await client.find(.contained, service: nil, scope: "/site-a", refresh: true).found
        return !found.processes.contains { $0.path == path }
      }
      #expect(try await client.readAll("/site-a/papers/plan.txt").bytes == Self.bytes("/site-a/plan\n"))
    }
  }

  private static func ask(_ connection: NodeConnection) async throws {
    var options = CallOptions.defaults
    options.timeout = .seconds(10)
    _ = try await Blocktree_V1_SectorService.Client(wrapping: connection.client).status(.init(), options: options)
  }
}
