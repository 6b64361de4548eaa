// SPDX-License-Identifier: Apache-2.0

internal import Synchronization
package import Trust

/// The open connections of this process to others, one for each address and expected process.
///
/// Whoever needs a connection asks for it; the pool opens it, or hands out the one that is there, and forgets it when
/// it closes. Requests for the same peer at the same time share one dial. A peer that could not be reached is left alone
/// for a while: requests fail at once then, so that callers can turn to another one.
///
/// Connections live in ``run()``, and end with it.
package final class ConnectionPool: Sendable {
  package struct Peer: Hashable, Sendable {
    package let address: NetworkAddress
    /// Nothing for any process of the domain.
    package let expectedPath: TreePath?

    package init(_ address: NetworkAddress, expecting path: TreePath? = nil) {
      self.address = address
      self.expectedPath = path
    }
  }

  private let dialer: Dialer
  private let machine: Mutex<PoolMachine>
  private let dials: AsyncStream<Peer>
  private let dial: AsyncStream<Peer>.Continuation

  package init(_ dialer: Dialer) {
    self.dialer = dialer
    self.machine = Mutex(PoolMachine(dialer.limits))
    // Bounded by the number of peers: one that is being dialled is not asked for again.
    (self.dials, self.dial) = AsyncStream.makeStream(of: Peer.self)
  }

  /// Runs all connections, until it is cancelled (they close at once) or shut down (they finish their calls). Call it
  /// once.
  package func run() async {
    await withTaskCancellationHandler {
      await withDiscardingTaskGroup { group in
        for await peer in self.dials {
          group.addTask { await self.tend(peer) }
        }
      }
    } onCancel: {
      self.stop()
    }
    self.stop()
  }

  /// A connection to the peer that takes new calls at this moment.
  ///
  /// Waits while one is being opened; needs ``run()``. When a call on it fails with `unavailable`, ask again: the answer
  /// is another connection, if that one has closed.
  package func connection(
    to address: NetworkAddress, expecting path: TreePath? = nil
  ) async throws -> NodeConnection {
    let peer = Peer(address, expecting: path)
    let id = self.machine.withLock { $0.nextWaiter() }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let answer = self.machine.withLock { $0.request(peer, id, continuation, now: .now) }
        switch answer {
        case .result(let result): continuation.resume(with: result)
        case .dial: self.dial.yield(peer)
        case .wait: break
        }
        // Cancelled before it was waiting: the handler below has found nothing then.
        if Task.isCancelled { self.cancel(peer, id) }
      }
    } onCancel: {
      self.cancel(peer, id)
    }
  }

  /// All connections that are open.
  package var connections: [NodeConnection] { self.machine.withLock { $0.connections } }

  /// Closes every open connection that `condition` holds for; returns how many. For revoked keys.
  @discardableResult
  package func closeConnections(where condition: (NodeConnection) -> Bool) -> Int {
    let doomed = self.connections.filter(condition)
    for connection in doomed { connection.close() }
    return doomed.count
  }

  /// No new connections; those that are open close when their calls have ended. ``run()`` returns then.
  package func beginGracefulShutdown() {
    self.stop()
    for connection in self.connections { connection.beginGracefulShutdown() }
  }

  private func stop() {
    let waiters = self.machine.withLock { $0.stop() }
    self.dial.finish()
    for waiter in waiters { waiter.resume(throwing: TransportError.closed) }
  }

  private func cancel(_ peer: Peer, _ id: PoolMachine.WaiterID) {
    let waiter = self.machine.withLock { $0.cancel(peer, id) }
    waiter?.resume(throwing: CancellationError())
  }

  /// Opens one connection, and keeps it going.
  private func tend(_ peer: Peer) async {
    do {
      let connection = try await self.dialer.dial(peer.address, expecting: peer.expectedPath)
      guard let waiters = self.machine.withLock({ $0.opened(peer, connection) }) else { return connection.close() }
      for waiter in waiters { waiter.resume(returning: connection) }
      await connection.run()
      self.machine.withLock { $0.closed(peer, connection) }
    } catch {
      var random = SystemRandomNumberGenerator()
      let waiters = self.machine.withLock { $0.failed(peer, error, now: .now, using: &random) }
      for waiter in waiters { waiter.resume(throwing: error) }
    }
  }
}

/// What a pool knows about each peer. Decides; the pool acts.
struct PoolMachine {
  typealias WaiterID = UInt64
  typealias Waiter = CheckedContinuation<NodeConnection, any Error>

  private enum Entry {
    case dialling([WaiterID: Waiter], failureCount: Int)
    case open(NodeConnection)
    case resting(until: ContinuousClock.Instant, failureCount: Int, reason: String)
  }

  enum Answer {
    case result(Result<NodeConnection, any Error>)
    /// Dial, and report how it went. The waiter is among those who will be told.
    case dial
    case wait
  }

  private let limits: TransportLimits
  private var entries: [ConnectionPool.Peer: Entry] = [:]
  /// Replaced in `entries` by newer ones, as they take no more calls.
  private var draining: [ObjectIdentifier: NodeConnection] = [:]
  private var waiterCount: WaiterID = 0
  private var isStopped = false

  init(_ limits: TransportLimits) {
    self.limits = limits
  }

  mutating func nextWaiter() -> WaiterID {
    self.waiterCount += 1
    return self.waiterCount
  }

  var connections: [NodeConnection] {
    self.entries.values.compactMap { if case .open(let connection) = $0 { connection } else { nil } }
      + self.draining.values
  }

  mutating func request(
    _ peer: ConnectionPool.Peer, _ id: WaiterID, _ waiter: Waiter, now: ContinuousClock.Instant
  ) -> Answer {
    guard !self.isStopped else { return .result(.failure(TransportError.closed)) }
    var failureCount = 0
    switch self.entries[peer] {
    case .dialling(var waiters, let failureCount):
      waiters[id] = waiter
      self.entries[peer] = .dialling(waiters, failureCount: failureCount)
      return .wait
    case .open(let connection) where connection.isUsable:
      return .result(.success(connection))
    case .open(let connection):
      self.draining[ObjectIdentifier(connection)] = connection
    case .resting(let until, _, let reason) where now < until:
      return .result(.failure(TransportError.backingOff(retryAfter: until - now, reason)))
    case .resting(_, let count, _):
      failureCount = count
    case nil:
      guard self.makeRoom(now: now) else { return .result(.failure(TransportError.tooManyConnections)) }
    }
    self.entries[peer] = .dialling([id: waiter], failureCount: failureCount)
    return .dial
  }

  /// Whether one more peer fits in. Those that are only remembered for their failures give way.
  private mutating func makeRoom(now: ContinuousClock.Instant) -> Bool {
    if self.entries.count < self.limits.maxPooledPeers { return true }
    self.entries = self.entries.filter { if case .resting(let until, _, _) = $0.value { now < until } else { true } }
    return self.entries.count < self.limits.maxPooledPeers
  }

  mutating func cancel(_ peer: ConnectionPool.Peer, _ id: WaiterID) -> Waiter? {
    guard case .dialling(var waiters, let failureCount)? = self.entries[peer] else { return nil }
    // The dial goes on, even for nobody: it is bounded, and what comes of it is likely to be wanted again.
    let waiter = waiters.removeValue(forKey: id)
    self.entries[peer] = .dialling(waiters, failureCount: failureCount)
    return waiter
  }

  /// - Returns: Who waits for the connection; nothing, when the pool has been stopped, and the connection is to close.
  mutating func opened(_ peer: ConnectionPool.Peer, _ connection: NodeConnection) -> [Waiter]? {
    guard !self.isStopped, case .dialling(let waiters, _)? = self.entries[peer] else { return nil }
    self.entries[peer] = .open(connection)
    return Array(waiters.values)
  }

  mutating func failed(
    _ peer: ConnectionPool.Peer, _ error: any Error, now: ContinuousClock.Instant,
    using random: inout some RandomNumberGenerator
  ) -> [Waiter] {
    guard case .dialling(let waiters, let failureCount)? = self.entries[peer] else { return [] }
    let delay = self.backoff(failureCount: failureCount, using: &random)
    self.entries[peer] = .resting(until: now + delay, failureCount: failureCount + 1, reason: "\(error)")
    return Array(waiters.values)
  }

  mutating func closed(_ peer: ConnectionPool.Peer, _ connection: NodeConnection) {
    self.draining[ObjectIdentifier(connection)] = nil
    if case .open(let current)? = self.entries[peer], current === connection { self.entries[peer] = nil }
  }

  mutating func stop() -> [Waiter] {
    self.isStopped = true
    var waiters: [Waiter] = []
    for (peer, entry) in self.entries {
      guard case .dialling(let some, _) = entry else { continue }
      waiters.append(contentsOf: some.values)
      self.entries[peer] = nil
    }
    return waiters
  }

  /// Between half of the current step and all of it; the step doubles with each failure.
  private func backoff(failureCount: Int, using random: inout some RandomNumberGenerator) -> Duration {
    let step = min(self.limits.initialBackoff * (1 << min(failureCount, 20)), self.limits.maxBackoff)
    return step * Double.random(in: 0.5...1, using: &random)
  }
}
