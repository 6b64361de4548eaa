// SPDX-License-Identifier: Apache-2.0

internal import Crypto
internal import FoundationEssentials
internal import SwiftASN1
internal import X509

/// What stands in our certificates: the one place that both makes and checks them.
///
/// Every certificate names its place twice: by URI, which our own verifier follows, and by a DNS name for ordinary TLS
/// stacks. An authority carries the critical constraint that DNS names below it end in its own and that it certifies
/// no IP addresses at all, so that these stacks refuse names of sibling directories as we do. There is no constraint on
/// URIs: the few stacks that look at them would need hosts that are DNS names, and ours is the domain for all.
///
/// Subject and issuer are functions of the keys. A certificate that was issued again, with other bytes or another
/// life, takes the place of the old one, while another key is another name.
enum CertificateProfile {
  /// Whom a certificate is for.
  enum Role: Hashable {
    /// May issue for its directory and below. The length bounds how many more authorities may follow.
    case authority(pathLengthMax: Int?)
    case credential(Credential.Kind)
  }

  static func make(
    _ role: Role, place: DomainPath, key: VerifyingKey, issuer: SigningKey, validity: Validity
  ) throws(TrustError) -> [UInt8] {
    do {
      let certificate = try Certificate(
        version: .v3,
        serialNumber: Certificate.SerialNumber(),
        publicKey: Certificate.PublicKey(key.key),
        notValidBefore: validity.notBefore,
        notValidAfter: validity.notAfter,
        issuer: self.name(of: issuer.verifyingKey),
        subject: self.name(of: key),
        signatureAlgorithm: .ecdsaWithSHA256,
        extensions: self.extensions(role, place: place, key: key, issuer: issuer.verifyingKey),
        issuerPrivateKey: Certificate.PrivateKey(issuer.key))
      var serializer = DER.Serializer()
      try serializer.serialize(certificate)
      return serializer.serializedBytes
    } catch {
      throw .cryptographicFailure
    }
  }

  static func name(of key: VerifyingKey) throws -> DistinguishedName {
    // 52 characters without a dot: nothing that a TLS stack could take for a host name.
    try DistinguishedName {
      OrganizationName("Blocktree")
      CommonName(Base32.encode(key.keyID.bytes))
    }
  }

  private static func extensions(
    _ role: Role, place: DomainPath, key: VerifyingKey, issuer: VerifyingKey
  ) throws -> Certificate.Extensions {
    var extensions = Certificate.Extensions()
    switch role {
    case .authority(let pathLengthMax):
      try extensions.append(
        Certificate.Extension(BasicConstraints.isCertificateAuthority(maxPathLength: pathLengthMax), critical: true))
      try extensions.append(Certificate.Extension(KeyUsage(keyCertSign: true), critical: true))
      try extensions.append(self.constraints(place))
    case .credential(let kind):
      try extensions.append(Certificate.Extension(BasicConstraints.notCertificateAuthority, critical: true))
      try extensions.append(Certificate.Extension(KeyUsage(digitalSignature: true), critical: true))
      try extensions.append(Certificate.Extension(ExtendedKeyUsage(self.usages(kind)), critical: false))
    }
    let names: [GeneralName] = [.uniformResourceIdentifier(place.uri), .dnsName(place.dnsName)]
    try extensions.append(Certificate.Extension(SubjectAlternativeNames(names), critical: false))
    try extensions.append(
      Certificate.Extension(SubjectKeyIdentifier(keyIdentifier: self.keyIdentifier(key)), critical: false))
    try extensions.append(
      Certificate.Extension(AuthorityKeyIdentifier(keyIdentifier: self.keyIdentifier(issuer)), critical: false))
    return extensions
  }

  static func constraints(_ place: DomainPath) throws -> Certificate.Extension {
    let everyIPv4Address = ASN1OctetString(contentBytes: ArraySlice(repeating: 0, count: 8))
    let everyIPv6Address = ASN1OctetString(contentBytes: ArraySlice(repeating: 0, count: 32))
    return try Certificate.Extension(
      NameConstraints(
        permittedSubtrees: [.dnsName(place.dnsName)],
        excludedSubtrees: [.ipAddress(everyIPv4Address), .ipAddress(everyIPv6Address)]),
      critical: true)
  }

  private static func usages(_ kind: Credential.Kind) -> [ExtendedKeyUsage.Usage] {
    switch kind {
    case .process: [.serverAuth, .clientAuth]
    case .user: [.clientAuth]
    }
  }

  private static func keyIdentifier(_ key: VerifyingKey) -> ArraySlice<UInt8> {
    key.keyID.bytes.prefix(20)
  }
}

/// One certificate that follows our profile in itself. Nothing is said yet about who signed it.
struct ParsedCertificate {
  let place: DomainPath
  let role: CertificateProfile.Role
  let key: VerifyingKey
  let validity: Validity
  private let certificate: Certificate

  /// Throws `foreignDomain` unless the certificate names `domain`; without one, the domain of its own key, as the
  /// root's certificate does.
  init(der: [UInt8], domain: DomainID?) throws(TrustError) {
    guard let certificate = try? Certificate(derEncoded: der), Self.hasWholeSignature(der) else { throw .malformed }
    guard certificate.version == .v3 else { throw .malformed }
    guard certificate.signatureAlgorithm == .ecdsaWithSHA256,
      let publicKey = P256.Signing.PublicKey(certificate.publicKey)
    else { throw .unsupportedAlgorithm }
    self.certificate = certificate
    self.key = VerifyingKey(publicKey)
    self.validity = Validity(notBefore: certificate.notValidBefore, notAfter: certificate.notValidAfter)
    self.place = try Self.place(in: certificate, domain: domain ?? DomainID(rootKey: self.key))
    self.role = try Self.role(of: certificate, place: self.place)
    guard certificate.subject == (try? CertificateProfile.name(of: self.key)) else { throw .wrongName }
  }

  /// Whether `issuer` signed this certificate and is the one that it names.
  func requireIssued(by issuer: VerifyingKey) throws(TrustError) {
    guard self.certificate.issuer == (try? CertificateProfile.name(of: issuer)) else { throw .wrongName }
    let key = Certificate.PublicKey(issuer.key)
    guard key.isValidSignature(self.certificate.signature, for: self.certificate) else { throw .badSignature }
  }

  private static func place(in certificate: Certificate, domain: DomainID) throws(TrustError) -> DomainPath {
    guard let names = try? certificate.extensions.subjectAlternativeNames else { throw .malformed }
    // Exactly one of each and nothing else: a second name would be one that nobody checked.
    guard names.count == 2, case .uniformResourceIdentifier(let uri)? = names.first,
      case .dnsName(let dnsName)? = names.last
    else { throw .malformed }
    guard let place = try? DomainPath(canonical: uri) else { throw .malformed }
    guard place.domain == domain else { throw .foreignDomain }
    guard dnsName.utf8.elementsEqual(place.dnsName.utf8) else { throw .wrongName }
    return place
  }

  private static func role(
    of certificate: Certificate, place: DomainPath
  ) throws(TrustError) -> CertificateProfile.Role {
    let extensions = certificate.extensions
    let known: [ASN1ObjectIdentifier] = [
      .X509ExtensionID.basicConstraints, .X509ExtensionID.keyUsage, .X509ExtensionID.extendedKeyUsage,
      .X509ExtensionID.nameConstraints, .X509ExtensionID.subjectAlternativeName,
    ]
    for item in extensions where item.critical && !known.contains(item.oid) { throw .unknownCriticalExtension }
    guard let constraints = try? extensions.basicConstraints, let usage = try? extensions.keyUsage else {
      throw .malformed
    }
    switch constraints {
    case .isCertificateAuthority(let pathLengthMax):
      guard usage.keyCertSign else { throw .notAuthority }
      guard place.path.depth <= DomainPath.authorityDepthMax else { throw .authorityTooDeep }
      guard let expected = try? CertificateProfile.constraints(place),
        extensions[oid: .X509ExtensionID.nameConstraints] == expected
      else { throw .wrongName }
      return .authority(pathLengthMax: pathLengthMax)
    case .notCertificateAuthority:
      guard usage.digitalSignature, !usage.keyCertSign, let purposes = try? extensions.extendedKeyUsage
      else { throw .notCredential }
      let isServer = purposes.contains(.serverAuth)
      guard purposes.contains(.clientAuth), purposes.count == (isServer ? 2 : 1) else { throw .notCredential }
      return .credential(isServer ? .process : .user)
    }
  }

  /// Whether the signature's BIT STRING says that all of its bits count (X.690, 8.6.2.2). The parser takes others too, so
  /// that one certificate could be written in several ways; OpenSSL refuses them.
  private static func hasWholeSignature(_ der: [UInt8]) -> Bool {
    guard let root = try? DER.parse(der), case .constructed(let parts) = root.content else { return false }
    let list = Array(parts)
    guard list.count == 3, let signature = try? ASN1BitString(derEncoded: list[2]) else { return false }
    return signature.paddingBits == 0
  }
}
