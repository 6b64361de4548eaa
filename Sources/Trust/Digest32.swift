// SPDX-License-Identifier: Apache-2.0

package import Crypto

/// A SHA-256 digest, or any other 32 bytes that name something: a fixed-size value without a heap allocation.
package struct Digest32: Hashable, Comparable, Sendable, CustomStringConvertible {
  package static let byteCount = 32

  // Big-endian words, so that comparing words compares bytes.
  private let a: UInt64
  private let b: UInt64
  private let c: UInt64
  private let d: UInt64

  /// The SHA-256 of `bytes`.
  package init(sha256 bytes: some Collection<UInt8>) {
    var hasher = SHA256()
    hasher.update(bytes)
    self.init(hasher.finalize())
  }

  package init(_ digest: SHA256.Digest) {
    self = digest.withUnsafeBytes { Self(reading: $0) }
  }

  /// Takes 32 bytes as they are; nil for any other number of bytes.
  package init?(bytes: some Collection<UInt8>) {
    guard bytes.count == Self.byteCount else { return nil }
    let direct = bytes.withContiguousStorageIfAvailable { Self(reading: UnsafeRawBufferPointer($0)) }
    self = direct ?? Array(bytes).withUnsafeBytes { Self(reading: $0) }
  }

  /// Reads the first 32 bytes of a buffer that holds at least so many.
  private init(reading buffer: UnsafeRawBufferPointer) {
    assert(buffer.count >= Self.byteCount)
    self.a = UInt64(bigEndian: buffer.loadUnaligned(fromByteOffset: 0, as: UInt64.self))
    self.b = UInt64(bigEndian: buffer.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    self.c = UInt64(bigEndian: buffer.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
    self.d = UInt64(bigEndian: buffer.loadUnaligned(fromByteOffset: 24, as: UInt64.self))
  }

  package static let zero = Self(a: 0, b: 0, c: 0, d: 0)

  private init(a: UInt64, b: UInt64, c: UInt64, d: UInt64) {
    self.a = a
    self.b = b
    self.c = c
    self.d = d
  }

  package var bytes: [UInt8] {
    self.withUnsafeBytes { Array($0) }
  }

  /// Lends the 32 bytes without allocating.
  package func withUnsafeBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let words = (self.a.bigEndian, self.b.bigEndian, self.c.bigEndian, self.d.bigEndian)
    return try Swift.withUnsafeBytes(of: words, body)
  }

  /// 64 lower-case hexadecimal digits.
  package var description: String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    text.reserveCapacity(64)
    self.withUnsafeBytes { buffer in
      for byte in buffer {
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 15)])
      }
    }
    return String(decoding: text, as: UTF8.self)
  }

  package static func < (left: Self, right: Self) -> Bool {
    (left.a, left.b, left.c, left.d) < (right.a, right.b, right.c, right.d)
  }
}

extension SHA256 {
  mutating func update(_ bytes: some Collection<UInt8>) {
    let done: Void? = bytes.withContiguousStorageIfAvailable { self.update(bufferPointer: UnsafeRawBufferPointer($0)) }
    if done == nil { self.update(data: Array(bytes)) }
  }

  mutating func update(_ digest: Digest32) {
    digest.withUnsafeBytes { self.update(bufferPointer: $0) }
  }
}
