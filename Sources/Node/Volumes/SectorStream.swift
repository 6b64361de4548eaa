// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import BlocktreeSchema
internal import GRPCCore
private import Synchronization
internal import Transport

/// Many operations of the sector service in flight over one connection, and many of them in one message: whatever waits
/// when the stream takes the next message goes along.
///
/// It lives as long as its connection, at most, and repeats nothing: when it breaks, all that wait hear that nobody
/// knows what became of their operations. ``RemoteCluster`` asks again then, over another one.
final class SectorStream: Sendable {
  typealias Operation = Blocktree_V1_SectorOperation.OneOf_Operation
  typealias Outcome = Blocktree_V1_SectorResult.OneOf_Result
  private typealias Waiter = CheckedContinuation<Outcome, any Error>

  /// Larger operations and answers hold up the small ones, and are better off with a call of their own.
  static let operationByteCountMax = 64 << 10

  private struct State {
    var machine = SessionMachine<Operation, Waiter>()
    /// The stream, while it has nothing to send.
    var writer: CheckedContinuation<Void, Never>?
    /// Whether it ends as soon as everything is answered.
    var isFinishing = false
    var hasAnswered = false
    /// Why it is over.
    var failure: BlocktreeError?

    /// Whether no more operations are taken.
    var isOver: Bool { self.isFinishing || self.machine.isClosed }

    mutating func takeWriter() -> CheckedContinuation<Void, Never>? {
      defer { self.writer = nil }
      return self.writer
    }
  }

  let connection: NodeConnection
  private let state = Mutex(State())

  init(_ connection: NodeConnection) { self.connection = connection }

  /// Whether another one has to be opened for further operations.
  var isOver: Bool { self.state.withLock { $0.isOver } }

  // MARK: Operations

  /// Sends an operation and waits for its answer.
  ///
  /// - Parameters:
  ///   - byteCount: what it takes in a message.
  ///   - deadline: until when to wait, give or take a tenth of a second.
  /// - Throws: what the process answered, if it refused. `unavailable` without a reason when the stream broke.
  func perform(
    _ operation: Operation, byteCount: Int, deadline: ContinuousClock.Instant?
  ) async throws -> Outcome {
    let id = self.state.withLock { $0.machine.nextID() }
    let outcome = try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { waiter in
        let entry = SessionMachine<Operation, Waiter>.Entry(
          operation: operation, byteCount: byteCount, messageByteCount: byteCount, isRepeatable: false,
          deadline: deadline, waiter: waiter)
        let (isTaken, failure, writer) = self.state.withLock { state in
          let isTaken = !state.isFinishing && state.machine.add(entry, id: id)
          return (isTaken, state.failure, state.takeWriter())
        }
        writer?.resume()
        if !isTaken { waiter.resume(throwing: failure ?? Self.ended) }
        // Cancelled before it was waiting: the handler below has found nothing then.
        if isTaken, Task.isCancelled { self.abandon(id) }
      }
    } onCancel: {
      self.abandon(id)
    }
    if case .failure(let failure) = outcome { throw BlocktreeError(failure) }
    return outcome
  }

  private func abandon(_ id: UInt64) {
    let waiter = self.state.withLock { $0.machine.abandon(id) }
    waiter?.resume(throwing: CancellationError())
  }

  /// Takes no more operations, and ends when those that it has are answered.
  func finish() {
    let writer = self.state.withLock { state in
      state.isFinishing = true
      return state.takeWriter()
    }
    writer?.resume()
  }

  // MARK: The stream

  private static let deadlineInterval = Duration.milliseconds(100)
  private static let late = BlocktreeError(code: .deadlineExceeded, message: "The answer did not come in time.")
  private static let ended = BlocktreeError(
    code: .unavailable, message: "The session has ended.", retry: .elsewhere)

  /// Keeps the stream going until it breaks or ends. Call it once.
  func run() async {
    await withTaskGroup(of: Void.self) { tasks in
      tasks.addTask { await self.watchDeadlines() }
      await self.serve()
      tasks.cancelAll()
    }
  }

  private func watchDeadlines() async {
    while (try? await Task.sleep(for: Self.deadlineInterval)) != nil {
      let late = self.state.withLock { $0.machine.expire(.now) }
      for waiter in late { waiter.resume(throwing: Self.late) }
    }
  }

  private func serve() async {
    var failure = Self.ended
    do {
      try await self.connection.onEventLoop {
        let sectors = Blocktree_V1_SectorService.Client(wrapping: self.connection.client)
        try await sectors.session { writer in
          while let batch = await self.nextBatch() {
            var message = Blocktree_V1_SectorServiceSessionRequest()
            message.operations.reserveCapacity(batch.count)
            for (id, operation) in batch {
              var element = Blocktree_V1_SectorOperation()
              element.id = id
              element.operation = operation
              message.operations.append(element)
            }
            try await writer.write(message)
          }
        } onResponse: { response in
          for try await message in response.messages {
            for result in message.results { try self.answered(result) }
          }
        }
      }
    } catch {
      if let error = try? BlocktreeError(thrown: error) { failure = error }
    }
    self.end(failure)
  }

  private func answered(_ result: Blocktree_V1_SectorResult) throws {
    guard let outcome = result.result else { throw Self.malformed }
    let (answer, writer) = self.state.withLock { state in
      state.hasAnswered = true
      let answer = state.machine.finish(result.id)
      let mayGoOn = state.machine.canSend || (state.isFinishing && state.machine.isIdle)
      return (answer, mayGoOn ? state.takeWriter() : nil)
    }
    writer?.resume()
    guard answer.isKnown else { throw Self.malformed }
    answer.waiter?.resume(returning: outcome)
  }

  private static let malformed = BlocktreeError(
    code: .internalError, reason: .malformedAnswer, message: "The process gave an answer that breaks the schema.")

  private func end(_ failure: BlocktreeError) {
    let (waiters, writer) = self.state.withLock { state in
      // A stream that was good until now says nothing about whether the next one would be: it may only have outlived
      // what the process knew of the caller.
      let failure = state.hasAnswered && failure.code != .unavailable ? Self.ended : failure
      state.failure = failure
      let waiters = state.machine.streamBroke() + state.machine.close().map(\.waiter)
      return (waiters.map { ($0, failure) }, state.takeWriter())
    }
    writer?.resume()
    for (waiter, failure) in waiters { waiter.resume(throwing: failure) }
  }

  /// The next message's operations; nil when the stream is to end.
  private func nextBatch() async -> [(id: UInt64, operation: Operation)]? {
    while !Task.isCancelled {
      let (batch, isOver) = self.state.withLock { state in
        (state.machine.takeBatch(), state.machine.isClosed || (state.isFinishing && state.machine.isIdle))
      }
      if !batch.isEmpty { return batch }
      if isOver { return nil }
      await self.waitForChange()
    }
    return nil
  }

  /// Suspends until something is added, answered or ended. Those who were ready to run before go on first, so that what
  /// they add goes into the same message.
  private func waitForChange() async {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let mayWait = self.state.withLock { state in
          let isDone = state.machine.isClosed || (state.isFinishing && state.machine.isIdle)
          guard !Task.isCancelled, !isDone, !state.machine.canSend else { return false }
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
