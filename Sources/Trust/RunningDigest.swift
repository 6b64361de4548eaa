// SPDX-License-Identifier: Apache-2.0

internal import Crypto

/// A SHA-256 digest of bytes that come piece by piece.
package struct RunningDigest: Sendable {
  private var hasher = SHA256()

  package init() {}

  package mutating func update(_ bytes: UnsafeRawBufferPointer) { self.hasher.update(bufferPointer: bytes) }

  package mutating func update(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { self.update($0) }
  }

  package mutating func update(_ digest: Digest32) {
    digest.withUnsafeBytes { self.update($0) }
  }

  /// Of all bytes so far.
  package var digest: Digest32 { Digest32(self.hasher.finalize()) }
}
