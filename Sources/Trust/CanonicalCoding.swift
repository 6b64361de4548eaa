// SPDX-License-Identifier: Apache-2.0

/// Writes the bytes that get signed, and the small files of this module.
///
/// The encoding: one version byte; a label that says what kind of thing follows; then its fields in a fixed order.
/// Integers are big-endian and of fixed width, byte strings and texts have a 32-bit length before them, lists a 32-bit
/// count. Sets are written in ascending order. So equal values have equal bytes, and no two values share theirs.
package struct CanonicalWriter {
  package private(set) var bytes: [UInt8]

  package init(version: UInt8 = 1, label: String) {
    self.bytes = [version]
    self.write(label)
  }

  package mutating func write(_ value: some FixedWidthInteger & UnsignedInteger) {
    Swift.withUnsafeBytes(of: value.bigEndian) { self.bytes.append(contentsOf: $0) }
  }

  package mutating func write(bytes: [UInt8]) {
    self.write(UInt32(bytes.count))
    self.bytes.append(contentsOf: bytes)
  }

  package mutating func write(_ text: String) {
    self.write(bytes: Array(text.utf8))
  }

  package mutating func write(_ digest: Digest32) {
    digest.withUnsafeBytes { self.bytes.append(contentsOf: $0) }
  }

  package mutating func write(count: Int) {
    self.write(UInt32(count))
  }
}

/// Reads what `CanonicalWriter` wrote. Every length and count is checked against a limit before anything is allocated.
package struct CanonicalReader {
  private var rest: ArraySlice<UInt8>

  /// Checks version and label.
  package init(_ bytes: [UInt8], version: UInt8 = 1, label: String) throws(TrustError) {
    self.rest = bytes[...]
    guard let first = self.rest.popFirst() else { throw .malformed }
    guard first == version else { throw .unknownVersion }
    guard try self.bytes(countMax: 64).elementsEqual(label.utf8) else { throw .malformed }
  }

  package mutating func integer<Value: FixedWidthInteger & UnsignedInteger>(
    _: Value.Type = Value.self
  ) throws(TrustError) -> Value {
    let byteCount = Value.bitWidth / 8
    guard self.rest.count >= byteCount else { throw .malformed }
    defer { self.rest.removeFirst(byteCount) }
    return self.rest.prefix(byteCount).reduce(0) { $0 << 8 | Value($1) }
  }

  package mutating func bytes(countMax: Int) throws(TrustError) -> [UInt8] {
    let count = Int(try self.integer(UInt32.self))
    guard count <= countMax else { throw .tooLong }
    guard count <= self.rest.count else { throw .malformed }
    defer { self.rest.removeFirst(count) }
    return Array(self.rest.prefix(count))
  }

  package mutating func text(byteCountMax: Int) throws(TrustError) -> String {
    guard let text = String(validating: try self.bytes(countMax: byteCountMax), as: UTF8.self) else { throw .malformed }
    return text
  }

  package mutating func digest() throws(TrustError) -> Digest32 {
    guard let digest = Digest32(bytes: self.rest.prefix(Digest32.byteCount)) else { throw .malformed }
    self.rest.removeFirst(Digest32.byteCount)
    return digest
  }

  package mutating func count(max: Int) throws(TrustError) -> Int {
    let count = Int(try self.integer(UInt32.self))
    guard count <= max else { throw .tooLong }
    return count
  }

  package mutating func flag() throws(TrustError) -> Bool {
    switch try self.integer(UInt8.self) {
    case 0: false
    case 1: true
    default: throw .malformed
    }
  }

  /// Nothing may be left over.
  package var isAtEnd: Bool { self.rest.isEmpty }

  package func finish() throws(TrustError) {
    guard self.isAtEnd else { throw .malformed }
  }
}
