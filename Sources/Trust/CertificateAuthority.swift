// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials

/// A key that may certify for one directory: the root principal, or an authority that it or another one made. It
/// issues for paths below its own and for nothing else.
package struct CertificateAuthority: Sendable {
  package let root: RootCertificate
  package let path: TreePath
  package let key: SigningKey
  /// From this authority's own certificate up, without the root's; nil when this is the root principal itself.
  package let chain: CertificateChain?

  /// A new domain: the root principal and its self-signed certificate.
  package init(newRoot key: SigningKey, at now: Date) throws(TrustError) {
    let place = DomainPath(domain: DomainID(rootKey: key.verifyingKey), path: .root)
    let der = try CertificateProfile.make(
      .authority(pathLengthMax: nil), place: place, key: key.verifyingKey, issuer: key,
      validity: Validity(unlimitedFrom: now))
    try self.init(rootKey: key, root: RootCertificate(der: der))
  }

  /// The root principal of an existing domain.
  package init(rootKey key: SigningKey, root: RootCertificate) throws(TrustError) {
    guard key.verifyingKey == root.verifyingKey else { throw .wrongKey }
    self.root = root
    self.path = .root
    self.key = key
    self.chain = nil
  }

  /// An authority from its key and chain, which must hold at `time`.
  package init(key: SigningKey, chain: CertificateChain, root: RootCertificate, at time: Date) throws(TrustError) {
    let verified = try ChainVerifier(root: root).verifyAuthority(chain, at: time)
    guard verified.verifyingKey == key.verifyingKey else { throw .wrongKey }
    self.root = root
    self.path = verified.path
    self.key = key
    self.chain = verified.chain
  }

  package var domain: DomainID { self.root.domain }

  /// What others verify this authority by: its chain, or the root's certificate for the root principal.
  package var presentedChain: CertificateChain { self.chain ?? CertificateChain(root: self.root) }

  /// Makes the holder of `subjectKey` an authority for `path`, which is this one's directory or below it and at most
  /// `DomainPath.authorityDepthMax` deep.
  package func issueAuthority(
    for path: TreePath, key subjectKey: VerifyingKey, validity: Validity
  ) throws(TrustError) -> CertificateChain {
    guard self.path.isSameOrAncestor(of: path) else { throw .pathNotCovered }
    guard path.depth <= DomainPath.authorityDepthMax else { throw .authorityTooDeep }
    return try self.issue(.authority(pathLengthMax: nil), path: path, key: subjectKey, validity: validity)
  }

  /// Makes the holder of `subjectKey` the process or user at `path`, which is below this authority's directory.
  package func issueCredential(
    _ kind: Credential.Kind, at path: TreePath, key subjectKey: VerifyingKey, validity: Validity
  ) throws(TrustError) -> CertificateChain {
    guard self.path.isAncestor(of: path) else { throw .pathNotCovered }
    return try self.issue(.credential(kind), path: path, key: subjectKey, validity: validity)
  }

  private func issue(
    _ role: CertificateProfile.Role, path: TreePath, key subjectKey: VerifyingKey, validity: Validity
  ) throws(TrustError) -> CertificateChain {
    let der = try CertificateProfile.make(
      role, place: DomainPath(domain: self.domain, path: path), key: subjectKey, issuer: self.key, validity: validity)
    return try CertificateChain([der] + (self.chain?.certificates ?? []))
  }
}
