// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import GRPCCore
import GRPCProtobuf
import Inodes
import Sectors
import SwiftProtobuf
import Testing
import Trust

@testable import Filesystem

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

@Suite("Memory")
struct MemoryTests {
  @Test("for what is known of inodes stays within its budget, and what was used last is kept")
  func table() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      let record = try #require(await filesystem.sectors.record(.rootDirectory))
      let table = InodeTable(byteCountMax: 64 << 10)
      func known(_ number: UInt64) -> (InodeState, InodeState.Known) {
        let file = FileID(generation: .root, inode: InodeNumber(number))
        return (
          table.state(file, type: .file, key: nil),
          InodeState.Known(record: record, tree: IntegrityTree(record.content.part), directory: nil)
        )
      }
      for number: UInt64 in 1...2_000 {
        let (state, value) = known(number)
        table.remember(value, of: state)
        #expect(state.known(at: record.version) != nil)
        #expect(table.byteCount <= 64 << 10)
      }
      #expect(known(2_000).0.known(at: record.version) != nil)
      // Somebody who still holds a state that had to go holds none of what was known.
      let (held, value) = known(3_000)
      table.remember(value, of: held)
      for number: UInt64 in 4_000...4_100 { table.remember(known(number).1, of: known(number).0) }
      #expect(held.known(at: record.version) == nil)
      table.remember(value, of: held)
      #expect(table.current(held) === held)
      table.forget(held.fileID)
      #expect(held.known(at: record.version) == nil)
    }
  }

  @Test("is not taken by a directory that is larger, which works nevertheless")
  func largeDirectory() async throws {
    try await TestDomain.with { domain in
      try await domain.withGroup { group in
        let filesystem = try await domain.filesystem(group, knownByteCountMax: 64 << 10)
        try await filesystem.makeDirectory("/d")
        try await withThrowingTaskGroup(of: Void.self) { tasks in
          for number in 0..<400 {
            tasks.addTask { try await filesystem.put("/d/file-\(number)", [UInt8(number % 256)]) }
          }
          try await tasks.waitForAll()
        }
        #expect(try await filesystem.names("/d", pageSize: 50).count == 400)
        for number in stride(from: 0, to: 400, by: 20) {
          #expect(try await filesystem.get("/d/file-\(number)") == [UInt8(number % 256)])
        }
        try await filesystem.remove("/d/file-7")
        #expect(try await filesystem.names("/d").count == 399)
        #expect(filesystem.inodes.byteCount <= 64 << 10)
        let place = try await filesystem.place(of: path("/d"), for: TestDomain.owner, follow: true)
        let state = try #require(place.found?.state)
        let record = try #require(await group.record(state.fileID))
        let known = try await filesystem.knownDirectory(state)
        #expect(known.directory?.count == 399)
        #expect((known.directory?.memoryByteCount ?? 0) > 64 << 10)
        #expect(state.known(at: record.version)?.directory == nil)
      }
    }
  }
}

@Suite("A page of a directory")
struct PageTests {
  @Test("has at most about 1 MiB of descriptions, and the next ones have the rest")
  func byteCount() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      let long = "/" + (0..<3).map { String(repeating: "\($0)", count: 150) }.joined(separator: "/")
      var change = AttributeChange()
      change.access = (0..<60).map { AccessEntry(.principal(path("\(long)/\($0)")), .read) }
      try await filesystem.makeDirectory("/d")
      for number in 0..<80 {
        try await filesystem.put("/d/f\(number)", [])
        _ = try await filesystem.setAttributes(path("/d/f\(number)"), follow: false, change, filesystem.asOwner)
      }
      var names: [String] = []
      var cursor: [UInt8] = []
      var pageCount = 0
      repeat {
        let page = try await filesystem.list(
          path("/d"), after: cursor, count: 1_000, withInfo: true, for: TestDomain.owner)
        let message = Blocktree_V1_ListResponse.with { $0.entries = page.entries.map(\.message) }
        let bytes: [UInt8] = try message.serializedBytes()
        #expect(bytes.count <= Filesystem.pageByteCountMax)
        #expect(page.entries.allSatisfy { $0.info?.rules.entries.count == 60 })
        names += page.entries.map(\.name.description)
        cursor = page.next
        pageCount += 1
      } while !cursor.isEmpty
      #expect(names.sorted() == (0..<80).map { "f\($0)" }.sorted())
      #expect(pageCount == 3)
    }
  }
}

@Suite("A request")
struct RequestTests {
  private func handler(_ filesystem: Filesystem) -> FilesystemServiceHandler {
    FilesystemServiceHandler(filesystem, introduction: .init(rootCertificate: [], startFrom: { [] }))
  }

  @Test("on a session stream is refused once the caller's credential is not in the tree any more")
  func revocation() async throws {
    try await TestDomain.withFilesystem { (domain: TestDomain, filesystem: Filesystem) async throws in
      let ann = try TestDomain.issue(.user, "/ann", PrincipalKeys(), [], by: domain.authority, serial: 1)
      _ = try await filesystem.addCredential(ann.bytes, filesystem.asOwner)
      let credential = try domain.verifier.verify(ann.chain, at: Date())
      let session = try FilesystemSession(self.handler(filesystem), .credential(credential))
      let request = Blocktree_V1_FilesystemServiceSessionRequest.with {
        $0.operations = [.with { $0.stat = .with { $0.path = "/" } }]
      }
      #expect(try session.operations(in: request).count == 1)
      try await filesystem.remove("/ann")
      #expect(throws: FilesystemError.permissionDenied) { try session.operations(in: request) }
      #expect(throws: FilesystemError.permissionDenied) {
        try FilesystemSession(self.handler(filesystem), .credential(credential))
      }
      #expect(try FilesystemSession(self.handler(filesystem), .anonymous).operations(in: request).count == 1)
    }
  }

  @Test("to write in several steps has no operation id", arguments: [Blocktree_V1_WriteMode.atOffset, .append])
  func operationID(mode: Blocktree_V1_WriteMode) async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      let message = Blocktree_V1_WriteRequest.with {
        $0.header.path = "/f"
        $0.header.writeMode = mode
        $0.header.operation = .with {
          $0.session = Data(repeating: 1, count: 16)
          $0.sequence = 1
        }
      }
      let messages = AsyncThrowingStream<Blocktree_V1_WriteRequest, any Error> { stream in
        stream.yield(message)
        stream.finish()
      }
      let context = ServerContext(
        descriptor: Blocktree_V1_FilesystemService.Method.Write.descriptor, remotePeer: "", localPeer: "",
        cancellation: .init())
      await #expect(throws: FilesystemError.invalid(field: "operation")) {
        try await self.handler(filesystem).write(request: RPCAsyncSequence(wrapping: messages), context: context)
      }
    }
  }
}

@Suite("A directory that a newer release wrote")
struct NewerFormatTests {
  @Test("is refused as such, and can be described, renamed and not removed")
  func refusal() async throws {
    try await TestDomain.withFilesystem { (_: TestDomain, filesystem: Filesystem) async throws in
      let file = try await filesystem.makeDirectory("/d").fileID
      let old = try #require(await filesystem.sectors.record(file))
      var part = old.content.part
      part.directoryFormat = DirectoryContent.format + 1
      part.version = old.version.next
      var commit = Commit()
      commit.records = [
        InodeRecord(
          fileID: file, version: old.version.next, content: try filesystem.signer.sign(part),
          attributes: old.attributes, links: old.links)
      ]
      _ = try await filesystem.sectors.perform(commit, by: filesystem.identity)
      let refusal = FilesystemError.newerFormat(file, format: DirectoryContent.format + 1)
      await #expect(throws: refusal) { try await filesystem.names("/d") }
      await #expect(throws: refusal) { try await filesystem.put("/d/f", []) }
      await #expect(throws: refusal) { try await filesystem.get("/d/f") }
      await #expect(throws: refusal) { try await filesystem.remove("/d") }
      #expect(try await filesystem.stat(path("/d"), follow: true, for: TestDomain.owner).type == .directory)
      try await filesystem.move("/d", to: "/e")
      #expect(try await filesystem.names("/").contains("e"))
      #expect(refusal.status.code == .failedPrecondition)
      #expect(refusal.status.message.contains("newer release"))
    }
  }
}
