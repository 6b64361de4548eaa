// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Filesystem
import Foundation
import GRPCCore
import Inodes
import Logging
import NIOCore
import NIOPosix
import Node
import SectorStore
import Sectors
import Synchronization
import Testing
import Transport
import Trust

/// Somebody with a credential.
struct VolumePrincipal: Sendable {
  let keys: PrincipalKeys
  let file: CredentialFile
  let credential: Credential

  var path: TreePath { self.credential.path }
  var signer: RecordSigner { RecordSigner(key: self.keys.signing, chainDigest: self.credential.chainDigest) }
}

/// A sector cluster of one process over a real store, in a domain with two processes that serve it, one that calls it,
/// and a person.
final class VolumeCluster: Sendable {
  let authority: CertificateAuthority
  /// The member.
  let node: VolumePrincipal
  /// Another process of the same directory, which can answer in the member's name.
  let other: VolumePrincipal
  /// A filesystem service at the root.
  let caller: VolumePrincipal
  let person: VolumePrincipal
  let group: SectorGroup
  private let scratch: Scratch
  private let logger: Logger

  static let sectorSize = 4_096
  /// The numbers below are taken.
  private static let firstFree: UInt64 = 7

  init() async throws {
    let authority = try CertificateAuthority(newRoot: SigningKey(), at: .now)
    func principal(_ kind: Credential.Kind, _ path: String, _ services: [Service]) throws -> VolumePrincipal {
      let keys = PrincipalKeys()
      let request = try CredentialRequest(keys: keys, issuedAtMilliseconds: 1)
      let file = try authority.issueCredentialFile(
        kind, at: TreePath(parsing: path), request: request, services: services,
        validity: Validity(from: .now, lifetime: .seconds(3_600)), serial: 1, issuedAtMilliseconds: 1)
      let verified = try file.verify(with: ChainVerifier(root: authority.root), at: .now)
      return VolumePrincipal(keys: keys, file: file, credential: verified.credential)
    }
    self.authority = authority
    self.node = try principal(.process, "/node1", [.sector, .filesystem])
    self.other = try principal(.process, "/node2", [.sector])
    self.caller = try principal(.process, "/caller", [.filesystem])
    self.person = try principal(.user, "/person", [])
    self.scratch = try Scratch()
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    self.logger = logger
    var configuration = StoreConfiguration(generation: 1)
    configuration.segmentBytes = 4 << 20
    configuration.growthBytes = 1 << 20
    let place = "\(self.scratch.path)/store"
    try SectorStore.create(at: place, configuration)
    self.group = try await SectorGroup(
      store: SectorStore.open(at: place, configuration), generation: .root, sectorSize: Self.sectorSize,
      member: .init(credential: self.node.credential, key: self.node.keys.signing),
      verifier: ChainVerifier(root: authority.root), signatures: SignatureCache(),
      now: { Int64(Date.now.timeIntervalSince1970 * 1e9) })
    try await self.format()
  }

  deinit { self.group.store.abandon() }

  private func format() async throws {
    _ = try await self.group.allocateInodes(UInt32(Self.firstFree) - 3)
    var commit = Commit()
    var superblock = VolumeInode(1, type: .superblock)
    superblock.links.parents = []
    commit.records.append(try superblock.next(by: self.node))
    var root = VolumeInode(2, type: .directory)
    root.links.parents = []
    commit.records.append(try root.next(by: self.node))
    for (number, principal) in [self.node, self.other, self.caller, self.person].enumerated() {
      var inode = VolumeInode(UInt64(number) + 3, type: .credential)
      inode.credential = principal.file.bytes
      commit.records.append(try inode.next(by: self.node))
    }
    guard case .applied = try await self.group.perform(commit, by: self.node.credential) else {
      throw VolumeTestFailure()
    }
  }

  /// Serves the cluster as one of its processes, at a free port, for as long as `body` runs.
  func serve<Result: Sendable>(
    as process: VolumePrincipal? = nil, faults: VolumeFaults? = nil,
    _ body: @escaping @Sendable (RemoteVolumes.Process) async throws -> Result
  ) async throws -> Result {
    let process = process ?? self.node
    let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let security = try TransportSecurity(
      root: self.authority.root, identity: .init(chain: process.credential.chain, key: process.keys.signing))
    let transport = try NodeServerTransport(
      security: security, listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)], group: eventLoops,
      logger: self.logger)
    let handler = SectorServiceHandler(self.group)
    let services: [any RegistrableRPCService] =
      if let faults { [FaultySectorService(handler: handler, faults: faults), VolumeHealth(faults: faults)] } else {
        [handler, VolumeHealth(faults: VolumeFaults())]
      }
    let server = GRPCServer(transport: transport, services: services)
    let result: Swift.Result<Result, any Error>
    do {
      result = .success(
        try await withThrowingTaskGroup(of: Void.self) { tasks in
          tasks.addTask { try await server.serve() }
          defer { tasks.cancelAll() }
          let address = try #require(try await transport.listeningAddresses.first)
          return try await body(RemoteVolumes.Process(path: process.path, addresses: [address]))
        })
    } catch {
      result = .failure(error)
    }
    try await eventLoops.shutdownGracefully()
    return try result.get()
  }

  /// Runs the volumes of the calling process for as long as `body` runs.
  func withVolumes<Result: Sendable>(
    timing: RemoteVolumes.Timing = RemoteVolumes.Timing(),
    _ processes: @escaping RemoteVolumes.Processes, _ body: (RemoteVolumes, ConnectionPool) async throws -> Result
  ) async throws -> Result {
    let security = try TransportSecurity(
      root: self.authority.root,
      identity: .init(chain: self.caller.credential.chain, key: self.caller.keys.signing))
    var limits = TransportLimits()
    limits.maxBackoff = .milliseconds(100)
    let pool = ConnectionPool(
      Dialer(security, group: MultiThreadedEventLoopGroup.singleton, limits: limits))
    let volumes = RemoteVolumes(
      pool: pool, verifier: ChainVerifier(root: self.authority.root), signatures: SignatureCache(), timing: timing,
      processes: processes)
    return try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { await pool.run() }
      tasks.addTask { await volumes.run() }
      defer { tasks.cancelAll() }
      return try await body(volumes, pool)
    }
  }

  /// Serves the cluster as its member, and hands over the volume that the calling process has of it.
  func withVolume(
    faults: VolumeFaults? = nil, timing: RemoteVolumes.Timing = RemoteVolumes.Timing(),
    _ body: @escaping @Sendable (any Volume) async throws -> Void
  ) async throws {
    try await self.serve(faults: faults) { process in
      try await self.withVolumes(timing: timing) { directory in
        directory == .root ? [process] : []
      } _: { volumes, _ in
        try await body(volumes.volume(.root, serving: .root, .rootDirectory))
      }
    }
  }

  /// Commits as the member, past the network.
  @discardableResult
  func apply(_ commit: Commit) async throws -> CommitReceipt {
    guard case .applied(let receipt) = try await self.group.perform(commit, by: self.node.credential) else {
      throw VolumeTestFailure()
    }
    return receipt
  }

  /// A new file in the root directory, made past the network.
  func makeFile(sectors: [UInt64: [UInt8]] = [:]) async throws -> VolumeInode {
    var inode = VolumeInode(try await self.group.allocateInodes(1), type: .file)
    try inode.write(sectors)
    try await self.apply(inode.commit(by: self.node))
    return inode
  }
}

struct VolumeTestFailure: Error {}

/// An inode as its writer knows it.
struct VolumeInode: Sendable {
  let fileID: FileID
  let key = FileKey.random()
  var content: ContentPart
  var attributes: AttributesPart
  var links: LinksPart
  var credential: [UInt8] = []
  private(set) var record: InodeRecord?
  private var tree = IntegrityTree()
  private var blocks = Commit.Blocks()

  init(_ number: UInt64, type: FileType) {
    let file = FileID(generation: .root, inode: InodeNumber(number))
    self.fileID = file
    var random = SystemRandomNumberGenerator()
    self.content = ContentPart(
      fileID: file, version: 1, sectorSize: VolumeCluster.sectorSize,
      contentID: (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &random) }, modified: 1)
    let rules = AccessRules(owner: .root, group: .root, mode: Mode(truncating: 0o755))
    self.attributes = AttributesPart(fileID: file, version: 1, type: type, rules: rules, changed: 1, created: 1)
    self.links = LinksPart(fileID: file, version: 1, count: 1, parents: [.rootDirectory])
  }

  var cipher: SectorCipher { SectorCipher(key: self.key, contentID: self.content.contentID) }
  var version: Version { self.record?.version ?? .absent }

  /// Writes whole sectors; the file grows as needed.
  mutating func write(_ sectors: [UInt64: [UInt8]]) throws {
    for (index, plain) in sectors.sorted(by: { $0.key < $1.key }) {
      if index >= self.tree.sectorCount {
        try self.tree.resize(to: index + 1)
        self.content.size = (index + 1) * UInt64(VolumeCluster.sectorSize)
      }
      let (leaves, run) = try self.cipher.seal(plain[...], from: index, sectorSize: VolumeCluster.sectorSize)
      try self.tree.set(leaves[0], at: index)
      self.blocks.runs.append(run)
    }
  }

  /// The record of the next version, all parts signed anew.
  mutating func next(by principal: VolumePrincipal) throws -> InodeRecord {
    let version = self.version.next
    self.content.version = version
    self.content.treeLevels = self.tree.levels
    for node in self.tree.seal() { self.blocks.nodes[node.key] = node.bytes }
    self.content.leaves = self.tree.recordLeaves
    self.content.integrityRoot = self.tree.root
    self.attributes.version = version
    self.links.version = version
    if self.fileID.inode.rawValue > 2 { self.links.count = UInt32(self.links.parents.count) }
    let signer = principal.signer
    let record = InodeRecord(
      fileID: self.fileID, version: version, content: try signer.sign(self.content),
      attributes: try signer.sign(self.attributes), links: try signer.sign(self.links), credential: self.credential)
    self.record = record
    return record
  }

  /// A commit of the next version.
  mutating func commit(by principal: VolumePrincipal) throws -> Commit {
    var commit = Commit()
    commit.records = [try self.next(by: principal)]
    if !self.blocks.runs.isEmpty || !self.blocks.nodes.isEmpty { commit.blocks[self.fileID] = self.blocks }
    self.blocks = Commit.Blocks()
    return commit
  }
}

/// A sector full of one byte.
func volumeSector(_ byte: UInt8) -> [UInt8] { [UInt8](repeating: byte, count: VolumeCluster.sectorSize) }
