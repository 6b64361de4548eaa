// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import Inodes
import NIOPosix
import SectorStore
import Sectors
import Trust

@testable import Filesystem

/// A domain with one process and one person, on a real store in a temporary directory.
final class TestDomain: Sendable {
  static let owner = CallerIdentity.principal(path("/owner"))

  let directory: String
  let authority: CertificateAuthority
  let processKeys = PrincipalKeys()
  let personKeys = PrincipalKeys()
  let process: CredentialFile
  let person: CredentialFile
  let pool = NIOThreadPool(numberOfThreads: 1)

  static func path(_ text: String) -> TreePath {
    do { return try TreePath(parsing: text) } catch { fatalError("a test's own path: \(text)") }
  }

  static func now() -> Int64 { Int64(Date().timeIntervalSince1970 * 1e9) }

  init(sectorSize: Int = 4_096) async throws {
    self.directory = FileManager.default.temporaryDirectory.path() + "/filesystem-\(UUID().uuidString)"
    let now = Date()
    self.authority = try CertificateAuthority(newRoot: SigningKey(), at: now)
    self.process = try Self.issue(
      .process, "/node1", self.processKeys, [.sector, .filesystem], by: self.authority, serial: 1)
    self.person = try Self.issue(.user, "/owner", self.personKeys, [], by: self.authority, serial: 1)
    self.pool.start()
    try SectorStore.create(at: self.directory, StoreConfiguration(generation: 1, sectorSize: sectorSize))
    try await self.withGroup { group in
      let format = DomainFormat(
        process: self.process, person: self.person, root: AgreementKey().publicKey, domain: self.authority.domain,
        time: Self.now())
      let identity = try self.identity
      try await format.commit(
        to: group, as: identity,
        signer: RecordSigner(
          key: self.processKeys.signing, chainDigest: identity.chainDigest, cache: group.signatures))
    }
  }

  static func issue(
    _ kind: Credential.Kind, _ path: String, _ keys: PrincipalKeys, _ services: [Service],
    by authority: CertificateAuthority, serial: UInt64
  ) throws -> CredentialFile {
    let milliseconds = UInt64(Date().timeIntervalSince1970 * 1e3)
    let request = try CredentialRequest(keys: keys, addresses: [], issuedAtMilliseconds: milliseconds)
    return try authority.issueCredentialFile(
      kind, at: TreePath(parsing: path), request: request, services: services,
      validity: Validity(from: Date(), lifetime: .seconds(86_400)), serial: serial, issuedAtMilliseconds: milliseconds)
  }

  var verifier: ChainVerifier { ChainVerifier(root: self.authority.root) }

  var identity: Credential {
    get throws { try self.verifier.verify(self.process.chain, at: Date()) }
  }

  /// Opens the store, as a start of the process does, and closes it.
  func withGroup<Result>(_ body: (SectorGroup) async throws -> Result) async throws -> Result {
    let store = try SectorStore.open(at: self.directory)
    do {
      let group = try await SectorGroup(
        store: store, generation: .root, sectorSize: store.configuration.sectorSize,
        member: .init(credential: self.identity, key: self.processKeys.signing), verifier: self.verifier,
        signatures: SignatureCache(), now: Self.now)
      let result = try await body(group)
      try await store.close()
      return result
    } catch {
      store.abandon()
      throw error
    }
  }

  /// Another filesystem service of the same cluster.
  func filesystem(_ group: SectorGroup, knownByteCountMax: Int = 64 << 20) async throws -> Filesystem {
    try await Filesystem(
      sectors: group, identity: self.identity, keys: self.processKeys, pool: self.pool,
      knownByteCountMax: knownByteCountMax, now: Self.now)
  }

  func withFilesystem<Result>(_ body: (Filesystem) async throws -> Result) async throws -> Result {
    try await self.withGroup { group in try await body(self.filesystem(group)) }
  }

  /// Makes a domain with two filesystem services that know nothing of one another.
  static func withTwoFilesystems(_ body: (TestDomain, Filesystem, Filesystem) async throws -> Void) async throws {
    try await Self.with { domain in
      try await domain.withGroup { group in
        try await body(domain, domain.filesystem(group), domain.filesystem(group))
      }
    }
  }

  func remove() async throws {
    try FileManager.default.removeItem(atPath: self.directory)
    try await self.pool.shutdownGracefully()
  }

  /// Makes a domain for a test, and removes it after.
  static func with(sectorSize: Int = 4_096, _ body: (TestDomain) async throws -> Void) async throws {
    let domain = try await TestDomain(sectorSize: sectorSize)
    do { try await body(domain) } catch {
      try await domain.remove()
      throw error
    }
    try await domain.remove()
  }

  /// The same with its filesystem open.
  static func withFilesystem(
    sectorSize: Int = 4_096, _ body: (TestDomain, Filesystem) async throws -> Void
  ) async throws {
    try await Self.with(sectorSize: sectorSize) { domain in
      try await domain.withFilesystem { try await body(domain, $0) }
    }
  }
}

/// What tests do most, as the owner of the root directory.
extension Filesystem {
  var asOwner: Request { Request(caller: TestDomain.owner) }

  @discardableResult
  func put(
    _ text: String, _ data: [UInt8], mode: UInt32 = 0o644, as request: Request? = nil, mustBeNew: Bool = false
  ) async throws -> FileInfo {
    var upload = try await self.upload(
      TestDomain.path(text), mode: Mode(truncating: mode), mustBeNew: mustBeNew, request ?? self.asOwner)
    do {
      try await upload.append(data)
      return try await upload.finish(modified: nil)
    } catch {
      await upload.abandon()
      throw error
    }
  }

  func get(_ text: String, as caller: CallerIdentity = TestDomain.owner) async throws -> [UInt8] {
    var reader = try await self.open(TestDomain.path(text), for: caller)
    var data: [UInt8] = []
    while data.count < Int(reader.info.size) {
      data += try await reader.read(offset: UInt64(data.count), count: 1 << 20)
    }
    return data
  }

  @discardableResult
  func makeDirectory(_ text: String, mode: UInt32 = 0o755, as request: Request? = nil) async throws -> FileInfo {
    try await self.makeDirectory(
      TestDomain.path(text), mode: Mode(truncating: mode), parents: false, request ?? self.asOwner)
  }

  func remove(_ text: String) async throws {
    try await self.remove(TestDomain.path(text), expecting: .any, self.asOwner)
  }

  @discardableResult
  func move(_ from: String, to: String) async throws -> FileInfo {
    try await self.rename(TestDomain.path(from), to: TestDomain.path(to), noReplace: false, self.asOwner)
  }

  /// All names of a directory, over pages of a size.
  func names(_ text: String, pageSize: Int = 1_000) async throws -> [String] {
    var names: [String] = []
    var cursor: [UInt8] = []
    repeat {
      let page = try await self.list(
        TestDomain.path(text), after: cursor, count: pageSize, withInfo: false, for: TestDomain.owner)
      names += page.entries.map(\.name.description)
      cursor = page.next
    } while !cursor.isEmpty
    return names
  }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix: RandomNumberGenerator {
  /// The seeds of a run; to run one again: BLOCKTREE_SEED.
  static func seeds(_ count: Int) -> [UInt64] {
    if let seed = ProcessInfo.processInfo.environment["BLOCKTREE_SEED"].flatMap(UInt64.init) { return [seed] }
    return (0..<count).map { _ in UInt64.random(in: 0 ... .max) }
  }

  var state: UInt64

  mutating func next() -> UInt64 {
    self.state &+= 0x9E37_79B9_7F4A_7C15
    var word = self.state
    word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
    return word ^ word >> 31
  }
}
