// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
internal import GRPCProtobuf
internal import NIOCore
internal import NIOHPACK
internal import NIOHTTP2

/// The first handler on each HTTP/2 stream of a server, before anything of gRPC.
///
/// - It tells the call which connection it came in on. A `ServerTransport` around grpc-swift's can not see that, so the
///   gate writes it into a reserved header, which the transport takes out again before a handler sees the metadata. A
///   client may send what it likes in that header: it never gets past here.
/// - It ends a call whose message is too large with a status. (The runtime would reset the stream without a word.)
/// - It ends a call whose client ends its side in the middle of a message.
/// - It stops reading when the handler does not keep up, and ends calls when a connection, or all of them, has too much under
///   way.
final class StreamGate: ChannelDuplexHandler {
  typealias InboundIn = HTTP2Frame.FramePayload
  typealias InboundOut = HTTP2Frame.FramePayload
  typealias OutboundIn = HTTP2Frame.FramePayload
  typealias OutboundOut = HTTP2Frame.FramePayload

  static let headerName = "x-blocktree-connection"

  private let connection: ServerConnection
  private let budget: StreamBudget
  private let messageByteCountMax: Int
  private let token: StreamToken

  private var framing = MessageFraming()
  private var hasHeaders = false
  private var hasResponse = false
  private var isRefused = false
  private var isReadHeld = false

  init(_ connection: ServerConnection, limits: TransportLimits) {
    self.connection = connection
    self.budget = StreamBudget(limit: limits.readAheadByteCount, connection: connection.budget)
    self.messageByteCountMax = limits.maxMessageByteCount
    self.token = connection.begin(self.budget)
  }

  func handlerAdded(context: ChannelHandlerContext) {
    let resume = NIOLoopBound((gate: self, context: context), eventLoop: context.eventLoop)
    let eventLoop = context.eventLoop
    self.budget.onResume {
      if eventLoop.inEventLoop {
        resume.value.gate.resume(resume.value.context)
      } else {
        eventLoop.execute { resume.value.gate.resume(resume.value.context) }
      }
    }
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    self.budget.close()
    // A stream that ends before its call began leaves nothing behind.
    _ = self.connection.take(self.token)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch self.unwrapInboundIn(data) {
    case .headers(var headers):
      if headers.endStream, self.framing.isInsideMessage { return self.refuse(MessageRefusal.truncated, context) }
      headers.headers.remove(name: Self.headerName)
      if !self.hasHeaders {
        self.hasHeaders = true
        headers.headers.add(name: Self.headerName, value: self.token.description, indexing: .neverIndexed)
      }
      context.fireChannelRead(self.wrapInboundOut(.headers(headers)))
    case .data(let frame):
      guard !self.isRefused else { return }
      if case .byteBuffer(let bytes) = frame.data {
        let limit = self.messageByteCountMax
        switch bytes.withUnsafeReadableBytes({ self.framing.advance(over: $0, limit: limit) }) {
        case .messages(let count):
          guard self.budget.received(byteCount: bytes.readableBytes, wholeMessageCount: count) else {
            return self.refuse(MessageRefusal.tooMuchAtOnce, context)
          }
        case .tooLarge(let byteCount):
          return self.refuse(MessageRefusal.tooLarge(byteCount: byteCount, limit: limit), context)
        }
      }
      // The runtime would take what came before for the whole: half a file is not a file.
      if frame.endStream, self.framing.isInsideMessage { return self.refuse(MessageRefusal.truncated, context) }
      context.fireChannelRead(data)
    default:
      context.fireChannelRead(data)
    }
  }

  func read(context: ChannelHandlerContext) {
    if self.budget.mayRead() {
      context.read()
    } else {
      self.isReadHeld = true
    }
  }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    if case .headers = self.unwrapOutboundIn(data) { self.hasResponse = true }
    guard !self.isRefused else {
      // The response has ended. Whatever the handler still says about the call comes too late.
      promise?.fail(ChannelError.outputClosed)
      return
    }
    context.write(data, promise: promise)
  }

  private func resume(_ context: ChannelHandlerContext) {
    guard self.isReadHeld else { return }
    self.isReadHeld = false
    context.read()
  }

  private func refuse(_ refusal: MessageRefusal, _ context: ChannelHandlerContext) {
    self.isRefused = true
    // At once: the streams whose frames come next may go on.
    self.budget.close()
    let status = refusal.status
    var trailers = HPACKHeaders()
    if !self.hasResponse {
      trailers.add(name: ":status", value: "200")
      trailers.add(name: "content-type", value: "application/grpc")
    }
    trailers.add(name: "grpc-status", value: "\(status.code.rawValue)")
    trailers.add(name: "grpc-message", value: status.message)
    for (key, value) in status.rpcErrorMetadata { trailers.add(name: key, value: value.encoded()) }
    context.writeAndFlush(self.wrapOutboundOut(.headers(.init(headers: trailers, endStream: true))), promise: nil)
    // For the handler, the call is over.
    context.fireChannelRead(self.wrapInboundOut(.rstStream(.cancel)))
  }
}
