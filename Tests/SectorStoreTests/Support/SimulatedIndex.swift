// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Synchronization

/// An index in memory whose transactions are durable as a whole or not at all, on the power of a simulated disk.
final class SimulatedIndex: StoreIndex, Sendable {
  fileprivate struct State {
    var applied: (index: LogIndex, term: UInt64) = (.zero, 0)
    var records: [UInt64: StoredRecord] = [:]
    var groups: [GroupKey: BlockGroup] = [:]
    var sessions: [SessionID: SessionHeader] = [:]
    var results: [SessionID: [UInt64: [UInt8]]] = [:]
    var certificates: [Digest: [UInt8]] = [:]
    var facts: [String: [UInt8]] = [:]
    var importMark: [UInt8]?
    var hasNoSpace = false
  }

  private let disk: SimulatedDisk
  private let state = Mutex(State())

  init(disk: SimulatedDisk) { self.disk = disk }

  func refuseWrites(_ isOn: Bool) { self.state.withLock { $0.hasNoSpace = isOn } }

  func applied() -> (index: LogIndex, term: UInt64) { self.state.withLock { $0.applied } }
  func record(_ inode: UInt64) -> StoredRecord? { self.state.withLock { $0.records[inode] } }
  func group(_ key: GroupKey) -> BlockGroup? { self.state.withLock { $0.groups[key] } }
  func groupKeys(inode: UInt64) -> [GroupKey] { self.state.withLock { $0.groups.keys.filter { $0.inode == inode } } }
  func forEachGroup(_ body: (GroupKey, BlockGroup) -> Void) {
    for (key, group) in self.state.withLock({ $0.groups }) { body(key, group) }
  }
  func inodes(parent: UInt64) -> [UInt64] {
    self.state.withLock { $0.records.values.filter { $0.parents.contains(parent) }.map(\.inode) }
  }
  func inodes(flag: RecordFlags) -> [UInt64] {
    self.state.withLock { $0.records.values.filter { $0.flags.isSuperset(of: flag) }.map(\.inode) }
  }
  func inodeMax() -> UInt64 {
    self.state.withLock { max($0.records.keys.max() ?? 0, $0.groups.keys.map(\.inode).max() ?? 0) }
  }
  func sessions() -> [SessionID: SessionHeader] { self.state.withLock { $0.sessions } }
  func result(_ session: SessionID, sequence: UInt64) -> [UInt8]? {
    self.state.withLock { $0.results[session]?[sequence] }
  }
  func certificate(_ digest: Digest) -> [UInt8]? { self.state.withLock { $0.certificates[digest] } }
  func facts() -> [String: [UInt8]] { self.state.withLock { $0.facts } }

  func importMark() -> [UInt8]? { self.state.withLock { $0.importMark } }
  func snapshot() -> any StoreIndexSnapshot { SimulatedIndexSnapshot(self.state.withLock { $0 }) }

  func write(_ layer: Layer) throws(StoreError) { try self.write(layer, mark: nil) }
  func write(_ layer: Layer, importMark: [UInt8]) throws(StoreError) { try self.write(layer, mark: importMark) }

  private func write(_ layer: Layer, mark: [UInt8]?) throws(StoreError) {
    if self.state.withLock({ $0.hasNoSpace }) { throw .noSpace }
    do throws(FileError) {
      try self.disk.withPower { self.take(layer, mark) }
    } catch {
      // The power went in the middle: the transaction had got far enough, or not.
      if self.disk.coin(), self.disk.isOff { self.take(layer, mark) }
      throw .failed("\(error)")
    }
  }

  func close() {}

  // Its structure is Swift's, its children are the records themselves.
  func checkStructure() -> IndexCheck { IndexCheck(damaged: [], byteCount: 0) }
  func damagedSessions() -> [DamagePlace] { [] }
  func interruptCheck() {}
  func dropCached() {}
  func rebuild(_ part: DerivedPart) -> Bool { true }
  func byteCount() -> Int { 0 }

  private func take(_ layer: Layer, _ mark: [UInt8]?) {
    self.state.withLock { state in
      if let mark { state.importMark = mark }
      for (inode, change) in layer.records { state.records[inode] = change.record }
      for (key, group) in layer.groups { state.groups[key] = group.isEmpty ? nil : group }
      for session in layer.evicted {
        state.sessions[session] = nil
        state.results[session] = nil
      }
      for (session, results) in layer.results { state.results[session, default: [:]].merge(results) { $1 } }
      for (session, header) in layer.sessions {
        state.sessions[session] = header
        state.results[session] = state.results[session]?
          .filter { $0.key > header.highest || header.highest - $0.key < 1_024 }
      }
      state.certificates.merge(layer.certificates) { $1 }
      state.facts.merge(layer.facts) { $1 }
      state.applied = (layer.lastIndex, layer.lastTerm)
    }
  }
}

private final class SimulatedIndexSnapshot: StoreIndexSnapshot {
  private let state: SimulatedIndex.State
  private let isClosed = Mutex(false)
  private let rows: [(cursor: SnapshotCursor, row: IndexRow)]

  init(_ state: SimulatedIndex.State) {
    self.state = state
    var rows: [(cursor: SnapshotCursor, row: IndexRow)] = []
    for (inode, record) in state.records { rows.append((.record(inode), .record(record))) }
    // At the end of the group, so that it comes after each cursor in it, and at the one behind it.
    for (key, group) in state.groups { rows.append((.blocks(key, covered: 64), .group(key, group))) }
    for (session, header) in state.sessions { rows.append((.session(session), .session(session, header))) }
    for (session, results) in state.results {
      for (sequence, bytes) in results where sequence <= state.sessions[session]?.highest ?? 0 {
        rows.append(
          (.result(session, sequence: sequence), .result(session, sequence: sequence, bytes: bytes)))
      }
    }
    for (digest, bytes) in state.certificates {
      rows.append((.certificate(digest), .certificate(digest, bytes: bytes)))
    }
    for (key, value) in state.facts { rows.append((.fact(key), .fact(key: key, value: value))) }
    self.rows = rows.sorted { $0.cursor < $1.cursor }
  }

  func applied() -> (index: LogIndex, term: UInt64) { self.state.applied }

  func counts() -> SnapshotCounts {
    var counts = SnapshotCounts()
    for (_, row) in self.rows {
      switch row {
      case .record: counts.records += 1
      case .group: counts.groups += 1
      case .session: counts.sessions += 1
      case .result: counts.results += 1
      case .certificate: counts.certificates += 1
      case .fact: counts.facts += 1
      }
    }
    return counts
  }

  func forEachRow(
    after cursor: SnapshotCursor?, _ body: (IndexRow) throws(StoreError) -> Bool
  ) throws(StoreError) {
    if self.isClosed.withLock({ $0 }) { throw .closed }
    for (place, row) in self.rows {
      if let cursor, place < cursor { continue }
      if let cursor, place == cursor {
        guard case .group = row else { continue }
      }
      guard try body(row) else { return }
    }
  }

  func scan(
    _ kind: SnapshotKind, after cursor: SnapshotCursor?, _ body: (ScannedRow) -> Bool
  ) throws(StoreError) {
    try self.forEachRow(after: cursor) { row throws(StoreError) in row.cursor.kind != kind || body(.whole(row)) }
  }

  func scanChildren(after row: ParentRow?, countMax: Int) -> ChildrenScan {
    ChildrenScan(next: nil, rowCount: 0, isWrong: false)
  }

  func close() { self.isClosed.withLock { $0 = true } }
}
