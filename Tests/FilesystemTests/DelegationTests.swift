// SPDX-License-Identifier: Apache-2.0

import Inodes
import Sectors
import Testing
import Trust

@testable import Filesystem

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

@Suite("A directory with a cluster of its own")
struct DelegationTests {
  @Test("keeps what was there, and has what is made in it stored by its own cluster")
  func generations() async throws {
    try await TestSite.with(before: { root in
      try await root.put("/site/old", [1])
      try await root.makeDirectory("/site/old-directory")
    }) { site in
      let filesystem = site.siteFilesystem
      try await filesystem.put("/site/new", [2, 3])
      try await filesystem.makeDirectory("/site/d")
      try await filesystem.put("/site/d/deep", [4])
      try await filesystem.put("/site/old-directory/x", [5])
      func info(_ text: String) async throws -> FileInfo {
        try await filesystem.stat(path(text), follow: true, for: TestDomain.owner)
      }
      #expect(try await info("/site").fileID.generation == .root)
      #expect(try await info("/site").servedByGeneration == TestSite.generation)
      #expect(try await info("/site/old").fileID.generation == .root)
      #expect(try await info("/site/new").fileID.generation == TestSite.generation)
      #expect(try await info("/site/new").linkCount == 1)
      #expect(try await info("/site/d/deep").fileID.generation == TestSite.generation)
      // What was no part of the delegation goes on as it was.
      #expect(try await info("/site/old-directory/x").fileID.generation == .root)
      #expect(try await filesystem.get("/site/old") == [1])
      #expect(try await filesystem.get("/site/new") == [2, 3])
      #expect(try await filesystem.get("/site/d/deep") == [4])
      #expect(try await filesystem.get("/site/old-directory/x") == [5])
      #expect(try await filesystem.names("/site").sorted() == ["d", "nas1", "new", "old", "old-directory"])
      #expect(try site.markedCount == 0)
    }
  }

  @Test("renames, replaces and removes in it")
  func changes() async throws {
    try await TestSite.with(before: { try await $0.put("/site/old", [1]) }) { site in
      let filesystem = site.siteFilesystem
      try await filesystem.put("/site/a", [2])
      try await filesystem.put("/site/b", [3])
      try await filesystem.move("/site/a", to: "/site/c")
      #expect(try await filesystem.get("/site/c") == [2])
      try await filesystem.move("/site/c", to: "/site/b")
      #expect(try await filesystem.get("/site/b") == [2])
      try await filesystem.put("/site/b", [4])
      #expect(try await filesystem.get("/site/b") == [4])
      // A file of the cluster above gives way to one of this one.
      try await filesystem.put("/site/old", [5])
      #expect(try await filesystem.get("/site/old") == [5])
      #expect(
        try await filesystem.stat(path("/site/old"), follow: true, for: TestDomain.owner).fileID.generation
          == TestSite.generation)
      try await filesystem.makeDirectory("/site/d")
      await #expect(throws: FilesystemError.alreadyExists) { try await filesystem.makeDirectory("/site/d") }
      try await filesystem.put("/site/d/x", [6])
      await #expect(throws: FilesystemError.notEmpty) { try await filesystem.remove("/site/d") }
      try await filesystem.remove("/site/d/x")
      try await filesystem.remove("/site/d")
      try await filesystem.remove("/site/b")
      try await filesystem.remove("/site/old")
      #expect(try await filesystem.names("/site") == ["nas1"])
      #expect(try site.markedCount == 0)
    }
  }

  @Test("asks for a copy where a name would come to another cluster's directory")
  func crossing() async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      try await filesystem.put("/site/a", [1])
      try await filesystem.makeDirectory("/site/d")
      await #expect(throws: FilesystemError.crossGeneration) { try await filesystem.move("/site/a", to: "/site/d/a") }
      #expect(try await filesystem.get("/site/a") == [1])
    }
  }

  @Test("lets directories move within it, and none come to lie in itself")
  func movedDirectories() async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      for name in ["/site/a", "/site/a/b", "/site/c", "/site/c/d"] { try await filesystem.makeDirectory(name) }
      try await filesystem.move("/site/a/b", to: "/site/c/d/b")
      await #expect(throws: FilesystemError.loop) { try await filesystem.move("/site/c/d", to: "/site/c/d/b/d") }
      #expect(try await filesystem.names("/site/c/d") == ["b"])
    }
  }

  @Test("is answered for by its own processes, which send callers upwards for everything else")
  func redirections() async throws {
    try await TestSite.with { site in
      try await site.siteFilesystem.put("/site/f", [1])
      try await site.rootFilesystem.put("/elsewhere", [2])
      func directory(_ body: () async throws -> Void) async -> TreePath? {
        do { try await body() } catch FilesystemError.redirected(let redirection) { return redirection.directory } catch
        {}
        return nil
      }
      let root = site.rootFilesystem
      #expect(await directory { _ = try await root.get("/site/f") } == TestSite.path)
      #expect(await directory { try await root.put("/site/g", []) } == TestSite.path)
      #expect(await directory { _ = try await root.names("/site") } == TestSite.path)
      #expect(await directory { _ = try await site.siteFilesystem.get("/elsewhere") } == .root)
      #expect(await directory { try await site.siteFilesystem.remove("/site") } == .root)
      // The directory itself is known to both.
      let stat = try await root.stat(TestSite.path, follow: true, for: TestDomain.owner)
      #expect(try await site.siteFilesystem.stat(TestSite.path, follow: true, for: TestDomain.owner) == stat)
    }
  }

  @Test("is reached through symbolic links, which say where to go on")
  func symbolicLinks() async throws {
    try await TestSite.with { site in
      try await site.siteFilesystem.put("/site/f", [1])
      try await site.rootFilesystem.put("/elsewhere", [2])
      let request = site.rootFilesystem.asOwner
      _ = try await site.rootFilesystem.makeSymbolicLink(path("/link"), target: Array("site".utf8), request)
      _ = try await site.siteFilesystem.makeSymbolicLink(path("/site/out"), target: Array("../elsewhere".utf8), request)
      _ = try await site.siteFilesystem.makeSymbolicLink(path("/site/in"), target: Array("/site/f".utf8), request)
      #expect(try await site.siteFilesystem.get("/site/in") == [1])
      await #expect {
        try await site.rootFilesystem.get("/link/f")
      } throws: { error in
        guard case FilesystemError.redirected(let to) = error else { return false }
        return to.directory == TestSite.path && to.path == path("/site/f")
      }
      await #expect {
        try await site.siteFilesystem.get("/site/out")
      } throws: { error in
        guard case FilesystemError.redirected(let to) = error else { return false }
        return to.directory == .root && to.path == path("/elsewhere")
      }
    }
  }

  @Test("is served by the processes above where its own only store what they can not read")
  func sealedSite() async throws {
    try await TestSite.with(services: [.sector]) { site in
      let filesystem = site.rootFilesystem
      try await filesystem.put("/site/f", [1])
      try await filesystem.makeDirectory("/site/d")
      try await filesystem.put("/site/d/g", [2])
      try await filesystem.move("/site/f", to: "/site/h")
      #expect(try await filesystem.get("/site/h") == [1])
      #expect(try await filesystem.get("/site/d/g") == [2])
      let info = try await filesystem.stat(path("/site/d/g"), follow: true, for: TestDomain.owner)
      #expect(info.fileID.generation == TestSite.generation)
      #expect(try site.markedCount == 0)
    }
  }

  @Test("applies an operation once, whichever of the two clusters it was completed at")
  func operations() async throws {
    try await TestSite.with { site in
      let session = try await site.site.openSession(owner: path("/owner"))
      func request(_ sequence: UInt64) -> Request {
        Request(caller: TestDomain.owner, operation: OperationID(session: session, sequence: sequence))
      }
      let both = [site.siteFilesystem, try await site.anotherSiteFilesystem()]
      for filesystem in both {
        _ = try await filesystem.makeDirectory(
          path("/site/d"), mode: Mode(truncating: 0o755), parents: false, request(1))
      }
      for filesystem in both { try await filesystem.put("/site/f", [1], as: request(2), mustBeNew: true) }
      for filesystem in both {
        _ = try await filesystem.rename(path("/site/f"), to: path("/site/g"), noReplace: true, request(3))
      }
      for filesystem in both { try await filesystem.remove(path("/site/d"), expecting: .directory, request(4)) }
      #expect(try await site.siteFilesystem.names("/site").sorted() == ["g", "nas1"])
    }
  }
}
