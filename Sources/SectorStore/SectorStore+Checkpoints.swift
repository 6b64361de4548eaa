// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What the checkpointing thread is asked, and says.
struct CheckpointQueue: Sendable {
  var requested: UInt64 = 0
  var completed: UInt64 = 0
  var isStopped = false
  var isRunning = false
  /// Why the last checkpoint was not written.
  var lastError: StoreError?
  var usage = Usage()

  /// What the writer knows, for the status.
  struct Usage: Sendable {
    var logBytes = 0
    var sectorSlotsUsed = 0
    var sectorSlotsFree = 0
    var nodeSlotsUsed = 0
    var nodeSlotsFree = 0
  }
}

extension SectorStore {
  /// Asks for a checkpoint of everything applied by now; with `waits`, returns when it was written or has failed.
  static func requestCheckpoint(_ checkpoints: Monitor<CheckpointQueue>, waits: Bool) {
    let ticket = checkpoints.withLock { queue -> UInt64? in
      guard queue.isRunning else { return nil }
      // One that waits to begin covers this request too, unless somebody waits for just this.
      if waits || queue.requested == queue.completed { queue.requested += 1 }
      return queue.requested
    }
    guard let ticket else { return }
    checkpoints.wakeAll()
    if waits { checkpoints.wait { $0.completed >= ticket || !$0.isRunning ? () : nil } }
  }

  /// Writes a checkpoint of everything applied by now.
  package func checkpoint() async throws(StoreError) {
    try await self.perform { () throws(StoreError) in
      try self.live.check()
      Self.requestCheckpoint(self.checkpoints, waits: true)
      if let error = self.checkpoints.withLock({ $0.lastError }) { throw error }
    }
  }

  /// The checkpointing thread.
  func runCheckpoints() {
    while true {
      let ticket = self.checkpoints.wait { queue -> UInt64?? in
        if queue.isStopped { return .some(nil) }
        return queue.requested > queue.completed ? .some(queue.requested) : nil
      }
      guard let ticket else { break }
      let error = self.writeCheckpoint()
      self.checkpoints.withLock { queue in
        queue.completed = ticket
        queue.lastError = error
      }
      self.checkpoints.wakeAll()
    }
    self.checkpoints.withLock { $0.isRunning = false }
    self.checkpoints.wakeAll()
  }

  private func writeCheckpoint() -> StoreError? {
    // A layer that could not be written before comes first.
    let hadFrozen = self.live.state.withLock { $0.frozen != nil }
    for _ in 0..<(hadFrozen ? 2 : 1) {
      guard let layer = self.live.state.withLock({ $0.failure == nil ? $0.freeze() : nil }) else { return nil }
      do throws(StoreError) {
        do throws(FileError) {
          // The log will not be asked for these bytes any more.
          try self.sectors.syncWritten()
          try self.nodes.syncWritten()
        } catch {
          throw .failed("\(error)")
        }
        try self.live.index.write(layer)
      } catch {
        // Without room the layer stays in memory, the log stays, and the next attempt may succeed. Anything else means
        // that the index can not be trusted any more.
        if error != .noSpace { self.fail(error) }
        return error
      }
      // Outside of the lock: letting go of a large layer takes a while.
      let (old, retainedAfter) = self.live.state.withLock { ($0.checkpointed(), $0.retainedAfter) }
      withExtendedLifetime(old) {}
      self.queue.withLock {
        $0.recycleThrough = retainedAfter
        _ = $0.retry()
      }
      self.queue.wakeAll()
    }
    return nil
  }
}
