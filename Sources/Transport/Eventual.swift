// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Something that is settled once, and that any number of tasks may wait for.
final class Eventual<Value: Sendable>: Sendable {
  private struct State {
    var result: Result<Value, any Error>?
    var waiters: [UInt64: CheckedContinuation<Value, any Error>] = [:]
    var waiterCount: UInt64 = 0
  }

  private let state = Mutex(State())

  /// The first result is the one that counts; later ones are ignored.
  func settle(_ result: Result<Value, any Error>) {
    let waiters = self.state.withLock { state -> [CheckedContinuation<Value, any Error>] in
      guard state.result == nil else { return [] }
      state.result = result
      defer { state.waiters = [:] }
      return Array(state.waiters.values)
    }
    for waiter in waiters { waiter.resume(with: result) }
  }

  /// Waits until it is settled. Throws what it was settled with, or `CancellationError` when the task is cancelled first.
  var value: Value {
    get async throws {
      let number = self.state.withLock { state in
        state.waiterCount += 1
        return state.waiterCount
      }
      return try await withTaskCancellationHandler {
        try await withCheckedThrowingContinuation { continuation in
          let result = self.state.withLock { state in
            if state.result == nil { state.waiters[number] = continuation }
            return state.result
          }
          if let result { continuation.resume(with: result) }
          // Cancelled before it was waiting: the handler below has found nothing then.
          if Task.isCancelled { self.cancel(number) }
        }
      } onCancel: {
        self.cancel(number)
      }
    }
  }

  private func cancel(_ number: UInt64) {
    let waiter = self.state.withLock { $0.waiters.removeValue(forKey: number) }
    waiter?.resume(throwing: CancellationError())
  }
}
