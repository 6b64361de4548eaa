// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// The way back of a question, whatever its type. Only messages hold it, so that its end says that nobody can answer
/// any more.
///
/// What decides knows no types: code that does and is not specialised looks types up again and again, which took most
/// of the time of a question.
@usableFromInline class AnyReplyToken: @unchecked Sendable {
  // Unchecked: all state is in the mutex.
  private enum Stage {
    /// The asker has not begun to wait.
    case open
    /// Somebody writes the answer; the asker may wait already.
    case answering(AnyReplySink?)
    /// The answer is there, and the asker has not begun to wait.
    case answered
    case waited(AnyReplySink)
    case closed
  }

  private struct State {
    var stage: Stage
    var fallback = AskError.unanswered
  }

  private let state: Mutex<State>

  @usableFromInline init() { self.state = Mutex(State(stage: .open)) }

  /// Answers go there.
  init(to sink: AnyReplySink) { self.state = Mutex(State(stage: .waited(sink))) }

  deinit {
    let (stage, fallback) = self.state.withLock { ($0.stage, $0.fallback) }
    if case .waited(let sink) = stage { sink.fail(fallback) }
  }

  /// Nobody waits any more, or there is an answer already.
  @usableFromInline var isAbandoned: Bool {
    let (sink, isClosed) = self.state.withLock { state -> (AnyReplySink?, Bool) in
      switch state.stage {
      case .open: (nil, false)
      case .waited(let sink): (sink, false)
      case .answering, .answered, .closed: (nil, true)
      }
    }
    return isClosed || sink?.isSettled ?? false
  }

  /// What the asker hears if no answer comes.
  @usableFromInline func expect(_ error: AskError) { self.state.withLock { $0.fallback = error } }

  /// Answers with an error, if there is no answer yet.
  @usableFromInline func refuse(_ error: AskError) {}

  @usableFromInline enum Claim: Sendable {
    case none
    /// The answer is to be written down; then `finishAnswer` is called.
    case write
    case send(AnyReplySink)
  }

  /// The first who answers gets something to do.
  @usableFromInline final func claimAnswer() -> Claim {
    self.state.withLock { state in
      switch state.stage {
      case .open:
        state.stage = .answering(nil)
        return .write
      case .waited(let sink):
        state.stage = .closed
        return .send(sink)
      case .answering, .answered, .closed: return .none
      }
    }
  }

  /// The answer is written down.
  ///
  /// - Returns: where it is to be sent, if the asker waits meanwhile.
  @usableFromInline final func finishAnswer() -> AnyReplySink? {
    self.state.withLock { state in
      guard case .answering(let sink) = state.stage else { return nil }
      state.stage = sink == nil ? .answered : .closed
      return sink
    }
  }

  /// For the asker: whether the answer is written down. It is asked once before it waits.
  @usableFromInline final var isAnswered: Bool {
    self.state.withLock { state in
      if case .answered = state.stage { true } else { false }
    }
  }

  /// The asker waits there from now on.
  ///
  /// - Returns: false if the answer is written down.
  @usableFromInline final func wait(at sink: AnyReplySink) -> Bool {
    self.state.withLock { state in
      switch state.stage {
      case .open: state.stage = .waited(sink)
      case .answering: state.stage = .answering(sink)
      case .answered, .waited, .closed: return false
      }
      return true
    }
  }
}

@usableFromInline final class ReplyToken<Reply: Sendable>: AnyReplyToken, @unchecked Sendable {
  // Unchecked: written once, by whoever has claimed that, before the stage says that it is there; read after that.
  @usableFromInline var result: Result<Reply, AskError>?

  @inlinable override init() {
    self.result = nil
    super.init()
  }

  init(to sink: ReplySink<Reply>) {
    self.result = nil
    super.init(to: sink)
  }

  /// - Returns: false if nobody waits any more, or there was an answer already.
  @inlinable func answer(_ result: Result<Reply, AskError>) -> Bool {
    switch self.claimAnswer() {
    case .none: return false
    case .write:
      self.result = result
      guard let sink = self.finishAnswer() else { return true }
      return Self.typed(sink).settle(result)
    case .send(let sink): return Self.typed(sink).settle(result)
    }
  }

  /// Only sinks for this very type come in, by `init(to:)` and `conclude`.
  @inlinable static func typed(_ sink: AnyReplySink) -> ReplySink<Reply> {
    unsafeDowncast(sink, to: ReplySink<Reply>.self)
  }

  @usableFromInline override func refuse(_ error: AskError) { _ = self.answer(.failure(error)) }

  @usableFromInline enum Conclusion {
    case done(Result<Reply, AskError>)
    case waiting(ReplyWaiter<Reply>)
  }

  /// The asker takes the answer, if there is one already, and else where to wait for it. Once.
  @inlinable func conclude(in runtime: ActorRuntime) -> Conclusion {
    if !self.isAnswered {
      let waiter = ReplyWaiter<Reply>(runtime: runtime)
      if self.wait(at: waiter) { return .waiting(waiter) }
    }
    return .done(self.result ?? .failure(.unanswered))
  }
}

/// Where an answer arrives once the asker waits, whatever its type.
@usableFromInline class AnyReplySink: TimerEntry, @unchecked Sendable {
  // Unchecked: it adds no state to its superclass; subclasses say why they are safe.
  var isSettled: Bool { false }
  func fail(_ error: AskError) {}
}

@usableFromInline class ReplySink<Reply: Sendable>: AnyReplySink, @unchecked Sendable {
  // Unchecked: it adds no state to its superclass; subclasses say why they are safe.

  /// - Returns: false if it is settled already.
  @usableFromInline func settle(_ result: Result<Reply, AskError>) -> Bool { false }

  override final func fail(_ error: AskError) { _ = self.settle(.failure(error)) }
}

/// An asker that waits. Comes to one end, once: an answer, the end of its time, or cancellation.
@usableFromInline final class ReplyWaiter<Reply: Sendable>: ReplySink<Reply>, @unchecked Sendable {
  // Unchecked: all state is in the mutex, but for the superclass's.
  private enum State {
    case undecided
    case suspended(UnsafeContinuation<Result<Reply, AskError>, Never>)
    case decided(Result<Reply, AskError>)
  }

  private let state = Mutex(State.undecided)
  private let runtime: ActorRuntime

  @usableFromInline init(runtime: ActorRuntime) { self.runtime = runtime }

  override var isSettled: Bool {
    self.state.withLock { state in
      if case .decided = state { true } else { false }
    }
  }

  @usableFromInline override func settle(_ result: Result<Reply, AskError>) -> Bool {
    let (isFirst, continuation) = self.state.withLock {
      state -> (Bool, UnsafeContinuation<Result<Reply, AskError>, Never>?) in
      switch state {
      case .decided: return (false, nil)
      case .undecided:
        state = .decided(result)
        return (true, nil)
      case .suspended(let continuation):
        state = .decided(result)
        return (true, continuation)
      }
    }
    continuation?.resume(returning: result)
    return isFirst
  }

  override func fire() { _ = self.settle(.failure(.expired)) }

  /// Waits for the answer for so long.
  @usableFromInline func reply(within patience: Duration) async throws(AskError) -> Reply {
    try await self.reply(until: self.runtime.clock.now.advanced(by: patience))
  }

  /// Waits for the answer until that moment.
  func reply(until deadline: ActorTime) async throws(AskError) -> Reply {
    self.runtime.timers.arm(self, at: deadline)
    let result = await withTaskCancellationHandler {
      await withUnsafeContinuation { continuation in
        let decided = self.state.withLock { state -> Result<Reply, AskError>? in
          if case .decided(let result) = state { return result }
          state = .suspended(continuation)
          return nil
        }
        if let decided { continuation.resume(returning: decided) }
      }
    } onCancel: {
      _ = self.settle(.failure(.cancelled))
    }
    self.runtime.timers.disarm(self)
    return try result.get()
  }
}
