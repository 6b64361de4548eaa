// SPDX-License-Identifier: Apache-2.0

/// Names a domain: the SHA-256 of the root principal's public key (SubjectPublicKeyInfo, DER), written as 52 characters
/// of lower-case base32 without padding.
package struct DomainID: Hashable, Comparable, Sendable, CustomStringConvertible {
  package static let characterCount = 52

  package let digest: Digest32

  package init(rootKey: VerifyingKey) {
    self.digest = rootKey.keyID
  }

  package init(digest: Digest32) {
    self.digest = digest
  }

  /// Takes exactly the 52 characters that `description` prints. Upper case, padding and stray bits in the last
  /// character are refused, so equal ids have equal texts.
  package init(parsing text: String) throws(PathError) {
    try self.init(parsing: text.utf8)
  }

  init(parsing text: some Collection<UInt8>) throws(PathError) {
    guard text.count == Self.characterCount, let bytes = Base32.decode(text), let digest = Digest32(bytes: bytes)
    else { throw .invalidDomain }
    self.digest = digest
  }

  package var description: String {
    self.digest.withUnsafeBytes { Base32.encode($0) }
  }

  package static func < (left: Self, right: Self) -> Bool {
    left.digest < right.digest
  }
}
