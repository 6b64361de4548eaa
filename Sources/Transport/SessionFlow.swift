// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// What one session stream holds: operations that were read and wait for room, how much is in flight, and answers that
/// wait to be written. Each of its three users, reader, performer and writer, is one task.
final class SessionFlow<Operation: Sendable, Answer: Sendable>: Sendable {
  struct Item: Sendable {
    let operation: Operation
    let byteCount: Int
  }

  /// Answers that go out together.
  struct Batch: Sendable {
    var answers: [Answer] = []
    /// The operations' bytes that are free once the answers are written.
    var heldByteCount = 0
  }

  private struct Waiting: Sendable {
    let answer: Answer
    let byteCount: Int
    let heldByteCount: Int
  }

  /// A task that waits for something to change.
  private typealias Waiter = CheckedContinuation<Void, Never>

  private enum Role {
    case reader
    case performer
    case writer
  }

  private struct State {
    /// The operations of a message that are not in flight yet.
    var offered: ArraySlice<Item> = []
    var inFlightCount = 0
    var inFlightByteCount = 0
    var answers: [Waiting] = []
    var areRequestsEnded = false
    var areAnswersEnded = false
    var isStopped = false
    var failure: (any Error)?
    var reader: Waiter?
    var performer: Waiter?
    var writer: Waiter?

    mutating func wait(_ role: Role, _ waiter: Waiter) {
      switch role {
      case .reader: self.reader = waiter
      case .performer: self.performer = waiter
      case .writer: self.writer = waiter
      }
    }

    func hasRoom(for item: Item, _ limits: SessionLimits) -> Bool {
      self.inFlightCount == 0
        || self.inFlightCount < limits.operationCountMax
          && self.inFlightByteCount + item.byteCount <= limits.byteCountMax
    }
  }

  private let limits: SessionLimits
  private let state = Mutex(State())

  init(_ limits: SessionLimits) { self.limits = limits }

  /// Why the stream ends, if not because the client has ended it.
  var failure: (any Error)? { self.state.withLock { $0.failure } }

  // MARK: The reader

  /// Offers the operations of a message, and returns when all of them are in flight; false when no more are wanted.
  func offer(_ items: [Item]) async -> Bool {
    guard !items.isEmpty else { return !self.state.withLock { $0.isStopped } }
    let performer = self.state.withLock { state in
      if !state.isStopped { state.offered = items[...] }
      return state.performer.take()
    }
    performer?.resume()
    await self.wait(.reader) { !$0.offered.isEmpty }
    return !self.state.withLock { $0.isStopped }
  }

  /// No more operations come.
  func endRequests(_ failure: (any Error)?) {
    let performer = self.state.withLock { state in
      state.areRequestsEnded = true
      if state.failure == nil { state.failure = failure }
      return state.performer.take()
    }
    performer?.resume()
  }

  // MARK: The performer

  /// The operations that there is room for, at least one; nil when no more come.
  func take() async -> [Item]? {
    while true {
      let (items, reader, isEnded) = self.state.withLock { state -> ([Item], Waiter?, Bool) in
        var taken: [Item] = []
        while let item = state.offered.first, state.hasRoom(for: item, self.limits) {
          state.offered.removeFirst()
          state.inFlightCount += 1
          state.inFlightByteCount += item.byteCount
          taken.append(item)
        }
        let isEnded = state.offered.isEmpty && (state.areRequestsEnded || state.isStopped)
        return (taken, state.offered.isEmpty ? state.reader.take() : nil, isEnded)
      }
      reader?.resume()
      if !items.isEmpty { return items }
      if isEnded { return nil }
      await self.wait(.performer) { state in
        if let item = state.offered.first { return !state.hasRoom(for: item, self.limits) }
        return !state.areRequestsEnded && !state.isStopped
      }
    }
  }

  /// An operation in flight has its answer.
  func answer(_ answer: Answer, byteCount: Int, holding heldByteCount: Int) {
    let writer = self.state.withLock { state in
      state.answers.append(Waiting(answer: answer, byteCount: byteCount, heldByteCount: heldByteCount))
      return state.writer.take()
    }
    writer?.resume()
  }

  /// All operations have been answered, and no more come.
  func endAnswers() {
    let writer = self.state.withLock { state in
      state.areAnswersEnded = true
      return state.writer.take()
    }
    writer?.resume()
  }

  // MARK: The writer

  /// The answers that wait, as many as go into one message; nil when no more come.
  func answers() async -> Batch? {
    await self.wait(.writer) { $0.answers.isEmpty && !$0.areAnswersEnded }
    return self.state.withLock { state in
      guard let first = state.answers.first else { return nil }
      var count = 1
      var byteCount = first.byteCount
      while count < state.answers.count {
        byteCount += state.answers[count].byteCount
        if byteCount > self.limits.messageByteCount { break }
        count += 1
      }
      var batch = Batch()
      batch.answers.reserveCapacity(count)
      for waiting in state.answers[..<count] {
        batch.answers.append(waiting.answer)
        batch.heldByteCount += waiting.heldByteCount
      }
      state.answers.removeFirst(count)
      return batch
    }
  }

  /// The answers are written.
  func wrote(_ batch: Batch) {
    let performer = self.state.withLock { state -> Waiter? in
      state.inFlightCount -= batch.answers.count
      state.inFlightByteCount -= batch.heldByteCount
      // Woken only when it has something to do.
      guard let item = state.offered.first, state.hasRoom(for: item, self.limits) else { return nil }
      return state.performer.take()
    }
    performer?.resume()
  }

  // MARK: The end

  /// Nothing more is begun. What is in flight is still answered.
  func stop(_ failure: any Error) {
    let (reader, performer) = self.state.withLock { state in
      state.isStopped = true
      state.offered = []
      if state.failure == nil { state.failure = failure }
      return (state.reader.take(), state.performer.take())
    }
    reader?.resume()
    performer?.resume()
  }

  /// Suspends unless there is no need to. Whoever changes what `isNeeded` looks at takes the waiter and resumes it.
  private func wait(_ role: Role, while isNeeded: (borrowing State) -> Bool) async {
    guard self.state.withLock({ isNeeded($0) }) else { return }
    await withCheckedContinuation { (continuation: Waiter) in
      let waits = self.state.withLock { state in
        guard isNeeded(state) else { return false }
        state.wait(role, continuation)
        return true
      }
      if !waits { continuation.resume() }
    }
  }
}
