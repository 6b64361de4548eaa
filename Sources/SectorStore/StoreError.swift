// SPDX-License-Identifier: Apache-2.0

/// Why the store refused or could not do something. Whatever is thrown, nothing unacknowledged is ever served as
/// acknowledged, and what was acknowledged stays.
package enum StoreError: Error, Hashable, Sendable {
  /// The disk is full. Only this change is refused; later ones succeed when there is room.
  case noSpace
  /// A write or sync failed, so what the disk holds is no longer known. Every call from now on throws this; the
  /// directory has to be opened again.
  case failed(String)
  /// Bytes on the disk are not what was written. Nothing wrong is served.
  case damaged(DamagePlace)
  /// The directory was written by a newer release.
  case newerFormat(found: UInt32, supported: UInt32)
  /// Another process, or another store of this one, has the directory open.
  case locked
  /// The directory holds no store.
  case notAStore
  /// `create` found a store.
  case alreadyExists
  /// This version of the inode is no longer kept, or does not exist yet. `current` is the newest, nil when the inode
  /// is gone.
  case versionGone(inode: UInt64, version: UInt64, current: UInt64?)
  /// There is no record with this inode number.
  case unknownInode(UInt64)
  /// Too many changes wait already. `SectorStore.waitForRoom()` suspends until that has changed.
  case queueFull
  /// Entries of the log are asked for that can not be read whole any more: only a snapshot has what they did.
  case entriesGone
  /// Only of a group: this member does not lead it, so nothing was done.
  case notLeader
  /// Only of a group: this member stopped leading it while the change was on its way. It may have been done, or may yet
  /// be.
  case leadershipLost
  /// The store was closed.
  case closed
  /// A change breaks a rule of ``Change``, named here. Nothing of it was done.
  case invalidChange(ChangeFault)
  /// A condition of the change does not hold; `current` is the version there is, nil for none.
  case conditionFailed(inode: UInt64, current: UInt64?)
  /// The operation was applied before; look its result up.
  case alreadyApplied(SessionID, sequence: UInt64)
  /// The operation is older than what the session remembers: whether it was applied can not be told.
  case operationTooOld(SessionID, sequence: UInt64)
  /// No such session is open, or it was dropped as the least recently used.
  case unknownSession(SessionID)
  /// The operating system refused a file operation while opening or reading.
  case io(FileError)
}

/// Where damage was found.
package enum DamagePlace: Hashable, Sendable {
  /// The header file of the store.
  case header
  /// A frame of the log, by the number of its segment and the offset in it, in bytes.
  case log(segment: UInt64, offset: UInt64)
  /// An entry of the log whose frame is right, but not what it says.
  case logEntry(LogIndex)
  /// An inode record.
  case record(UInt64)
  /// One block: a sector at level 0, a tree node above.
  case block(inode: UInt64, level: UInt8, index: UInt64)
  /// The row that says where a group of 64 blocks lies.
  case blockMap(inode: UInt64, level: UInt8, group: UInt64)
  case certificate(Digest)
  case fact(String)
  case session(SessionID)
  /// The index as a whole: what SQLite said.
  case index(String)
}

/// The rule that a change breaks.
package enum ChangeFault: String, Hashable, Sendable {
  case recordTooLong, extraTooLong, resultTooLong, ownerTooLong, certificateTooLong, factTooLong
  case tooManyParents, changeTooLong
  /// What the change takes in the log, without its blocks, is more than a quarter of a segment.
  case entryTooLong
  /// Inode numbers are 1 to 2^63 - 1.
  case inodeOutOfRange
  case inodeTwice
  case versionTooHigh
  /// Sequence numbers begin at 1.
  case sequenceZero
  /// A record's version must be higher than the one before.
  case versionNotHigher
  /// Blocks and truncations need a `put` of their inode in the same change.
  case blocksWithoutRecord
  case blockSizeWrong, blockIndexTooHigh, blocksOverlap
  case truncatedTwice, operationTwice
}
