// SPDX-License-Identifier: Apache-2.0

internal import Crypto
internal import Synchronization

/// What only the writing thread touches: the log's end, the entries that are not applied yet, and the free slots.
///
/// An entry is *written* first: its blocks go to free slots, and the entry, which says where they are, to the log. When
/// it is *applied*, its conditions are judged by the state that all entries before it have left. So replicas that apply
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
  /// In the log, but not applied yet, oldest first.
  private var tail: [TailEntry] = []
  private var tailStart = 0
  private var sectorWriter: SlotWriter
  private var nodeWriter: SlotWriter
  /// Frees room by a checkpoint and returns whether that was worth a second try.
  private let makeRoom: @Sendable () -> Bool

  private struct TailEntry: Sendable {
    var index: LogIndex
    var term: UInt64
    var content: LogContent
    var logBytes: Int
    /// Who waits for it, where the store numbered it itself.
    var pending: PendingChange?
  }

  private struct Staged: Sendable {
    var entry: TailEntry
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

  /// What came of entries that were applied.
  struct Applied: Sendable {
    var entries: [AppliedEntry] = []
    var pending: [(pending: PendingChange, result: Result<LogIndex, StoreError>)] = []
    /// Something that a member has to know before it can find the others: see ``SectorStore/memberFactPrefix``.
    var concernsMembers = false
    /// A replica with whole disks would have done what was refused here: nobody else may be sent these entries.
    var wasDamaged = false
  }

  init(
    live: LiveState, log: SegmentedLog, sectors: DataFiles, nodes: DataFiles, configuration: StoreConfiguration,
    makeRoom: @escaping @Sendable () -> Bool
  ) {
    self.live = live
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
      if appliesLog { _ = try self.apply(through: index, refusesDamaged: true) }
      index = index.next
    }
  }

  private mutating func take(_ entry: LogEntry) throws(StoreError) {
    guard let content = LogContent(encoded: entry.payload) else { throw .damaged(.logEntry(entry.index)) }
    for block in content.blocks {
      for run in block.runs {
        for slot in run.first..<run.first + UInt64(run.count) {
          let isTaken = block.level == 0 ? self.sectorPool.take(slot) : self.nodePool.take(slot)
          if !isTaken { throw .damaged(.logEntry(entry.index)) }
        }
      }
    }
    self.tail.append(
      TailEntry(
        index: entry.index, term: entry.term, content: content,
        logBytes: SegmentedLog.frameBytes(payload: entry.payload.count), pending: nil))
  }

  /// What is in the log and not applied yet.
  var headers: [LogHeader] {
    self.tail[self.tailStart...].map { entry in
      switch entry.content {
      case .change(let body):
        LogHeader(term: entry.term, kind: .change, byteCount: entry.logBytes + self.blockBytes(body))
      case .noop: LogHeader(term: entry.term, kind: .noop, byteCount: 0)
      case .membership(let bytes): LogHeader(term: entry.term, kind: .membership(bytes), byteCount: 0)
      }
    }
  }

  private func blockBytes(_ body: EntryBody) -> Int {
    body.blocks.reduce(0) { $0 + $1.checksums.count * self.configuration.blockSize(level: $1.level) }
  }

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
    for case .write(let write) in unflushed.map(\.work) { outcome.persisted = write.id }
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
    if self.tailStart > self.tail.count / 2 {
      self.tail.removeSubrange(..<self.tailStart)
      self.tailStart = 0
    }
    for item in self.staged { self.tail.append(item.entry) }
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
    while self.tail.count > self.tailStart, let last = self.tail.last, last.index >= index {
      self.release(last.content.blocks)
      self.tail.removeLast()
    }
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
        entry: TailEntry(
          index: self.nextIndex, term: term, content: content, logBytes: logBytes, pending: pending),
        payload: payload))
  }

  // MARK: Applying

  /// The last entry that is in the log.
  var writtenIndex: LogIndex { self.log.lastIndex }

  /// Applies entries of the log through this one, in order.
  ///
  /// - Parameter refusesDamaged: whether a change that damage keeps from being done is refused. Where there are other
  ///   replicas, they would do it: the store has to stop then.
  mutating func apply(through index: LogIndex, refusesDamaged: Bool) throws(StoreError) -> Applied {
    var applied = Applied()
    while self.tailStart < self.tail.count, self.tail[self.tailStart].index <= index {
      let entry = self.tail[self.tailStart]
      var result: Result<Void, StoreError> = .success(())
      var records: [RecordChange] = []
      switch entry.content {
      case .noop:
        self.live.state.withLock {
          $0.applyVoid(index: entry.index, term: entry.term, logBytes: entry.logBytes, blocks: [])
        }
      case .membership(let bytes):
        applied.concernsMembers = true
        self.live.state.withLock {
          $0.setFact(SectorStore.membershipFact, SectorStore.membershipFactValue(bytes, at: entry.index))
          $0.applyVoid(index: entry.index, term: entry.term, logBytes: entry.logBytes, blocks: [])
        }
      case .change(let body):
        do throws(StoreError) {
          let effects = try self.effects(of: body, entry)
          self.live.state.withLock { $0.apply(effects) }
          records = body.records
          if body.concernsMembers { applied.concernsMembers = true }
        } catch {
          switch error {
          case .failed, .io, .noSpace: throw error
          case .damaged:
            guard refusesDamaged else { throw .failed("\(error)") }
            applied.wasDamaged = true
          default: break
          }
          self.live.state.withLock {
            $0.applyVoid(index: entry.index, term: entry.term, logBytes: entry.logBytes, blocks: body.blocks)
          }
          result = .failure(error)
        }
      }
      if let pending = entry.pending { applied.pending.append((pending, result.map { entry.index })) }
      applied.entries.append(AppliedEntry(index: entry.index, term: entry.term, result: result, records: records))
      self.tailStart += 1
    }
    if self.tailStart == self.tail.count {
      self.tail.removeAll(keepingCapacity: true)
      self.tailStart = 0
    }
    return applied
  }

  /// What a change does to the present state; throws why it does nothing.
  private func effects(of body: EntryBody, _ entry: TailEntry) throws(StoreError) -> AppliedState.Effects {
    try self.checkConditions(body)
    try self.checkOperations(body)
    return AppliedState.Effects(
      index: entry.index, term: entry.term, logBytes: entry.logBytes, body: body, groups: try self.edits(body))
  }

  private func checkConditions(_ body: EntryBody) throws(StoreError) {
    for condition in body.conditions {
      let current = try self.live.record(condition.inode)
      guard current?.version == condition.version,
        condition.digest == nil || current.map({ Self.digest($0.bytes) }) == condition.digest
      else { throw .conditionFailed(inode: condition.inode, current: current?.version) }
    }
    for case .put(let record) in body.records {
      if let current = try self.live.record(record.inode)?.version, current >= record.version {
        throw .invalidChange(.versionNotHigher)
      }
    }
  }

  private static func digest(_ bytes: [UInt8]) -> Digest? { Digest(Array(SHA256.hash(data: bytes))) }

  private func checkOperations(_ body: EntryBody) throws(StoreError) {
    for operation in body.operations {
      let (session, sequence) = (operation.session, operation.sequence)
      switch try self.live.operationStatus(session, sequence: sequence) {
      case .new: break
      case .applied: throw .alreadyApplied(session, sequence: sequence)
      case .tooOld: throw .operationTooOld(session, sequence: sequence)
      case .unknownSession:
        guard body.sessionsOpened.contains(where: { $0.session == session }) else { throw .unknownSession(session) }
      }
    }
  }

  // MARK: Block map

  /// What an entry does to the block map, by the state before it.
  private func edits(_ body: EntryBody) throws(StoreError) -> [AppliedState.GroupEdit] {
    var edits = GroupEdits()
    for case .remove(let inode) in body.records {
      // Later than any version that can be pinned.
      let version = (try self.live.record(inode)?.version ?? 0) + 1
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
    for key in try self.live.groupKeys(inode: inode) {
      let kept = Int(key.level) < keptCounts.count ? keptCounts[Int(key.level)] : 0
      if kept >= key.firstIndex + UInt64(BlockGroup.size) { continue }
      let base: BlockGroup
      do throws(StoreError) {
        guard let stored = try self.live.group(key), !stored.isEmpty else { continue }
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
            let base = try self.live.group(key)
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

  private mutating func release(_ blocks: [EntryBody.PlacedBlocks]) {
    for block in blocks { self.pool(block.level) { $0.release(block.runs) } }
  }

  private mutating func releaseFreed() {
    let freed = self.live.state.withLock { $0.takeFreed() }
    for slot in freed.sectors { self.sectorPool.release(slot) }
    for slot in freed.nodes { self.nodePool.release(slot) }
  }
}

extension EntryBody {
  /// Whether it says who the members of a group are, or who may call.
  fileprivate var concernsMembers: Bool {
    self.facts.contains { $0.key.hasPrefix(SectorStore.memberFactPrefix) }
      || self.records.contains { change in
        if case .put(let record) = change { record.flags.contains(.credential) } else { false }
      }
  }
}
