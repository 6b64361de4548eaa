// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Logging
package import NIOCore
internal import NIOSSL
internal import Synchronization
internal import Trust

/// All connections of a server: those under way and those that are open.
///
/// A connection can come from a listening socket, from a dial of our own, or out of a relay's tunnel; whatever carries
/// its bytes, it goes through the same TLS handshake here and is served like any other.
package final class ConnectionSource: Sendable {
  private struct State {
    /// All that has not closed yet.
    var channels: [ObjectIdentifier: any Channel] = [:]
    /// By a number that grows, so that the oldest is easily found.
    var handshakes: [UInt64: any Channel] = [:]
    var oldestHandshake: UInt64 = 0
    var nextHandshake: UInt64 = 0
    var open: [String: ServerConnection] = [:]
    var anonymousCount = 0
    var isClosed = false

    mutating func popOldestHandshake() -> (any Channel)? {
      while self.oldestHandshake < self.nextHandshake {
        defer { self.oldestHandshake += 1 }
        if let channel = self.handshakes.removeValue(forKey: self.oldestHandshake) { return channel }
      }
      return nil
    }
  }

  private let security: TransportSecurity
  private let limits: TransportLimits
  private let feeds: [ConnectionFeed]
  /// What all connections hold together, and those of anonymous callers.
  private let budgets: (all: ReceiveBudget, anonymous: ReceiveBudget)
  private let logger: Logger
  private let state = Mutex(State())

  init(_ security: TransportSecurity, limits: TransportLimits, feeds: [ConnectionFeed], logger: Logger) {
    self.security = security
    self.limits = limits
    self.feeds = feeds
    let all = ReceiveBudget(limit: limits.totalReceiveByteCount)
    self.budgets = (all, ReceiveBudget(limit: limits.totalAnonymousReceiveByteCount, within: all))
    self.logger = logger
  }

  /// How many connections there are now.
  package var counts: (handshakes: Int, open: Int) {
    self.state.withLock { ($0.handshakes.count, $0.open.count) }
  }

  /// The identities of all open connections, in no order.
  package var identities: [ConnectionIdentity] {
    self.state.withLock { $0.open.values.map(\.identity) }
  }

  /// Closes every open connection that `condition` holds for, and their calls with them; returns how many. No call
  /// that begins later on one of them is served.
  @discardableResult
  package func closeConnections(where condition: (ConnectionIdentity) -> Bool) -> Int {
    let doomed = self.state.withLock { state in
      let doomed = state.open.values.filter { condition($0.identity) }
      for connection in doomed { state.open[connection.identity.id.description] = nil }
      return doomed
    }
    for connection in doomed { connection.channel.close(promise: nil) }
    return doomed.count
  }

  /// Does the TLS handshake on a channel that carries bytes and serves the calls that come in on it. This side is the
  /// TLS server.
  ///
  /// The channel has to be active, to belong to one of the server's event loops, and not to have read anything yet
  /// (`autoRead` off; this turns it on). From here on it belongs to the server, which closes it in the end.
  ///
  /// - Returns: Who is at the other end, when the handshake is complete.
  @discardableResult
  package func serve(_ channel: any Channel) async throws -> ConnectionIdentity {
    let opened = channel.eventLoop.flatSubmit {
      let opened = self.admit(channel)
      return channel.setOption(.autoRead, value: true).flatMap { opened }
    }
    return try await opened.get().identity
  }

  // MARK: For the transport

  /// The open connection that a stream's token names.
  func connection(_ token: StreamToken) -> ServerConnection? {
    self.state.withLock { $0.open[token.connection] }
  }

  /// Begins the handshake. Called on the channel's event loop. When that fails, the channel is closed.
  ///
  /// - Returns: The connection, once it is open.
  func admit(_ channel: any Channel) -> EventLoopFuture<ServerConnection> {
    let opened = channel.eventLoop.makePromise(of: ServerConnection.self)
    do {
      let feeds = self.feeds.filter { $0.eventLoop === channel.eventLoop }
      guard !feeds.isEmpty else { throw TransportError.foreignEventLoop }
      let number = try self.register(channel)
      opened.futureResult.whenComplete { _ in self.handshakeEnded(number) }
      let verification = PeerVerification(self.security)
      let handler = NIOSSLServerHandler(
        context: try self.security.serverContext(), customVerificationCallback: verification.callback)
      let guardian = ConnectionGuard(
        limits: self.limits, verification: verification, awaitsFirstBytes: false, opened: opened
      ) { credential, context in
        guard let feed = feeds.first(where: { $0.isForAnonymous == (credential == nil) }) else {
          throw TransportError.closed
        }
        return try self.open(context.channel, credential, feed: feed)
      }
      try channel.pipeline.syncOperations.addHandlers([handler, guardian])
    } catch {
      opened.fail(error)
      channel.close(promise: nil)
    }
    opened.futureResult.whenFailure { error in
      self.logger.debug(
        "connection refused", metadata: ["peer": "\(channel.remoteAddress, default: "unknown")", "error": "\(error)"])
    }
    return opened.futureResult
  }

  /// No new connections; those whose handshake is not complete are closed.
  func close() {
    let channels = self.state.withLock { state in
      state.isClosed = true
      defer { state.handshakes = [:] }
      return Array(state.handshakes.values)
    }
    for channel in channels { channel.close(promise: nil) }
  }

  /// Closes everything at once.
  func closeAll() {
    self.close()
    for channel in self.state.withLock({ Array($0.channels.values) }) { channel.close(promise: nil) }
  }

  /// Waits until all connections have closed.
  func whenClosed() async {
    while let channel = self.state.withLock({ $0.channels.values.first }) {
      // Never fails. By the time it is completed, the channel has been forgotten: that was registered first.
      try? await channel.closeFuture.get()
    }
  }

  private func register(_ channel: any Channel) throws(TransportError) -> UInt64 {
    // Closed in any case, as nobody else knows of it any more: also when there is no room for the new one.
    var evicted: (any Channel)?
    defer { evicted?.close(promise: nil) }
    let number = try self.state.withLock { state throws(TransportError) in
      guard !state.isClosed else { throw .closed }
      if state.handshakes.count >= self.limits.maxConcurrentHandshakes {
        evicted = state.popOldestHandshake()
      }
      guard state.channels.count < self.limits.maxConnections else { throw .tooManyConnections }
      state.channels[ObjectIdentifier(channel)] = channel
      defer { state.nextHandshake += 1 }
      state.handshakes[state.nextHandshake] = channel
      return state.nextHandshake
    }
    channel.closeFuture.whenComplete { _ in
      _ = self.state.withLock { $0.channels.removeValue(forKey: ObjectIdentifier(channel)) }
    }
    return number
  }

  private func handshakeEnded(_ number: UInt64) {
    self.state.withLock { $0.handshakes[number] = nil }
  }

  private func open(
    _ channel: any Channel, _ credential: Credential?, feed: ConnectionFeed
  ) throws(TransportError) -> ServerConnection {
    let identity = ConnectionIdentity(
      id: ConnectionID(), caller: credential.map { .credential($0) } ?? .anonymous,
      remoteAddress: channel.remoteAddress.map { "\($0)" } ?? "unknown")
    let total = feed.isForAnonymous ? self.budgets.anonymous : self.budgets.all
    let connection = ServerConnection(
      identity, channel: channel,
      budget: ReceiveBudget(limit: feed.limits.connectionReceiveByteCount, within: total))
    let anonymousCount = credential == nil ? 1 : 0
    try self.state.withLock { state throws(TransportError) in
      guard !state.isClosed else { throw .closed }
      guard state.anonymousCount + anonymousCount <= self.limits.anonymousConnectionCountMax else {
        throw .tooManyConnections
      }
      state.anonymousCount += anonymousCount
      state.open[identity.id.description] = connection
    }
    channel.closeFuture.whenComplete { _ in
      self.state.withLock { state in
        state.anonymousCount -= anonymousCount
        state.open[identity.id.description] = nil
      }
    }
    try feed.feed(channel)
    if let credential { self.end(channel, at: credential.notAfter) }
    return connection
  }

  /// No connection outlives the certificate that it was opened with: it is asked to finish, and closed soon after.
  private func end(_ channel: any Channel, at time: Date) {
    let delay = TimeAmount(secondsFrom: self.security.now(), until: time)
    let drain = channel.eventLoop.scheduleTask(in: delay) {
      channel.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
    }
    let cut = channel.eventLoop.scheduleTask(in: delay + TimeAmount(self.limits.drainTime)) {
      channel.close(promise: nil)
    }
    channel.closeFuture.whenComplete { _ in
      drain.cancel()
      cut.cancel()
    }
  }
}

extension TimeAmount {
  /// At least zero, at most a hundred years.
  init(secondsFrom start: Date, until end: Date) {
    self = .seconds(Int64(min(max(end.timeIntervalSince(start).rounded(.up), 0), 3_153_600_000)))
  }
}
