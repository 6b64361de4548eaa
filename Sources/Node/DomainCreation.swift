// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import Filesystem
internal import FoundationEssentials
internal import Inodes
internal import SectorStore
internal import Sectors
package import Transport
package import Trust

/// Makes a new domain with its first process and its first person: what `btnode init` does.
package struct DomainCreation: Sendable {
  /// How long credentials hold. Long, as renewing takes an authority, which may be offline; short enough that a lost
  /// key does not live for ever. Nodes warn when two thirds have passed.
  package static let credentialLifetime = Duration.seconds(825 * 86_400)
  /// How long the person's authority holds.
  package static let authorityLifetime = Duration.seconds(3_650 * 86_400)

  package var listen: ListenAddress
  /// What others dial; nil for what is listened on.
  package var advertise: NetworkAddress?
  package var processName: String
  package var userName: String
  package var sectorSize: Int
  /// The domain's name in DNS, for the person's profile.
  package var dns: String?

  package init(
    listen: ListenAddress, advertise: NetworkAddress? = nil, processName: String = "node1", userName: String = "owner",
    sectorSize: Int = 4_096, dns: String? = nil
  ) {
    self.listen = listen
    self.advertise = advertise
    self.processName = processName
    self.userName = userName
    self.sectorSize = sectorSize
    self.dns = dns
  }

  /// What was made.
  package struct Result: Sendable {
    package let domain: DomainID
    package let process: TreePath
    package let user: TreePath
    package let address: NetworkAddress
    /// The name by which ordinary TLS stacks check the process's certificate.
    package let tlsName: String
  }

  private struct Principal {
    let path: TreePath
    let keys: PrincipalKeys
    let file: CredentialFile
  }

  /// Makes everything at this place: complete and durable, or not at all.
  package func run(at directory: NodeDirectory) async throws -> Result {
    let process = try self.path(self.processName, setting: "name")
    let user = try self.path(self.userName, setting: "user")
    guard process != user else { throw NodeError.setting("user", expected: "another name than the process's") }
    guard self.sectorSize.nonzeroBitCount == 1, (4_096...65_536).contains(self.sectorSize) else {
      throw NodeError.setting("sector-size", expected: "a power of two from 4096 to 65536")
    }
    let listen = try LocalAddress.withChosenPort(self.listen)
    let address = try self.advertise ?? LocalAddress.advertised(for: listen)
    return try await OwnerFiles.create(directory.path) { temporary in
      try await self.fill(
        NodeDirectory(temporary), process: process, user: user, listen: listen, address: address)
    }
  }

  private func path(_ name: String, setting: String) throws(NodeError) -> TreePath {
    do { return try TreePath.root.appending(name) } catch {
      throw .setting(setting, expected: "one name, without slashes, of 1 to 255 bytes")
    }
  }

  private func fill(
    _ directory: NodeDirectory, process: TreePath, user: TreePath, listen: ListenAddress, address: NetworkAddress
  ) async throws -> Result {
    let now = WallClock.date()
    let rootKeys = PrincipalKeys()
    let authority = try CertificateAuthority(newRoot: rootKeys.signing, at: now)
    let node = try Self.issue(
      .process, at: process, by: authority, addresses: [address], services: [.sector, .filesystem], now)
    let person = try Self.issue(.user, at: user, by: authority, addresses: [], services: [], now)

    try directory.create(rootKeys, at: directory.rootKey)
    try directory.create(node.keys, at: directory.key)
    try OwnerFiles.write(Array(authority.root.pemRepresentation.utf8), to: directory.rootCertificate)
    try OwnerFiles.write(node.file.bytes, to: directory.credential)
    try self.writeProfile(in: directory, person, authority, process: process, address: address, now)
    try await self.makeStore(in: directory, node: node, person: person, root: rootKeys, authority: authority, now)
    var description = NodeDescription(listen: "\(listen)", advertise: ["\(address)"])
    description.generation = Generation.root.rawValue
    description.sectorSize = self.sectorSize
    try description.write(to: directory.description)

    return Result(
      domain: authority.domain, process: process, user: user, address: address,
      tlsName: DomainPath(domain: authority.domain, path: process).dnsName)
  }

  private static func issue(
    _ kind: Credential.Kind, at path: TreePath, by authority: CertificateAuthority, addresses: [NetworkAddress],
    services: [Service], _ now: Date
  ) throws(TrustError) -> Principal {
    let keys = PrincipalKeys()
    let milliseconds = UInt64(now.timeIntervalSince1970 * 1_000)
    let request = try CredentialRequest(keys: keys, addresses: addresses, issuedAtMilliseconds: milliseconds)
    let file = try authority.issueCredentialFile(
      kind, at: path, request: request, services: services,
      validity: Validity(from: now, lifetime: Self.credentialLifetime), serial: 1, issuedAtMilliseconds: milliseconds)
    return Principal(path: path, keys: keys, file: file)
  }

  /// The person gets a credential, and an authority for the whole tree with a key of its own, so that the root's key
  /// can be put away.
  private func writeProfile(
    in directory: NodeDirectory, _ person: Principal, _ root: CertificateAuthority, process: TreePath,
    address: NetworkAddress, _ now: Date
  ) throws {
    let keys = PrincipalKeys()
    let chain = try root.issueAuthority(
      for: .root, key: keys.signing.verifyingKey, validity: Validity(from: now, lifetime: Self.authorityLifetime))
    try Profile.create(
      at: directory.profile, root: root.root, credential: person.file.chain, keys: person.keys,
      authority: Profile.Authority(chain: chain, keys: keys), path: person.path,
      processes: [Profile.Process(path: process.description, addresses: ["\(address)"])])
    guard let dns else { return }
    do { try Profile.setDNS(dns, in: directory.profile) } catch {
      if case .malformed = error.problem { throw NodeError.setting("dns", expected: "a name of DNS") }
      throw error
    }
  }

  private func makeStore(
    in directory: NodeDirectory, node: Principal, person: Principal, root: PrincipalKeys,
    authority: CertificateAuthority, _ now: Date
  ) async throws {
    let generation = Generation.root
    let place = directory.store(generation: generation.rawValue)
    let configuration = StoreConfiguration(generation: generation.rawValue, sectorSize: self.sectorSize)
    let store: SectorStore
    try OwnerFiles.makeDirectory(place)
    do throws(StoreError) {
      try SectorStore.create(at: place, configuration)
      store = try SectorStore.open(at: place)
    } catch {
      throw NodeError.store(place, error)
    }
    do {
      let verifier = ChainVerifier(root: authority.root)
      let identity = try node.file.verify(with: verifier, at: now).credential
      let signatures = SignatureCache()
      let sectors = try await SectorGroup(
        store: store, generation: generation, sectorSize: self.sectorSize,
        member: SectorGroup.Member(credential: identity, key: node.keys.signing), verifier: verifier,
        signatures: signatures, now: WallClock.nanoseconds)
      let format = DomainFormat(
        process: node.file, person: person.file, root: root.agreement.publicKey, domain: authority.domain,
        time: WallClock.nanoseconds())
      try await format.commit(
        to: sectors, as: identity,
        signer: RecordSigner(key: node.keys.signing, chainDigest: identity.chainDigest, cache: signatures))
    } catch {
      store.abandon()
      throw error
    }
    do { try await store.close() } catch { throw NodeError.store(place, error) }
  }
}
