// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import SectorStore
import Sectors
import Testing
import Trust

@testable import Filesystem

private let bob = TestDomain.path("/people/bob")
private let asBob = CallerIdentity.principal(bob)

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

private func contains(_ sectors: [[UInt8]], _ text: String) -> Bool {
  sectors.contains { $0.starts(with: Array(text.utf8)) }
}

/// A domain with somebody beside its owner, who keeps all keys that it gets.
private func withBob(
  _ body: (TestDomain, Filesystem, KeyHolder) async throws -> Void
) async throws {
  try await TestDomain.withFilesystem { domain, filesystem in
    try await filesystem.makeDirectory("/people")
    let keys = PrincipalKeys()
    let file = try TestDomain.issue(.user, "/people/bob", keys, [], by: domain.authority, serial: 1)
    _ = try await filesystem.addCredential(file.bytes, filesystem.asOwner)
    try await body(domain, filesystem, KeyHolder(bob, keys.agreement, domain: domain.authority.domain))
  }
}

extension Filesystem {
  fileprivate func id(_ text: String) async throws -> FileID {
    try await self.stat(path(text), follow: false, for: TestDomain.owner).fileID
  }

  fileprivate func record(_ text: String) async throws -> InodeRecord {
    try await #require(self.sectors.record(self.id(text)))
  }

  fileprivate func grantKey(_ text: String, to principal: TreePath = bob) async throws {
    _ = try await self.grant(path(text), to: .principal(principal), [.read, .execute], withKey: true, self.asOwner)
  }

  @discardableResult
  fileprivate func revokeKey(_ text: String, from principal: TreePath = bob) async throws -> TaskProgress? {
    try await self.revoke(path(text), from: .principal(principal), self.asOwner).task
  }

  /// Does what a task is to do, at once.
  fileprivate func run(_ task: TaskProgress?) async throws -> String {
    let task = try #require(task)
    return try await self.rekey(task.record, task)
  }

  /// Whether something at or below a path is sealed under, or could be read with, a former key.
  fileprivate func isAnythingFormer(_ text: String) async throws -> Bool {
    let record = try await self.record(text)
    let content = record.content.part
    if !content.earlierKeys.isEmpty { return true }
    var tree = IntegrityTree(content)
    try await self.content.load(
      &tree, for: 0..<content.sectorCount, of: record.fileID, version: record.version)
    for index in 0..<content.sectorCount {
      let leaf = try tree.leaf(at: index)
      if !leaf.isHole, leaf.epoch != content.keyEpoch { return true }
    }
    guard record.attributes.part.type == .directory, let place = try await self.locate(record.fileID) else {
      return false
    }
    for entry in try await self.directory(place.state)?.directory?.all.map(\.self) ?? [] where entry.type != .credential
    {
      if entry.isExposed(in: content.keyEpoch) { return true }
      if try await self.isAnythingFormer(text == "/" ? "/\(entry.name)" : "\(text)/\(entry.name)") { return true }
    }
    return false
  }
}

@Suite("A granted permission")
struct GrantTests {
  @Test("reaches a file in a closed place, and nothing beside it")
  func oneFile() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.makeDirectory("/closed", mode: 0o700)
      try await filesystem.put("/closed/a", Array("for bob".utf8), mode: 0o600)
      try await filesystem.put("/closed/b", Array("not for bob".utf8), mode: 0o644)
      await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.get("/closed/a", as: asBob) }
      _ = try await filesystem.grant(path("/closed/a"), to: .principal(bob), .read, withKey: false, filesystem.asOwner)
      #expect(try await filesystem.get("/closed/a", as: asBob) == Array("for bob".utf8))
      for other in ["/closed/b", "/closed/none"] {
        await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.get(other, as: asBob) }
      }
      #expect(try await filesystem.record("/closed/a").attributes.part.readcaps.isEmpty)
      try await filesystem.revokeKey("/closed/a")
      await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.get("/closed/a", as: asBob) }
    }
  }

  @Test("with the key reaches everything below, by the service and by the stored sectors alone, and nothing above")
  func subtree() async throws {
    try await withBob { _, filesystem, holder in
      var holder = holder
      try await filesystem.makeDirectory("/closed", mode: 0o700)
      try await filesystem.makeDirectory("/closed/docs", mode: 0o700)
      try await filesystem.makeDirectory("/closed/docs/deep", mode: 0o700)
      try await filesystem.put("/closed/docs/deep/file", Array("deep text".utf8), mode: 0o600)
      try await filesystem.put("/closed/other", Array("other text".utf8), mode: 0o644)
      try await filesystem.grantKey("/closed/docs")
      #expect(try await filesystem.get("/closed/docs/deep/file", as: asBob) == Array("deep text".utf8))
      await #expect(throws: FilesystemError.notFound) { try await filesystem.get("/closed/docs/none", as: asBob) }
      for closed in ["/closed/other", "/closed/none"] {
        await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.get(closed, as: asBob) }
      }
      // To read is not to write.
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.put("/closed/docs/deep/file", [1], as: Request(caller: asBob))
      }
      holder.takeReadcap(of: try await filesystem.record("/closed/docs"))
      let found = try await holder.explore(.rootDirectory, in: filesystem.group)
      #expect(found[.rootDirectory]?.isEmpty == true)
      let docs = try await filesystem.id("/closed/docs")
      let below = try await holder.explore(docs, in: filesystem.group)
      #expect(try await contains(#require(below[filesystem.id("/closed/docs/deep/file")]), "deep text"))
      // The way up, by a link, is closed: what is behind it counts as it lies.
      _ = try await filesystem.makeSymbolicLink(
        path("/closed/docs/up"), target: Array("../other".utf8), filesystem.asOwner)
      await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.get("/closed/docs/up", as: asBob) }
    }
  }

  @Test("is for owners to give; a group has no key, and a key takes the permission to read")
  func refusals() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.put("/a", [1])
      let request = Request(caller: asBob)
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.grant(path("/a"), to: .principal(bob), [.read, .write], withKey: true, request)
      }
      await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.rekey(path("/a"), request) }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.revoke(path("/a"), from: .principal(path("/owner")), request)
      }
      await #expect(throws: FilesystemError.invalid(field: "with_key")) {
        try await filesystem.grant(path("/a"), to: .group(path("/people")), .read, withKey: true, filesystem.asOwner)
      }
      await #expect(throws: FilesystemError.invalid(field: "permission")) {
        try await filesystem.grant(path("/a"), to: .principal(bob), .write, withKey: true, filesystem.asOwner)
      }
      await #expect(throws: FilesystemError.notFound) {
        try await filesystem.grant(
          path("/a"), to: .principal(path("/people/eve")), .read, withKey: true, filesystem.asOwner)
      }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.tasks(at: path("/a"), for: asBob)
      }
    }
  }

  @Test("a permission without key that is taken back leaves the key as it was")
  func noKey() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.put("/a", [1])
      _ = try await filesystem.grant(path("/a"), to: .principal(bob), .read, withKey: false, filesystem.asOwner)
      #expect(try await filesystem.revokeKey("/a") == nil)
      #expect(try await filesystem.record("/a").content.part.keyEpoch == 1)
    }
  }
}

@Suite("A revoked key")
struct RevocationTests {
  /// All that bob could have read, with all keys, before it was revoked.
  private func withRevoked(
    _ body: (Filesystem, inout KeyHolder, TaskProgress) async throws -> Void
  ) async throws {
    try await withBob { _, filesystem, holder in
      var holder = holder
      for directory in ["/docs", "/docs/a", "/docs/a/b", "/docs/c"] { try await filesystem.makeDirectory(directory) }
      try await filesystem.put("/docs/a/b/file", Array("first".utf8) + [UInt8](repeating: 1, count: 300_000))
      try await filesystem.put("/docs/c/small", Array("small".utf8))
      _ = try await filesystem.makeSymbolicLink(path("/docs/link"), target: Array("c/small".utf8), filesystem.asOwner)
      try await filesystem.grantKey("/docs")
      holder.takeReadcap(of: try await filesystem.record("/docs"))
      let before = try await holder.explore(try await filesystem.id("/docs"), in: filesystem.group)
      #expect(try await contains(#require(before[filesystem.id("/docs/a/b/file")]), "first"))
      let task = try #require(try await filesystem.revokeKey("/docs"))
      try await body(filesystem, &holder, task)
    }
  }

  @Test("opens nothing that is written from then on, however deep, before anything was done in the background")
  func newWrites() async throws {
    try await self.withRevoked { filesystem, holder, _ in
      _ = try await filesystem.write(
        Array("second".utf8)[...], to: path("/docs/a/b/file"), at: 0, filesystem.asOwner)
      try await filesystem.put("/docs/a/b/new", Array("newest".utf8))
      try await filesystem.put("/docs/c/small", Array("replaced".utf8))
      try await filesystem.makeDirectory("/docs/a/fresh")
      _ = try await filesystem.move("/docs/c/small", to: "/docs/c/renamed")
      let found = try await holder.explore(try await filesystem.id("/docs"), in: filesystem.group)
      let texts = found.values.flatMap { $0 }
      for text in ["second", "newest", "replaced"] { #expect(!contains(texts, text), "\(text)") }
      for name in ["fresh", "renamed", "new"] {
        let bytes = Array(name.utf8)
        #expect(
          !texts.contains { sector in
            sector.indices.dropLast(bytes.count).contains { sector[$0...].starts(with: bytes) }
          })
      }
      // What is there is what was written.
      #expect(try await filesystem.get("/docs/a/b/file").prefix(8) == Array("second".utf8) + [1, 1])
      #expect(try await filesystem.get("/docs/c/renamed") == Array("replaced".utf8))
    }
  }

  @Test("opens nothing at all once everything was sealed anew; contents, times and listings stay as they were")
  func background() async throws {
    try await self.withRevoked { filesystem, holder, task in
      let names = try await filesystem.names("/docs")
      let file = try await filesystem.stat(path("/docs/a/b/file"), follow: false, for: TestDomain.owner)
      let content = try await filesystem.get("/docs/a/b/file")
      #expect(try await filesystem.isAnythingFormer("/docs"))
      #expect(try await filesystem.run(task) == "")
      #expect(try await !filesystem.isAnythingFormer("/docs"))
      #expect(
        try await holder.explore(try await filesystem.id("/docs"), in: filesystem.group).values.allSatisfy(\.isEmpty))
      #expect(try await filesystem.names("/docs") == names)
      let after = try await filesystem.stat(path("/docs/a/b/file"), follow: false, for: TestDomain.owner)
      #expect((after.modified, after.size) == (file.modified, file.size))
      #expect(try await filesystem.get("/docs/a/b/file") == content)
      #expect(try await filesystem.get("/docs/link") == Array("small".utf8))
      let figures = task.figures
      // Three directories beside /docs, two files, a link.
      #expect(figures.inodesDone == 7)
      #expect(figures.bytesDone >= 300_000)
    }
  }

  @Test("is taken from whoever had it only: others read on, by the key that they get instead")
  func others() async throws {
    try await withBob { domain, filesystem, holder in
      var holder = holder
      let keys = PrincipalKeys()
      let ann = try TestDomain.issue(.user, "/people/ann", keys, [], by: domain.authority, serial: 1)
      _ = try await filesystem.addCredential(ann.bytes, filesystem.asOwner)
      try await filesystem.makeDirectory("/docs", mode: 0o700)
      try await filesystem.put("/docs/a", Array("text".utf8), mode: 0o600)
      try await filesystem.grantKey("/docs")
      try await filesystem.grantKey("/docs", to: path("/people/ann"))
      holder.takeReadcap(of: try await filesystem.record("/docs"))
      let task = try await filesystem.revokeKey("/docs")
      #expect(try await filesystem.run(task) == "")
      #expect(try await filesystem.get("/docs/a", as: .principal(path("/people/ann"))) == Array("text".utf8))
      await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.get("/docs/a", as: asBob) }
      var other = KeyHolder(path("/people/ann"), keys.agreement, domain: domain.authority.domain)
      other.takeReadcap(of: try await filesystem.record("/docs"))
      let docs = try await filesystem.id("/docs")
      #expect(try await contains(other.explore(docs, in: filesystem.group).values.flatMap { $0 }, "text"))
      holder.takeReadcap(of: try await filesystem.record("/docs"))
      #expect(try await holder.explore(docs, in: filesystem.group).values.allSatisfy(\.isEmpty))
    }
  }

  @Test("of a single file is changed where it stands, under all names that the file has")
  func hardLinks() async throws {
    try await withBob { _, filesystem, holder in
      var holder = holder
      try await filesystem.makeDirectory("/a")
      try await filesystem.makeDirectory("/b")
      try await filesystem.put("/a/one", Array("text".utf8))
      _ = try await filesystem.makeLink(path("/a/one"), as: path("/a/two"), filesystem.asOwner)
      _ = try await filesystem.makeLink(path("/a/one"), as: path("/b/three"), filesystem.asOwner)
      try await filesystem.grantKey("/a/one")
      holder.takeReadcap(of: try await filesystem.record("/a/one"))
      #expect(try await filesystem.run(try await filesystem.revokeKey("/b/three")) == "")
      for name in ["/a/one", "/a/two", "/b/three"] {
        #expect(try await filesystem.get(name) == Array("text".utf8))
        #expect(try await !filesystem.isAnythingFormer(name))
      }
      let file = try await filesystem.id("/a/one")
      #expect(try await holder.explore(file, in: filesystem.group)[file]?.isEmpty == true)
    }
  }

  @Test("holes stay holes, and a long file is sealed anew piece by piece")
  func holes() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.put("/a", [])
      _ = try await filesystem.truncate(path("/a"), to: 40 << 20, filesystem.asOwner)
      var generator = SplitMix(state: 5)
      let data = (0..<(3 << 20)).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
      for (number, start) in stride(from: 0, to: data.count, by: 1 << 20).enumerated() {
        _ = try await filesystem.write(
          data[start..<start + (1 << 20)], to: path("/a"), at: UInt64(10 << 20) + UInt64(number << 20) + 77,
          filesystem.asOwner)
      }
      try await filesystem.grantKey("/a")
      #expect(try await filesystem.run(try await filesystem.revokeKey("/a")) == "")
      #expect(try await !filesystem.isAnythingFormer("/a"))
      let content = try await filesystem.get("/a")
      #expect(content.count == 40 << 20)
      #expect(content[((10 << 20) + 77)...].prefix(data.count) == data[...])
      let record = try await filesystem.record("/a")
      var tree = IntegrityTree(record.content.part)
      try await filesystem.content.load(&tree, for: 0..<16, of: record.fileID, version: record.version)
      for index in UInt64(0)..<16 { #expect(try tree.leaf(at: index).isHole) }
    }
  }

  @Test("the last key of a directory that is cut off is not taken, nor is one cut off that nobody has the key of")
  func lastReader() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.makeDirectory("/docs")
      await #expect(throws: FilesystemError.invalid(field: "is_cut_off")) {
        try await filesystem.cutOff(path("/docs"), true, filesystem.asOwner)
      }
      try await filesystem.grantKey("/docs")
      #expect(try await filesystem.cutOff(path("/docs"), true, filesystem.asOwner).isCutOff)
      await #expect(throws: FilesystemError.invalid(field: "principal")) { try await filesystem.revokeKey("/docs") }
    }
  }
}

@Suite("A key")
struct KeyTests {
  @Test("goes on through a restart in the middle of the work, with whoever does it then")
  func restart() async throws {
    try await TestDomain.with { domain in
      try await domain.withFilesystem { filesystem in
        try await filesystem.makeDirectory("/docs")
        for number in 0..<20 { try await filesystem.put("/docs/\(number)", [UInt8(number)]) }
        _ = try await filesystem.rekey(path("/docs"), filesystem.asOwner)
      }
      try await domain.withFilesystem { filesystem in
        #expect(try await filesystem.isAnythingFormer("/docs"))
        let work = Task { await filesystem.runTasks() }
        defer { work.cancel() }
        var tasks: [TaskProgress] = []
        repeat {
          try await Task.sleep(for: .milliseconds(20))
          tasks = try await filesystem.tasks(at: .root, for: TestDomain.owner)
        } while tasks.contains { $0.figures.state != .finished }
        #expect(tasks.count == 1)
        #expect(tasks.first?.figures.problem == "")
        #expect(try await !filesystem.isAnythingFormer("/docs"))
        work.cancel()
        await work.value
      }
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        #expect(try filesystem.group.tasks().isEmpty)
        for number in 0..<20 { #expect(try await filesystem.get("/docs/\(number)") == [UInt8(number)]) }
      }
    }
  }

  @Test("of a process that is removed is replaced, that of the root directory too")
  func removedProcess() async throws {
    try await TestDomain.withFilesystem { domain, filesystem in
      let keys = PrincipalKeys()
      let file = try TestDomain.issue(
        .process, "/node2", keys, [.sector, .filesystem], by: domain.authority, serial: 1)
      _ = try await filesystem.addCredential(file.bytes, filesystem.asOwner)
      try await filesystem.put("/a", Array("text".utf8))
      var holder = KeyHolder(path("/node2"), keys.agreement, domain: domain.authority.domain)
      holder.takeReadcap(of: try await filesystem.record("/"))
      #expect(try await !holder.explore(.rootDirectory, in: filesystem.group).values.flatMap { $0 }.isEmpty)
      try await filesystem.remove("/node2")
      #expect(try await filesystem.record("/").content.part.keyEpoch == 2)
      try await filesystem.put("/b", Array("after".utf8))
      let found = try await holder.explore(.rootDirectory, in: filesystem.group)
      #expect(!contains(found.values.flatMap { $0 }, "after"))
      let task = try #require(filesystem.tasks.open.first)
      #expect(try await filesystem.run(task) == "")
      #expect(try await !filesystem.isAnythingFormer("/"))
      #expect(try await holder.explore(.rootDirectory, in: filesystem.group).values.allSatisfy(\.isEmpty))
      #expect(try await filesystem.get("/a") == Array("text".utf8))
      // Whoever starts now, or did long ago, has the new one.
      #expect(try await domain.filesystem(filesystem.group).get("/b") == Array("after".utf8))
    }
  }

  @Test("that was granted anywhere goes with its principal's credential")
  func removedUser() async throws {
    try await withBob { _, filesystem, holder in
      var holder = holder
      try await filesystem.makeDirectory("/docs")
      try await filesystem.put("/docs/a", Array("text".utf8))
      try await filesystem.grantKey("/docs/a")
      holder.takeReadcap(of: try await filesystem.record("/docs/a"))
      try await filesystem.remove("/people/bob")
      #expect(try await filesystem.run(filesystem.tasks.open.first) == "")
      #expect(try await filesystem.record("/docs/a").attributes.part.readcaps.isEmpty)
      let file = try await filesystem.id("/docs/a")
      #expect(try await holder.explore(file, in: filesystem.group)[file]?.isEmpty == true)
    }
  }

  @Test("is known to another service that has looked before, as soon as it is asked")
  func anotherService() async throws {
    try await TestDomain.withTwoFilesystems { _, first, second in
      try await first.makeDirectory("/docs")
      try await first.makeDirectory("/docs/a")
      try await first.put("/docs/a/file", Array("text".utf8))
      #expect(try await second.get("/docs/a/file") == Array("text".utf8))
      for round in 0..<5 {
        let task = try await first.rekey(path(round.isMultiple(of: 2) ? "/docs" : "/"), first.asOwner).task
        #expect(try await second.get("/docs/a/file") == Array("text".utf8))
        try await second.put("/docs/a/new-\(round)", [UInt8(round)])
        _ = try await second.write([1, 2][...], to: path("/docs/a/new-\(round)"), at: nil, second.asOwner)
        #expect(try await first.run(task) == "")
        #expect(try await first.get("/docs/a/new-\(round)") == [UInt8(round), 1, 2])
      }
      #expect(try await first.names("/docs/a").count == 6)
    }
  }

  @Test("of what is moved out of a directory that somebody has the key of is replaced, and only of that")
  func moves() async throws {
    try await withBob { _, filesystem, holder in
      var holder = holder
      for directory in ["/open", "/shared", "/shared/in", "/private"] { try await filesystem.makeDirectory(directory) }
      for directory in ["/open", "/shared/in"] { try await filesystem.put("\(directory)/file", Array("text".utf8)) }
      try await filesystem.grantKey("/shared")
      holder.takeReadcap(of: try await filesystem.record("/shared"))
      _ = try await holder.explore(try await filesystem.id("/shared"), in: filesystem.group)
      try await filesystem.move("/open/file", to: "/private/first")
      try await filesystem.move("/shared/in/file", to: "/private/second")
      for name in ["/private/first", "/private/second"] {
        _ = try await filesystem.write(Array("more".utf8)[...], to: path(name), at: 0, filesystem.asOwner)
      }
      #expect(try await filesystem.record("/private/first").content.part.keyEpoch == 1)
      #expect(try await filesystem.record("/private/second").content.part.keyEpoch == 2)
      let file = try await filesystem.id("/private/second")
      #expect(try await !contains(holder.explore(file, in: filesystem.group).values.flatMap { $0 }, "more"))
    }
  }

  @Test("that is not there is said so, and the directory is passed over by work on those above")
  func cutOff() async throws {
    try await withBob { domain, filesystem, holder in
      var holder = holder
      try await filesystem.makeDirectory("/docs")
      try await filesystem.put("/docs/a", Array("text".utf8))
      try await filesystem.grantKey("/docs")
      let docs = try await filesystem.id("/docs")
      _ = try await filesystem.cutOff(path("/docs"), true, filesystem.asOwner)
      await #expect(throws: FilesystemError.noKey(docs)) { try await filesystem.get("/docs/a") }
      await #expect(throws: FilesystemError.noKey(docs)) { try await filesystem.put("/docs/b", [1]) }
      #expect(try await filesystem.names("/").contains("docs"))
      holder.takeReadcap(of: try await filesystem.record("/docs"))
      #expect(try await contains(holder.explore(docs, in: filesystem.group).values.flatMap { $0 }, "text"))
      let task = try await filesystem.rekey(path("/"), filesystem.asOwner).task
      #expect(try await filesystem.run(task) == "")
      #expect(try await filesystem.stat(path("/docs"), follow: false, for: TestDomain.owner).isCutOff)
    }
  }

  @Test("comes back into the directory above by a process that has it")
  func joined() async throws {
    try await TestDomain.withFilesystem { domain, filesystem in
      try await filesystem.makeDirectory("/docs")
      try await filesystem.put("/docs/a", Array("text".utf8))
      try await filesystem.grantKey("/docs", to: path("/node1"))
      _ = try await filesystem.cutOff(path("/docs"), true, filesystem.asOwner)
      // This one has a readcap.
      #expect(try await filesystem.get("/docs/a") == Array("text".utf8))
      try await filesystem.put("/docs/b", Array("more".utf8))
      #expect(try await !filesystem.cutOff(path("/docs"), false, filesystem.asOwner).isCutOff)
      #expect(try await filesystem.get("/docs/b") == Array("more".utf8))
      #expect(try await domain.filesystem(filesystem.group).get("/docs/a") == Array("text".utf8))
    }
  }
}

extension Array {
  fileprivate func asyncMap<Result>(_ body: (Element) async throws -> Result) async rethrows -> [Result] {
    var results: [Result] = []
    for element in self { results.append(try await body(element)) }
    return results
  }
}

@Suite("A key over two clusters")
struct CrossingKeyTests {
  private func contents(_ filesystem: Filesystem) async throws -> [String: [UInt8]] {
    var contents: [String: [UInt8]] = [:]
    for name in ["/site/a", "/site/d/b", "/site/d/linked", "/site/old"] {
      contents[name] = try await filesystem.get(name)
    }
    return contents
  }

  private func fill(_ filesystem: Filesystem) async throws {
    try await filesystem.put("/site/a", [1])
    try await filesystem.makeDirectory("/site/d")
    try await filesystem.put("/site/d/b", [2])
    _ = try await filesystem.makeLink(path("/site/a"), as: path("/site/d/linked"), filesystem.asOwner)
  }

  private static let expected: [String: [UInt8]] = [
    "/site/a": [1], "/site/d/b": [2], "/site/d/linked": [1], "/site/old": [3],
  ]

  @Test("is replaced by the cluster above down to everything that the one below stores, as both go on")
  func fromAbove() async throws {
    try await TestSite.with(before: { try await $0.put("/site/old", [3]) }) { site in
      let (root, below) = (site.rootFilesystem, site.siteFilesystem)
      try await self.fill(below)
      let task = try await root.rekey(path("/site"), root.asOwner).task
      #expect(try await self.contents(below) == Self.expected)
      #expect(try await root.run(task) == "")
      #expect(try await self.contents(below) == Self.expected)
      #expect(try await self.contents(site.anotherSiteFilesystem()) == Self.expected)
      for file in [try await below.id("/site/a"), try await below.id("/site/d"), try await below.id("/site/d/b")] {
        // A file with names in several directories may get one for each.
        #expect(try await site.site.record(file)?.content.part.keyEpoch ?? 0 >= 2)
      }
      #expect(try await root.record("/site").content.part.keyEpoch == 2)
      // And again, with what is written in between.
      try await below.put("/site/d/new", [4])
      #expect(try await root.run(try await root.rekey(path("/"), root.asOwner).task) == "")
      #expect(try await self.contents(below) == Self.expected)
      #expect(try await below.get("/site/d/new") == [4])
      let epochs = try await ["/site/d", "/site/d/b", "/site/d/new"].asyncMap {
        try await below.record($0).content.part.keyEpoch
      }
      #expect(epochs == [3, 3, 2])
    }
  }

  @Test("can be read all the time, wherever drawing it is broken off, and is drawn by whoever comes next")
  func brokenOff() async throws {
    for gateOfRoot in [false, true] {
      for count in 0..<6 {
        try await TestSite.with(before: { try await $0.put("/site/old", [3]) }) { site in
          let below = site.siteFilesystem
          try await self.fill(below)
          let root = site.rootFilesystem
          _ = try await root.rekey(path("/site"), root.asOwner)
          // The site's process writes, and gets no further than so many commits to one of the clusters.
          let other = try await site.anotherSiteFilesystem()
          try await other.refreshAncestors()
          let gate = gateOfRoot ? site.rootGate : site.siteGate
          gate.close(after: count)
          _ = try? await other.write([7][...], to: path("/site/d/b"), at: 1, other.asOwner)
          let task = try? await root.begin(.rekey, path("/site"), root.id("/site"))
          if let task { _ = try? await root.rekey(task.record, task) }
          for filesystem in [below, try await site.anotherSiteFilesystem()] {
            var contents = try await self.contents(filesystem)
            contents["/site/d/b"] = Array(contents["/site/d/b"]?.prefix(1) ?? [])
            #expect(contents == Self.expected, "\(gateOfRoot) \(count)")
          }
          gate.open()
          let again = try await root.begin(.rekey, path("/site"), root.id("/site"))
          #expect(try await root.rekey(again.record, again) == "", "\(gateOfRoot) \(count)")
          try await below.refreshAncestors()
          for name in ["/site/a", "/site/d", "/site/d/b"] {
            let record = try #require(await site.site.record(below.id(name)))
            #expect(record.content.part.keyEpoch >= 2 && record.content.part.earlierKeys.isEmpty, "\(name) \(count)")
          }
          #expect(try await below.write([8][...], to: path("/site/d/b"), at: 0, below.asOwner).size >= 1)
        }
      }
    }
  }

  @Test("of a directory that is cut off is with its own processes only, which go on")
  func cutOff() async throws {
    try await TestSite.with(before: { try await $0.put("/site/old", [3]) }) { site in
      let (root, below) = (site.rootFilesystem, site.siteFilesystem)
      try await self.fill(below)
      _ = try await root.cutOff(path("/site"), true, root.asOwner)
      try await below.refreshAncestors()
      #expect(try await self.contents(below) == Self.expected)
      try await below.put("/site/new", [5])
      #expect(try await below.get("/site/new") == [5])
      // Whoever asks above is sent to them.
      await #expect {
        try await root.get("/site/a")
      } throws: { error in
        guard case FilesystemError.redirected = error else { return false }
        return true
      }
      let state = try #require(try await root.locate(root.id("/site"))?.state)
      #expect(state.key == nil)
      // They take readcaps from it, too.
      let task = try await below.begin(.rekey, path("/site"), below.home.fileID)
      #expect(try await below.rekey(task.record, task) == "")
      #expect(try await below.record("/site/d").content.part.keyEpoch == 2)
      #expect(try await self.contents(site.anotherSiteFilesystem()) == Self.expected)
    }
  }

  @Test("of a directory that is cut off is given to new processes, and taken from those that are removed, by its own")
  func cutOffMembers() async throws {
    try await TestSite.with(before: { try await $0.put("/site/old", [3]) }) { site in
      let (root, below) = (site.rootFilesystem, site.siteFilesystem)
      try await self.fill(below)
      let keys = PrincipalKeys()
      let file = try TestDomain.issue(
        .process, "/site/nas2", keys, [.sector, .filesystem], by: site.domain.authority, serial: 1)
      // As long as it is not, those above do it.
      await #expect {
        try await below.addCredential(file.bytes, below.asOwner)
      } throws: {
        if case FilesystemError.redirected(let there) = $0 { there.directory == .root } else { false }
      }
      _ = try await root.cutOff(path("/site"), true, root.asOwner)
      try await below.refreshAncestors()
      await #expect {
        try await root.addCredential(file.bytes, root.asOwner)
      } throws: {
        if case FilesystemError.redirected(let there) = $0 { there.directory == path("/site") } else { false }
      }
      let admission = try await below.addCredential(file.bytes, below.asOwner)
      let readcap = try #require(admission.readcap).readcap
      let home = try #require(await site.root.record(below.home.fileID))
      #expect(home.attributes.part.readcaps.contains(readcap))
      #expect(site.root.credentials.entry(path("/site/nas2"))?.directory == home.fileID)
      var holder = KeyHolder(path("/site/nas2"), keys.agreement, domain: try site.domain.identity.domain)
      holder.takeReadcap(of: home)
      #expect(holder.keys.map(\.epoch) == [home.content.part.keyEpoch])

      await #expect {
        try await root.remove(path("/site/nas2"), expecting: .file, root.asOwner)
      } throws: {
        if case FilesystemError.redirected(let there) = $0 { there.directory == path("/site") } else { false }
      }
      try await below.remove(path("/site/nas2"), expecting: .file, below.asOwner)
      #expect(site.root.credentials.entry(path("/site/nas2")) == nil)
      // And the directory has a key that the removed one does not know.
      let now = try #require(await site.root.record(home.fileID))
      #expect(now.content.part.keyEpoch > home.content.part.keyEpoch)
      holder.takeReadcap(of: now)
      #expect(holder.keys.count == 1)
      #expect(try await self.contents(below) == Self.expected)
    }
  }
}

@Suite("Keys that meet other changes")
struct KeyMeetingTests {
  @Test("a file with names in a directory and in one below it gets its key together with that one's")
  func namesBelow() async throws {
    try await withBob { domain, filesystem, _ in
      try await filesystem.makeDirectory("/a")
      try await filesystem.makeDirectory("/a/d")
      try await filesystem.put("/a/x", Array("text".utf8))
      _ = try await filesystem.makeLink(path("/a/x"), as: path("/a/d/y"), filesystem.asOwner)
      try await filesystem.put("/a/d/z", [1])
      for _ in 0..<4 {
        #expect(try await filesystem.run(try await filesystem.rekey(path("/a"), filesystem.asOwner).task) == "")
        for name in ["/a/x", "/a/d/y"] { #expect(try await filesystem.get(name) == Array("text".utf8)) }
        #expect(try await domain.filesystem(filesystem.group).get("/a/d/z") == [1])
        #expect(try await !filesystem.isAnythingFormer("/a"))
      }
    }
  }

  @Test("a file or directory that becomes shorter while it is sealed anew is no harm")
  func shorter() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.put("/a", [UInt8](repeating: 3, count: 400_000))
      _ = try await filesystem.rekey(path("/a"), filesystem.asOwner)
      let state = try #require(try await filesystem.locate(filesystem.id("/a"))?.state)
      guard case .piece(let next, _) = try await filesystem.resealPiece(of: state, from: 0, byteCountMax: 200_000)
      else {
        Issue.record("nothing was sealed anew")
        return
      }
      _ = try await filesystem.truncate(path("/a"), to: 5_000, filesystem.asOwner)
      guard case .end = try await filesystem.resealPiece(of: state, from: next, byteCountMax: 200_000) else {
        Issue.record("there is something left")
        return
      }
      #expect(try await filesystem.get("/a") == [UInt8](repeating: 3, count: 5_000))
      #expect(try await !filesystem.isAnythingFormer("/a"))
    }
  }

  @Test("the last key of the root directory that a process has is not taken")
  func lastProcess() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.put("/a", [1])
      await #expect(throws: FilesystemError.invalid(field: "principal")) {
        try await filesystem.revokeKey("/", from: path("/node1"))
      }
      #expect(try await filesystem.get("/a") == [1])
      // A person's is.
      try await filesystem.revokeKey("/", from: path("/owner"))
      #expect(try await filesystem.get("/a") == [1])
      #expect(try await !filesystem.record("/").attributes.part.readcaps.map(\.principal).contains(path("/owner")))
    }
  }

  @Test("what is moved or linked out of a place that somebody has lost the key of goes with a new one")
  func movedAfterwards() async throws {
    try await withBob { _, filesystem, holder in
      var holder = holder
      for directory in ["/shared", "/shared/in", "/private"] { try await filesystem.makeDirectory(directory) }
      for name in ["moved", "linked"] { try await filesystem.put("/shared/in/\(name)", Array("text".utf8)) }
      try await filesystem.grantKey("/shared")
      holder.takeReadcap(of: try await filesystem.record("/shared"))
      _ = try await holder.explore(try await filesystem.id("/shared"), in: filesystem.group)
      try await filesystem.revokeKey("/shared")
      try await filesystem.move("/shared/in/moved", to: "/private/moved")
      _ = try await filesystem.makeLink(path("/shared/in/linked"), as: path("/private/linked"), filesystem.asOwner)
      for name in ["moved", "linked"] {
        _ = try await filesystem.write(Array("more".utf8)[...], to: path("/private/\(name)"), at: 0, filesystem.asOwner)
        let file = try await filesystem.id("/private/\(name)")
        let opened = try await holder.explore(file, in: filesystem.group)[file] ?? []
        #expect(!contains(opened, "more"), "\(name)")
      }
    }
  }

  @Test("a readcap of a directory does not open what is cut off below it, and lets nobody write")
  func cutOffBelow() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.makeDirectory("/docs")
      try await filesystem.makeDirectory("/docs/secret", mode: 0o700)
      try await filesystem.makeDirectory("/docs/closed", mode: 0o700)
      try await filesystem.put("/docs/secret/a", [1], mode: 0o644)
      try await filesystem.put("/docs/closed/a", [2], mode: 0o666)
      try await filesystem.grantKey("/docs/secret", to: path("/node1"))
      _ = try await filesystem.cutOff(path("/docs/secret"), true, filesystem.asOwner)
      try await filesystem.grantKey("/docs")
      await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.get("/docs/secret/a", as: asBob) }
      #expect(try await filesystem.get("/docs/closed/a", as: asBob) == [2])
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.write([3][...], to: path("/docs/closed/a"), at: 0, Request(caller: asBob))
      }
      // Who owns a directory, and not all that may come to lie in it, does not give its key away.
      let ann = try await filesystem.setAttributes(
        path("/docs/closed"), follow: false,
        {
          var change = AttributeChange()
          change.owner = bob
          return change
        }(), filesystem.asOwner)
      #expect(ann.rules.owner == bob)
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.grant(
          path("/docs/closed"), to: .principal(bob), .read, withKey: true, Request(caller: asBob))
      }
    }
  }

  @Test("the owner of a file in a closed place overwrites it, however long it is, and makes nothing beside it")
  func overwriting() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.makeDirectory("/closed", mode: 0o700)
      try await filesystem.put("/closed/a", [1])
      var change = AttributeChange()
      change.owner = bob
      _ = try await filesystem.setAttributes(path("/closed/a"), follow: false, change, filesystem.asOwner)
      let request = Request(caller: asBob)
      let long = [UInt8](repeating: 5, count: 5 << 20)
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.put("/closed/new", long, as: request)
      }
      for start in stride(from: 0, to: long.count, by: 1 << 20) {
        _ = try await filesystem.write(
          long[start..<start + (1 << 20)], to: path("/closed/a"), at: UInt64(start), request)
      }
      try await filesystem.put("/closed/a", Array(long.reversed()), as: request)
      #expect(try await filesystem.get("/closed/a", as: asBob) == Array(long.reversed()))
    }
  }

  @Test("an operation that is repeated is not done twice, and ends well")
  func repeated() async throws {
    try await withBob { _, filesystem, _ in
      try await filesystem.makeDirectory("/docs")
      let session = try await filesystem.group.openSession(owner: path("/owner"))
      for (number, name) in ["/docs", "/"].enumerated() {
        let request = Request(
          caller: TestDomain.owner, operation: OperationID(session: session, sequence: UInt64(number + 1)))
        let first = try await filesystem.rekey(path(name), request).info
        let second = try await filesystem.rekey(path(name), request).info
        #expect((first.keyEpoch, second.keyEpoch) == (2, 2), "\(name)")
      }
      #expect(filesystem.tasks.open.count == 2)
    }
  }

  @Test("revoking two at the same time revokes both")
  func together() async throws {
    try await withBob { _, filesystem, _ in
      for round in 0..<8 {
        let name = "/file-\(round)"
        try await filesystem.put(name, [1])
        let others = ["/people/bob", "/owner", "/node1"].map { AccessEntry.Subject.principal(path($0)) }
        for other in others {
          _ = try await filesystem.grant(path(name), to: other, .read, withKey: false, filesystem.asOwner)
        }
        await withTaskGroup(of: Void.self) { group in
          for other in others {
            group.addTask { _ = try? await filesystem.revoke(path(name), from: other, filesystem.asOwner) }
          }
        }
        #expect(try await filesystem.record(name).attributes.part.rules.entries.isEmpty)
      }
    }
  }

  @Test("a process of a delegated directory that is removed has its key no more")
  func removedBelow() async throws {
    try await TestSite.with(before: { try await $0.put("/site/old", [3]) }) { site in
      let (root, below) = (site.rootFilesystem, site.siteFilesystem)
      let file = try TestDomain.issue(
        .process, "/site/nas2", PrincipalKeys(), [.sector, .filesystem], by: site.domain.authority, serial: 1)
      _ = try await root.addCredential(file.bytes, root.asOwner)
      try await below.refreshAncestors()
      await #expect {
        try await below.remove("/site/nas2")
      } throws: { error in
        guard case FilesystemError.redirected = error else { return false }
        return true
      }
      try await root.remove("/site/nas2")
      let record = try await root.record("/site")
      #expect(record.content.part.keyEpoch == 2)
      #expect(record.attributes.part.readcaps.map(\.principal) == [path("/site/nas1")])
      try await below.refreshAncestors()
      try await below.put("/site/new", [4])
      #expect(try await below.get("/site/old") == [3])
      #expect(try await below.get("/site/new") == [4])
    }
  }
}
