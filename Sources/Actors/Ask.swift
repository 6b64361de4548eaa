// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// A question in a message: what is asked, and the way back.
///
/// Can be answered at once or later, by whoever it was handed on to, and from any thread. The first answer counts. When the
/// last copy is gone without one, the asker hears `AskError.unanswered`, or `failed` if the actor threw at it.
package struct Ask<Request: Sendable, Reply: Sendable>: Sendable {
  package let request: Request
  let token: ReplyToken<Reply>

  init(_ request: Request, _ token: ReplyToken<Reply>) {
    self.request = request
    self.token = token
  }

  /// Answers.
  ///
  /// - Returns: false if nobody waits any more, or there was an answer already.
  @discardableResult
  package func reply(_ reply: Reply) -> Bool { self.token.answer(.success(reply)) }

  /// Says that there will be no answer.
  @discardableResult
  package func refuse() -> Bool { self.token.answer(.failure(.refused)) }

  /// Nobody waits any more: the time is over, or the asker's task was cancelled.
  package var isAbandoned: Bool { self.token.isAbandoned }
}

/// The way back of a question, whatever its type.
class AnyReplyToken: @unchecked Sendable {
  // Unchecked: it has no state, and its only subclass keeps all of its own in a mutex.
  var isAbandoned: Bool { true }
  /// Answers with an error, if there is no answer yet.
  func refuse(_ error: AskError) {}
  /// What the asker hears if no answer comes.
  func expect(_ error: AskError) {}
}

/// Where an answer arrives once the asker waits.
class ReplySink<Reply: Sendable>: TimerEntry, @unchecked Sendable {
  // Unchecked: it adds no state to its superclass; subclasses say why they are safe.
  var isSettled: Bool { false }
  /// - Returns: false if it is settled already.
  func settle(_ result: Result<Reply, AskError>) -> Bool { false }
}

/// Only messages hold this, so that its end says that nobody can answer any more.
final class ReplyToken<Reply: Sendable>: AnyReplyToken, @unchecked Sendable {
  // Unchecked: all state is in the mutex.
  private enum Stage {
    /// The asker has not begun to wait.
    case open
    case waited(ReplySink<Reply>)
    /// Answered before the asker has begun to wait.
    case answered(Result<Reply, AskError>)
    case closed
  }

  private struct State {
    var stage: Stage
    var fallback = AskError.unanswered
  }

  private let state: Mutex<State>

  override init() { self.state = Mutex(State(stage: .open)) }

  /// Answers go there.
  init(to sink: ReplySink<Reply>) { self.state = Mutex(State(stage: .waited(sink))) }

  deinit {
    let (stage, fallback) = self.state.withLock { ($0.stage, $0.fallback) }
    if case .waited(let sink) = stage { _ = sink.settle(.failure(fallback)) }
  }

  func answer(_ result: Result<Reply, AskError>) -> Bool {
    let sink = self.state.withLock { state -> ReplySink<Reply>?? in
      switch state.stage {
      case .open:
        state.stage = .answered(result)
        return .some(nil)
      case .waited(let sink):
        state.stage = .closed
        return sink
      case .answered, .closed: return nil
      }
    }
    guard let sink else { return false }
    return sink?.settle(result) ?? true
  }

  override func refuse(_ error: AskError) { _ = self.answer(.failure(error)) }

  override func expect(_ error: AskError) { self.state.withLock { $0.fallback = error } }

  override var isAbandoned: Bool {
    let sink = self.state.withLock { state -> ReplySink<Reply>?? in
      switch state.stage {
      case .open: nil
      case .waited(let sink): sink
      case .answered, .closed: .some(nil)
      }
    }
    guard let sink else { return false }
    return sink?.isSettled ?? true
  }

  enum Conclusion {
    case done(Result<Reply, AskError>)
    case waiting(ReplyWaiter<Reply>)
  }

  /// The asker takes the answer, if there is one already, and else where to wait for it. Once.
  func conclude(in runtime: RuntimeCore) -> Conclusion {
    self.state.withLock { state in
      switch state.stage {
      case .answered(let result):
        state.stage = .closed
        return .done(result)
      case .open:
        let waiter = ReplyWaiter<Reply>(runtime: runtime)
        state.stage = .waited(waiter)
        return .waiting(waiter)
      case .waited, .closed: return .done(.failure(.unanswered))
      }
    }
  }
}

/// An asker that waits. Comes to one end, once: an answer, the end of its time, or cancellation.
final class ReplyWaiter<Reply: Sendable>: ReplySink<Reply>, @unchecked Sendable {
  // Unchecked: all state is in the mutex, but for the superclass's.
  private enum State {
    case undecided
    case suspended(UnsafeContinuation<Result<Reply, AskError>, Never>)
    case decided(Result<Reply, AskError>)
  }

  private let state = Mutex(State.undecided)
  private let runtime: RuntimeCore

  init(runtime: RuntimeCore) { self.runtime = runtime }

  override var isSettled: Bool {
    self.state.withLock { state in
      if case .decided = state { true } else { false }
    }
  }

  override func settle(_ result: Result<Reply, AskError>) -> Bool {
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
