// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOHTTP2
internal import NIOSSL
internal import NIOTLS
internal import Trust

/// Watches over one connection from its first byte to its last, right behind the TLS handler.
///
/// It gives the handshake a deadline, asks for the verdict on the peer, builds what comes behind it in the pipeline in
/// the very moment when the handshake is complete (so that no byte is lost), and closes the connection when nothing at
/// all has been received for too long: a peer that has vanished without a word frees what it held.
final class ConnectionGuard<Output: Sendable>: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer
  typealias InboundOut = ByteBuffer

  private enum Phase {
    case handshaking
    /// Only for clients: with TLS 1.3 a client's handshake is complete before the server has looked at the client's
    /// certificate. The first bytes from the server are the proof that it has, and liked it.
    case provisional
    case open
    case closed
  }

  private let limits: TransportLimits
  private let verification: PeerVerification
  private let awaitsFirstBytes: Bool
  private let build: (Credential?, ChannelHandlerContext) throws -> Output
  private let opened: EventLoopPromise<Output>

  private var phase = Phase.handshaking
  private var deadline: Scheduled<Void>?
  private var vigil: Scheduled<Void>?
  private var heard = true
  private var frames: FrameCut

  /// What `build` returned, from then on.
  private(set) var output: Output?

  /// - Parameters:
  ///   - awaitsFirstBytes: Whether the connection is open only when the peer has sent something.
  ///   - opened: Completed when the connection is open, or with a `TransportError` when it never will be.
  ///   - build: Called on the event loop when the peer is known, with nothing for an anonymous one.
  init(
    limits: TransportLimits, verification: PeerVerification, awaitsFirstBytes: Bool, opened: EventLoopPromise<Output>,
    build: @escaping (Credential?, ChannelHandlerContext) throws -> Output
  ) {
    self.limits = limits
    self.verification = verification
    self.awaitsFirstBytes = awaitsFirstBytes
    // Only a client waits for the other side's first bytes; what a server gets begins with the preface.
    self.frames = FrameCut(isServer: !awaitsFirstBytes)
    self.opened = opened
    self.build = build
  }

  var whenOpened: EventLoopFuture<Output> { self.opened.futureResult }

  func handlerAdded(context: ChannelHandlerContext) {
    let timeout = TimeAmount(self.limits.handshakeTimeout)
    self.deadline = context.eventLoop.assumeIsolated().scheduleTask(in: timeout) {
      self.fail(.handshakeTimedOut, context)
    }
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    self.end(.closed)
  }

  func channelInactive(context: ChannelHandlerContext) {
    self.end(self.verification.refusal ?? .handshakeFailed("the peer hung up"))
    context.fireChannelInactive()
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .handshakeCompleted(let name)? = event as? TLSUserEvent { self.handshakeCompleted(name, context) }
    context.fireUserInboundEventTriggered(event)
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    self.heard = true
    if case .provisional = self.phase, let output = self.output { self.open(output) }
    var bytes = self.unwrapInboundIn(data)
    // What is handed on before the handshake's end reaches nobody, and is none of the protocol's.
    if self.output != nil, let count = self.frames.cut(bytes.readableBytesView),
      let first = bytes.readSlice(length: count)
    {
      context.fireChannelRead(self.wrapInboundOut(first))
    }
    context.fireChannelRead(self.wrapInboundOut(bytes))
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    switch self.phase {
    case .handshaking, .provisional:
      self.fail(self.verification.refusal ?? .handshakeFailed("\(error)"), context)
    case .open, .closed:
      context.fireErrorCaught(error)
    }
  }

  private func handshakeCompleted(_ protocolName: String?, _ context: ChannelHandlerContext) {
    guard case .handshaking = self.phase else { return }
    do {
      guard protocolName == TransportSecurity.protocolName else {
        throw TransportError.handshakeFailed("the peer does not speak HTTP/2")
      }
      let leaf = try context.pipeline.syncOperations.nioSSL_peerCertificate()
      let output = try self.build(self.verification.conclude(leaf: leaf), context)
      self.output = output
      self.phase = .provisional
      // The handlers that were just added have missed this, and start their timers on it.
      try context.pipeline.syncOperations.context(handlerType: NIOHTTP2Handler.self).fireChannelActive()
      self.listen(context)
      if !self.awaitsFirstBytes { self.open(output) }
    } catch {
      self.fail(error as? TransportError ?? .handshakeFailed("\(error)"), context)
    }
  }

  private func open(_ output: Output) {
    self.phase = .open
    self.deadline?.cancel()
    self.opened.succeed(output)
  }

  private func listen(_ context: ChannelHandlerContext) {
    guard self.heard else { return context.close(promise: nil) }
    self.heard = false
    self.vigil = context.eventLoop.assumeIsolated().scheduleTask(in: self.limits.silence) {
      self.listen(context)
    }
  }

  private func fail(_ error: TransportError, _ context: ChannelHandlerContext) {
    self.end(error)
    context.close(promise: nil)
  }

  /// Idempotent. The promise ignores this when it has been completed before.
  private func end(_ error: TransportError) {
    switch self.phase {
    case .handshaking, .provisional: self.opened.fail(error)
    case .open, .closed: break
    }
    self.phase = .closed
    self.deadline?.cancel()
    self.vigil?.cancel()
  }
}
