// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
private import Synchronization
internal import Transport

/// Many operations in flight over one long-lived stream, and many in one message: whoever writes to the stream sends
/// all that is waiting.
///
/// A stream that breaks is opened again, and what may be repeated is sent again, until the operations' deadlines.
final class OperationStream<Operation: Sendable, Outcome: Sendable>: Sendable {
  /// An answer, and how often its operation had been sent.
  typealias Answer = (outcome: Outcome, sentCount: Int)
  private typealias Waiter = CheckedContinuation<Answer, any Error>
  private typealias Machine = SessionMachine<Operation, Waiter>

  /// Opens the stream: sends what the first function gives until that gives nothing, and hands over answers to the
  /// second one.
  typealias Open =
    @Sendable (
      NodeConnection, _ next: @escaping @Sendable () async -> [(id: UInt64, operation: Operation)]?,
      _ answered: @escaping @Sendable (UInt64, Outcome) throws -> Void
    ) async throws -> Void

  private struct State {
    var machine = Machine()
    /// The stream, while it has nothing to send.
    var writer: CheckedContinuation<Void, Never>?
    /// Why the session is over.
    var failure: BlocktreeError?

    mutating func takeWriter() -> CheckedContinuation<Void, Never>? {
      defer { self.writer = nil }
      return self.writer
    }
  }

  private let core: ClientCore
  private let open: Open
  private let state = Mutex(State())

  init(_ core: ClientCore, open: @escaping Open) {
    self.core = core
    self.open = open
  }

  // MARK: Operations

  /// Sends an operation and waits for its answer.
  func perform(
    _ operation: Operation, byteCount: Int, messageByteCount: Int, isRepeatable: Bool,
    deadline: ContinuousClock.Instant?
  ) async throws -> Answer {
    let id = self.state.withLock { $0.machine.nextID() }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { waiter in
        let entry = Machine.Entry(
          operation: operation, byteCount: byteCount, messageByteCount: messageByteCount, isRepeatable: isRepeatable,
          deadline: deadline, waiter: waiter)
        let (isTaken, failure, writer) = self.state.withLock { state in
          (state.machine.add(entry, id: id), state.failure, state.takeWriter())
        }
        writer?.resume()
        if !isTaken { waiter.resume(throwing: failure ?? .closed) }
        // Cancelled before it was waiting: the handler below has found nothing then.
        if isTaken, Task.isCancelled { self.abandon(id) }
      }
    } onCancel: {
      self.abandon(id)
    }
  }

  private func abandon(_ id: UInt64) {
    let waiter = self.state.withLock { $0.machine.abandon(id) }
    waiter?.resume(throwing: CancellationError())
  }

  // MARK: The stream

  /// Keeps a stream open while there is something to do, until ``close()``.
  func run() async {
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await self.watchDeadlines() }
      await self.keepOpen()
      group.cancelAll()
    }
    self.end(.closed)
  }

  /// No more operations. What is in flight is given up.
  func close() {
    self.end(.closed)
  }

  private func keepOpen() async {
    var random = SystemRandomNumberGenerator()
    while await self.waitForWork() {
      // Operations have deadlines of their own; the schedule counts the failures in a row.
      var schedule = RetrySchedule(timeout: nil, patience: self.core.configuration.connectionPatience, now: .now)
      while true {
        let hasAnswered = Flag()
        guard let error = await self.openOnce(hasAnswered) else { break }
        if hasAnswered.isSet {
          schedule = RetrySchedule(timeout: nil, patience: self.core.configuration.connectionPatience, now: .now)
        }
        if error.wasSent { schedule.reached(.now, patience: self.core.configuration.reconnectionPatience) }
        let delay = schedule.delay(
          after: error.failure, wasSent: error.wasSent, isRepeatable: true, now: .now, using: &random)
        guard let delay else { return self.end(error.failure) }
        guard (try? await Task.sleep(for: delay)) != nil else { return }
      }
      if Task.isCancelled { return }
    }
  }

  /// Opens one stream and serves it to its end. Returns why it broke; nil when it ended as it should.
  private func openOnce(_ hasAnswered: Flag) async -> (failure: BlocktreeError, wasSent: Bool)? {
    var wasSent = false
    var failure: BlocktreeError?
    do {
      let connection = try await self.core.connection()
      wasSent = true
      try await connection.onEventLoop {
        try await self.open(connection) {
          await self.nextBatch()
        } _: { id, outcome in
          hasAnswered.set()
          try self.answered(id, outcome)
        }
      }
    } catch {
      failure = (try? BlocktreeError(thrown: error)) ?? .closed
    }
    let isClosed = self.state.withLock { $0.machine.isClosed }
    if Task.isCancelled || isClosed { return nil }
    // Even a stream that the process ended in good order leaves operations without answers.
    let reason = failure ?? BlocktreeError(code: .unavailable, message: "The process ended the session.", retry: .later)
    let lost = self.state.withLock { $0.machine.streamBroke() }
    for waiter in lost { waiter.resume(throwing: reason) }
    let isIdle = self.state.withLock { $0.machine.isIdle }
    return isIdle && reason.isTransient ? nil : (reason, wasSent)
  }

  /// The next message's operations; nil when the stream is to end.
  private func nextBatch() async -> [(id: UInt64, operation: Operation)]? {
    while !Task.isCancelled {
      let (batch, isClosed) = self.state.withLock { ($0.machine.takeBatch(), $0.machine.isClosed) }
      if isClosed { return nil }
      if !batch.isEmpty { return batch }
      await self.waitForChange()
    }
    return nil
  }

  /// True when there are operations; false when the session is over.
  private func waitForWork() async -> Bool {
    while !Task.isCancelled {
      let (isClosed, isIdle) = self.state.withLock { ($0.machine.isClosed, $0.machine.isIdle) }
      if isClosed { return false }
      if !isIdle { return true }
      await self.waitForChange()
    }
    return false
  }

  /// Suspends until something is added, answered or closed. Those who were ready to run before go on first, so that
  /// what they add goes into the same message.
  private func waitForChange() async {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let mayWait = self.state.withLock { state in
          guard !Task.isCancelled, !state.machine.isClosed, !state.machine.canSend else { return false }
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

  private func answered(_ id: UInt64, _ outcome: Outcome) throws {
    let (answer, writer) = self.state.withLock { state in
      let answer = state.machine.finish(id)
      return (answer, state.machine.canSend ? state.takeWriter() : nil)
    }
    writer?.resume()
    guard answer.isKnown else { throw BlocktreeError.malformedAnswer("id") }
    answer.waiter?.resume(returning: (outcome, answer.sentCount))
  }

  private func end(_ failure: BlocktreeError) {
    let (waiters, writer) = self.state.withLock { state in
      if state.failure == nil { state.failure = failure }
      return (state.machine.close(), state.takeWriter())
    }
    writer?.resume()
    for waiter in waiters { waiter.resume(throwing: failure) }
  }

  /// Operations end at their deadlines, give or take a tenth of a second.
  private func watchDeadlines() async {
    while (try? await Task.sleep(for: .milliseconds(100))) != nil {
      let late = self.state.withLock { $0.machine.expire(.now) }
      for waiter in late { waiter.resume(throwing: BlocktreeError.deadlineExceeded) }
    }
  }
}
