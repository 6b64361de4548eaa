// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import Sectors
import Testing
import Trust

@testable import Filesystem

@Suite("Copies of the directories above")
struct AncestorCopiesTests {
  private static func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

  /// A site with a file and a directory with one, and what its service would keep of what lies above.
  private static func with(_ body: (TestSite, AncestorCopies) async throws -> Void) async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      try await filesystem.makeDirectory("/site/d")
      try await filesystem.put("/site/d/deep", Self.bytes("deep"))
      try await filesystem.put("/site/direct", Self.bytes("direct"))
      // More than four sectors, so that there is a tree.
      for number in 0..<300 { try await filesystem.put("/site/n\(number)", []) }
      try await filesystem.refreshAncestors()
      try await body(site, try #require(await filesystem.copiesOfAncestors()))
    }
  }

  @Test("let a service that has just begun serve what it stores, while nobody above can be reached")
  func restored() async throws {
    try await Self.with { site, copies in
      #expect(copies.records.count == 2 && copies.content?.nodes.isEmpty == false)
      site.rootGate.cutOff()
      let without = try await site.anotherSiteFilesystem()
      await #expect(throws: FilesystemError.self) { try await without.get("/site/d/deep") }
      let filesystem = try await site.anotherSiteFilesystem()
      try filesystem.restore(copies)
      #expect(try await filesystem.get("/site/d/deep") == Self.bytes("deep"))
      #expect(try await filesystem.get("/site/direct") == Self.bytes("direct"))
      try await filesystem.put("/site/d/new", Self.bytes("new"))
      #expect(try await filesystem.get("/site/d/new") == Self.bytes("new"))
      // Neither is a name known to be missing, nor can there be a new one.
      await #expect(throws: FilesystemError.self) { try await filesystem.get("/site/unknown") }
      await #expect(throws: FilesystemError.self) { try await filesystem.makeDirectory("/site/other") }
      site.rootGate.open()
      try await filesystem.makeDirectory("/site/other")
    }
  }

  @Test("keep names only for as long as they hold")
  func names() async throws {
    try await Self.with { site, _ in
      let filesystem = site.siteFilesystem
      #expect(try await filesystem.get("/site/direct") == Self.bytes("direct"))
      #expect(try await filesystem.get("/site/n1") == Self.bytes(""))
      try await filesystem.refreshAncestors()
      let copies = try #require(await filesystem.copiesOfAncestors())
      #expect(!copies.links.isEmpty)
      try await filesystem.move("/site/direct", to: "/site/renamed")
      site.rootGate.cutOff()
      let another = try await site.anotherSiteFilesystem()
      try another.restore(copies)
      let names = Set(another.names.all.keys.map(\.description))
      #expect(names.contains("n1") && names.count == copies.links.count)
      site.rootGate.open()
      // It is asked for again, since its inode says that something has changed.
      #expect(try await another.get("/site/renamed") == Self.bytes("direct"))
      await #expect(throws: FilesystemError.notFound) { try await another.get("/site/direct") }
    }
  }

  @Test("read only what has changed")
  func incremental() async throws {
    try await Self.with { site, former in
      let filesystem = site.siteFilesystem
      try await filesystem.put("/site/one-more", [])
      try await filesystem.refreshAncestors()
      let copies = try #require(await filesystem.copiesOfAncestors())
      let (old, new) = (try #require(former.content).sectors, try #require(copies.content).sectors)
      let changed = new.count { old[$0.key] != $0.value }
      #expect(changed == 1 && new.count >= old.count)
      #expect(await filesystem.copiesOfAncestors() == copies)
    }
  }

  @Test("are refused when they lead elsewhere, or were tampered with")
  func refused() async throws {
    try await Self.with { site, copies in
      site.rootGate.cutOff()
      var shortened = copies
      shortened.records.removeLast()
      var swapped = copies
      swapped.records.reverse()
      var damaged = copies
      for index in damaged.content?.sectors.keys.sorted().prefix(1) ?? [] {
        damaged.content?.sectors[index]?[7] ^= 1
      }
      var incomplete = copies
      incomplete.content?.nodes = [:]
      for copies in [shortened, swapped, damaged, incomplete] {
        let filesystem = try await site.anotherSiteFilesystem()
        #expect(throws: FilesystemError.self) { try filesystem.restore(copies) }
        await #expect(throws: FilesystemError.self) { try await filesystem.get("/site/d/deep") }
      }
    }
  }

  @Test("have nobody wait for what could not be read a moment ago")
  func stale() async throws {
    try await Self.with { site, copies in
      site.rootGate.cutOff()
      let filesystem = try await site.anotherSiteFilesystem()
      try filesystem.restore(copies)
      #expect(filesystem.ancestors.use() == .stale)
      await #expect(throws: FilesystemError.self) { try await filesystem.refreshAncestors() }
      #expect(filesystem.ancestors.use() == .fresh)
      site.rootGate.open()
      try await filesystem.refreshAncestors()
      #expect(filesystem.ancestors.use() == .fresh)
    }
  }
}
