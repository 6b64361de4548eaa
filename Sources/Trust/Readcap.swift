// SPDX-License-Identifier: Apache-2.0

package import Crypto
internal import FoundationEssentials

/// What a sealed key is for. All of it is bound into the seal: a readcap that is moved to another file, epoch,
/// recipient or domain does not open.
package struct ReadcapContext: Hashable, Sendable {
  package let domain: DomainID
  package let generation: UInt64
  package let inode: UInt64
  package let epoch: UInt32
  /// The path of the principal that may open it.
  package let recipient: TreePath

  package init(domain: DomainID, generation: UInt64, inode: UInt64, epoch: UInt32, recipient: TreePath) {
    self.domain = domain
    self.generation = generation
    self.inode = inode
    self.epoch = epoch
    self.recipient = recipient
  }

  // For whom, in HPKE's key schedule.
  fileprivate var info: Data {
    var writer = CanonicalWriter(label: "blocktree/readcap")
    writer.write(self.domain.digest)
    writer.write(bytes: self.recipient.bytes)
    return Data(writer.bytes)
  }

  // For what, as associated data.
  fileprivate var associatedData: [UInt8] {
    var writer = CanonicalWriter(label: "blocktree/readcap/file")
    writer.write(self.generation)
    writer.write(self.inode)
    writer.write(self.epoch)
    return writer.bytes
  }
}

/// A file's or directory's key, sealed to one principal's key-agreement key: HPKE (RFC 9180) in base mode with P-256,
/// HKDF-SHA256 and AES-256-GCM. Who made it is not part of it; the record that it stands in is signed.
package struct ReadcapSeal: Hashable, Sendable {
  package static let keyByteCount = 32
  /// Version, encapsulated key, ciphertext and tag.
  package static let byteCount = 1 + encapsulatedByteCount + keyByteCount + 16
  private static let encapsulatedByteCount = 65

  /// Version 1: one byte of version, the encapsulated key (65 bytes), the sealed key (48 bytes).
  package let bytes: [UInt8]

  /// Takes what `bytes` gave. Whether it is a good seal shows when it is opened.
  package init(bytes: [UInt8]) throws(TrustError) {
    guard let version = bytes.first else { throw .malformed }
    guard version == 1 else { throw .unknownVersion }
    guard bytes.count == Self.byteCount else { throw .malformed }
    self.bytes = bytes
  }

  /// Seals a key of 32 bytes; throws `malformed` for any other length.
  package static func seal(
    _ key: SymmetricKey, to recipient: AgreementPublicKey, context: ReadcapContext
  ) throws(TrustError) -> ReadcapSeal {
    guard key.bitCount == Self.keyByteCount * 8 else { throw .malformed }
    let bytes: [UInt8]
    do {
      var sender = try HPKE.Sender(
        recipientKey: recipient.key, ciphersuite: .P256_SHA256_AES_GCM_256, info: context.info)
      let sealed = try key.withUnsafeBytes { try sender.seal(Array($0), authenticating: context.associatedData) }
      bytes = [1] + sender.encapsulatedKey + sealed
    } catch {
      throw .cryptographicFailure
    }
    return try ReadcapSeal(bytes: bytes)
  }

  /// The key inside. Throws `cryptographicFailure` when it was sealed to another key or for another context, or was
  /// changed.
  package func open(with key: AgreementKey, context: ReadcapContext) throws(TrustError) -> SymmetricKey {
    do {
      let encapsulated = self.bytes[1..<(1 + Self.encapsulatedByteCount)]
      var recipient = try HPKE.Recipient(
        privateKey: key.key, ciphersuite: .P256_SHA256_AES_GCM_256, info: context.info,
        encapsulatedKey: Data(encapsulated))
      return SymmetricKey(
        data: try recipient.open(self.bytes[encapsulated.endIndex...], authenticating: context.associatedData))
    } catch {
      throw .cryptographicFailure
    }
  }
}
