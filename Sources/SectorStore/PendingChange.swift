// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// A change on its way to the disk.
package final class PendingChange: Sendable {
  private enum State {
    case waiting([CheckedContinuation<Result<LogIndex, StoreError>, Never>])
    case done(Result<LogIndex, StoreError>)
  }

  private let state = Mutex(State.waiting([]))

  package init() {}

  /// Returns the change's entry once it is durable and applied; throws why it was refused. Goes on waiting when the
  /// task is cancelled: the change can not be taken back.
  package func durable() async throws(StoreError) -> LogIndex {
    let result: Result<LogIndex, StoreError> = await withCheckedContinuation { continuation in
      let done = self.state.withLock { state -> Result<LogIndex, StoreError>? in
        switch state {
        case .waiting(let others):
          state = .waiting(others + [continuation])
          return nil
        case .done(let result): return result
        }
      }
      if let done { continuation.resume(returning: done) }
    }
    return try result.get()
  }

  /// The first call counts.
  package func complete(_ result: Result<LogIndex, StoreError>) {
    let waiting = self.state.withLock { state -> [CheckedContinuation<Result<LogIndex, StoreError>, Never>] in
      guard case .waiting(let continuations) = state else { return [] }
      state = .done(result)
      return continuations
    }
    for continuation in waiting { continuation.resume(returning: result) }
  }
}
