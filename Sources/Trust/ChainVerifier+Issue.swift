// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials

extension ChainVerifier {
  /// The identity that the chain proved when it was new: at the first moment at which all of its certificates held.
  ///
  /// For signatures that were judged when they were made, and stay good when the signer's certificates have expired.
  /// Never for somebody who asks for something now.
  package func verifyAtIssue(_ chain: CertificateChain) throws(TrustError) -> Credential {
    var first = Date(timeIntervalSince1970: 0)
    for der in chain.certificates {
      first = max(first, try ParsedCertificate(der: der, domain: self.domain).validity.notBefore)
    }
    return try self.verify(chain, at: first)
  }
}
