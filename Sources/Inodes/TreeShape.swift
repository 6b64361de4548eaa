// SPDX-License-Identifier: Apache-2.0

/// The form of an integrity tree, which follows from the number of sectors alone.
package enum TreeShape {
  /// Bytes of a tree node, whatever the sector size.
  package static let nodeByteCount = 4096
  /// Leaves in a node of level 1.
  package static let leavesPerNode = nodeByteCount / Leaf.byteCount
  /// Digests in a node of the levels above.
  package static let digestsPerNode = nodeByteCount / 32
  /// Up to so many sectors have their leaves in the record itself, and no nodes.
  package static let recordLeavesMax = 4
  /// The largest file.
  package static let fileByteCountMax: UInt64 = 1 << 50
  /// The levels of the tree of the largest file in the smallest sectors.
  package static let levelsMax = 6

  /// How many sectors hold so many bytes.
  package static func sectorCount(byteCount: UInt64, sectorSize: Int) -> UInt64 {
    let size = UInt64(sectorSize)
    return byteCount / size + (byteCount % size == 0 ? 0 : 1)
  }

  /// The levels of nodes above so many sectors; 0 when the leaves stand in the record.
  package static func levels(sectorCount: UInt64) -> Int {
    if sectorCount <= UInt64(Self.recordLeavesMax) { return 0 }
    var levels = 1
    var capacity = UInt64(Self.leavesPerNode)
    while capacity < sectorCount {
      capacity *= UInt64(Self.digestsPerNode)
      levels += 1
    }
    return levels
  }

  /// The number of children that a node of a level has room for.
  package static func fanOut(level: Int) -> UInt64 {
    UInt64(level == 1 ? Self.leavesPerNode : Self.digestsPerNode)
  }

  /// How many nodes a level has.
  package static func nodeCount(level: Int, sectorCount: UInt64) -> UInt64 {
    var count = sectorCount
    for level in 1...max(level, 1) {
      let fanOut = Self.fanOut(level: level)
      count = count / fanOut + (count % fanOut == 0 ? 0 : 1)
    }
    return count
  }
}

/// Where a node stands in an integrity tree.
package struct NodeKey: Hashable, Sendable, Comparable {
  /// 1 for nodes of leaves, and up.
  package let level: Int
  /// Counted from 0 within the level.
  package let index: UInt64

  package init(level: Int, index: UInt64) {
    self.level = level
    self.index = index
  }

  /// The node that holds this one's digest, and the place of the digest in it.
  var parent: (key: NodeKey, slot: Int) {
    let fanOut = UInt64(TreeShape.digestsPerNode)
    return (NodeKey(level: self.level + 1, index: self.index / fanOut), Int(self.index % fanOut))
  }

  package static func < (left: Self, right: Self) -> Bool {
    (left.level, left.index) < (right.level, right.index)
  }
}
