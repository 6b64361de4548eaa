// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Foundation
internal import GRPCCore
internal import Raft
internal import SwiftProtobuf
private import Synchronization
internal import Transport
internal import Trust

/// One of the two streams to another member: opens it, sends what waits, and opens it again when it broke.
///
/// It has a connection of its own, since what the other stream has written would stand in front of it in a shared one.
final class MemberLink: Sendable {
  /// How the link is at a moment.
  struct Status: Sendable {
    var isOpen = false
    /// Messages that were not sent, or lost in the queue.
    var droppedCount: UInt64 = 0
    /// Why it broke last.
    var failure: StatusDetails?
  }

  private struct State {
    var queue: MemberQueue
    /// Between a failure and the next attempt, whatever is sent is dropped.
    var isResting = false
    var isOpen = false
    var isClosed = false
    /// The stream, while it has nothing to send.
    var writer: CheckedContinuation<Void, Never>?
    var connection: NodeConnection?
    var failure: StatusDetails?

    mutating func takeWriter() -> CheckedContinuation<Void, Never>? {
      defer { self.writer = nil }
      return self.writer
    }
  }

  let peer: MemberPeer
  private let header: Blocktree_V1_DeliverHeader
  private let lives: LifeGuard
  private let dialer: Dialer
  private let unreachable: @Sendable (MemberID) -> Void
  private let state: Mutex<State>

  init(
    _ lane: MemberLane, to peer: MemberPeer, from member: MemberID, lives: LifeGuard, dialer: Dialer,
    unreachable: @escaping @Sendable (MemberID) -> Void
  ) {
    self.peer = peer
    let life = lives.life
    self.lives = lives
    self.header = .with {
      $0.generation = lives.generation
      $0.incarnation = life.incarnation.rawValue
      $0.warrant = Data(life.warrant?.bytes ?? [])
      $0.sender = member.rawValue
      $0.receiver = peer.id.rawValue
    }
    self.dialer = dialer
    self.unreachable = unreachable
    self.state = Mutex(State(queue: MemberQueue(lane)))
  }

  var status: Status {
    self.state.withLock {
      Status(isOpen: $0.isOpen, droppedCount: $0.queue.droppedCount, failure: $0.failure)
    }
  }

  var connection: NodeConnection? { self.state.withLock { $0.connection } }

  /// Never waits.
  func send(_ message: MemberMessage) {
    let writer = self.state.withLock { state -> CheckedContinuation<Void, Never>? in
      guard !state.isClosed, !state.isResting else {
        state.queue.drop()
        return nil
      }
      state.queue.add(message)
      return state.takeWriter()
    }
    writer?.resume()
  }

  /// Ends ``run()``, and what waits is dropped.
  func close() {
    let (writer, connection) = self.state.withLock { state in
      state.isClosed = true
      state.queue.clear()
      return (state.takeWriter(), state.connection)
    }
    writer?.resume()
    connection?.close()
  }

  /// Keeps the stream open, until ``close()`` or until it is cancelled.
  func run() async {
    var random = SystemRandomNumberGenerator()
    var backoff = MemberLimits.initialBackoff
    var attempt = 0
    while self.begin() {
      let start = ContinuousClock.now
      await self.openOnce(self.address(attempt))
      guard !Task.isCancelled, !self.isClosed else { break }
      self.unreachable(self.peer.id)
      // A stream that went on for a while was no failed attempt.
      if start.duration(to: .now) > MemberLimits.maxBackoff {
        backoff = MemberLimits.initialBackoff
      } else {
        attempt += 1
      }
      guard (try? await Task.sleep(for: backoff * Double.random(in: 0.5...1, using: &random))) != nil else { break }
      backoff = min(backoff * 2, MemberLimits.maxBackoff)
    }
    self.close()
  }

  private var isClosed: Bool { self.state.withLock { $0.isClosed } }

  private func address(_ attempt: Int) -> NetworkAddress? {
    self.peer.addresses.isEmpty ? nil : self.peer.addresses[attempt % self.peer.addresses.count]
  }

  /// From now on messages wait for the stream.
  private func begin() -> Bool {
    self.state.withLock { state in
      state.isResting = false
      return !state.isClosed
    }
  }

  /// Opens the stream and serves it to its end. What waits then is dropped, before anybody hears that it broke.
  private func openOnce(_ address: NetworkAddress?) async {
    let failure: StatusDetails
    do {
      guard let address else { throw TransportError.closed }
      let connection = try await self.dialer.dial(address, expecting: self.peer.path)
      try await self.serve(connection)
      failure = StatusDetails(code: .unavailable, message: "The member ended the stream.")
    } catch {
      failure = StatusDetails(describing: error)
      self.lives.note(failure)
    }
    self.state.withLock { state in
      state.isResting = true
      state.isOpen = false
      state.connection = nil
      state.failure = failure
      state.queue.clear()
    }
  }

  private func serve(_ connection: NodeConnection) async throws {
    let isWanted = self.state.withLock { state in
      if !state.isClosed { state.connection = connection }
      return !state.isClosed
    }
    guard isWanted else { return connection.close() }
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { await connection.run() }
      defer { connection.close() }
      try await connection.onEventLoop { try await self.deliver(over: connection) }
    }
  }

  /// On the connection's event loop.
  private func deliver(over connection: NodeConnection) async throws {
    let client = Blocktree_V1_MemberService.Client(wrapping: connection.client)
    _ = try await client.deliver { writer in
      try await writer.write(.with { $0.header = self.header })
      self.state.withLock { $0.isOpen = true }
      while let messages = await self.next() {
        var requests = MemberRequests(messages)
        while let request = requests.next() { try await writer.write(request) }
        if !requests.refused.isEmpty { self.refuse(requests.refused) }
      }
    }
  }

  /// Messages that nobody would take: a fault of ours.
  private func refuse(_ errors: [MemberError]) {
    assertionFailure("\(errors)")
    self.state.withLock { state in
      state.queue.drop(errors.count)
      state.failure = errors.last.map { StatusDetails(describing: $0) }
    }
  }

  /// What goes out next; nil when the stream is to end.
  private func next() async -> [MemberMessage]? {
    while !Task.isCancelled {
      let (messages, isClosed) = self.state.withLock { ($0.queue.take(), $0.isClosed) }
      if isClosed { return nil }
      if !messages.isEmpty { return messages }
      await self.waitForMessages()
    }
    return nil
  }

  private func waitForMessages() async {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let mayWait = self.state.withLock { state in
          guard !Task.isCancelled, !state.isClosed, state.queue.isEmpty else { return false }
          state.writer = continuation
          return true
        }
        if !mayWait { continuation.resume() }
      }
    } onCancel: {
      let writer = self.state.withLock { $0.takeWriter() }
      writer?.resume()
    }
  }
}
