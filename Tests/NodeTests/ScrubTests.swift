// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Node
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite("Verifying the store of a node that is alone", .timeLimit(.minutes(2)))
struct ScrubTests {
  @Test("reads all of it, keeps what came of it over a restart, and names what nobody can heal")
  func passes() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start()
    let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    let id = try await withClient(node.profile) { client in try await client.write(bytes, to: "/file").id }
    let whole = try await self.scrub(node)
    #expect(whole.last.number == 1 && whole.last.found == 0 && whole.damages.isEmpty && !whole.hasRunning)
    #expect(whole.last.verifiedBytes > UInt64(bytes.count) && whole.last.endTime >= whole.last.startTime)
    process.signal(SIGTERM)
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")

    #expect(try self.damageSectors(of: node) > 0)
    let next = try await node.start()
    #expect(try await self.status(node).scrub == whole)
    let damaged = try await self.scrub(node)
    #expect(damaged.last.number == 2 && damaged.last.found > 0 && damaged.last.healed == 0)
    let places = damaged.damages.filter { $0.file == "\(id)" }
    #expect(!places.isEmpty && places.allSatisfy { $0.part == "sector" && $0.cause == .lost }, "\(damaged)")
    // It goes on.
    try await withClient(node.profile) { client in
      let stat = try await client.stat("/file")
      #expect(stat.size == UInt64(bytes.count))
      let error = await #expect(throws: BlocktreeError.self) { _ = try await client.readAll("/file") }
      #expect(error?.code == .dataLoss)
      // Written anew, it is whole.
      _ = try await client.write(bytes, to: "/file")
      let read = try await client.readAll("/file").bytes
      #expect(read == bytes)
    }
    #expect(try await self.scrub(node).damages.allSatisfy { $0.file != "\(id)" })
    next.signal(SIGTERM)
    #expect(try await next.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
  }

  @Test("a damaged index keeps it from starting, with the damage named, as nobody could give it a new store")
  func damagedIndex() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start()
    process.signal(SIGTERM)
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
    let path = "\(node.directory)/generation-1/index.sqlite"
    let handle = try FileHandle(forUpdating: URL(filePath: path))
    try handle.write(contentsOf: Data(repeating: 0x5a, count: 200))
    try handle.close()
    #expect(try await node.run(["run", "--dir", node.directory]) == .exited(1))
    #expect(node.logText.contains("generation-1 can not be opened: damaged("), "\(node.logText)")
    #expect(FileManager.default.fileExists(atPath: path))
  }

  @Test("is set within bounds", arguments: ["BLOCKTREE_SCRUB_RATE_BYTES=-1", "BLOCKTREE_SCRUB_INTERVAL_HOURS=0"])
  func settings(_ setting: String) async throws {
    let node = try await NodeUnderTest.initialized()
    let parts = setting.split(separator: "=").map(String.init)
    await #expect(throws: NodeError.self) {
      try await NodeConfiguration(
        flags: [:], environment: [parts[0]: parts[1]], file: nil, directory: NodeDirectory(node.directory))
    }
  }

  private func status(_ node: NodeUnderTest) async throws -> Blocktree_V1_ClusterServiceGetStatusResponse {
    try await withClient(node.profile) { client in try await client.cluster.status() }
  }

  private func scrub(_ node: NodeUnderTest) async throws -> Blocktree_V1_ClusterScrub {
    try await withClient(node.profile) { client in
      let member = try #require(try await client.cluster.status().members.first)
      let number = try await client.cluster.beginScrub(of: member, rate: 1 << 30)
      var scrub = Blocktree_V1_ClusterScrub()
      try await eventually {
        scrub = try await client.cluster.status().scrub
        return scrub.last.number >= number
      }
      return scrub
    }
  }

  /// Changes a bit in half of all sectors. Returns of how many.
  private func damageSectors(of node: NodeUnderTest) throws -> Int {
    let directory = "\(node.directory)/generation-1/data"
    var count = 0
    for name in try FileManager.default.contentsOfDirectory(atPath: directory) where name.hasPrefix("sectors") {
      let handle = try FileHandle(forUpdating: URL(filePath: "\(directory)/\(name)"))
      defer { try? handle.close() }
      var offset: UInt64 = 0
      var blocks: [(UInt64, Data)] = []
      while let block = try handle.read(upToCount: 4_096), block.count == 4_096 {
        if block.contains(where: { $0 != 0 }) { blocks.append((offset, block)) }
        offset += 4_096
      }
      // The last ones are those of the file; the directories stay as they are.
      for (offset, block) in blocks.suffix(12) {
        try handle.seek(toOffset: offset + 33)
        try handle.write(contentsOf: Data([block[block.startIndex + 33] ^ 1]))
        count += 1
      }
    }
    return count
  }
}
