// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Replication
internal import SectorStore
internal import Synchronization

/// How a member's part of a cluster is.
package struct SectorStatus: Hashable, Sendable {
  /// The last log entry that was applied.
  package let appliedIndex: UInt64
  /// Bytes that the log takes on the disk.
  package let logBytes: UInt64
  /// Bytes of sectors and tree nodes in use.
  package let usedBytes: UInt64
  /// Bytes of data files on the disk.
  package let allocatedBytes: UInt64
  /// Bytes that data files may still grow by.
  package let diskFreeBytes: UInt64
  /// Inodes with a record.
  package let inodes: UInt64
  /// Inode numbers handed out so far.
  package let inodeNumbers: UInt64
}

extension SectorGroup {
  package func status() -> SectorStatus {
    let status = self.store.status()
    let (nextInode, inodeCount) = self.counts
    func bytes(_ sectors: Int, _ nodes: Int) -> UInt64 {
      UInt64(sectors) * UInt64(self.sectorSize) + UInt64(nodes) * UInt64(TreeShape.nodeByteCount)
    }
    let used = bytes(status.sectorSlotsUsed, status.nodeSlotsUsed)
    return SectorStatus(
      appliedIndex: status.appliedIndex.rawValue, logBytes: UInt64(status.logBytes), usedBytes: used,
      allocatedBytes: used + bytes(status.sectorSlotsFree, status.nodeSlotsFree),
      diskFreeBytes: status.diskFreeBytes, inodes: inodeCount, inodeNumbers: nextInode - 1)
  }

  /// The next inode number to hand out, and how many inodes there are: as the leader sees it, with all that is in flight,
  /// or as this member has applied it.
  private var counts: (nextInode: UInt64, inodes: UInt64) {
    let term = self.replica.leadingTerm
    let led = self.state.withLock { $0.term == term ? ($0.nextInode, $0.inodeCount) : nil }
    return led ?? (try? Self.counts(self.store)) ?? (1, 0)
  }
}
