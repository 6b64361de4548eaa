// SPDX-License-Identifier: Apache-2.0

import GRPCCore
import NIOCore
import NIOPosix
import Testing
import Trust

@testable import Transport

@Suite("A client", .timeLimit(.minutes(5)))
struct ClientTests {
  let domain: TestDomain

  init() throws {
    self.domain = try TestDomain()
  }

  func security(_ identity: TransportSecurity.Identity?) throws -> TransportSecurity {
    try TransportSecurity(root: self.domain.root, identity: identity)
  }

  @Test("refuses a server of another domain")
  func foreignServer() async throws {
    let foreign = try TestDomain()
    let security = try TransportSecurity(root: foreign.root, identity: foreign.identity(.process, "/node1"))
    try await withServer(security) { server in
      let error = await #expect(throws: TransportError.self) {
        try await dialer(self.security(nil)).dial(server.address)
      }
      guard case .untrustedPeer? = error else { return #expect(Bool(false), "\(String(describing: error))") }
    }
  }

  @Test("refuses a process at another path than it expected")
  func unexpectedServer() async throws {
    try await withServer(self.security(self.domain.identity(.process, "/node1"))) { server in
      let dialer = dialer(try self.security(nil))
      let error = await #expect(throws: TransportError.self) {
        try await dialer.dial(server.address, expecting: TreePath(parsing: "/node2"))
      }
      guard case .unexpectedPeer? = error else { return #expect(Bool(false), "\(String(describing: error))") }
      try await dialer.withConnection(to: server.address, expecting: TreePath(parsing: "/node1")) {
        expectEqual(try await $0.text(TestMethod.caller), "anonymous")
      }
    }
  }

  @Test("refuses a server with the certificate of a user")
  func userAsServer() async throws {
    try await withServer(self.security(self.domain.identity(.user, "/users/eve"))) { server in
      await #expect(throws: TransportError.self) { try await dialer(self.security(nil)).dial(server.address) }
      // Not even when that path was asked for.
      await #expect(throws: TransportError.self) {
        try await dialer(self.security(nil)).dial(server.address, expecting: TreePath(parsing: "/users/eve"))
      }
    }
  }

  @Test("says that nobody listens")
  func nobody() async throws {
    let port = try DeafPort()
    let error = await #expect(throws: TransportError.self) {
      try await dialer(self.security(nil)).dial(port.address)
    }
    guard case .unreachable? = error else { return #expect(Bool(false), "\(String(describing: error))") }
  }

  @Test("gives up on a server that never answers the handshake")
  func silentServer() async throws {
    let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .bind(host: "127.0.0.1", port: 0).get()
    let port = try #require(listener.localAddress?.port)
    var limits = TransportLimits()
    limits.handshakeTimeout = .milliseconds(200)
    let dialer = dialer(try self.security(nil), limits: limits)
    let error = await #expect(throws: TransportError.self) {
      try await dialer.dial(NetworkAddress(host: "127.0.0.1", port: UInt16(port)))
    }
    guard case .handshakeTimedOut? = error else { return #expect(Bool(false), "\(String(describing: error))") }
    try await listener.close()
  }
}

@Suite("A connection pool", .timeLimit(.minutes(5)))
struct PoolTests {
  let domain: TestDomain
  let security: TransportSecurity

  init() throws {
    self.domain = try TestDomain()
    self.security = try TransportSecurity(root: self.domain.root, identity: self.domain.identity(.process, "/node1"))
  }

  func withPool(
    limits: TransportLimits = TransportLimits(), _ body: (ConnectionPool) async throws -> Void
  ) async throws {
    let security = try TransportSecurity(root: self.domain.root, identity: self.domain.identity(.user, "/users/ada"))
    let pool = ConnectionPool(dialer(security, limits: limits))
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { await pool.run() }
      try await body(pool)
      group.cancelAll()
    }
    #expect(pool.connections.isEmpty)
  }

  @Test("opens one connection for all who ask at once, and hands it out again")
  func sharing() async throws {
    try await withServer(self.security) { server in
      try await self.withPool { pool in
        let ids = try await withThrowingTaskGroup(of: ObjectIdentifier.self) { group in
          for _ in 0..<20 { group.addTask { ObjectIdentifier(try await pool.connection(to: server.address)) } }
          return try await group.reduce(into: Set()) { $0.insert($1) }
        }
        #expect(ids.count == 1)
        let connection = try await pool.connection(to: server.address)
        #expect(ids == [ObjectIdentifier(connection)])
        expectEqual(try await connection.text(TestMethod.caller), "user /users/ada")
        #expect(server.connections.counts.open == 1)
      }
    }
  }

  @Test("replaces a connection that has closed")
  func reconnecting() async throws {
    try await withServer(self.security) { server in
      try await self.withPool { pool in
        let first = try await pool.connection(to: server.address)
        expectEqual(try await first.text(TestMethod.caller), "user /users/ada")
        server.connections.closeConnections { _ in true }
        try await eventually { !first.isUsable }
        let second = try await pool.connection(to: server.address)
        #expect(second !== first)
        expectEqual(try await second.text(TestMethod.caller), "user /users/ada")
        #expect(pool.closeConnections { $0.peer.path == second.peer.path } >= 1)
        try await eventually { pool.connections.isEmpty }
      }
    }
  }

  @Test("leaves a peer alone for a while that it could not reach, and says how long")
  func backoff() async throws {
    var limits = TransportLimits()
    limits.initialBackoff = .seconds(3600)
    limits.maxBackoff = .seconds(3600)
    let port = try DeafPort()
    try await self.withPool(limits: limits) { pool in
      let first = await #expect(throws: TransportError.self) { try await pool.connection(to: port.address) }
      guard case .unreachable? = first else { return #expect(Bool(false), "\(String(describing: first))") }
      let second = await #expect(throws: TransportError.self) { try await pool.connection(to: port.address) }
      guard case .backingOff(let delay, _)? = second else {
        return #expect(Bool(false), "\(String(describing: second))")
      }
      #expect(delay > .zero && delay <= .seconds(3600))
      guard case .later(let told?) = StatusDetails(RPCError(try #require(second))).retry else {
        return #expect(Bool(false))
      }
      #expect(abs((told - delay) / .milliseconds(1)) < 0.001)
    }
  }

  @Test("tries a peer again when the time is over, and leaves it alone for twice as long after each failure")
  func doublingBackoff() async throws {
    var limits = TransportLimits()
    limits.initialBackoff = .seconds(1)
    limits.maxBackoff = .seconds(3)
    var machine = PoolMachine(limits)
    var now = ContinuousClock.now
    for step in [1, 2, 3, 3] {
      #expect(try await self.attempt(&machine, at: now) == nil, "A dial, which failed.")
      let delay = try #require(try await self.attempt(&machine, at: now))
      #expect(delay >= .seconds(step) / 2 && delay <= .seconds(step))
      expectEqual(try await self.attempt(&machine, at: now + delay - .nanoseconds(1)), .nanoseconds(1))
      now += delay
    }
  }

  /// Asks for a connection. Returns how long the peer is left alone; nothing when it was dialled, which failed.
  private func attempt(_ machine: inout PoolMachine, at now: ContinuousClock.Instant) async throws -> Duration? {
    let address = try NetworkAddress(host: "127.0.0.1", port: 1)
    let peer = ConnectionPool.Peer(address)
    var random = SystemRandomNumberGenerator()
    do {
      _ = try await withCheckedThrowingContinuation { continuation in
        switch machine.request(peer, machine.nextWaiter(), continuation, now: now) {
        case .result(let result): continuation.resume(with: result)
        case .dial:
          let error = TransportError.unreachable(address, "nobody is there")
          for waiter in machine.failed(peer, error, now: now, using: &random) { waiter.resume(throwing: error) }
        case .wait: continuation.resume(throwing: CancellationError())
        }
      }
    } catch TransportError.backingOff(let delay, _) {
      return delay
    } catch TransportError.unreachable {
      return nil
    }
    Issue.record("There is a connection.")
    return nil
  }

  @Test("fails those who wait when it ends, and those who come later")
  func ending() async throws {
    let security = try TransportSecurity(root: self.domain.root, identity: nil)
    let pool = ConnectionPool(dialer(security))
    try await withServer(self.security) { server in
      async let waiting = pool.connection(to: server.address)
      await withTaskGroup(of: Void.self) { group in
        group.addTask { await pool.run() }
        group.cancelAll()
      }
      _ = try? await waiting
      await #expect(throws: TransportError.self) { try await pool.connection(to: server.address) }
    }
  }

  @Test("lets go of somebody who no longer waits")
  func cancellation() async throws {
    let pool = ConnectionPool(dialer(try TransportSecurity(root: self.domain.root, identity: nil)))
    try await withServer(self.security) { server in
      // Nobody runs the pool, so this would wait for ever.
      let task = Task { try await pool.connection(to: server.address) }
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
    }
  }

  @Test("finishes calls when it shuts down gracefully")
  func gracefulShutdown() async throws {
    let pool = ConnectionPool(dialer(try TransportSecurity(root: self.domain.root, identity: nil)))
    try await withServer(self.security) { server in
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { await pool.run() }
        let connection = try await pool.connection(to: server.address)
        async let answer = connection.call(TestMethod.hold)
        await server.service.holding.wait()
        pool.beginGracefulShutdown()
        #expect(!connection.isUsable)
        server.service.release.set()
        expectEqual(try await answer, [1])
        try await group.waitForAll()
      }
    }
  }
}
