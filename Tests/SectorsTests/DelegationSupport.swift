// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import SectorStore
import Sectors
import Synchronization
import Testing
import Trust

func claim(_ number: UInt8) -> [UInt8] { [UInt8](repeating: number, count: 16) }

extension TestGroup {
  /// A credential file in a directory, committed by the filesystem service.
  @discardableResult
  func add(_ principal: TestPrincipal, to directory: FileID) async throws -> TestInode {
    let rules = AccessRules(owner: self.domain.ann.path, group: .root, mode: Mode(truncating: 0o644))
    var inode = TestInode(try await self.number(), type: .credential, rules: rules, in: directory)
    inode.credential = principal.credentialFile.bytes
    try await self.apply(inode.commit(by: self.domain.node), by: self.domain.node)
    return inode
  }

  /// Hands a directory to a cluster of its own, whose number it allocates.
  @discardableResult
  func delegate(_ directory: TestInode, by process: TestPrincipal) async throws -> Generation {
    let generation = try await self.group.allocateGeneration(claim: claim(200), for: process.path)
    var directory = directory
    directory.attributes.servedByGeneration = generation
    try await self.apply(directory.commit(.attributes, by: process), by: process)
    return generation
  }
}

/// The cluster of the delegated directory /site-b: generation 2, on one process over a real store. The credentials that
/// lie in /site-b are copies.
final class TestSite: Sendable {
  static let generation: Generation = 2
  static let home: GroupHome? = (try? path("/site-b")).map { GroupHome(directory: file(70), path: $0) }

  let domain: TestDomain
  /// The member.
  let nas: TestPrincipal
  /// Has the filesystem mark alone.
  let fs: TestPrincipal
  /// The time that guests are forgotten by.
  let time = Mutex<ContinuousClock.Instant>(.now)
  private let directory: String
  private let opened = Mutex<SectorGroup?>(nil)

  init() async throws {
    self.domain = try TestDomain()
    self.nas = try self.domain.principal(.process, "/site-b/nas1", services: [.sector])
    self.fs = try self.domain.principal(.process, "/site-b/fs1", services: [.filesystem])
    self.directory = NSTemporaryDirectory() + "SectorsTests/" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
    try SectorStore.create(at: self.directory + "/store", Self.configuration)
    try await self.open(
      GroupBootstrap(home: Self.someHome, members: [self.entry(self.nas, 71), self.entry(self.fs, 72)]))
  }

  deinit {
    self.opened.withLock { $0 }?.store.abandon()
    try? FileManager.default.removeItem(atPath: self.directory)
  }

  static var someHome: GroupHome { get throws { try #require(self.home) } }

  static var configuration: StoreConfiguration {
    var configuration = TestGroup.configuration
    configuration.generation = self.generation.rawValue
    return configuration
  }

  var group: SectorGroup {
    get throws { try #require(self.opened.withLock { $0 }) }
  }

  /// What the cluster above says of a credential file in the directory.
  func entry(_ principal: TestPrincipal, _ inode: UInt64) throws -> CredentialEntry {
    CredentialEntry(fileID: file(inode), directory: try Self.someHome.directory, credential: principal.credentialFile)
  }

  func open(_ bootstrap: GroupBootstrap?) async throws {
    let store = try SectorStore.open(at: self.directory + "/store", Self.configuration)
    do {
      let group = try await SectorGroup(
        store: store, generation: Self.generation, sectorSize: store.configuration.sectorSize,
        member: .init(credential: self.nas.credential, key: self.nas.key), verifier: self.domain.verifier,
        signatures: SignatureCache(), now: presentTime, bootstrap: bootstrap,
        guests: GuestDirectory(now: { [weak self] in self?.time.withLock { $0 } ?? .now }))
      self.opened.withLock { $0 = group }
    } catch {
      store.abandon()
      throw error
    }
  }

  /// Opens the store again: after an orderly end, or as after a crash.
  func reopen(orderly: Bool) async throws {
    let group = try #require(self.opened.withLock { $0.take() })
    if orderly { try await group.store.close() } else { group.store.abandon() }
    try await self.open(nil)
  }

  /// Has the cluster of a principal confirm it for 30 seconds.
  func confirm(_ principal: TestPrincipal, services: [Service] = []) throws {
    try self.group.guests.confirm(
      .init(
        path: principal.path, keyID: principal.credential.keyID, kind: principal.credential.kind, services: services),
      for: .seconds(30))
  }

  func pass(_ duration: Duration) { self.time.withLock { $0 += duration } }

  func number() async throws -> FileID {
    FileID(generation: Self.generation, inode: InodeNumber(try await self.group.allocateInodes(1)))
  }

  /// A new inode of Ann's, not committed yet.
  func inode(_ type: FileType = .file, mode: UInt32 = 0o644, in directory: FileID) async throws -> TestInode {
    let rules = AccessRules(owner: self.domain.ann.path, group: .root, mode: Mode(truncating: mode))
    return TestInode(try await self.number(), type: type, rules: rules, in: directory)
  }

  @discardableResult
  func apply(_ commit: Commit, by principal: TestPrincipal) async throws -> CommitReceipt {
    guard case .applied(let receipt) = try await self.group.perform(commit, by: principal.credential) else {
      throw TestFailure()
    }
    return receipt
  }
}
