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
  func sessions() throws(StoreError) -> [SessionID: SessionHeader]
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
  /// Ends snapshots, too.
  func close()
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
  /// Waits for a call that is under way. May be called more than once.
  func close()
}

/// A row of the index. Results come only with a session that is open, and not beyond its highest sequence number.
package enum IndexRow: Sendable {
  case record(StoredRecord)
  case group(GroupKey, BlockGroup)
  case session(SessionID, SessionHeader)
  case result(SessionID, sequence: UInt64, bytes: [UInt8])
  case certificate(Digest, bytes: [UInt8])
  case fact(key: String, value: [UInt8])
}
