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
      case .apply(let index): self.apply(through: index, with: &writer)
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
      // Nobody else says when.
      if owner == nil { self.apply(through: writer.writtenIndex, with: &writer) } else { self.note(writer) }
      for refused in outcome.refused { refused.pending.complete(.failure(refused.error)) }
    } catch {
      self.fail(error)
      let failure = self.live.state.withLock { $0.failure } ?? error
      for work in batch { work.pending?.complete(.failure(failure)) }
    }
  }

  /// Keeps what found no room, until there may be some.
  private func putBack(_ work: [QueuedWork]) {
    guard !work.isEmpty else { return }
    self.hadNoSpace.store(true, ordering: .relaxed)
    self.queue.withLock { $0.putBack(work) }
    self.owner.withLock { $0 }?.ranOutOfSpace()
  }

  private func apply(through index: LogIndex, with writer: inout Writer) {
    let owner = self.owner.withLock { $0 }
    do throws(StoreError) {
      let applied = try writer.apply(
        through: index, refusesDamaged: !self.live.state.withLock { $0.retainsEntries })
      if applied.wasDamaged { Self.requestCheckpoint(self.checkpoints, waits: true) }
      // A member that starts applies nothing of its log before it has heard a leader, which it could not find without.
      if applied.concernsMembers { Self.requestCheckpoint(self.checkpoints, waits: false) }
      self.note(writer)
      for item in applied.pending { item.pending.complete(item.result) }
      if !applied.entries.isEmpty { owner?.applied(applied.entries) }
      self.requestCheckpointIfDue()
    } catch {
      self.fail(error)
    }
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
