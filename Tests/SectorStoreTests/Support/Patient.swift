// SPDX-License-Identifier: Apache-2.0

import Foundation
import SectorStore

/// A store on real files, which are damaged behind its back.
struct Patient {
  let directory: TemporaryDirectory
  let path: String
  let configuration: StoreConfiguration
  var store: SectorStore
  var maker: ChangeMaker

  init(seed: UInt64, sectorSize: Int = 4_096, _ change: (inout StoreConfiguration) -> Void = { _ in }) throws {
    var configuration = PowerLossRun.configuration()
    configuration.sectorSize = sectorSize
    change(&configuration)
    self.configuration = configuration
    self.directory = try TemporaryDirectory()
    self.path = self.directory.path + "/store"
    try SectorStore.create(at: self.path, configuration)
    self.store = try SectorStore.open(at: self.path, configuration)
    self.maker = ChangeMaker(seed: seed, sectorSize: sectorSize)
  }

  mutating func change(_ count: Int, and others: [SectorStore] = []) async throws {
    for _ in 0..<count {
      let change = self.maker.next()
      _ = try await self.store.commit(change)
      for other in others { _ = try await other.commit(change) }
    }
  }

  /// A store that holds the same, in other slots.
  func twin() async throws -> SectorStore {
    let snapshot = try await self.store.snapshot()
    defer { snapshot.close() }
    let path = self.directory.path + "/twin"
    let importing = try SnapshotImport.begin(
      at: path, self.configuration, index: snapshot.index, term: snapshot.term)
    var cursor: SnapshotCursor?
    repeat {
      let page = try snapshot.items(after: cursor, byteCountMax: 1 << 20)
      try importing.add(page.items)
      cursor = page.next
    } while cursor != nil
    try importing.finish()
    importing.close()
    return try SectorStore.open(at: path, self.configuration)
  }

  mutating func reopen(whole: Bool = true) async throws {
    if whole { try await self.store.close() } else { self.store.abandon() }
    self.store = try SectorStore.open(at: self.path, self.configuration)
  }

  var differences: [String] { self.maker.model.differences(self.store, inodes: 1...12) }

  func files(_ folder: String) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: self.path + "/" + folder).sorted()
      .map { self.path + "/" + folder + "/" + $0 }
  }

  var segments: [String] {
    get throws { try self.files("log").filter { $0.hasSuffix(".log") } }
  }

  /// All blocks that can not be read.
  func unreadable() -> Set<DamagePlace> {
    var places: Set<DamagePlace> = []
    for (inode, file) in self.maker.model.files {
      for (level, blocks) in file.blocks {
        for index in blocks.keys {
          do throws(StoreError) {
            _ = try self.store.readBlocking(inode: inode, level: level, indexes: index..<index + 1)
          } catch {
            if case .damaged(let place) = error { places.insert(place) }
          }
        }
      }
    }
    return places
  }

  var blockCount: Int {
    self.maker.model.files.values.reduce(0) { $0 + $1.blocks.values.reduce(0) { $0 + $1.count } }
  }
}
