// SPDX-License-Identifier: Apache-2.0

internal import SwiftASN1

/// Certificates as somebody presented them, in DER: the subject's own first, then its issuer's, and so on up to the
/// one that the root issued. It claims nothing: only `ChainVerifier` turns it into a `Credential`.
///
/// The root's own certificate may come last (TLS stacks differ), but what we store and show leaves it out.
package struct CertificateChain: Hashable, Sendable {
  package static let countMax = 16
  package static let byteCountMax = 64 * 1024

  package let certificates: [[UInt8]]

  package init(_ certificates: [[UInt8]]) throws(TrustError) {
    guard !certificates.isEmpty, !certificates.contains(where: \.isEmpty) else { throw .malformed }
    guard certificates.count <= Self.countMax,
      certificates.reduce(0, { $0 + $1.count }) <= Self.byteCountMax
    else { throw .tooLong }
    self.certificates = certificates
  }

  /// The root's certificate alone, by which `ChainVerifier.verifyAuthority` knows the root principal.
  package init(root: RootCertificate) {
    self.certificates = [root.der]
  }

  /// Names this very chain, for example in a cache or beside a stored record. It does not identify the principal: the
  /// signature in a certificate can be changed to another valid one by anybody.
  package var digest: Digest32 { Digest32(sha256: self.bytes) }

  /// Version, count, and the certificates, each with its length before it.
  package var bytes: [UInt8] {
    var writer = CanonicalWriter(label: Self.label)
    writer.write(count: self.certificates.count)
    for certificate in self.certificates { writer.write(bytes: certificate) }
    return writer.bytes
  }

  package init(bytes: [UInt8]) throws(TrustError) {
    var reader = try CanonicalReader(bytes, label: Self.label)
    var certificates: [[UInt8]] = []
    for _ in 0..<(try reader.count(max: Self.countMax)) {
      certificates.append(try reader.bytes(countMax: Self.byteCountMax))
    }
    try reader.finish()
    try self.init(certificates)
  }

  /// `CERTIFICATE` blocks, the subject's own first, as TLS stacks load them.
  package var pemRepresentation: String {
    self.certificates.map { PEMDocument(type: "CERTIFICATE", derBytes: $0).pemString + "\n" }.joined()
  }

  package init(pemRepresentation: String) throws(TrustError) {
    guard pemRepresentation.utf8.count <= 2 * Self.byteCountMax else { throw .tooLong }
    guard let documents = try? PEMDocument.parseMultiple(pemString: pemRepresentation),
      documents.allSatisfy({ $0.discriminator == "CERTIFICATE" })
    else { throw .malformed }
    try self.init(documents.map(\.derBytes))
  }

  private static let label = "blocktree/chain"
}
