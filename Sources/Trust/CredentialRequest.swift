// SPDX-License-Identifier: Apache-2.0

internal import SwiftASN1

/// What somebody who wants a credential hands to an authority: its public keys, and where it can be reached, signed by
/// its own key. It asks for no path, no services and no kind: the issuer decides these.
///
/// This is a format of our own and not PKCS #10, because it carries two keys of which one can not sign. Whoever decodes
/// one has a verified one: the signature proves that the sender holds the signing key and chose the agreement key.
package struct CredentialRequest: Hashable, Sendable {
  package static let byteCountMax = 16 * 1024

  package let verifyingKey: VerifyingKey
  package let agreementKey: AgreementPublicKey
  /// Nil for somebody who only calls.
  package let addresses: SignedAddresses?
  private let signature: BatchSignature

  /// Makes and signs a request. Addresses, where there are any, go into the credential file as they are, with serial 1
  /// unless the caller says otherwise.
  package init(
    keys: PrincipalKeys, addresses: [NetworkAddress] = [], addressesSerial: UInt64 = 1, issuedAtMilliseconds: UInt64
  ) throws(TrustError) {
    self.verifyingKey = keys.signing.verifyingKey
    self.agreementKey = keys.agreement.publicKey
    if addresses.isEmpty {
      self.addresses = nil
    } else {
      self.addresses = try CredentialAddresses(
        keyID: keys.signing.verifyingKey.keyID, addresses: addresses, serial: addressesSerial,
        issuedAtMilliseconds: issuedAtMilliseconds
      ).signed(with: keys.signing)
    }
    let unsigned = Self.signedBytes(self.verifyingKey, self.agreementKey, self.addresses)
    self.signature = try keys.signing.sign(Digest32(sha256: unsigned), purpose: .credentialRequest)
  }

  /// Decodes and verifies.
  package init(bytes: [UInt8]) throws(TrustError) {
    guard bytes.count <= Self.byteCountMax else { throw .tooLong }
    var outer = try CanonicalReader(bytes, label: Self.label)
    let signed = try outer.bytes(countMax: Self.byteCountMax)
    self.signature = try BatchSignature(bytes: outer.bytes(countMax: BatchSignature.byteCountMax))
    try outer.finish()
    var reader = try CanonicalReader(signed, label: Self.signedLabel)
    self.verifyingKey = try VerifyingKey(x963Representation: reader.bytes(countMax: 65))
    self.agreementKey = try AgreementPublicKey(x963Representation: reader.bytes(countMax: 65))
    self.addresses = try reader.flag() ? SignedAddresses(from: &reader) : nil
    try reader.finish()
    guard
      self.signature.verify(
        digest: Digest32(sha256: signed), purpose: .credentialRequest, key: self.verifyingKey, cache: nil)
    else { throw .badSignature }
    _ = try self.addresses?.verify(self.verifyingKey)
  }

  /// `CanonicalWriter`'s encoding, version 1, of the signed bytes and the signature.
  package var bytes: [UInt8] {
    var writer = CanonicalWriter(label: Self.label)
    writer.write(bytes: Self.signedBytes(self.verifyingKey, self.agreementKey, self.addresses))
    writer.write(bytes: self.signature.bytes)
    return writer.bytes
  }

  /// `-----BEGIN BLOCKTREE CREDENTIAL REQUEST-----`, for people to carry.
  package var pemRepresentation: String {
    PEMDocument(type: Self.discriminator, derBytes: self.bytes).pemString + "\n"
  }

  package init(pemRepresentation: String) throws(TrustError) {
    guard pemRepresentation.utf8.count <= 2 * Self.byteCountMax else { throw .tooLong }
    guard let document = try? PEMDocument(pemString: pemRepresentation), document.discriminator == Self.discriminator
    else { throw .malformed }
    try self.init(bytes: document.derBytes)
  }

  private static func signedBytes(
    _ verifyingKey: VerifyingKey, _ agreementKey: AgreementPublicKey, _ addresses: SignedAddresses?
  ) -> [UInt8] {
    var writer = CanonicalWriter(label: Self.signedLabel)
    writer.write(bytes: verifyingKey.x963Representation)
    writer.write(bytes: agreementKey.x963Representation)
    writer.write(addresses == nil ? 0 as UInt8 : 1)
    addresses?.write(to: &writer)
    return writer.bytes
  }

  private static let label = "blocktree/credential-request"
  private static let signedLabel = "blocktree/credential-request/signed"
  private static let discriminator = "BLOCKTREE CREDENTIAL REQUEST"
}
