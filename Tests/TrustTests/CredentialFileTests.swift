// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import Trust

@Suite("A credential request")
struct CredentialRequestTests {
  let keys = PrincipalKeys()

  @Test("carries both keys and the addresses, and comes back from its text")
  func roundTrip() throws {
    let address = try NetworkAddress(parsing: "[::1]:4700")
    for addresses in [[], [address]] {
      let request = try CredentialRequest(keys: keys, addresses: addresses, issuedAtMilliseconds: 5)
      let parsed = try CredentialRequest(pemRepresentation: request.pemRepresentation)
      #expect(parsed == request)
      #expect(parsed.verifyingKey == keys.signing.verifyingKey)
      #expect(parsed.agreementKey == keys.agreement.publicKey)
      #expect(parsed.addresses?.addresses.addresses == (addresses.isEmpty ? nil : addresses))
    }
  }

  @Test("is refused with any byte changed or missing")
  func tampering() throws {
    let request = try CredentialRequest(
      keys: keys, addresses: [NetworkAddress(parsing: "host:1")], issuedAtMilliseconds: 5)
    for index in request.bytes.indices {
      var bytes = request.bytes
      bytes[index] ^= 4
      #expect(throws: TrustError.self) { try CredentialRequest(bytes: bytes) }
      #expect(throws: TrustError.self) { try CredentialRequest(bytes: Array(bytes.prefix(index))) }
    }
    #expect(throws: TrustError.malformed) { try CredentialRequest(bytes: request.bytes + [0]) }
    #expect(throws: TrustError.tooLong) { try CredentialRequest(bytes: [UInt8](repeating: 1, count: 20_000)) }
    #expect(throws: TrustError.malformed) { try CredentialRequest(pemRepresentation: "hello") }
    #expect(throws: TrustError.malformed) { try CredentialRequest(pemRepresentation: keys.pemRepresentation) }
  }
}

@Suite("A credential file")
struct CredentialFileTests {
  let domain: TestDomain
  let keys = PrincipalKeys()
  let request: CredentialRequest
  let site: CertificateAuthority
  let file: CredentialFile

  init() throws {
    self.domain = try TestDomain()
    self.request = try CredentialRequest(
      keys: self.keys, addresses: [NetworkAddress(parsing: "node1.example:4700")], issuedAtMilliseconds: 5)
    self.site = try self.domain.makeAuthority("/site")
    self.file = try self.site.issueCredentialFile(
      .process, at: path("/site/node1"), request: self.request,
      services: [.filesystem, .sector, .sector, Service("org.example.other")], validity: day, serial: 1,
      issuedAtMilliseconds: 1)
  }

  private func marks(
    place: DomainPath? = nil, keyID: Digest32? = nil, services: [Service] = [.relay], serial: UInt64 = 2
  ) throws -> CredentialMarks {
    try CredentialMarks(
      place: place ?? self.domain.place("/site/node1"), keyID: keyID ?? self.keys.signing.verifyingKey.keyID,
      agreementKey: self.keys.agreement.publicKey, services: services, serial: serial, issuedAtMilliseconds: 2)
  }

  @Test("says what its authority and its process signed")
  func roundTrip() throws {
    let decoded = try CredentialFile(bytes: file.bytes)
    #expect(decoded == file)
    let verified = try decoded.verify(with: domain.verifier, at: now)
    #expect(verified.credential.path == path("/site/node1"))
    #expect(verified.services.map(\.name) == ["filesystem", "org.example.other", "sector"])
    #expect(verified.agreementKey == keys.agreement.publicKey)
    #expect(verified.addresses.map(\.description) == ["node1.example:4700"])
  }

  @Test("takes new addresses from the process, and from nobody else")
  func addresses() throws {
    let addresses = try CredentialAddresses(
      keyID: keys.signing.verifyingKey.keyID, addresses: [NetworkAddress(parsing: "10.0.0.1:1")], serial: 2,
      issuedAtMilliseconds: 9)
    let moved = file.replacing(addresses: try addresses.signed(with: keys.signing))
    let verified = try CredentialFile(bytes: moved.bytes).verify(with: domain.verifier, at: now)
    #expect(verified.addresses.map(\.description) == ["10.0.0.1:1"])
    #expect(verified.addressesPart?.serial == 2)
    #expect(throws: TrustError.wrongKey) { try addresses.signed(with: site.key) }
    let foreign = PrincipalKeys()
    let theirs = try CredentialAddresses(
      keyID: foreign.signing.verifyingKey.keyID, addresses: [], serial: 3, issuedAtMilliseconds: 9
    ).signed(with: foreign.signing)
    #expect(throws: TrustError.wrongKey) {
      try file.replacing(addresses: theirs).verify(with: domain.verifier, at: now)
    }
    let pasted = SignedAddresses(addresses: addresses, signature: theirs.signature)
    #expect(throws: TrustError.badSignature) {
      try file.replacing(addresses: pasted).verify(with: domain.verifier, at: now)
    }
    #expect(try file.replacing(addresses: nil).verify(with: domain.verifier, at: now).addresses == [])
  }

  @Test("takes new marks from any authority above, and from nobody else")
  func marks() throws {
    for authority in [try domain.makeAuthority("/"), domain.authority, site] {
      let changed = try authority.replacingMarks(of: file, with: self.marks())
      let verified = try CredentialFile(bytes: changed.bytes).verify(with: domain.verifier, at: now)
      #expect(verified.services == [.relay] && verified.marks.serial == 2)
    }
    let other = try domain.makeAuthority("/other")
    #expect(throws: TrustError.pathNotCovered) { try other.replacingMarks(of: file, with: self.marks()) }
    #expect(throws: TrustError.foreignDomain) {
      try TestDomain().authority.replacingMarks(of: file, with: self.marks())
    }
    func signed(_ marks: CredentialMarks, by key: SigningKey, chain: CertificateChain?) throws -> CredentialFile {
      CredentialFile(
        chain: self.file.chain, marks: marks,
        marksSignature: try key.sign(Digest32(sha256: marks.signedBytes), purpose: .credentialMarks),
        marksSigner: chain, addresses: nil)
    }
    let forged = try signed(self.marks(), by: other.key, chain: other.presentedChain)
    #expect(throws: TrustError.pathNotCovered) { try forged.verify(with: domain.verifier, at: now) }
    // The process can not raise itself.
    let own = try signed(self.marks(), by: keys.signing, chain: nil)
    #expect(throws: TrustError.badSignature) { try own.verify(with: domain.verifier, at: now) }
    let ownChain = try signed(self.marks(), by: keys.signing, chain: self.file.chain)
    #expect(throws: TrustError.notAuthority) { try ownChain.verify(with: domain.verifier, at: now) }
    let changed = CredentialFile(
      chain: self.file.chain, marks: try self.marks(), marksSignature: self.file.marksSignature, marksSigner: nil,
      addresses: nil)
    #expect(throws: TrustError.badSignature) { try changed.verify(with: domain.verifier, at: now) }
  }

  @Test("has marks for the very key and path of its certificate")
  func binding() throws {
    let elsewhere = try site.replacingMarks(of: file, with: self.marks(place: domain.place("/site/node2")))
    #expect(throws: TrustError.wrongPath) { try elsewhere.verify(with: domain.verifier, at: now) }
    let another = try site.replacingMarks(of: file, with: self.marks(keyID: .zero))
    #expect(throws: TrustError.wrongKey) { try another.verify(with: domain.verifier, at: now) }
    #expect(throws: TrustError.expired) { try file.verify(with: domain.verifier, at: day.notAfter + 1) }
    #expect(throws: TrustError.foreignDomain) { try file.verify(with: TestDomain().verifier, at: now) }
  }

  @Test("of a user hosts nothing")
  func user() throws {
    let file = try site.issueCredentialFile(
      .user, at: path("/site/u"), request: CredentialRequest(keys: keys, issuedAtMilliseconds: 1), services: [.sector],
      validity: day, serial: 1, issuedAtMilliseconds: 1)
    let verified = try file.verify(with: domain.verifier, at: now)
    #expect(verified.services == [] && verified.addresses == [] && verified.credential.kind == .user)
  }

  // A certificate's signature has more than one encoding that the library takes for the same, so what counts is that
  // nothing else is believed.
  @Test("is refused with any byte changed or missing, or says the very same")
  func tampering() throws {
    let good = file.bytes
    let whole = try file.verify(with: domain.verifier, at: now)
    for index in stride(from: 0, to: good.count, by: 3) {
      var bytes = good
      bytes[index] ^= 2
      if let changed = try? CredentialFile(bytes: bytes).verify(with: domain.verifier, at: now) {
        #expect(changed.marks == whole.marks && changed.addressesPart == whole.addressesPart, "byte \(index)")
        #expect(changed.credential.keyID == whole.credential.keyID && changed.credential.path == whole.credential.path)
      }
      #expect(throws: TrustError.self) { try CredentialFile(bytes: Array(good.prefix(index))) }
    }
    #expect(throws: TrustError.malformed) { try CredentialFile(bytes: good + [0]) }
    #expect(throws: TrustError.unknownVersion) { try CredentialFile(bytes: [2] + good.dropFirst()) }
  }

  @Test("has bounded lists")
  func bounds() throws {
    let services = try (0...64).map { try Service("s\($0)") }
    #expect(throws: TrustError.tooLong) { try self.marks(services: services) }
    #expect(throws: Never.self) { try self.marks(services: services.dropLast()) }
    let addresses = try (1...17).map { try NetworkAddress(host: "h", port: UInt16($0)) }
    #expect(throws: TrustError.tooLong) {
      try CredentialAddresses(keyID: .zero, addresses: addresses, serial: 1, issuedAtMilliseconds: 1)
    }
  }
}

@Suite("Names of services and addresses")
struct ServiceAndAddressTests {
  @Test("of services are lower-case words", arguments: ["", "Sector", "1a", "a b", "a/b", "ä", "-a", "a\0"])
  func services(name: String) {
    #expect(throws: TrustError.malformed) { try Service(name) }
  }

  @Test("of services are bounded, and the known ones are known by name")
  func known() throws {
    #expect(throws: TrustError.tooLong) { try Service(String(repeating: "a", count: 65)) }
    #expect(try Service.all == ["sector", "filesystem", "discovery", "relay"].map { try Service($0) })
  }

  @Test(
    "of hosts come back as they were",
    arguments: ["h:1", "a.example:65535", "10.0.0.1:4700", "[::1]:80", "[fe80::1%eth0]:1"])
  func addresses(text: String) throws {
    #expect(try NetworkAddress(parsing: text).description == text)
  }

  @Test(
    "of hosts are refused when wrong",
    arguments: [
      "", "h", ":1", "h:", "h:0", "h:65536", "h:-1", "h:+1", "h:01", "::1:80", "[]:1", "[h]:1", "a b:1", "a/b:1",
      "h:1\n",
      "u@h:1", "[::1:80", "h\0:1",
    ])
  func wrongAddresses(text: String) {
    #expect(throws: TrustError.self) { try NetworkAddress(parsing: text) }
  }
}
