// SPDX-License-Identifier: Apache-2.0

package import GRPCCore
internal import GRPCNIOTransportHTTP2Posix
package import NIOCore
internal import NIOHTTP2
internal import NIOPosix
internal import NIOSSL
package import Trust

/// Opens connections to other processes.
///
/// It shows our certificate, if this process has one; otherwise it is anonymous there. The other side has to be a
/// process of the domain, and the expected one where that is known.
package struct Dialer: Sendable {
  private typealias Wrapped = HTTP2ClientTransport.WrappedChannel

  private let security: TransportSecurity
  private let group: any EventLoopGroup
  let limits: TransportLimits
  private let interceptors: [any ClientInterceptor]
  private let interceptorsForPeer: @Sendable (Credential) -> [any ClientInterceptor]

  /// - Parameters:
  ///   - group: The event loops for connections. The caller shuts it down after all of them have closed.
  ///   - interceptors: See all calls over the connections.
  ///   - interceptorsForPeer: See all calls over a connection to this process, after the others.
  package init(
    _ security: TransportSecurity, group: any EventLoopGroup, limits: TransportLimits = TransportLimits(),
    interceptors: [any ClientInterceptor] = [],
    interceptorsForPeer: @escaping @Sendable (Credential) -> [any ClientInterceptor] = { _ in [] }
  ) {
    self.security = security
    self.group = group
    self.limits = limits
    self.interceptors = interceptors
    self.interceptorsForPeer = interceptorsForPeer
  }

  /// Connects, calls `body`, and closes the connection when that returns.
  package func withConnection<Result: Sendable>(
    to address: NetworkAddress, expecting path: TreePath? = nil,
    _ body: (NodeConnection) async throws -> Result
  ) async throws -> Result {
    let connection = try await self.dial(address, expecting: path)
    return try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { await connection.run() }
      do {
        let result = try await body(connection)
        connection.beginGracefulShutdown()
        try await group.waitForAll()
        return result
      } catch {
        connection.close()
        throw error
      }
    }
  }

  /// Connects. When this returns, both sides have accepted each other's certificates. The caller has to `run()` the
  /// connection, or to `close()` it.
  ///
  /// - Parameter path: The process that has to answer; nothing for any process of the domain.
  package func dial(
    _ address: NetworkAddress, expecting path: TreePath? = nil
  ) async throws(TransportError) -> NodeConnection {
    let bootstrap = ClientBootstrap(group: self.group.next())
      .connectTimeout(TimeAmount(self.limits.connectTimeout))
      .channelOption(.tcpOption(.tcp_nodelay), value: 1)
      // Nothing is read before the handlers are there.
      .channelOption(.autoRead, value: false)
    let channel: any Channel
    do {
      channel = try await bootstrap.connect(host: address.host, port: Int(address.port)).get()
    } catch {
      throw .unreachable(address, "\(error)")
    }
    return try await self.open(channel, authority: "\(address)", expecting: path)
  }

  /// Does the TLS handshake on a channel that carries bytes, as the TLS client, and makes it a connection for calls.
  ///
  /// The channel has to be active and not to have read anything yet (`autoRead` off; this turns it on). From here on it
  /// belongs to the connection; on an error it is closed.
  ///
  /// - Parameter authority: What the calls name as their server, usually the address.
  package func open(
    _ channel: any Channel, authority: String, expecting path: TreePath? = nil
  ) async throws(TransportError) -> NodeConnection {
    do {
      return try await withTaskCancellationHandler {
        try await self.handshake(channel, authority: authority, expecting: path)
      } onCancel: {
        channel.close(promise: nil)
      }
    } catch {
      channel.close(promise: nil)
      throw error as? TransportError ?? .handshakeFailed("\(error)")
    }
  }

  /// What the event loop hands over when a connection is open.
  private struct Opened: Sendable {
    let configured: Wrapped.ConfiguredChannel
    let peer: Credential
  }

  private func handshake(
    _ channel: any Channel, authority: String, expecting path: TreePath?
  ) async throws -> NodeConnection {
    let config = Self.config(self.limits, authority: authority)
    let state = ConnectionState()
    let peer = channel.eventLoop.makePromise(of: Credential.self)
    let transport: Wrapped
    do {
      let service = Self.serviceConfig(self.limits)
      transport = try await Wrapped.wrapping(config: config, serviceConfig: service) { configure in
        let opened = channel.eventLoop.flatSubmit { () -> EventLoopFuture<Opened> in
          let opened = self.addHandlers(channel, state: state, expecting: path, configure)
          return channel.setOption(.autoRead, value: true).flatMap { opened }
        }
        opened.map(\.peer).cascade(to: peer)
        return try await opened.get().configured
      }
    } catch {
      peer.fail(error)
      throw error
    }
    let credential = try await peer.futureResult.get()
    let interceptors = self.interceptors + self.interceptorsForPeer(credential)
    return NodeConnection(
      GRPCClient(transport: transport, interceptors: interceptors), peer: credential, channel: channel, state: state)
  }

  /// On the event loop.
  private func addHandlers(
    _ channel: any Channel, state: ConnectionState, expecting path: TreePath?,
    _ configure: @escaping @Sendable (any Channel) -> EventLoopFuture<Wrapped.ConfiguredChannel>
  ) -> EventLoopFuture<Opened> {
    let opened = channel.eventLoop.makePromise(of: Opened.self)
    let verification = PeerVerification(self.security) { credential throws(TransportError) in
      let isExpected = path.map { $0 == credential.path } ?? true
      guard credential.kind == .process, isExpected else {
        throw .unexpectedPeer(expected: path, found: credential.path)
      }
    }
    let guardian = ConnectionGuard(
      limits: self.limits, verification: verification, awaitsFirstBytes: true, opened: opened
    ) { credential, context in
      // TLS does not complete without the server's certificate.
      guard let credential else { throw TransportError.handshakeFailed("the server showed no certificate") }
      let channel = context.channel
      var result: Result<Wrapped.ConfiguredChannel, any Error> = .failure(TransportError.closed)
      // On its event loop, this is done when it returns.
      configure(channel).assumeIsolated().whenComplete { result = $0 }
      let configured = try result.get()
      // Whoever drops one of these while its channel is open crashes.
      channel.closeFuture.whenComplete { _ in withExtendedLifetime(configured) {} }
      let sync = channel.pipeline.syncOperations
      let http2 = try sync.handler(type: NIOHTTP2Handler.self)
      try sync.addHandler(GoAwayHandler(state), position: .after(http2))
      self.end(channel, at: credential, state: state)
      return Opened(configured: configured, peer: credential)
    }
    do {
      let tls = try NIOSSLClientHandler(
        context: self.security.clientContext, serverHostname: nil, customVerificationCallback: verification.callback)
      try channel.pipeline.syncOperations.addHandlers([tls, guardian])
    } catch {
      opened.fail(error)
    }
    return opened.futureResult
  }

  /// No connection outlives the certificate of its server: it takes no new calls then, and is closed soon after.
  private func end(_ channel: any Channel, at credential: Credential, state: ConnectionState) {
    let delay = TimeAmount(secondsFrom: self.security.now(), until: credential.notAfter)
    let drain = channel.eventLoop.scheduleTask(in: delay) { state.drain() }
    let cut = channel.eventLoop.scheduleTask(in: delay + TimeAmount(self.limits.drainTime)) {
      channel.close(promise: nil)
    }
    channel.closeFuture.whenComplete { _ in
      drain.cancel()
      cut.cancel()
    }
  }

  // MARK: Configuration

  private static func config(_ limits: TransportLimits, authority: String) -> Wrapped.Config {
    var config = Wrapped.Config.defaults
    config.connection.flushCoalescing?.maxFlushDelay = limits.flushDelay
    config.http2.maxFrameSize = limits.frameByteCount
    config.http2.targetWindowSize = limits.windowByteCount
    config.http2.authority = authority
    config.connection.maxIdleTime = limits.clientIdleTime
    config.connection.keepalive = .init(
      time: limits.keepaliveInterval, timeout: limits.keepaliveTimeout, allowWithoutCalls: true)
    return config
  }

  private static func serviceConfig(_ limits: TransportLimits) -> ServiceConfig {
    // grpc-swift's client bounds what it *receives* by this limit on requests (2.9.2).
    let everything = MethodConfig(
      names: [MethodConfig.Name(service: "")], maxRequestMessageBytes: limits.maxMessageByteCount,
      maxResponseMessageBytes: limits.maxMessageByteCount)
    return ServiceConfig(methodConfig: [everything])
  }
}
