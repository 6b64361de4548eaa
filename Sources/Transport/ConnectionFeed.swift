// SPDX-License-Identifier: Apache-2.0

internal import GRPCNIOTransportHTTP2Posix
internal import NIOCore
internal import NIOPosix
internal import Synchronization
internal import SystemPackage

/// The "listening" channel of one event loop, for one kind of callers: a pipe that nobody writes to.
///
/// grpc-swift takes connections as reads from a listening channel. A real one can only read sockets that it accepted;
/// this one is given whatever connection is ready to be served, wherever it came from. All of it happens on one event
/// loop: the pipe, its connections, and the tasks that serve them.
///
/// All connections of a listening channel have the same HTTP/2 settings. So those of anonymous callers have one of their
/// own, with smaller ones.
final class ConnectionFeed: HTTP2ServerTransport.ListenerFactory {
  typealias Configurator = HTTP2ServerTransport.ConnectionConfigurator

  private enum State {
    case waiting
    case open(any Channel, Configurator)
    case closed
  }

  let eventLoop: any EventLoop
  let isForAnonymous: Bool
  /// What holds for each of its connections.
  let limits: TransportLimits
  private let state = Mutex(State.waiting)
  private let opening = Eventual<Void>()

  /// - Parameter limits: The server's.
  init(_ eventLoop: any EventLoop, forAnonymous isForAnonymous: Bool, limits: TransportLimits) {
    self.eventLoop = eventLoop
    self.isForAnonymous = isForAnonymous
    self.limits = isForAnonymous ? limits.forAnonymous : limits
  }

  var eventLoopGroup: any EventLoopGroup { self.eventLoop }

  func makeListeningChannel(
    listenerConfigurator: HTTP2ServerTransport.ListenerConfigurator, connectionConfigurator: Configurator
  ) async throws -> NIOAsyncChannel<Configurator.ConnectionChannel, Never> {
    do {
      let (input, output) = try SystemPackage.FileDescriptor.pipe()
      let channel = try await Self.takePipe(input, output, eventLoop: self.eventLoop) { channel in
        listenerConfigurator.configure(channel: channel).flatMapThrowing {
          try channel.pipeline.syncOperations.addHandler(FedConnectionHandler())
          return try NIOAsyncChannel<Configurator.ConnectionChannel, Never>(wrappingChannelSynchronously: channel)
        }
      }
      channel.channel.closeFuture.whenComplete { _ in
        self.close()
        try? output.close()
      }
      self.open(channel.channel, connectionConfigurator)
      return channel
    } catch {
      self.opening.settle(.failure(error))
      self.close()
      throw error
    }
  }

  private static func takePipe<Output: Sendable>(
    _ input: SystemPackage.FileDescriptor, _ output: SystemPackage.FileDescriptor, eventLoop: any EventLoop,
    initializer: @escaping @Sendable (any Channel) -> EventLoopFuture<Output>
  ) async throws -> Output {
    do {
      return try await NIOPipeBootstrap(group: eventLoop)
        .takingOwnershipOfDescriptor(input: input.rawValue, channelInitializer: initializer)
    } catch {
      // On an error the descriptors are still ours.
      try? input.close()
      try? output.close()
      throw error
    }
  }

  /// Waits until connections can be fed in. Throws why that will never be, `TransportError.closed` when it has been
  /// closed before; or `CancellationError`.
  func whenOpen() async throws { try await self.opening.value }

  private func open(_ channel: any Channel, _ configurator: Configurator) {
    self.state.withLock { if case .waiting = $0 { $0 = .open(channel, configurator) } }
    self.opening.settle(.success(()))
  }

  /// Idempotent.
  func close() {
    self.state.withLock { $0 = .closed }
    self.opening.settle(.failure(TransportError.closed))
  }

  /// Serves calls on a connection of this event loop whose TLS handshake is complete. Called on that event loop.
  func feed(_ channel: any Channel) throws(TransportError) {
    self.eventLoop.preconditionInEventLoop()
    guard case .open(let listener, let configurator) = self.state.withLock({ $0 }), listener.isActive else {
      throw TransportError.closed
    }
    let configured = configurator.configure(channel: channel, tls: .configured(requireALPN: true))
    configured.assumeIsolated().whenSuccess { connection in
      // Whoever drops one of these while its channel is open crashes, and the listener may close before it has taken
      // all that it was given.
      channel.closeFuture.whenComplete { _ in withExtendedLifetime(connection) {} }
      let fed = FedConnection(channel: channel, connection: connection)
      listener.pipeline.syncOperations.fireChannelRead(NIOAny(fed.channel))
      listener.pipeline.syncOperations.fireUserInboundEventTriggered(fed)
    }
    configured.whenFailure { _ in channel.close(promise: nil) }
  }
}

/// A connection on its way into the listening channel.
struct FedConnection: Sendable {
  let channel: any Channel
  let connection: HTTP2ServerTransport.ConnectionConfigurator.ConnectionChannel
}

/// Turns what is fed into the listening channel into what grpc-swift reads from it.
///
/// The handler before this one, which closes connections when the server shuts down, wants to see a `Channel`; it gets
/// that as a read, which ends here. The connection itself follows as an event.
private final class FedConnectionHandler: ChannelInboundHandler {
  typealias InboundIn = any Channel
  typealias InboundOut = HTTP2ServerTransport.ConnectionConfigurator.ConnectionChannel

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard let fed = event as? FedConnection else { return context.fireUserInboundEventTriggered(event) }
    context.fireChannelRead(self.wrapInboundOut(fed.connection))
    context.fireChannelReadComplete()
  }
}
