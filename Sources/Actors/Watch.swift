// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// Hears of the end of one actor, once.
package class EndObserver: @unchecked Sendable {
  // Unchecked: it has no state; subclasses say why they are safe.

  /// Called once, outside of all locks.
  func hear(_ reason: EndReason) {}
}

/// One actor's interest in the end of another one.
package final class Watch: EndObserver, @unchecked Sendable {
  // Unchecked: constants and a mutex.
  private enum State { case armed, noticed, done }

  private let state = Mutex(State.armed)
  private let watcher: Cell
  /// nil if it was not there.
  private let watched: Cell?
  private let notice: @Sendable (EndReason, Watch) -> Letter

  init(watcher: Cell, watched: Cell?, notice: @escaping @Sendable (EndReason, Watch) -> Letter) {
    self.watcher = watcher
    self.watched = watched
    self.notice = notice
  }

  override func hear(_ reason: EndReason) {
    let isArmed = self.state.withLock { state in
      guard state == .armed else { return false }
      state = .noticed
      return true
    }
    if isArmed { self.watcher.postNotice(self.notice(reason, self)) }
  }

  /// The notice's turn has come.
  ///
  /// - Returns: false if nobody wants it any more.
  func take() -> Bool {
    self.state.withLock { state in
      defer { state = .done }
      return state == .noticed
    }
  }

  /// No notice comes from now on, not even one that stands in the mailbox already.
  package func cancel() {
    self.state.withLock { $0 = .done }
    self.watched?.stopObserving(self)
    self.watcher.forget(self)
  }
}

/// Somebody who is no actor and waits for the end of one.
final class EndWaiter: EndObserver, @unchecked Sendable {
  // Unchecked: a mutex.
  private enum State {
    case undecided
    case suspended(UnsafeContinuation<EndReason?, Never>)
    case decided(EndReason?)
  }

  private let state = Mutex(State.undecided)

  override func hear(_ reason: EndReason) { self.decide(reason) }

  private func decide(_ reason: EndReason?) {
    let continuation = self.state.withLock { state -> UnsafeContinuation<EndReason?, Never>? in
      switch state {
      case .decided: return nil
      case .undecided:
        state = .decided(reason)
        return nil
      case .suspended(let continuation):
        state = .decided(reason)
        return continuation
      }
    }
    continuation?.resume(returning: reason)
  }

  /// Waits, also when the task is cancelled.
  func uncancelledReason() async { _ = await self.decision() }

  /// nil when the task was cancelled.
  func reason() async -> EndReason? {
    await withTaskCancellationHandler {
      await self.decision()
    } onCancel: {
      self.decide(nil)
    }
  }

  private func decision() async -> EndReason? {
    await withUnsafeContinuation { continuation in
      let decided = self.state.withLock { state -> EndReason?? in
        if case .decided(let reason) = state { return .some(reason) }
        state = .suspended(continuation)
        return nil
      }
      if let decided { continuation.resume(returning: decided) }
    }
  }
}

/// Calls a closure.
final class EndCallback: EndObserver, @unchecked Sendable {
  // Unchecked: a constant.
  private let body: @Sendable (EndReason) -> Void

  init(_ body: @escaping @Sendable (EndReason) -> Void) { self.body = body }

  override func hear(_ reason: EndReason) { self.body(reason) }
}
