// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials

/// Who somebody is: the result of a verified certificate chain. Nothing but `ChainVerifier` makes one, so code that
/// takes a `Credential` needs no further proof of identity.
package struct Credential: Hashable, Sendable {
  /// A process both serves and calls; a user, a person or a program, only calls.
  package enum Kind: String, Hashable, Sendable, CaseIterable {
    case process
    case user
  }

  package let domain: DomainID
  package let path: TreePath
  package let kind: Kind
  package let verifyingKey: VerifyingKey
  /// The verified chain, without the root's certificate.
  package let chain: CertificateChain
  /// When all certificates of the chain are valid together.
  package let validity: Validity
  /// The directory of the authority that issued this credential.
  package let issuerPath: TreePath
  package let issuerKey: VerifyingKey
  /// The keys of all authorities from the issuer to the root, for revocation.
  package let authorityKeyIDs: [Digest32]

  /// Revocation goes by this, never by certificate bytes.
  package var keyID: Digest32 { self.verifyingKey.keyID }
  package var chainDigest: Digest32 { self.chain.digest }
  package var domainPath: DomainPath { DomainPath(domain: self.domain, path: self.path) }
  package var notAfter: Date { self.validity.notAfter }
  /// The directory in which the credential file lies. A credential is never the root itself.
  package var directory: TreePath { self.path.parent ?? .root }

  /// Throws `wrongPath` unless this is the principal at `path`: for connections to a known process.
  package func require(path: TreePath) throws(TrustError) {
    guard self.path == path else { throw .wrongPath }
  }

  fileprivate init(_ subject: ParsedCertificate, kind: Kind, issuers: ChainVerifier.Issuers, chain: CertificateChain) {
    self.domain = subject.place.domain
    self.path = subject.place.path
    self.kind = kind
    self.verifyingKey = subject.key
    self.chain = chain
    self.validity = issuers.validity.map { $0.intersection(subject.validity) } ?? subject.validity
    self.issuerPath = issuers.path
    self.issuerKey = issuers.key
    self.authorityKeyIDs = issuers.keyIDs
  }
}

/// A verified authority for a directory: it may certify, and sign what only somebody above may sign. Only
/// `ChainVerifier` makes one.
package struct VerifiedAuthority: Hashable, Sendable {
  package let domain: DomainID
  package let path: TreePath
  package let verifyingKey: VerifyingKey
  /// The chain, without the root's certificate; nil when this is the root principal itself.
  package let chain: CertificateChain?
  /// When all certificates are valid together; nil for the root principal.
  package let validity: Validity?
  /// Its own key and those of all authorities above, the root's last.
  package let keyIDs: [Digest32]

  fileprivate init(domain: DomainID, issuers: ChainVerifier.Issuers, chain: CertificateChain?) {
    self.domain = domain
    self.path = issuers.path
    self.verifyingKey = issuers.key
    self.chain = chain
    self.validity = issuers.validity
    self.keyIDs = issuers.keyIDs
  }
}

/// Decides whether a chain of certificates leads to the root of one domain, by rules of our own instead of those of a
/// general X.509 library: there is one path, one algorithm, and names are places in a tree.
///
/// From the root downwards, each certificate must be signed by the one before it, which must be an authority for the
/// same directory or one above (strictly above, for a credential), be within its validity, name the domain, and follow
/// our profile in every part. A chain that fails is refused for one reason, never accepted as something less.
package struct ChainVerifier: Sendable {
  package let root: RootCertificate

  package init(root: RootCertificate) {
    self.root = root
  }

  package var domain: DomainID { self.root.domain }

  /// The identity that the chain proves at `time`.
  package func verify(_ chain: CertificateChain, at time: Date) throws(TrustError) -> Credential {
    let (chain, certificates) = try self.parse(chain)
    guard let chain, let subject = certificates.first, case .credential(let kind) = subject.role
    else { throw .notCredential }
    let issuers = try self.descend(certificates.dropFirst(), at: time)
    guard issuers.path.isAncestor(of: subject.place.path) else { throw .pathNotCovered }
    try subject.requireIssued(by: issuers.key)
    try subject.validity.require(time)
    return Credential(subject, kind: kind, issuers: issuers, chain: chain)
  }

  /// As above, and it must be the principal at `path`.
  package func verify(
    _ chain: CertificateChain, at time: Date, expecting path: TreePath
  ) throws(TrustError) -> Credential {
    let credential = try self.verify(chain, at: time)
    try credential.require(path: path)
    return credential
  }

  /// The authority that the chain proves at `time`. The root's certificate alone proves the root principal.
  package func verifyAuthority(_ chain: CertificateChain, at time: Date) throws(TrustError) -> VerifiedAuthority {
    let (chain, certificates) = try self.parse(chain)
    return VerifiedAuthority(domain: self.domain, issuers: try self.descend(certificates[...], at: time), chain: chain)
  }

  /// The root principal as an authority.
  package var rootAuthority: VerifiedAuthority {
    VerifiedAuthority(domain: self.domain, issuers: Issuers(root: self.root), chain: nil)
  }

  /// The authorities above a certificate, as far as they have been verified.
  struct Issuers {
    var path: TreePath
    var key: VerifyingKey
    var keyIDs: [Digest32]
    var validity: Validity?
    /// How many more authorities may follow.
    var pathLengthMax: Int?

    init(root: RootCertificate) {
      self.path = .root
      self.key = root.verifyingKey
      self.keyIDs = [root.verifyingKey.keyID]
    }
  }

  /// Parses all certificates, and leaves out the root's where it is there: the key in our hands is what counts.
  private func parse(
    _ chain: CertificateChain
  ) throws(TrustError) -> (chain: CertificateChain?, certificates: [ParsedCertificate]) {
    var ders = chain.certificates
    var certificates: [ParsedCertificate] = []
    for der in ders {
      certificates.append(try ParsedCertificate(der: der, domain: self.domain))
    }
    if let last = certificates.last, last.key == self.root.verifyingKey {
      guard case .authority = last.role, last.place.path.isRoot else { throw .notAuthority }
      try last.requireIssued(by: last.key)
      ders.removeLast()
      certificates.removeLast()
    }
    return (ders.isEmpty ? nil : try CertificateChain(ders), certificates)
  }

  /// Walks authorities, which stand lowest first, from the root down.
  private func descend(_ authorities: ArraySlice<ParsedCertificate>, at time: Date) throws(TrustError) -> Issuers {
    var issuers = Issuers(root: self.root)
    for authority in authorities.reversed() {
      guard case .authority(let pathLengthMax) = authority.role else { throw .notAuthority }
      guard issuers.path.isSameOrAncestor(of: authority.place.path) else { throw .pathNotCovered }
      try authority.requireIssued(by: issuers.key)
      try authority.validity.require(time)
      if let left = issuers.pathLengthMax {
        guard left > 0 else { throw .tooLong }
        issuers.pathLengthMax = left - 1
      }
      if let pathLengthMax { issuers.pathLengthMax = min(pathLengthMax, issuers.pathLengthMax ?? pathLengthMax) }
      issuers.path = authority.place.path
      issuers.key = authority.key
      issuers.keyIDs.insert(authority.key.keyID, at: 0)
      issuers.validity = issuers.validity.map { $0.intersection(authority.validity) } ?? authority.validity
    }
    return issuers
  }
}
