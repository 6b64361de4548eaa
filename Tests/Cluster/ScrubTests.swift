// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import SwiftProtobuf
import Testing

@Suite("A cluster of three processes, one of whose disks changes what it holds", .timeLimit(.minutes(4)))
struct ScrubTests {
  /// The data files of a store.
  enum Blocks: String, CaseIterable, Sendable {
    case sectors, nodes
  }

  @Test("heals sectors and tree nodes from the other members, and says what it found", arguments: Blocks.allCases)
  func healBlocks(_ blocks: Blocks) async throws {
    var random = SeededGenerator(for: "heal \(blocks)")
    try await TestCluster.with(3) { cluster in
      let files = try await cluster.writeFiles(&random)
      let member = Int.random(in: 0..<3, using: &random)
      let count = try cluster.damageBlocks(of: member, blocks.rawValue, one: 3, &random)
      #expect(count > 0)
      let pass = try await cluster.scrub(member)
      // Not all that is damaged belongs to something: slots that are free are damaged, too.
      #expect(pass.last.found > 0 && pass.last.found <= UInt64(count))
      #expect(pass.last.healed == pass.last.found && pass.damages.isEmpty)
      #expect(try await cluster.read(files, at: member) == [])
      let again = try await cluster.scrub(member)
      #expect(again.last.found == 0 && again.last.number > pass.last.number)
      // The others were not damaged by it.
      for other in cluster.members where other != member { #expect(try await cluster.scrub(other).last.found == 0) }
    }
  }

  @Test("answers a read that meets damage with what another member has, and is whole afterwards")
  func healReads() async throws {
    var random = SeededGenerator(for: "heal reads")
    try await TestCluster.with(3) { cluster in
      let files = try await cluster.writeFiles(&random)
      let member = Int.random(in: 0..<3, using: &random)
      for blocks in Blocks.allCases { _ = try cluster.damageBlocks(of: member, blocks.rawValue, one: 2, &random) }
      // No pass is due for a long time.
      #expect(try await cluster.read(files, at: member) == [])
      #expect(try await cluster.read(files, at: member) == [])
    }
  }

  @Test("gives whole backups and snapshots though its own copy is damaged")
  func damagedDonor() async throws {
    var random = SeededGenerator(for: "damaged donor")
    try await TestCluster.with(3) { cluster in
      let files = try await cluster.writeFiles(&random)
      let leader = try await cluster.leader()
      _ = try cluster.damageBlocks(of: leader, "sectors", one: 12, &random)
      let backup = "\(cluster.directory(0))/backup"
      try await cluster.btrpc("cluster", "backup", "--quiet", backup)
      try await cluster.btrpc("cluster", "verify-backup", backup)

      _ = try cluster.damageBlocks(of: leader, "sectors", one: 40, &random)
      let other = (leader + Int.random(in: 1...2, using: &random)) % 3
      await cluster.kill(other)
      try FileManager.default.removeItem(atPath: cluster.store(of: other))
      try await cluster.start(other)
      try await cluster.settle()
      #expect(try await cluster.read(files, at: other) == [])
    }
  }

  @Test("'cluster scrub --wait' verifies all members under load, and what is damaged meanwhile is healed")
  func command() async throws {
    var random = SeededGenerator(for: "cluster scrub")
    try await ThreeMemberTests.underLoad(seed: random.seed) { cluster, load in
      try await load.progress(by: 40)
      let member = Int.random(in: 0..<3, using: &random)
      _ = try cluster.damageBlocks(of: member, "sectors", one: 2, &random)
      try await cluster.btrpc("cluster", "scrub", "--wait", "--rate", "200")
      try await load.progress(by: 20)
      let status = try await cluster.status(of: member)
      #expect(status.scrub.last.number == 1 && status.scrub.damages.isEmpty)
      let lines = try await cluster.btrpc("cluster", "status")
      #expect(lines.contains { $0.hasSuffix("Scrubbed") }, "\(lines)")
    }
  }

  @Test("goes on without a segment of its log that is damaged, and opens again")
  func damagedLog() async throws {
    var random = SeededGenerator(for: "damaged log")
    try await TestCluster.with(3) { cluster in
      let files = try await cluster.writeFiles(&random)
      let member = Int.random(in: 0..<3, using: &random)
      try cluster.damageLog(of: member)
      let pass = try await cluster.scrub(member)
      #expect(pass.last.found > 0 && pass.last.healed == pass.last.found && pass.damages.isEmpty, "\(pass)")
      await cluster.kill(member)
      try await cluster.start(member)
      try await cluster.settle()
      // It is the member that it was.
      #expect(try await cluster.status(of: member).storesSetAside.isEmpty)
      #expect(try await cluster.read(files, at: member) == [])
    }
  }

  /// What of a store is damaged while its process does not run.
  enum Part: CaseIterable, Sendable {
    case index, log, header
  }

  @Test("comes back as a new member when its store can not be opened, under load", arguments: Part.allCases)
  func damagedAtRest(_ part: Part) async throws {
    var random = SeededGenerator(for: "damaged at rest: \(part)")
    try await ThreeMemberTests.underLoad(seed: random.seed) { cluster, load in
      try await load.progress(by: Int.random(in: 20...60, using: &random))
      let member = Int.random(in: 0..<3, using: &random)
      let before = try await cluster.status(of: member).member
      // What SQLite keeps beside the index would make it whole again.
      if part == .index { try await cluster.stop(member) } else { await cluster.kill(member) }
      switch part {
      case .index: try cluster.overwrite("\(cluster.store(of: member))/index.sqlite", from: 0, count: 8_192)
      case .log: try cluster.damageLog(of: member)
      case .header: try cluster.overwrite("\(cluster.store(of: member))/store", from: 0, count: 64)
      }
      try await load.progress(by: 20)
      try await cluster.start(member)
      try await cluster.settle()
      let status = try await cluster.status(of: member)
      #expect(status.member != before && status.storesSetAside.count == 1)
      let kept = try #require(status.storesSetAside.first)
      #expect(kept.hasPrefix("generation-1.damaged-"))
      #expect(FileManager.default.fileExists(atPath: "\(cluster.directory(member))/\(kept)"))
      try await load.progress(by: 20)
    }
  }

  @Test("gives its store up for a new one when its index is damaged while it runs, under load")
  func damagedIndex() async throws {
    var random = SeededGenerator(for: "damaged index")
    try await ThreeMemberTests.underLoad(seed: random.seed) { cluster, load in
      try await load.progress(by: Int.random(in: 40...80, using: &random))
      // After a start, nothing of the index is in what SQLite keeps beside it.
      let member = Int.random(in: 0..<3, using: &random)
      try await cluster.stop(member)
      try await cluster.start(member)
      try await cluster.settle()
      // It has to hand leadership over before it can go.
      try await cluster.transferLeadership(to: member)
      let before = try await cluster.status(of: member).member
      try cluster.overwrite("\(cluster.store(of: member))/index.sqlite", from: 4_096, count: 1 << 20)
      _ = try? await cluster.withClient { client in
        let known = try await client.cluster.overview().members.first { $0.member.process == TestCluster.path(member) }
        _ = try await client.cluster.beginScrub(of: try #require(known).member)
      }
      try await eventually("member \(member) has a new store") {
        guard let status = try? await cluster.status(of: member) else { return false }
        return status.member != before
      }
      try await cluster.settle()
      #expect(try await cluster.status(of: member).storesSetAside.count == 1)
      try await load.progress(by: 20)
    }
  }

  @Test("says exactly what no member has any more, and serves everything else")
  func lost() async throws {
    var random = SeededGenerator(for: "lost")
    try await TestCluster.with(3) { cluster in
      let files = try await cluster.writeFiles(&random)
      let file = try #require(files.first { $0.bytes.count > 100_000 })
      let (id, sealed) = try await cluster.withClient { client -> (FileID, [UInt8]) in
        let info = try await client.stat(file.path)
        return (info.id, try await client.sealedSector(5, of: info.id))
      }
      for member in cluster.members { #expect(try cluster.damage(sealed, of: member) == 1, "member \(member)") }
      for member in cluster.members {
        let pass = try await cluster.scrub(member)
        #expect(pass.last.found == 1 && pass.last.healed == 0 && pass.omittedDamages == 0, "\(pass)")
        let damage = try #require(pass.damages.first)
        #expect(pass.damages.count == 1 && damage.file == "\(id)" && damage.part == "sector" && damage.index == 5)
        #expect(damage.level == 0 && damage.cause == .lost, "\(damage)")
        // It is whole but for these bytes.
        #expect(try await cluster.read(files.filter { $0.path != file.path }, at: member) == [])
        try await withClient(cluster.profile(of: member)) { client in
          let whole = await #expect(throws: BlocktreeError.self) { _ = try await client.readAll(file.path) }
          #expect(whole?.code == .dataLoss && whole?.metadata["offset"] == "\(5 * 4_096)")
          for (offset, count) in [(0, 5 * 4_096), (6 * 4_096, file.bytes.count - 6 * 4_096)] {
            let read = try await client.read(file.path, from: UInt64(offset), count: UInt64(count)) { parts in
              var bytes: [UInt8] = []
              for try await part in parts { bytes += part }
              return bytes
            }
            #expect(read == Array(file.bytes[offset..<offset + count]))
          }
        }
      }
      let lines = try await cluster.btrpc("cluster", "status")
      #expect(lines.contains { $0.contains("sector 5 of \(id): no process has it") }, "\(lines)")
    }
  }
}

/// A file that a test has written.
private struct WrittenFile: Sendable {
  var path: String
  var bytes: [UInt8]
}

extension TestCluster {
  fileprivate func store(of member: Int) -> String { "\(self.directory(member))/generation-1" }

  /// A profile that knows one process alone.
  fileprivate func profile(of member: Int) async throws -> Profile {
    let status = try await self.status(of: member)
    let own = try #require(status.members.first { $0.member == status.member })
    return try self.profile.starting(from: own.addresses)
  }

  /// Small files and large ones, whose trees have nodes of their own. On the disk of every member when it returns.
  fileprivate func writeFiles(_ random: inout SeededGenerator) async throws -> [WrittenFile] {
    var files: [WrittenFile] = []
    for number in 0..<12 {
      let count = number % 4 == 0 ? 400_000 + number * 10_007 : 1 + number * 3_001
      let bytes = (0..<count / 8 + 1).flatMap { _ in withUnsafeBytes(of: random.next(), Array.init) }
      files.append(WrittenFile(path: "/file-\(number)", bytes: Array(bytes.prefix(count))))
    }
    let written = files
    try await self.withClient { client in
      for file in written { _ = try await client.write(file.bytes, to: file.path) }
    }
    try await self.expectAllApplied()
    return files
  }

  /// Reads files at one member.
  ///
  /// - Returns: the paths of those that were not as they were written, with why.
  fileprivate func read(_ files: [WrittenFile], at member: Int) async throws -> [String] {
    try await BlocktreeClient.withClient(self.profile(of: member)) { client in
      var wrong: [String] = []
      for file in files {
        do {
          if try await client.readAll(file.path).bytes != file.bytes { wrong.append(file.path) }
        } catch let error as BlocktreeError {
          wrong.append("\(file.path): \(error)")
        }
      }
      return wrong
    }
  }

  /// Has a member verify everything, and waits for that.
  fileprivate func scrub(_ member: Int) async throws -> Blocktree_V1_ClusterScrub {
    let number = try await self.withClient { client in
      let known = try await client.cluster.overview().members.first { $0.member.process == Self.path(member) }
      return try await client.cluster.beginScrub(of: try #require(known).member, rate: 1 << 30)
    }
    var scrub = Blocktree_V1_ClusterScrub()
    try await eventually("member \(member) has verified everything") {
      scrub = try await self.status(of: member).scrub
      return scrub.hasLast && scrub.last.number >= number
    }
    return scrub
  }

  // MARK: Damage

  /// Changes one bit of every so many blocks in the data files with this name.
  ///
  /// - Returns: how many.
  fileprivate func damageBlocks(
    of member: Int, _ name: String, one every: Int, _ random: inout SeededGenerator
  ) throws -> Int {
    var count = 0
    try self.changeBlocks(of: member, name) { block in
      guard Int.random(in: 0..<every, using: &random) == 0 else { return false }
      block[Int.random(in: block.indices, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      count += 1
      return true
    }
    return count
  }

  /// Changes all sectors that hold just these bytes. Returns how many.
  fileprivate func damage(_ bytes: [UInt8], of member: Int) throws -> Int {
    var count = 0
    try self.changeBlocks(of: member, "sectors") { block in
      guard block == bytes else { return false }
      block[100] ^= 0x10
      count += 1
      return true
    }
    return count
  }

  /// Calls `change` with each block that was ever written, and writes back what it has changed.
  private func changeBlocks(of member: Int, _ name: String, _ change: (inout [UInt8]) -> Bool) throws {
    let directory = "\(self.store(of: member))/data"
    for file in try FileManager.default.contentsOfDirectory(atPath: directory).sorted() where file.hasPrefix(name) {
      let handle = try FileHandle(forUpdating: URL(filePath: "\(directory)/\(file)"))
      defer { try? handle.close() }
      var offset: UInt64 = 0
      while let data = try handle.read(upToCount: 4_096), data.count == 4_096 {
        var block = Array(data)
        if block.contains(where: { $0 != 0 }), change(&block) {
          try handle.seek(toOffset: offset)
          try handle.write(contentsOf: block)
        }
        offset += 4_096
        try handle.seek(toOffset: offset)
      }
    }
  }

  /// Writes over a part of a file with what is certainly wrong; not beyond its end.
  fileprivate func overwrite(_ path: String, from start: Int, count: Int) throws {
    let handle = try FileHandle(forUpdating: URL(filePath: path))
    defer { try? handle.close() }
    let size = Int(try handle.seekToEnd())
    let end = min(size, start + count)
    guard start < end else { throw ClusterFailure("\(path) is too short to be damaged") }
    try handle.seek(toOffset: UInt64(start))
    let bytes = try handle.read(upToCount: end - start) ?? Data()
    try handle.seek(toOffset: UInt64(start))
    try handle.write(contentsOf: Data(bytes.map { $0 ^ 0x5a }))
  }

  /// Damages something in the middle of what was written to the oldest segment of the log.
  fileprivate func damageLog(of member: Int) throws {
    let directory = "\(self.store(of: member))/log"
    let name = try #require(try FileManager.default.contentsOfDirectory(atPath: directory).sorted().first)
    let bytes = try Data(contentsOf: URL(filePath: "\(directory)/\(name)"))
    let end = (bytes.lastIndex { $0 != 0 } ?? 0) + 1
    try self.overwrite("\(directory)/\(name)", from: end / 2, count: 8)
  }
}

extension Client {
  /// A sector as it is stored.
  fileprivate func sealedSector(_ index: UInt64, of file: FileID) async throws -> [UInt8] {
    let run = Blocktree_V1_SectorRun.with {
      $0.start = index
      $0.count = 1
    }
    return try await self.sectors.readSectors(file, runs: [run]) { messages in
      for try await message in messages {
        if let block = message.blocks.first { return Array(block.bytes) }
      }
      throw ClusterFailure("there is no such sector")
    }
  }
}
