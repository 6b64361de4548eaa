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
  func close()
}
