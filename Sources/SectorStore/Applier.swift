// SPDX-License-Identifier: Apache-2.0

internal import Crypto
internal import Synchronization

/// What applies entries: those that are in the log and not applied yet, and the state that they change.
///
/// Under a lock of its own, so that nothing that is applied waits for the disk to sync what comes after it.
struct Applier: Sendable {
  private let live: LiveState
  private let configuration: StoreConfiguration
  /// Oldest first, from `start` on.
  private var tail: [Entry] = []
  private var start = 0
  /// The blocks of entries through here are in their slots.
  private var placedThrough: LogIndex

  struct Entry: Sendable {
    var index: LogIndex
    var term: UInt64
    var content: LogContent
    var logBytes: Int
    /// Who waits for it, where the store numbered it itself.
    var pending: PendingChange?
  }

  /// What came of entries that were applied.
  struct Applied: Sendable {
    var entries: [AppliedEntry] = []
    var pending: [(pending: PendingChange, result: Result<LogIndex, StoreError>)] = []
    /// Something that a member has to know before it can find the others: see ``SectorStore/memberFactPrefix``.
    var concernsMembers = false
    /// A replica with whole disks would have done what was refused here: nobody else may be sent these entries.
    var wasDamaged = false
    /// Whether all was applied that was asked for and is in the log.
    var isComplete = true
  }

  init(live: LiveState, configuration: StoreConfiguration) {
    self.live = live
    self.configuration = configuration
    self.placedThrough = live.state.withLock { $0.appliedIndex }
  }

  // MARK: What is not applied yet

  /// Takes entries that follow those that are here.
  mutating func append(_ entries: some Sequence<Entry>) {
    if self.start > self.tail.count / 2 {
      self.tail.removeSubrange(..<self.start)
      self.start = 0
    }
    self.tail.append(contentsOf: entries)
  }

  /// The blocks of all entries are in their slots.
  mutating func notePlaced(through index: LogIndex) { self.placedThrough = max(self.placedThrough, index) }

  /// Forgets the entries from `index` on, and returns where their blocks are.
  mutating func truncate(from index: LogIndex) -> [EntryBody.PlacedBlocks] {
    var blocks: [EntryBody.PlacedBlocks] = []
    while self.tail.count > self.start, let last = self.tail.last, last.index >= index {
      blocks += last.content.blocks
      self.tail.removeLast()
    }
    return blocks
  }

  /// Who waits for entries that were not applied, when the store has failed.
  var waiting: [PendingChange] { self.tail[self.start...].compactMap(\.pending) }

  /// What is in the log and not applied yet.
  var headers: [LogHeader] {
    self.tail[self.start...].map { entry in
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

  // MARK: Applying

  /// Applies entries through this one, in order. What it throws, `applied` says how far it came.
  ///
  /// - Parameters:
  ///   - refusesDamaged: whether a change that damage keeps from being done is refused. Where there are other replicas,
  ///     they would do it: the store has to stop then.
  ///   - mayWait: whether the index may be asked. If not, it ends with `isComplete` false where it would have to be, or
  ///     where the blocks of an entry are not in their slots yet.
  mutating func apply(
    through index: LogIndex, refusesDamaged: Bool, mayWait: Bool, into applied: inout Applied
  ) throws(StoreError) {
    while self.start < self.tail.count, self.tail[self.start].index <= index {
      let entry = self.tail[self.start]
      guard entry.index <= self.placedThrough, mayWait || self.isInMemory(entry.content) else {
        applied.isComplete = false
        break
      }
      var result: Result<Void, StoreError> = .success(())
      var records: [RecordChange] = []
      var facts: [Change.Fact] = []
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
          facts = body.facts
          if body.concernsMembers { applied.concernsMembers = true }
        } catch {
          switch error {
          case .failed, .io, .noSpace: throw error
          case .damaged:
            guard refusesDamaged else { throw error }
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
      applied.entries.append(
        AppliedEntry(index: entry.index, term: entry.term, result: result, records: records, facts: facts))
      self.start += 1
    }
    if self.start == self.tail.count {
      self.tail.removeAll(keepingCapacity: true)
      self.start = 0
    }
  }

  /// Whether all that has to be known to apply this is in memory. A checkpoint may change that at any time; then the
  /// index is asked after all.
  private func isInMemory(_ content: LogContent) -> Bool {
    guard case .change(let body) = content else { return true }
    return self.live.state.withLock { state in
      func isKnown(_ inode: UInt64) -> Bool { if case .value = state.record(inode) { true } else { false } }
      func hasNoRows(_ inode: UInt64) -> Bool { inode > state.indexInodeMax }
      return body.conditions.allSatisfy { isKnown($0.inode) }
        && body.records.allSatisfy { change in
          if case .remove(let inode) = change { return hasNoRows(inode) }
          return isKnown(change.inode)
        }
        && body.truncations.allSatisfy { hasNoRows($0.inode) }
        && body.operations.allSatisfy { state.operationStatus($0.session, sequence: $0.sequence) != nil }
        && body.blocks.allSatisfy { blocks in
          let last = blocks.index + UInt64(max(blocks.checksums.count, 1) - 1)
          return (blocks.index >> 6...last >> 6).allSatisfy { number in
            let key = GroupKey(inode: blocks.inode, level: blocks.level, group: number)
            return if case .value = state.group(key) { true } else { false }
          }
        }
    }
  }

  /// What a change does to the present state; throws why it does nothing.
  private func effects(of body: EntryBody, _ entry: Entry) throws(StoreError) -> AppliedState.Effects {
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
}

/// The applier, where all threads find it.
final class Applying: Sendable {
  let state: Mutex<Applier>

  init(_ applier: Applier) { self.state = Mutex(applier) }
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
