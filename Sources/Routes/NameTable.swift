// SPDX-License-Identifier: Apache-2.0

/// Names of directories, each kept once however many directories are called so.
struct NameTable: Sendable {
  private struct Name: ArenaElement {
    /// Where its bytes begin.
    var offset: UInt32
    /// How many nodes are called so; the next free place while there are none.
    var link: UInt32
    /// Up to 255; 0 for a free place.
    var length: UInt16
  }

  private var names = Arena<Name>()
  private var slots = HashSlots()
  private var bytes: [UInt8] = []
  private var garbageByteCount = 0
  private let hash: NameHash

  init(hash: NameHash) {
    self.hash = hash
  }

  /// How many bytes there would be with so many more names of so many bytes together.
  func byteCount(adding count: Int, ofBytes nameByteCount: Int) -> Int {
    let capacity = self.capacity(adding: nameByteCount)
    let bytes = capacity == self.bytes.capacity ? capacity : Allocation.roundedByteCount(capacity)
    return self.names.byteCount(adding: count) + self.slots.byteCount(adding: count) + bytes
  }

  @inline(__always)
  func isName(_ index: UInt32, _ name: UnsafeRawBufferPointer) -> Bool {
    let known = self.names[index]
    guard Int(known.length) == name.count else { return false }
    let offset = Int(known.offset)
    for position in 0..<name.count where self.bytes[offset + position] != name[position] { return false }
    return true
  }

  func name(_ index: UInt32) -> ArraySlice<UInt8> {
    let name = self.names[index]
    return self.bytes[Int(name.offset)..<Int(name.offset) + Int(name.length)]
  }

  func find(_ name: UnsafeRawBufferPointer) -> UInt32? {
    self.slots.find(self.hash.hash(name, in: .max)) { self.isName($0, name) }
  }

  /// Takes a name of 1 to 255 bytes, and counts one more who is called so.
  mutating func retain(_ name: UnsafeRawBufferPointer) -> UInt32 {
    let hash = self.hash.hash(name, in: .max)
    if let index = self.slots.find(hash, where: { self.isName($0, name) }) {
      self.names[index].link += 1
      return index
    }
    self.makeRoom(for: name.count)
    let offset = self.bytes.count
    self.bytes.append(contentsOf: name)
    let index = self.names.add(Name(offset: UInt32(offset), link: 1, length: UInt16(name.count)))
    self.slots.insert(index, hash: hash)
    return index
  }

  mutating func release(_ index: UInt32) {
    self.names[index].link -= 1
    guard self.names[index].link == 0 else { return }
    let hash = self.name(index).withUnsafeBytes { self.hash.hash($0, in: .max) }
    self.slots.remove(index, hash: hash)
    self.garbageByteCount += Int(self.names[index].length)
    self.names.remove(index, leaving: Name(offset: 0, link: 0, length: 0))
  }

  /// How many bytes of names there will be room for when so many are added.
  private func capacity(adding count: Int) -> Int {
    if self.bytes.count + count <= self.bytes.capacity { return self.bytes.capacity }
    let needed = self.bytes.count - self.garbageByteCount + count
    // With a fifth to spare after the garbage is gone, so that it is not swept for each name.
    if needed + needed / 4 <= self.bytes.capacity { return self.bytes.capacity }
    return max(256, needed + needed / 4, self.bytes.capacity + self.bytes.capacity / 2)
  }

  /// Sweeps the garbage away when the bytes are all taken.
  private mutating func makeRoom(for count: Int) {
    guard self.bytes.count + count > self.bytes.capacity else { return }
    var swept: [UInt8] = []
    swept.reserveCapacity(self.capacity(adding: count))
    for index in 0..<UInt32(self.names.endIndex) where self.names[index].length > 0 {
      let offset = swept.count
      swept.append(contentsOf: self.name(index))
      self.names[index].offset = UInt32(offset)
    }
    self.bytes = swept
    self.garbageByteCount = 0
  }
}
