// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import ServiceLifecycle
private import Synchronization
internal import Telemetry
internal import Transport

/// Answers `GET /metrics` over plain HTTP/1.1, on an address of its own.
///
/// There is no TLS and no question who asks: whoever reaches the address may read. So it is off unless it is set, and
/// belongs on loopback or a network that only watchers reach. What it tells is numbers, and no secrets.
struct MetricsEndpoint: ServiceLifecycle.Service {
  enum Limits {
    /// One more is closed as it is accepted.
    static let connectionsMax = 16
    /// All that one connection may send. Each serves one request.
    static let requestByteCountMax = 16 << 10
    /// From the first byte of a connection to its end.
    static let connectionTime = TimeAmount.seconds(10)
    static let backlog: Int32 = 16
  }

  let listen: ListenAddress
  let eventLoops: any EventLoopGroup
  /// Where metrics are gathered, as that may wait for a disk.
  let pool: NIOThreadPool
  let logger: Logger
  let text: @Sendable () -> [UInt8]

  /// Throws when the address can not be listened on.
  func run() async throws {
    let connections = OpenConnections()
    let server: any Channel
    do {
      server = try await self.bootstrap(connections).bind(host: self.listen.host, port: Int(self.listen.port)).get()
    } catch {
      throw NodeError.listening("\(self.listen)", why: "\(error)")
    }
    let address = server.localAddress
    self.logger.info("serving metrics", metadata: ["address": "\(Self.text(address) ?? "\(self.listen)")"])
    if let address, !Self.isLoopback(address) {
      self.logger.warning(
        "metrics are open to whoever reaches their address", metadata: ["address": "\(self.listen)"])
    }
    try? await gracefulShutdown()
    try? await server.close()
    await connections.closeAll()
  }

  private func bootstrap(_ connections: OpenConnections) -> ServerBootstrap {
    ServerBootstrap(group: self.eventLoops)
      .serverChannelOption(.backlog, value: Limits.backlog)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          // A failed initializer closes the channel.
          guard connections.admit(channel) else { throw ChannelError.eof }
          var limits = NIOHTTPDecoderLimitConfiguration()
          limits.maxHeaderFieldSize = Limits.requestByteCountMax
          limits.maxHeaderListSize = Limits.requestByteCountMax
          limits.maxHeaderFieldCount = 64
          let pipeline = channel.pipeline.syncOperations
          try pipeline.addHandler(RequestCap(Limits.requestByteCountMax))
          try pipeline.configureHTTPServerPipeline(
            withPipeliningAssistance: false, withErrorHandling: true, withEncoderConfiguration: .init(),
            withDecoderLimitConfiguration: limits)
          try pipeline.addHandler(MetricsHandler(pool: self.pool, text: self.text))
          let end = channel.eventLoop.scheduleTask(in: Limits.connectionTime) { channel.close(promise: nil) }
          channel.closeFuture.whenComplete { _ in end.cancel() }
        }
      }
  }

  private static func text(_ address: SocketAddress?) -> String? {
    guard let address, let host = address.ipAddress, let port = address.port.flatMap({ UInt16(exactly: $0) }) else {
      return nil
    }
    return ListenAddress(host: host, port: port).description
  }

  static func isLoopback(_ address: SocketAddress) -> Bool {
    guard let host = address.ipAddress else { return false }
    return address.protocol == .inet ? host.hasPrefix("127.") : host == "::1"
  }
}

/// The connections of an endpoint that have not closed yet.
private final class OpenConnections: Sendable {
  private struct State {
    var channels: [ObjectIdentifier: any Channel] = [:]
    var isClosed = false
  }

  private let state = Mutex(State())

  /// False when there are too many, or no more are wanted.
  func admit(_ channel: any Channel) -> Bool {
    let id = ObjectIdentifier(channel)
    let isAdmitted = self.state.withLock { state in
      guard !state.isClosed, state.channels.count < MetricsEndpoint.Limits.connectionsMax else { return false }
      state.channels[id] = channel
      return true
    }
    if isAdmitted {
      channel.closeFuture.whenComplete { _ in _ = self.state.withLock { $0.channels.removeValue(forKey: id) } }
    }
    return isAdmitted
  }

  func closeAll() async {
    let channels = self.state.withLock { state in
      state.isClosed = true
      return Array(state.channels.values)
    }
    for channel in channels { try? await channel.close() }
  }
}

/// Closes a connection that has sent too much, whatever it is.
private final class RequestCap: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer

  private var left: Int

  init(_ byteCountMax: Int) { self.left = byteCountMax }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    self.left -= self.unwrapInboundIn(data).readableBytes
    guard self.left >= 0 else { return context.close(promise: nil) }
    context.fireChannelRead(data)
  }
}

/// Answers one request, and closes the connection.
private final class MetricsHandler: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private enum State {
    case waiting
    case asked(HTTPRequestHead)
    /// The rest of what comes is of no interest.
    case answered
  }

  private let pool: NIOThreadPool
  private let text: @Sendable () -> [UInt8]
  private var state = State.waiting

  init(pool: NIOThreadPool, text: @escaping @Sendable () -> [UInt8]) {
    self.pool = pool
    self.text = text
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch (self.unwrapInboundIn(data), self.state) {
    case (.head(let head), .waiting):
      self.state = .asked(head)
    case (.body, .asked):
      self.state = .answered
      self.refuse(.payloadTooLarge, context)
    case (.end, .asked(let head)):
      self.state = .answered
      self.answer(head, context)
    default: break
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    // What is no HTTP has been answered, and a connection that is broken needs no answer.
    context.close(promise: nil)
  }

  private func answer(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
    guard head.uri.prefix(while: { $0 != "?" }) == "/metrics" else { return self.refuse(.notFound, context) }
    guard head.method == .GET else {
      return self.refuse(.methodNotAllowed, context, headers: [("allow", "GET")])
    }
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    self.pool.runIfActive(eventLoop: context.eventLoop, self.text).whenComplete { result in
      let (handler, context) = bound.value
      switch result {
      case .success(let text): handler.write(.ok, ["content-type": ExpositionText.contentType], text, context)
      case .failure: handler.refuse(.serviceUnavailable, context)
      }
    }
  }

  private func refuse(
    _ status: HTTPResponseStatus, _ context: ChannelHandlerContext, headers: [(String, String)] = []
  ) {
    self.write(
      status, HTTPHeaders([("content-type", "text/plain; charset=utf-8")] + headers), Array("\(status)\n".utf8),
      context)
  }

  private func write(
    _ status: HTTPResponseStatus, _ headers: HTTPHeaders, _ body: [UInt8], _ context: ChannelHandlerContext
  ) {
    guard context.channel.isActive else { return }
    var headers = headers
    headers.add(name: "content-length", value: "\(body.count)")
    headers.add(name: "connection", value: "close")
    context.write(
      self.wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers))), promise: nil)
    context.write(self.wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: body)))), promise: nil)
    let channel = context.channel
    context.writeAndFlush(self.wrapOutboundOut(.end(nil))).whenComplete { _ in channel.close(promise: nil) }
  }
}
