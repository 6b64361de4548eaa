// SPDX-License-Identifier: Apache-2.0

package import GRPCCore
package import GRPCNIOTransportHTTP2Posix
internal import NIOCore
internal import NIOHTTP2
internal import Synchronization
package import Trust

/// One open connection to a process, for making calls.
///
/// It makes calls while ``run()`` runs; calls that begin earlier wait for it. It never reconnects: when it has closed,
/// it is done. A ``ConnectionPool`` replaces it then.
package final class NodeConnection: Sendable {
  package typealias Client = GRPCClient<HTTP2ClientTransport.WrappedChannel>

  /// For the generated stubs.
  package let client: Client
  /// The process at the other end, as its certificate proved.
  package let peer: Credential
  /// Runs tasks on the connection's event loop; see ``onEventLoop(_:)``.
  package let executor: EventLoopExecutor

  private let channel: any Channel
  private let state: ConnectionState

  init(_ client: Client, peer: Credential, channel: any Channel, state: ConnectionState) {
    self.client = client
    self.peer = peer
    self.executor = EventLoopExecutor(channel.eventLoop)
    self.channel = channel
    self.state = state
  }

  /// Whether new calls may begin. False when the connection has closed, and from the moment when either side wants to
  /// close it; calls that are under way then go on.
  package var isUsable: Bool { self.channel.isActive && !self.state.isDraining }

  /// Runs `body`, and the tasks that it starts, on the connection's event loop. Its calls need no hop between threads
  /// then, which makes them several times as fast. It must not block.
  package func onEventLoop<Result, Failure: Error>(
    _ body: @concurrent () async throws(Failure) -> Result
  ) async throws(Failure) -> Result {
    try await withTaskExecutorPreference(self.executor, operation: body)
  }

  /// Keeps the connection going until it has closed. Cancelled, it closes at once. Call it once.
  package func run() async {
    let channel = self.channel
    await withTaskCancellationHandler {
      await self.onEventLoop {
        // What it throws is that it was never started, or why the connection closed: every call has heard that, too.
        try? await self.client.runConnections()
      }
    } onCancel: {
      channel.close(promise: nil)
    }
    self.channel.close(promise: nil)
    try? await self.channel.closeFuture.get()
  }

  /// No new calls; closes when those under way have ended.
  package func beginGracefulShutdown() {
    self.state.drain()
    self.client.beginGracefulShutdown()
  }

  /// Closes at once.
  package func close() {
    self.state.drain()
    self.channel.close(promise: nil)
  }
}

/// What the event loop knows about a connection and others want to know.
final class ConnectionState: Sendable {
  private let draining = Atomic(false)

  var isDraining: Bool { self.draining.load(ordering: .acquiring) }

  func drain() { self.draining.store(true, ordering: .releasing) }
}

/// Notes that the server has asked, with a GOAWAY frame, for no more streams. Sits behind the HTTP/2 handler.
final class GoAwayHandler: ChannelInboundHandler {
  typealias InboundIn = HTTP2Frame
  typealias InboundOut = HTTP2Frame

  private let state: ConnectionState

  init(_ state: ConnectionState) {
    self.state = state
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    if case .goAway = self.unwrapInboundIn(data).payload { self.state.drain() }
    context.fireChannelRead(data)
  }
}
