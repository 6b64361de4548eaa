// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
package import SectorStore
private import Synchronization

/// What a sender of a snapshot knows of its stream: how much is on the way, and what the receiver has said.
final class SnapshotFlow: Sendable {
  private struct State {
    var isStarted = false
    var progress = SnapshotProgress()
    /// The last request is written, or about to be.
    var isWhole = false
    /// Why the donor could not go on.
    var failure: StoreError?
    /// The sender, while it may not send.
    var waiter: CheckedContinuation<Void, Never>?

    mutating func takeWaiter() -> CheckedContinuation<Void, Never>? {
      defer { self.waiter = nil }
      return self.waiter
    }
  }

  private let state = Mutex(State())

  /// Takes a response; throws where no receiver would say that.
  func receive(_ response: Blocktree_V1_InstallResponse) throws(MemberError) -> SnapshotProgress {
    var cursor: SnapshotCursor?
    if !response.durableCursor.isEmpty {
      cursor = SnapshotCursor(encoded: [UInt8](response.durableCursor))
      guard cursor != nil else { throw .invalid(field: "durable_cursor") }
    }
    let (progress, waiter) = try self.state.withLock { state throws(MemberError) in
      let received = response.receivedByteCount
      guard !state.progress.isInstalled else { throw .invalid(field: "installed") }
      guard received >= state.progress.receivedByteCount, received <= state.progress.sentByteCount else {
        throw .invalid(field: "received_byte_count")
      }
      if !state.isStarted {
        state.isStarted = true
        state.progress.start = cursor
      }
      if response.installed {
        guard state.isWhole, received == state.progress.sentByteCount else { throw .invalid(field: "installed") }
        state.progress.isInstalled = true
      }
      state.progress.receivedByteCount = received
      state.progress.durable = cursor
      return (state.progress, state.takeWaiter())
    }
    waiter?.resume()
    return progress
  }

  /// Suspends until the receiver has said where to begin.
  func start() async throws(CancellationError) -> SnapshotCursor? {
    try await self.wait { $0.isStarted }
    return self.state.withLock { $0.progress.start }
  }

  /// Suspends until so many bytes may be sent, and counts them as sent.
  func send(_ byteCount: Int, isLast: Bool) async throws(CancellationError) {
    try await self.wait {
      // Before the first request, so that a request of any size may go.
      $0.progress.sentByteCount - $0.progress.receivedByteCount < SnapshotLimits.unacknowledgedByteCountMax
    }
    self.state.withLock { state in
      state.progress.sentByteCount += UInt64(byteCount)
      if isLast { state.isWhole = true }
    }
  }

  /// Nothing more has to be sent than what was.
  func end() { self.state.withLock { $0.isWhole = true } }

  func fail(_ error: StoreError) { self.state.withLock { $0.failure = error } }
  var failure: StoreError? { self.state.withLock { $0.failure } }
  var isInstalled: Bool { self.state.withLock { $0.progress.isInstalled } }

  private func wait(until condition: @Sendable (State) -> Bool) async throws(CancellationError) {
    while !self.state.withLock({ condition($0) }) {
      if Task.isCancelled { throw CancellationError() }
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          let mayWait = self.state.withLock { state in
            guard !Task.isCancelled, !condition(state) else { return false }
            state.waiter = continuation
            return true
          }
          if !mayWait { continuation.resume() }
        }
      } onCancel: {
        let waiter = self.state.withLock { $0.takeWaiter() }
        waiter?.resume()
      }
    }
  }
}

/// How far the transfer of a snapshot is.
package struct SnapshotProgress: Hashable, Sendable {
  /// Where this transfer began: nil at the start, otherwise behind what the receiver had from an interrupted one.
  package var start: SnapshotCursor?
  /// Behind what the receiver has made durable.
  package var durable: SnapshotCursor?
  /// Bytes of items since `start`.
  package var sentByteCount: UInt64 = 0
  /// Of them, those that the receiver has taken in.
  package var receivedByteCount: UInt64 = 0
  /// The receiver has a new store.
  package var isInstalled = false

  package init() {}
}
