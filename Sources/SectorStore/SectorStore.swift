// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// One process's durable storage: inode records, blocks of bytes in versions, sessions, certificates and facts.
///
/// Changes are written by one thread, which takes all that wait as one batch: blocks get free slots of the data files, and
/// the log entries, which refer to the slots, are synced; with them the blocks, of small changes in the entries themselves,
/// of large ones in their slots just before. Then everything is applied in memory and all waiting callers are told. A
/// second thread moves what was applied to the index (a checkpoint) so that the log
/// stays short. Opening reads the index and applies what the log has beyond it. Format.md describes the files.
///
/// Threads of the store keep it alive: end it with ``close()``.
package final class SectorStore: Sendable {
  /// Generation, sector size, data file size and member id as the store was made; limits as it was opened.
  package let configuration: StoreConfiguration
  /// When the store was made, in seconds since 1970.
  package let created: Int64
  let files: any FileLayer
  let directory: String
  let live: LiveState
  let applying: Applying
  let sectors: DataFiles
  let nodes: DataFiles
  let queue: Monitor<WriteQueue>
  let checkpoints = Monitor(CheckpointQueue())
  let readers: ReaderThreads
  /// Scrubs and repairs, of which one runs at a time.
  let scrubs = Monitor(ScrubGate())
  /// Who decides what stands in the log; nil where the store does so itself.
  let owner = Mutex<(any LogOwner)?>(nil)
  /// Whether a write of the owner waits for room, or has waited.
  let hadNoSpace = Atomic(false)
  /// Damage of the log that was found on opening, and let go of, as the index had all that was in that part.
  package let damageLetGo: DamagePlace?
  /// What the log had when the store was opened, and was not applied.
  let recovered: RecoveredLog
  private let lock: any FileLock
  private let writer: Mutex<Writer?>

  // MARK: Creating and opening

  /// Makes an empty store in this directory, which is made if it does not exist. On return it is durable.
  package static func create(
    at directory: String, _ configuration: StoreConfiguration, files: any FileLayer = HostFiles()
  ) throws(StoreError) {
    guard StoreHeader.isValid(sectorSize: configuration.sectorSize) else {
      throw .invalidChange(.blockSizeWrong)
    }
    do throws(FileError) {
      try files.makeDirectory(directory)
      let lock = try files.lock(directory + "/lock")
      defer { lock.release() }
      let names = try files.list(directory)
      guard !names.contains(StoreHeader.fileName) else { throw .exists }
      for name in ["log", "data"] { try files.makeDirectory(directory + "/" + name) }
      // What a creation left behind that did not get to the header.
      for name in try files.list(directory + "/log") { try files.remove(directory + "/log/" + name) }
      _ = try SegmentedLog.create(
        at: directory + "/log", generation: configuration.generation, segmentBytes: configuration.segmentBytes,
        firstIndex: LogIndex(1), files: files)
      // The header last: with it the store exists.
      try StoreHeader(configuration).write(to: directory, files: files)
    } catch {
      throw error == .exists ? .alreadyExists : StoreError(error)
    }
  }

  /// Whether a directory holds a whole store.
  package static func exists(at directory: String, files: any FileLayer = HostFiles()) -> Bool {
    (try? files.list(directory).contains(StoreHeader.fileName)) == true
  }

  /// Opens the store in this directory and recovers what was durable.
  ///
  /// - Parameters:
  ///   - configuration: its limits apply; generation, sector size and data file size are the store's own.
  ///   - appliesLog: whether all entries of the log are applied at once. False where the consensus of a group has to
  ///     say which of them are committed: see ``recoveredLog`` and ``apply(through:)``.
  ///   - index: nil for SQLite in the store's directory.
  package static func open(
    at directory: String, _ configuration: StoreConfiguration = StoreConfiguration(generation: 0),
    files: any FileLayer = HostFiles(), appliesLog: Bool = true, index: (any StoreIndex)? = nil
  ) throws(StoreError) -> SectorStore {
    let (header, lock) = try Self.lockAndReadHeader(directory, files: files)
    var configuration = configuration
    configuration.generation = header.generation
    configuration.sectorSize = header.sectorSize
    configuration.dataFileBytes = header.dataFileBytes
    configuration.memberID = header.memberID
    do throws(StoreError) {
      let index: any StoreIndex = if let index { index } else { try SQLiteIndex(path: directory + "/index.sqlite") }
      let store = try SectorStore(
        directory: directory, configuration: configuration, created: header.created, files: files,
        appliesLog: appliesLog, index: index, lock: lock)
      guard store.startThreads() else {
        store.abandon()
        throw StoreError.failed("no thread could be started")
      }
      return store
    } catch {
      lock.release()
      throw error
    }
  }

  private static func lockAndReadHeader(
    _ directory: String, files: any FileLayer
  ) throws(StoreError) -> (StoreHeader, any FileLock) {
    let lock: any FileLock
    let bytes: [UInt8]
    do throws(FileError) {
      guard try files.list(directory).contains(StoreHeader.fileName) else { throw .notFound }
      lock = try files.lock(directory + "/lock")
      bytes = try files.open(directory + "/" + StoreHeader.fileName, create: false).readAll(count: 4_096, at: 0)
    } catch {
      throw error == .notFound ? .notAStore : StoreError(error)
    }
    do throws(StoreError) {
      return (try StoreHeader(encoded: bytes), lock)
    } catch {
      lock.release()
      throw error
    }
  }

  private init(
    directory: String, configuration: StoreConfiguration, created: Int64, files: any FileLayer, appliesLog: Bool,
    index: any StoreIndex, lock: any FileLock
  ) throws(StoreError) {
    self.configuration = configuration
    self.created = created
    self.directory = directory
    self.files = files
    self.lock = lock
    self.readers = ReaderThreads()
    self.queue = Monitor(
      WriteQueue(countMax: configuration.queueCountMax, bytesMax: configuration.queueBytesMax))
    let applied = try index.applied()
    self.live = LiveState(
      AppliedState(
        appliedIndex: applied.index, appliedTerm: applied.term, inodeMax: try index.inodeMax(),
        sessions: SessionTable(
          countMax: configuration.sessionCountMax, ownerCountMax: configuration.sessionsPerOwnerMax,
          headers: try index.sessions()),
        facts: try index.facts(), cacheBytesMax: configuration.cacheBytesMax,
        retainedEntriesMin: configuration.retainedEntriesMin,
        retainedSlotsMax: configuration.checkpointDeadBytes / StoreConfiguration.nodeSize), index: index)
    // At once, and not when a scrub comes there: to other members these sessions are known.
    let damagedSessions = try index.damagedSessions()
    self.live.damage.withLock { report in for place in damagedSessions { report.note(place) } }
    self.applying = Applying(Applier(live: self.live, configuration: configuration))
    do throws(FileError) {
      self.sectors = try DataFiles(
        files: files, directory: directory + "/data", prefix: "sectors", slotBytes: configuration.sectorSize,
        fileBytes: configuration.dataFileBytes, growthBytes: configuration.growthBytes)
      self.nodes = try DataFiles(
        files: files, directory: directory + "/data", prefix: "nodes", slotBytes: StoreConfiguration.nodeSize,
        fileBytes: configuration.dataFileBytes, growthBytes: min(configuration.growthBytes, 32 << 20))
    } catch {
      throw StoreError(error)
    }
    let log = try SegmentedLog.open(
      at: directory + "/log", generation: configuration.generation, segmentBytes: configuration.segmentBytes,
      covered: applied.index, files: files)
    self.damageLetGo = log.damageLetGo
    let (live, checkpoints) = (self.live, self.checkpoints)
    var writer = Writer(
      live: live, applying: self.applying, log: log, sectors: self.sectors, nodes: self.nodes,
      configuration: configuration,
      makeRoom: {
        // Superseded blocks give their room back with a checkpoint.
        guard live.state.withLock({ $0.hasDeadSlots }) else { return false }
        Self.requestCheckpoint(checkpoints, waits: true)
        live.state.withLock { $0.dropRetained() }
        return true
      })
    try writer.recover(appliesLog: appliesLog)
    let (index, term) = live.state.withLock { ($0.appliedIndex, $0.appliedTerm) }
    self.recovered = RecoveredLog(
      hardState: log.hardState, applied: index, appliedTerm: term,
      entries: self.applying.state.withLock { $0.headers })
    self.writer = Mutex(writer)
  }

  private func startThreads() -> Bool {
    guard
      WorkerThread.start({
        guard let writer = self.writer.withLock({ $0.take() }) else { return }
        self.runWriter(writer)
      })
    else {
      self.queue.withLock { $0.isWriterRunning = false }
      return false
    }
    self.checkpoints.withLock { $0.isRunning = true }
    guard WorkerThread.start({ self.runCheckpoints() }) else {
      self.checkpoints.withLock { $0.isRunning = false }
      return false
    }
    for _ in 0..<max(self.configuration.readerCount, 1) {
      guard WorkerThread.start({ [readers] in readers.run() }) else { return false }
    }
    return true
  }

  // MARK: Changing

  /// Puts a change in the queue. The order of calls is the order of the log, and of application. Short and without
  /// waiting, so it may be called under the caller's lock. Throws `queueFull` and `invalidChange` with nothing done.
  package func enqueue(_ change: Change) throws(StoreError) -> PendingChange {
    if let fault = change.fault(self.configuration) { throw .invalidChange(fault) }
    let pending = PendingChange()
    let queued = QueuedWork(change: change, pending: pending, self.configuration)
    let wakes = try self.queue.withLock { queue throws(StoreError) in try queue.append(queued) }
    if wakes { self.queue.wakeAll() }
    return pending
  }

  /// Suspends until the queue has room for another change. Another caller may take it first.
  package func waitForRoom() async {
    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
      let isReady = self.queue.withLock { queue in
        if queue.isFull {
          queue.roomWaiters.append(continuation)
          return false
        }
        return true
      }
      if isReady { continuation.resume() }
    }
  }

  /// Waits for room, enqueues, and returns when the change is durable and applied.
  package func commit(_ change: Change) async throws(StoreError) -> LogIndex {
    while true {
      do throws(StoreError) {
        return try await self.enqueue(change).durable()
      } catch .queueFull {
        await self.waitForRoom()
      }
    }
  }

  // MARK: Ending

  /// Takes no more changes, finishes those in the queue, writes a checkpoint, and lets the directory go. Throws what
  /// had stopped the store before, or kept the checkpoint from being written; the directory is let go in any case.
  package func close() async throws(StoreError) {
    let result: Result<Void, StoreError> = await withCheckedContinuation { continuation in
      let isStarted = WorkerThread.start { continuation.resume(returning: self.end(.closing)) }
      if !isStarted { continuation.resume(returning: self.end(.closing)) }
    }
    try result.get()
  }

  /// Stops as a crash would, without a checkpoint; changes in the queue are refused. Blocks until the threads ended.
  package func abandon() {
    _ = self.end(.stopped(.closed))
  }

  private func end(_ phase: WriteQueue.Phase) -> Result<Void, StoreError> {
    let refused = self.queue.withLock { $0.end(phase) }
    for pending in refused { pending.complete(.failure(.closed)) }
    self.queue.wakeAll()
    self.checkpoints.wakeAll()
    self.stopScrubs()
    self.queue.wait { $0.isWriterRunning ? nil : () }
    let failure = self.live.state.withLock { state -> StoreError? in
      let failure = state.failure
      if state.failure == nil, phase != .closing { state.failure = .closed }
      return failure
    }
    var result: Result<Void, StoreError> = .success(())
    if let failure {
      result = failure == .closed ? .success(()) : .failure(failure)
    } else if phase == .closing {
      Self.requestCheckpoint(self.checkpoints, waits: true)
      if let error = self.checkpoints.withLock({ $0.lastError }) { result = .failure(error) }
      self.live.state.withLock { $0.failure = .closed }
    }
    self.checkpoints.withLock { $0.isStopped = true }
    self.checkpoints.wakeAll()
    self.checkpoints.wait { $0.isRunning ? nil : () }
    self.readers.stop()
    self.live.index.close()
    self.lock.release()
    self.owner.withLock { $0.take() }?.stopped(.closed)
    return result
  }

  /// Refuses everything from now on.
  func fail(_ error: StoreError) {
    if case .damaged(let place) = error { self.live.fatalDamage.withLock { if $0 == nil { $0 = place } } }
    let error =
      switch error {
      case .failed: error
      default: StoreError.failed("\(error)")
      }
    self.live.state.withLock { if $0.failure == nil { $0.failure = error } }
    let refused = self.queue.withLock { $0.end(.stopped(error)) }
    for pending in refused { pending.complete(.failure(error)) }
    self.queue.wakeAll()
    self.checkpoints.wakeAll()
    self.owner.withLock { $0 }?.stopped(error)
  }
}
