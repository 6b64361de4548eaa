// SPDX-License-Identifier: Apache-2.0

/// A damaged block as other members know it: state machines of one group are the same, only slots differ.
package struct WantedBlock: Hashable, Sendable {
  package var inode: UInt64
  package var level: UInt8
  package var index: UInt64
  /// The low half of the XXH64 of its bytes.
  package var checksum: UInt32

  package init(inode: UInt64, level: UInt8, index: UInt64, checksum: UInt32) {
    self.inode = inode
    self.level = level
    self.index = index
    self.checksum = checksum
  }

  var place: DamagePlace { .block(inode: self.inode, level: self.level, index: self.index) }
}

/// What came of an attempt to repair a damaged place.
package enum RepairOutcome: Hashable, Sendable {
  /// It is whole now, durably.
  case repaired
  /// Nothing is wrong there, or nothing refers to it any more.
  case unneeded
  /// Not possible yet: entries of the log are not applied, a snapshot is open, or the disk is full. Ask again later.
  case waits
  /// It takes the bytes of this block, which another member may have.
  case needsBlock(WantedBlock)
  /// The bytes are not the wanted ones, or the disk does not take them.
  case failed
  /// What is lost can not be told any more from what is left here: only a copy of another member's store helps.
  case needsNewStore
}
