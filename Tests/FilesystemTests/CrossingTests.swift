// SPDX-License-Identifier: Apache-2.0

import Inodes
import SectorStore
import Sectors
import Testing
import Trust

@testable import Filesystem

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

/// A step over two clusters is broken off before each of its commits, and looked at by another service, which knows
/// nothing of the first.
@Suite("A step over two clusters that is broken off")
struct CrossingTests {
  /// What is done to a site that has the files a and b and the empty directory d; and what names it may have then.
  struct Step: Sendable, CustomStringConvertible {
    let description: String
    let before: [String: UInt8]
    let after: [String: UInt8]
    let perform: @Sendable (Filesystem) async throws -> Void
  }

  static let steps: [Step] = [
    Step(description: "making a file", before: ["a": 1, "b": 2], after: ["a": 1, "b": 2, "c": 3]) {
      try await $0.put("/site/c", [3])
    },
    Step(description: "replacing a file", before: ["a": 1, "b": 2], after: ["a": 3, "b": 2]) {
      try await $0.put("/site/a", [3])
    },
    Step(description: "renaming a file", before: ["a": 1, "b": 2], after: ["c": 1, "b": 2]) {
      try await $0.move("/site/a", to: "/site/c")
    },
    Step(description: "renaming a file over another", before: ["a": 1, "b": 2], after: ["b": 1]) {
      try await $0.move("/site/a", to: "/site/b")
    },
    Step(description: "removing a file", before: ["a": 1, "b": 2], after: ["b": 2]) {
      try await $0.remove("/site/a")
    },
  ]

  /// Commits of the site's generation pass this service's own group, so the site's gate can not stop them: the service
  /// is the root's, which serves a site that only stores.
  @Test("leaves all names as they were or as they are to be, and no inode behind", arguments: Self.steps)
  func brokenOff(_ step: Step) async throws {
    var outcomes: Set<Bool> = []
    for count in 0..<4 {
      try await TestSite.with(services: [.sector]) { site in
        try await site.rootFilesystem.put("/site/a", [1])
        try await site.rootFilesystem.put("/site/b", [2])
        // Broken off before the commit with this number in the site's generation.
        site.siteGate.close(after: count)
        let isDone = (try? await step.perform(site.rootFilesystem)) != nil
        site.siteGate.open()
        let other = try await Filesystem(
          sectors: site.root, identity: site.domain.identity, keys: site.domain.processKeys, pool: site.domain.pool,
          volumes: Volumes(site), now: TestDomain.now)
        let names = try await Self.contents(other)
        #expect(names == step.before || names == step.after, "\(step), broken off after \(count)")
        if isDone { #expect(names == step.after) }
        outcomes.insert(names == step.after)
        try await Self.settle(site, by: other)
        #expect(try await Self.contents(other) == names)
        #expect(try site.markedCount == 0, "\(step), broken off after \(count)")
        // As many inodes as names.
        #expect(site.site.status().inodes == UInt64(names.count), "\(step), broken off after \(count)")
        // And the site goes on.
        try await other.put("/site/z", [9])
        #expect(try await other.get("/site/z") == [9])
      }
    }
    #expect(outcomes == [false, true])
  }

  @Test("is not named any more once its inode was taken for an orphan")
  func condemned() async throws {
    try await TestSite.with(services: [.sector]) { site in
      let filesystem = site.rootFilesystem
      try await filesystem.put("/site/a", [1])
      site.rootGate.open()
      let place = try await filesystem.place(of: path("/site/a"), for: TestDomain.owner, follow: false)
      let directory = try #require(place.parent)
      // Somebody stops for long between the first commit and the second one.
      let volume = try await filesystem.volumeForChildren(of: directory)
      let file = try await filesystem.numbers.next(in: volume)
      var edit = Edit(filesystem, caller: TestDomain.owner)
      try await edit.open(directory)
      var content = ContentPart(
        fileID: file, version: 1, sectorSize: 4_096, contentID: Filesystem.randomContentID(), modified: edit.time)
      content.directoryFormat = DirectoryContent.format
      try edit.create(
        DirectoryEntry(name: try PathComponent("late"), fileID: file, type: .directory, key: .random()), in: directory,
        content: content, mode: Mode(truncating: 0o755), owner: path("/owner"))
      let parted = try edit.parted()
      _ = try #require(await filesystem.mark(parted.others, of: directory.fileID, for: edit))
      // Meanwhile it is taken for an orphan.
      #expect(try await filesystem.settle(file, in: directory, mayCondemn: true) == .done)
      #expect(try await filesystem.storedRecord(file) == nil)
      #expect(try await filesystem.commit(&edit) == nil)
      #expect(try await Self.contents(filesystem) == ["a": 1])
    }
  }

  @Test("keeps the new file when it is only not known that it has got its name", arguments: [false, true])
  func lostAnswer(isReplaced: Bool) async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      if isReplaced { try await filesystem.put("/site/a", [1]) }
      site.rootGate.loseAnswers()
      await #expect(throws: FilesystemError.self) { try await filesystem.put("/site/a", [2]) }
      await #expect(throws: FilesystemError.self) { try await filesystem.makeDirectory("/site/d") }
      site.rootGate.open()
      let other = try await site.anotherSiteFilesystem()
      #expect(try await other.get("/site/a") == [2])
      #expect(try await other.names("/site/d").isEmpty)
      for inode in try site.site.store.inodes(flag: .pending) {
        let file = FileID(generation: TestSite.generation, inode: InodeNumber(inode))
        await other.settleFirmly(file, in: other.root, mayCondemn: true)
      }
      #expect(try await other.get("/site/a") == [2])
      #expect(try site.markedCount == 0)
      #expect(site.site.status().inodes == 2)
    }
  }

  /// Nothing is put into a directory that another service has begun to remove and then, since something was put into it,
  /// removes all the same.
  @Test("removes no directory that has been filled meanwhile", arguments: ["creation", "rename"])
  func filledMeanwhile(how: String) async throws {
    try await TestSite.with { site in
      let (one, other) = (site.siteFilesystem, try await site.anotherSiteFilesystem())
      try await one.makeDirectory("/site/d")
      try await one.makeDirectory("/site/e")
      try await one.put("/site/e/x", [1])
      let place = try await one.place(of: path("/site/d"), for: TestDomain.owner, follow: false)
      let (home, entry) = (try #require(place.parent), try #require(place.found?.entry))
      var removal = Edit(one, caller: TestDomain.owner)
      try await removal.open(home)
      try await removal.requireEmpty(entry)
      removal.removeEntry(entry.name, in: home)
      try await removal.unlink(entry.fileID, from: home.fileID)
      let parted = try removal.parted()
      let marked = try #require(await one.mark(parted.others, of: home.fileID, for: removal))
      if how == "creation" {
        try await other.put("/site/d/x", [1])
      } else {
        try await other.move("/site/e/x", to: "/site/d/x")
      }
      // Now the second commit, by what was read before.
      var own = parted.own
      let sealed = try await own.sealDirectories()
      let prepared = Edit.Prepared(commit: try own.sign(), directories: sealed)
      #expect(try await one.commit(prepared, of: own) == nil)
      #expect(marked.count == 1)
      #expect(try await other.get("/site/d/x") == [1])
      #expect(try await one.get("/site/d/x") == [1])
      #expect(try site.markedCount == 0)
    }
  }

  @Test("lets nobody link or remove what has just got its name before its names are counted")
  func uncounted() async throws {
    try await TestSite.with(services: [.sector]) { site in
      let filesystem = site.rootFilesystem
      try await filesystem.makeDirectory("/site/d")
      // The third commit does not get through.
      let count = site.siteGate.passed
      site.siteGate.close(after: 1)
      try await filesystem.put("/site/a", [1])
      #expect(site.siteGate.passed == count + 1)
      #expect(try site.markedCount == 1)
      site.siteGate.open()
      _ = try await filesystem.makeLink(path("/site/a"), as: path("/site/d/b"), filesystem.asOwner)
      #expect(try await filesystem.stat(path("/site/a"), follow: true, for: TestDomain.owner).linkCount == 2)
      try await filesystem.remove("/site/d/b")
      #expect(try await filesystem.get("/site/a") == [1])
      try await filesystem.remove("/site/a")
      #expect(site.site.status().inodes == 1)
      #expect(try site.markedCount == 0)
    }
  }

  /// The files of the site, with their first byte.
  private static func contents(_ filesystem: Filesystem) async throws -> [String: UInt8] {
    var contents: [String: UInt8] = [:]
    for name in try await filesystem.names("/site") where name != "nas1" {
      contents[name] = try await filesystem.get("/site/\(name)").first
    }
    return contents
  }

  private static func settle(_ site: TestSite, by filesystem: Filesystem) async throws {
    let place = try await filesystem.place(of: path("/site/x"), for: TestDomain.owner, follow: false)
    let directory = try #require(place.parent)
    for inode in try site.site.store.inodes(flag: .pending) {
      let file = FileID(generation: TestSite.generation, inode: InodeNumber(inode))
      #expect(try await filesystem.settle(file, in: directory, mayCondemn: true) == .done)
    }
  }

  /// The site's volume, without a gate.
  private struct Volumes: VolumeSource {
    let site: SectorGroup

    init(_ site: TestSite) { self.site = site.site }

    func volume(
      _ generation: Generation, serving directory: TreePath, _ id: FileID
    ) async throws(SectorError) -> any Volume { self.site }
  }
}
