// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

extension SectorStore {
  /// The writing thread.
  func runWriter(_ writer: Writer) {
    var writer = writer
    let logBytes = self.configuration.segmentBytes / 4
    loop: while true {
      switch self.queue.wait({ $0.next(batchBytes: self.configuration.batchBytes, logBytes: logBytes) }) {
      case .stop: break loop
      case .recycle(let index):
        do throws(FileError) {
          try writer.log.recycle(through: index)
        } catch {
          // Without room for a directory entry it is tried again after the next checkpoint.
          if error != .noSpace { self.fail(.failed("\(error)")) }
        }
        self.note(writer)
        self.owner.withLock { $0 }?.compacted(through: index)
      case .lookups(let lookups):
        for lookup in lookups { lookup.continuation.resume(returning: writer.log.places(lookup.range)) }
      case .jobs(let jobs):
        for job in jobs { job.body(&writer) }
        self.note(writer)
      case .apply(let index): self.apply(through: index, mayWait: true)
      case .batch(let batch, let room):
        for waiter in room { waiter.resume() }
        self.write(batch, with: &writer)
      }
    }
    self.queue.withLock { $0.isWriterRunning = false }
    self.queue.wakeAll()
  }

  private func write(_ batch: [QueuedWork], with writer: inout Writer) {
    guard self.waitForCheckpoint() else {
      self.putBack(batch.filter { $0.pending == nil })
      for work in batch { work.pending?.complete(.failure(.noSpace)) }
      return
    }
    do throws(StoreError) {
      let outcome = try writer.write(batch)
      if !outcome.unwritten.isEmpty { self.putBack(outcome.unwritten) }
      let owner = self.owner.withLock { $0 }
      if let persisted = outcome.persisted {
        if outcome.unwritten.isEmpty, self.hadNoSpace.exchange(false, ordering: .relaxed) { owner?.foundSpace() }
        owner?.persisted(through: persisted)
      }
      // The owner has heard already: the log has these bytes.
      try writer.placeBlocks()
      self.note(writer)
      // Nobody else says when.
      if owner == nil { self.apply(through: writer.writtenIndex, mayWait: true) }
      for refused in outcome.refused { refused.pending.complete(.failure(refused.error)) }
    } catch {
      self.fail(error)
      let failure = self.live.state.withLock { $0.failure } ?? error
      for work in batch { work.pending?.complete(.failure(failure)) }
      for pending in self.applying.state.withLock({ $0.waiting }) { pending.complete(.failure(failure)) }
    }
  }

  /// Keeps what found no room, until there may be some.
  private func putBack(_ work: [QueuedWork]) {
    guard !work.isEmpty else { return }
    self.hadNoSpace.store(true, ordering: .relaxed)
    self.queue.withLock { $0.putBack(work) }
    self.owner.withLock { $0 }?.ranOutOfSpace()
  }

  /// Applies entries that are in the log. Returns false where that would have to wait and may not.
  @discardableResult
  func apply(through index: LogIndex, mayWait: Bool) -> Bool {
    if mayWait { return self.applying.state.withLock { self.apply(through: index, with: &$0, mayWait: true) } }
    return self.applying.state.withLockIfAvailable { self.apply(through: index, with: &$0, mayWait: false) } ?? false
  }

  /// Whoever waits is told under the lock, so that all hear of entries in their order.
  private func apply(through index: LogIndex, with applier: inout Applier, mayWait: Bool) -> Bool {
    let (stopped, refusesDamaged) = self.live.state.withLock { ($0.failure, !$0.retainsEntries) }
    if let stopped {
      // It is in the log, and comes to light when the store is opened again.
      for pending in applier.waiting { pending.complete(.failure(stopped)) }
      return true
    }
    let owner = self.owner.withLock { $0 }
    var applied = Applier.Applied()
    var failure: StoreError?
    do throws(StoreError) {
      try applier.apply(through: index, refusesDamaged: refusesDamaged, mayWait: mayWait, into: &applied)
    } catch {
      failure = error
    }
    if failure == nil, applied.wasDamaged { Self.requestCheckpoint(self.checkpoints, waits: true) }
    // A member that starts applies nothing of its log before it has heard a leader, which it could not find without.
    if applied.concernsMembers { Self.requestCheckpoint(self.checkpoints, waits: false) }
    for item in applied.pending { item.pending.complete(item.result) }
    if !applied.entries.isEmpty { owner?.applied(applied.entries) }
    if let failure {
      self.fail(failure)
      for pending in applier.waiting { pending.complete(.failure(failure)) }
    } else {
      self.requestCheckpointIfDue()
    }
    return applied.isComplete
  }

  /// Holds the writer up when checkpoints can not keep pace, which bounds memory and log. Returns false when they fail
  /// for want of room.
  private func waitForCheckpoint() -> Bool {
    func isFarBehind() -> Bool {
      self.live.state.withLock { state in
        state.active.logBytes > 2 * self.configuration.checkpointBytes
          || state.active.entryCount > 2 * self.configuration.checkpointEntries
      }
    }
    guard isFarBehind() else { return true }
    // The first may be one that began earlier.
    for _ in 0..<2 where isFarBehind() { Self.requestCheckpoint(self.checkpoints, waits: true) }
    return !isFarBehind()
  }

  private func requestCheckpointIfDue() {
    let isDue = self.live.state.withLock { state in
      state.active.logBytes >= self.configuration.checkpointBytes
        || state.active.entryCount >= self.configuration.checkpointEntries
        || state.deadActive.sectors.count * self.configuration.sectorSize
          + state.deadActive.nodes.count * StoreConfiguration.nodeSize >= self.configuration.checkpointDeadBytes
    }
    if isDue { Self.requestCheckpoint(self.checkpoints, waits: false) }
  }

  private func note(_ writer: Writer) {
    self.checkpoints.withLock { queue in
      queue.usage = .init(
        logBytes: writer.log.byteCount, sectorSlotsUsed: writer.sectorPool.usedCount,
        sectorSlotsFree: writer.sectorPool.freeCount, nodeSlotsUsed: writer.nodePool.usedCount,
        nodeSlotsFree: writer.nodePool.freeCount)
    }
  }
}
