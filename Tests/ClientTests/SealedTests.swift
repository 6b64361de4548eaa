// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Inodes
import SwiftProtobuf
import Synchronization
import Testing
import Trust

@Suite("Reading with one's own key", .timeLimit(.minutes(2)))
struct SealedTests {
  /// /proj (inode 2), which the caller has a readcap of, with what lies in it; stored by processes of the root
  /// directory.
  private struct Scene {
    let store: SealedStore
    let cluster: TestCluster
    let client: Client
    let key = FileKey.random()
    var own: SealedStore.Reader

    func entry(
      _ name: String, _ inode: UInt64, _ type: Inodes.FileType, _ key: FileKey?, in store: SealedStore? = nil
    ) throws -> Inodes.DirectoryEntry {
      Inodes.DirectoryEntry(
        name: try PathComponent(name), fileID: (store ?? self.store).file(inode), type: type, key: key)
    }

    /// Stores the directory.
    func putRoot(_ entries: [Inodes.DirectoryEntry], key: FileKey? = nil) throws {
      try self.store.put(2, entries: entries, key: key ?? self.key, readers: [self.own])
      let info = try self.store.info(2)
      self.cluster.state.withLock { $0.infos["/proj"] = info }
    }

    /// Reads a file whole.
    func read(_ path: String, from offset: UInt64 = 0, count: UInt64? = nil) async throws -> [UInt8] {
      var bytes: [UInt8] = []
      let file = try await self.client.openSealed(path)
      for try await part in file.read(from: offset, count: count) { bytes += part }
      return bytes
    }

    func failure(_ path: String) async -> BlocktreeError? {
      await #expect(throws: BlocktreeError.self) { _ = try await self.read(path) }
    }
  }

  private func withScene(
    members: Int = 1, acceptor: String? = nil, _ body: (Scene) async throws -> Void
  ) async throws {
    let domain = try TestDomain()
    let store = try SealedStore(of: domain, acceptor: acceptor)
    try await TestCluster.run(members, of: domain) { cluster in
      cluster.state.withLock { $0.sealed = store }
      try await cluster.withProfile(Array(0..<members)) { profile in
        let key = try #require(profile.caller).keys.agreement.publicKey
        try await BlocktreeClient.withClient(profile) { client in
          try await body(
            Scene(store: store, cluster: cluster, client: client, own: .init(path: "/ann", key: key)))
        }
      }
    }
  }

  private func bytes(_ count: Int, _ random: inout SeededGenerator) -> [UInt8] {
    (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &random) }
  }

  @Test("goes down from the directory that the key is for, and decrypts here, whatever the size")
  func down() async throws {
    var random = SeededGenerator()
    try await self.withScene { scene in
      let (sub, file) = (FileKey.random(), FileKey.random())
      let sizes = [0, 1, 4_096, 4_097, 5 * 4_096, 300 * 4_096 + 17]
      try scene.putRoot([
        scene.entry("other", 9, .file, FileKey.random()), scene.entry("sub", 3, .directory, sub),
      ])
      try scene.store.put(
        3, entries: sizes.indices.map { try scene.entry("f\($0)", 10 + UInt64($0), .file, file) }, key: sub)
      for (number, size) in sizes.enumerated() {
        let plain = self.bytes(size, &random)
        try scene.store.put(10 + UInt64(number), .file, plain, key: file)
        #expect(try await scene.read("/proj/sub/f\(number)") == plain, "seed \(random.seed)")
        if size > 100 {
          let start = Int.random(in: 0..<size, using: &random)
          let count = Int.random(in: 1...size, using: &random)
          let part = try await scene.read("/proj/sub/f\(number)", from: UInt64(start), count: UInt64(count))
          #expect(part == Array(plain[start..<min(start + count, size)]), "seed \(random.seed)")
        }
      }
      let opened = try await scene.client.openSealed("/proj/sub/f5")
      #expect(opened.readcapPath == "/proj" && opened.info.size == UInt64(sizes[5]) && opened.info.owner == "/writer")
      // At most a part of 1 MiB, and tree nodes for 16 MiB.
      #expect(scene.store.state.withLock { $0.blockCountMax } <= 256)
    }
  }

  @Test("takes holes for zeros, and opens what is still sealed under former keys")
  func epochs() async throws {
    var random = SeededGenerator()
    try await self.withScene { scene in
      let former = FileKey.random()
      let key = FileKey.random(epoch: 2)
      try scene.putRoot([scene.entry("file", 3, .file, key)])
      var plain = self.bytes(70 * 4_096, &random)
      for index in [5, 69] {
        plain.replaceSubrange(index * 4_096..<(index + 1) * 4_096, with: repeatElement(0, count: 4_096))
      }
      try scene.store.put(3, .file, plain, key: key, holes: [5, 69], earlier: (former, [0, 1, 40]))
      #expect(try await scene.read("/proj/file") == plain, "seed \(random.seed)")
    }
  }

  @Test("follows symbolic links that stay below the directory, and says where others lead")
  func links() async throws {
    try await self.withScene { scene in
      let key = scene.key
      try scene.putRoot([
        scene.entry("sub", 3, .directory, key), scene.entry("file", 4, .file, key),
        scene.entry("absolute", 5, .symbolicLink, key), scene.entry("out", 6, .symbolicLink, key),
        scene.entry("loop", 7, .symbolicLink, key), scene.entry("away", 8, .symbolicLink, key),
      ])
      try scene.store.put(3, entries: [scene.entry("up", 9, .symbolicLink, key)], key: key)
      try scene.store.put(4, .file, Array("text".utf8), key: key)
      for (inode, target) in [
        (5, "/proj/sub/./up"), (6, "../home/x"), (7, "loop"), (8, "/home/x"), (9, "../file"),
      ] { try scene.store.put(UInt64(inode), .symbolicLink, Array(target.utf8), key: key) }
      #expect(try await scene.read("/proj/sub/up") == Array("text".utf8))
      #expect(try await scene.read("/proj/absolute") == Array("text".utf8))
      for name in ["out", "away"] {
        let error = await scene.failure("/proj/\(name)")
        #expect(error?.reason == .noKey && error?.message.contains("leads out of /proj") == true)
      }
      #expect(await scene.failure("/proj/loop")?.reason == .loop)
      #expect(await scene.failure("/proj/missing")?.reason == .notFound)
      #expect(await scene.failure("/proj/sub")?.reason == .isDirectory)
      #expect(await scene.failure("/proj/file/x")?.reason == .notDirectory)
    }
  }

  @Test("goes on in another cluster, where a directory on the way was handed to one")
  func delegated() async throws {
    try await self.withScene { scene in
      let (site, file) = (FileKey.random(), FileKey.random())
      let other = try SealedStore(of: scene.store.domain, generation: 7, in: "/proj/site")
      try await TestCluster.run(1, in: "/proj/site", of: scene.store.domain) { cluster in
        cluster.state.withLock { $0.sealed = other }
        try scene.putRoot([scene.entry("site", 3, .directory, site)])
        try scene.store.put(3, entries: [scene.entry("file", 4, .file, file, in: other)], key: site)
        try other.put(4, .file, Array("far away".utf8), key: file)
        let member = try #require(cluster.members.first)
        scene.cluster.state.withLock { state in
          state.findings = { request in
            .with {
              let isBelow = (request.scope + "/").hasPrefix("/proj/site/")
              $0.found.directory = isBelow ? "/proj/site" : "/"
              $0.found.processes = [
                .with {
                  $0.path = isBelow ? member.path : "/node1"
                  $0.services = ["sector"]
                  $0.addresses = isBelow ? ["\(member.address)"] : []
                }
              ]
            }
          }
        }
        #expect(try await scene.read("/proj/site/file") == Array("far away".utf8))
      }
    }
  }

  @Test("refuses a record, a node or a sector that is not the one that was signed")
  func lies() async throws {
    var random = SeededGenerator()
    let plain = self.bytes(10 * 4_096, &random)
    try await self.withScene { scene in
      try scene.putRoot([scene.entry("file", 3, .file, scene.key), scene.entry("twin", 4, .file, scene.key)])
      try scene.store.put(3, .file, plain, key: scene.key)
      try scene.store.put(4, .file, plain, key: scene.key)
      #expect(try await scene.read("/proj/file") == plain)
      for level in [0, 1] {
        scene.store.state.withLock { state in
          // Of the file, which has more than the directory.
          state.lie = { block in
            if block.level == level, level == 1 || block.index == 7 { block.bytes[100] ^= 1 }
          }
        }
        #expect(await scene.failure("/proj/file")?.reason == .dataLoss, "level \(level)")
        scene.store.state.withLock { state in
          state.lie = { if $0.level == level, level == 1 || $0.index == 7 { $0.bytes = Data() } }
        }
        #expect(await scene.failure("/proj/file")?.reason == .dataLoss, "level \(level)")
      }
      // Two sectors change places.
      scene.store.state.withLock { state in
        state.lie = { block in if block.level == 0, block.index == 7 { block.index = 6 } }
      }
      #expect(await scene.failure("/proj/file") != nil)
      scene.store.state.withLock { $0.lie = nil }
      // Another file's record, which is as good.
      let twin = try #require(scene.store.state.withLock { $0.records[scene.store.file(4)] })
      scene.store.state.withLock { state in
        state.recordLie = { if $0.fileID.inode == 3 { $0 = twin.message } }
      }
      #expect(await scene.failure("/proj/file")?.reason == .malformedAnswer)
      for change in [
        { $0.content.body[20] ^= 1 }, { $0.attributes.signature.encoded[30] ^= 1 }, { $0.clearAcceptance() },
        { $0.acceptance = twin.message.acceptance }, { $0.version = 2 },
      ] as [@Sendable (inout Blocktree_V1_InodeRecord) -> Void] {
        scene.store.state.withLock { state in
          state.recordLie = { if $0.fileID.inode == 3 { change(&$0) } }
        }
        #expect(await scene.failure("/proj/file")?.reason == .dataLoss)
      }
      scene.store.state.withLock { $0.recordLie = nil }
      #expect(try await scene.read("/proj/file") == plain)
    }
  }

  @Test(
    "refuses a record that was accepted by somebody who is no process of the cluster", arguments: ["/b/node1", "/x/y"])
  func foreignAcceptance(_ acceptor: String) async throws {
    try await self.withScene(acceptor: acceptor) { scene in
      try scene.putRoot([])
      let error = await scene.failure("/proj/file")
      #expect(error?.reason == .dataLoss && error?.message.contains("no process of /") == true)
    }
  }

  @Test("says who has no key, and whose key is of a former epoch")
  func noKey() async throws {
    try await self.withScene { scene in
      // Nobody is told of a readcap.
      #expect(await scene.failure("/elsewhere/file")?.reason == .noKey)
      // The entry still has the former key of a file.
      try scene.putRoot([scene.entry("file", 3, .file, scene.key), scene.entry("cut", 4, .directory, nil)])
      try scene.store.put(3, .file, [1], key: FileKey.random(epoch: 2))
      let old = await scene.failure("/proj/file")
      #expect(old?.reason == .noKey && old?.message.contains("epoch 2") == true)
      // A directory that is cut off opens to whoever has a readcap of it.
      let cut = FileKey.random()
      try scene.store.put(4, entries: [scene.entry("file", 5, .file, cut)], key: cut)
      try scene.store.put(5, .file, [5], key: cut)
      #expect(await scene.failure("/proj/cut/file")?.message.contains("cut off") == true)
      try scene.store.put(4, entries: [scene.entry("file", 5, .file, cut)], key: cut, readers: [scene.own])
      #expect(try await scene.read("/proj/cut/file") == [5])
      // It was taken back after it had been asked for.
      let info = try scene.store.info(2)
      try scene.store.put(2, entries: [], key: FileKey.random(epoch: 2))
      scene.cluster.state.withLock { $0.infos["/proj"] = info }
      let revoked = await scene.failure("/proj/file")
      #expect(revoked?.reason == .noKey && revoked?.message.contains("taken back") == true)
      // An anonymous caller has none.
      try await BlocktreeClient.withClient(scene.client.profile.anonymous) { client in
        let error = await #expect(throws: BlocktreeError.self) { _ = try await client.openSealed("/proj/file") }
        #expect(error?.reason == .profile)
      }
    }
  }

  @Test("takes the key that fits while a name in another cluster is being given a new one")
  func nextKey() async throws {
    try await self.withScene { scene in
      let next = FileKey.random(epoch: 2)
      var entry = try scene.entry("file", 3, .file, scene.key)
      entry.nextKey = next
      try scene.putRoot([entry])
      for key in [scene.key, next] {
        try scene.store.put(3, .file, [UInt8(key.epoch)], key: key)
        #expect(try await scene.read("/proj/file") == [UInt8(key.epoch)])
      }
    }
  }

  @Test("goes on at another process when one dies half-way")
  func death() async throws {
    var random = SeededGenerator()
    let plain = self.bytes(600 * 4_096, &random)
    try await self.withScene(members: 3) { scene in
      try scene.putRoot([scene.entry("file", 3, .file, scene.key)])
      try scene.store.put(3, .file, plain, key: scene.key)
      var bytes: [UInt8] = []
      for try await part in try await scene.client.openSealed("/proj/file").read() {
        if bytes.isEmpty { scene.store.state.withLock { $0.breakCount = 1 } }
        bytes += part
      }
      #expect(bytes == plain, "seed \(random.seed)")
      #expect(scene.store.state.withLock { $0.breakCount } == 0)
    }
  }

  @Test("ends with an error when the file is replaced meanwhile")
  func replaced() async throws {
    try await self.withScene { scene in
      try scene.putRoot([scene.entry("file", 3, .file, scene.key)])
      try scene.store.put(3, .file, [UInt8](repeating: 7, count: 600 * 4_096), key: scene.key)
      let file = try await scene.client.openSealed("/proj/file")
      var iterator = file.read()
      _ = try await iterator.next()
      scene.store.state.withLock { $0.isGone = true }
      let error = await #expect(throws: BlocktreeError.self) { _ = try await iterator.next() }
      #expect(error?.reason == .conflict)
    }
  }
}
