// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials

/// The part of a credential file that an authority signs: which key is at which path, how to seal things to it, and
/// which services it may host.
package struct CredentialMarks: Hashable, Sendable {
  package let place: DomainPath
  /// Of the signing key that the certificate binds to the path.
  package let keyID: Digest32
  package let agreementKey: AgreementPublicKey
  /// In ascending order, each once.
  package let services: [Service]
  /// Grows with each new version; of two, the one with the higher number counts.
  package let serial: UInt64
  /// Since 1970, for people to read. Order is by serial.
  package let issuedAtMilliseconds: UInt64

  package init(
    place: DomainPath, keyID: Digest32, agreementKey: AgreementPublicKey, services: some Sequence<Service>,
    serial: UInt64, issuedAtMilliseconds: UInt64
  ) throws(TrustError) {
    self.place = place
    self.keyID = keyID
    self.agreementKey = agreementKey
    self.services = Set(services).sorted()
    guard self.services.count <= Service.countMax else { throw .tooLong }
    self.serial = serial
    self.issuedAtMilliseconds = issuedAtMilliseconds
  }

  /// `CanonicalWriter`'s encoding, version 1, of: place (URI), key id, agreement key, services, serial, time.
  package var signedBytes: [UInt8] {
    var writer = CanonicalWriter(label: Self.label)
    writer.write(self.place.uri)
    writer.write(self.keyID)
    writer.write(bytes: self.agreementKey.x963Representation)
    writer.write(count: self.services.count)
    for service in self.services { writer.write(service.name) }
    writer.write(self.serial)
    writer.write(self.issuedAtMilliseconds)
    return writer.bytes
  }

  init(signedBytes: [UInt8]) throws(TrustError) {
    var reader = try CanonicalReader(signedBytes, label: Self.label)
    guard let place = try? DomainPath(canonical: try reader.text(byteCountMax: 3 * TreePath.byteCountMax + 64))
    else { throw .malformed }
    let keyID = try reader.digest()
    let agreementKey = try AgreementPublicKey(x963Representation: reader.bytes(countMax: 65))
    var services: [Service] = []
    for _ in 0..<(try reader.count(max: Service.countMax)) {
      services.append(try Service(reader.text(byteCountMax: Service.byteCountMax)))
    }
    let serial: UInt64 = try reader.integer()
    let issuedAt: UInt64 = try reader.integer()
    try reader.finish()
    try self.init(
      place: place, keyID: keyID, agreementKey: agreementKey, services: services, serial: serial,
      issuedAtMilliseconds: issuedAt)
    // One set of services has one encoding.
    guard self.services == services else { throw .malformed }
  }

  private static let label = "blocktree/credential-marks"
}

/// The part of a credential file that the process itself signs: where it can be reached.
package struct CredentialAddresses: Hashable, Sendable {
  /// Of the signing key. There is no path here, as a process does not know its path before it has a certificate.
  package let keyID: Digest32
  /// In the order in which they should be tried.
  package let addresses: [NetworkAddress]
  /// Grows with each new version; of two, the one with the higher number counts.
  package let serial: UInt64
  /// Since 1970, for people to read. Order is by serial.
  package let issuedAtMilliseconds: UInt64

  package init(
    keyID: Digest32, addresses: [NetworkAddress], serial: UInt64, issuedAtMilliseconds: UInt64
  ) throws(TrustError) {
    guard addresses.count <= NetworkAddress.countMax else { throw .tooLong }
    self.keyID = keyID
    self.addresses = addresses
    self.serial = serial
    self.issuedAtMilliseconds = issuedAtMilliseconds
  }

  /// `CanonicalWriter`'s encoding, version 1, of: key id, addresses, serial, time.
  package var signedBytes: [UInt8] {
    var writer = CanonicalWriter(label: Self.label)
    writer.write(self.keyID)
    writer.write(count: self.addresses.count)
    for address in self.addresses { writer.write(address.description) }
    writer.write(self.serial)
    writer.write(self.issuedAtMilliseconds)
    return writer.bytes
  }

  init(signedBytes: [UInt8]) throws(TrustError) {
    var reader = try CanonicalReader(signedBytes, label: Self.label)
    let keyID = try reader.digest()
    var addresses: [NetworkAddress] = []
    for _ in 0..<(try reader.count(max: NetworkAddress.countMax)) {
      addresses.append(try NetworkAddress(parsing: reader.text(byteCountMax: NetworkAddress.byteCountMax)))
    }
    let serial: UInt64 = try reader.integer()
    let issuedAt: UInt64 = try reader.integer()
    try reader.finish()
    try self.init(keyID: keyID, addresses: addresses, serial: serial, issuedAtMilliseconds: issuedAt)
  }

  private static let label = "blocktree/credential-addresses"

  /// Signs these addresses with the process's own key.
  package func signed(with key: SigningKey) throws(TrustError) -> SignedAddresses {
    guard key.verifyingKey.keyID == self.keyID else { throw .wrongKey }
    let signature = try key.sign(Digest32(sha256: self.signedBytes), purpose: .credentialAddresses)
    return SignedAddresses(addresses: self, signature: signature)
  }
}

/// Addresses with their signature, which nobody has verified yet.
package struct SignedAddresses: Hashable, Sendable {
  package let addresses: CredentialAddresses
  package let signature: BatchSignature

  package init(addresses: CredentialAddresses, signature: BatchSignature) {
    self.addresses = addresses
    self.signature = signature
  }

  /// The addresses, if the holder of `key` signed them.
  package func verify(_ key: VerifyingKey) throws(TrustError) -> CredentialAddresses {
    guard self.addresses.keyID == key.keyID else { throw .wrongKey }
    let digest = Digest32(sha256: self.addresses.signedBytes)
    guard self.signature.verify(digest: digest, purpose: .credentialAddresses, key: key, cache: nil)
    else { throw .badSignature }
    return self.addresses
  }

  func write(to writer: inout CanonicalWriter) {
    writer.write(bytes: self.addresses.signedBytes)
    writer.write(bytes: self.signature.bytes)
  }

  init(from reader: inout CanonicalReader) throws(TrustError) {
    self.addresses = try CredentialAddresses(signedBytes: reader.bytes(countMax: CredentialFile.partByteCountMax))
    self.signature = try BatchSignature(bytes: reader.bytes(countMax: BatchSignature.byteCountMax))
  }
}

/// What lies in the tree at a principal's path and makes it one: certificate chain, key-agreement key, services,
/// addresses. Signed in two parts, since an authority decides what a process may be, while the process itself knows best
/// where it is. Nothing in it is secret, and nothing is believed before `verify`.
package struct CredentialFile: Hashable, Sendable {
  package static let byteCountMax = 3 * CertificateChain.byteCountMax
  static let partByteCountMax = 32 * 1024

  /// The principal's own certificates.
  package let chain: CertificateChain
  package let marks: CredentialMarks
  package let marksSignature: BatchSignature
  /// The chain of the authority that signed the marks; nil when it is the one that issued the credential.
  package let marksSigner: CertificateChain?
  /// Nil until the process has said where it is, and for users.
  package let addresses: SignedAddresses?

  package init(
    chain: CertificateChain, marks: CredentialMarks, marksSignature: BatchSignature, marksSigner: CertificateChain?,
    addresses: SignedAddresses?
  ) {
    self.chain = chain
    self.marks = marks
    self.marksSignature = marksSignature
    self.marksSigner = marksSigner
    self.addresses = addresses
  }

  /// The same file with newer addresses.
  package func replacing(addresses: SignedAddresses?) -> CredentialFile {
    CredentialFile(
      chain: self.chain, marks: self.marks, marksSignature: self.marksSignature, marksSigner: self.marksSigner,
      addresses: addresses)
  }

  /// Verifies everything: the chain leads to the root, the marks are for this very key and path and signed by an
  /// authority above it, and the addresses are signed by the principal.
  package func verify(with verifier: ChainVerifier, at time: Date) throws(TrustError) -> VerifiedCredentialFile {
    let credential = try verifier.verify(self.chain, at: time)
    guard self.marks.place.domain == credential.domain else { throw .foreignDomain }
    guard self.marks.place.path == credential.path else { throw .wrongPath }
    guard self.marks.keyID == credential.keyID else { throw .wrongKey }
    let signer: VerifyingKey
    if let marksSigner {
      let authority = try verifier.verifyAuthority(marksSigner, at: time)
      guard authority.path.isAncestor(of: credential.path) else { throw .pathNotCovered }
      signer = authority.verifyingKey
    } else {
      signer = credential.issuerKey
    }
    let digest = Digest32(sha256: self.marks.signedBytes)
    guard self.marksSignature.verify(digest: digest, purpose: .credentialMarks, key: signer, cache: nil)
    else { throw .badSignature }
    let addresses = try self.addresses?.verify(credential.verifyingKey)
    return VerifiedCredentialFile(credential: credential, marks: self.marks, addressesPart: addresses)
  }

  /// `CanonicalWriter`'s encoding, version 1, of: chain, marks, their signature, whether a signer's chain follows and
  /// that, whether addresses follow and these with their signature.
  package var bytes: [UInt8] {
    var writer = CanonicalWriter(label: Self.label)
    writer.write(bytes: self.chain.bytes)
    writer.write(bytes: self.marks.signedBytes)
    writer.write(bytes: self.marksSignature.bytes)
    writer.write(self.marksSigner == nil ? 0 as UInt8 : 1)
    if let marksSigner { writer.write(bytes: marksSigner.bytes) }
    writer.write(self.addresses == nil ? 0 as UInt8 : 1)
    self.addresses?.write(to: &writer)
    return writer.bytes
  }

  package init(bytes: [UInt8]) throws(TrustError) {
    guard bytes.count <= Self.byteCountMax else { throw .tooLong }
    var reader = try CanonicalReader(bytes, label: Self.label)
    self.chain = try CertificateChain(bytes: reader.bytes(countMax: 2 * CertificateChain.byteCountMax))
    self.marks = try CredentialMarks(signedBytes: reader.bytes(countMax: Self.partByteCountMax))
    self.marksSignature = try BatchSignature(bytes: reader.bytes(countMax: BatchSignature.byteCountMax))
    if try reader.flag() {
      self.marksSigner = try CertificateChain(bytes: reader.bytes(countMax: 2 * CertificateChain.byteCountMax))
    } else {
      self.marksSigner = nil
    }
    self.addresses = try reader.flag() ? SignedAddresses(from: &reader) : nil
    try reader.finish()
  }

  private static let label = "blocktree/credential-file"
}

/// What a credential file says, verified. Nothing but `CredentialFile.verify` makes one.
package struct VerifiedCredentialFile: Hashable, Sendable {
  package let credential: Credential
  package let marks: CredentialMarks
  package let addressesPart: CredentialAddresses?

  fileprivate init(credential: Credential, marks: CredentialMarks, addressesPart: CredentialAddresses?) {
    self.credential = credential
    self.marks = marks
    self.addressesPart = addressesPart
  }

  package var agreementKey: AgreementPublicKey { self.marks.agreementKey }
  /// A user hosts nothing, whatever its marks say.
  package var services: [Service] { self.credential.kind == .process ? self.marks.services : [] }
  package var addresses: [NetworkAddress] { self.addressesPart?.addresses ?? [] }
}

extension CertificateAuthority {
  /// Issues a credential for the request's keys at `path` and the credential file that says so, with the addresses that
  /// came with the request.
  package func issueCredentialFile(
    _ kind: Credential.Kind, at path: TreePath, request: CredentialRequest, services: some Sequence<Service>,
    validity: Validity, serial: UInt64, issuedAtMilliseconds: UInt64
  ) throws(TrustError) -> CredentialFile {
    let chain = try self.issueCredential(kind, at: path, key: request.verifyingKey, validity: validity)
    let marks = try CredentialMarks(
      place: DomainPath(domain: self.domain, path: path), keyID: request.verifyingKey.keyID,
      agreementKey: request.agreementKey, services: services, serial: serial,
      issuedAtMilliseconds: issuedAtMilliseconds)
    return CredentialFile(
      chain: chain, marks: marks, marksSignature: try self.sign(marks), marksSigner: nil, addresses: request.addresses)
  }

  /// The same file with new marks, for example for other services. This authority need not be the one that issued the
  /// credential; it must be above it.
  package func replacingMarks(
    of file: CredentialFile, with marks: CredentialMarks
  ) throws(TrustError) -> CredentialFile {
    CredentialFile(
      chain: file.chain, marks: marks, marksSignature: try self.sign(marks), marksSigner: self.presentedChain,
      addresses: file.addresses)
  }

  private func sign(_ marks: CredentialMarks) throws(TrustError) -> BatchSignature {
    guard marks.place.domain == self.domain else { throw .foreignDomain }
    guard self.path.isAncestor(of: marks.place.path) else { throw .pathNotCovered }
    return try self.key.sign(Digest32(sha256: marks.signedBytes), purpose: .credentialMarks)
  }
}
