// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import GRPCCore
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization
import Testing
import Transport
import Trust

@Suite("A server", .timeLimit(.minutes(5)))
struct ServerTests {
  let domain: TestDomain
  let security: TransportSecurity

  init() throws {
    self.domain = try TestDomain()
    self.security = try TransportSecurity(root: self.domain.root, identity: self.domain.identity(.process, "/node1"))
  }

  func user(_ path: String = "/users/ada") throws -> Dialer {
    dialer(try TransportSecurity(root: self.domain.root, identity: self.domain.identity(.user, path)))
  }

  func anonymous() throws -> Dialer { dialer(try TransportSecurity(root: self.domain.root, identity: nil)) }

  // MARK: Identity

  @Test("knows its callers by their certificates")
  func callers() async throws {
    try await withServer(self.security) { server in
      try await self.user().withConnection(to: server.address) { ada in
        try await self.user("/users/bob").withConnection(to: server.address) { bob in
          expectEqual(try await ada.text(TestMethod.caller), "user /users/ada")
          expectEqual(try await bob.text(TestMethod.caller), "user /users/bob")
          expectEqual(try await ada.text(TestMethod.caller), "user /users/ada")
          #expect("\(ada.peer.path)" == "/node1")
        }
      }
    }
  }

  @Test("tells processes from users, and verifies through authorities of directories")
  func processes() async throws {
    let key = SigningKey()
    let validity = Validity(from: .now, lifetime: .seconds(3600))
    let chain = try self.domain.authority.issueAuthority(
      for: TreePath(parsing: "/site"), key: key.verifyingKey, validity: validity)
    let authority = try CertificateAuthority(key: key, chain: chain, root: self.domain.root, at: .now)
    let node = SigningKey()
    let identity = TransportSecurity.Identity(
      chain: try authority.issueCredential(
        .process, at: TreePath(parsing: "/site/node2"), key: node.verifyingKey, validity: validity), key: node)
    let dialer = dialer(try TransportSecurity(root: self.domain.root, identity: identity))
    try await withServer(self.security) { server in
      try await dialer.withConnection(to: server.address) {
        expectEqual(try await $0.text(TestMethod.caller), "process /site/node2")
      }
    }
  }

  @Test("keeps a caller without a certificate apart as anonymous")
  func anonymousCaller() async throws {
    try await withServer(self.security) { server in
      try await self.anonymous().withConnection(to: server.address) {
        expectEqual(try await $0.text(TestMethod.caller), "anonymous")
      }
    }
  }

  @Test("ignores a forged identity header, and shows none to handlers")
  func forgedHeader() async throws {
    try await withServer(self.security) { server in
      try await self.user().withConnection(to: server.address) { ada in
        try await self.anonymous().withConnection(to: server.address) { connection in
          // Even somebody who has learnt the name of another one's connection gains nothing.
          let id = try #require(server.connections.identities.first { $0.caller != .anonymous }?.id)
          for forged in ["x", "\(id)", "\(id)-1", "\(id)-2", ""] {
            let metadata: Metadata = ["x-blocktree-connection": .string(forged), "other": "kept"]
            expectEqual(try await connection.text(TestMethod.caller, metadata: metadata), "anonymous")
            let keys = try await connection.text(TestMethod.metadata, metadata: metadata)
            #expect(!keys.contains("x-blocktree-connection"))
            #expect(keys.contains("other"))
          }
          expectEqual(try await ada.text(TestMethod.caller), "user /users/ada")
        }
      }
    }
  }

  enum BadCertificate: CaseIterable {
    case expired, notYetValid, foreignDomain, siblingAuthority
  }

  @Test(
    "refuses a certificate that does not verify at the handshake, and serves on", arguments: BadCertificate.allCases)
  func badCertificates(_ kind: BadCertificate) async throws {
    let identity: TransportSecurity.Identity
    switch kind {
    case .expired:
      identity = try self.domain.identity(
        .user, "/users/eve", validity: Validity(notBefore: .now - 7200, notAfter: .now - 3600))
    case .notYetValid:
      identity = try self.domain.identity(
        .user, "/users/eve", validity: Validity(notBefore: .now + 3600, notAfter: .now + 7200))
    case .foreignDomain:
      identity = try TestDomain().identity(.user, "/users/eve")
    case .siblingAuthority:
      identity = try self.domain.stray("/users/eve", issuedBy: "/others")
    }
    let eve = dialer(try TransportSecurity(root: self.domain.root, identity: identity))
    try await withServer(self.security) { server in
      await #expect(throws: TransportError.self) { try await eve.dial(server.address) }
      try await self.user().withConnection(to: server.address) {
        expectEqual(try await $0.text(TestMethod.caller), "user /users/ada")
      }
      #expect(!server.connections.identities.contains { $0.caller == .anonymous })
    }
  }

  @Test("refuses whom it does not admit, and closes what is open to a revoked key")
  func revocation() async throws {
    let revoked = Mutex<Set<Digest32>>([])
    let security = try TransportSecurity(root: self.domain.root, identity: self.domain.identity(.process, "/node1")) {
      credential in !revoked.withLock { $0.contains(credential.keyID) }
    }
    try await withServer(security) { server in
      try await self.user("/users/bob").withConnection(to: server.address) { bob in
        let eve = try self.user("/users/eve")
        try await eve.withConnection(to: server.address) { connection in
          _ = try await connection.text(TestMethod.caller)
          let path = try TreePath(parsing: "/users/eve")
          let credentials = server.connections.identities.compactMap(\.caller.credential)
          let key = try #require(credentials.first { $0.path == path }).keyID
          revoked.withLock { _ = $0.insert(key) }
          #expect(server.connections.closeConnections { $0.caller.credential?.keyID == key } == 1)
          try await eventually { !connection.isUsable }
          await #expect(throws: (any Error).self) { try await connection.call(TestMethod.echo) }
        }
        await #expect(throws: TransportError.self) { try await eve.dial(server.address) }
        expectEqual(try await bob.text(TestMethod.caller), "user /users/bob")
      }
    }
  }

  @Test("does not let a connection outlive the certificate of its client")
  func expiry() async throws {
    let validity = Validity(from: .now, lifetime: .seconds(3600))
    let identity = try self.domain.identity(.user, "/users/ada", validity: validity)
    let dialer = dialer(try TransportSecurity(root: self.domain.root, identity: identity))
    // For the server, the certificate has one second left until the test says that it has expired.
    let clock = Mutex(validity.notAfter - 1)
    let security = try TransportSecurity(
      root: self.domain.root, identity: self.domain.identity(.process, "/node1", lifetime: .seconds(7200)),
      now: { clock.withLock { $0 } })
    try await withServer(security) { server in
      try await dialer.withConnection(to: server.address) { connection in
        try await eventually { !connection.isUsable }
      }
      clock.withLock { $0 = validity.notAfter + 1 }
      await #expect(throws: TransportError.self) { try await dialer.dial(server.address) }
    }
  }

  @Test("shows a new certificate to new connections as soon as it has one")
  func renewal() async throws {
    try await withServer(self.security) { server in
      try await self.anonymous().withConnection(to: server.address) { old in
        try self.security.replaceIdentity(self.domain.identity(.process, "/node9"))
        try await self.anonymous().withConnection(to: server.address) { new in
          #expect("\(new.peer.path)" == "/node9")
          #expect("\(old.peer.path)" == "/node1")
          expectEqual(try await old.text(TestMethod.caller), "anonymous")
        }
      }
    }
  }

  // MARK: Handshakes

  @Test("refuses TLS 1.2 and plaintext, and serves on")
  func oldProtocols() async throws {
    try await withServer(self.security) { server in
      var configuration = TLSConfiguration.makeClientConfiguration()
      configuration.certificateVerification = .none
      configuration.maximumTLSVersion = .tlsv12
      configuration.applicationProtocols = ["h2"]
      let context = try NIOSSLContext(configuration: configuration)
      let old = try await RawClient.connect(server.address, tls: context)
      try await old.closed()

      let plain = try await RawClient.connect(server.address)
      try await plain.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
      try await plain.closed()

      // The newest TLS, but nothing that we speak.
      configuration.maximumTLSVersion = .tlsv13
      configuration.applicationProtocols = ["http/1.1"]
      let other = try await RawClient.connect(server.address, tls: NIOSSLContext(configuration: configuration))
      try await other.closed()

      try await self.user().withConnection(to: server.address) {
        expectEqual(try await $0.text(TestMethod.caller), "user /users/ada")
      }
      try await eventually { server.connections.counts == (0, 0) }
    }
  }

  @Test("drops clients that never finish their handshake, and serves others meanwhile")
  func slowHandshakes() async throws {
    var limits = TransportLimits()
    limits.handshakeTimeout = .seconds(600)
    limits.maxConcurrentHandshakes = 8
    try await withServer(self.security, limits: limits) { server in
      var silent: [RawClient] = []
      for _ in 0..<6 { silent.append(try await RawClient.connect(server.address)) }
      try await eventually { server.connections.counts.handshakes == 6 }
      try await self.user().withConnection(to: server.address) {
        expectEqual(try await $0.text(TestMethod.caller), "user /users/ada")
      }
      #expect(server.connections.counts.handshakes == 6)
      for client in silent { try await client.channel.close() }
    }
    limits.handshakeTimeout = .milliseconds(200)
    try await withServer(self.security, limits: limits) { server in
      var silent: [RawClient] = []
      for _ in 0..<6 { silent.append(try await RawClient.connect(server.address)) }
      for client in silent { try await client.closed() }
      try await eventually { server.connections.counts == (0, 0) }
    }
  }

  @Test("closes the handshake that it gave up also when there is no room for the new one")
  func fullOfHandshakes() async throws {
    var limits = TransportLimits()
    limits.handshakeTimeout = .seconds(600)
    limits.maxConcurrentHandshakes = 2
    limits.maxConnections = 2
    try await withServer(self.security, limits: limits) { server in
      let oldest = try await RawClient.connect(server.address)
      try await eventually { server.connections.counts.handshakes == 1 }
      let other = try await RawClient.connect(server.address)
      try await eventually { server.connections.counts.handshakes == 2 }
      let third = try await RawClient.connect(server.address)
      try await third.closed()
      try await oldest.closed()
      // So there is room for somebody who does not come with empty hands.
      try await eventually { server.connections.counts == (1, 0) }
      try await self.user().withConnection(to: server.address) {
        expectEqual(try await $0.text(TestMethod.caller), "user /users/ada")
      }
      try await other.channel.close()
    }
  }

  @Test("gives up the oldest handshake for a new one, when there are too many")
  func tooManyHandshakes() async throws {
    var limits = TransportLimits()
    limits.handshakeTimeout = .seconds(600)
    limits.maxConcurrentHandshakes = 2
    try await withServer(self.security, limits: limits) { server in
      let oldest = try await RawClient.connect(server.address)
      try await eventually { server.connections.counts.handshakes == 1 }
      _ = try await RawClient.connect(server.address)
      try await eventually { server.connections.counts.handshakes == 2 }
      try await self.user().withConnection(to: server.address) {
        expectEqual(try await $0.text(TestMethod.caller), "user /users/ada")
      }
      try await oldest.closed()
    }
  }

  @Test("closes connections beyond its limit, and takes new ones when there is room again")
  func tooManyConnections() async throws {
    var limits = TransportLimits()
    limits.maxConnections = 2
    try await withServer(self.security, limits: limits) { server in
      try await self.user().withConnection(to: server.address) { first in
        try await self.user().withConnection(to: server.address) { _ in
          let third = try await RawClient.connect(server.address)
          try await third.closed()
          expectEqual(try await first.text(TestMethod.caller), "user /users/ada")
        }
        try await eventually { server.connections.counts == (0, 1) }
        try await self.user().withConnection(to: server.address) {
          expectEqual(try await $0.text(TestMethod.caller), "user /users/ada")
        }
      }
    }
  }

  @Test("keeps room for those who belong to the domain when strangers have taken all of theirs")
  func tooManyStrangers() async throws {
    var limits = TransportLimits()
    limits.maxAnonymousConnections = 1
    try await withServer(self.security, limits: limits) { server in
      try await self.anonymous().withConnection(to: server.address) { _ in
        await #expect(throws: TransportError.self) { try await self.anonymous().dial(server.address) }
        try await self.user().withConnection(to: server.address) {
          expectEqual(try await $0.text(TestMethod.caller), "user /users/ada")
        }
      }
      try await eventually { server.connections.counts == (0, 0) }
      try await self.anonymous().withConnection(to: server.address) {
        expectEqual(try await $0.text(TestMethod.caller), "anonymous")
      }
    }
  }

  @Test("leaves at most half of its connections to strangers, however few it has")
  func fewConnections() async throws {
    var limits = TransportLimits()
    limits.maxConnections = 2
    try await withServer(self.security, limits: limits) { server in
      try await self.anonymous().withConnection(to: server.address) { _ in
        await #expect(throws: TransportError.self) { try await self.anonymous().dial(server.address) }
        try await eventually { server.connections.counts == (0, 1) }
        try await self.user().withConnection(to: server.address) {
          expectEqual(try await $0.text(TestMethod.caller), "user /users/ada")
        }
      }
    }
  }

  // MARK: Calls

  @Test("serves many streams at once on one connection")
  func manyStreams() async throws {
    try await withServer(self.security) { server in
      try await self.user().withConnection(to: server.address) { connection in
        try await withThrowingTaskGroup(of: Void.self) { group in
          for stream in 0..<64 {
            group.addTask {
              let sent = (0..<20).map { [UInt8](repeating: UInt8(($0 + stream) % 256), count: 100 + 997 * $0) }
              let received = try await connection.stream(TestMethod.echo) { writer in
                for message in sent { try await writer.write(message) }
              }
              #expect(received == sent)
            }
          }
          try await group.waitForAll()
        }
      }
    }
  }

  @Test("runs its handlers on the connection's event loop, and so can a client")
  func executors() async throws {
    try await withServer(self.security) { server in
      try await self.user().withConnection(to: server.address) { connection in
        expectEqual(try await connection.text(TestMethod.onLoop), "true")
        let answer = try await connection.onEventLoop {
          #expect(connection.executor.eventLoop.inEventLoop)
          return try await connection.text(TestMethod.onLoop)
        }
        #expect(answer == "true")
      }
    }
  }

  @Test("answers a message that is too large with RESOURCE_EXHAUSTED, and the connection goes on")
  func tooLarge() async throws {
    var limits = TransportLimits()
    limits.maxMessageByteCount = 100_000
    try await withServer(self.security, limits: limits) { server in
      try await self.user().withConnection(to: server.address) { connection in
        let fits = [UInt8](repeating: 7, count: 100_000)
        expectEqual(try await connection.call(TestMethod.echo, fits), fits)
        let error = await #expect(throws: RPCError.self) { try await connection.call(TestMethod.echo, fits + [7]) }
        let details = StatusDetails(try #require(error))
        #expect(details.code == .resourceExhausted)
        #expect(details.reason == "MESSAGE_TOO_LARGE")
        #expect(details.metadata == ["byte_count": "100001", "limit": "100000"])
        #expect(details.retry == .never)
        // In the middle of a stream as well, when an answer has begun.
        let late = await #expect(throws: RPCError.self) {
          try await connection.stream(TestMethod.echo) { writer in
            for message in [fits, fits, fits + fits] { try await writer.write(message) }
          }
        }
        #expect(late?.code == .resourceExhausted)
        expectEqual(try await connection.call(TestMethod.echo, fits), fits)
      }
    }
  }

  @Test("ends the call that makes a connection hold too much, and no other")
  func tooMuchAtOnce() async throws {
    var limits = TransportLimits()
    limits.connectionReceiveByteCount = 4 << 20
    try await withServer(self.security, limits: limits) { server in
      try await self.user().withConnection(to: server.address) { connection in
        let errors = await withTaskGroup(of: RPCError?.self) { group in
          for _ in 0..<8 {
            group.addTask(executorPreference: connection.executor) {
              do {
                // One message, whose end comes only when all others are stuck as well.
                _ = try await connection.call(TestMethod.collect, [UInt8](repeating: 1, count: 1 << 20))
                return nil
              } catch {
                server.service.mayCollect.set()
                return error as? RPCError
              }
            }
          }
          return await group.reduce(into: [RPCError]()) { if let error = $1 { $0.append(error) } }
        }
        #expect(!errors.isEmpty && errors.count < 8)
        #expect(errors.allSatisfy { StatusDetails($0).reason == "TOO_MUCH_AT_ONCE" })
        expectEqual(try await connection.text(TestMethod.caller), "user /users/ada")
      }
    }
  }

  @Test("keeps only so much for all strangers together, whatever is left for others")
  func tooMuchFromStrangers() async throws {
    var limits = TransportLimits()
    limits.totalAnonymousReceiveByteCount = 256 << 10
    try await withServer(self.security, limits: limits) { server in
      let errors = try await withThrowingTaskGroup(of: RPCError?.self) { group in
        for _ in 0..<4 {
          let stranger = try self.anonymous()
          group.addTask {
            try await stranger.withConnection(to: server.address) { connection in
              do {
                _ = try await connection.call(TestMethod.collect, [UInt8](repeating: 1, count: 100_000))
                return nil
              } catch {
                // The others have their answers only now.
                server.service.mayCollect.set()
                return error as? RPCError
              }
            }
          }
        }
        let refused = try await group.next() ?? nil
        return try await group.reduce(into: [refused].compactMap { $0 }) { if let error = $1 { $0.append(error) } }
      }
      #expect(!errors.isEmpty && errors.count < 4)
      #expect(errors.allSatisfy { StatusDetails($0).reason == "TOO_MUCH_AT_ONCE" })
    }
    try await withServer(self.security, limits: limits) { server in
      try await self.anonymous().withConnection(to: server.address) { stranger in
        try await withThrowingTaskGroup(of: Void.self) { group in
          for _ in 0..<2 {
            group.addTask { _ = try await stranger.call(TestMethod.collect, [UInt8](repeating: 1, count: 100_000)) }
          }
          try await eventually { server.service.collecting.value == 2 }
          try await self.user().withConnection(to: server.address) { connection in
            let large = [UInt8](repeating: 2, count: 1 << 20)
            expectEqual(try await connection.call(TestMethod.echo, large), large)
          }
          server.service.mayCollect.set()
          try await group.waitForAll()
        }
      }
    }
  }

  @Test("keeps only so much for all callers together")
  func tooMuchFromAll() async throws {
    var limits = TransportLimits()
    limits.totalReceiveByteCount = 1 << 20
    try await withServer(self.security, limits: limits) { server in
      try await self.user().withConnection(to: server.address) { first in
        try await self.user("/users/bob").withConnection(to: server.address) { second in
          let error = await #expect(throws: RPCError.self) {
            try await withThrowingTaskGroup(of: Void.self) { group in
              for connection in [first, second] {
                group.addTask {
                  defer { server.service.mayCollect.set() }
                  _ = try await connection.call(TestMethod.collect, [UInt8](repeating: 1, count: 600_000))
                }
              }
              try await group.waitForAll()
            }
          }
          let details = StatusDetails(try #require(error))
          #expect(details.reason == "TOO_MUCH_AT_ONCE")
        }
      }
    }
  }

  @Test("takes smaller messages from strangers, and fewer calls at once")
  func strangersLimits() async throws {
    var limits = TransportLimits()
    limits.maxAnonymousStreams = 2
    limits.anonymousMessageByteCount = 100_000
    try await withServer(self.security, limits: limits) { server in
      try await self.anonymous().withConnection(to: server.address) { stranger in
        let fits = [UInt8](repeating: 7, count: 100_000)
        expectEqual(try await stranger.call(TestMethod.echo, fits), fits)
        let error = await #expect(throws: RPCError.self) { try await stranger.call(TestMethod.echo, fits + [7]) }
        let details = StatusDetails(try #require(error))
        #expect(details.reason == "MESSAGE_TOO_LARGE")
        try await self.user().withConnection(to: server.address) { connection in
          expectEqual(try await connection.call(TestMethod.echo, fits + fits), fits + fits)
          try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<8 { group.addTask { _ = try await stranger.call(TestMethod.collect, [1]) } }
            try await eventually { server.service.collecting.value == 2 }
            for _ in 0..<50 { _ = try await connection.call(TestMethod.echo, [1]) }
            #expect(server.service.collecting.value == 2)
            server.service.mayCollect.set()
            try await group.waitForAll()
            #expect(server.service.collecting.value == 8)
          }
        }
      }
    }
  }

  @Test("carries the reason and what is needed to act from a handler's error to the client")
  func errorDetails() async throws {
    try await withServer(self.security) { server in
      try await self.user().withConnection(to: server.address) { connection in
        let error = await #expect(throws: RPCError.self) { try await connection.call(TestMethod.fail) }
        let details = StatusDetails(try #require(error))
        #expect(details.code == .aborted)
        #expect(details.reason == "CONFLICT")
        #expect(details.metadata == ["current": "7"])
        #expect(details.message == "The file changed.")
        #expect(details.retry == .later(.milliseconds(1500)))
      }
    }
  }

  @Test("frees what a client held that vanished in the middle of a call")
  func vanishingClient() async throws {
    try await withServer(self.security) { server in
      let connection = try await self.user().dial(server.address)
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { await connection.run() }
        group.addTask {
          _ = try? await connection.stream(TestMethod.hold) { writer in
            try await writer.write([1])
            try await Task.sleep(for: .seconds(3600))
          }
        }
        await server.service.holding.wait()
        connection.close()
        await server.service.held.wait()
        try await eventually { server.connections.counts == (0, 0) }
        group.cancelAll()
      }
    }
  }

  @Test("closes a connection on which nothing arrives any more")
  func silentClient() async throws {
    var limits = TransportLimits()
    limits.keepaliveInterval = .milliseconds(200)
    limits.keepaliveTimeout = .milliseconds(200)
    // Not this one closes it.
    limits.handshakeTimeout = .seconds(600)
    try await withServer(self.security, limits: limits) { server in
      var configuration = TLSConfiguration.makeClientConfiguration()
      configuration.certificateVerification = .none
      configuration.applicationProtocols = ["h2"]
      // It speaks TLS, but never a word of HTTP/2: pings stay without an answer.
      let silent = try await RawClient.connect(server.address, tls: NIOSSLContext(configuration: configuration))
      try await silent.closed()
      try await eventually { server.connections.counts == (0, 0) }
    }
  }

  @Test("keeps an idle connection that answers pings")
  func idleClient() async throws {
    var limits = TransportLimits()
    // The HTTP/2 implementation takes 200 control frames in 30 seconds for an attack.
    limits.keepaliveInterval = .milliseconds(500)
    // Generous, as a busy machine may leave an answer lying.
    limits.keepaliveTimeout = .seconds(12)
    try await withServer(self.security, limits: limits) { server in
      try await self.user().withConnection(to: server.address) { connection in
        let clock = ContinuousClock()
        let start = clock.now
        try await eventually { clock.now - start > .milliseconds(12_500) }
        expectEqual(try await connection.text(TestMethod.caller), "user /users/ada")
      }
    }
  }

  @Test("does not read ahead of a handler without bound, and loses nothing by that")
  func slowHandler() async throws {
    let total = 256 << 20
    let sent = Counter()
    try await withServer(self.security) { server in
      try await self.user().withConnection(to: server.address) { connection in
        try await withThrowingTaskGroup(of: [[UInt8]].self) { group in
          // From another thread, a writer would run ahead of the event loop before that can stop it.
          group.addTask(executorPreference: connection.executor) {
            try await connection.stream(TestMethod.collect) { writer in
              let message = [UInt8](repeating: 1, count: 1 << 20)
              for _ in 0..<(total / message.count) {
                try await writer.write(message)
                sent.add(message.count)
              }
            }
          }
          // The sender gets stuck, and other calls on the connection do not.
          try await self.untilStuck(sent, at: total, calling: connection)
          #expect(sent.value < total)
          server.service.mayCollect.set()
          let answer = try #require(try await group.next())
          #expect(answer == [Array("\(total)".utf8)])
        }
      }
    }
  }

  @Test("does not buffer without bound for a client that does not read")
  func slowReader() async throws {
    try await withServer(self.security) { server in
      try await self.user().withConnection(to: server.address) { connection in
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask {
            try? await connection.client.bidirectionalStreaming(
              request: StreamingClientRequest { writer in try await writer.write([1]) }, descriptor: TestMethod.flood,
              serializer: BytesCoder(), deserializer: BytesCoder(), options: .defaults
            ) { response in
              // Takes the first message and no more.
              for try await _ in response.messages { try await Task.sleep(for: .seconds(3600)) }
            }
          }
          let bound = 64 << 20
          try await self.untilStuck(server.service.flooded, at: bound, calling: connection)
          #expect(server.service.flooded.value < bound)
          group.cancelAll()
        }
      }
    }
  }

  /// Waits until a counter stands still, somewhere above zero, or has come to where only a broken program gets; while
  /// other calls go on.
  private func untilStuck(_ counter: Counter, at end: Int, calling connection: NodeConnection) async throws {
    try await eventually {
      let before = counter.value
      for _ in 0..<200 { _ = try await connection.call(TestMethod.echo, [1]) }
      return before > 0 && counter.value == before || before >= end
    }
  }

  @Test("that is shut down before it begins does not begin, and whoever waits for it hears of that")
  func shutdownBeforeStart() async throws {
    let transport = try NodeServerTransport(
      security: self.security, listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)],
      group: MultiThreadedEventLoopGroup.singleton, logger: .init(label: "test"))
    let waiting = Task { try await transport.listeningAddresses }
    let cancelled = Task { try await transport.listeningAddresses }
    cancelled.cancel()
    await #expect(throws: CancellationError.self) { try await cancelled.value }
    transport.beginGracefulShutdown()
    transport.beginGracefulShutdown()
    await #expect(throws: TransportError.self) { try await waiting.value }
    try await transport.listen { _, _ in }
    await #expect(throws: TransportError.self) { try await transport.listeningAddresses }
  }

  @Test("ends when it is shut down at any time while it begins")
  func shutdownWhileStarting() async throws {
    for yields in 0..<40 {
      let transport = try NodeServerTransport(
        security: self.security, listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)],
        group: MultiThreadedEventLoopGroup.singleton, logger: .init(label: "test"))
      let server = GRPCServer(transport: transport, services: [BytesService()])
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          do {
            try await server.serve()
          } catch let error as RuntimeError {
            #expect(error.code == .serverIsStopped)
          }
        }
        group.addTask { _ = try? await transport.listeningAddresses }
        for _ in 0..<yields { await Task.yield() }
        server.beginGracefulShutdown()
        transport.beginGracefulShutdown()
        try await group.waitForAll()
      }
    }
  }

  @Test("lets calls finish when it shuts down gracefully, and takes no new connections")
  func gracefulShutdown() async throws {
    let group = MultiThreadedEventLoopGroup.singleton
    let service = BytesService()
    let transport = try NodeServerTransport(
      security: self.security, listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)], group: group,
      logger: .init(label: "test"))
    let server = GRPCServer(transport: transport, services: [service])
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { try await server.serve() }
      let address = try #require(try await transport.listeningAddresses.first)
      let connection = try await self.user().dial(address)
      tasks.addTask { await connection.run() }
      async let answer = connection.call(TestMethod.hold)
      await service.holding.wait()
      server.beginGracefulShutdown()
      try await eventually { !connection.isUsable }
      await #expect(throws: TransportError.self) { try await self.user().dial(address) }
      service.release.set()
      expectEqual(try await answer, [1])
      // Both the server and the connection end by themselves.
      try await tasks.waitForAll()
    }
  }

  @Test("cuts off calls that do not end in time when it shuts down")
  func shutdownDeadline() async throws {
    var limits = TransportLimits()
    limits.drainTime = .milliseconds(200)
    let service = BytesService()
    let transport = try NodeServerTransport(
      security: self.security, listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)],
      group: MultiThreadedEventLoopGroup.singleton, limits: limits, logger: .init(label: "test"))
    let server = GRPCServer(transport: transport, services: [service])
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { try await server.serve() }
      let address = try #require(try await transport.listeningAddresses.first)
      let connection = try await self.user().dial(address)
      tasks.addTask { await connection.run() }
      tasks.addTask {
        await #expect(throws: RPCError.self) {
          try await connection.stream(TestMethod.hold) { _ in try await Task.sleep(for: .seconds(3600)) }
        }
      }
      await service.holding.wait()
      server.beginGracefulShutdown()
      await service.held.wait()
      try await tasks.waitForAll()
    }
  }

  @Test("fails to start where it can not listen")
  func addressInUse() async throws {
    try await withServer(self.security) { server in
      let second = try NodeServerTransport(
        security: self.security, listeningOn: [ListenAddress(server.address)], group: server.group,
        logger: .init(label: "test"))
      await #expect(throws: (any Error).self) { try await second.listen { _, _ in } }
      await #expect(throws: (any Error).self) { try await second.listeningAddresses }
    }
  }

  @Test("can not be made without a certificate")
  func noIdentity() throws {
    let security = try TransportSecurity(root: self.domain.root, identity: nil)
    #expect(throws: TransportError.self) {
      try NodeServerTransport(
        security: security, listeningOn: [], group: MultiThreadedEventLoopGroup.singleton, logger: .init(label: "test"))
    }
  }

  @Test("serves a connection that it dialled itself")
  func reversed() async throws {
    try await withServer(self.security) { server in
      let (accepted, accept) = AsyncStream.makeStream(of: (any Channel).self)
      let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .childChannelOption(.autoRead, value: false)
        .childChannelInitializer { channel in
          channel.eventLoop.makeCompletedFuture { _ = accept.yield(channel) }
        }
        .bind(host: "127.0.0.1", port: 0).get()
      let dialled = try await ClientBootstrap(group: server.group).channelOption(.autoRead, value: false)
        .connect(to: #require(listener.localAddress)).get()
      async let identity = server.connections.serve(dialled)
      let channel = try #require(await accepted.first { _ in true })
      try await eventually { channel.isActive }
      let connection = try await self.user().open(channel, authority: "node1")
      let caller = try await identity.caller
      #expect("\(try #require(caller.credential).path)" == "/users/ada")
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { await connection.run() }
        expectEqual(try await connection.text(TestMethod.caller), "user /users/ada")
        connection.beginGracefulShutdown()
        try await group.waitForAll()
      }
      try await listener.close()
    }
  }
}

/// A socket, with TLS of the test's own or none.
struct RawClient {
  let channel: any Channel

  static func connect(_ address: NetworkAddress, tls: NIOSSLContext? = nil) async throws -> RawClient {
    let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          if let tls {
            try channel.pipeline.syncOperations.addHandler(NIOSSLClientHandler(context: tls, serverHostname: nil))
          }
          try channel.pipeline.syncOperations.addHandler(Sink())
        }
      }
      .connect(host: address.host, port: Int(address.port)).get()
    return RawClient(channel: channel)
  }

  func write(_ text: String) async throws {
    try await self.channel.writeAndFlush(ByteBuffer(string: text)).get()
  }

  /// Waits until the server has closed it.
  func closed() async throws {
    try await self.channel.closeFuture.get()
  }

  private final class Sink: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {}
    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
  }
}
