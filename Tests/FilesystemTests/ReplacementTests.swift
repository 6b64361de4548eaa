// SPDX-License-Identifier: Apache-2.0

import Inodes
import Sectors
import Testing
import Trust

@testable import Filesystem

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

@Suite("A path whose file is replaced all the time")
struct ReplacementTests {
  /// Replaces a file in several ways while `body` is done again and again.
  private func replacing(
    rounds: Int, _ body: @escaping @Sendable (Filesystem, Int) async throws -> Void
  ) async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.put("/f", [0])
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        for writer in 0..<3 {
          tasks.addTask {
            for round in 0..<rounds {
              if writer == 0, round % 4 == 0 {
                try await filesystem.put("/g", [UInt8(truncatingIfNeeded: round)])
                try await filesystem.move("/g", to: "/f")
              } else {
                try await filesystem.put("/f", [UInt8(truncatingIfNeeded: round)])
              }
            }
          }
        }
        tasks.addTask { for round in 0..<rounds { try await body(filesystem, round) } }
        try await tasks.waitForAll()
      }
      #expect(try await filesystem.get("/f").isEmpty == false)
      // Of all those files one is left.
      #expect(filesystem.group.status().inodes == 5)
    }
  }

  @Test("is found by all who replace and read it")
  func reading() async throws {
    try await self.replacing(rounds: 300) { filesystem, _ in
      for _ in 0..<5 {
        let data = try await filesystem.get("/f")
        #expect(data.count == 1)
        _ = try await filesystem.stat(path("/f"), follow: true, for: TestDomain.owner)
        _ = try await filesystem.list(path("/"), after: [], count: 10, withInfo: true, for: TestDomain.owner)
      }
    }
  }

  @Test("is found by all who write in place, set attributes, and link")
  func changing() async throws {
    try await self.replacing(rounds: 150) { filesystem, round in
      _ = try await filesystem.write([1], to: path("/f"), at: 0, filesystem.asOwner)
      _ = try await filesystem.truncate(path("/f"), to: 1, filesystem.asOwner)
      var change = AttributeChange()
      change.modified = Int64(round)
      _ = try await filesystem.setAttributes(path("/f"), follow: true, change, filesystem.asOwner)
      _ = try await filesystem.makeLink(path("/f"), as: path("/link"), filesystem.asOwner)
      try await filesystem.remove("/link")
    }
  }

  @Test("leads through a directory that is replaced as well")
  func directories() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      try await filesystem.makeDirectory("/d")
      _ = try await filesystem.makeSymbolicLink(path("/s"), target: Array("d".utf8), filesystem.asOwner)
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask {
          for _ in 0..<100 {
            try await filesystem.makeDirectory("/new")
            // Once the other one's file is in it, it has to wait.
            while (try? await filesystem.move("/new", to: "/d")) == nil {}
          }
        }
        tasks.addTask {
          for round in 0..<200 {
            let name = round % 2 == 0 ? "/d/f" : "/s/f"
            try await filesystem.put(name, [1])
            #expect(try await filesystem.get(name) == [1])
            try await filesystem.remove(name)
            _ = try await filesystem.stat(path("/s"), follow: true, for: TestDomain.owner)
            #expect(try await filesystem.names("/s") == [])
          }
        }
        try await tasks.waitForAll()
      }
    }
  }

  @Test("answers each of many who replace it in one commit with its own file")
  func together() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      let files = try await withThrowingTaskGroup(of: FileID.self) { tasks in
        for number in 0..<60 { tasks.addTask { try await filesystem.put("/f", [UInt8(number)]).fileID } }
        return try await tasks.reduce(into: Set<FileID>()) { $0.insert($1) }
      }
      #expect(files.count == 60)
    }
  }
}

@Suite("A directory above a credential")
struct CredentialPathTests {
  @Test("is where the credential says, however it is renamed while that is added")
  func renaming() async throws {
    try await TestDomain.withFilesystem { (domain: TestDomain, filesystem: Filesystem) async throws in
      var added = 0
      for round in 0..<30 {
        try await filesystem.makeDirectory("/site\(round)")
        try await filesystem.makeDirectory("/site\(round)/people")
        let file = try TestDomain.issue(
          .user, "/site\(round)/people/ann", PrincipalKeys(), [], by: domain.authority, serial: 1)
        async let renamed: Bool = (try? await filesystem.move("/site\(round)", to: "/moved\(round)")) != nil
        async let isAdded: Bool = (try? await filesystem.addCredential(file.bytes, filesystem.asOwner)) != nil
        let (wasRenamed, wasAdded) = await (renamed, isAdded)
        #expect(wasRenamed != wasAdded)
        if wasAdded {
          added += 1
          let info = try await filesystem.stat(path("/site\(round)/people/ann"), follow: false, for: TestDomain.owner)
          #expect(info.type == .credential)
        }
      }
      #expect(filesystem.group.credentials.all.count == 2 + added)
    }
  }
}
