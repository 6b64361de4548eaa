// SPDX-License-Identifier: Apache-2.0

internal import SwiftASN1

/// A domain's root: the self-signed certificate of the root principal, and the domain that its key defines.
///
/// Only the key matters to us. A root certificate that was issued again for the same key, with other bytes, is the same
/// root, and its own validity does not end the domain; for ordinary TLS stacks it is made without an end.
package struct RootCertificate: Hashable, Sendable {
  package let der: [UInt8]
  package let domain: DomainID
  package let verifyingKey: VerifyingKey

  package init(der: [UInt8]) throws(TrustError) {
    guard der.count <= CertificateChain.byteCountMax else { throw .tooLong }
    let certificate = try ParsedCertificate(der: der, domain: nil)
    guard case .authority = certificate.role else { throw .notAuthority }
    guard certificate.place.path.isRoot else { throw .wrongPath }
    try certificate.requireIssued(by: certificate.key)
    self.der = der
    self.verifyingKey = certificate.key
    self.domain = certificate.place.domain
  }

  package init(pemRepresentation: String) throws(TrustError) {
    let chain = try CertificateChain(pemRepresentation: pemRepresentation)
    guard chain.certificates.count == 1 else { throw .malformed }
    try self.init(der: chain.certificates[0])
  }

  package var pemRepresentation: String {
    PEMDocument(type: "CERTIFICATE", derBytes: self.der).pemString + "\n"
  }
}
