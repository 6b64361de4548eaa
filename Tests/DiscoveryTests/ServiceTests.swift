// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Discovery
import Filesystem
import Foundation
import GRPCCore
import Routes
import SwiftProtobuf
import Synchronization
import Testing
import Transport
import Trust

@Suite("The discovery service on real connections", .serialized)
struct ServiceTests {
  private func fill(_ tree: TestTree) async throws {
    try await tree.makeDirectory("/open")
    try await tree.add(.process, "/open/p1", [.relay])
    try await tree.makeDirectory("/closed", mode: 0o700)
    try await tree.makeDirectory("/closed/there")
    try await tree.add(.user, "/ann")
    try await tree.makeDirectory("/site/deep")
    try await tree.add(.process, "/site/deep/q", [.relay])
    try await tree.add(.user, "/site/deep/bob")
    try await tree.add(.user, "/site/carol")
  }

  /// What a call says when it fails.
  private func failure<Result: Sendable>(_ body: () async throws -> Result) async throws -> RPCError {
    do {
      let result = try await body()
      Issue.record("it was answered: \(result)")
      return RPCError(code: .unknown, message: "")
    } catch let error as RPCError {
      return error
    }
  }

  private func find(
    _ connection: NodeConnection, _ kind: Blocktree_V1_FindKind, _ scope: String, _ service: String = "relay"
  ) async throws -> Blocktree_V1_FindResponse {
    try await Blocktree_V1_DiscoveryService.Client(wrapping: connection.client).find(
      .with {
        $0.kind = kind
        $0.scope = scope
        $0.service = service
      })
  }

  private func readCredential(
    _ connection: NodeConnection, _ path: String
  ) async throws -> Blocktree_V1_ReadCredentialResponse {
    try await Blocktree_V1_DiscoveryService.Client(wrapping: connection.client).readCredential(
      .with { $0.path = path })
  }

  @Test("one process finds by way of another, and answers say where, what and for how long")
  func finds() async throws {
    try await TestServers.with { servers in
      try await self.fill(servers.tree)
      let search = try await servers.root.routes.find(.contained, .relay, TestTree.path("/site/deep"))
      guard case .found(let found) = search.outcome else {
        Issue.record("\(search.outcome): \(search.explanation.map(\.description))")
        return
      }
      #expect(found.processes.map(\.path) == [TestTree.path("/site/deep/q")])
      #expect(found.processes.map(\.services) == [[.relay]])
      #expect(found.lifetime > .seconds(20) && found.lifetime <= .seconds(30))
      let up = try await servers.site.routes.find(.nearest, .relay, TestTree.path("/open/x"))
      guard case .found(let above) = up.outcome else {
        Issue.record("\(up.outcome): \(up.explanation.map(\.description))")
        return
      }
      #expect(above.processes.map(\.path) == [TestTree.path("/open/p1")])
      // The digest of the file, by which others know whether they have it.
      let bytes = try #require(servers.tree.files.withLock { $0[TestTree.path("/open/p1")]?.bytes })
      let answer = try await servers.call(servers.root, as: "/ann") { try await self.find($0, .contained, "/open") }
      #expect(answer.found.processes.map(\.credentialDigest) == [Data(Digest32(sha256: bytes).bytes)])
      #expect(answer.found.lifetimeMs == 30_000)
    }
  }

  @Test("malformed requests are refused by field, and nothing that is hidden differs from nothing, bit for bit")
  func refusals() async throws {
    try await TestServers.with { servers in
      try await self.fill(servers.tree)
      try await servers.call(servers.root, as: nil) { connection in
        let malformed = [
          (Blocktree_V1_FindKind.unspecified, "/open", "relay", "INVALID_REQUEST"),
          (.UNRECOGNIZED(7), "/open", "relay", "INVALID_REQUEST"),
          (.contained, "open", "relay", "INVALID_PATH"), (.contained, "/open/../closed", "relay", "INVALID_PATH"),
          (.contained, "", "relay", "INVALID_PATH"), (.contained, "/open", "Relay!", "INVALID_REQUEST"),
        ]
        for (kind, scope, service, reason) in malformed {
          let error = try await self.failure { try await self.find(connection, kind, scope, service) }
          #expect(error.code == .invalidArgument)
          #expect(StatusDetails(error).reason == reason)
        }
        let there = try await self.failure { try await self.find(connection, .contained, "/closed/there") }
        let nothing = try await self.failure { try await self.find(connection, .contained, "/closed/nothing") }
        #expect(there.code == .permissionDenied)
        #expect(there.message == nothing.message && there.code == nothing.code)
        func details(_ error: RPCError) -> [String] {
          error.metadata.filter { $0.key.hasPrefix("grpc-status") }.map { "\($0.key)=\($0.value)" }.sorted()
        }
        #expect(!details(there).isEmpty)
        #expect(details(there) == details(nothing))
        let credential = try await self.failure { try await self.readCredential(connection, "/owner") }
        #expect(StatusDetails(credential).reason == "PERMISSION_DENIED")
      }
    }
  }

  @Test("a caller from elsewhere is confirmed by the cluster that stores its credential, and so are those in between")
  func guests() async throws {
    try await TestServers.with { servers in
      try await self.fill(servers.tree)
      for name in ["/site/deep/q", "/site/deep/bob"] {
        let answer = try await servers.call(servers.root, as: name) { try await self.readCredential($0, "/owner") }
        #expect(!answer.credential.credential.isEmpty)
      }
      for name in ["/ann", "/site/carol", "/site/old/eve", "/node1"] {
        let answer = try await servers.call(servers.site, as: name) {
          try await self.readCredential($0, "/site/deep/q")
        }
        #expect(!answer.credential.credential.isEmpty)
      }
      // Who calls again is known.
      let credential = try servers.tree.credential(
        #require(servers.tree.files.withLock { $0[TestTree.path("/ann")] }))
      #expect(await servers.site.lookup.confirm(credential) == .confirmed)
      #expect(!servers.site.lookup.hasLapsed(credential))
    }
  }

  @Test("whoever is in no tree is refused, though the chain verifies")
  func strangers() async throws {
    try await TestServers.with { servers in
      try await self.fill(servers.tree)
      for text in ["/stranger", "/site/deep/stranger", "/site/stranger"] {
        let (keys, path) = (PrincipalKeys(), TestTree.path(text))
        let file = try TestTree.issue(.user, text, keys, [], by: servers.tree.authority)
        servers.tree.files.withLock { $0[path] = file }
        servers.tree.keys.withLock { $0[path] = keys }
        for server in [servers.root, servers.site] {
          let error = try await self.failure {
            try await servers.call(server, as: text) { try await self.find($0, .contained, "/open") }
          }
          #expect(StatusDetails(error).reason == "PERMISSION_DENIED", "\(text): \(error)")
        }
      }
      // Another's place, with a key of its own.
      let (keys, path) = (PrincipalKeys(), TestTree.path("/site/deep/bob"))
      servers.tree.files.withLock { $0[path] = nil }
      let file = try TestTree.issue(.user, "/site/deep/bob", keys, [], by: servers.tree.authority)
      servers.tree.files.withLock { $0[path] = file }
      servers.tree.keys.withLock { $0[path] = keys }
      let error = try await self.failure {
        try await servers.call(servers.root, as: "/site/deep/bob") { try await self.find($0, .contained, "/open") }
      }
      #expect(StatusDetails(error).reason == "PERMISSION_DENIED")
    }
  }

  @Test("who can not be confirmed since nobody can be asked is told to come back, which is no refusal")
  func unreachable() async throws {
    try await TestServers.with { servers in
      try await self.fill(servers.tree)
      servers.site.stop()
      let error = try await self.failure {
        try await servers.call(servers.root, as: "/site/deep/bob") { try await self.find($0, .contained, "/open") }
      }
      #expect(error.code == .unavailable)
      #expect(StatusDetails(error).reason == "PARENT_UNREACHABLE")
      // Everybody else goes on.
      let answer = try await servers.call(servers.root, as: "/ann") { try await self.find($0, .contained, "/open") }
      #expect(answer.found.processes.count == 1)
    }
  }

  @Test("a connection is closed when its caller's credential is removed elsewhere, and a new one gets nothing")
  func revocation() async throws {
    var limits = ConfirmationLimits()
    limits.lifetime = 400_000_000
    limits.negativeLifetime = 50_000_000
    try await TestServers.with(limits) { servers in
      try await self.fill(servers.tree)
      let (root, tree) = (servers.root, servers.tree)
      /// Looks once, as the watch of a process does.
      func look() -> Int {
        root.transport.connections.closeConnections { identity in
          identity.caller.credential.map { root.rule.isRevoked($0, at: Date()) } ?? false
        }
      }
      try await servers.call(root, as: "/site/deep/bob") { bob in
        try await servers.call(root, as: "/site/deep/q") { other in
          for connection in [bob, other] { _ = try await self.find(connection, .contained, "/open") }
          // For several lifetimes, without a call.
          let end = ContinuousClock.now + .seconds(2)
          while ContinuousClock.now < end {
            #expect(look() == 0)
            try await Task.sleep(for: .milliseconds(20))
          }
          _ = try await tree.site.filesystem.remove(
            TestTree.path("/site/deep/bob"), expecting: .any, Request(caller: .principal(TestTree.owner)))
          let deadline = ContinuousClock.now + .seconds(60)
          while look() == 0 {
            try #require(ContinuousClock.now < deadline, "The connection was not closed.")
            try await Task.sleep(for: .milliseconds(20))
          }
          // The other one goes on.
          _ = try await self.find(other, .contained, "/open")
        }
      }
      let error = try await self.failure {
        try await servers.call(root, as: "/site/deep/bob") { try await self.find($0, .contained, "/open") }
      }
      #expect(StatusDetails(error).reason == "PERMISSION_DENIED")
    }
  }

  @Test("routes are listed for who looks after the process, and for nobody else")
  func routes() async throws {
    try await TestServers.with { servers in
      try await self.fill(servers.tree)
      _ = try await servers.root.routes.find(.contained, .relay, TestTree.path("/site/deep"))
      func list(_ connection: NodeConnection, _ count: UInt32) async throws -> Blocktree_V1_ListRoutesResponse {
        try await Blocktree_V1_DiscoveryService.Client(wrapping: connection.client).listRoutes(
          .with { $0.count = count })
      }
      let answer = try await servers.call(servers.root, as: "/owner") { try await list($0, 0) }
      let route = try #require(answer.routes.first { $0.scope == "/site/deep" && $0.service == "relay" })
      #expect(route.processes.map(\.path) == ["/site/deep/q"])
      #expect(route.lifetimeMs > 0 && route.lifetimeMs <= 30_000)
      #expect(answer.total >= UInt64(answer.routes.count))
      #expect(try await servers.call(servers.root, as: "/owner") { try await list($0, 1) }.routes.count == 1)
      for (caller, count, reason) in [
        ("/ann" as String?, UInt32(0), "PERMISSION_DENIED"), (nil, 0, "PERMISSION_DENIED"),
        ("/owner", 1_001, "INVALID_REQUEST"),
      ] {
        let error = try await self.failure {
          try await servers.call(servers.root, as: caller) { try await list($0, count) }
        }
        #expect(StatusDetails(error).reason == reason)
      }
    }
  }
}
