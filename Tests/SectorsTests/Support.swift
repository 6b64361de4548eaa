// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import SectorStore
import Sectors
import Synchronization
import Testing
import Trust

/// SplitMix64: small, and the same on every machine.
struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  init(seed: UInt64) { self.state = seed }

  mutating func next() -> UInt64 {
    self.state &+= 0x9E37_79B9_7F4A_7C15
    var value = self.state
    value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
    return value ^ (value >> 31)
  }

  mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }
}

enum Seeds {
  /// The seeds to run: the one of SECTORS_SEED if set, else `count` from a start that differs from run to run.
  static func take(_ count: Int) -> [UInt64] {
    if let text = ProcessInfo.processInfo.environment["SECTORS_SEED"], let seed = UInt64(text) { return [seed] }
    let start = UInt64.random(in: 0..<1 << 32)
    return (0..<UInt64(count)).map { start + $0 }
  }
}

func path(_ text: String) throws -> TreePath { try TreePath(parsing: text) }

func file(_ number: UInt64) -> FileID { FileID(generation: .root, inode: InodeNumber(number)) }

func presentTime() -> Int64 { Int64(Date.now.timeIntervalSince1970 * 1e9) }

// MARK: Principals

/// Somebody with a credential in the domain.
struct TestPrincipal: Sendable {
  let keys: PrincipalKeys
  let credentialFile: CredentialFile
  let credential: Credential

  var path: TreePath { self.credential.path }
  var key: SigningKey { self.keys.signing }

  /// Signs as this principal.
  func signer(_ cache: SignatureCache? = nil) -> RecordSigner {
    RecordSigner(key: self.key, chainDigest: self.credential.chainDigest, cache: cache)
  }
}

/// A domain with a process that hosts everything and three people; the root directory is Ann's.
struct TestDomain: Sendable {
  let authority: CertificateAuthority
  let node: TestPrincipal
  let ann: TestPrincipal
  let bob: TestPrincipal
  /// A member of the group /staff.
  let cleo: TestPrincipal

  init() throws {
    let authority = try CertificateAuthority(newRoot: SigningKey(), at: .now)
    self.authority = authority
    self.node = try Self.principal(.process, "/node1", services: [.sector, .filesystem], by: authority)
    self.ann = try Self.principal(.user, "/ann", by: authority)
    self.bob = try Self.principal(.user, "/bob", by: authority)
    self.cleo = try Self.principal(.user, "/staff/cleo", by: authority)
  }

  var verifier: ChainVerifier { ChainVerifier(root: self.authority.root) }

  static func principal(
    _ kind: Credential.Kind, _ text: String, services: [Service] = [], keys: PrincipalKeys = PrincipalKeys(),
    serial: UInt64 = 1, addresses: [NetworkAddress] = [], by authority: CertificateAuthority
  ) throws -> TestPrincipal {
    let request = try CredentialRequest(keys: keys, addresses: addresses, issuedAtMilliseconds: 1)
    let file = try authority.issueCredentialFile(
      kind, at: path(text), request: request, services: services,
      validity: Validity(from: .now, lifetime: .seconds(3_600)),
      serial: serial, issuedAtMilliseconds: 1)
    let verified = try file.verify(with: ChainVerifier(root: authority.root), at: .now)
    return TestPrincipal(keys: keys, credentialFile: file, credential: verified.credential)
  }

  func principal(
    _ kind: Credential.Kind, _ text: String, services: [Service] = [], serial: UInt64 = 1
  ) throws -> TestPrincipal {
    try Self.principal(kind, text, services: services, serial: serial, by: self.authority)
  }
}

// MARK: Groups

/// A group over a real store in a directory of its own.
final class TestGroup: Sendable {
  let domain: TestDomain
  let directory: String
  private let opened = Mutex<SectorGroup?>(nil)

  /// Inode numbers of what every domain has.
  enum Inodes {
    static let node: UInt64 = 3
    static let ann: UInt64 = 4
    static let bob: UInt64 = 5
    static let cleo: UInt64 = 6
    /// Directory /staff, of Ann's.
    static let staff: UInt64 = 7
    /// The first that is free.
    static let free: UInt64 = 8
  }

  init(configuration: StoreConfiguration? = nil) async throws {
    self.domain = try TestDomain()
    self.directory = NSTemporaryDirectory() + "SectorsTests/" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
    try SectorStore.create(at: self.directory + "/store", configuration ?? Self.configuration)
    try await self.open()
    try await self.format()
  }

  deinit {
    self.opened.withLock { $0 }?.store.abandon()
    try? FileManager.default.removeItem(atPath: self.directory)
  }

  static var configuration: StoreConfiguration {
    var configuration = StoreConfiguration(generation: 1)
    configuration.segmentBytes = 4 << 20
    configuration.growthBytes = 1 << 20
    return configuration
  }

  var group: SectorGroup {
    get throws { try #require(self.opened.withLock { $0 }) }
  }

  private func open() async throws {
    let store = try SectorStore.open(at: self.directory + "/store", Self.configuration)
    let group = try await SectorGroup(
      store: store, generation: .root, sectorSize: store.configuration.sectorSize,
      member: .init(credential: self.domain.node.credential, key: self.domain.node.key),
      verifier: self.domain.verifier, signatures: SignatureCache(), now: presentTime)
    self.opened.withLock { $0 = group }
  }

  /// Opens the store again: after an orderly end, or as after a crash.
  func reopen(orderly: Bool) async throws {
    let group = try #require(self.opened.withLock { $0.take() })
    if orderly { try await group.store.close() } else { group.store.abandon() }
    try await self.open()
  }

  private func format() async throws {
    let domain = self.domain
    var commit = Commit()
    _ = try await self.group.allocateInodes(UInt32(Inodes.free) - 3)
    let rules = AccessRules(owner: domain.ann.path, group: .root, mode: Mode(truncating: 0o755))
    var superblock = TestInode(file(1), type: .superblock, rules: rules)
    superblock.links.parents = []
    commit.records.append(try superblock.next(by: domain.node))
    var root = TestInode(.rootDirectory, type: .directory, rules: rules)
    root.links.parents = []
    commit.records.append(try root.next(by: domain.node))
    for (number, principal) in [
      (Inodes.node, domain.node), (Inodes.ann, domain.ann), (Inodes.bob, domain.bob), (Inodes.cleo, domain.cleo),
    ] {
      var inode = TestInode(file(number), type: .credential, rules: rules)
      inode.credential = principal.credentialFile.bytes
      if number == Inodes.cleo { inode.links.parents = [file(Inodes.staff)] }
      commit.records.append(try inode.next(by: domain.node))
    }
    var staff = TestInode(file(Inodes.staff), type: .directory, rules: rules)
    commit.records.append(try staff.next(by: domain.node))
    let outcome = try await self.group.perform(commit, by: domain.node.credential)
    guard case .applied = outcome else { throw TestFailure() }
  }

  // MARK: What tests do most

  /// A new inode number.
  func number() async throws -> FileID { file(try await self.group.allocateInodes(1)) }

  /// A new file of Ann's in the root directory, committed by the filesystem service.
  func makeFile(
    mode: UInt32 = 0o644, type: FileType = .file, group: TreePath = .root, entries: [AccessEntry] = [],
    sectors: [UInt64: [UInt8]] = [:]
  ) async throws -> TestInode {
    let rules = AccessRules(owner: self.domain.ann.path, group: group, mode: Mode(truncating: mode), entries: entries)
    var inode = TestInode(try await self.number(), type: type, rules: rules)
    try inode.write(sectors)
    try await self.apply(inode.commit(by: self.domain.node), by: self.domain.node)
    return inode
  }

  @discardableResult
  func apply(_ commit: Commit, by principal: TestPrincipal) async throws -> CommitReceipt {
    guard case .applied(let receipt) = try await self.group.perform(commit, by: principal.credential) else {
      throw TestFailure()
    }
    return receipt
  }

  /// Reads a file back, everything verified; nil where there is none.
  func read(_ inode: TestInode) async throws -> [UInt64: [UInt8]]? {
    let group = try self.group
    guard let record = try await group.record(inode.fileID) else { return nil }
    try await group.verify(record)
    var tree = IntegrityTree(record.content.part)
    let all = 0..<record.content.part.sectorCount
    while case let missing = tree.missing(for: all), !missing.isEmpty {
      for key in missing {
        let range = try await group.read(
          inode.fileID, level: key.level, indexes: key.index..<key.index + 1, version: record.version)
        try tree.insert(Array(#require(range[key.index])), at: key)
      }
    }
    var contents: [UInt64: [UInt8]] = [:]
    for index in all {
      let leaf = try tree.leaf(at: index)
      let range = try await group.read(inode.fileID, level: 0, indexes: index..<index + 1, version: record.version)
      if leaf.isHole { continue }
      var plain: [UInt8] = []
      try inode.cipher.open(Array(#require(range[index])), leaf: leaf, at: index, range: 0..<4_096, into: &plain)
      contents[index] = plain
    }
    return contents
  }
}

struct TestFailure: Error {}

/// A sector full of one byte.
func sector(_ byte: UInt8) -> [UInt8] { [UInt8](repeating: byte, count: 4_096) }

// MARK: Inodes

/// An inode as its writer knows it: changed at will, and then made into the record and blocks of its next version.
struct TestInode: Sendable {
  let fileID: FileID
  let key = FileKey.random()
  var content: ContentPart
  var attributes: AttributesPart
  var links: LinksPart
  var credential: [UInt8] = []
  /// The newest record that was made.
  private(set) var record: InodeRecord?
  private var tree = IntegrityTree()
  private var blocks = Commit.Blocks()

  init(_ fileID: FileID, type: FileType, rules: AccessRules, in directory: FileID = .rootDirectory) {
    self.fileID = fileID
    var generator = SystemRandomNumberGenerator()
    self.content = ContentPart(
      fileID: fileID, version: 1, sectorSize: 4_096,
      contentID: (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &generator) }, modified: 1)
    self.attributes = AttributesPart(fileID: fileID, version: 1, type: type, rules: rules, changed: 1, created: 1)
    self.links = LinksPart(fileID: fileID, version: 1, count: 1, parents: [directory])
  }

  var cipher: SectorCipher { SectorCipher(key: self.key, contentID: self.content.contentID) }
  var version: Version { self.record?.version ?? .absent }

  /// Writes whole sectors; the file grows as needed.
  mutating func write(_ sectors: [UInt64: [UInt8]]) throws {
    for (index, plain) in sectors.sorted(by: { $0.key < $1.key }) {
      if index >= self.tree.sectorCount { try self.resize(to: index + 1) }
      let (leaves, run) = try self.cipher.seal(plain[...], from: index, sectorSize: 4_096)
      try self.tree.set(leaves[0], at: index)
      self.blocks.runs.append(run)
    }
  }

  mutating func resize(to sectorCount: UInt64) throws {
    try self.tree.resize(to: sectorCount)
    self.content.size = sectorCount * 4_096
  }

  /// Which parts are signed anew.
  struct Parts: OptionSet, Sendable {
    let rawValue: Int
    static let content = Parts(rawValue: 1)
    static let attributes = Parts(rawValue: 2)
    static let links = Parts(rawValue: 4)
    static let all: Parts = [.content, .attributes, .links]
  }

  /// The record of the next version; the parts that are not signed anew are those of the version before.
  mutating func next(_ parts: Parts = .all, by principal: TestPrincipal) throws -> InodeRecord {
    let version = self.version.next
    let parts = self.record == nil ? .all : parts
    let signer = principal.signer()
    if parts.contains(.content) {
      self.content.version = version
      self.content.treeLevels = self.tree.levels
      for node in self.tree.seal() { self.blocks.nodes[node.key] = node.bytes }
      self.content.leaves = self.tree.recordLeaves
      self.content.integrityRoot = self.tree.root
    }
    if parts.contains(.attributes) { self.attributes.version = version }
    if parts.contains(.links) {
      self.links.version = version
      self.links.count = self.fileID.inode.rawValue <= 2 ? 1 : UInt32(self.links.parents.count)
    }
    let old = self.record
    let record = InodeRecord(
      fileID: self.fileID, version: version,
      content: try parts.contains(.content) ? signer.sign(self.content) : #require(old?.content),
      attributes: try parts.contains(.attributes) ? signer.sign(self.attributes) : #require(old?.attributes),
      links: try parts.contains(.links) ? signer.sign(self.links) : #require(old?.links), credential: self.credential)
    self.record = record
    return record
  }

  /// Goes on from a record that is stored.
  mutating func take(_ record: InodeRecord) throws {
    self.record = record
    self.content = record.content.part
    self.attributes = record.attributes.part
    self.links = record.links.part
    self.tree = IntegrityTree(record.content.part)
    self.blocks = Commit.Blocks()
  }

  /// The tree's nodes that are needed to write a sector.
  func missing(for index: UInt64) -> [NodeKey] { self.tree.missing(for: index..<index + 1) }

  mutating func insert(_ node: [UInt8], at key: NodeKey) throws { try self.tree.insert(node, at: key) }

  /// A commit of the next version.
  mutating func commit(_ parts: Parts = .all, by principal: TestPrincipal) throws -> Commit {
    var commit = Commit()
    commit.records = [try self.next(parts, by: principal)]
    if !self.blocks.runs.isEmpty || !self.blocks.nodes.isEmpty { commit.blocks[self.fileID] = self.blocks }
    self.blocks = Commit.Blocks()
    return commit
  }

  /// A commit that writes one sector.
  mutating func commit(writing plain: [UInt8], at index: UInt64 = 0, by principal: TestPrincipal) throws -> Commit {
    try self.write([index: plain])
    return try self.commit(.content, by: principal)
  }
}

/// Expects that a commit is refused.
func expectRefused(
  _ error: SectorError, _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation,
  _ body: () async throws -> Void
) async {
  await #expect(throws: error, comment, sourceLocation: sourceLocation) { try await body() }
}
