// SPDX-License-Identifier: Apache-2.0

package import Crypto
internal import SwiftASN1

/// The private half of a principal's signing key: ECDSA with P-256, since every TLS stack takes it.
package struct SigningKey: Sendable {
  /// For the TLS stack; everything else goes through the methods of this type.
  package let key: P256.Signing.PrivateKey
  package let verifyingKey: VerifyingKey

  /// A new random key.
  package init() {
    self.init(P256.Signing.PrivateKey())
  }

  package init(_ key: P256.Signing.PrivateKey) {
    self.key = key
    self.verifyingKey = VerifyingKey(key.publicKey)
  }

  /// Takes PKCS#8 or SEC 1, DER.
  package init(derRepresentation: [UInt8]) throws(TrustError) {
    do {
      self.init(try P256.Signing.PrivateKey(derRepresentation: derRepresentation))
    } catch {
      throw .malformed
    }
  }

  /// PKCS#8, DER.
  package var derRepresentation: [UInt8] { Array(self.key.derRepresentation) }
  /// PKCS#8, `-----BEGIN PRIVATE KEY-----`.
  package var pemRepresentation: String { self.key.pemRepresentation }

  /// The raw signature, r and s of 32 bytes each, over the SHA-256 of `message`. Callers sign only messages that say
  /// what they are for; see `SigningPurpose`.
  func signature(over message: [UInt8]) throws(TrustError) -> [UInt8] {
    do {
      return Array(try self.key.signature(for: SHA256.hash(data: message)).rawRepresentation)
    } catch {
      throw .cryptographicFailure
    }
  }
}

/// The public half of a signing key. Equal when the keys are.
package struct VerifyingKey: Hashable, Sendable, CustomStringConvertible {
  package let key: P256.Signing.PublicKey
  /// The SHA-256 of the SubjectPublicKeyInfo in DER: what revocation and records name a key by.
  package let keyID: Digest32

  package init(_ key: P256.Signing.PublicKey) {
    self.key = key
    self.keyID = Digest32(sha256: Self.subjectPublicKeyInfo(of: key.x963Representation))
  }

  /// Takes an uncompressed point: 65 bytes that begin with 4.
  package init(x963Representation: [UInt8]) throws(TrustError) {
    do {
      self.init(try P256.Signing.PublicKey(x963Representation: x963Representation))
    } catch {
      throw .malformed
    }
  }

  /// Takes a SubjectPublicKeyInfo.
  package init(derRepresentation: [UInt8]) throws(TrustError) {
    do {
      self.init(try P256.Signing.PublicKey(derRepresentation: derRepresentation))
    } catch {
      throw .malformed
    }
  }

  package var x963Representation: [UInt8] { Array(self.key.x963Representation) }
  /// SubjectPublicKeyInfo, DER.
  package var derRepresentation: [UInt8] { Self.subjectPublicKeyInfo(of: self.key.x963Representation) }
  package var description: String { self.keyID.description }

  package static func == (left: Self, right: Self) -> Bool { left.keyID == right.keyID }
  package func hash(into hasher: inout Hasher) { hasher.combine(self.keyID) }

  func isValid(signature: [UInt8], over message: [UInt8]) -> Bool {
    guard let signature = try? P256.Signing.ECDSASignature(rawRepresentation: signature) else { return false }
    return self.key.isValidSignature(signature, for: SHA256.hash(data: message))
  }

  // RFC 5480, 2: for an uncompressed P-256 point all that comes before the point is constant.
  private static func subjectPublicKeyInfo(of point: some Sequence<UInt8>) -> [UInt8] {
    [
      0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
      0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ] + point
  }
}

/// The private half of a principal's key-agreement key: P-256, for HPKE.
package struct AgreementKey: Sendable {
  package let key: P256.KeyAgreement.PrivateKey
  package let publicKey: AgreementPublicKey

  /// A new random key.
  package init() {
    self.init(P256.KeyAgreement.PrivateKey())
  }

  package init(_ key: P256.KeyAgreement.PrivateKey) {
    self.key = key
    self.publicKey = AgreementPublicKey(key.publicKey)
  }

  /// Takes PKCS#8 or SEC 1, DER.
  package init(derRepresentation: [UInt8]) throws(TrustError) {
    do {
      self.init(try P256.KeyAgreement.PrivateKey(derRepresentation: derRepresentation))
    } catch {
      throw .malformed
    }
  }

  package var derRepresentation: [UInt8] { Array(self.key.derRepresentation) }
}

/// The public half of a key-agreement key.
package struct AgreementPublicKey: Hashable, Sendable {
  package let key: P256.KeyAgreement.PublicKey
  /// The uncompressed point: 65 bytes that begin with 4.
  package let x963Representation: [UInt8]

  package init(_ key: P256.KeyAgreement.PublicKey) {
    self.key = key
    self.x963Representation = Array(key.x963Representation)
  }

  package init(x963Representation: [UInt8]) throws(TrustError) {
    do {
      self.init(try P256.KeyAgreement.PublicKey(x963Representation: x963Representation))
    } catch {
      throw .malformed
    }
  }

  package static func == (left: Self, right: Self) -> Bool { left.x963Representation == right.x963Representation }
  package func hash(into hasher: inout Hasher) { hasher.combine(self.x963Representation) }
}

/// The private keys of one principal, as they stand in its key file.
package struct PrincipalKeys: Sendable {
  package let signing: SigningKey
  package let agreement: AgreementKey

  /// New random keys.
  package init() {
    self.init(signing: SigningKey(), agreement: AgreementKey())
  }

  package init(signing: SigningKey, agreement: AgreementKey) {
    self.signing = signing
    self.agreement = agreement
  }

  static let agreementDiscriminator = "BLOCKTREE AGREEMENT PRIVATE KEY"

  /// Two PEM blocks. The first is an ordinary `PRIVATE KEY`, so other TLS stacks can load the file as it is.
  package var pemRepresentation: String {
    let agreement = PEMDocument(type: Self.agreementDiscriminator, derBytes: self.agreement.derRepresentation)
    return self.signing.pemRepresentation + "\n" + agreement.pemString + "\n"
  }

  package init(pemRepresentation: String) throws(TrustError) {
    guard let documents = try? PEMDocument.parseMultiple(pemString: pemRepresentation), documents.count == 2,
      documents[0].discriminator == "PRIVATE KEY", documents[1].discriminator == Self.agreementDiscriminator
    else { throw .malformed }
    self.signing = try SigningKey(derRepresentation: documents[0].derBytes)
    self.agreement = try AgreementKey(derRepresentation: documents[1].derBytes)
  }
}
