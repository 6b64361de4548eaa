// SPDX-License-Identifier: Apache-2.0

import Crypto
import Discovery
import Foundation
import Inodes
import NIOPosix
import Routes
import SectorStore
import Sectors
import Synchronization
import Trust

@testable import Filesystem

/// A domain with two clusters, the root's and that of `/site`: groups over real stores, a filesystem service and the
/// answers of discovery in each. They ask each other by function calls.
final class TestTree: Sendable {
  /// One of the clusters.
  struct Side {
    let process: Credential
    let group: SectorGroup
    let filesystem: Filesystem
    let routes: NodeRoutes
    let answers: DiscoveryAnswers
  }

  let authority: CertificateAuthority
  let root: Side
  let site: Side
  let calls: TestCalls
  /// What the other cluster's filesystem service knows of the root's.
  let siteVolumes: TestVolumes
  /// All that is in the tree, by path.
  let files: Mutex<[TreePath: CredentialFile]>
  let keys: Mutex<[TreePath: PrincipalKeys]>
  /// Where the two processes say that they are. No other test has these hosts.
  let rootAddress: NetworkAddress
  let siteAddress: NetworkAddress

  static func path(_ text: String) -> TreePath {
    do { return try TreePath(parsing: text) } catch { fatalError("a test's own path: \(text)") }
  }

  static let owner = TestTree.path("/owner")
  static func now() -> Int64 { Int64(Date().timeIntervalSince1970 * 1e9) }

  static func with(_ body: (TestTree) async throws -> Void) async throws {
    let pool = NIOThreadPool(numberOfThreads: 1)
    pool.start()
    let directory = FileManager.default.temporaryDirectory.path() + "/discovery-\(UUID().uuidString)"
    var stores: [SectorStore] = []
    do {
      let tree = try await TestTree(in: directory, pool, &stores)
      try await tree.running { try await body(tree) }
      for store in stores { try await store.close() }
    } catch {
      for store in stores { store.abandon() }
      try? FileManager.default.removeItem(atPath: directory)
      try await pool.shutdownGracefully()
      throw error
    }
    try FileManager.default.removeItem(atPath: directory)
    try await pool.shutdownGracefully()
  }

  private func running(_ body: () async throws -> Void) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for side in [self.root, self.site] { group.addTask { await side.routes.run() } }
      defer { group.cancelAll() }
      try await body()
    }
  }

  private init(in directory: String, _ pool: NIOThreadPool, _ stores: inout [SectorStore]) async throws {
    self.authority = try CertificateAuthority(newRoot: SigningKey(), at: Date())
    self.calls = TestCalls()
    let verifier = ChainVerifier(root: self.authority.root)
    let network = "127.\(UInt8.random(in: 1...254)).\(UInt8.random(in: 1...254))"
    self.rootAddress = try NetworkAddress(host: "\(network).1", port: 7_431)
    self.siteAddress = try NetworkAddress(host: "\(network).2", port: 7_431)
    let (keys, ownerKeys) = (PrincipalKeys(), PrincipalKeys())
    let node = try Self.issue(
      .process, "/node1", keys, [.sector, .filesystem], at: self.rootAddress, by: self.authority)
    let owner = try Self.issue(.user, "/owner", ownerKeys, [], by: self.authority)
    self.files = Mutex([Self.path("/node1"): node, Self.owner: owner])
    self.keys = Mutex([Self.path("/node1"): keys, Self.owner: ownerKeys])
    let identity = try verifier.verify(node.chain, at: Date())
    func store(_ name: String, _ generation: UInt64) throws -> SectorStore {
      let path = "\(directory)/\(name)"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      try SectorStore.create(at: path, StoreConfiguration(generation: generation))
      let store = try SectorStore.open(at: path)
      stores.append(store)
      return store
    }
    func group(
      _ store: SectorStore, _ generation: Generation, _ member: Credential, _ keys: PrincipalKeys,
      _ bootstrap: GroupBootstrap? = nil
    ) async throws -> SectorGroup {
      try await SectorGroup(
        store: store, generation: generation, sectorSize: store.configuration.sectorSize,
        member: .init(credential: member, key: keys.signing), verifier: verifier, signatures: SignatureCache(),
        now: Self.now, bootstrap: bootstrap)
    }
    let root = try await group(store("root", 1), .root, identity, keys)
    let format = DomainFormat(
      process: node, person: owner, root: AgreementKey().publicKey, domain: self.authority.domain, time: Self.now())
    try await format.commit(
      to: root, as: identity,
      signer: RecordSigner(key: keys.signing, chainDigest: identity.chainDigest, cache: root.signatures))
    let volumes = (root: TestVolumes(), site: TestVolumes())
    self.siteVolumes = volumes.site
    let rootFilesystem = try await Filesystem(
      sectors: root, identity: identity, keys: keys, pool: pool, volumes: volumes.root, now: Self.now)
    self.root = self.calls.side(identity, root, rootFilesystem, above: nil)

    // The other cluster, as its first process would begin it.
    let request = Request(caller: .principal(Self.owner))
    _ = try await rootFilesystem.makeDirectory(
      Self.path("/site"), mode: Mode(truncating: 0o755), parents: false, request)
    // What was there before stays with the root's cluster.
    _ = try await rootFilesystem.makeDirectory(
      Self.path("/site/old"), mode: Mode(truncating: 0o755), parents: false, request)
    let eveKeys = PrincipalKeys()
    let eve = try Self.issue(.user, "/site/old/eve", eveKeys, [], by: self.authority)
    _ = try await rootFilesystem.addCredential(eve.bytes, request)
    self.files.withLock { $0[Self.path("/site/old/eve")] = eve }
    self.keys.withLock { $0[Self.path("/site/old/eve")] = eveKeys }
    let siteKeys = PrincipalKeys()
    let nas = try Self.issue(
      .process, "/site/nas1", siteKeys, [.sector, .filesystem], at: self.siteAddress, by: self.authority)
    self.files.withLock { $0[Self.path("/site/nas1")] = nas }
    self.keys.withLock { $0[Self.path("/site/nas1")] = siteKeys }
    let admission = try await rootFilesystem.addCredential(nas.bytes, request)
    let siteIdentity = try verifier.verify(nas.chain, at: Date())
    guard let readcap = admission.readcap else { throw FilesystemError.noKey(admission.file.fileID) }
    let place = try await rootFilesystem.place(of: Self.path("/site"), for: .principal(Self.owner), follow: false)
    guard let key = place.found?.state.key else { throw FilesystemError.noKey(readcap.fileID) }
    let generation = try await root.allocateGeneration(
      claim: [UInt8](repeating: 7, count: 16), for: siteIdentity.path)
    let entry = CredentialEntry(fileID: admission.file.fileID, directory: readcap.fileID, credential: nas)
    let site = try await group(
      store("site", generation.rawValue), generation, siteIdentity, siteKeys,
      GroupBootstrap(home: GroupHome(directory: readcap.fileID, path: Self.path("/site")), members: [entry]))
    try await Self.delegate(readcap.fileID, to: generation, root, siteIdentity, siteKeys)
    for (group, other) in [(site, identity), (root, siteIdentity)] {
      group.guests.confirm(
        .init(path: other.path, keyID: other.keyID, kind: .process, services: [.sector, .filesystem]),
        for: .seconds(3_600))
    }
    volumes.root.set(generation, site)
    volumes.site.set(.root, root)
    let siteFilesystem = try await Filesystem(
      sectors: site, identity: siteIdentity, keys: siteKeys, pool: pool,
      home: FilesystemHome(
        path: Self.path("/site"), fileID: readcap.fileID, key: key,
        above: [FilesystemHome.Cluster(generation: .root, path: .root, fileID: .rootDirectory)]),
      volumes: volumes.site, now: Self.now)
    self.site = self.calls.side(
      siteIdentity, site, siteFilesystem,
      above: Redirect(
        directory: .root, processes: [RouteProcess(path: Self.path("/node1"), addresses: [self.rootAddress])],
        lifetime: .seconds(30)))
  }

  static func issue(
    _ kind: Credential.Kind, _ path: String, _ keys: PrincipalKeys, _ services: [Service],
    at address: NetworkAddress? = nil, by authority: CertificateAuthority
  ) throws -> CredentialFile {
    let milliseconds = UInt64(Date().timeIntervalSince1970 * 1e3)
    let request = try CredentialRequest(
      keys: keys, addresses: address.map { [$0] } ?? [], issuedAtMilliseconds: milliseconds)
    return try authority.issueCredentialFile(
      kind, at: TreePath(parsing: path), request: request, services: services,
      validity: Validity(from: Date(), lifetime: .seconds(86_400)), serial: 1,
      issuedAtMilliseconds: milliseconds)
  }

  /// Has the directory say which generation serves it.
  private static func delegate(
    _ directory: FileID, to generation: Generation, _ root: SectorGroup, _ identity: Credential, _ keys: PrincipalKeys
  ) async throws {
    guard let record = try await root.record(directory) else { throw FilesystemError.notFound }
    var attributes = record.attributes.part
    attributes.version = record.version.next
    attributes.servedByGeneration = generation
    attributes.actingFor = nil
    let signer = RecordSigner(key: keys.signing, chainDigest: identity.chainDigest)
    var commit = Commit()
    commit.records = [
      InodeRecord(
        fileID: directory, version: record.version.next, content: record.content,
        attributes: try signer.sign(attributes), links: record.links, credential: record.credential)
    ]
    _ = try await root.perform(commit, by: identity)
  }

  // MARK: What is in the tree

  private var asOwner: Request { Request(caller: .principal(Self.owner)) }

  private func filesystem(for path: TreePath) -> Filesystem {
    Self.path("/site").isAncestor(of: path) ? self.site.filesystem : self.root.filesystem
  }

  func makeDirectory(_ text: String, mode: UInt32 = 0o755) async throws {
    let path = Self.path(text)
    _ = try await self.filesystem(for: path).makeDirectory(
      path, mode: Mode(truncating: mode), parents: false, self.asOwner)
  }

  func put(_ text: String, mode: UInt32 = 0o644) async throws {
    let path = Self.path(text)
    var upload = try await self.filesystem(for: path).upload(
      path, mode: Mode(truncating: mode), mustBeNew: true, self.asOwner)
    try await upload.append([1, 2, 3])
    _ = try await upload.finish(modified: nil)
  }

  /// Closes a directory of the root's cluster to all but its owner, or opens it.
  func close(_ text: String, mode: UInt32 = 0o700) async throws {
    var change = AttributeChange()
    change.mode = Mode(truncating: mode)
    _ = try await self.root.filesystem.setAttributes(Self.path(text), follow: false, change, self.asOwner)
  }

  /// Puts a credential into the tree, and answers it. The directory must let the process in that does it.
  @discardableResult
  func add(_ kind: Credential.Kind, _ text: String, _ services: [Service] = []) async throws -> Caller {
    let (path, keys) = (Self.path(text), PrincipalKeys())
    let file = try Self.issue(kind, text, keys, services, by: self.authority)
    // What lies directly in the other cluster's directory is stored by the root's.
    let filesystem = path.parent == Self.path("/site") ? self.root.filesystem : self.filesystem(for: path)
    _ = try await filesystem.addCredential(file.bytes, self.asOwner)
    self.files.withLock { $0[path] = file }
    self.keys.withLock { $0[path] = keys }
    return .credential(try self.credential(file))
  }

  func credential(_ file: CredentialFile) throws -> Credential {
    try ChainVerifier(root: self.authority.root).verify(file.chain, at: Date())
  }

  /// Somebody whose credential is in the tree.
  func caller(_ text: String) throws -> Caller {
    guard let file = self.files.withLock({ $0[Self.path(text)] }) else { throw FilesystemError.notFound }
    return .credential(try self.credential(file))
  }
}

final class TestVolumes: VolumeSource {
  private let volumes = Mutex<[Generation: any Volume]>([:])
  private let asked = Mutex(0)

  /// How often one was asked for.
  var count: Int { self.asked.withLock { $0 } }

  func remove(_ generation: Generation) { self.volumes.withLock { $0[generation] = nil } }
  func set(_ generation: Generation, _ volume: any Volume) { self.volumes.withLock { $0[generation] = volume } }

  func volume(
    _ generation: Generation, serving directory: TreePath, _ id: FileID
  ) async throws(SectorError) -> any Volume {
    self.asked.withLock { $0 += 1 }
    guard let volume = self.volumes.withLock({ $0[generation] }) else { throw .unreachable(generation) }
    return volume
  }
}

/// Asks the answers of another cluster by calling them, and counts how often.
final class TestCalls: Sendable {
  private struct State {
    var answers: [TreePath: DiscoveryAnswers] = [:]
    var counts: [TreePath: Int] = [:]
    var unreachable: Set<TreePath> = []
    var isHolding = false
    var held: [CheckedContinuation<Void, Never>] = []
  }

  private let state = Mutex(State())

  /// How often a process was asked.
  func count(_ text: String) -> Int { self.state.withLock { $0.counts[TestTree.path(text)] ?? 0 } }

  func set(_ text: String, isReachable: Bool) {
    self.state.withLock { state in
      if isReachable {
        state.unreachable.remove(TestTree.path(text))
      } else {
        state.unreachable.insert(TestTree.path(text))
      }
    }
  }

  /// From now on questions wait.
  func hold() { self.state.withLock { $0.isHolding = true } }

  func letGo() {
    let held = self.state.withLock { state in
      state.isHolding = false
      defer { state.held = [] }
      return state.held
    }
    for continuation in held { continuation.resume() }
  }

  fileprivate func side(
    _ process: Credential, _ group: SectorGroup, _ filesystem: Filesystem, above: Redirect?
  ) -> TestTree.Side {
    let routes = NodeRoutes(
      cluster: GroupAnswers(group), caller: Caller(calls: self, credential: process), above: { above },
      now: { RouteTime(nanoseconds: TestTree.now()) })
    let answers = DiscoveryAnswers(cluster: GroupAnswers(group), filesystem: filesystem, routes: routes)
    self.state.withLock { $0.answers[process.path] = answers }
    return TestTree.Side(
      process: process, group: group, filesystem: filesystem, routes: routes, answers: answers)
  }

  fileprivate func answers(of process: RouteProcess) async throws -> DiscoveryAnswers {
    await withCheckedContinuation { continuation in
      let isHeld = self.state.withLock { state in
        state.counts[process.path, default: 0] += 1
        if state.isHolding { state.held.append(continuation) }
        return state.isHolding
      }
      if !isHeld { continuation.resume() }
    }
    return try self.state.withLock { state in
      guard !state.unreachable.contains(process.path), let answers = state.answers[process.path] else {
        throw UnreachableProcess(path: process.path, reason: "not in this test")
      }
      return answers
    }
  }

  private struct Caller: DiscoveryCaller {
    let calls: TestCalls
    let credential: Credential

    func find(_ query: FindQuery, at process: RouteProcess) async throws -> FindAnswer {
      try await self.calls.answers(of: process).find(query, by: .credential(self.credential))
    }

    func readCredential(_ path: TreePath, at process: RouteProcess) async throws -> CredentialAnswer {
      try await self.calls.answers(of: process).readCredential(path, by: .credential(self.credential))
    }
  }
}
