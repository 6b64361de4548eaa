// SPDX-License-Identifier: Apache-2.0

import Inodes
import Sectors
import Testing
import Trust

@testable import Filesystem

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

@Suite("The keys of a directory that is taken back", .timeLimit(.minutes(5)))
struct DrainKeyTests {
  private static let bob = path("/people/bob")

  /// Somebody who has the key of the directory, and has read all that is in it.
  private static func reader(of site: TestSite) async throws -> KeyHolder {
    let (root, keys) = (site.rootFilesystem, PrincipalKeys())
    try await root.makeDirectory("/people")
    let file = try TestDomain.issue(.user, "/people/bob", keys, [], by: site.domain.authority, serial: 1)
    _ = try await root.addCredential(file.bytes, root.asOwner)
    _ = try await root.grant(TestSite.path, to: .principal(Self.bob), [.read, .execute], withKey: true, root.asOwner)
    var holder = KeyHolder(Self.bob, keys.agreement, domain: site.domain.authority.domain)
    let directory = try await site.directory
    holder.takeReadcap(of: try #require(await site.root.record(directory)))
    let found = try await holder.explore(directory, in: site.root, site.site)
    #expect(Self.contains(found, "first"))
    return holder
  }

  private static func contains(_ found: [FileID: [[UInt8]]], _ text: String) -> Bool {
    found.values.contains { sectors in sectors.contains { $0.starts(with: Array(text.utf8)) } }
  }

  private static func fill(_ filesystem: Filesystem) async throws {
    try await filesystem.put("/site/a", Array("first".utf8))
    try await filesystem.makeDirectory("/site/d")
    try await filesystem.put("/site/d/b", Array("first, too".utf8))
    try await filesystem.put("/site/d/long", [UInt8](repeating: 7, count: 30_000))
  }

  @Test("that are revoked while it is copied open nothing that is written later, at whichever step the two meet")
  func revoked() async throws {
    var isWhole = false
    var number = 0
    while !isWhole {
      try await TestSite.with { site in
        try await Self.fill(site.siteFilesystem)
        var holder = try await Self.reader(of: site)
        Breaker(after: number).install(in: site.rootFilesystem)
        do {
          try await site.drain()
          isWhole = true
        } catch is FilesystemError {}
        let other = try await site.anotherRootFilesystem()
        let task = try await other.revoke(TestSite.path, from: .principal(Self.bob), other.asOwner).task
        if !isWhole { try await site.drain(by: other) }

        for (name, text) in [("a", "second"), ("d/b", "third"), ("d/new", "fourth")] {
          try await other.put("/site/" + name, Array(text.utf8))
        }
        _ = try await other.write([9], to: path("/site/d/long"), at: 0, other.asOwner)
        let directory = try await site.directory
        let found = try await holder.explore(directory, in: site.root)
        for text in ["second", "third", "fourth"] { #expect(!Self.contains(found, text), "\(number): \(text)") }
        #expect(!found.values.contains { sectors in sectors.contains { $0.first == 9 } }, "\(number)")
        let bytes = try await other.get("/site/a") + other.get("/site/d/b") + other.get("/site/d/new")
        #expect(bytes == Array("secondthirdfourth".utf8), "\(number)")
        #expect(try await other.get("/site/d/long") == [9] + [UInt8](repeating: 7, count: 29_999), "\(number)")

        // And in the end nothing is left that it could read.
        if let task { #expect(try await other.rekey(task.record, task) == "") }
        let left = try await holder.explore(directory, in: site.root)
        #expect(left.values.flatMap { $0 } == [], "\(number)")
        #expect(try await other.get("/site/d/long").count == 30_000)
      }
      number += 1
    }
    // It was broken off at every step.
    #expect(number >= 6)
  }
}

extension DrainKeyTests {
  @Test("that its cluster had still to replace are replaced above")
  func leftOver() async throws {
    try await TestSite.with { site in
      try await Self.fill(site.siteFilesystem)
      var holder = try await Self.reader(of: site)
      let root = site.rootFilesystem
      // What this is to do in the background is written down where nobody comes to it any more.
      _ = try await site.siteFilesystem.rekey(path("/site/d"), site.siteFilesystem.asOwner)
      _ = try await root.revoke(TestSite.path, from: .principal(Self.bob), root.asOwner)
      _ = try await root.beginDrain(TestSite.path, for: TestDomain.owner)
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { await root.runTasks() }
        while try !site.root.tasks().isEmpty { try await Task.sleep(for: .milliseconds(50)) }
        group.cancelAll()
      }
      #expect(site.site.freeze == .retired)
      let directory = try await site.directory
      let left = try await holder.explore(directory, in: site.root)
      #expect(left.values.flatMap { $0 } == [])
      for name in ["/site/d", "/site/d/b", "/site/d/long"] {
        let file = try await root.stat(path(name), follow: false, for: TestDomain.owner).fileID
        let record = try #require(await site.root.record(file))
        #expect(record.content.part.earlierKeys.isEmpty, "\(name)")
      }
      #expect(try await root.get("/site/d/b") == Array("first, too".utf8))
    }
  }
}

@Suite("Names that are more than one commit switches over", .timeLimit(.minutes(5)))
struct DrainSwitchTests {
  @Test("all lead somewhere, and to what was acknowledged, whichever commit is the last one before a crash")
  func broken() async throws {
    var count = 0
    try await self.withNames { site in
      let breaker = Breaker(after: .max)
      breaker.install(in: site.rootFilesystem)
      try await site.drain()
      count = breaker.passed
    }
    var isSwitching = false
    for left in max(0, count - 5)..<count {
      try await self.withNames { site in
        Breaker(after: left).install(in: site.rootFilesystem)
        await #expect(throws: FilesystemError.self, "\(left)") { try await site.drain() }
        let root = try await site.anotherRootFilesystem()
        let directory = try #require(try await root.locate(try await site.directory)?.state)
        let entries = try #require(try await root.directory(directory)?.directory).all.filter { $0.type == .file }
        #expect(entries.count == Self.names.count, "\(left)")
        let switched = entries.count { $0.fileID.generation == .root }
        if switched > 0, switched < Self.names.count {
          isSwitching = true
          // Nobody changes anything in between.
          await #expect(throws: FilesystemError.sector(.frozen(TestSite.generation))) {
            try await site.siteFilesystem.put("/site/0", [0])
          }
        }
        try await site.drain(by: root)
        for name in Self.names { #expect(try await root.get("/site/" + name) == Array(name.utf8), "\(left)") }
        try await root.put("/site/0", [0])
        #expect(try await site.siteFilesystem.get("/site/0") == [0])
      }
    }
    #expect(isSwitching)
  }

  @Test("that are one file stay one, also when it was given a new key, and changed, between the commits")
  func linked() async throws {
    var count = 0
    func withLink(_ body: (TestSite) async throws -> Void) async throws {
      try await self.withNames { site in
        let filesystem = site.siteFilesystem
        for name in ["/site/+", "/site/z"] { try await filesystem.makeDirectory(name) }
        try await filesystem.put("/site/+/0", [1])
        _ = try await filesystem.makeLink(path("/site/+/0"), as: path("/site/z/0"), filesystem.asOwner)
        try await body(site)
      }
    }
    try await withLink { site in
      let breaker = Breaker(after: .max)
      breaker.install(in: site.rootFilesystem)
      try await site.drain()
      count = breaker.passed
    }
    var hasMet = false
    for left in max(0, count - 5)..<count {
      try await withLink { site in
        Breaker(after: left).install(in: site.rootFilesystem)
        await #expect(throws: FilesystemError.self, "\(left)") { try await site.drain() }
        let root = try await site.anotherRootFilesystem()
        let directory = try #require(try await root.locate(try await site.directory)?.state)
        let entries = try #require(try await root.directory(directory)?.directory)
        func generation(_ name: String) throws -> Generation? {
          entries.entry(try PathComponent(name))?.fileID.generation
        }
        guard try generation("+") == .root, try generation("z") == TestSite.generation else { return }
        hasMet = true
        let task = try await root.rekey(TestSite.path, root.asOwner).task
        _ = try? await root.rekey(task.record, task)
        // As a service does that callers are not led away from.
        let shared = try #require(entries.entry(try PathComponent("+")))
        let used = try #require(try await root.locate(shared.fileID)?.state)
        let name = try #require(try await root.directory(used)?.directory?.entry(try PathComponent("0")))
        let record = try #require(await site.root.record(name.fileID))
        var edit = Edit(root, caller: TestDomain.owner)
        var change = AttributeChange()
        change.mode = Mode(truncating: 0o604)
        edit.setAttributes(of: record, change)
        #expect(try await root.commit(&edit) != nil)
        // Another process may be comparing copies still. It changes nothing any more.
        let file = try await site.directory
        let staging = try #require(try await DrainStaging(filesystem: root, directory: file).find())
        let present = try #require(try await root.locate(file)?.state)
        var pass = DrainPass(
          root, of: present, generation: TestSite.generation, to: staging, try await site.progress())
        do throws(FilesystemError) {
          try await pass.run(.all)
          Issue.record("\(left): the copies are in use")
        } catch {
          #expect(error == .contended, "\(left)")
        }
        try await site.drain(by: root)
        for name in ["/site/+/0", "/site/z/0"] {
          let info = try await root.stat(path(name), follow: false, for: TestDomain.owner)
          #expect(info.linkCount == 2 && info.rules.mode == Mode(truncating: 0o604), "\(left), \(name)")
          #expect(try await root.get(name) == [1], "\(left), \(name)")
        }
        let linked = try await root.stat(path("/site/z/0"), follow: false, for: TestDomain.owner).fileID
        #expect(try #require(await site.root.record(linked)).content.part.keyEpoch > 1)
      }
    }
    #expect(hasMet)
  }

  /// For two commits.
  private static let names = (0..<201).map { "\($0)" }

  private func withNames(_ body: (TestSite) async throws -> Void) async throws {
    try await TestSite.with { site in
      for name in Self.names { try await site.siteFilesystem.put("/site/" + name, Array(name.utf8)) }
      try await body(site)
    }
  }
}
