// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import SwiftASN1
import Testing
import Trust
import X509

/// SplitMix64: the same seed gives the same test.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) {
    self.state = seed
  }

  /// From BLOCKTREE_TEST_SEED, or new; printed either way.
  static func forTest(_ name: String = #function) -> SeededGenerator {
    let given = ProcessInfo.processInfo.environment["BLOCKTREE_TEST_SEED"].flatMap(UInt64.init)
    let seed = given ?? UInt64.random(in: .min ... .max)
    print("\(name): BLOCKTREE_TEST_SEED=\(seed)")
    return SeededGenerator(seed: seed)
  }

  mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var z = self.state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

func path(_ text: String) -> TreePath {
  do {
    return try TreePath(parsing: text)
  } catch {
    Issue.record("\(text) is no path: \(error)")
    return .root
  }
}

/// A fixed instant, so that nothing depends on the clock.
let now = Date(timeIntervalSince1970: 1_750_000_000)
let day = Validity(from: now, lifetime: .seconds(86_400))

/// A domain with its root principal and a few keys.
struct TestDomain {
  let rootKey = SigningKey()
  let authority: CertificateAuthority

  init() throws {
    self.authority = try CertificateAuthority(newRoot: self.rootKey, at: now)
  }

  var root: RootCertificate { self.authority.root }
  var domain: DomainID { self.root.domain }
  var verifier: ChainVerifier { ChainVerifier(root: self.root) }

  func place(_ text: String) -> DomainPath {
    DomainPath(domain: self.domain, path: path(text))
  }

  /// An authority for a directory, made by the root or by another one.
  func makeAuthority(_ text: String, by parent: CertificateAuthority? = nil) throws -> CertificateAuthority {
    let key = SigningKey()
    let chain = try (parent ?? self.authority).issueAuthority(for: path(text), key: key.verifyingKey, validity: day)
    return try CertificateAuthority(key: key, chain: chain, root: self.root, at: now)
  }
}

/// A certificate with any part as an attacker, or another program, might make it. All parts begin as they should be.
struct Forgery {
  var place: DomainPath
  var issuerKey: Certificate.PrivateKey
  var issuerName: DistinguishedName
  var publicKey: Certificate.PublicKey
  var subject: DistinguishedName
  var validity = day
  var names: [GeneralName]
  var isAuthority = false
  var pathLengthMax: Int?
  var keyUsage: KeyUsage?
  var purposes: [ExtendedKeyUsage.Usage] = [.serverAuth, .clientAuth]
  var constraints: NameConstraints?
  var extra: [Certificate.Extension] = []
  var algorithm = Certificate.SignatureAlgorithm.ecdsaWithSHA256
  var version = Certificate.Version.v3

  init(_ place: DomainPath, key: VerifyingKey, issuer: SigningKey) throws {
    self.place = place
    self.issuerKey = Certificate.PrivateKey(issuer.key)
    self.issuerName = try Self.name(issuer.verifyingKey)
    self.publicKey = Certificate.PublicKey(key.key)
    self.subject = try Self.name(key)
    self.names = [.uniformResourceIdentifier(place.uri), .dnsName(place.dnsName)]
  }

  /// The same as an authority.
  static func authority(_ place: DomainPath, key: VerifyingKey, issuer: SigningKey) throws -> Forgery {
    var forgery = try Forgery(place, key: key, issuer: issuer)
    forgery.isAuthority = true
    forgery.purposes = []
    forgery.constraints = Self.constraints(place.dnsName)
    return forgery
  }

  static func constraints(_ name: String) -> NameConstraints {
    NameConstraints(
      permittedSubtrees: [.dnsName(name)],
      excludedSubtrees: [
        .ipAddress(ASN1OctetString(contentBytes: ArraySlice(repeating: 0, count: 8))),
        .ipAddress(ASN1OctetString(contentBytes: ArraySlice(repeating: 0, count: 32))),
      ])
  }

  static func name(_ key: VerifyingKey) throws -> DistinguishedName {
    let id = DomainID(digest: key.keyID).description
    return try DistinguishedName {
      OrganizationName("Blocktree")
      CommonName(id)
    }
  }

  func make() throws -> [UInt8] {
    var extensions = Certificate.Extensions()
    let basic: BasicConstraints =
      self.isAuthority ? .isCertificateAuthority(maxPathLength: self.pathLengthMax) : .notCertificateAuthority
    try extensions.append(Certificate.Extension(basic, critical: true))
    let usage = self.keyUsage ?? (self.isAuthority ? KeyUsage(keyCertSign: true) : KeyUsage(digitalSignature: true))
    try extensions.append(Certificate.Extension(usage, critical: true))
    if !self.purposes.isEmpty {
      try extensions.append(Certificate.Extension(ExtendedKeyUsage(self.purposes), critical: false))
    }
    if let constraints { try extensions.append(Certificate.Extension(constraints, critical: true)) }
    try extensions.append(Certificate.Extension(SubjectAlternativeNames(self.names), critical: false))
    for item in self.extra { try extensions.append(item) }
    let certificate = try Certificate(
      version: self.version, serialNumber: Certificate.SerialNumber(), publicKey: self.publicKey,
      notValidBefore: self.validity.notBefore, notValidAfter: self.validity.notAfter, issuer: self.issuerName,
      subject: self.subject, signatureAlgorithm: self.algorithm, extensions: extensions,
      issuerPrivateKey: self.issuerKey)
    var serializer = DER.Serializer()
    try serializer.serialize(certificate)
    return serializer.serializedBytes
  }

  func chain(_ above: CertificateChain? = nil) throws -> CertificateChain {
    try CertificateChain([self.make()] + (above?.certificates ?? []))
  }
}

/// A directory that is removed with what is in it.
final class TemporaryDirectory {
  let path: String

  init() throws {
    self.path =
      FileManager.default.temporaryDirectory
      .appendingPathComponent("blocktree-trust-\(UInt64.random(in: .min ... .max))").path
    try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
  }

  deinit {
    try? FileManager.default.removeItem(atPath: self.path)
  }
}
