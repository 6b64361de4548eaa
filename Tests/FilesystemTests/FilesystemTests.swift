// SPDX-License-Identifier: Apache-2.0

import Foundation
import GRPCCore
import GRPCProtobuf
import Inodes
import SectorStore
import Sectors
import Testing
import Trust

@testable import Filesystem

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

@Suite("A file")
struct FileTests {
  static let sizes = [
    0, 1, 100, 4_095, 4_096, 4_097, 16_384, 20_000, 262_144, 300_000, 1 << 20, (1 << 20) + 1, 3_500_000,
  ]

  @Test("is read as it was written, also after a restart", arguments: [4_096, 16_384])
  func roundTrip(sectorSize: Int) async throws {
    try await TestDomain.with(sectorSize: sectorSize) { domain in
      let contents = Self.sizes.map { size in (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ size) } }
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        for (size, data) in zip(Self.sizes, contents) {
          let info = try await filesystem.put("/file-\(size)", data)
          #expect(info.size == UInt64(size))
          #expect(try await filesystem.get("/file-\(size)") == data)
        }
      }
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        for (size, data) in zip(Self.sizes, contents) {
          #expect(try await filesystem.get("/file-\(size)") == data)
        }
      }
    }
  }

  @Test("is read in ranges, and ends at its end")
  func ranges() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      let data = (0..<50_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
      try await filesystem.put("/f", data)
      var reader = try await filesystem.open(path("/f"), for: TestDomain.owner)
      for (offset, count) in [(0, 1), (4_095, 2), (8_192, 4_096), (49_999, 10), (50_000, 10), (60_000, 1), (1, 49_998)]
      {
        let end = min(offset + count, data.count)
        let expected = offset < end ? Array(data[offset..<end]) : []
        #expect(try await reader.read(offset: UInt64(offset), count: count) == expected)
      }
    }
  }

  @Test("keeps its version for a reader while others replace, change and remove it")
  func readerKeepsVersion() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      let first = [UInt8](repeating: 1, count: 30_000)
      try await filesystem.put("/f", first)
      var reader = try await filesystem.open(path("/f"), for: TestDomain.owner)
      _ = try await filesystem.write([9, 9, 9], to: path("/f"), at: 100, filesystem.asOwner)
      _ = try await filesystem.truncate(path("/f"), to: 10, filesystem.asOwner)
      try await filesystem.put("/f", [2, 2])
      try await filesystem.remove(path("/f"), expecting: .file, filesystem.asOwner)
      #expect(try await reader.read(offset: 0, count: 1 << 20) == first)
      await #expect(throws: FilesystemError.notFound) { try await filesystem.get("/f") }
    }
  }

  @Test("that was cut and grown again reads as zeros where it was cut")
  func truncation() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.put("/f", [UInt8](repeating: 7, count: 600_000))
      for size: UInt64 in [500_001, 20_000, 4_096, 4_000, 1, 0] {
        #expect(try await filesystem.truncate(path("/f"), to: size, filesystem.asOwner).size == size)
        #expect(try await filesystem.truncate(path("/f"), to: 700_000, filesystem.asOwner).size == 700_000)
        let data = try await filesystem.get("/f")
        #expect(data.count == 700_000)
        #expect(data[..<Int(size)].allSatisfy { $0 == 7 })
        #expect(data[Int(size)...].allSatisfy { $0 == 0 })
      }
    }
  }

  @Test("beyond the largest size is refused, whether written or grown")
  func largest() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.put("/f", [1])
      let limit = TreeShape.fileByteCountMax
      await #expect(throws: FilesystemError.outOfRange) {
        try await filesystem.write([1], to: path("/f"), at: limit, filesystem.asOwner)
      }
      await #expect(throws: FilesystemError.outOfRange) {
        try await filesystem.write([1], to: path("/f"), at: .max, filesystem.asOwner)
      }
      await #expect(throws: FilesystemError.outOfRange) {
        try await filesystem.truncate(path("/f"), to: limit + 1, filesystem.asOwner)
      }
      // The very last byte is within reach, and costs no more than its path in the tree.
      let info = try await filesystem.write([5], to: path("/f"), at: limit - 1, filesystem.asOwner)
      #expect(info.size == limit)
      var reader = try await filesystem.open(path("/f"), for: TestDomain.owner)
      #expect(try await reader.read(offset: limit - 2, count: 10) == [0, 5])
      #expect(try await reader.read(offset: 0, count: 2) == [1, 0])
    }
  }

  @Test("whose upload breaks off is not there, and what was stored of it goes")
  func brokenUpload() async throws {
    try await TestDomain.with { domain in
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        try await filesystem.put("/kept", [1, 2, 3])
        var upload = try await filesystem.upload(
          path("/kept"), mode: Mode(truncating: 0o644), mustBeNew: false, filesystem.asOwner)
        try await upload.append([UInt8](repeating: 1, count: 5 << 20))
        #expect(try filesystem.group.store.inodes(flag: .pending).count == 1)
        #expect(try await filesystem.get("/kept") == [1, 2, 3])
        await upload.abandon()
        #expect(try filesystem.group.store.inodes(flag: .pending).isEmpty)
        // One more that nobody ends, as when the process dies.
        var lost = try await filesystem.upload(
          path("/lost"), mode: Mode(truncating: 0o644), mustBeNew: true, filesystem.asOwner)
        try await lost.append([UInt8](repeating: 1, count: 5 << 20))
      }
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        // It may go on in another process.
        #expect(try await filesystem.removePending(olderThan: 3_600_000_000_000) == 0)
        #expect(try await filesystem.removePending(olderThan: 0) == 1)
        #expect(try await filesystem.removePending(olderThan: 0) == 0)
        #expect(try await filesystem.get("/kept") == [1, 2, 3])
        #expect(try await filesystem.names("/").sorted() == ["kept", "node1", "owner"])
      }
    }
  }

  @Test("that is replaced keeps owner, mode and access list")
  func replacementKeepsRules() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.put("/f", [1])
      var change = AttributeChange()
      change.mode = Mode(truncating: 0o640)
      change.access = [AccessEntry(.principal(path("/ann")), [.read, .write])]
      _ = try await filesystem.setAttributes(path("/f"), follow: true, change, filesystem.asOwner)
      let info = try await filesystem.put("/f", [2, 3], mode: 0o777, as: Request(caller: .principal(path("/ann"))))
      #expect(info.rules.owner == path("/owner"))
      #expect(info.rules.mode == Mode(truncating: 0o640))
      #expect(info.rules.entries.count == 1)
      #expect(try await filesystem.get("/f") == [2, 3])
    }
  }
}

@Suite("A directory")
struct DirectoryTests {
  @Test("has each name once, however many make it at the same time")
  func concurrentCreation() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/d")
      let before = filesystem.group.status().appliedIndex
      let made = await withTaskGroup(of: Bool.self) { tasks in
        for number in 0..<200 {
          tasks.addTask {
            // Every name is tried twice.
            (try? await filesystem.put("/d/file-\(number / 2)", [UInt8(number / 2)], mustBeNew: true)) != nil
          }
        }
        return await tasks.reduce(into: 0) { if $1 { $0 += 1 } }
      }
      #expect(made == 100)
      #expect(try await filesystem.names("/d", pageSize: 7).sorted() == (0..<100).map { "file-\($0)" }.sorted())
      for number in 0..<100 { #expect(try await filesystem.get("/d/file-\(number)") == [UInt8(number)]) }
      // Those that waited for the directory went into one commit with others.
      #expect(filesystem.group.status().appliedIndex - before < 100)
    }
  }

  @Test("lists what stays exactly once while other names come and go")
  func stableListing() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/d")
      for number in 0..<300 { try await filesystem.put("/d/stays-\(number)-\(String(repeating: "x", count: 60))", []) }
      for number in 0..<60 { try await filesystem.put("/d/goes-\(number)", []) }
      var seen: [String] = []
      var cursor: [UInt8] = []
      var round = 0
      repeat {
        let page = try await filesystem.list(
          path("/d"), after: cursor, count: 11, withInfo: false, for: TestDomain.owner)
        seen += page.entries.map(\.name.description)
        cursor = page.next
        if round < 60 { try await filesystem.remove(path("/d/goes-\(round)"), expecting: .file, filesystem.asOwner) }
        try await filesystem.put("/d/comes-\(round)", [])
        round += 1
      } while !cursor.isEmpty
      let staying = seen.filter { $0.hasPrefix("stays") }
      #expect(Set(staying).count == 300)
      #expect(staying.count == 300)
      #expect(Set(seen).count == seen.count)
    }
  }

  @Test("is removed only when it is empty, and nothing is added to it meanwhile")
  func removal() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      for _ in 0..<20 {
        try await filesystem.makeDirectory("/d")
        async let removed: Bool = {
          do {
            try await filesystem.remove(path("/d"), expecting: .directory, filesystem.asOwner)
            return true
          } catch {
            return false
          }
        }()
        async let added: Bool = (try? await filesystem.put("/d/f", [1])) != nil
        let (wasRemoved, wasAdded) = await (removed, added)
        #expect(!(wasRemoved && wasAdded))
        if !wasRemoved {
          if wasAdded { #expect(try await filesystem.get("/d/f") == [1]) }
          if wasAdded { try await filesystem.remove(path("/d/f"), expecting: .file, filesystem.asOwner) }
          try await filesystem.remove(path("/d"), expecting: .directory, filesystem.asOwner)
        }
      }
      #expect(try await filesystem.names("/").sorted() == ["node1", "owner"])
    }
  }

  @Test("never comes to lie in itself, however directories are moved at the same time")
  func noCycles() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/a")
      try await filesystem.makeDirectory("/b")
      await #expect(throws: FilesystemError.loop) {
        try await filesystem.rename(path("/a"), to: path("/a/x"), noReplace: false, filesystem.asOwner)
      }
      await withTaskGroup(of: Void.self) { tasks in
        for round in 0..<40 {
          let (from, to) = round % 2 == 0 ? ("/a", "/b/a") : ("/b", "/a/b")
          tasks.addTask {
            _ = try? await filesystem.rename(path(from), to: path(to), noReplace: false, filesystem.asOwner)
          }
        }
      }
      let top = Set(try await filesystem.names("/"))
      // One of them went into the other: both can still be reached.
      #expect(top.contains("a") != top.contains("b"))
      let outer = top.contains("a") ? "a" : "b"
      #expect(try await filesystem.names("/\(outer)") == [outer == "a" ? "b" : "a"])
    }
  }

  @Test("with a credential below it is not renamed")
  func credentialsStay() async throws {
    try await TestDomain.withFilesystem { domain, filesystem in
      try await filesystem.makeDirectory("/people")
      let keys = PrincipalKeys()
      let ann = try TestDomain.issue(.user, "/people/ann", keys, [], by: domain.authority, serial: 1)
      _ = try await filesystem.addCredential(ann.bytes, filesystem.asOwner)
      await #expect(throws: FilesystemError.wrongType) {
        try await filesystem.rename(path("/people"), to: path("/humans"), noReplace: false, filesystem.asOwner)
      }
      await #expect(throws: FilesystemError.wrongType) {
        try await filesystem.rename(path("/people/ann"), to: path("/people/bob"), noReplace: false, filesystem.asOwner)
      }
      let credential = try domain.verifier.verify(ann.chain, at: Date())
      #expect(filesystem.isConfirmed(credential))
      try await filesystem.remove(path("/people/ann"), expecting: .file, filesystem.asOwner)
      #expect(!filesystem.isConfirmed(credential))
    }
  }

  @Test("gives its key to a process with the filesystem mark, and to nobody else")
  func readcaps() async throws {
    try await TestDomain.withFilesystem { domain, filesystem in
      try await filesystem.makeDirectory("/site")
      for (name, services) in [("nas", [Service.sector]), ("fs", [.sector, .filesystem])] {
        let file = try TestDomain.issue(
          .process, "/site/\(name)", PrincipalKeys(), services, by: domain.authority, serial: 1)
        let admission = try await filesystem.addCredential(file.bytes, filesystem.asOwner)
        #expect((admission.readcap != nil) == services.contains(.filesystem))
      }
      let site = try await filesystem.stat(path("/site"), follow: true, for: TestDomain.owner)
      let record = try #require(await filesystem.group.record(site.fileID))
      #expect(record.attributes.part.readcaps.map(\.principal) == [path("/site/fs")])
      // A stranger's authority counts for nothing here.
      let stranger = try CertificateAuthority(newRoot: SigningKey(), at: Date())
      let forged = try TestDomain.issue(.user, "/site/eve", PrincipalKeys(), [], by: stranger, serial: 1)
      await #expect(throws: FilesystemError.badCredential("FOREIGN_DOMAIN")) {
        try await filesystem.addCredential(forged.bytes, filesystem.asOwner)
      }
    }
  }
}

@Suite("A name")
struct NameTests {
  @Test("follows symbolic links, relative, absolute and up again, and not in circles")
  func symbolicLinks() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/a")
      try await filesystem.makeDirectory("/a/b")
      try await filesystem.put("/a/f", [1])
      for (name, target) in [
        ("/a/b/up", "../f"), ("/abs", "/a/f"), ("/dir", "a/b"), ("/a/loop", "loop"), ("/gone", "nowhere"),
        ("/top", "../../a/f"),
      ] {
        _ = try await filesystem.makeSymbolicLink(path(name), target: Array(target.utf8), filesystem.asOwner)
        #expect(try await filesystem.readSymbolicLink(path(name), for: TestDomain.owner) == Array(target.utf8))
      }
      for name in ["/a/b/up", "/abs", "/dir/up", "/top"] { #expect(try await filesystem.get(name) == [1]) }
      await #expect(throws: FilesystemError.loop) { try await filesystem.get("/a/loop") }
      await #expect(throws: FilesystemError.notFound) { try await filesystem.get("/gone") }
      #expect(try await filesystem.stat(path("/abs"), follow: false, for: TestDomain.owner).type == .symbolicLink)
      #expect(try await filesystem.stat(path("/abs"), follow: true, for: TestDomain.owner).type == .file)
      // What is written through a link goes to where it leads.
      try await filesystem.put("/abs", [2])
      #expect(try await filesystem.get("/a/f") == [2])
    }
  }

  @Test("is one of several of a file that lives until the last one goes")
  func hardLinks() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/d")
      try await filesystem.put("/f", [1, 2])
      #expect(try await filesystem.makeLink(path("/f"), as: path("/d/g"), filesystem.asOwner).linkCount == 2)
      _ = try await filesystem.write([9], to: path("/d/g"), at: 0, filesystem.asOwner)
      #expect(try await filesystem.get("/f") == [9, 2])
      try await filesystem.remove(path("/f"), expecting: .file, filesystem.asOwner)
      let info = try await filesystem.stat(path("/d/g"), follow: true, for: TestDomain.owner)
      #expect(info.linkCount == 1)
      try await filesystem.remove(path("/d/g"), expecting: .file, filesystem.asOwner)
      #expect(try await filesystem.group.record(info.fileID) == nil)
      await #expect(throws: FilesystemError.isDirectory) {
        try await filesystem.makeLink(path("/d"), as: path("/e"), filesystem.asOwner)
      }
    }
  }

  @Test("moves over files and empty directories as POSIX has it")
  func rename() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/d")
      try await filesystem.makeDirectory("/full")
      try await filesystem.put("/full/x", [])
      try await filesystem.put("/f", [1])
      try await filesystem.put("/g", [2])
      func rename(_ from: String, _ to: String, noReplace: Bool = false) async throws {
        _ = try await filesystem.rename(path(from), to: path(to), noReplace: noReplace, filesystem.asOwner)
      }
      await #expect(throws: FilesystemError.alreadyExists) { try await rename("/f", "/g", noReplace: true) }
      await #expect(throws: FilesystemError.isDirectory) { try await rename("/f", "/d") }
      await #expect(throws: FilesystemError.notDirectory) { try await rename("/d", "/f") }
      await #expect(throws: FilesystemError.notEmpty) { try await rename("/d", "/full") }
      await #expect(throws: FilesystemError.notFound) { try await rename("/none", "/x") }
      try await rename("/f", "/g")
      #expect(try await filesystem.get("/g") == [1])
      try await rename("/g", "/full/g")
      #expect(try await filesystem.get("/full/g") == [1])
      try await rename("/full", "/d")
      #expect(try await filesystem.names("/d").sorted() == ["g", "x"])
      // Two names of one file: nothing happens.
      _ = try await filesystem.makeLink(path("/d/g"), as: path("/d/h"), filesystem.asOwner)
      try await rename("/d/g", "/d/h")
      #expect(try await filesystem.names("/d").sorted() == ["g", "h", "x"])
      #expect(try await filesystem.names("/").sorted() == ["d", "node1", "owner"])
    }
  }
}

@Suite("Permission")
struct PermissionTests {
  let ann = Request(caller: .principal(path("/people/ann")))
  let anonymous = CallerIdentity.anonymous

  @Test("is asked for whatever is done, and what is not there is told only to those who may know")
  func table() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/closed", mode: 0o700)
      try await filesystem.put("/closed/f", [1], mode: 0o600)
      try await filesystem.put("/closed/open", [2], mode: 0o644)
      try await filesystem.put("/shown", [3], mode: 0o644)
      try await filesystem.makeDirectory("/drop", mode: 0o777)
      let caller = self.ann.caller
      // What a file lets others do counts only for those who may pass.
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.get("/closed/open", as: caller)
      }
      // One's own permission on a file is enough to reach it.
      var share = AttributeChange()
      share.access = [AccessEntry(.principal(path("/people/ann")), .read)]
      _ = try await filesystem.setAttributes(path("/closed/open"), follow: true, share, filesystem.asOwner)
      #expect(try await filesystem.get("/closed/open", as: caller) == [2])
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.get("/closed/open", as: anonymous)
      }
      #expect(try await filesystem.get("/shown", as: anonymous) == [3])
      // Nor does what a directory in a closed one lets others do.
      try await filesystem.makeDirectory("/closed/tmp", mode: 0o777)
      try await filesystem.put("/closed/tmp/f", [4], mode: 0o666)
      for (from, to) in [("/closed/tmp/f", "/closed/tmp/g"), ("/closed/tmp/f", "/drop/f"), ("/drop", "/closed/tmp/f")] {
        await #expect(throws: FilesystemError.permissionDenied, "\(from) to \(to)") {
          try await filesystem.rename(path(from), to: path(to), noReplace: false, self.ann)
        }
      }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.remove(path("/closed/tmp/f"), expecting: .file, self.ann)
      }
      #expect(try await filesystem.get("/closed/tmp/f") == [4])
      // What it lets this very caller do does.
      share.access = [AccessEntry(.principal(path("/people/ann")), [.write, .execute])]
      _ = try await filesystem.setAttributes(path("/closed/tmp"), follow: true, share, filesystem.asOwner)
      try await filesystem.remove(path("/closed/tmp/f"), expecting: .file, self.ann)
      for name in ["/closed/f", "/closed/none"] {
        await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.get(name, as: caller) }
        await #expect(throws: FilesystemError.permissionDenied) {
          try await filesystem.stat(path(name), follow: true, for: caller)
        }
      }
      await #expect(throws: FilesystemError.notFound) { try await filesystem.get("/none", as: caller) }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.list(path("/closed"), after: [], count: 10, withInfo: true, for: caller)
      }
      await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.put("/new", [], as: self.ann) }
      await #expect(throws: FilesystemError.permissionDenied) { try await filesystem.put("/shown", [], as: self.ann) }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.write([1], to: path("/shown"), at: 0, self.ann)
      }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.remove(path("/shown"), expecting: .any, self.ann)
      }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.makeLink(path("/shown"), as: path("/drop/l"), self.ann)
      }
      // Anonymous callers write nowhere, whatever the mode says.
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.put("/drop/x", [], as: Request(caller: anonymous))
      }
      #expect(try await filesystem.put("/drop/x", [4], as: self.ann).rules.owner == path("/people/ann"))
    }
  }

  @Test("to change attributes is the owner's, and that of owners of directories above")
  func attributes() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/drop", mode: 0o777)
      try await filesystem.put("/drop/x", [4], as: self.ann)
      try await filesystem.put("/shown", [3])
      var change = AttributeChange()
      change.mode = Mode(truncating: 0o600)
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.setAttributes(path("/shown"), follow: true, change, self.ann)
      }
      #expect(
        try await filesystem.setAttributes(path("/drop/x"), follow: true, change, self.ann).rules.mode.rawValue == 0o600
      )
      var give = AttributeChange()
      give.owner = path("/owner")
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.setAttributes(path("/drop/x"), follow: true, give, self.ann)
      }
      let info = try await filesystem.setAttributes(path("/drop/x"), follow: true, give, filesystem.asOwner)
      #expect(info.rules.owner == path("/owner"))
    }
  }

  @Test("in a sticky directory to remove is for owners")
  func sticky() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/tmp", mode: 0o1777)
      try await filesystem.put("/tmp/mine", [])
      try await filesystem.put("/tmp/hers", [], as: self.ann)
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.remove(path("/tmp/mine"), expecting: .file, self.ann)
      }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.rename(path("/tmp/mine"), to: path("/tmp/x"), noReplace: false, self.ann)
      }
      try await filesystem.remove(path("/tmp/hers"), expecting: .file, self.ann)
      try await filesystem.remove(path("/tmp/mine"), expecting: .file, filesystem.asOwner)
    }
  }
}

@Suite("An operation id")
struct OperationTests {
  @Test("makes each kind of operation safe to repeat")
  func repeats() async throws {
    try await TestDomain.with { domain in
      let session = try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        let session = try await filesystem.group.openSession(owner: path("/owner"))
        func operation(_ number: UInt64) -> Request {
          Request(caller: TestDomain.owner, operation: OperationID(session: session, sequence: number))
        }
        for _ in 0..<3 {
          let made = try await filesystem.makeDirectory("/d", as: operation(1))
          #expect(made.type == .directory)
          #expect(try await filesystem.put("/d/f", [1], as: operation(2), mustBeNew: true).size == 1)
          #expect(try await filesystem.write([5], to: path("/d/f"), at: nil, operation(3)).size == 2)
          let moved = try await filesystem.rename(path("/d/f"), to: path("/d/g"), noReplace: true, operation(4))
          #expect(moved.size == 2)
          if try await filesystem.names("/d") == ["g"] { break }
        }
        // Everything once more, from the start.
        _ = try await filesystem.makeDirectory("/d", as: operation(1))
        _ = try await filesystem.rename(path("/d/f"), to: path("/d/g"), noReplace: true, operation(4))
        try await filesystem.put("/h", [])
        try await filesystem.remove(path("/h"), expecting: .file, operation(5))
        try await filesystem.remove(path("/h"), expecting: .file, operation(5))
        #expect(try await filesystem.get("/d/g") == [1, 5])
        // What was written was written, whatever took its place since.
        let written = try await filesystem.put("/h", [7, 8], as: operation(6))
        try await filesystem.put("/h", [9])
        for _ in 0..<2 {
          let again = try await filesystem.put("/h", [7, 8], as: operation(6))
          #expect(again.fileID == written.fileID && again.size == 2 && again.linkCount == 0)
          if try await filesystem.names("/").contains("h") {
            #expect(try await filesystem.get("/h") == [9])
            try await filesystem.remove("/h")
          }
        }
        #expect(try await !filesystem.names("/").contains("h"))
        return session
      }
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        // Also after a restart, and for nobody else.
        let request = Request(caller: TestDomain.owner, operation: OperationID(session: session, sequence: 5))
        try await filesystem.remove(path("/h"), expecting: .file, request)
        let other = Request(
          caller: .principal(path("/ann")), operation: OperationID(session: session, sequence: 5))
        await #expect(throws: FilesystemError.sector(.sessionUnknown)) {
          try await filesystem.remove(path("/h"), expecting: .file, other)
        }
      }
    }
  }

  @Test("that is used many times at once is applied once")
  func concurrentRepeats() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      let session = try await filesystem.group.openSession(owner: path("/owner"))
      try await filesystem.put("/log", [])
      for number: UInt64 in 1...10 {
        let request = Request(caller: TestDomain.owner, operation: OperationID(session: session, sequence: number))
        await withTaskGroup(of: Void.self) { tasks in
          for _ in 0..<8 {
            tasks.addTask { _ = try? await filesystem.write([UInt8(number)], to: path("/log"), at: nil, request) }
          }
        }
      }
      #expect(try await filesystem.get("/log") == (1...10).map { UInt8($0) })
    }
  }
}

@Suite("A wrong byte on the disk")
struct DamageTests {
  /// Flips a bit in the first place where some bytes stand in the files of a directory of the store.
  private func damage(
    _ domain: TestDomain, in directory: String = "/data", _ needle: [UInt8], at offset: Int
  ) throws -> Bool {
    let data = domain.directory + directory
    for name in try FileManager.default.contentsOfDirectory(atPath: data).sorted() {
      let url = URL(filePath: data + "/" + name)
      guard var bytes = try? Data(contentsOf: url) else { continue }
      if let range = bytes.range(of: Data(needle)) {
        bytes[range.lowerBound + offset] ^= 0x10
        let handle = try FileHandle(forWritingTo: url)
        try handle.seek(toOffset: UInt64(range.lowerBound + offset))
        try handle.write(contentsOf: Data([bytes[range.lowerBound + offset]]))
        try handle.close()
        return true
      }
    }
    return false
  }

  @Test("in any sector or tree node is reported with file and offset, and the rest is still read")
  func sectors() async throws {
    try await TestDomain.with { domain in
      let data = (0..<400_000).map { UInt8(truncatingIfNeeded: $0 / 3) }
      var seals: [(index: UInt64, bytes: [UInt8])] = []
      var node: [UInt8] = []
      var file = FileID.rootDirectory
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        let info = try await filesystem.put("/f", data)
        try await filesystem.put("/other", [1, 2, 3])
        file = info.fileID
        for index: UInt64 in [0, 17, 97] {
          let blocks = try await filesystem.group.read(
            file, level: 0, indexes: index..<index + 1, version: info.version)
          seals.append((index, Array(try #require(blocks[index]))))
        }
        let nodes = try await filesystem.group.read(file, level: 1, indexes: 0..<1, version: info.version)
        node = Array(try #require(nodes[0]))
      }
      for (index, bytes) in seals {
        #expect(try self.damage(domain, Array(bytes.prefix(64)), at: 33))
        try await domain.withFilesystem { (filesystem: Filesystem) async throws in
          let error = await #expect(throws: FilesystemError.self) { try await filesystem.get("/f") }
          #expect(error == .dataLoss(file, .content(offset: index * 4_096)))
          #expect(try await filesystem.get("/other") == [1, 2, 3])
          var reader = try await filesystem.open(path("/f"), for: TestDomain.owner)
          #expect(try await reader.read(offset: 200_000, count: 1_000) == Array(data[200_000..<201_000]))
        }
        var repaired = bytes
        repaired[33] ^= 0x10
        #expect(try self.damage(domain, Array(repaired.prefix(64)), at: 33))
      }
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        #expect(try await filesystem.get("/f") == data)
      }
      #expect(try self.damage(domain, Array(node.prefix(64)), at: 5))
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        let error = await #expect(throws: FilesystemError.self) { try await filesystem.get("/f") }
        guard case .dataLoss(file, .content) = error else {
          Issue.record("\(String(describing: error))")
          return
        }
      }
    }
  }

  @Test("in a directory is reported with the directory, and what lies elsewhere is still there")
  func directory() async throws {
    try await TestDomain.with { domain in
      var file = FileID.rootDirectory
      var sector: [UInt8] = []
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        file = try await filesystem.makeDirectory("/d").fileID
        for number in 0..<100 { try await filesystem.put("/d/file-\(number)", [1]) }
        try await filesystem.put("/other", [2])
        let record = try #require(await filesystem.group.record(file))
        let blocks = try await filesystem.group.read(file, level: 0, indexes: 1..<2, version: record.version)
        sector = Array(try #require(blocks[1]))
      }
      #expect(try self.damage(domain, Array(sector.prefix(64)), at: 20))
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        let damage = FilesystemError.dataLoss(file, .content(offset: 4_096))
        await #expect(throws: damage) { try await filesystem.names("/d") }
        await #expect(throws: damage) { try await filesystem.get("/d/file-0") }
        await #expect(throws: damage) { try await filesystem.put("/d/new", [1]) }
        await #expect(throws: damage) { try await filesystem.remove("/d") }
        #expect(damage.status.code == .dataLoss)
        #expect(try await filesystem.get("/other") == [2])
        let page = try await filesystem.list(path("/"), after: [], count: 10, withInfo: true, for: TestDomain.owner)
        #expect(page.entries.count == 4)
        #expect(page.entries.allSatisfy { $0.info != nil && !$0.isDamaged })
      }
    }
  }

  @Test("in a record is reported with the file, and marks its entry where it is listed with others")
  func record() async throws {
    try await TestDomain.with { domain in
      var file = FileID.rootDirectory
      var body: [UInt8] = []
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        try await filesystem.makeDirectory("/d")
        file = try await filesystem.put("/d/f", [1]).fileID
        try await filesystem.put("/d/g", [2])
        body = try #require(await filesystem.group.record(file)).content.body
      }
      #expect(try self.damage(domain, in: "", body, at: body.count / 2))
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        let damage = FilesystemError.dataLoss(file, .record)
        await #expect(throws: damage) { try await filesystem.get("/d/f") }
        await #expect(throws: damage) {
          try await filesystem.stat(path("/d/f"), follow: true, for: TestDomain.owner)
        }
        await #expect(throws: damage) { try await filesystem.put("/d/f", [3]) }
        #expect(try await filesystem.get("/d/g") == [2])
        let page = try await filesystem.list(path("/d"), after: [], count: 10, withInfo: true, for: TestDomain.owner)
        #expect(page.entries.map(\.name.description).sorted() == ["f", "g"])
        for entry in page.entries {
          #expect(entry.isDamaged == (entry.fileID == file))
          #expect((entry.info == nil) == entry.isDamaged)
        }
        #expect(try await filesystem.names("/d").sorted() == ["f", "g"])
      }
    }
  }

  @Test("or rather a missing inode is reported with the file, also by whoever replaces, removes or lists it")
  func missing() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/d")
      let directory = try await filesystem.makeDirectory("/d/inner").fileID
      let file = try await filesystem.put("/d/f", [1]).fileID
      var commit = Commit()
      commit.removals = [directory, file]
      _ = try await filesystem.group.perform(commit, by: filesystem.identity)
      let (isFileMissing, isDirectoryMissing) = (
        FilesystemError.dataLoss(file, .missing), FilesystemError.dataLoss(directory, .missing)
      )
      await #expect(throws: isFileMissing) { try await filesystem.get("/d/f") }
      await #expect(throws: isFileMissing) { try await filesystem.put("/d/f", [2]) }
      await #expect(throws: isFileMissing) { try await filesystem.remove("/d/f") }
      await #expect(throws: isFileMissing) { try await filesystem.move("/d/f", to: "/d/g") }
      await #expect(throws: isDirectoryMissing) { try await filesystem.get("/d/inner/f") }
      await #expect(throws: isDirectoryMissing) { try await filesystem.put("/d/inner/f", [2]) }
      await #expect(throws: isDirectoryMissing) { try await filesystem.remove("/d/inner") }
      let page = try await filesystem.list(path("/d"), after: [], count: 10, withInfo: true, for: TestDomain.owner)
      #expect(page.entries.count == 2)
      #expect(page.entries.allSatisfy { $0.isDamaged && $0.info == nil })
    }
  }

  @Test("never lets plain text be found there")
  func ciphertextOnly() async throws {
    try await TestDomain.with { domain in
      let secret = Array("a sentence that nobody else may read".utf8)
      try await domain.withFilesystem { (filesystem: Filesystem) async throws in
        try await filesystem.makeDirectory("/a-secret-directory-name")
        try await filesystem.put(
          "/a-secret-directory-name/a-secret-file-name", Array(repeating: secret, count: 300).flatMap { $0 })
        _ = try await filesystem.makeSymbolicLink(
          path("/link"), target: Array("a-secret-target".utf8), filesystem.asOwner)
      }
      let files = try #require(FileManager.default.enumerator(atPath: domain.directory)).compactMap { $0 as? String }
      #expect(files.count > 3)
      for name in files {
        guard let bytes = FileManager.default.contents(atPath: domain.directory + "/" + name) else { continue }
        for needle in [secret, Array("a-secret".utf8)] {
          #expect(bytes.range(of: Data(needle)) == nil, "\(name)")
        }
      }
    }
  }
}

@Suite("What is not one's own")
struct TakeoverTests {
  let ann = Request(caller: .principal(path("/ann")))
  let bob = Request(caller: .principal(path("/bob")))

  @Test("does not become it by being moved or linked into one's own directory")
  func moving() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/shared", mode: 0o777)
      try await filesystem.makeDirectory("/home", mode: 0o777)
      try await filesystem.makeDirectory("/home/bob", mode: 0o755, as: self.bob)
      try await filesystem.put("/shared/secret", [1], mode: 0o600, as: self.ann)
      _ = try await filesystem.rename(path("/shared/secret"), to: path("/home/bob/s"), noReplace: true, self.bob)
      var change = AttributeChange()
      change.mode = Mode(truncating: 0o644)
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.setAttributes(path("/home/bob/s"), follow: true, change, self.bob)
      }
      var take = AttributeChange()
      take.owner = path("/bob")
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.setAttributes(path("/home/bob/s"), follow: true, take, self.bob)
      }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.get("/home/bob/s", as: self.bob.caller)
      }
    }
  }

  @Test("is not undone: a removed credential comes back by nobody who may not write its directory")
  func revocation() async throws {
    try await TestDomain.withFilesystem { (domain: TestDomain, filesystem: Filesystem) async throws in
      let bob = try TestDomain.issue(.user, "/bob", PrincipalKeys(), [], by: domain.authority, serial: 1)
      _ = try await filesystem.addCredential(bob.bytes, filesystem.asOwner)
      try await filesystem.remove(path("/bob"), expecting: .file, filesystem.asOwner)
      await #expect(throws: FilesystemError.permissionDenied) {
        try await filesystem.addCredential(bob.bytes, self.ann)
      }
      #expect(!filesystem.isConfirmed(try domain.verifier.verify(bob.chain, at: Date())))
    }
  }
}
