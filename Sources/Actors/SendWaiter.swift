// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// A sender that waits for room in a mailbox. Comes to one end, once.
final class SendWaiter: Sendable {
  enum Outcome: Sendable { case admitted, refused(SendError) }

  private enum State {
    case undecided
    case suspended(UnsafeContinuation<Outcome, Never>)
    case decided(Outcome)
  }

  /// A decision that was made, and who is to hear of it.
  struct Decision: Sendable {
    fileprivate let outcome: Outcome
    fileprivate let continuation: UnsafeContinuation<Outcome, Never>?

    func tell() { self.continuation?.resume(returning: self.outcome) }
  }

  private let state = Mutex(State.undecided)

  /// Decides, if nobody has yet. The sender goes on when it is told, which may be under no lock.
  func decide(_ outcome: Outcome) -> Decision? {
    self.state.withLock { state in
      switch state {
      case .decided: return nil
      case .undecided:
        state = .decided(outcome)
        return Decision(outcome: outcome, continuation: nil)
      case .suspended(let continuation):
        state = .decided(outcome)
        return Decision(outcome: outcome, continuation: continuation)
      }
    }
  }

  func outcome() async -> Outcome {
    await withTaskCancellationHandler {
      await withUnsafeContinuation { continuation in
        let decided = self.state.withLock { state -> Outcome? in
          if case .decided(let outcome) = state { return outcome }
          state = .suspended(continuation)
          return nil
        }
        if let decided { continuation.resume(returning: decided) }
      }
    } onCancel: {
      self.decide(.refused(.cancelled))?.tell()
    }
  }
}
