// SPDX-License-Identifier: Apache-2.0

/// What a store is made with, and its limits while it runs.
package struct StoreConfiguration: Hashable, Sendable {
  /// The sector cluster that this store belongs to. Fixed when the store is made.
  package var generation: UInt64
  /// Bytes in a block of level 0: a power of two from 4 KiB to 1 MiB. Fixed when the store is made.
  package var sectorSize: Int

  /// What the store is called among the members of a group. Fixed when the store is made, at random if it is not given.
  package var memberID: UInt64?

  /// Bytes in a segment of the log.
  package var segmentBytes = 8 << 20
  /// A checkpoint begins when the log has grown by this much since the last.
  package var checkpointBytes = 64 << 20
  /// Or by this many entries.
  package var checkpointEntries = 15_000
  /// Or when superseded blocks take this much room.
  package var checkpointDeadBytes = 256 << 20
  /// Where other members may ask for entries, at least so many are kept, as long as superseded blocks do not take the room
  /// that is said above.
  package var retainedEntriesMin: UInt64 = 4_096
  /// Data files grow in steps of this many bytes.
  package var growthBytes = 64 << 20
  /// A data file holds at most this many bytes.
  package var dataFileBytes = 1 << 30
  /// So much of the disk is left to the log and the index: no data file grows into it.
  package var reservedBytes = 64 << 20
  /// Changes that may wait for the writer.
  package var queueCountMax = 4_096
  /// Bytes that may wait for the writer; one change is taken whatever its size.
  package var queueBytesMax = 64 << 20
  /// Bytes of blocks that go to the disk with one sync.
  package var batchBytes = 16 << 20
  /// Sessions that are remembered; the least recently used go first.
  package var sessionCountMax = 65_536
  /// The same for those of one owner.
  package var sessionsPerOwnerMax = 1_024
  /// Bytes of records, and as many of block groups, that are kept in memory although the index has them.
  package var cacheBytesMax = 16 << 20
  /// Threads that read for ``SectorStore/read(inode:level:indexes:version:)``.
  package var readerCount = 2

  package init(generation: UInt64, sectorSize: Int = 4_096) {
    self.generation = generation
    self.sectorSize = sectorSize
  }

  /// Bytes of one tree node, which is a block of level 1 or above.
  package static let nodeSize = 4_096
  package static let formatVersion: UInt32 = 1

  static let recordBytesMax = 65_536
  static let resultBytesMax = 1_024
  static let ownerBytesMax = 4_096
  static let factKeyBytesMax = 255
  static let parentCountMax = 1_024
  /// Results that a session remembers, by sequence number down from the highest.
  static let sessionWindow: UInt64 = 1_024
  static let blockIndexMax: UInt64 = 1 << 52

  func blockSize(level: UInt8) -> Int { level == 0 ? self.sectorSize : Self.nodeSize }
}
