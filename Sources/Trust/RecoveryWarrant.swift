// SPDX-License-Identifier: Apache-2.0

/// Allows one member to begin the next life of a cluster that has lost its majority for good, signed by the root
/// principal of the domain. Only a verified one can be made out of bytes.
///
/// It names the member that goes on, so that nobody else can use it, and puts all lives of a cluster in one order: see
/// ``supersedes(_:)``. Whoever belongs to an earlier life and reads it knows that this one is over.
///
/// Version 1 of its encoding: what is signed and the signature, both with their lengths before them.
package struct RecoveryWarrant: Sendable {
  /// Of the encoding.
  package static let byteCountMax = 16 << 10

  package let domain: DomainID
  /// The generation whose cluster is meant.
  package let generation: UInt64
  /// The life that begins with it, from 2: the first one needs no warrant.
  package let incarnation: UInt64
  /// The process that goes on.
  package let process: TreePath
  /// The id of its member: another store at the same path is not meant.
  package let member: UInt64
  /// Since 1970, by the clock of whoever signed.
  package let issuedAtMilliseconds: UInt64
  private let signature: BatchSignature

  /// Signs a warrant.
  ///
  /// - Parameters:
  ///   - key: the root principal's.
  ///   - incarnation: one more than any that is known.
  /// - Throws: `wrongKey` for any other key; `malformed` when incarnation, generation or member can not be.
  package init(
    signedBy key: SigningKey, root: RootCertificate, generation: UInt64, incarnation: UInt64, process: TreePath,
    member: UInt64, issuedAtMilliseconds: UInt64
  ) throws(TrustError) {
    guard key.verifyingKey == root.verifyingKey else { throw .wrongKey }
    guard generation > 0, incarnation > 1, member != 0 else { throw .malformed }
    let signed = Self.signedBytes(
      place: DomainPath(domain: root.domain, path: process), generation: generation, incarnation: incarnation,
      member: member, issuedAtMilliseconds: issuedAtMilliseconds)
    self.domain = root.domain
    self.generation = generation
    self.incarnation = incarnation
    self.process = process
    self.member = member
    self.issuedAtMilliseconds = issuedAtMilliseconds
    self.signature = try key.sign(Digest32(sha256: signed), purpose: .recoveryWarrant)
  }

  /// Takes a warrant that the root principal of this domain has signed.
  ///
  /// - Throws: `foreignDomain`, `badSignature`, `malformed`, `tooLong` or `unknownVersion`.
  package init(verifying bytes: [UInt8], root: RootCertificate) throws(TrustError) {
    guard bytes.count <= Self.byteCountMax else { throw .tooLong }
    var parts = try CanonicalReader(bytes, label: Self.label)
    let signed = try parts.bytes(countMax: Self.byteCountMax)
    let signature = try BatchSignature(bytes: try parts.bytes(countMax: BatchSignature.byteCountMax))
    try parts.finish()
    var reader = try CanonicalReader(signed, label: Self.signedLabel)
    guard let place = try? DomainPath(canonical: try reader.text(byteCountMax: 3 * TreePath.byteCountMax + 64))
    else { throw .malformed }
    self.domain = place.domain
    self.process = place.path
    self.generation = try reader.integer()
    self.incarnation = try reader.integer()
    self.member = try reader.integer()
    self.issuedAtMilliseconds = try reader.integer()
    self.signature = signature
    try reader.finish()
    guard self.domain == root.domain else { throw .foreignDomain }
    guard
      signature.verify(
        digest: Digest32(sha256: signed), purpose: .recoveryWarrant, key: root.verifyingKey, cache: nil)
    else { throw .badSignature }
    guard self.generation > 0, self.incarnation > 1, self.member != 0 else { throw .malformed }
  }

  package var bytes: [UInt8] {
    var writer = CanonicalWriter(label: Self.label)
    writer.write(bytes: self.signedBytes)
    writer.write(bytes: self.signature.bytes)
    return writer.bytes
  }

  /// Whether the life that this one begins counts, and not that of the other one; nil is the first life. The higher
  /// incarnation counts, and of two with the same number, which an operator may have given twice, the later one.
  package func supersedes(_ other: RecoveryWarrant?) -> Bool {
    guard let other else { return true }
    return other.rank.lexicographicallyPrecedes(self.rank)
  }

  private var rank: [UInt64] { [self.incarnation, self.issuedAtMilliseconds, self.member] }

  private var signedBytes: [UInt8] {
    Self.signedBytes(
      place: DomainPath(domain: self.domain, path: self.process), generation: self.generation,
      incarnation: self.incarnation, member: self.member, issuedAtMilliseconds: self.issuedAtMilliseconds)
  }

  /// `CanonicalWriter`'s encoding, version 1, of: place (URI), generation, incarnation, member, time.
  private static func signedBytes(
    place: DomainPath, generation: UInt64, incarnation: UInt64, member: UInt64, issuedAtMilliseconds: UInt64
  ) -> [UInt8] {
    var writer = CanonicalWriter(label: Self.signedLabel)
    writer.write(place.uri)
    writer.write(generation)
    writer.write(incarnation)
    writer.write(member)
    writer.write(issuedAtMilliseconds)
    return writer.bytes
  }

  private static let label = "blocktree/recovery-warrant-file"
  private static let signedLabel = "blocktree/recovery-warrant"
}

extension RecoveryWarrant: Hashable {
  // Not by the signature, which anybody can give another valid form.
  package static func == (left: Self, right: Self) -> Bool { left.signedBytes == right.signedBytes }
  package func hash(into hasher: inout Hasher) { hasher.combine(self.signedBytes) }
}
