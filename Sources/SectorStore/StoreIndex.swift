// SPDX-License-Identifier: Apache-2.0

/// The state as of the last checkpoint, with the indexes over it. ``SQLiteIndex`` is the real one; the power loss
/// simulation has one in memory. All calls block, and may come from several threads.
///
/// Rows are checked when they are read: a wrong one throws `damaged` with its place, and nothing of it is returned.
package protocol StoreIndex: AnyObject, Sendable {
  /// The last entry that the state contains.
  func applied() throws(StoreError) -> (index: LogIndex, term: UInt64)
  func record(_ inode: UInt64) throws(StoreError) -> StoredRecord?
  func group(_ key: GroupKey) throws(StoreError) -> BlockGroup?
  /// All groups of an inode.
  func groupKeys(inode: UInt64) throws(StoreError) -> [GroupKey]
  /// Calls `body` for each group. Damaged rows are passed over: their blocks are lost in any case.
  func forEachGroup(_ body: (GroupKey, BlockGroup) -> Void) throws(StoreError)
  func inodes(parent: UInt64) throws(StoreError) -> [UInt64]
  func inodes(flag: RecordFlags) throws(StoreError) -> [UInt64]
  /// At least the highest inode number that has rows here, 0 for none.
  func inodeMax() throws(StoreError) -> UInt64
  /// Damaged rows are passed over: ``damagedSessions()`` tells of them.
  func sessions() throws(StoreError) -> [SessionID: SessionHeader]
  /// Sessions whose rows are damaged, at most 64. Nobody knows them any more; what they did is not done again.
  func damagedSessions() throws(StoreError) -> [DamagePlace]
  func result(_ session: SessionID, sequence: UInt64) throws(StoreError) -> [UInt8]?
  func certificate(_ digest: Digest) throws(StoreError) -> [UInt8]?
  func facts() throws(StoreError) -> [String: [UInt8]]
  /// Takes over a layer as a whole or not at all, and durably: on return it is on the disk.
  func write(_ layer: Layer) throws(StoreError)
  /// The same together with how far an import is, for ``SnapshotImport``.
  func write(_ layer: Layer, importMark: [UInt8]) throws(StoreError)
  /// What came with the last layer of an import; nil where there never was one.
  func importMark() throws(StoreError) -> [UInt8]?
  /// The state as it is now, for as long as it is held. Layers are taken over meanwhile as ever.
  func snapshot() throws(StoreError) -> any StoreIndexSnapshot
  /// Verifies how the index is built on the disk, from the disk, and what it says to be the last entry; not what the
  /// other rows hold. Takes as long as reading all of it, and holds up nobody. Throws `closed` where
  /// ``interruptCheck()`` ended it.
  func checkStructure() throws(StoreError) -> IndexCheck
  /// Ends a check of the structure that is under way.
  func interruptCheck()
  /// Has what is read next through a new snapshot come from the disk, as far as the system lets that be asked for.
  func dropCached()
  /// Makes a part anew that is made from records. Returns false, with nothing done, where there are damaged records.
  func rebuild(_ part: DerivedPart) throws(StoreError) -> Bool
  /// Bytes that the index takes on the disk.
  func byteCount() -> Int
  /// Ends snapshots, too.
  func close()
}

/// What was found of the way in which an index is built.
package struct IndexCheck: Hashable, Sendable {
  package var damaged: [DamagePlace]
  /// Bytes that were read.
  package var byteCount: Int

  package init(damaged: [DamagePlace], byteCount: Int) {
    self.damaged = damaged
    self.byteCount = byteCount
  }
}

/// Parts of the index that hold nothing of their own.
package enum DerivedPart: String, Hashable, CaseIterable, Sendable {
  /// The table that leads from parents to children.
  case parents
  /// SQLite's index over the records' flags.
  case flags = "records_by_flags"

  package var place: DamagePlace { .index(self.rawValue) }
}

/// An index as it was at one moment. Calls block, and wait for each other.
package protocol StoreIndexSnapshot: AnyObject, Sendable {
  func applied() throws(StoreError) -> (index: LogIndex, term: UInt64)
  func counts() throws(StoreError) -> SnapshotCounts
  /// Calls `body` for the rows behind the cursor, in the order of cursors, until it returns false. A group that the
  /// cursor is in, or at the end of, comes once more. Throws `damaged` for a wrong row, and `closed`.
  func forEachRow(
    after cursor: SnapshotCursor?, _ body: (IndexRow) throws(StoreError) -> Bool
  ) throws(StoreError)
  /// Calls `body` for the rows of one kind behind the cursor as ``forEachRow(after:_:)`` does, and goes on behind damaged
  /// ones. All results come, since one that seems to belong to no session may be a damaged one. A record whose parents do not lead back to it comes whole, and with the place ``DerivedPart/parents``.
  /// `cursor` is of this kind, or nil.
  func scan(
    _ kind: SnapshotKind, after cursor: SnapshotCursor?, _ body: (ScannedRow) -> Bool
  ) throws(StoreError)
  /// Goes through rows that lead from parents to children, and compares them with the records. `next` is where to go on,
  /// nil at the end.
  func scanChildren(after row: ParentRow?, countMax: Int) throws(StoreError) -> ChildrenScan
  /// Waits for a call that is under way. May be called more than once.
  func close()
}

/// What a scan comes across.
package enum ScannedRow: Sendable {
  case whole(IndexRow)
  case damaged(DamagePlace)
}

package struct ChildrenScan: Sendable {
  package var next: ParentRow?
  package var rowCount: Int
  /// Whether there is a row that no record asks for.
  package var isWrong: Bool

  package init(next: ParentRow?, rowCount: Int, isWrong: Bool) {
    self.next = next
    self.rowCount = rowCount
    self.isWrong = isWrong
  }
}

/// A row of the index. Results come only with a session that is open, and not beyond its highest sequence number.
package enum IndexRow: Sendable {
  case record(StoredRecord)
  case group(GroupKey, BlockGroup)
  case session(SessionID, SessionHeader)
  case result(SessionID, sequence: UInt64, bytes: [UInt8])
  case certificate(Digest, bytes: [UInt8])
  case fact(key: String, value: [UInt8])

  /// Behind the row; for a group, behind all of its blocks.
  package var cursor: SnapshotCursor {
    switch self {
    case .record(let record): .record(record.inode)
    case .group(let key, _): .blocks(key, covered: BlockGroup.size)
    case .session(let session, _): .session(session)
    case .result(let session, let sequence, _): .result(session, sequence: sequence)
    case .certificate(let digest, _): .certificate(digest)
    case .fact(let key, _): .fact(key)
    }
  }

  /// About what the row takes on the disk.
  var byteCount: Int {
    switch self {
    case .record(let record): record.bytes.count + record.parents.count * 24 + 48
    case .group(_, let group): group.pointers.count * 10 + 48
    case .session(_, let header): header.owner.count + 64
    case .result(_, _, let bytes): bytes.count + 48
    case .certificate(_, let bytes): bytes.count + 48
    case .fact(let key, let value): key.utf8.count + value.count + 24
    }
  }
}
