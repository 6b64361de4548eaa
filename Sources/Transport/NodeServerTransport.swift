// SPDX-License-Identifier: Apache-2.0

package import GRPCCore
package import GRPCNIOTransportHTTP2Posix
package import Logging
package import NIOCore
internal import NIOPosix
internal import Synchronization
package import Trust

/// A gRPC server over mutual TLS, whose calls know who makes them.
///
/// Around grpc-swift's own HTTP/2 server it does three things:
///
/// - It accepts sockets, does the TLS handshake and the verification of the peer for each on its own, and hands over
///   what has passed. See ``ConnectionSource``, which also takes connections that came about in other ways.
/// - It sets `ServerContext.transportSpecific` to the ``ConnectionIdentity``; handlers read `context.caller`.
/// - It runs everything that has to do with a connection on that connection's event loop: grpc-swift's tasks, the
///   handlers, and the tasks that those start. A handler must not block.
///
/// There are two grpc-swift servers for each event loop of the group, one of them for anonymous callers. On a machine with few cores, a group of one thread
/// is the fastest: one busy thread beats two that wake each other.
///
/// Graceful shutdown refuses new connections, tells clients with GOAWAY to open no more streams, and lets calls finish.
/// Streams that live long should watch `context.cancellation`. What is still open after ``TransportLimits/drainTime``
/// is cut off.
package final class NodeServerTransport: ServerTransport {
  package typealias Bytes = GRPCNIOTransportBytes

  private typealias Inner = HTTP2ServerTransport.Custom<ConnectionFeed>

  private struct State {
    var context: GRPCServerContext?
    /// One for each feed, while it is open.
    var inner: [Inner] = []
    var listeners: [any Channel] = []
    /// It has ended, or was told to.
    var isClosed = false
  }

  /// The connections of this server.
  package let connections: ConnectionSource

  private let addresses: [ListenAddress]
  private let group: any EventLoopGroup
  private let limits: TransportLimits
  /// Two for each event loop.
  private let feeds: [ConnectionFeed]
  private let state = Mutex(State())
  /// Where it listens, as soon as it does.
  private let listening = Eventual<[NetworkAddress]>()

  /// - Parameters:
  ///   - security: Whom to believe, and the identity to show. It needs one.
  ///   - addresses: Where to listen. Port 0 takes a free one. With none, only connections that are handed to
  ///     `connections` are served.
  ///   - group: The event loops for sockets and calls. The caller shuts it down, after `listen` has returned.
  package init(
    security: TransportSecurity, listeningOn addresses: [ListenAddress], group: any EventLoopGroup,
    limits: TransportLimits = TransportLimits(), logger: Logger
  ) throws(TransportError) {
    _ = try security.serverContext()
    self.addresses = addresses
    self.group = group
    self.limits = limits
    self.feeds = group.makeIterator().flatMap { eventLoop in
      [false, true].map { ConnectionFeed(eventLoop, forAnonymous: $0, limits: limits) }
    }
    self.connections = ConnectionSource(security, limits: limits, feeds: self.feeds, logger: logger)
  }

  /// The addresses that the server listens on, in the order in which they were given. Waits until it does. Throws
  /// `TransportError.closed` when it could not start, or was told to stop before it had; or `CancellationError`.
  package var listeningAddresses: [NetworkAddress] {
    get async throws { try await self.listening.value }
  }

  package func configure(context: GRPCServerContext) {
    self.state.withLock { $0.context = context }
  }

  /// Returns when the server has been shut down and its last call has ended; at once, when it was shut down before. Throws
  /// why it can not serve.
  package func listen(
    streamHandler: @escaping @concurrent @Sendable (RPCStream<Inbound, Outbound>, ServerContext) async -> Void
  ) async throws {
    let result: Result<Void, any Error>
    do {
      try await self.run(streamHandler)
      result = .success(())
    } catch {
      // Whoever stops it before it has begun does not want to hear that it did not begin.
      result = self.state.withLock { $0.isClosed } ? .success(()) : .failure(error)
    }
    // Nothing of this server is left on the event loops when it returns: the caller may shut them down. (That is also
    // why grpc-swift's servers do not live as long as this object: one that is released later needs its event loop.)
    for channel in self.close() { try? await channel.closeFuture.get() }
    self.connections.closeAll()
    await self.connections.whenClosed()
    self.state.withLock { $0.inner = [] }
    try result.get()
  }

  private func run(
    _ streamHandler: @escaping @concurrent @Sendable (RPCStream<Inbound, Outbound>, ServerContext) async -> Void
  ) async throws {
    let inner = self.feeds.map { Inner(listenerFactory: $0, config: Self.config($0.limits)) }
    try self.state.withLock { state in
      guard !state.isClosed else { throw TransportError.closed }
      if let context = state.context { for server in inner { server.configure(context: context) } }
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (server, feed) in zip(inner, self.feeds) {
        group.addTask(executorPreference: EventLoopExecutor(feed.eventLoop)) {
          defer { feed.close() }
          try await server.listen { stream, context in await self.serve(stream, context, streamHandler) }
        }
      }
      for feed in self.feeds { try await feed.whenOpen() }
      // They hear of a shutdown only from now on: NIO does not expect that a channel is closed while it is being made.
      let isClosed = self.state.withLock { state in
        state.inner = inner
        return state.isClosed
      }
      if isClosed { for server in inner { server.beginGracefulShutdown() } } else { try await self.accept() }
      try await group.waitForAll()
    }
  }

  /// Idempotent, and may be called at any time, also before `listen`.
  package func beginGracefulShutdown() {
    _ = self.close()
    self.connections.close()
    for server in self.state.withLock({ $0.inner }) { server.beginGracefulShutdown() }
    // Ends with the event loop: there is nothing left to cut off then.
    self.group.next().scheduleTask(in: TimeAmount(self.limits.drainTime)) { [connections] in
      connections.closeAll()
    }
  }

  // MARK: Calls

  /// Finds out who makes the call, and has it handled.
  private func serve(
    _ stream: RPCStream<Inbound, Outbound>, _ context: ServerContext,
    _ handler: @concurrent @Sendable (RPCStream<Inbound, Outbound>, ServerContext) async -> Void
  ) async {
    var parts = stream.inbound.makeAsyncIterator()
    guard let first = try? await parts.next(), case .metadata(var metadata) = first else {
      await stream.outbound.finish()
      return
    }
    let token = metadata[stringValues: StreamGate.headerName].first { _ in true }.flatMap { StreamToken($0) }
    metadata.removeAllValues(forKey: StreamGate.headerName)
    guard let token, let connection = self.connections.connection(token) else {
      // The connection has been closed since. Deny by default: nobody is there who could be anybody.
      let status = Status(code: .unauthenticated, message: "The connection is closed.")
      try? await stream.outbound.write(.status(status, [:]))
      await stream.outbound.finish()
      return
    }
    var context = context
    context.transportSpecific = connection.identity
    let inbound = CallInbound(.metadata(metadata), then: parts, budget: connection.take(token))
    await handler(
      RPCStream(
        descriptor: stream.descriptor, inbound: RPCAsyncSequence(wrapping: inbound), outbound: stream.outbound),
      context)
  }

  // MARK: Accepting

  private func accept() async throws {
    for address in self.addresses {
      let channel = try await self.bind(address)
      let isClosed = self.state.withLock { state in
        state.listeners.append(channel)
        return state.isClosed
      }
      // Shut down meanwhile.
      if isClosed { channel.close(promise: nil) }
    }
    let listeners = self.state.withLock { $0.listeners }
    self.listening.settle(.success(listeners.compactMap { $0.localAddress.flatMap { NetworkAddress($0) } }))
  }

  private func bind(_ address: ListenAddress) async throws -> any Channel {
    try await ServerBootstrap(group: self.group)
      .serverChannelOption(.backlog, value: CInt(clamping: self.limits.acceptBacklog))
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelInitializer { channel in
        // Nobody waits for the handshake here: the next socket is accepted at once.
        _ = self.connections.admit(channel)
        return channel.eventLoop.makeSucceededVoidFuture()
      }
      .bind(host: address.host, port: Int(address.port)).get()
  }

  /// Stops accepting; returns what was listening.
  private func close() -> [any Channel] {
    let listeners = self.state.withLock { state in
      state.isClosed = true
      return state.listeners
    }
    self.listening.settle(.failure(TransportError.closed))
    for listener in listeners { listener.close(promise: nil) }
    return listeners
  }

  // MARK: Configuration

  private static func config(_ limits: TransportLimits) -> HTTP2ServerTransport.Custom<ConnectionFeed>.Config {
    var config = HTTP2ServerTransport.Custom<ConnectionFeed>.Config.defaults
    config.connection.maxIdleTime = limits.serverIdleTime
    config.connection.maxGraceTime = limits.drainTime
    config.connection.keepalive.time = limits.keepaliveInterval
    config.connection.keepalive.timeout = limits.keepaliveTimeout
    config.connection.keepalive.clientBehavior.allowWithoutCalls = true
    config.connection.keepalive.clientBehavior.minPingIntervalWithoutCalls = limits.minClientPingInterval
    config.connection.flushCoalescing?.maxFlushDelay = limits.flushDelay
    config.http2.maxFrameSize = limits.frameByteCount
    config.http2.targetWindowSize = limits.windowByteCount
    config.http2.maxConcurrentStreams = limits.maxConcurrentStreams
    config.rpc.maxRequestPayloadSize = limits.maxMessageByteCount
    config.channelDebuggingCallbacks.onAcceptHTTP2Stream = { stream in
      stream.eventLoop.makeCompletedFuture {
        typealias Guard = ConnectionGuard<ServerConnection>
        guard let connection = try stream.parent?.pipeline.syncOperations.handler(type: Guard.self).output else {
          throw TransportError.closed
        }
        try stream.pipeline.syncOperations.addHandler(StreamGate(connection, limits: limits), position: .first)
      }
    }
    return config
  }
}
