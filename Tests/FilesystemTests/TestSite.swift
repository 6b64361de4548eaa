// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import SectorStore
import Sectors
import Synchronization
import Trust

@testable import Filesystem

/// A domain whose directory `/site` is served by a cluster of its own, of generation 2: two groups over real stores, and a
/// filesystem service in each, which reach each other's cluster by function calls.
struct TestSite {
  let domain: TestDomain
  let root: SectorGroup
  let site: SectorGroup
  let rootFilesystem: Filesystem
  let siteFilesystem: Filesystem
  /// What the filesystem services do to the groups.
  let rootGate: Gate
  let siteGate: Gate
  /// What time it is for the site's filesystem services.
  let clock: TestClock

  static let generation = Generation(2)
  static let path = TestDomain.path("/site")

  /// Another filesystem service of the site, which knows nothing of the first.
  let anotherSiteFilesystem: @Sendable () async throws -> Filesystem

  /// Makes a site for a test, and removes it after.
  ///
  /// - Parameters:
  ///   - services: of the site's process.
  ///   - before: what is done before the directory is delegated, when it is an ordinary one.
  static func with(
    services: [Service] = [.sector, .filesystem], before: (Filesystem) async throws -> Void = { _ in },
    _ body: (TestSite) async throws -> Void
  ) async throws {
    try await TestDomain.with { domain in
      try await domain.withGroup { root in
        try await Self.with(domain, root, services, before, body)
      }
    }
  }

  private static func with(
    _ domain: TestDomain, _ root: SectorGroup, _ services: [Service], _ before: (Filesystem) async throws -> Void,
    _ body: (TestSite) async throws -> Void
  ) async throws {
    let gates = (root: Gate(), site: Gate())
    let clock = TestClock()
    let sources = (root: TestVolumes(), site: TestVolumes())
    let rootFilesystem = try await Filesystem(
      sectors: root, identity: domain.identity, keys: domain.processKeys, pool: domain.pool, volumes: sources.root,
      now: TestDomain.now)
    try await rootFilesystem.makeDirectory("/site")
    try await before(rootFilesystem)
    let keys = PrincipalKeys()
    let file = try TestDomain.issue(.process, "/site/nas1", keys, services, by: domain.authority, serial: 1)
    let admission = try await rootFilesystem.addCredential(file.bytes, rootFilesystem.asOwner)
    let identity = try domain.verifier.verify(file.chain, at: Date())
    // The directory's key as the process would open it by its readcap.
    let place = try await rootFilesystem.place(of: Self.path, for: TestDomain.owner, follow: false)
    guard let key = place.found?.state.key else { throw FilesystemError.noKey(admission.directory) }
    let generation = try await root.allocateGeneration(
      claim: [UInt8](repeating: 7, count: 16), for: identity.path)
    let directory = domain.directory + "-site"
    try SectorStore.create(at: directory, StoreConfiguration(generation: generation.rawValue))
    let store = try SectorStore.open(at: directory)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    do {
      let entry = CredentialEntry(fileID: admission.file.fileID, directory: admission.directory, credential: file)
      let site = try await SectorGroup(
        store: store, generation: generation, sectorSize: 4_096,
        member: .init(credential: identity, key: keys.signing), verifier: domain.verifier,
        signatures: SignatureCache(), now: TestDomain.now,
        bootstrap: GroupBootstrap(
          home: GroupHome(directory: admission.directory, path: Self.path), members: [entry]))
      try await Self.delegate(admission.directory, to: generation, root, identity, keys)
      // Each knows the other's processes, as it does once it has asked.
      for (group, credential) in [(site, try domain.identity), (root, identity)] {
        let services: [Service] = [.sector, .filesystem]
        group.guests.confirm(
          .init(path: credential.path, keyID: credential.keyID, kind: .process, services: services),
          for: .seconds(3_600))
      }
      sources.root.set(generation, GatedVolume(base: site, gate: gates.site, caller: try domain.identity))
      sources.site.set(.root, GatedVolume(base: root, gate: gates.root, caller: identity))
      let above = [FilesystemHome.Cluster(generation: .root, path: .root, fileID: .rootDirectory)]
      let another: @Sendable () async throws -> Filesystem = {
        try await Filesystem(
          sectors: site, identity: identity, keys: keys, pool: domain.pool,
          home: FilesystemHome(path: Self.path, fileID: admission.directory, key: key, above: above),
          volumes: sources.site,
          neighbours: FilesystemNeighbours(above: {
            FilesystemRedirection(directory: .root, processes: [.init(path: TestDomain.path("/node1"), addresses: [])])
          }), now: { clock.now })
      }
      try await body(
        TestSite(
          domain: domain, root: root, site: site, rootFilesystem: rootFilesystem, siteFilesystem: try await another(),
          gates: gates, clock: clock, another: another))
      try await store.close()
    } catch {
      store.abandon()
      throw error
    }
  }

  private init(
    domain: TestDomain, root: SectorGroup, site: SectorGroup, rootFilesystem: Filesystem, siteFilesystem: Filesystem,
    gates: (root: Gate, site: Gate), clock: TestClock,
    another: @escaping @Sendable () async throws -> Filesystem
  ) {
    (self.domain, self.root, self.site) = (domain, root, site)
    (self.rootFilesystem, self.siteFilesystem) = (rootFilesystem, siteFilesystem)
    (self.rootGate, self.siteGate) = (gates.root, gates.site)
    self.clock = clock
    self.anotherSiteFilesystem = another
  }

  /// Has the directory say which generation serves it.
  private static func delegate(
    _ directory: FileID, to generation: Generation, _ root: SectorGroup, _ identity: Credential, _ keys: PrincipalKeys
  ) async throws {
    guard let record = try await root.record(directory) else { throw FilesystemError.notFound }
    let signer = RecordSigner(key: keys.signing, chainDigest: identity.chainDigest)
    var attributes = record.attributes.part
    attributes.version = record.version.next
    attributes.servedByGeneration = generation
    attributes.actingFor = nil
    var commit = Commit()
    commit.records = [
      InodeRecord(
        fileID: directory, version: record.version.next, content: record.content,
        attributes: try signer.sign(attributes), links: record.links, credential: record.credential)
    ]
    _ = try await root.perform(commit, by: identity)
  }

  /// Inodes of the site with a mark.
  var markedCount: Int {
    get throws { try self.site.store.inodes(flag: .pending).count }
  }
}

/// A clock that can be set forward.
final class TestClock: Sendable {
  private let offset = Mutex<Int64>(0)

  /// Nanoseconds since 1970 UTC.
  var now: Int64 { TestDomain.now() + self.offset.withLock { $0 } }

  func advance(seconds: Int64) { self.offset.withLock { $0 += seconds * 1_000_000_000 } }
}

/// Lets so many commits pass, and no more: as if whoever commits, or the way to the cluster, was gone then.
final class Gate: Sendable {
  struct Closed: Error {}

  private let left = Mutex<Int?>(nil)
  private let count = Mutex(0)

  /// Commits that have passed.
  var passed: Int { self.count.withLock { $0 } }

  private let isLosingAnswers = Mutex(false)

  /// What is committed from now on is, but whoever has committed it does not hear of that.
  func loseAnswers() { self.isLosingAnswers.withLock { $0 = true } }

  func open() {
    self.left.withLock { $0 = nil }
    self.isLosingAnswers.withLock { $0 = false }
    self.isCutOff.withLock { $0 = false }
  }

  private let isCutOff = Mutex(false)

  /// Nobody there can be reached, also not by those who only read.
  func cutOff() { self.isCutOff.withLock { $0 = true } }

  fileprivate func reach() throws(SectorError) {
    if self.isCutOff.withLock({ $0 }) { throw .unreachable(0) }
  }

  fileprivate func answer() throws(SectorError) {
    if self.isLosingAnswers.withLock({ $0 }) { throw .notServing }
  }

  func close(after count: Int) { self.left.withLock { $0 = count } }

  fileprivate func pass() throws(SectorError) {
    try self.reach()
    let mayPass = self.left.withLock { left in
      guard let count = left else { return true }
      left = max(0, count - 1)
      return count > 0
    }
    guard mayPass else { throw .unreachable(0) }
    self.count.withLock { $0 += 1 }
  }
}

final class TestVolumes: VolumeSource {
  private let volumes = Mutex<[Generation: any Volume]>([:])

  func set(_ generation: Generation, _ volume: any Volume) { self.volumes.withLock { $0[generation] = volume } }

  func volume(
    _ generation: Generation, serving directory: TreePath, _ id: FileID
  ) async throws(SectorError) -> any Volume {
    guard let volume = self.volumes.withLock({ $0[generation] }) else { throw .unreachable(generation) }
    return volume
  }
}

/// A group behind a gate.
struct GatedVolume: Volume {
  let base: SectorGroup
  let gate: Gate
  let caller: Credential

  var generation: Generation { self.base.generation }
  var sectorSize: Int { self.base.sectorSize }

  func record(_ file: FileID) async throws(SectorError) -> InodeRecord? {
    try self.gate.reach()
    return try await self.base.record(file)
  }
  func storedRecord(_ file: FileID) async throws(SectorError) -> InodeRecord? {
    try self.gate.reach()
    return try await self.base.storedRecord(file)
  }
  func verify(_ record: InodeRecord) async throws(SectorError) { try await self.base.verify(record) }
  func read(
    _ file: FileID, level: Int, indexes: Range<UInt64>, version: Version
  ) async throws(SectorError) -> BlockRange {
    try self.gate.reach()
    return try await self.base.read(file, level: level, indexes: indexes, version: version)
  }
  func keep(_ file: FileID, version: Version) async throws(SectorError) -> any KeptVersion {
    try self.gate.reach()
    return try await self.base.keep(file, version: version)
  }
  func perform(_ commit: Commit, by committer: Credential) async throws(SectorError) -> CommitOutcome {
    try self.gate.pass()
    let outcome = try await self.base.perform(commit, by: committer)
    try self.gate.answer()
    return outcome
  }
  func result(of operation: OperationID, by principal: TreePath) async throws(SectorError) -> [UInt8]? {
    guard let owner = self.base.sessionOwner(principal, actedForBy: self.caller) else { throw .permissionDenied }
    return try await self.base.result(of: operation, by: owner)
  }
  func openSession(owner: TreePath) async throws(SectorError) -> [UInt8] {
    try await self.base.openSession(owner: owner)
  }
  func holdsCredentials(atOrBelow directory: FileID) async throws(SectorError) -> Bool {
    try self.gate.reach()
    return try await self.base.holdsCredentials(atOrBelow: directory)
  }
  func usage() async throws(SectorError) -> VolumeUsage { try await self.base.usage() }
  func adopt(session: [UInt8], owner: TreePath) async throws(SectorError) {
    guard let owner = self.base.sessionOwner(owner, actedForBy: self.caller) else { throw .permissionDenied }
    try await self.base.openSession(owner: owner, adopting: session)
  }
  func allocateInodes(_ count: UInt32) async throws(SectorError) -> UInt64 {
    try await self.base.allocateInodes(count)
  }
  func freezeState() async throws(SectorError) -> FreezeState { try await self.base.freezeState() }
  func setFreeze(_ state: FreezeState, by process: Credential) async throws(SectorError) {
    try self.gate.pass()
    guard self.base.isFilesystemAbove(self.caller) else { throw .permissionDenied }
    try await self.base.setFreeze(state, by: self.caller.path)
    try self.gate.answer()
  }
}

extension Filesystem {
  /// The cluster that the service is a member of.
  var group: SectorGroup {
    guard let member else { fatalError("the service is a gateway") }
    return member
  }
}
