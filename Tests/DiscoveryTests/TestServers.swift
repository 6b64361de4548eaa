// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Discovery
import Foundation
import GRPCCore
import Logging
import NIOCore
import NIOPosix
import Routes
import Sectors
import Synchronization
import Transport
import Trust

/// The discovery services of both clusters on real sockets, asking each other over real connections, and confirming
/// callers from elsewhere.
struct TestServers: Sendable {
  let tree: TestTree
  let root: RunningServer
  let site: RunningServer

  /// - Parameter limits: of what is remembered of callers from elsewhere.
  static func with(
    _ limits: ConfirmationLimits = .init(), _ body: (TestServers) async throws -> Void
  ) async throws {
    try await TestTree.with { tree in
      let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
      let result: Result<Void, any Error>
      do {
        let root = try RunningServer(tree, tree.root, at: tree.rootAddress, above: nil, limits, eventLoops)
        let site = try RunningServer(
          tree, tree.site, at: tree.siteAddress,
          above: Redirect(
            directory: .root,
            processes: [RouteProcess(path: tree.root.process.path, addresses: [tree.rootAddress])],
            lifetime: .seconds(30)), limits, eventLoops)
        try await root.running {
          try await site.running { try await body(TestServers(tree: tree, root: root, site: site)) }
        }
        result = .success(())
      } catch {
        result = .failure(error)
      }
      try await eventLoops.shutdownGracefully()
      try result.get()
    }
  }

  /// Calls a server as somebody; nil: without a certificate.
  func call<Result: Sendable>(
    _ server: RunningServer, as path: String?, _ body: (NodeConnection) async throws -> Result
  ) async throws -> Result {
    let identity = try path.map { try self.tree.identity($0) }
    let security = try TransportSecurity(root: self.tree.authority.root, identity: identity)
    return try await Dialer(security, group: MultiThreadedEventLoopGroup.singleton)
      .withConnection(to: server.address, body)
  }
}

/// One process that serves.
final class RunningServer: Sendable {
  let address: NetworkAddress
  let routes: NodeRoutes
  let lookup: CredentialLookup
  let rule: RevocationRule
  let transport: NodeServerTransport
  private let pool: ConnectionPool
  private let server: GRPCServer<NodeServerTransport>

  init(
    _ tree: TestTree, _ side: TestTree.Side, at address: NetworkAddress, above: Redirect?,
    _ limits: ConfirmationLimits, _ eventLoops: MultiThreadedEventLoopGroup
  ) throws {
    self.address = address
    let identity = try tree.identity(side.process.path.description)
    let security = try TransportSecurity(root: tree.authority.root, identity: identity)
    self.pool = ConnectionPool(Dialer(security, group: eventLoops.next()))
    let now: @Sendable () -> Int64 = { Int64(ProcessInfo.processInfo.systemUptime * 1e9) }
    self.routes = NodeRoutes(
      cluster: GroupAnswers(side.group), caller: DiscoveryCalls(self.pool), above: { above },
      now: { RouteTime(nanoseconds: now()) })
    self.lookup = CredentialLookup(
      source: self.routes, guests: side.group.guests, verifier: side.group.verifier, limits: limits, now: now,
      date: { Date() })
    self.rule = RevocationRule(principals: side.group, lookup: self.lookup)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    self.transport = try NodeServerTransport(
      security: security, listeningOn: [ListenAddress(host: address.host, port: address.port)],
      group: eventLoops, logger: logger)
    let answers = DiscoveryAnswers(cluster: GroupAnswers(side.group), filesystem: side.filesystem, routes: self.routes)
    self.server = GRPCServer(
      transport: self.transport, services: [DiscoveryServiceHandler(answers, routes: self.routes)],
      interceptors: [GuestInterceptor(principals: side.group, lookup: self.lookup)])
  }

  func running(_ body: () async throws -> Void) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { await self.pool.run() }
      group.addTask { await self.routes.run() }
      group.addTask { await self.lookup.run() }
      group.addTask { try await self.server.serve() }
      defer { group.cancelAll() }
      _ = try await self.transport.listeningAddresses
      try await body()
    }
  }

  /// Takes no more calls, and closes what is open.
  func stop() {
    self.server.beginGracefulShutdown()
    self.transport.connections.closeConnections { _ in true }
  }
}

extension TestTree {
  func identity(_ text: String) throws -> TransportSecurity.Identity {
    let path = TestTree.path(text)
    guard let file = self.files.withLock({ $0[path] }), let keys = self.keys.withLock({ $0[path] }) else {
      throw UnreachableProcess(path: path, reason: "not in this test")
    }
    return TransportSecurity.Identity(chain: file.chain, key: keys.signing)
  }
}
