// SPDX-License-Identifier: Apache-2.0

/// XXH64, which guards everything this store writes: frames of the log, rows of the index, and (its low 32 bits) blocks.
///
/// Chosen over CRC-32C because it needs no special instruction to run at several GB/s, and over SHA-256 for the same
/// reason: it finds faults, not forgeries, which is the integrity tree's task. Follows the public specification
/// ("XXH64 algorithm description", xxHash repository, doc/xxhash_spec.md).
package enum Checksum {
  private static let prime1: UInt64 = 0x9E37_79B1_85EB_CA87
  private static let prime2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
  private static let prime3: UInt64 = 0x1656_67B1_9E37_79F9
  private static let prime4: UInt64 = 0x85EB_CA77_C2B2_AE63
  private static let prime5: UInt64 = 0x27D4_EB2F_1656_67C5

  package static func of(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
    let count = bytes.count
    var hash: UInt64
    var offset = 0
    if count >= 32, let base = bytes.baseAddress {
      var lane1 = seed &+ self.prime1 &+ self.prime2
      var lane2 = seed &+ self.prime2
      var lane3 = seed
      var lane4 = seed &- self.prime1
      let end = count &- 32
      while offset <= end {
        lane1 = self.round(lane1, self.load(base, offset))
        lane2 = self.round(lane2, self.load(base, offset &+ 8))
        lane3 = self.round(lane3, self.load(base, offset &+ 16))
        lane4 = self.round(lane4, self.load(base, offset &+ 24))
        offset &+= 32
      }
      hash = self.rotate(lane1, 1) &+ self.rotate(lane2, 7) &+ self.rotate(lane3, 12) &+ self.rotate(lane4, 18)
      hash = self.merge(hash, lane1)
      hash = self.merge(hash, lane2)
      hash = self.merge(hash, lane3)
      hash = self.merge(hash, lane4)
    } else {
      hash = seed &+ self.prime5
    }
    hash &+= UInt64(count)
    while offset &+ 8 <= count {
      hash ^= self.round(0, UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
      hash = self.rotate(hash, 27) &* self.prime1 &+ self.prime4
      offset &+= 8
    }
    if offset &+ 4 <= count {
      hash ^= UInt64(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))) &* self.prime1
      hash = self.rotate(hash, 23) &* self.prime2 &+ self.prime3
      offset &+= 4
    }
    while offset < count {
      hash ^= UInt64(bytes[offset]) &* self.prime5
      hash = self.rotate(hash, 11) &* self.prime1
      offset &+= 1
    }
    hash = (hash ^ (hash &>> 33)) &* self.prime2
    hash = (hash ^ (hash &>> 29)) &* self.prime3
    return hash ^ (hash &>> 32)
  }

  package static func of(_ bytes: [UInt8], seed: UInt64 = 0) -> UInt64 {
    bytes.withUnsafeBytes { self.of($0, seed: seed) }
  }

  /// The checksum kept for each block in the block map.
  static func ofBlock(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    UInt32(truncatingIfNeeded: self.of(bytes))
  }

  @inline(__always)
  private static func load(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
    UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  @inline(__always)
  private static func round(_ lane: UInt64, _ input: UInt64) -> UInt64 {
    self.rotate(lane &+ input &* self.prime2, 31) &* self.prime1
  }

  @inline(__always)
  private static func merge(_ hash: UInt64, _ lane: UInt64) -> UInt64 {
    (hash ^ self.round(0, lane)) &* self.prime1 &+ self.prime4
  }

  @inline(__always)
  private static func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 {
    (value &<< count) | (value &>> (64 &- count))
  }
}
