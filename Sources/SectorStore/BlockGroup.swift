// SPDX-License-Identifier: Apache-2.0

/// Names a group of 64 consecutive blocks of one inode and level: what one row of the block map covers.
package struct GroupKey: Hashable, Sendable {
  package var inode: UInt64
  package var level: UInt8
  package var group: UInt64

  package init(inode: UInt64, level: UInt8, group: UInt64) {
    self.inode = inode
    self.level = level
    self.group = group
  }

  var firstIndex: UInt64 { self.group << 6 }
}

/// Where one block lies, and the checksum of its bytes.
package struct BlockPointer: Hashable, Sendable {
  /// The slot's number plus one; 0 is a hole.
  private var place: UInt64
  package var checksum: UInt32

  package static let hole = BlockPointer(place: 0, checksum: 0)

  private init(place: UInt64, checksum: UInt32) {
    self.place = place
    self.checksum = checksum
  }

  package init(slot: UInt64, checksum: UInt32) {
    self.init(place: slot + 1, checksum: checksum)
  }

  package var slot: UInt64? { self.place == 0 ? nil : self.place - 1 }
}

/// Up to 64 blocks as they are at one version of their inode, until a higher version supersedes them.
package struct BlockGroup: Hashable, Sendable {
  static let size = 64

  package var version: UInt64
  /// By index within the group; what lies beyond the end is holes.
  package var pointers: [BlockPointer]

  package init(version: UInt64, pointers: [BlockPointer]) {
    self.version = version
    self.pointers = pointers
  }

  package static let empty = BlockGroup(version: 0, pointers: [])

  package var isEmpty: Bool { self.pointers.isEmpty }

  package subscript(_ position: Int) -> BlockPointer {
    get { position < self.pointers.count ? self.pointers[position] : .hole }
    set {
      while self.pointers.count <= position { self.pointers.append(.hole) }
      self.pointers[position] = newValue
    }
  }

  /// Keeps the first `count` blocks.
  mutating func truncate(to count: Int) {
    if self.pointers.count > count { self.pointers.removeLast(self.pointers.count - count) }
    while self.pointers.last?.slot == nil, !self.pointers.isEmpty { self.pointers.removeLast() }
  }

  /// A mask of the blocks that are there, then slot (48 bits) and checksum of each.
  func encoded() -> [UInt8] {
    var writer = ByteWriter()
    writer.bytes.reserveCapacity(8 + self.pointers.count * 10)
    var mask: UInt64 = 0
    for (position, pointer) in self.pointers.enumerated() where pointer.slot != nil { mask |= 1 << UInt64(position) }
    writer.append(mask)
    for pointer in self.pointers {
      guard let slot = pointer.slot else { continue }
      writer.append(UInt32(truncatingIfNeeded: slot))
      writer.append(UInt16(truncatingIfNeeded: slot >> 32))
      writer.append(pointer.checksum)
    }
    return writer.bytes
  }

  init?(version: UInt64, encoded: [UInt8]) {
    var reader = ByteReader(encoded)
    do throws(ByteReader.Malformed) {
      let mask: UInt64 = try reader.read()
      var pointers = [BlockPointer](repeating: .hole, count: 64 - mask.leadingZeroBitCount)
      for position in pointers.indices where mask >> UInt64(position) & 1 == 1 {
        let low: UInt32 = try reader.read()
        let high: UInt16 = try reader.read()
        pointers[position] = BlockPointer(slot: UInt64(low) | UInt64(high) << 32, checksum: try reader.read())
      }
      guard reader.isAtEnd else { return nil }
      self.init(version: version, pointers: pointers)
    } catch {
      return nil
    }
  }
}
