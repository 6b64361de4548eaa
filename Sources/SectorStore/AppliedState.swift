// SPDX-License-Identifier: Apache-2.0

/// All that was applied and what is needed to read it: layers over the index, pinned versions, superseded blocks.
/// Lives under the store's lock; performs nothing.
struct AppliedState: Sendable {
  /// Takes what is applied now.
  private(set) var active = Layer()
  /// Being written to the index.
  private(set) var frozen: Layer?
  /// Was written to the index last. Kept as the cache of what was in use most recently.
  private(set) var recent = Layer()
  private var recordCache: GenerationalCache<UInt64, StoredRecord>
  private var groupCache: GenerationalCache<GroupKey, BlockGroup>
  private(set) var sessions: SessionTable
  private(set) var facts: [String: [UInt8]]

  private(set) var appliedIndex: LogIndex
  private(set) var appliedTerm: UInt64
  private(set) var checkpointIndex: LogIndex
  /// Grows with each checkpoint: what was read from the index before may be old.
  private(set) var checkpointCount: UInt64 = 0
  /// No inode above has rows in the index: saves asking it for each new one.
  private(set) var indexInodeMax: UInt64
  private var inodeMax: UInt64

  private var pins: [UInt64: [UInt64: PinCount]] = [:]
  private var superseded: [UInt64: [GroupKey: [SupersededGroup]]] = [:]

  /// Slots that only the state before the next checkpoint refers to.
  private(set) var deadActive = FreedSlots()
  private var deadFrozen = FreedSlots()
  /// Slots that entries of the log refer to which replicas may still ask for: free with the checkpoint after.
  private var deadRetained = FreedSlots()
  /// Whether other members of a group may ask for entries.
  var retainsEntries = false
  /// See `StoreConfiguration`.
  private let retainedEntriesMin: UInt64
  private let retainedSlotsMax: Int
  /// Entries after this one can be read whole, their blocks included.
  private(set) var retainedAfter: LogIndex
  /// Slots that nothing refers to, for the writer to fetch.
  private var freed = FreedSlots()
  /// How many hold freed slots back, because they still read what the index referred to when they began.
  private var freedHolds = 0

  /// Whether the next checkpoint is written though the index lacks no entry: see ``rewriteSmall()``.
  private var isRewriteDue = false

  /// Why every call is refused, if so.
  var failure: StoreError?

  /// A group as it was from its version to before `until`.
  private struct SupersededGroup {
    var group: BlockGroup
    var until: UInt64
    /// Whether it was like this ever since its version. A hole without a row may have begun later.
    var isExact: Bool
    /// Slots that this is the newest kept group to refer to, with their positions.
    var last: [(slot: UInt64, position: Int)]
  }

  private struct PinCount {
    var count = 0
    /// Whether all of the version has been kept since it was the newest.
    var isWhole: Bool
  }

  struct FreedSlots: Sendable {
    var sectors: [UInt64] = []
    var nodes: [UInt64] = []

    var isEmpty: Bool { self.sectors.isEmpty && self.nodes.isEmpty }

    mutating func append(_ slot: UInt64, level: UInt8) {
      if level == 0 { self.sectors.append(slot) } else { self.nodes.append(slot) }
    }

    mutating func append(_ other: FreedSlots) {
      self.sectors.append(contentsOf: other.sectors)
      self.nodes.append(contentsOf: other.nodes)
    }
  }

  /// What an entry does, worked out before it was logged.
  struct Effects: Sendable {
    var index: LogIndex
    var term: UInt64
    var logBytes: Int
    var body: EntryBody
    var groups: [GroupEdit] = []
  }

  struct GroupEdit: Sendable {
    var key: GroupKey
    /// Nil where there was none.
    var base: BlockGroup?
    var new: BlockGroup
  }

  init(
    appliedIndex: LogIndex, appliedTerm: UInt64, inodeMax: UInt64, sessions: SessionTable, facts: [String: [UInt8]],
    cacheBytesMax: Int, retainedEntriesMin: UInt64 = 0, retainedSlotsMax: Int = .max
  ) {
    self.retainedEntriesMin = retainedEntriesMin
    self.retainedSlotsMax = retainedSlotsMax
    self.appliedIndex = appliedIndex
    self.appliedTerm = appliedTerm
    self.checkpointIndex = appliedIndex
    self.retainedAfter = appliedIndex
    self.indexInodeMax = inodeMax
    self.inodeMax = inodeMax
    self.sessions = sessions
    self.facts = facts
    self.recordCache = GenerationalCache(bytesMax: cacheBytesMax)
    self.groupCache = GenerationalCache(bytesMax: cacheBytesMax)
    self.active.lastIndex = appliedIndex
    self.active.lastTerm = appliedTerm
  }

  // MARK: Looking up

  enum Found<Value> {
    case value(Value?)
    /// Only the index knows.
    case inIndex
  }

  mutating func record(_ inode: UInt64) -> Found<StoredRecord> {
    if let state = self.active.records[inode] ?? self.frozen?.records[inode] ?? self.recent.records[inode] {
      return .value(state.record)
    }
    if inode > self.indexInodeMax { return .value(nil) }
    if let record = self.recordCache.value(for: inode) { return .value(record) }
    return .inIndex
  }

  /// The newest version of a group.
  mutating func group(_ key: GroupKey) -> Found<BlockGroup> {
    if let group = self.active.groups[key] ?? self.frozen?.groups[key] ?? self.recent.groups[key] {
      return .value(group)
    }
    if key.inode > self.indexInodeMax { return .value(nil) }
    if let group = self.groupCache.value(for: key) { return .value(group) }
    return .inIndex
  }

  /// Keeps what the index had when `checkpointCount` was this.
  mutating func cache(_ record: StoredRecord, checkpointCount: UInt64) {
    guard checkpointCount == self.checkpointCount, case .inIndex = self.record(record.inode) else { return }
    self.recordCache.insert(record, for: record.inode, byteCount: record.bytes.count + 128)
  }

  mutating func cache(_ group: BlockGroup, key: GroupKey, checkpointCount: UInt64) {
    guard checkpointCount == self.checkpointCount, case .inIndex = self.group(key) else { return }
    self.groupCache.insert(group, for: key, byteCount: group.pointers.count * 16 + 96)
  }

  /// A group as it was at a version, if it has been superseded since and kept. `isWhole`: see ``isWhole(_:version:)``.
  func superseded(_ key: GroupKey, version: UInt64, isWhole: Bool) -> BlockGroup? {
    guard let chain = self.superseded[key.inode]?[key] else { return nil }
    let item = chain.last { $0.group.version <= version && version < $0.until }
    return item.flatMap { isWhole || $0.isExact ? $0.group : nil }
  }

  func groupKeysInLayers(inode: UInt64) -> [GroupKey] {
    (self.active.groupsOfInode[inode] ?? []) + (self.frozen?.groupsOfInode[inode] ?? [])
      + (self.recent.groupsOfInode[inode] ?? [])
  }

  /// Nil: the index has to be asked.
  func operationStatus(_ session: SessionID, sequence: UInt64) -> OperationStatus? {
    guard let header = self.sessions[session] else { return .unknownSession }
    if sequence > header.highest { return .new }
    if header.highest - sequence >= StoreConfiguration.sessionWindow { return .tooOld }
    if let result = self.active.results[session]?[sequence] { return .applied(result: result) }
    // What lies below belongs to an earlier session of the same name.
    if self.active.evicted.contains(session) { return .new }
    if let result = self.frozen?.results[session]?[sequence] { return .applied(result: result) }
    if self.frozen?.evicted.contains(session) == true { return .new }
    return nil
  }

  func certificateInLayers(_ digest: Digest) -> [UInt8]? {
    self.active.certificates[digest] ?? self.frozen?.certificates[digest] ?? self.recent.certificates[digest]
  }

  func overlay(_ inodes: inout Set<UInt64>, parent: UInt64) {
    self.recent.overlay(&inodes, parent: parent)
    self.frozen?.overlay(&inodes, parent: parent)
    self.active.overlay(&inodes, parent: parent)
  }

  func overlay(_ inodes: inout Set<UInt64>, flag: RecordFlags) {
    self.recent.overlay(&inodes, flag: flag)
    self.frozen?.overlay(&inodes, flag: flag)
    self.active.overlay(&inodes, flag: flag)
  }

  // MARK: Applying

  mutating func apply(_ effects: Effects) {
    let body = effects.body
    for change in body.records {
      switch change {
      case .put(let record): self.active.put(.put(record), inode: record.inode)
      case .remove(let inode): self.active.put(.removed, inode: inode)
      }
      self.recordCache.remove(change.inode)
      self.inodeMax = max(self.inodeMax, change.inode)
    }
    for edit in effects.groups {
      self.supersede(edit)
      self.active.put(edit.new, key: edit.key)
      self.groupCache.remove(edit.key)
    }
    for opening in body.sessionsOpened {
      for session in self.sessions.open(opening, at: effects.index) {
        self.active.sessions[session] = nil
        self.active.results[session] = nil
        self.active.evicted.insert(session)
      }
      self.active.sessions[opening.session] = self.sessions[opening.session]
    }
    for operation in body.operations {
      self.sessions.apply(operation, at: effects.index)
      self.active.sessions[operation.session] = self.sessions[operation.session]
      self.active.results[operation.session, default: [:]][operation.sequence] = operation.result
    }
    for certificate in body.certificates { self.active.certificates[certificate.digest] = certificate.bytes }
    for fact in body.facts { self.setFact(fact.key, fact.value) }
    self.advance(to: effects.index, term: effects.term, logBytes: effects.logBytes)
  }

  /// An entry that changes nothing: nobody will ever refer to its blocks.
  mutating func applyVoid(
    index: LogIndex, term: UInt64, logBytes: Int, blocks: [EntryBody.PlacedBlocks]
  ) {
    for block in blocks {
      for run in block.runs {
        for slot in run.first..<run.first + UInt64(run.count) { self.deadActive.append(slot, level: block.level) }
      }
    }
    self.advance(to: index, term: term, logBytes: logBytes)
  }

  /// A value that goes with the log, outside of any change.
  mutating func setFact(_ key: String, _ value: [UInt8]) {
    self.active.facts[key] = value
    self.facts[key] = value
  }

  private mutating func advance(to index: LogIndex, term: UInt64, logBytes: Int) {
    assert(index == self.appliedIndex.next)
    self.appliedIndex = index
    self.appliedTerm = term
    self.active.lastIndex = index
    self.active.lastTerm = term
    self.active.entryCount += 1
    self.active.logBytes += logBytes
  }

  /// Keeps the group before where a pin needs it; what no kept group refers to dies with the next checkpoint.
  private mutating func supersede(_ edit: GroupEdit) {
    let base = edit.base ?? .empty
    var died: [(slot: UInt64, position: Int)] = []
    for (position, pointer) in base.pointers.enumerated() {
      if let slot = pointer.slot, edit.new[position].slot != slot { died.append((slot, position)) }
    }
    let inode = edit.key.inode
    guard let pins = self.pins[inode] else {
      for item in died { self.deadActive.append(item.slot, level: edit.key.level) }
      return
    }
    var chain = self.superseded[inode]?[edit.key] ?? []
    var old = base
    // A hole has no row that would tell its version.
    if edit.base == nil { old.version = chain.last?.until ?? 0 }
    if pins.keys.contains(where: { $0 >= old.version && $0 < edit.new.version }) {
      chain.append(SupersededGroup(group: old, until: edit.new.version, isExact: edit.base != nil, last: died))
    } else {
      self.bequeath(died, to: &chain, level: edit.key.level)
    }
    if !chain.isEmpty { self.superseded[inode, default: [:]][edit.key] = chain }
  }

  /// Hands slots to the newest kept group that refers to them, or to the dead.
  private mutating func bequeath(
    _ slots: [(slot: UInt64, position: Int)], to chain: inout [SupersededGroup], level: UInt8
  ) {
    for item in slots {
      if let heir = chain.lastIndex(where: { $0.group[item.position].slot == item.slot }) {
        chain[heir].last.append(item)
      } else {
        self.deadActive.append(item.slot, level: level)
      }
    }
  }

  // MARK: Pins

  /// Whether a version is pinned that was the newest when it first was, so that all of it is kept.
  func isWhole(_ inode: UInt64, version: UInt64) -> Bool { self.pins[inode]?[version]?.isWhole == true }

  mutating func pin(_ inode: UInt64, version: UInt64, isWhole: Bool) {
    self.pins[inode, default: [:]][version, default: PinCount(isWhole: isWhole)].count += 1
  }

  mutating func unpin(_ inode: UInt64, version: UInt64) {
    guard let pin = self.pins[inode]?[version] else { return }
    if pin.count > 1 {
      self.pins[inode]?[version]?.count -= 1
      return
    }
    self.pins[inode]?[version] = nil
    if self.pins[inode]?.isEmpty == true { self.pins[inode] = nil }
    guard let chains = self.superseded[inode] else { return }
    let pins = self.pins[inode] ?? [:]
    var kept: [GroupKey: [SupersededGroup]] = [:]
    for (key, chain) in chains {
      var remaining: [SupersededGroup] = []
      // Oldest first, so that an heir is already known to stay.
      for item in chain {
        if pins.keys.contains(where: { $0 >= item.group.version && $0 < item.until }) {
          remaining.append(item)
        } else {
          self.bequeath(item.last, to: &remaining, level: key.level)
        }
      }
      if !remaining.isEmpty { kept[key] = remaining }
    }
    self.superseded[inode] = kept.isEmpty ? nil : kept
    if self.isCheckpointed {
      self.deadRetained.append(self.deadActive)
      self.deadActive = FreedSlots()
      if !self.retainsEntries, self.freedHolds == 0 { self.dropRetained() }
    }
  }

  var pinCount: Int { self.pins.values.reduce(0) { $0 + $1.values.reduce(0) { $0 + $1.count } } }

  // MARK: Checkpoints

  /// Whether the index has everything.
  var isCheckpointed: Bool { self.frozen == nil && self.checkpointIndex == self.appliedIndex }

  /// The layer to write to the index, nil where there is nothing to write.
  mutating func freeze() -> Layer? {
    if let frozen = self.frozen { return frozen }
    guard !self.isCheckpointed || self.isRewriteDue else { return nil }
    self.isRewriteDue = false
    let frozen = self.active
    self.frozen = frozen
    self.active = Layer()
    self.active.lastIndex = frozen.lastIndex
    self.active.lastTerm = frozen.lastTerm
    self.deadFrozen = self.deadActive
    self.deadActive = FreedSlots()
    return frozen
  }

  /// Has all sessions and facts written to the index once more with the next checkpoint: all of them are in memory.
  mutating func rewriteSmall() {
    self.active.sessions = self.sessions.headers
    self.active.facts = self.facts
    self.isRewriteDue = true
  }

  /// The frozen layer is in the index. Returns what is not needed any more, to be let go outside of the lock.
  mutating func checkpointed() -> Layer? {
    guard let frozen = self.frozen else { return nil }
    defer { self.recent = frozen }
    // Whoever gets a snapshot will want what comes after it.
    let isHeld = self.freedHolds > 0 || self.keepsRetained(before: frozen.lastIndex)
    if !isHeld { self.retainedAfter = self.checkpointIndex }
    self.checkpointIndex = frozen.lastIndex
    self.checkpointCount += 1
    self.indexInodeMax = self.inodeMax
    self.frozen = nil
    if !isHeld {
      self.freed.append(self.deadRetained)
      self.deadRetained = FreedSlots()
    }
    self.deadRetained.append(self.deadFrozen)
    self.deadFrozen = FreedSlots()
    if !self.retainsEntries, !isHeld { self.dropRetained() }
    return self.recent
  }

  /// Whether too little would be left for others if what is retained now were let go.
  private func keepsRetained(before index: LogIndex) -> Bool {
    guard self.retainsEntries, self.deadRetained.sectors.count + self.deadRetained.nodes.count < self.retainedSlotsMax
    else { return false }
    return index.rawValue - self.checkpointIndex.rawValue < self.retainedEntriesMin
  }

  /// Room is more urgent than what replicas may ask for: of the entries before the last checkpoint, nothing is kept.
  mutating func dropRetained() {
    guard self.freedHolds == 0 else { return }
    self.freed.append(self.deadRetained)
    self.deadRetained = FreedSlots()
    self.retainedAfter = self.checkpointIndex
  }

  /// Whether a checkpoint would make slots free for the writer.
  var hasDeadSlots: Bool {
    self.freedHolds == 0
      && !(self.deadActive.isEmpty && self.deadFrozen.isEmpty && self.deadRetained.isEmpty && self.freed.isEmpty)
  }

  /// Until ``letFreedGo()`` no slot that the index refers to now, or is written to it later, is used again.
  mutating func holdFreed() { self.freedHolds += 1 }

  mutating func letFreedGo() {
    assert(self.freedHolds > 0)
    self.freedHolds -= 1
    if self.freedHolds == 0, !self.retainsEntries, self.isCheckpointed { self.dropRetained() }
  }

  mutating func takeFreed() -> FreedSlots {
    if self.freed.isEmpty || self.freedHolds > 0 { return FreedSlots() }
    defer { self.freed = FreedSlots() }
    return self.freed
  }
}
