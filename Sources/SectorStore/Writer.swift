// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What only the writing thread touches: the log's end and the free slots.
///
/// An entry is *written* first: its blocks get free slots, and the entry, which says where they are, goes to the log. When
/// the ``Applier`` *applies* it, its conditions are judged by the state that all entries before it have left. So replicas that apply
/// the same entries come to the same state, although their slots differ.
struct Writer: Sendable {
  private let live: LiveState
  private let sectors: DataFiles
  private let nodes: DataFiles
  private let configuration: StoreConfiguration
  var log: SegmentedLog
  private(set) var sectorPool = SlotPool()
  private(set) var nodePool = SlotPool()

  /// Taken on, but not in the log yet.
  private var staged: [Staged] = []
  private var stagedHardState: LogHardState?
  /// Blocks that are in the log, and not in their slots yet.
  private var unplaced: [(level: UInt8, runs: [SlotRun], bytes: ArraySlice<UInt8>)] = []
  /// Gets what is in the log.
  private let applying: Applying
  private var sectorWriter: SlotWriter
  private var nodeWriter: SlotWriter
  /// Frees room by a checkpoint and returns whether that was worth a second try.
  private let makeRoom: @Sendable () -> Bool

  private struct Staged: Sendable {
    var entry: Applier.Entry
    var payload: [UInt8]
  }

  /// What came of a batch.
  struct Outcome: Sendable {
    /// Changes that were refused before they got into the log.
    var refused: [(pending: PendingChange, error: StoreError)] = []
    /// The last write of the log's owner that is durable now.
    var persisted: UInt64?
    /// What found no room, of the owner's writes; they wait, as they can not be taken back.
    var unwritten: [QueuedWork] = []
  }

  init(
    live: LiveState, applying: Applying, log: SegmentedLog, sectors: DataFiles, nodes: DataFiles,
    configuration: StoreConfiguration, makeRoom: @escaping @Sendable () -> Bool
  ) {
    self.live = live
    self.applying = applying
    self.log = log
    self.sectors = sectors
    self.nodes = nodes
    self.configuration = configuration
    self.sectorWriter = SlotWriter(files: sectors)
    self.nodeWriter = SlotWriter(files: nodes)
    self.makeRoom = makeRoom
  }

  // MARK: Recovery

  /// Finds the slots in use, and what the log has that the index has not.
  ///
  /// - Parameter appliesLog: whether all of that is applied at once, as it is where nobody else has a say in the log.
  mutating func recover(appliesLog: Bool) throws(StoreError) {
    self.sectorPool.grow(to: self.sectors.capacity)
    self.nodePool.grow(to: self.nodes.capacity)
    var failure: StoreError?
    try self.live.index.forEachGroup { key, group in
      for pointer in group.pointers {
        guard let slot = pointer.slot else { continue }
        let isTaken = key.level == 0 ? self.sectorPool.take(slot) : self.nodePool.take(slot)
        if !isTaken { failure = .damaged(.blockMap(inode: key.inode, level: key.level, group: key.group)) }
      }
    }
    if let failure { throw failure }

    let applied = self.live.state.withLock { $0.appliedIndex }
    guard self.log.lastIndex >= applied else {
      let tail = self.log.segments[self.log.segments.count - 1]
      throw .damaged(.log(segment: tail.sequence, offset: UInt64(self.log.end)))
    }
    guard self.log.firstIndex <= applied.next else { throw .damaged(.index("older than the log reaches back")) }
    var index = applied.next
    while index <= self.log.lastIndex {
      try self.take(self.log.entry(index))
      // Few at a time: a log may be long.
      if appliesLog {
        try self.applying.state.withLock { applier throws(StoreError) in
          var applied = Applier.Applied()
          try applier.apply(through: index, refusesDamaged: true, mayWait: true, into: &applied)
        }
      }
      index = index.next
    }
  }

  private mutating func take(_ entry: LogEntry) throws(StoreError) {
    guard let content = LogContent(encoded: entry.payload), content.isWhole(self.configuration) else {
      throw .damaged(.logEntry(entry.index))
    }
    for block in content.blocks {
      for run in block.runs {
        for slot in run.first..<run.first + UInt64(run.count) {
          let isTaken = block.level == 0 ? self.sectorPool.take(slot) : self.nodePool.take(slot)
          if !isTaken { throw .damaged(.logEntry(entry.index)) }
        }
      }
    }
    self.hand(
      Applier.Entry(
        index: entry.index, term: entry.term, content: content,
        logBytes: SegmentedLog.frameBytes(payload: entry.payload.count), pending: nil))
    try self.placeBlocks()
  }

  /// Gives an entry that is in the log to the applier, and keeps the bytes of its blocks until they are in their slots.
  private mutating func hand(_ entry: Applier.Entry) {
    var entry = entry
    if case .change(var body) = entry.content, !body.inlined.isEmpty {
      for (placed, bytes) in zip(body.blocks, body.inlined) {
        self.unplaced.append((placed.level, placed.runs, bytes))
      }
      body.inlined = []
      entry.content = .change(body)
    }
    self.applying.state.withLock { applier in
      applier.append(CollectionOfOne(entry))
      if self.unplaced.isEmpty { applier.notePlaced(through: entry.index) }
    }
  }

  /// Puts blocks that only the log has into their slots, not synced. Nobody waits for it but who reads them.
  mutating func placeBlocks() throws(StoreError) {
    guard !self.unplaced.isEmpty else { return }
    do throws(FileError) {
      for item in self.unplaced {
        if item.level == 0 {
          try self.sectorWriter.add(item.bytes, runs: item.runs)
        } else {
          try self.nodeWriter.add(item.bytes, runs: item.runs)
        }
      }
      try self.sectorWriter.finishUnsynced()
      try self.nodeWriter.finishUnsynced()
    } catch {
      throw .failed("\(error)")
    }
    self.unplaced.removeAll(keepingCapacity: true)
    let index = self.log.lastIndex
    self.applying.state.withLock { $0.notePlaced(through: index) }
  }

  /// The last entry that is in the log.
  var writtenIndex: LogIndex { self.log.lastIndex }

  // MARK: Writing

  /// Makes a batch durable. Throws when the store can not go on.
  mutating func write(_ batch: [QueuedWork]) throws(StoreError) -> Outcome {
    self.releaseFreed()
    var outcome = Outcome()
    var unflushed: [QueuedWork] = []
    for (number, work) in batch.enumerated() {
      do throws(StoreError) {
        switch work.work {
        case .change(let change, let pending): try self.stage(change, pending: pending)
        case .write(let write):
          if let truncation = write.truncation {
            // All in front of it goes to the disk first.
            self.stagedHardState = write.hardState ?? self.stagedHardState
            guard try self.flush() else { throw .noSpace }
            unflushed.removeAll()
            // Or they could get into slots that hold something else by then.
            try self.placeBlocks()
            try self.truncate(from: truncation)
          }
          try self.stage(write)
        }
        unflushed.append(work)
      } catch {
        switch (error, work.pending) {
        case (.failed, _), (.io, _): throw error
        case (_, let pending?): outcome.refused.append((pending, error))
        case (.noSpace, nil):
          outcome.unwritten = Array(batch[number...])
          return try self.finish(unflushed, outcome)
        case (_, nil): throw .failed("a log entry: \(error)")
        }
      }
    }
    return try self.finish(unflushed, outcome)
  }

  private mutating func finish(_ unflushed: [QueuedWork], _ sofar: Outcome) throws(StoreError) -> Outcome {
    var outcome = sofar
    let pending = self.staged.compactMap(\.entry.pending)
    guard try self.flush() else {
      for pending in pending { outcome.refused.append((pending, .noSpace)) }
      outcome.unwritten = unflushed.filter { $0.pending == nil } + outcome.unwritten
      return outcome
    }
    for case .write(let write) in unflushed.map(\.work) { outcome.persisted = write.id ?? outcome.persisted }
    return outcome
  }

  /// Puts what was staged into the log, with one sync. Returns false, with nothing staged any more, if there is no
  /// room.
  private mutating func flush() throws(StoreError) -> Bool {
    guard !self.staged.isEmpty || self.stagedHardState != nil else { return true }
    do throws(FileError) {
      try self.sectorWriter.finish()
      try self.nodeWriter.finish()
      let bytes = self.staged.reduce(SegmentedLog.hardStateBytes) { $0 + $1.entry.logBytes }
      try self.log.prepare(byteCount: bytes)
    } catch {
      guard error == .noSpace else { throw .failed("\(error)") }
      for item in self.staged { self.release(item.entry.content.blocks) }
      self.forgetStaged()
      return false
    }
    do throws(FileError) {
      if let hardState = self.stagedHardState { self.log.setHardState(hardState) }
      for item in self.staged {
        self.log.append(LogEntry(index: item.entry.index, term: item.entry.term, payload: item.payload))
      }
      try self.log.sync()
    } catch {
      throw .failed("\(error)")
    }
    for item in self.staged { self.hand(item.entry) }
    self.forgetStaged()
    return true
  }

  private mutating func forgetStaged() {
    self.staged.removeAll(keepingCapacity: true)
    self.stagedHardState = nil
    self.sectorWriter.reset()
    self.nodeWriter.reset()
  }

  private mutating func truncate(from index: LogIndex) throws(StoreError) {
    guard index < self.log.nextIndex else { return }
    guard index > self.live.state.withLock({ $0.appliedIndex }) else {
      throw .failed("applied entries were taken back")
    }
    do throws(FileError) { try self.log.truncate(from: index) } catch {
      if error == .noSpace { throw .noSpace }
      throw .failed("\(error)")
    }
    // Only now, as the log must not lead to slots that hold something else.
    self.release(self.applying.state.withLock { $0.truncate(from: index) })
  }

  private var nextIndex: LogIndex { LogIndex(self.log.nextIndex.rawValue + UInt64(self.staged.count)) }

  private mutating func stage(_ write: LogWrite) throws(StoreError) {
    let stagedBefore = self.staged.count
    let hardStateBefore = self.stagedHardState
    guard write.entries.isEmpty || write.firstIndex == self.nextIndex else {
      throw .failed("entry \(write.firstIndex.rawValue) does not follow the log")
    }
    if let hardState = write.hardState { self.stagedHardState = hardState }
    do throws(StoreError) {
      for entry in write.entries {
        switch entry.payload {
        case .change(let change):
          if let fault = change.fault(self.configuration) { throw .invalidChange(fault) }
          try self.stage(change, term: entry.term, pending: nil)
        case .noop: self.stage(.noop, term: entry.term, pending: nil)
        case .membership(let bytes): self.stage(.membership(bytes), term: entry.term, pending: nil)
        }
      }
    } catch {
      // All of it or nothing. Bytes that are on their way to slots which become free do no harm: whoever gets these
      // slots next comes later.
      for item in self.staged[stagedBefore...] { self.release(item.entry.content.blocks) }
      self.staged.removeSubrange(stagedBefore...)
      self.stagedHardState = hardStateBefore
      throw error
    }
  }

  private mutating func stage(_ change: Change, pending: PendingChange) throws(StoreError) {
    try self.stage(change, term: change.term, pending: pending)
  }

  private mutating func stage(_ change: Change, term: UInt64, pending: PendingChange?) throws(StoreError) {
    var body = EntryBody(change, blocks: [])
    do throws(StoreError) {
      try self.place(change.blocks, in: &body)
      if EntryBody.isInlined(change, self.configuration) {
        body.inlined = change.blocks.map(\.bytes)
        return self.stage(.change(body), term: term, pending: pending)
      }
      for (block, placed) in zip(change.blocks, body.blocks) {
        do throws(FileError) {
          if block.level == 0 {
            try self.sectorWriter.add(block.bytes, runs: placed.runs)
          } else {
            try self.nodeWriter.add(block.bytes, runs: placed.runs)
          }
        } catch {
          throw .init(error)
        }
      }
    } catch {
      self.release(body.blocks)
      throw error
    }
    self.stage(.change(body), term: term, pending: pending)
  }

  private mutating func stage(_ content: LogContent, term: UInt64, pending: PendingChange?) {
    let payload = content.encoded()
    let logBytes = SegmentedLog.frameBytes(payload: payload.count)
    self.staged.append(
      Staged(
        entry: Applier.Entry(
          index: self.nextIndex, term: term, content: content, logBytes: logBytes, pending: pending),
        payload: payload))
  }

  // MARK: Slots

  private mutating func place(_ blocks: [BlockWrite], in body: inout EntryBody) throws(StoreError) {
    for block in blocks {
      let runs = try self.allocate(block.count, level: block.level)
      body.blocks.append(
        .init(inode: block.inode, level: block.level, index: block.index, runs: runs, checksums: block.checksums))
    }
  }

  private mutating func allocate(_ count: Int, level: UInt8) throws(StoreError) -> [SlotRun] {
    var runs: [SlotRun] = []
    for attempt in 0..<2 {
      if self.pool(level, { $0.allocate(count, into: &runs) }) { return runs }
      let files = level == 0 ? self.sectors : self.nodes
      do throws(FileError) {
        let missing = count - self.pool(level) { $0.freeCount }
        defer { self.pool(level) { $0.grow(to: files.capacity) } }
        try files.grow(by: missing, reserved: UInt64(self.configuration.reservedBytes))
      } catch {
        guard error == .noSpace else { throw .failed("\(error)") }
      }
      if self.pool(level, { $0.allocate(count, into: &runs) }) { return runs }
      if attempt == 0 {
        guard self.makeRoom() else { break }
        self.releaseFreed()
      }
    }
    throw .noSpace
  }

  private mutating func pool<Result>(_ level: UInt8, _ body: (inout SlotPool) -> Result) -> Result {
    level == 0 ? body(&self.sectorPool) : body(&self.nodePool)
  }

  private mutating func release(_ blocks: [EntryBody.PlacedBlocks]) {
    for block in blocks { self.pool(block.level) { $0.release(block.runs) } }
  }

  private mutating func releaseFreed() {
    let freed = self.live.state.withLock { $0.takeFreed() }
    for slot in freed.sectors { self.sectorPool.release(slot) }
    for slot in freed.nodes { self.nodePool.release(slot) }
  }
}
