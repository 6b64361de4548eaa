// SPDX-License-Identifier: Apache-2.0

/// Appends little-endian numbers and length-prefixed bytes: the one encoding of everything the store writes itself.
struct ByteWriter {
  var bytes: [UInt8] = []

  mutating func append<Number: FixedWidthInteger>(_ number: Number) {
    withUnsafeBytes(of: number.littleEndian) { self.bytes.append(contentsOf: $0) }
  }

  /// Bytes whose length the reader knows.
  mutating func append(raw: some Collection<UInt8>) {
    self.bytes.append(contentsOf: raw)
  }

  /// Bytes with their length (UInt32) in front.
  mutating func append(counted: some Collection<UInt8>) {
    self.append(UInt32(counted.count))
    self.bytes.append(contentsOf: counted)
  }
}

/// Reads what a ``ByteWriter`` wrote. Every read is checked: bytes from a disk are not trusted to be whole.
struct ByteReader {
  struct Malformed: Error {}

  private let bytes: ArraySlice<UInt8>
  private var position: Int

  init(_ bytes: ArraySlice<UInt8>) {
    self.bytes = bytes
    self.position = bytes.startIndex
  }

  init(_ bytes: [UInt8]) { self.init(bytes[...]) }

  var isAtEnd: Bool { self.position == self.bytes.endIndex }
  var remaining: Int { self.bytes.endIndex - self.position }

  mutating func read<Number: FixedWidthInteger>(_: Number.Type = Number.self) throws(Malformed) -> Number {
    let size = MemoryLayout<Number>.size
    guard self.remaining >= size else { throw Malformed() }
    let offset = self.position - self.bytes.startIndex
    self.position += size
    return self.bytes.withUnsafeBytes {
      Number(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Number.self))
    }
  }

  mutating func readRaw(_ count: Int) throws(Malformed) -> [UInt8] {
    guard count >= 0, self.remaining >= count else { throw Malformed() }
    defer { self.position += count }
    return Array(self.bytes[self.position..<self.position + count])
  }

  mutating func readCounted() throws(Malformed) -> [UInt8] {
    try self.readRaw(Int(self.read(UInt32.self)))
  }

  /// A number of items that each take at least `itemSize` bytes: so a wrong count can not ask for much memory.
  mutating func readCount(itemSize: Int) throws(Malformed) -> Int {
    let count = Int(try self.read(UInt32.self))
    guard count <= self.remaining / itemSize else { throw Malformed() }
    return count
  }
}
