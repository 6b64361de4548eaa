// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials

extension ChainVerifier {
  /// The identity that the chain proved when it was new: at the first moment at which all of its certificates held.
  ///
  /// For signatures that were judged when they were made, and stay good when the signer's certificates have expired.
  /// Never for somebody who asks for something now.
  package func verifyAtIssue(_ chain: CertificateChain) throws(TrustError) -> Credential {
    try self.verify(chain, at: try self.firstMoment(of: chain))
  }

  /// The first moment at which all certificates of a chain held.
  fileprivate func firstMoment(of chain: CertificateChain) throws(TrustError) -> Date {
    var first = Date(timeIntervalSince1970: 0)
    for der in chain.certificates {
      first = max(first, try ParsedCertificate(der: der, domain: self.domain).validity.notBefore)
    }
    return first
  }
}

extension CredentialFile {
  /// What the file proved when it was new; see ``ChainVerifier/verifyAtIssue(_:)``.
  package func verifyAtIssue(with verifier: ChainVerifier) throws(TrustError) -> VerifiedCredentialFile {
    var first = try verifier.firstMoment(of: self.chain)
    if let marksSigner { first = max(first, try verifier.firstMoment(of: marksSigner)) }
    return try self.verify(with: verifier, at: first)
  }
}
