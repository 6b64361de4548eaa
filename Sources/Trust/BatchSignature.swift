// SPDX-License-Identifier: Apache-2.0

/// A signature over one message that may have been made together with others.
///
/// Signing is the dearest step of a small commit, and writers have many records to sign at once. So they sign the root
/// of a Merkle tree (RFC 6962, 2.1) over the digests of all of them, once, and each message's signature is that one
/// ECDSA signature with the way from the message's leaf to the root. It stands alone: nothing of the other messages but
/// a few hashes is needed to verify it, and a `SignatureCache` makes a verifier pay for the ECDSA once per batch.
///
/// What ECDSA (P-256, SHA-256) signs is `CanonicalWriter`'s encoding, version 1, of: the label
/// `blocktree/batch-signature`, the purpose's raw value, the number of leaves (UInt32) and the root (32 bytes). With one
/// message the root is its leaf's hash and the way is empty.
///
/// Where a message stood in its batch means nothing. The ECDSA signature can be changed by anybody to one other valid
/// form, so nothing may be identified by signature bytes.
package struct BatchSignature: Hashable, Sendable {
  /// More messages are signed as several trees.
  package static let treeSizeMax = 4096
  /// Of the encoded form: version, position, size, at most 12 hashes, and the ECDSA signature.
  package static let byteCountMax = 1 + 2 + 2 + 12 * Digest32.byteCount + signatureByteCount
  static let signatureByteCount = 64

  let leafIndex: UInt16
  let treeSize: UInt16
  let path: [Digest32]
  /// r and s, 32 bytes each.
  let signature: [UInt8]

  init(leafIndex: UInt16, treeSize: UInt16, path: [Digest32], signature: [UInt8]) {
    self.leafIndex = leafIndex
    self.treeSize = treeSize
    self.path = path
    self.signature = signature
  }

  /// Whether the holder of `key` signed the message with this digest for this purpose.
  ///
  /// - Parameter cache: Remembers what was verified; nil to verify everything here and now.
  package func verify(
    digest: Digest32, purpose: SigningPurpose, key: VerifyingKey, cache: SignatureCache?
  ) -> Bool {
    guard
      let root = MerkleTree.root(leaf: digest, at: Int(self.leafIndex), size: Int(self.treeSize), path: self.path)
    else { return false }
    let claim = SignatureCache.Claim(
      keyID: key.keyID, purpose: purpose, treeSize: self.treeSize, root: root, signature: self.signature)
    if let cache, cache.contains(claim) { return true }
    let message = Self.message(root: root, treeSize: self.treeSize, purpose: purpose)
    guard key.isValid(signature: self.signature, over: message) else { return false }
    cache?.insert(claim)
    return true
  }

  static func message(root: Digest32, treeSize: UInt16, purpose: SigningPurpose) -> [UInt8] {
    var writer = CanonicalWriter(label: "blocktree/batch-signature")
    writer.write(purpose.rawValue)
    writer.write(UInt32(treeSize))
    writer.write(root)
    return writer.bytes
  }

  /// Version 1: one byte of version, leaf index and tree size (16 bits each, big-endian), the hashes from the leaf up
  /// (how many follows from the two numbers), r and s.
  package var bytes: [UInt8] {
    var bytes: [UInt8] = [1]
    bytes.reserveCapacity(5 + self.path.count * Digest32.byteCount + Self.signatureByteCount)
    for number in [self.leafIndex, self.treeSize] {
      bytes.append(UInt8(number >> 8))
      bytes.append(UInt8(number & 255))
    }
    for digest in self.path { digest.withUnsafeBytes { bytes.append(contentsOf: $0) } }
    bytes.append(contentsOf: self.signature)
    return bytes
  }

  package init(bytes: some Collection<UInt8>) throws(TrustError) {
    guard bytes.count <= Self.byteCountMax else { throw .tooLong }
    let bytes = Array(bytes)
    guard let version = bytes.first else { throw .malformed }
    guard version == 1 else { throw .unknownVersion }
    guard bytes.count >= 5 + Self.signatureByteCount else { throw .malformed }
    self.leafIndex = UInt16(bytes[1]) << 8 | UInt16(bytes[2])
    self.treeSize = UInt16(bytes[3]) << 8 | UInt16(bytes[4])
    guard self.treeSize <= Self.treeSizeMax else { throw .tooLong }
    guard self.leafIndex < self.treeSize else { throw .malformed }
    let pathCount = MerkleTree.auditPathCount(leaf: Int(self.leafIndex), size: Int(self.treeSize))
    let pathEnd = 5 + pathCount * Digest32.byteCount
    guard bytes.count == pathEnd + Self.signatureByteCount else { throw .malformed }
    var path: [Digest32] = []
    path.reserveCapacity(pathCount)
    for start in stride(from: 5, to: pathEnd, by: Digest32.byteCount) {
      guard let digest = Digest32(bytes: bytes[start..<(start + Digest32.byteCount)]) else { throw .malformed }
      path.append(digest)
    }
    self.path = path
    self.signature = Array(bytes[pathEnd...])
  }
}

extension SigningKey {
  /// Signs all the messages with these digests, at the price of one ECDSA signature for each 4,096 of them. The result
  /// has the signatures in the order of the digests.
  ///
  /// - Parameter cache: Is told of the signatures, so that their maker need not verify them when they come back.
  package func sign(
    _ digests: [Digest32], purpose: SigningPurpose, cache: SignatureCache? = nil
  ) throws(TrustError) -> [BatchSignature] {
    var signatures: [BatchSignature] = []
    signatures.reserveCapacity(digests.count)
    var rest = digests[...]
    while !rest.isEmpty {
      let batch = rest.prefix(BatchSignature.treeSizeMax)
      rest = rest.dropFirst(batch.count)
      let tree = MerkleTree(batch)
      let treeSize = UInt16(batch.count)
      let message = BatchSignature.message(root: tree.root, treeSize: treeSize, purpose: purpose)
      let signature = try self.signature(over: message)
      cache?.insert(
        SignatureCache.Claim(
          keyID: self.verifyingKey.keyID, purpose: purpose, treeSize: treeSize, root: tree.root, signature: signature))
      for leaf in 0..<batch.count {
        signatures.append(
          BatchSignature(
            leafIndex: UInt16(leaf), treeSize: treeSize, path: tree.auditPath(to: leaf), signature: signature))
      }
    }
    return signatures
  }

  /// Signs one message.
  package func sign(
    _ digest: Digest32, purpose: SigningPurpose, cache: SignatureCache? = nil
  ) throws(TrustError) -> BatchSignature {
    guard let signature = try self.sign([digest], purpose: purpose, cache: cache).first
    else { throw .cryptographicFailure }
    return signature
  }
}
