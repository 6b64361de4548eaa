// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import SectorStore
import Sectors
import Testing
import Trust

@testable import Filesystem

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

@Suite("A directory that is taken back, and what else is going on")
struct DrainMeetingTests {
  @Test("has the cluster above say whose credentials hold, and the one that is retired nothing any more")
  func credentials() async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      try await filesystem.makeDirectory("/site/d")
      let ann = try TestDomain.issue(.user, "/site/d/ann", PrincipalKeys(), [], by: site.domain.authority, serial: 1)
      _ = try await filesystem.addCredential(ann.bytes, filesystem.asOwner)
      let credential = try site.domain.verifier.verify(ann.chain, at: Date())
      #expect(site.site.confirms(credential))
      try await site.drain()
      #expect(site.root.confirms(credential))
      // It hears of it with the next look at its home.
      let home = try #require(await site.root.record(try await site.directory))
      site.site.noteHome(home.attributes.part)
      #expect(site.site.credentials.entry(credential.path) == nil)
      #expect(!site.site.isStoredHere(credential.path) && !site.site.confirms(credential))
      // Its own processes are known by what the cluster above stores.
      #expect(site.site.credentials.entry(path("/site/nas1")) != nil)
      try await site.rootFilesystem.remove(credential.path, expecting: .file, site.rootFilesystem.asOwner)
      #expect(!site.root.confirms(credential) && !site.site.confirms(credential))
    }
  }

  @Test("takes credentials along that have expired meanwhile, which admit nobody")
  func expired() async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      try await filesystem.makeDirectory("/site/d")
      let keys = PrincipalKeys()
      let milliseconds = UInt64(Date().timeIntervalSince1970 * 1e3)
      let request = try CredentialRequest(keys: keys, addresses: [], issuedAtMilliseconds: milliseconds)
      let ann = try site.domain.authority.issueCredentialFile(
        .user, at: path("/site/d/ann"), request: request, services: [],
        validity: Validity(from: Date(), lifetime: .seconds(5)), serial: 1, issuedAtMilliseconds: milliseconds)
      _ = try await filesystem.addCredential(ann.bytes, filesystem.asOwner)
      while (try? ann.verify(with: site.domain.verifier, at: Date())) != nil {
        try await Task.sleep(for: .milliseconds(100))
      }
      // Nobody adds it anew.
      await #expect(throws: FilesystemError.self) {
        try await filesystem.addCredential(ann.bytes, filesystem.asOwner)
      }
      try await site.drain()
      #expect(try await site.rootFilesystem.get("/site/d/ann") == ann.bytes)
    }
  }

  @Test("is not cut off meanwhile, however it was named")
  func cutOff() async throws {
    try await TestSite.with { site in
      let root = site.rootFilesystem
      _ = try await root.makeSymbolicLink(path("/top"), target: Array("/".utf8), root.asOwner)
      let task = try await root.beginDrain(path("/top/site"), for: TestDomain.owner)
      #expect(task.record.path == TestSite.path)
      await #expect(throws: FilesystemError.drainRefused(.underWay)) {
        try await root.cutOff(TestSite.path, true, root.asOwner)
      }
      try await root.cancel(task)
      #expect(try await root.cutOff(TestSite.path, true, root.asOwner).isCutOff)
    }
  }

  @Test("is thawed by a run that finds it frozen and can not go on, and can be given up without its key")
  func thaw() async throws {
    try await TestSite.with { site in
      let (root, node) = (site.rootFilesystem, path("/node1"))
      let nested = try TestDomain.issue(
        .process, "/site/d/nas9", PrincipalKeys(), [.sector], by: site.domain.authority, serial: 1)
      try await site.siteFilesystem.makeDirectory("/site/d")
      _ = try await site.siteFilesystem.addCredential(nested.bytes, site.siteFilesystem.asOwner)
      try await site.site.setFreeze(.frozen, by: node)
      await #expect(throws: FilesystemError.drainRefused(.nested)) { try await site.drain() }
      #expect(site.site.freeze == .open)

      try await site.site.setFreeze(.frozen, by: node)
      _ = try await root.cutOff(TestSite.path, true, root.asOwner)
      try await root.cancelDrain(TestSite.path, try await site.directory)
      #expect(site.site.freeze == .open)
    }
  }

  @Test("is left alone when another generation serves it than the one that was to be taken back")
  func anotherGeneration() async throws {
    try await TestSite.with { site in
      try await site.siteFilesystem.put("/site/a", [1])
      let image = try await site.image(by: site.siteFilesystem)
      let root = site.rootFilesystem
      let file = try await site.directory
      let record = TaskRecord(kind: .drain, path: TestSite.path, file: file, generation: Generation(9), started: 1)
      #expect(try TaskRecord(id: record.id, bytes: record.bytes) == record)
      let progress = TaskProgress(record)
      #expect(progress.start())
      #expect(try await root.drain(TestSite.path, file, from: record.generation, progress) == "")
      #expect(site.site.freeze == .open)
      #expect(try await site.image(by: site.siteFilesystem) == image)
      // One that does not say which one it was, as earlier releases have written it.
      let former = TaskRecord(kind: .drain, path: TestSite.path, file: file, started: 1)
      #expect(try TaskRecord(id: former.id, bytes: former.bytes) == former)
    }
  }

  @Test("is thawed when it is given up, also when nobody has it written down any more that it is taken back")
  func leftFrozen() async throws {
    try await TestSite.with { site in
      let root = site.rootFilesystem
      await #expect(throws: FilesystemError.notFound) {
        try await root.cancelDrain(TestSite.path, for: TestDomain.owner)
      }
      try await site.site.setFreeze(.frozen, by: site.domain.identity.path)
      await #expect(throws: FilesystemError.sector(.frozen(TestSite.generation))) {
        try await site.siteFilesystem.put("/site/a", [1])
      }
      _ = try await root.cancelDrain(TestSite.path, for: TestDomain.owner)
      try await site.siteFilesystem.put("/site/a", [1])
      #expect(try site.root.tasks().isEmpty)
    }
  }

  @Test("keeps no process of a cluster that is frozen from starting, whatever was broken off there")
  func start() async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      try await filesystem.makeDirectory("/site/d")
      var upload = try await filesystem.upload(
        path("/site/d/x"), mode: Mode(truncating: 0o644), mustBeNew: true, filesystem.asOwner)
      try await upload.append([UInt8](repeating: 1, count: 5 << 20))
      #expect(try site.site.store.inodes(flag: .pending).count == 1)
      try await site.site.setFreeze(.frozen, by: path("/node1"))
      #expect(try await filesystem.removePending(olderThan: 0) == 0)
      try await site.site.setFreeze(.open, by: path("/node1"))
      #expect(try await filesystem.removePending(olderThan: 0) == 1)
    }
  }
}
