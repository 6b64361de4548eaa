// SPDX-License-Identifier: Apache-2.0

internal import ServiceLifecycle
private import Synchronization

/// Why what a node runs has to end: for good, or to begin again, with another store or another cluster.
final class NodeEnd: Sendable {
  enum Reason: Sendable {
    /// It was told to stop.
    case stop
    /// A newer store is ready to take the place of the present one.
    case storeReplaced
    /// A warrant of recovery came, and was put on the disk: the next start heeds it.
    case warrant
    /// The store is damaged, and the cluster does without it: it is set aside, and the process comes back as a new member.
    case storeDamaged
    /// Another cluster serves the directory of a gateway.
    case homeServedAnew
  }

  private struct State {
    var reason: Reason?
    var waiters: [CheckedContinuation<Void, Never>] = []
  }

  private let state = Mutex(State())

  var reason: Reason? { self.state.withLock { $0.reason } }

  /// To stop counts more than to begin again.
  func request(_ reason: Reason) {
    let waiters = self.state.withLock { state in
      if state.reason == nil || reason == .stop { state.reason = reason }
      defer { state.waiters = [] }
      return state.waiters
    }
    for waiter in waiters { waiter.resume() }
  }

  /// Before another round: true unless the node is to stop.
  func beginAgain() -> Bool {
    self.state.withLock { state in
      guard state.reason != .stop else { return false }
      state.reason = nil
      return true
    }
  }

  /// Returns when there is a reason, or the task is cancelled.
  func wait() async {
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let isOver = self.state.withLock { state in
          if state.reason != nil || Task.isCancelled { return true }
          state.waiters.append(continuation)
          return false
        }
        if isOver { continuation.resume() }
      }
    } onCancel: {
      let waiters = self.state.withLock { state in
        defer { state.waiters = [] }
        return state.waiters
      }
      for waiter in waiters { waiter.resume() }
    }
  }
}

extension NodeEnd {
  /// Runs `body`, unless or until there is a reason to end; nil then.
  func unlessRequested<Result: Sendable>(
    _ body: @escaping @Sendable () async throws -> Result
  ) async throws -> Result? {
    try await withThrowingTaskGroup(of: Result?.self) { group in
      group.addTask { try await body() }
      group.addTask {
        await self.wait()
        return nil
      }
      defer { group.cancelAll() }
      do { return try await group.next() ?? nil } catch is CancellationError { return nil }
    }
  }
}

/// Ends when the node has to, and all other services with it, in order.
struct EndWatch: ServiceLifecycle.Service {
  let end: NodeEnd

  func run() async throws {
    await cancelWhenGracefulShutdown { await self.end.wait() }
  }
}
