// SPDX-License-Identifier: Apache-2.0

internal import Crypto
package import Foundation
package import Trust

/// The key of a file or directory in one epoch: 32 random bytes, known to whoever holds a readcap and to nobody else.
package struct FileKey: Sendable, Equatable, CustomStringConvertible, CustomReflectable {
  package static let byteCount = 32

  let symmetricKey: SymmetricKey
  /// The epoch, from 1.
  package let epoch: UInt32

  /// Draws a new key.
  package static func random(epoch: UInt32 = 1) -> FileKey {
    FileKey(symmetricKey: SymmetricKey(size: .bits256), epoch: epoch)
  }

  /// Takes a key of 32 bytes.
  package init?(bytes: some Sequence<UInt8>, epoch: UInt32) {
    let bytes = Array(bytes)
    guard bytes.count == Self.byteCount, epoch > 0 else { return nil }
    self.init(symmetricKey: SymmetricKey(data: bytes), epoch: epoch)
  }

  private init(symmetricKey: SymmetricKey, epoch: UInt32) {
    self.symmetricKey = symmetricKey
    self.epoch = epoch
  }

  /// The secret itself, to be sealed in a directory entry or a readcap.
  package var bytes: [UInt8] { self.symmetricKey.withUnsafeBytes { Array($0) } }

  /// Never the secret.
  package var description: String { "FileKey(epoch: \(self.epoch))" }
  package var customMirror: Mirror { Mirror(self, children: ["epoch": self.epoch]) }
}

/// Neighbouring sealed sectors on their way to the store, with the digests of their bytes.
package struct SealedRun: Sendable {
  /// The index of the first.
  package let start: UInt64
  /// Whole sectors, one behind the other.
  package let bytes: [UInt8]
  /// SHA-256 of each sector.
  package let digests: [Digest32]

  /// Computes the digests; a rest shorter than a sector is left out of them.
  package init(start: UInt64, bytes: [UInt8], sectorSize: Int) {
    self.init(
      start: start, bytes: bytes,
      digests: (0..<bytes.count / sectorSize).map { number in
        Digest32(sha256: bytes[number * sectorSize..<(number + 1) * sectorSize])
      })
  }

  fileprivate init(start: UInt64, bytes: [UInt8], digests: [Digest32]) {
    self.start = start
    self.bytes = bytes
    self.digests = digests
  }
}

/// Seals and opens the sectors of one file, under the newest of its keys, and each under the key of its epoch: AES-256-GCM (NIST SP 800-38D) under the file's key, a fresh random nonce
/// for each sealing. What is authenticated with a sector is the file's content id, the sector's index and the key's
/// epoch, so that sectors can not be swapped, within a file or between files.
///
/// With random nonces of 96 bits a key should seal no more than 2^32 sectors; a new epoch starts a new key.
package struct SectorCipher: Sendable {
  private let keys: FileKeys
  private let contentID: [UInt8]

  /// - Parameter contentID: the file's random content id, 16 bytes.
  package init(keys: FileKeys, contentID: [UInt8]) {
    self.keys = keys
    self.contentID = contentID
  }

  /// Of a file with a single key.
  package init(key: FileKey, contentID: [UInt8]) {
    self.init(keys: FileKeys(key), contentID: contentID)
  }

  private var key: FileKey { self.keys.current }

  /// Seals neighbouring sectors.
  ///
  /// - Parameters:
  ///   - plain: the bytes; what the last sector lacks is filled with zeros.
  ///   - start: the index of the first sector.
  /// - Returns: a leaf for each sector, and the sealed bytes.
  package func seal(
    _ plain: ArraySlice<UInt8>, from start: UInt64, sectorSize: Int
  ) throws(IntegrityError) -> (leaves: [Leaf], run: SealedRun) {
    let count = (plain.count + sectorSize - 1) / sectorSize
    var sealed: [UInt8] = []
    sealed.reserveCapacity(count * sectorSize)
    var leaves: [Leaf] = []
    leaves.reserveCapacity(count)
    var digests: [Digest32] = []
    digests.reserveCapacity(count)
    do {
      for number in 0..<count {
        let from = plain.startIndex + number * sectorSize
        let part = plain[from..<min(from + sectorSize, plain.endIndex)]
        let associated = self.associatedData(start + UInt64(number), self.key.epoch)
        let box: AES.GCM.SealedBox
        if part.count == sectorSize {
          box = try AES.GCM.seal(part, using: self.key.symmetricKey, authenticating: associated)
        } else {
          let filled = Array(part) + [UInt8](repeating: 0, count: sectorSize - part.count)
          box = try AES.GCM.seal(filled, using: self.key.symmetricKey, authenticating: associated)
        }
        let ciphertext = box.ciphertext
        let digest = ciphertext.withUnsafeBytes { bytes in
          sealed.append(contentsOf: bytes)
          return Digest32(sha256: bytes)
        }
        let leaf = box.nonce.withUnsafeBytes { nonce in
          box.tag.withUnsafeBytes { Leaf(epoch: self.key.epoch, nonce: nonce, tag: $0, digest: digest) }
        }
        guard let leaf else { throw IntegrityError.malformed }
        leaves.append(leaf)
        digests.append(digest)
      }
    } catch {
      throw .malformed
    }
    return (leaves, SealedRun(start: start, bytes: sealed, digests: digests))
  }

  /// Opens one sector, and appends a range of its bytes to `plain`.
  ///
  /// - Throws: `sectorMismatch` when the bytes are not those that were sealed, or the key is not known.
  package func open(
    _ sealed: some DataProtocol, leaf: Leaf, at index: UInt64, range: Range<Int>, into plain: inout [UInt8]
  ) throws(IntegrityError) {
    guard let key = self.keys[leaf.epoch] else { throw .sectorMismatch(index: index) }
    do {
      let nonce = try leaf.withNonce { try AES.GCM.Nonce(data: $0) }
      let box = try leaf.withTag { try AES.GCM.SealedBox(nonce: nonce, ciphertext: sealed, tag: $0) }
      let opened = try AES.GCM.open(
        box, using: key.symmetricKey, authenticating: self.associatedData(index, key.epoch))
      guard range.lowerBound >= 0, range.upperBound <= opened.count else { throw IntegrityError.outOfRange }
      opened.withUnsafeBytes { plain.append(contentsOf: $0[range]) }
    } catch {
      throw .sectorMismatch(index: index)
    }
  }

  private func associatedData(_ index: UInt64, _ epoch: UInt32) -> [UInt8] {
    var bytes = self.contentID
    bytes.reserveCapacity(28)
    withUnsafeBytes(of: index.bigEndian) { bytes.append(contentsOf: $0) }
    withUnsafeBytes(of: epoch.bigEndian) { bytes.append(contentsOf: $0) }
    return bytes
  }

  /// What a small sealed value is, so that one can not stand in the place of another.
  package enum Part: UInt64, Sendable {
    case inlineContent = 0xFFFF_FFFF_FFFF_FF01
    case extendedAttributes = 0xFFFF_FFFF_FFFF_FF02
    case earlierKey = 0xFFFF_FFFF_FFFF_FF03
  }

  /// Seals a small value that stands in a record: nonce (12), tag (16), ciphertext.
  package func seal(_ plain: [UInt8], as part: Part) throws(IntegrityError) -> [UInt8] {
    do {
      // No sector has an index this high, so these never collide with sectors.
      let box = try AES.GCM.seal(
        plain, using: self.key.symmetricKey, authenticating: self.associatedData(part.rawValue, self.key.epoch))
      return Array(box.nonce) + Array(box.tag) + Array(box.ciphertext)
    } catch {
      throw .malformed
    }
  }

  /// Opens what `seal(_:as:)` made.
  package func open(_ sealed: [UInt8], as part: Part) throws(IntegrityError) -> [UInt8] {
    guard sealed.count >= 28 else { throw .malformed }
    do {
      let box = try AES.GCM.SealedBox(
        nonce: AES.GCM.Nonce(data: sealed[0..<12]), ciphertext: sealed[28...], tag: sealed[12..<28])
      let opened = try AES.GCM.open(
        box, using: self.key.symmetricKey, authenticating: self.associatedData(part.rawValue, self.key.epoch))
      return Array(opened)
    } catch {
      throw .malformed
    }
  }
}
