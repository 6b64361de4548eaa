// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
private import Synchronization
internal import Transport

/// Many operations in flight over one long-lived stream, and many in one message: whoever writes to the stream sends
/// all that is waiting.
///
/// A stream that breaks is opened again, and what may be repeated is sent again, until the operations' deadlines. When
/// the process says that another one leads, the stream moves there: nothing more is sent, what is in flight is still
/// answered, and what was declined goes to the new process.
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
    var isUnreachable = false
    /// What the process answered that does not lead any more; ends with the stream.
    var refusal: BlocktreeError?

    mutating func takeWriter() -> CheckedContinuation<Void, Never>? {
      defer { self.writer = nil }
      return self.writer
    }
  }

  private let core: ClusterCore
  /// Whether to wait for processes that can not be reached: nobody else would be asked.
  private let isPatient: Bool
  private let open: Open
  /// The error that an outcome is, if it is one.
  private let failure: @Sendable (Outcome) -> BlocktreeError?
  private let state = Mutex(State())

  init(
    _ core: ClusterCore, isPatient: Bool = true, failure: @escaping @Sendable (Outcome) -> BlocktreeError?,
    open: @escaping Open
  ) {
    self.core = core
    self.isPatient = isPatient
    self.failure = failure
    self.open = open
  }

  // MARK: Operations

  /// Sends an operation and waits for its answer.
  ///
  /// - Parameter trace: hears what became of it when it fails.
  func perform(
    _ operation: Operation, byteCount: Int, messageByteCount: Int, isRepeatable: Bool,
    deadline: ContinuousClock.Instant?, _ trace: inout CallTrace
  ) async throws -> Answer {
    let id = self.state.withLock { $0.machine.nextID() }
    trace.isUnreachable = false
    do {
      return try await self.core.waiting.counting {
        try await self.perform(id, operation, byteCount, messageByteCount, isRepeatable, deadline)
      }
    } catch let end as StreamEnd {
      trace.mayBeDone = trace.mayBeDone || end.wasSent
      trace.isUnreachable = end.isUnreachable
      throw end.error
    }
  }

  /// Nothing waits.
  var isIdle: Bool { self.state.withLock { $0.machine.isIdle } }

  /// Nothing is taken any more.
  var isOver: Bool { self.state.withLock { $0.machine.isClosed } }

  /// An operation that was given up with the whole session.
  private struct StreamEnd: Error {
    let error: BlocktreeError
    /// Whether the operation may have been carried out.
    let wasSent: Bool
    /// Whether it is all over because nobody could be reached.
    let isUnreachable: Bool
  }

  private func perform(
    _ id: UInt64, _ operation: Operation, _ byteCount: Int, _ messageByteCount: Int, _ isRepeatable: Bool,
    _ deadline: ContinuousClock.Instant?
  ) async throws -> Answer {
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { waiter in
        let entry = Machine.Entry(
          operation: operation, byteCount: byteCount, messageByteCount: messageByteCount, isRepeatable: isRepeatable,
          deadline: deadline, waiter: waiter)
        let (isTaken, end, writer) = self.state.withLock { state in
          let end = StreamEnd(
            error: state.failure ?? .closed, wasSent: false, isUnreachable: state.isUnreachable)
          return (state.machine.add(entry, id: id), end, state.takeWriter())
        }
        writer?.resume()
        if !isTaken { waiter.resume(throwing: end) }
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
      var schedule = self.schedule()
      var route = CallRoute()
      // Once until something is answered: what DNS names may be forgotten at once, and would be found again.
      var hasFound = false
      while true {
        let hasAnswered = Flag()
        guard let error = await self.openOnce(&route, hasAnswered) else { break }
        if hasAnswered.isSet {
          schedule = self.schedule()
          hasFound = false
        }
        // What has been sent is known nowhere else.
        if error.wasSent, self.isPatient || error.hasUnsettled {
          schedule.reached(.now, patience: self.core.configuration.reconnectionPatience)
        }
        var failure = error.failure
        if !error.wasSent, error.pause == .outage, !hasFound {
          switch await self.core.bootstrap(within: nil) {
          case .found:
            hasFound = true
            continue
          case .failed(let reason) where route.place == nil: failure = reason
          case .failed, .nothing: break
          }
        }
        let delay = schedule.delay(
          after: failure, wasSent: error.wasSent, isRepeatable: true, pause: error.pause, now: .now,
          using: &random)
        guard let delay else {
          return self.end(failure, isUnreachable: !error.wasSent && error.pause == .outage)
        }
        if delay > .zero { guard (try? await Task.sleep(for: delay)) != nil else { return } }
      }
      if Task.isCancelled { return }
    }
  }

  private func schedule() -> RetrySchedule {
    let patience = self.isPatient ? self.core.configuration.connectionPatience : .zero
    return RetrySchedule(timeout: nil, patience: patience, now: .now)
  }

  /// - `hasUnsettled`: whether there are operations that may have been carried out, and wait to be sent again.
  private typealias Break = (
    failure: BlocktreeError, wasSent: Bool, pause: LeaderSearch.Pause, hasUnsettled: Bool
  )

  /// Opens one stream and serves it to its end. Returns why it broke; nil when it ended as it should.
  private func openOnce(_ route: inout CallRoute, _ hasAnswered: Flag) async -> Break? {
    var wasSent = false
    var failure: BlocktreeError?
    self.state.withLock { $0.refusal = nil }
    do {
      let connection = try await self.core.connection(for: &route, remaining: nil, isPatient: self.isPatient)
      wasSent = true
      let served = route
      try await connection.onEventLoop {
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask {
            try await self.open(connection) {
              await self.nextBatch()
            } _: { id, outcome in
              if try self.answered(id, outcome), !hasAnswered.isSet {
                hasAnswered.set()
                self.core.served(served)
              }
            }
          }
          group.addTask { try await self.cutWhenRefused() }
          defer { group.cancelAll() }
          try await group.next()
        }
      }
    } catch {
      failure = (try? BlocktreeError(thrown: error)) ?? .closed
    }
    let (isClosed, refusal) = self.state.withLock { state in
      defer { state.refusal = nil }
      return (state.machine.isClosed, state.refusal)
    }
    if Task.isCancelled || isClosed { return nil }
    // Even a stream that the process ended in good order leaves operations without answers.
    let ended = BlocktreeError(code: .unavailable, message: "The process ended the session.", retry: .later)
    let reason = refusal ?? failure ?? ended
    let pause = self.core.failed(&route, reason, wasSent: wasSent)
    // The process declined the session as a whole, or what it did does not count.
    let isUntouched =
      (failure?.reason == .notLeader || failure?.reason == .staleIncarnation) && !hasAnswered.isSet
    let lost = self.state.withLock { state in
      if isUntouched { state.machine.putBackAll() }
      return state.machine.streamBroke()
    }
    // Not the refusal: that says that nothing was done, and of these nobody knows.
    let loss = [failure, ended].compactMap { $0 }.first { $0.reason != .notLeader } ?? ended
    for waiter in lost { waiter.resume(throwing: loss) }
    let (isIdle, hasUnsettled) = self.state.withLock { ($0.machine.isIdle, $0.machine.hasUnsettled) }
    return isIdle && reason.isTransient ? nil : (reason, wasSent, pause, hasUnsettled)
  }

  /// What was in flight when the process declined something has this long to be answered.
  private static var refusalPatience: Duration { .seconds(1) }

  /// Throws when a stream that is to move has not ended in time.
  private func cutWhenRefused() async throws {
    while true {
      try await Task.sleep(for: Self.refusalPatience / 2)
      guard self.state.withLock({ $0.refusal != nil }) else { continue }
      try await Task.sleep(for: Self.refusalPatience / 2)
      throw BlocktreeError(code: .unavailable, message: "The process does not lead any more.", retry: .elsewhere)
    }
  }

  /// The next message's operations; nil when the stream is to end.
  private func nextBatch() async -> [(id: UInt64, operation: Operation)]? {
    while !Task.isCancelled {
      let (batch, isOver) = self.state.withLock { state in
        state.refusal == nil ? (state.machine.takeBatch(), state.machine.isClosed) : ([], true)
      }
      if isOver { return nil }
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
          guard !Task.isCancelled, !state.machine.isClosed, !state.machine.canSend, state.refusal == nil else {
            return false
          }
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

  /// Returns whether the process has done something, or said why not.
  private func answered(_ id: UInt64, _ outcome: Outcome) throws -> Bool {
    if let refusal = self.failure(outcome), refusal.reason == .notLeader {
      let (isKnown, writer) = self.state.withLock { state in
        state.refusal = refusal
        return (state.machine.putBack(id), state.takeWriter())
      }
      writer?.resume()
      guard isKnown else { throw BlocktreeError.malformedAnswer("id") }
      return false
    }
    let (answer, writer) = self.state.withLock { state in
      let answer = state.machine.finish(id)
      return (answer, state.machine.canSend ? state.takeWriter() : nil)
    }
    writer?.resume()
    guard answer.isKnown else { throw BlocktreeError.malformedAnswer("id") }
    answer.waiter?.resume(returning: (outcome, answer.sentCount))
    return true
  }

  private func end(_ failure: BlocktreeError, isUnreachable: Bool = false) {
    let (waiters, writer) = self.state.withLock { state in
      if state.failure == nil {
        state.failure = failure
        state.isUnreachable = isUnreachable
      }
      return (state.machine.close(), state.takeWriter())
    }
    writer?.resume()
    for (waiter, sentCount) in waiters {
      waiter.resume(throwing: StreamEnd(error: failure, wasSent: sentCount > 0, isUnreachable: isUnreachable))
    }
  }

  /// Operations end at their deadlines, give or take a tenth of a second.
  private func watchDeadlines() async {
    while (try? await Task.sleep(for: .milliseconds(100))) != nil {
      let late = self.state.withLock { $0.machine.expire(.now) }
      for waiter in late { waiter.resume(throwing: BlocktreeError.deadlineExceeded) }
    }
  }
}
