// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import SwiftASN1
import Testing
import Trust
import X509

@Suite("A certificate chain")
struct ChainTests {
  let domain: TestDomain
  let key = SigningKey()

  init() throws {
    self.domain = try TestDomain()
  }

  private func refuse(
    _ chain: CertificateChain, _ reason: TrustError, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(throws: reason, sourceLocation: sourceLocation) { try self.domain.verifier.verify(chain, at: now) }
  }

  @Test("from the root is the credential of the key at the path", arguments: Credential.Kind.allCases)
  func fromRoot(kind: Credential.Kind) throws {
    let chain = try domain.authority.issueCredential(kind, at: path("/node1"), key: key.verifyingKey, validity: day)
    let credential = try domain.verifier.verify(chain, at: now)
    #expect(credential.path == path("/node1"))
    #expect(credential.directory == .root)
    #expect(credential.domain == domain.domain)
    #expect(credential.kind == kind)
    #expect(credential.verifyingKey == key.verifyingKey)
    #expect(credential.keyID == key.verifyingKey.keyID)
    #expect(credential.chain == chain)
    #expect(credential.validity == day)
    #expect(credential.issuerKey == domain.rootKey.verifyingKey)
    #expect(credential.authorityKeyIDs == [domain.rootKey.verifyingKey.keyID])
    #expect(try domain.verifier.verify(chain, at: now, expecting: path("/node1")) == credential)
    #expect(throws: TrustError.wrongPath) { try domain.verifier.verify(chain, at: now, expecting: path("/node2")) }
  }

  @Test("goes through authorities for the same directory and below, and may end with the root")
  func throughAuthorities() throws {
    let person = try domain.makeAuthority("/")
    let site = try domain.makeAuthority("/site", by: person)
    let again = try domain.makeAuthority("/site", by: site)
    let deep = try domain.makeAuthority("/site/a/b", by: again)
    let chain = try deep.issueCredential(.process, at: path("/site/a/b/c/d"), key: key.verifyingKey, validity: day)
    #expect(chain.certificates.count == 5)
    let credential = try domain.verifier.verify(chain, at: now)
    #expect(credential.issuerPath == path("/site/a/b"))
    #expect(
      credential.authorityKeyIDs
        == [deep.key, again.key, site.key, person.key, domain.rootKey].map(\.verifyingKey.keyID))
    let complete = try CertificateChain(chain.certificates + [domain.root.der])
    #expect(try domain.verifier.verify(complete, at: now) == credential)
    let authority = try domain.verifier.verifyAuthority(deep.presentedChain, at: now)
    #expect(authority.path == path("/site/a/b") && authority.verifyingKey == deep.key.verifyingKey)
    #expect(
      try domain.verifier.verifyAuthority(domain.authority.presentedChain, at: now) == domain.verifier.rootAuthority)
  }

  @Test("is issued for nothing outside the issuer's directory")
  func issuerRefuses() throws {
    let site = try domain.makeAuthority("/site")
    for place in ["/", "/other", "/sitex", "/sitex/a"] {
      #expect(throws: TrustError.pathNotCovered) {
        try site.issueAuthority(for: path(place), key: key.verifyingKey, validity: day)
      }
    }
    for place in ["/", "/site", "/other", "/sitex", "/sitex/a"] {
      #expect(throws: TrustError.pathNotCovered) {
        try site.issueCredential(.user, at: path(place), key: key.verifyingKey, validity: day)
      }
    }
    let deep = path("/1/2/3/4/5/6/7/8/9/10")
    #expect(throws: TrustError.authorityTooDeep) {
      try domain.authority.issueAuthority(for: deep, key: key.verifyingKey, validity: day)
    }
    let chain = try domain.authority.issueCredential(.process, at: deep, key: key.verifyingKey, validity: day)
    #expect(try domain.verifier.verify(chain, at: now).path == deep)
  }

  @Test("is refused when a sibling directory's authority issued it")
  func sibling() throws {
    let other = try domain.makeAuthority("/b")
    for place in ["/a/node", "/node", "/ab/node", "/bb", "/b"] {
      let forgery = try Forgery(domain.place(place), key: key.verifyingKey, issuer: other.key)
      refuse(try forgery.chain(other.chain), .pathNotCovered)
      let authority = try Forgery.authority(domain.place(place), key: key.verifyingKey, issuer: other.key)
      if place != "/b" {
        #expect(throws: TrustError.pathNotCovered) {
          try domain.verifier.verifyAuthority(authority.chain(other.chain), at: now)
        }
      }
    }
    // Nor does an authority in between help.
    let below = SigningKey()
    let wider = try Forgery.authority(domain.place("/"), key: below.verifyingKey, issuer: other.key)
    let leaf = try Forgery(domain.place("/a/node"), key: key.verifyingKey, issuer: below)
    refuse(try leaf.chain(wider.chain(other.chain)), .pathNotCovered)
  }

  @Test("agrees with the rule on paths, for random directories")
  func randomDirectories() throws {
    var random = SeededGenerator.forTest()
    let names = ["a", "b", "ab"]
    func place(_ random: inout SeededGenerator) throws -> TreePath {
      try TreePath(
        (0..<Int.random(in: 0...3, using: &random)).map { _ in
          try PathComponent(names.randomElement(using: &random) ?? "a")
        })
    }
    for _ in 0..<60 {
      var above = TreePath.root
      var issuer = domain.rootKey
      var chain: CertificateChain?
      var isCovered = true
      for _ in 0..<Int.random(in: 0...2, using: &random) {
        let here = try place(&random)
        let next = SigningKey()
        chain = try Forgery.authority(
          DomainPath(domain: domain.domain, path: here), key: next.verifyingKey, issuer: issuer
        ).chain(chain)
        isCovered = isCovered && above.isSameOrAncestor(of: here)
        (above, issuer) = (here, next)
      }
      let here = try place(&random)
      isCovered = isCovered && above.isAncestor(of: here)
      let leaf = try Forgery(DomainPath(domain: domain.domain, path: here), key: key.verifyingKey, issuer: issuer)
      let result = Result { try domain.verifier.verify(leaf.chain(chain), at: now) }
      switch result {
      case .success(let credential): #expect(isCovered && credential.path == here)
      case .failure(let error): #expect(!isCovered && error as? TrustError == .pathNotCovered)
      }
    }
  }

  @Test("is refused when a credential is used as an authority, or the reverse")
  func roles() throws {
    let chain = try domain.authority.issueCredential(.process, at: path("/a"), key: key.verifyingKey, validity: day)
    let below = try Forgery(domain.place("/a/b"), key: SigningKey().verifyingKey, issuer: key)
    refuse(try below.chain(chain), .notAuthority)
    let authority = try domain.makeAuthority("/a")
    refuse(authority.presentedChain, .notCredential)
    refuse(CertificateChain(root: domain.root), .notCredential)
    #expect(throws: TrustError.notAuthority) { try domain.verifier.verifyAuthority(chain, at: now) }

    var unsigning = try Forgery.authority(domain.place("/a"), key: key.verifyingKey, issuer: domain.rootKey)
    unsigning.keyUsage = KeyUsage(digitalSignature: true)
    #expect(throws: TrustError.notAuthority) { try domain.verifier.verifyAuthority(unsigning.chain(), at: now) }

    var leaf = try Forgery(domain.place("/a"), key: key.verifyingKey, issuer: domain.rootKey)
    leaf.keyUsage = KeyUsage(digitalSignature: true, keyCertSign: true)
    refuse(try leaf.chain(), .notCredential)
    leaf.keyUsage = nil
    for purposes in [[.serverAuth], [.clientAuth, .codeSigning], [], [.any]] as [[ExtendedKeyUsage.Usage]] {
      leaf.purposes = purposes
      refuse(try leaf.chain(), .notCredential)
    }
    // A credential for the root itself would be one that no directory holds.
    refuse(try Forgery(domain.place("/"), key: key.verifyingKey, issuer: domain.rootKey).chain(), .pathNotCovered)
    // The root's key is for authorities.
    let own = try Forgery(domain.place("/a"), key: domain.rootKey.verifyingKey, issuer: domain.rootKey)
    refuse(try own.chain(), .notAuthority)
  }

  @Test("holds from its first second to its last")
  func times() throws {
    let site = try domain.makeAuthority("/site")
    let long = Validity(from: now, lifetime: .seconds(86_400 * 10))
    let chain = try site.issueCredential(.user, at: path("/site/u"), key: key.verifyingKey, validity: long)
    let verifier = domain.verifier
    #expect(try verifier.verify(chain, at: day.notBefore).validity == day)
    #expect(throws: Never.self) { try verifier.verify(chain, at: day.notAfter) }
    // The authority ends first, and its end is the end of what it issued.
    #expect(throws: TrustError.expired) { try verifier.verify(chain, at: day.notAfter + 1) }
    #expect(throws: TrustError.notYetValid) { try verifier.verify(chain, at: day.notBefore - 1) }
    let short = Validity(from: now, lifetime: .seconds(3600))
    let other = try site.issueCredential(.user, at: path("/site/u"), key: key.verifyingKey, validity: short)
    #expect(throws: TrustError.expired) { try verifier.verify(other, at: now + 3601) }
    #expect(try verifier.verify(other, at: now).notAfter == short.notAfter)
    #expect(short.renewAt > now && short.renewAt < short.notAfter)
    // The domain does not end with the root's certificate.
    #expect(throws: Never.self) { try RootCertificate(der: domain.root.der) }
  }

  @Test("of another domain is refused")
  func foreign() throws {
    let other = try TestDomain()
    let chain = try other.authority.issueCredential(.process, at: path("/a"), key: key.verifyingKey, validity: day)
    refuse(chain, .foreignDomain)
    refuse(try CertificateChain(chain.certificates + [other.root.der]), .foreignDomain)
    refuse(try CertificateChain(chain.certificates + [domain.root.der]), .foreignDomain)
    // The other root claims our name.
    let claim = try Forgery(domain.place("/a"), key: key.verifyingKey, issuer: other.rootKey)
    refuse(try claim.chain(), .wrongName)
    var named = claim
    named.issuerName = try Forgery.name(domain.rootKey.verifyingKey)
    refuse(try named.chain(), .badSignature)
  }

  @Test("holds under a root certificate that was issued again for the same key")
  func rootAgain() throws {
    let chain = try domain.authority.issueCredential(.process, at: path("/a"), key: key.verifyingKey, validity: day)
    var again = try Forgery.authority(domain.place("/"), key: domain.rootKey.verifyingKey, issuer: domain.rootKey)
    again.validity = Validity(notBefore: now - 7200, notAfter: now - 3600)
    let root = try RootCertificate(der: again.make())
    #expect(root.der != domain.root.der)
    #expect(root.domain == domain.domain)
    #expect(throws: Never.self) { try ChainVerifier(root: root).verify(chain, at: now) }
    let complete = try CertificateChain(chain.certificates + [root.der])
    #expect(try domain.verifier.verify(complete, at: now).chain == chain)
  }

  @Test("ends with the root's own certificate, not with one that only says so")
  func rootForged() throws {
    let chain = try domain.authority.issueCredential(.process, at: path("/a"), key: key.verifyingKey, validity: day)
    // Somebody else's signature under the root's key and name.
    var forged = try Forgery.authority(domain.place("/"), key: domain.rootKey.verifyingKey, issuer: key)
    forged.issuerName = try Forgery.name(domain.rootKey.verifyingKey)
    refuse(try CertificateChain(chain.certificates + [forged.make()]), .badSignature)
    #expect(throws: TrustError.badSignature) { try RootCertificate(der: forged.make()) }
    let leaf = try Forgery(domain.place("/"), key: domain.rootKey.verifyingKey, issuer: domain.rootKey)
    #expect(throws: TrustError.notAuthority) { try RootCertificate(der: leaf.make()) }
    let lower = try Forgery.authority(domain.place("/a"), key: domain.rootKey.verifyingKey, issuer: domain.rootKey)
    #expect(throws: TrustError.wrongPath) { try RootCertificate(der: lower.make()) }
    // The hash of the key is the domain, so a root for another domain's name is none.
    let other = try TestDomain()
    let claim = try Forgery.authority(other.place("/"), key: domain.rootKey.verifyingKey, issuer: domain.rootKey)
    #expect(throws: TrustError.foreignDomain) { try RootCertificate(der: claim.make()) }
  }

  @Test("has exactly one URI and one DNS name in each certificate, and they belong together")
  func names() throws {
    let good = domain.place("/a/b")
    let uri = GeneralName.uniformResourceIdentifier(good.uri)
    let dns = GeneralName.dnsName(good.dnsName)
    let otherURI = GeneralName.uniformResourceIdentifier(domain.place("/c").uri)
    let otherDNS = GeneralName.dnsName(domain.place("/c").dnsName)
    let address = GeneralName.ipAddress(ASN1OctetString(contentBytes: [127, 0, 0, 1]))
    let cases: [([GeneralName], TrustError)] = [
      ([], .malformed), ([uri], .malformed), ([dns], .malformed), ([uri, uri, dns], .malformed),
      ([uri, otherURI, dns], .malformed), ([uri, dns, otherDNS], .malformed), ([uri, dns, dns], .malformed),
      ([uri, dns, address], .malformed), ([uri, otherURI], .malformed), ([dns, otherDNS], .malformed),
      ([uri, otherDNS], .wrongName), ([otherURI, dns], .wrongName),
      ([uri, .dnsName("*." + domain.place("/a").dnsName)], .wrongName),
      ([uri, .dnsName(good.dnsName.uppercased())], .wrongName), ([uri, .dnsName(good.dnsName + ".")], .wrongName),
    ]
    var forgery = try Forgery(good, key: key.verifyingKey, issuer: domain.rootKey)
    #expect(throws: Never.self) { try domain.verifier.verify(forgery.chain(), at: now) }
    for (names, reason) in cases {
      forgery.names = names
      refuse(try forgery.chain(), reason)
    }
    let start = "bt://\(domain.domain)"
    for trick in [
      "/a%2Fb", "/%61/b", "/a/./b", "/a/../a/b", "/a//b", "/a/b/", "/a/b?x", "/a/b#x", "/a/%62", "", "/a%c3%a4", "/a b",
      "/a/b%00", "/a/b%2E%2E", ":1/a/b", "@x/a/b",
    ] {
      forgery.names = [.uniformResourceIdentifier(start + trick), dns]
      refuse(try forgery.chain(), .malformed)
    }
    forgery.names = [.uniformResourceIdentifier("http://\(domain.domain)/a/b"), dns]
    refuse(try forgery.chain(), .malformed)
  }

  @Test("carries names with any bytes")
  func oddNames() throws {
    for text in ["/a b/ü%41", "/\u{1F600}", "/%2F", "/a\u{308}", "/\u{1}\u{7f}", "/*"] {
      let chain = try domain.authority.issueCredential(.user, at: path(text), key: key.verifyingKey, validity: day)
      #expect(try domain.verifier.verify(chain, at: now).path == path(text))
    }
  }

  @Test("has the name constraints that belong to each authority's directory")
  func constraints() throws {
    var forgery = try Forgery.authority(domain.place("/a"), key: key.verifyingKey, issuer: domain.rootKey)
    let leaf = try Forgery(domain.place("/a/b"), key: SigningKey().verifyingKey, issuer: key)
    #expect(throws: Never.self) { try domain.verifier.verify(leaf.chain(forgery.chain()), at: now) }
    let wrong = [
      nil, Forgery.constraints(domain.place("/").dnsName), Forgery.constraints(domain.place("/b").dnsName),
      NameConstraints(permittedSubtrees: [.dnsName(domain.place("/a").dnsName)]),
    ]
    for constraints in wrong {
      forgery.constraints = constraints
      refuse(try leaf.chain(forgery.chain()), .wrongName)
    }
    forgery.constraints = nil
    forgery.extra = [
      try Certificate.Extension(Forgery.constraints(domain.place("/a").dnsName), critical: false)
    ]
    refuse(try leaf.chain(forgery.chain()), .wrongName)
  }

  @Test("with an unknown critical extension is refused, with another unknown one it is not")
  func extensions() throws {
    var forgery = try Forgery(domain.place("/a"), key: key.verifyingKey, issuer: domain.rootKey)
    forgery.extra = [.init(oid: [1, 2, 3, 4], critical: false, value: [5, 0])]
    #expect(throws: Never.self) { try domain.verifier.verify(forgery.chain(), at: now) }
    forgery.extra = [.init(oid: [1, 2, 3, 4], critical: true, value: [5, 0])]
    refuse(try forgery.chain(), .unknownCriticalExtension)
  }

  @Test("uses P-256 and SHA-256 only")
  func algorithms() throws {
    var forgery = try Forgery(domain.place("/a"), key: key.verifyingKey, issuer: domain.rootKey)
    forgery.publicKey = Certificate.PublicKey(P384.Signing.PrivateKey().publicKey)
    refuse(try forgery.chain(), .unsupportedAlgorithm)
    forgery.publicKey = Certificate.PublicKey(Curve25519.Signing.PrivateKey().publicKey)
    refuse(try forgery.chain(), .unsupportedAlgorithm)
    forgery = try Forgery(domain.place("/a"), key: key.verifyingKey, issuer: domain.rootKey)
    forgery.algorithm = .ecdsaWithSHA384
    refuse(try forgery.chain(), .unsupportedAlgorithm)
    forgery = try Forgery.authority(domain.place("/"), key: key.verifyingKey, issuer: domain.rootKey)
    let large = P384.Signing.PrivateKey()
    forgery.publicKey = Certificate.PublicKey(large.publicKey)
    forgery.issuerKey = Certificate.PrivateKey(large)
    forgery.algorithm = .ecdsaWithSHA384
    #expect(throws: TrustError.unsupportedAlgorithm) { try RootCertificate(der: forgery.make()) }
  }

  @Test("names its subject and issuer after their keys")
  func subjects() throws {
    var forgery = try Forgery(domain.place("/a"), key: key.verifyingKey, issuer: domain.rootKey)
    forgery.subject = try Forgery.name(domain.rootKey.verifyingKey)
    refuse(try forgery.chain(), .wrongName)
    forgery = try Forgery(domain.place("/a"), key: key.verifyingKey, issuer: domain.rootKey)
    forgery.issuerName = try Forgery.name(key.verifyingKey)
    refuse(try forgery.chain(), .wrongName)
  }

  @Test("respects a path length that an authority was given")
  func pathLength() throws {
    var forgery = try Forgery.authority(domain.place("/a"), key: key.verifyingKey, issuer: domain.rootKey)
    forgery.pathLengthMax = 0
    let first = try forgery.chain()
    let leaf = try Forgery(domain.place("/a/b"), key: SigningKey().verifyingKey, issuer: key)
    #expect(throws: Never.self) { try domain.verifier.verify(leaf.chain(first), at: now) }
    let second = SigningKey()
    let below = try Forgery.authority(domain.place("/a/b"), key: second.verifyingKey, issuer: key).chain(first)
    let deep = try Forgery(domain.place("/a/b/c"), key: SigningKey().verifyingKey, issuer: second)
    refuse(try deep.chain(below), .tooLong)
  }

  @Test("is refused with any certificate missing, doubled, reordered or changed")
  func shapes() throws {
    let site = try domain.makeAuthority("/site")
    let deep = try domain.makeAuthority("/site/a", by: site)
    let chain = try deep.issueCredential(.process, at: path("/site/a/b"), key: key.verifyingKey, validity: day)
    let all = chain.certificates
    refuse(try CertificateChain([all[0]]), .wrongName)
    refuse(try CertificateChain([all[0], all[1]]), .wrongName)
    refuse(try CertificateChain([all[0], all[2]]), .wrongName)
    refuse(try CertificateChain([all[1], all[2]]), .notCredential)
    refuse(try CertificateChain([all[0], all[2], all[1]]), .wrongName)
    refuse(try CertificateChain([all[0], all[1], all[1], all[2]]), .wrongName)
    refuse(try CertificateChain([all[0], all[0], all[1], all[2]]), .notAuthority)
    refuse(try CertificateChain([all[0] + [0], all[1], all[2]]), .malformed)
    refuse(try CertificateChain([domain.root.der] + all), .notCredential)
    // A signature's last byte may end in bits that are zero; who says that these do not count has another certificate.
    let bytes = all[0]
    let bitString = try #require(
      bytes.indices.last {
        $0 + 2 < bytes.count && bytes[$0...].starts(with: [3, UInt8(truncatingIfNeeded: bytes.count - $0 - 2), 0])
      })
    for count: UInt8 in 1...7 {
      var changed = all
      changed[0][bitString + 2] = count
      changed[0][changed[0].count - 1] &= 0xFF << count
      refuse(try CertificateChain(changed), .malformed)
    }
    var random = SeededGenerator.forTest()
    for _ in 0..<300 {
      var changed = all
      let which = Int.random(in: 0..<changed.count, using: &random)
      let byte = Int.random(in: 0..<changed[which].count, using: &random)
      changed[which][byte] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      #expect(throws: TrustError.self) { try domain.verifier.verify(CertificateChain(changed), at: now) }
    }
  }

  @Test("is bounded in number and size")
  func bounds() throws {
    #expect(throws: TrustError.malformed) { try CertificateChain([]) }
    #expect(throws: TrustError.malformed) { try CertificateChain([[]]) }
    #expect(throws: TrustError.tooLong) { try CertificateChain([[UInt8]](repeating: [1], count: 17)) }
    #expect(throws: TrustError.tooLong) { try CertificateChain([[UInt8](repeating: 1, count: 65_537)]) }
    let chain = try domain.authority.issueCredential(.user, at: path("/u"), key: key.verifyingKey, validity: day)
    #expect(try CertificateChain(bytes: chain.bytes) == chain)
    #expect(try CertificateChain(pemRepresentation: chain.pemRepresentation) == chain)
    #expect(try CertificateChain(bytes: chain.bytes).digest == chain.digest)
    #expect(try RootCertificate(pemRepresentation: domain.root.pemRepresentation) == domain.root)
    for count in 0..<chain.bytes.count {
      #expect(throws: TrustError.self) { try CertificateChain(bytes: Array(chain.bytes.prefix(count))) }
    }
    #expect(throws: TrustError.malformed) { try CertificateChain(bytes: chain.bytes + [0]) }
    #expect(throws: TrustError.unknownVersion) { try CertificateChain(bytes: [2] + chain.bytes.dropFirst()) }
    // Two lists of certificates never share a digest because their bytes run together.
    #expect(try CertificateChain([[1, 2], [3]]).digest != CertificateChain([[1], [2, 3]]).digest)
  }

  @Test("gives an authority only to the holder of its key")
  func authorityKeys() throws {
    let site = try domain.makeAuthority("/site")
    #expect(throws: TrustError.wrongKey) {
      try CertificateAuthority(key: key, chain: site.presentedChain, root: domain.root, at: now)
    }
    #expect(throws: TrustError.wrongKey) { try CertificateAuthority(rootKey: key, root: domain.root) }
    #expect(throws: TrustError.expired) {
      try CertificateAuthority(key: site.key, chain: site.presentedChain, root: domain.root, at: day.notAfter + 1)
    }
    #expect(try CertificateAuthority(rootKey: domain.rootKey, root: domain.root).chain == nil)
  }

  @Test("is remembered as long as it is valid, and not longer")
  func cache() throws {
    let cache = CredentialCache(verifier: domain.verifier, countMax: 4)
    let chain = try domain.authority.issueCredential(.user, at: path("/u"), key: key.verifyingKey, validity: day)
    let credential = try cache.verify(chain, at: now)
    #expect(try cache.verify(chain, at: day.notAfter) == credential)
    #expect(throws: TrustError.expired) { try cache.verify(chain, at: day.notAfter + 1) }
    #expect(throws: TrustError.notYetValid) { try cache.verify(chain, at: day.notBefore - 1) }
    var bytes = chain.certificates[0]
    bytes[bytes.count - 1] ^= 1
    #expect(throws: TrustError.badSignature) { try cache.verify(CertificateChain([bytes]), at: now) }
  }
}
