// SPDX-License-Identifier: Apache-2.0

package import Trust

/// What the integrity tree says of one sector: how it was sealed, and the digest of its sealed bytes. A value without
/// heap allocations, since a large file has many.
package struct Leaf: Hashable, Sendable {
  /// Bytes of an encoded leaf.
  package static let byteCount = 64
  /// Bytes of a nonce.
  package static let nonceByteCount = 12
  /// Bytes of an authentication tag.
  package static let tagByteCount = 16

  /// The epoch of the key that the sector is sealed under; 0 for a hole.
  package let epoch: UInt32
  /// SHA-256 of the sealed bytes.
  package let digest: Digest32
  // Nonce and tag as they lie in memory.
  private let nonceHead: UInt64
  private let nonceTail: UInt32
  private let tagHead: UInt64
  private let tagTail: UInt64

  /// Describes a sealed sector; nil unless nonce and tag have 12 and 16 bytes.
  init?(epoch: UInt32, nonce: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer, digest: Digest32) {
    guard nonce.count == Self.nonceByteCount, tag.count == Self.tagByteCount else { return nil }
    self.epoch = epoch
    self.digest = digest
    self.nonceHead = nonce.loadUnaligned(as: UInt64.self)
    self.nonceTail = nonce.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
    self.tagHead = tag.loadUnaligned(as: UInt64.self)
    self.tagTail = tag.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
  }

  private init() {
    (self.epoch, self.digest, self.nonceHead, self.nonceTail, self.tagHead, self.tagTail) = (0, .zero, 0, 0, 0, 0)
  }

  /// A sector that was never written and reads as zeros.
  package static let hole = Leaf()

  package var isHole: Bool { self.epoch == 0 }

  /// Lends the nonce, 12 bytes.
  func withNonce<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    try withUnsafeBytes(of: (self.nonceHead, self.nonceTail)) {
      try body(UnsafeRawBufferPointer(rebasing: $0[0..<Self.nonceByteCount]))
    }
  }

  /// Lends the tag, 16 bytes.
  func withTag<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    try withUnsafeBytes(of: (self.tagHead, self.tagTail)) { try body($0) }
  }

  /// Reads a leaf from 64 bytes: epoch (4, big-endian), nonce, tag, digest.
  package init(encoded: ArraySlice<UInt8>) throws(IntegrityError) {
    guard encoded.count == Self.byteCount, let digest = Digest32(bytes: encoded.suffix(32)) else { throw .malformed }
    let leaf = encoded.withUnsafeBytes { bytes in
      Leaf(
        epoch: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)),
        nonce: UnsafeRawBufferPointer(rebasing: bytes[4..<16]), tag: UnsafeRawBufferPointer(rebasing: bytes[16..<32]),
        digest: digest)
    }
    guard let leaf else { throw .malformed }
    // A hole has one encoding only, so that equal trees have equal digests.
    if leaf.isHole, leaf != .hole { throw .malformed }
    self = leaf
  }

  /// Writes the leaf's 64 bytes.
  package func encode(into bytes: inout [UInt8], at offset: Int) {
    bytes.withUnsafeMutableBytes { bytes in
      bytes.storeBytes(of: self.epoch.bigEndian, toByteOffset: offset, as: UInt32.self)
      bytes.storeBytes(of: self.nonceHead, toByteOffset: offset + 4, as: UInt64.self)
      bytes.storeBytes(of: self.nonceTail, toByteOffset: offset + 12, as: UInt32.self)
      bytes.storeBytes(of: self.tagHead, toByteOffset: offset + 16, as: UInt64.self)
      bytes.storeBytes(of: self.tagTail, toByteOffset: offset + 24, as: UInt64.self)
      self.digest.withUnsafeBytes {
        UnsafeMutableRawBufferPointer(rebasing: bytes[offset + 32..<offset + 64]).copyMemory(from: $0)
      }
    }
  }
}

/// What does not fit together in an integrity tree.
package enum IntegrityError: Error, Hashable, Sendable {
  /// Bytes that are no tree node, leaf or record part.
  case malformed
  /// A tree node does not have the digest that the node above, or the record, says.
  case nodeMismatch(level: Int, index: UInt64)
  /// A sector does not have the digest or tag that its leaf says, or is missing.
  case sectorMismatch(index: UInt64)
  /// A tree node that the tree needs is missing.
  case nodeMissing(level: Int, index: UInt64)
  /// Something was sent that nothing refers to.
  case unreferenced(level: Int, index: UInt64)
  /// Size, sector size, levels and leaves contradict one another.
  case shapeMismatch
  /// An index beyond the end.
  case outOfRange
}
