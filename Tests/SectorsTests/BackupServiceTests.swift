// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import GRPCCore
import Inodes
import Raft
import Replication
import SectorStore
import Sectors
import SwiftProtobuf
import Synchronization
import Testing
import Transport
import Trust

@Suite("The backup service", .timeLimit(.minutes(2)))
struct BackupServiceTests {
  @Test("is for the owner of the root directory and processes of the cluster, and for nobody else")
  func permission() async throws {
    try await withService { service in
      let domain = service.test.domain
      let stranger = try domain.principal(.user, "/stranger")
      let impostor = try domain.principal(.process, "/node1", services: [.sector, .filesystem])
      for principal in [nil, stranger, domain.bob, impostor] {
        let status = await failure { _ = try await service.backup(as: principal) }
        #expect(status.code == .permissionDenied && status.reason == "PERMISSION_DENIED")
      }
      for principal in [domain.ann, domain.node] {
        #expect(try await service.backup(as: principal).last?.hasTrailer == true)
      }
    }
  }

  @Test("sends what was committed before, whatever is written meanwhile, and a store can be made of it")
  func restored() async throws {
    try await withService { service in
      let test = service.test
      // More than a message, a piece and an item hold.
      var files: [TestInode] = []
      for number in 0..<3 {
        files.append(
          try await test.makeFile(
            sectors: Dictionary(uniqueKeysWithValues: (0..<200).map { ($0, sector(UInt8(number * 3) &+ UInt8($0))) })))
      }
      let contents = try await test.read(files[2])
      let before = try test.group.store.appliedIndex.rawValue
      let late = Mutex<TestInode?>(nil)
      let first = files[0]
      let responses = try await service.backup(as: test.domain.ann) {
        // The backup has begun.
        let new = try await test.makeFile(sectors: [0: sector(9)])
        late.withLock { $0 = new }
        var changed = first
        try changed.write([0: sector(250)])
        try await test.apply(changed.commit(by: test.domain.node), by: test.domain.node)
      }

      let header = try #require(responses.first?.header)
      #expect(header.generation == 1 && header.sectorSize == 4_096 && header.process == "/node1")
      #expect(header.index == before && header.term > 0)
      #expect(Array(header.domain) == test.domain.authority.root.domain.digest.bytes)
      #expect(abs(header.timeNs - presentTime()) < 60_000_000_000)
      #expect(responses.dropFirst().allSatisfy { !$0.hasHeader } && responses.dropLast().allSatisfy { !$0.hasTrailer })
      #expect(responses.allSatisfy { $0.items.count <= 128 << 10 && $0.itemByteCounts.count <= 4_096 })
      let trailer = try #require(responses.last?.trailer)
      let items = try self.items(responses)
      #expect(trailer.itemCount == UInt64(items.count))
      #expect(trailer.itemByteCount == UInt64(items.reduce(0) { $0 + $1.count }))
      #expect(Array(trailer.sha256) == Digest32(sha256: items.flatMap { $0 }).bytes)
      // What every domain has, and the files.
      #expect(trailer.recordCount == 10 && trailer.certificateCount > 0 && trailer.factCount > 0)

      let restored = try await self.restore(items, header, to: test.directory + "/restored", test)
      defer { restored.store.abandon() }
      let copy = try await restored.record(files[0].fileID)
      #expect(copy?.version == files[0].version)
      #expect(try await restored.record(#require(late.withLock { $0 }).fileID) == nil)
      for file in files {
        let record = try #require(try await restored.record(file.fileID))
        try await restored.verify(record)
      }
      let stored = try await restored.read(files[2].fileID, level: 0, indexes: 0..<200, version: files[2].version)
      let original = try await test.group.read(files[2].fileID, level: 0, indexes: 0..<200, version: files[2].version)
      #expect(contents?.count == 200)
      for index in UInt64(0)..<200 { #expect(stored[index].map { Array($0) } == original[index].map { Array($0) }) }
      // It goes on by itself, under another name.
      #expect(restored.replica.member != (try test.group.replica.member))
      #expect(restored.replica.status.membership.members == [restored.replica.member])
      #expect(restored.path(of: restored.replica.member) == test.domain.node.path)
      #expect(try await restored.allocateInodes(1) > 0)
    }
  }

  @Test("gives one backup at a time, and another one after it, however that has ended")
  func oneAtATime() async throws {
    try await withService { service in
      let ann = service.test.domain.ann
      // More than fits on the way to a client that does not read.
      for number in 0..<30 {
        _ = try await service.test.makeFile(
          sectors: Dictionary(uniqueKeysWithValues: (0..<200).map { ($0, sector(UInt8(number))) }))
      }
      // Should all of it have been on the way all the same, again.
      let isRefused = Mutex(false)
      for _ in 0..<10 where !isRefused.withLock({ $0 }) {
        _ = try await service.backup(as: ann) {
          do { _ = try await service.backup(as: service.test.domain.node) } catch let error as RPCError {
            let status = StatusDetails(error)
            isRefused.withLock { $0 = status.code == .resourceExhausted && status.reason == "BUSY" }
          }
        }
      }
      #expect(isRefused.withLock { $0 })
      // Whoever hangs up in the middle.
      _ = try? await service.backup(as: ann) { throw TestFailure() }
      try await eventually { (try? await service.backup(as: ann))?.last?.hasTrailer == true }
      // Nothing is held back any more.
      #expect(try await service.backup(as: ann).last?.hasTrailer == true)
    }
  }

  @Test("says what is damaged, and ends")
  func damage() async throws {
    try await withService { service in
      let test = service.test
      _ = try await test.makeFile(sectors: [0: sector(1), 1: sector(2)])
      try await test.group.store.checkpoint()
      let data = test.directory + "/store/data"
      let name = try #require(
        try FileManager.default.contentsOfDirectory(atPath: data).first { $0.hasPrefix("sectors") })
      let handle = try FileHandle(forUpdating: URL(filePath: "\(data)/\(name)"))
      try handle.seek(toOffset: 100)
      try handle.write(contentsOf: Data([0xAA, 0x55]))
      try handle.close()
      let status = await failure { _ = try await service.backup(as: test.domain.ann) }
      #expect(status.code == .dataLoss && status.reason == "DATA_LOSS" && status.metadata["part"] == "sector")
    }
  }

  private func items(_ responses: [Blocktree_V1_BackupResponse]) throws -> [[UInt8]] {
    var assembly = SnapshotAssembly()
    var items: [[UInt8]] = []
    for response in responses {
      items += try assembly.receive(
        .with {
          $0.itemByteCounts = response.itemByteCounts
          $0.items = response.items
        })
    }
    #expect(assembly.isWhole)
    return items
  }

  /// A group of one member, made of a backup.
  private func restore(
    _ items: [[UInt8]], _ header: Blocktree_V1_BackupHeader, to directory: String, _ test: TestGroup
  ) async throws -> SectorGroup {
    let snapshot = try SnapshotImport.begin(
      at: directory, TestGroup.configuration, index: StoreLogIndex(header.index), term: header.term)
    try snapshot.add(items.map { try #require(SnapshotItem(encoded: $0)) })
    try snapshot.finish(hardState: LogHardState(term: header.term + 1_000))
    snapshot.close()
    let alone = try SectorStore.open(at: directory, TestGroup.configuration)
    #expect(try SectorGroup.hosts(alone, test.domain.node.credential))
    let impostor = try test.domain.principal(.process, "/node1", services: [.sector])
    #expect(try !SectorGroup.hosts(alone, impostor.credential))
    #expect(try !SectorGroup.hosts(alone, test.domain.ann.credential))
    try await SectorGroup.refound(
      alone, as: test.domain.node.path, term: header.term + 1_000, warrant: nil)
    try await alone.close()
    let store = try SectorStore.open(at: directory, TestGroup.configuration, appliesLog: false)
    return try await SectorGroup(
      store: store, generation: .root, sectorSize: store.configuration.sectorSize,
      member: .init(credential: test.domain.node.credential, key: test.domain.node.key), verifier: test.domain.verifier,
      signatures: SignatureCache(), now: presentTime)
  }
}

extension TestService {
  /// All responses of a backup.
  ///
  /// - Parameter meanwhile: done when the header has come.
  fileprivate func backup(
    as principal: TestPrincipal?, meanwhile: @escaping @Sendable () async throws -> Void = {}
  ) async throws -> [Blocktree_V1_BackupResponse] {
    try await self.call(as: principal) { connection in
      let client = Blocktree_V1_BackupService.Client(wrapping: connection.connection.client)
      return try await client.backup(.init()) { response in
        var responses: [Blocktree_V1_BackupResponse] = []
        for try await message in response.messages {
          if responses.isEmpty { try await meanwhile() }
          responses.append(message)
        }
        return responses
      }
    }
  }
}
