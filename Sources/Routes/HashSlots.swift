// SPDX-License-Identifier: Apache-2.0

/// An open-addressing table that finds elements of an array by the hash of their keys. It keeps neither keys nor
/// elements but, in eight bytes a slot, half of the hash and the element's index: whoever asks compares the key.
///
/// Probing is linear, and what is removed leaves no trace: those behind it move up.
struct HashSlots: Sendable {
  static let none = UInt32.max

  private struct Slot: Sendable {
    var tag: UInt32
    var index: UInt32
  }

  private var slots: [Slot] = []
  private(set) var count = 0

  var byteCount: Int { self.slots.capacity * MemoryLayout<Slot>.stride }

  /// How many bytes there would be with so many more elements.
  func byteCount(adding additional: Int) -> Int {
    let needed = Self.slotCount(for: self.count + additional)
    return needed <= self.slots.count
      ? self.byteCount : Allocation.roundedByteCount(needed * MemoryLayout<Slot>.stride)
  }

  /// The first element with this hash that `matches`.
  @inline(__always)
  func find(_ hash: UInt64, where matches: (UInt32) -> Bool) -> UInt32? {
    guard !self.slots.isEmpty else { return nil }
    let tag = Self.tag(of: hash)
    let mask = self.slots.count - 1
    var position = Int(tag) & mask
    while true {
      let slot = self.slots[position]
      if slot.index == Self.none { return nil }
      if slot.tag == tag && matches(slot.index) { return slot.index }
      position = (position + 1) & mask
    }
  }

  /// Adds an element that is not there.
  mutating func insert(_ index: UInt32, hash: UInt64) {
    let needed = Self.slotCount(for: self.count + 1)
    if needed > self.slots.count { self.grow(to: needed) }
    self.place(Slot(tag: Self.tag(of: hash), index: index))
    self.count += 1
  }

  /// Removes an element; nothing happens when it is not there.
  mutating func remove(_ index: UInt32, hash: UInt64) {
    guard !self.slots.isEmpty else { return }
    let mask = self.slots.count - 1
    var hole = Int(Self.tag(of: hash)) & mask
    while self.slots[hole].index != index {
      if self.slots[hole].index == Self.none { return }
      hole = (hole + 1) & mask
    }
    self.count -= 1
    // Each that is further from its home than the hole moves into it, and leaves a hole of its own.
    var position = hole
    while true {
      position = (position + 1) & mask
      let slot = self.slots[position]
      if slot.index == Self.none { break }
      let distance = (position - Int(slot.tag) & mask) & mask
      if distance >= (position - hole) & mask {
        self.slots[hole] = slot
        hole = position
      }
    }
    self.slots[hole].index = Self.none
  }

  private mutating func grow(to count: Int) {
    let old = self.slots
    self.slots = Array(repeating: Slot(tag: 0, index: Self.none), count: count)
    for slot in old where slot.index != Self.none { self.place(slot) }
  }

  private mutating func place(_ slot: Slot) {
    let mask = self.slots.count - 1
    var position = Int(slot.tag) & mask
    while self.slots[position].index != Self.none { position = (position + 1) & mask }
    self.slots[position] = slot
  }

  /// The upper half: the better one of a product.
  private static func tag(of hash: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: hash >> 32) }

  /// A power of two, at most four fifths of it in use.
  private static func slotCount(for count: Int) -> Int {
    guard count > 0 else { return 0 }
    let least = max(8, count + count / 4 + 1)
    return 1 << (Int.bitWidth - (least - 1).leadingZeroBitCount)
  }
}

/// Hashes of names, with a seed: whoever does not know it can not choose names that all fall into one place.
struct NameHash: Sendable {
  let seed: UInt64

  /// Of a name in a directory. Fast, and no cryptography: eight bytes a step, by folding products.
  @inline(__always)
  func hash(_ name: UnsafeRawBufferPointer, in directory: UInt32) -> UInt64 {
    var hash = Self.fold(self.seed ^ UInt64(directory), 0x9e37_79b9_7f4a_7c15)
    var position = 0
    while position + 8 <= name.count {
      hash = Self.fold(hash ^ name.loadUnaligned(fromByteOffset: position, as: UInt64.self), 0xa076_1d64_78bd_642f)
      position += 8
    }
    var rest = UInt64(name.count) << 56
    while position < name.count {
      rest = rest << 8 ^ UInt64(name[position])
      position += 1
    }
    return Self.fold(hash ^ rest, 0xe703_7ed1_a0b4_28db)
  }

  @inline(__always)
  private static func fold(_ left: UInt64, _ right: UInt64) -> UInt64 {
    let product = left.multipliedFullWidth(by: right)
    return product.high ^ product.low
  }
}
