// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What only the writing thread touches: the log's end, the free slots, and the state that there will be when all it
/// has taken on is durable.
struct Writer: Sendable {
  private let live: LiveState
  private let sectors: DataFiles
  private let nodes: DataFiles
  private let configuration: StoreConfiguration
  var log: SegmentedLog
  private(set) var sectorPool = SlotPool()
  private(set) var nodePool = SlotPool()

  /// Records and groups of changes that are not applied yet.
  private var staging = Layer()
  private var stagedResults: [SessionID: Set<UInt64>] = [:]
  private var sessions: SessionTable
  private var staged: [Staged] = []
  /// Changes of the batch that are refused already; their callers are told when all of it is done.
  private var refused: Set<ObjectIdentifier> = []
  private var sectorWriter: SlotWriter
  private var nodeWriter: SlotWriter
  /// Frees room by a checkpoint and returns whether that was worth a second try.
  private let makeRoom: @Sendable () -> Bool

  private struct Staged: Sendable {
    var pending: PendingChange
    var effects: AppliedState.Effects
    var payload: [UInt8]
  }

  typealias Completion = (pending: PendingChange, result: Result<LogIndex, StoreError>)

  init(
    live: LiveState, log: SegmentedLog, sectors: DataFiles, nodes: DataFiles, configuration: StoreConfiguration,
    makeRoom: @escaping @Sendable () -> Bool
  ) {
    self.live = live
    self.log = log
    self.sectors = sectors
    self.nodes = nodes
    self.configuration = configuration
    self.sessions = live.state.withLock { $0.sessions }
    self.sectorWriter = SlotWriter(files: sectors)
    self.nodeWriter = SlotWriter(files: nodes)
    self.makeRoom = makeRoom
  }

  // MARK: Recovery

  /// Finds the slots in use, then applies what the log has and the index has not.
  mutating func recover() throws(StoreError) {
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
      try self.replay(self.log.entry(index))
      index = index.next
    }
    self.sessions = self.live.state.withLock { $0.sessions }
  }

  private mutating func replay(_ entry: LogEntry) throws(StoreError) {
    guard let body = EntryBody(encoded: entry.payload) else { throw .damaged(.logEntry(entry.index)) }
    for block in body.blocks {
      for run in block.runs {
        for slot in run.first..<run.first + UInt64(run.count) {
          let isTaken = block.level == 0 ? self.sectorPool.take(slot) : self.nodePool.take(slot)
          if !isTaken { throw .damaged(.logEntry(entry.index)) }
        }
      }
    }
    let groups = try self.edits(body)
    self.live.state.withLock { state in
      state.apply(
        AppliedState.Effects(
          index: entry.index, term: entry.term, logBytes: SegmentedLog.frameBytes(payload: entry.payload.count),
          body: body, groups: groups))
    }
  }

  // MARK: Committing

  /// Makes a batch durable and applies it. Returns what each change came to; throws when the store can not go on.
  mutating func commit(_ batch: [QueuedChange]) throws(StoreError) -> [Completion] {
    self.releaseFreed()
    self.refused.removeAll(keepingCapacity: true)
    var completions: [Completion] = []
    completions.reserveCapacity(batch.count)
    for queued in batch {
      do throws(StoreError) {
        try self.stage(queued.change, pending: queued.pending)
      } catch {
        switch error {
        case .failed, .io: throw error
        default:
          self.refused.insert(ObjectIdentifier(queued.pending))
          completions.append((queued.pending, .failure(error)))
        }
      }
    }
    guard !self.staged.isEmpty else { return completions }
    do throws(FileError) {
      try self.sectorWriter.finish()
      try self.nodeWriter.finish()
      try self.log.prepare(byteCount: self.staged.reduce(0) { $0 + $1.effects.logBytes })
    } catch {
      guard error == .noSpace else { throw .failed("\(error)") }
      for item in self.staged { completions.append((item.pending, .failure(.noSpace))) }
      self.abandonStaged()
      return completions
    }
    do throws(FileError) {
      for item in self.staged {
        self.log.append(LogEntry(index: item.effects.index, term: item.effects.term, payload: item.payload))
      }
      try self.log.sync()
    } catch {
      throw .failed("\(error)")
    }
    self.live.state.withLock { state in
      for item in self.staged { state.apply(item.effects) }
    }
    for item in self.staged { completions.append((item.pending, .success(item.effects.index))) }
    self.forgetStaged()
    return completions
  }

  private mutating func stage(_ change: Change, pending: PendingChange) throws(StoreError) {
    try self.checkConditions(change)
    try self.checkOperations(change)
    var body = EntryBody(change, blocks: [])
    do throws(StoreError) {
      try self.place(change.blocks, in: &body)
      // Everything that can be refused comes before anything is changed.
      let edits = try self.edits(body)
      let payload = body.encoded()
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
      self.take(body, edits: edits, payload: payload, term: change.term, pending: pending)
    } catch {
      for block in body.blocks { self.release(block.runs, level: block.level) }
      throw error
    }
  }

  private mutating func take(
    _ body: EntryBody, edits: [AppliedState.GroupEdit], payload: [UInt8], term: UInt64, pending: PendingChange
  ) {
    let index = LogIndex(self.log.nextIndex.rawValue + UInt64(self.staged.count))
    for record in body.records {
      switch record {
      case .put(let record): self.staging.put(.put(record), inode: record.inode)
      case .remove(let inode): self.staging.put(.removed, inode: inode)
      }
    }
    for edit in edits { self.staging.put(edit.new, key: edit.key) }
    for opening in body.sessionsOpened { _ = self.sessions.open(opening, at: index) }
    for operation in body.operations {
      self.sessions.apply(operation, at: index)
      self.stagedResults[operation.session, default: []].insert(operation.sequence)
    }
    let effects = AppliedState.Effects(
      index: index, term: term, logBytes: SegmentedLog.frameBytes(payload: payload.count), body: body, groups: edits)
    self.staged.append(Staged(pending: pending, effects: effects, payload: payload))
  }

  private func checkConditions(_ change: Change) throws(StoreError) {
    for predecessor in change.predecessors {
      // Those of earlier batches have been told; the ones of this batch are about to be.
      if predecessor.isRefused || self.refused.contains(ObjectIdentifier(predecessor)) { throw .predecessorRefused }
    }
    for condition in change.conditions {
      let current = try self.record(condition.inode)?.version
      if current != condition.version { throw .conditionFailed(inode: condition.inode, current: current) }
    }
    for case .put(let record) in change.records {
      if let current = try self.record(record.inode)?.version, current >= record.version {
        throw .invalidChange(.versionNotHigher)
      }
    }
  }

  private func checkOperations(_ change: Change) throws(StoreError) {
    for operation in change.operations {
      let (session, sequence) = (operation.session, operation.sequence)
      guard let header = self.sessions[session] else {
        if change.sessionsOpened.contains(where: { $0.session == session }) { continue }
        throw .unknownSession(session)
      }
      if sequence > header.highest { continue }
      if header.highest - sequence >= StoreConfiguration.sessionWindow {
        throw .operationTooOld(session, sequence: sequence)
      }
      if self.stagedResults[session]?.contains(sequence) == true { throw .alreadyApplied(session, sequence: sequence) }
      if case .applied = try self.live.operationStatus(session, sequence: sequence) {
        throw .alreadyApplied(session, sequence: sequence)
      }
    }
  }

  private func record(_ inode: UInt64) throws(StoreError) -> StoredRecord? {
    if let state = self.staging.records[inode] { return state.record }
    return try self.live.record(inode)
  }

  private func group(_ key: GroupKey) throws(StoreError) -> BlockGroup? {
    if let group = self.staging.groups[key] { return group }
    return try self.live.group(key)
  }

  // MARK: Block map

  /// What an entry does to the block map, by the state before it.
  private func edits(_ body: EntryBody) throws(StoreError) -> [AppliedState.GroupEdit] {
    var edits = GroupEdits()
    for case .remove(let inode) in body.records {
      // Later than any version that can be pinned.
      let version = (try self.record(inode)?.version ?? 0) + 1
      try self.truncate(inode, keptCounts: [], version: version, in: &edits)
    }
    guard !body.blocks.isEmpty || !body.truncations.isEmpty else { return edits.items }
    var versions: [UInt64: UInt64] = [:]
    for case .put(let record) in body.records { versions[record.inode] = record.version }
    for truncation in body.truncations {
      guard let version = versions[truncation.inode] else { throw .invalidChange(.blocksWithoutRecord) }
      try self.truncate(truncation.inode, keptCounts: truncation.keptCounts, version: version, in: &edits)
    }
    for blocks in body.blocks {
      guard let version = versions[blocks.inode] else { throw .invalidChange(.blocksWithoutRecord) }
      try self.write(blocks, version: version, in: &edits)
    }
    return edits.items
  }

  private func truncate(
    _ inode: UInt64, keptCounts: [UInt64], version: UInt64, in edits: inout GroupEdits
  ) throws(StoreError) {
    var keys = try self.live.groupKeys(inode: inode)
    keys.formUnion(self.staging.groupsOfInode[inode] ?? [])
    for key in keys {
      let kept = Int(key.level) < keptCounts.count ? keptCounts[Int(key.level)] : 0
      if kept >= key.firstIndex + UInt64(BlockGroup.size) { continue }
      let base: BlockGroup
      do throws(StoreError) {
        guard let stored = try self.group(key), !stored.isEmpty else { continue }
        base = stored
      } catch {
        guard case .damaged = error, kept <= key.firstIndex else { throw error }
        // Where its blocks lay is not known any more. They are free when the store is opened the next time.
        edits.append(.init(key: key, base: nil, new: BlockGroup(version: version, pointers: [])))
        continue
      }
      var new = base
      new.version = version
      new.truncate(to: kept > key.firstIndex ? Int(kept - key.firstIndex) : 0)
      if new.pointers != base.pointers { edits.append(.init(key: key, base: base, new: new)) }
    }
  }

  private func write(
    _ blocks: EntryBody.PlacedBlocks, version: UInt64, in edits: inout GroupEdits
  ) throws(StoreError) {
    var index = blocks.index
    var number = 0
    var item = -1
    for run in blocks.runs {
      for slot in run.first..<run.first + UInt64(run.count) {
        let key = GroupKey(inode: blocks.inode, level: blocks.level, group: index >> 6)
        if item < 0 || index & 63 == 0 {
          if let known = edits.find(key) {
            item = known
          } else {
            let base = try self.group(key)
            var new = base ?? .empty
            new.version = version
            item = edits.append(.init(key: key, base: base, new: new))
          }
        }
        edits.items[item].new[Int(index & 63)] = BlockPointer(slot: slot, checksum: blocks.checksums[number])
        index += 1
        number += 1
      }
    }
  }

  /// The edits of one entry, at most one for each group.
  private struct GroupEdits {
    var items: [AppliedState.GroupEdit] = []
    private var places: [GroupKey: Int] = [:]

    func find(_ key: GroupKey) -> Int? {
      if self.items.count <= 8 { return self.items.firstIndex { $0.key == key } }
      return self.places[key]
    }

    @discardableResult
    mutating func append(_ edit: AppliedState.GroupEdit) -> Int {
      self.items.append(edit)
      if self.items.count == 9 {
        for (place, item) in self.items.enumerated() { self.places[item.key] = place }
      } else if self.items.count > 9 {
        self.places[edit.key] = self.items.count - 1
      }
      return self.items.count - 1
    }
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

  private mutating func release(_ runs: [SlotRun], level: UInt8) {
    self.pool(level) { $0.release(runs) }
  }

  private mutating func releaseFreed() {
    let freed = self.live.state.withLock { $0.takeFreed() }
    for slot in freed.sectors { self.sectorPool.release(slot) }
    for slot in freed.nodes { self.nodePool.release(slot) }
  }

  /// Undoes the staging of the whole batch.
  private mutating func abandonStaged() {
    for item in self.staged {
      for block in item.effects.body.blocks { self.release(block.runs, level: block.level) }
    }
    self.sectorWriter.reset()
    self.nodeWriter.reset()
    self.sessions = self.live.state.withLock { $0.sessions }
    self.forgetStaged()
  }

  private mutating func forgetStaged() {
    self.staged.removeAll(keepingCapacity: true)
    self.staging.removeAll()
    self.stagedResults.removeAll(keepingCapacity: true)
  }
}
