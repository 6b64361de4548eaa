// SPDX-License-Identifier: Apache-2.0

internal import Crypto
internal import SwiftASN1
internal import X509

extension CertificateChain {
  /// The key that the leaf certifies. Neither the chain nor its time is judged here: this is for chains that were
  /// accepted before, which stay readable whatever became of their signers.
  package func leafKey() throws(TrustError) -> VerifyingKey {
    guard let leaf = self.certificates.first else { throw .malformed }
    let certificate: Certificate
    do { certificate = try Certificate(derEncoded: leaf) } catch { throw .malformed }
    guard let key = P256.Signing.PublicKey(certificate.publicKey) else { throw .unsupportedAlgorithm }
    return VerifyingKey(key)
  }
}
