// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// Whether the node serves, and who wants to hear of changes.
final class HealthState: Sendable {
  private struct State {
    var isServing = false
    var isEnded = false
    var watchers: [UInt64: AsyncStream<Bool>.Continuation] = [:]
    var nextWatcher: UInt64 = 0

    /// Tells the watchers. Under the lock, so that all of them hear of changes in the order in which they were made.
    mutating func change(to isServing: Bool) {
      guard self.isServing != isServing else { return }
      self.isServing = isServing
      for watcher in self.watchers.values { watcher.yield(isServing) }
    }
  }

  private let state = Mutex(State())

  var isServing: Bool { self.state.withLock { $0.isServing } }

  func set(isServing: Bool) {
    self.state.withLock { state in
      guard !state.isEnded else { return }
      state.change(to: isServing)
    }
  }

  /// Says that the node does not serve any more, whatever anybody says later, and lets all watchers go.
  func end() {
    let watchers = self.state.withLock { state in
      state.change(to: false)
      state.isEnded = true
      defer { state.watchers = [:] }
      return Array(state.watchers.values)
    }
    // Not under the lock, which the end of a watcher takes.
    for watcher in watchers { watcher.finish() }
  }

  /// The present state and each later one; states that nobody took in time are left out.
  func changes() -> AsyncStream<Bool> {
    let (stream, continuation) = AsyncStream.makeStream(of: Bool.self, bufferingPolicy: .bufferingNewest(1))
    let number = self.state.withLock { state -> UInt64? in
      continuation.yield(state.isServing)
      guard !state.isEnded else { return nil }
      state.nextWatcher += 1
      state.watchers[state.nextWatcher] = continuation
      return state.nextWatcher
    }
    guard let number else {
      continuation.finish()
      return stream
    }
    continuation.onTermination = { _ in
      _ = self.state.withLock { $0.watchers.removeValue(forKey: number) }
    }
    return stream
  }
}
