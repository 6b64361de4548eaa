// SPDX-License-Identifier: Apache-2.0

import Inodes
import Sectors
import Synchronization
import Testing
import Trust

@testable import Filesystem

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

@Suite("Two filesystem services of one cluster")
struct TwoServicesTests {
  @Test("do not overwrite each other's entries")
  func entries() async throws {
    try await TestDomain.withTwoFilesystems { domain, one, other in
      try await one.makeDirectory("/d")
      try await one.put("/d/x", [1])
      _ = try await other.names("/d")
      let place = try await one.place(of: path("/d/x"), for: TestDomain.owner, follow: false)
      let directory = try #require(place.parent)
      var edit = Edit(one, caller: TestDomain.owner)
      try await edit.open(directory)
      // Between the look at the entries and the commit.
      try await other.put("/d/y", [2])
      edit.removeEntry(try PathComponent("x"), in: directory)
      try await edit.unlink(try #require(place.found?.state.fileID), from: directory.fileID)
      #expect(try await one.commit(&edit) == nil)
      #expect(try await one.names("/d").sorted() == ["x", "y"])
    }
  }

  @Test("do not remove a directory that the other one fills, nor let it be replaced")
  func emptiness() async throws {
    try await TestDomain.withTwoFilesystems { domain, one, other in
      try await one.makeDirectory("/d")
      try await one.makeDirectory("/e")
      let place = try await one.place(of: path("/d"), for: TestDomain.owner, follow: false)
      let (root, entry) = (try #require(place.parent), try #require(place.found?.entry))
      var removal = Edit(one, caller: TestDomain.owner)
      try await removal.open(root)
      try await removal.requireEmpty(entry)
      try await other.put("/d/y", [2])
      removal.removeEntry(entry.name, in: root)
      try await removal.unlink(entry.fileID, from: root.fileID)
      #expect(try await one.commit(&removal) == nil)
      try await other.remove("/d/y")
      var replacement = Edit(one, caller: TestDomain.owner)
      try await replacement.open(root)
      let rename = Filesystem.Rename(
        from: root, fromName: try PathComponent("e"), to: root, toName: entry.name, noReplace: false, left: [])
      _ = try await one.perform(rename, &replacement)
      try await other.put("/d/y", [3])
      #expect(try await one.commit(&replacement) == nil)
      #expect(try await one.get("/d/y") == [3])
      await #expect(throws: FilesystemError.notEmpty) { try await one.move("/e", to: "/d") }
      await #expect(throws: FilesystemError.notEmpty) { try await one.remove("/d") }
    }
  }

  @Test("decide by the rules that a file has when the change is committed")
  func rules() async throws {
    try await TestDomain.withTwoFilesystems { domain, one, other in
      try await one.makeDirectory("/tmp", mode: 0o1777)
      let ann = Request(caller: .principal(path("/ann")))
      try await one.put("/tmp/f", [1], as: ann)
      let place = try await one.place(of: path("/tmp/f"), for: ann.caller, follow: false)
      let (directory, file) = (try #require(place.parent), try #require(place.found?.state.fileID))
      var edit = Edit(one, caller: ann.caller)
      try await edit.open(directory)
      try await edit.checkSticky(file, in: directory)
      var give = AttributeChange()
      give.owner = path("/owner")
      _ = try await other.setAttributes(path("/tmp/f"), follow: true, give, other.asOwner)
      edit.removeEntry(try PathComponent("f"), in: directory)
      try await edit.unlink(file, from: directory.fileID)
      #expect(try await one.commit(&edit) == nil)
      await #expect(throws: FilesystemError.permissionDenied) {
        try await one.remove(path("/tmp/f"), expecting: .any, ann)
      }
    }
  }

  @Test("let no directory come to lie in itself")
  func cycles() async throws {
    try await TestDomain.withTwoFilesystems { domain, one, other in
      for _ in 0..<20 {
        try await one.makeDirectory("/a")
        try await one.makeDirectory("/b")
        async let first: Bool = (try? await one.move("/a", to: "/b/a")) != nil
        async let second: Bool = (try? await other.move("/b", to: "/a/b")) != nil
        let (isFirst, isSecond) = await (first, second)
        #expect(isFirst != isSecond)
        let (inner, outer) = isFirst ? ("/b/a", "/b") : ("/a/b", "/a")
        try await one.remove(inner)
        try await other.remove(outer)
      }
    }
  }

  @Test("do not rename what is above a credential that the other one adds meanwhile")
  func credentials() async throws {
    try await TestDomain.withTwoFilesystems { domain, one, other in
      try await one.makeDirectory("/site")
      try await one.makeDirectory("/site/people")
      let root = one.root
      var edit = Edit(one, caller: TestDomain.owner)
      try await edit.open(root)
      let rename = Filesystem.Rename(
        from: root, fromName: try PathComponent("site"), to: root, toName: try PathComponent("place"), noReplace: true,
        left: [])
      _ = try await one.perform(rename, &edit)
      let ann = try TestDomain.issue(.user, "/site/people/ann", PrincipalKeys(), [], by: domain.authority, serial: 1)
      _ = try await other.addCredential(ann.bytes, other.asOwner)
      #expect(try await one.commit(&edit) == nil)
      await #expect(throws: FilesystemError.wrongType) { try await one.move("/site", to: "/place") }
      #expect(try await one.stat(path("/site/people/ann"), follow: false, for: TestDomain.owner).type == .credential)
    }
  }

  /// What the workers did that was acknowledged.
  private final class Expected: Sendable {
    private let files = Mutex<[String: UInt8]>([:])
    var all: [String: UInt8] { self.files.withLock { $0 } }
    func set(_ path: String, _ content: UInt8?) { self.files.withLock { $0[path] = content } }
  }

  /// Repeats what others were faster at, as a client does.
  @discardableResult
  private static func repeating<Result>(_ body: () async throws -> Result) async throws -> Result {
    while true {
      do { return try await body() } catch FilesystemError.contended { await Task.yield() }
    }
  }

  /// One of those that create, rename and remove files of their own in shared directories.
  private static func work(
    _ filesystem: Filesystem, worker: Int, seed: UInt64, _ expected: Expected
  ) async throws {
    var random = SplitMix(state: seed &+ UInt64(worker) &* 0x1234_5678_9ABC)
    var own: [String] = []
    for step in 0..<40 {
      let directory = ["/d", "/e"].randomElement(using: &random) ?? "/d"
      let name =
        "\(directory)/w\(worker)-\(step)-\(String(repeating: "x", count: Int.random(in: 0..<90, using: &random)))"
      let content = UInt8.random(in: .min ... .max, using: &random)
      let index = own.indices.randomElement(using: &random)
      switch (Int.random(in: 0..<10, using: &random), index) {
      case (0..<5, _), (_, nil):
        try await Self.repeating { try await filesystem.put(name, [content], mustBeNew: true) }
        expected.set(name, content)
        own.append(name)
      case (5..<8, let index?):
        try await Self.repeating { try await filesystem.move(own[index], to: name) }
        expected.set(name, expected.all[own[index]])
        expected.set(own[index], nil)
        own[index] = name
      case (_, let index?):
        try await Self.repeating { try await filesystem.remove(own[index]) }
        expected.set(own[index], nil)
        own.remove(at: index)
      }
    }
  }

  /// One of those that fill directories for a moment which others remove and replace all the time.
  private static func fill(_ filesystem: Filesystem, worker: Int, seed: UInt64) async throws {
    var random = SplitMix(state: seed &+ UInt64(worker) &* 0x9ABC_1234_5678)
    for step in 0..<40 {
      let directory = ["/p/s", "/p/t"].randomElement(using: &random) ?? "/p/s"
      if worker % 2 == 0 {
        do { try await Self.repeating { try await filesystem.put("\(directory)/w\(worker)-\(step)", [1]) } } catch {
          #expect(error as? FilesystemError == .notFound)
          continue
        }
        // What it has put there is there, and so the directory.
        try await Self.repeating { try await filesystem.remove("\(directory)/w\(worker)-\(step)") }
      } else {
        do {
          try await Self.repeating {
            switch Int.random(in: 0..<3, using: &random) {
            case 0: try await filesystem.remove(directory)
            case 1: try await filesystem.move("/p/new", to: directory)
            default: try await filesystem.makeDirectory(["/p/s", "/p/t", "/p/new"].randomElement(using: &random) ?? "")
            }
          }
        } catch {
          let isExpected = [FilesystemError.notFound, .notEmpty, .alreadyExists].contains(error as? FilesystemError)
          #expect(isExpected, "\(error)")
        }
      }
    }
  }

  @Test("lose no entry and remove no directory with entries, whatever they do at once", arguments: SplitMix.seeds(2))
  func model(seed: UInt64) async throws {
    try await TestDomain.withTwoFilesystems { domain, one, other in
      for name in ["/d", "/e", "/p", "/p/s", "/p/t"] { try await one.makeDirectory(name) }
      let expected = Expected()
      do {
        try await withThrowingTaskGroup(of: Void.self) { tasks in
          for worker in 0..<8 {
            let filesystem = worker < 4 ? one : other
            tasks.addTask { try await Self.work(filesystem, worker: worker, seed: seed, expected) }
            tasks.addTask { try await Self.fill(filesystem, worker: worker, seed: seed) }
          }
          try await tasks.waitForAll()
        }
      } catch {
        Issue.record("seed \(seed): \(error)")
      }
      let files = expected.all
      for filesystem in [one, other] {
        var names: [String] = []
        for directory in ["/d", "/e"] { names += try await filesystem.names(directory).map { "\(directory)/\($0)" } }
        #expect(names.sorted() == files.keys.sorted(), "seed \(seed)")
        for (name, content) in files { #expect(try await filesystem.get(name) == [content], "seed \(seed), \(name)") }
      }
      // Nor was an inode left over: the root directory and superblock, the credentials, and what has a name.
      let directories = try await one.names("/p")
      for name in directories { #expect(try await one.names("/p/\(name)") == [], "seed \(seed)") }
      #expect(one.group.status().inodes == UInt64(2 + 2 + 3 + directories.count + files.count), "seed \(seed)")
    }
  }
}
