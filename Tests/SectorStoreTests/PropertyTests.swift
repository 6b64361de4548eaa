// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Testing

@Suite("On real files")
struct PropertyTests {
  @Test("a store does what a dictionary does, with versions, pins, checkpoints and reopening", arguments: Seeds.take(4))
  func matchesTheModel(_ seed: UInt64) async throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/store"
    var configuration = PowerLossRun.configuration()
    configuration.checkpointBytes = 200 << 10
    try SectorStore.create(at: path, configuration)
    var maker = ChangeMaker(seed: seed)
    var generator = SeededGenerator(seed: seed &+ 9)
    for _ in 0..<4 {
      let store = try SectorStore.open(at: path, configuration)
      #expect(maker.model.differences(store, inodes: 1...maker.inodeMax) == [], "STORE_SEED=\(seed)")
      var pins: [(pin: Pin, file: Model.File)] = []
      for _ in 0..<60 {
        var pending: [PendingChange] = []
        for _ in 0..<generator.number(1...6) { pending.append(try store.enqueue(maker.next())) }
        for item in pending { _ = try await item.durable() }
        if generator.chance(40) {
          let inode = UInt64.random(in: 1...maker.inodeMax, using: &generator)
          if let file = maker.model.files[inode] {
            let pin = try store.pin(inode)
            #expect(pin.version == file.record.version)
            pins.append((pin, file))
          }
        }
        if generator.chance(35), !pins.isEmpty { pins.remove(at: generator.number(0...pins.count - 1)) }
        if generator.chance(8) { try await store.checkpoint() }
        if generator.chance(30), let item = pins.randomElement(using: &generator) {
          for level in UInt8(0)...2 {
            #expect(try item.file.matches(store, level: level, version: item.pin.version), "STORE_SEED=\(seed)")
          }
        }
      }
      for item in pins {
        for level in UInt8(0)...2 { #expect(try item.file.matches(store, level: level, version: item.pin.version)) }
      }
      #expect(store.status().pinCount == pins.count)
      pins.removeAll()
      #expect(maker.model.differences(store, inodes: 1...maker.inodeMax) == [], "STORE_SEED=\(seed)")

      // Without pins, the slots in use are those of the newest versions.
      try await store.checkpoint()
      _ = try await store.commit(maker.next())
      try await store.checkpoint()
      var fact = Change(term: 1)
      fact.facts = [.init(key: "last", value: [])]
      _ = try await store.commit(fact)
      maker.model.apply(fact)
      let blocks = maker.model.files.values.map { file in
        (file.blocks[0]?.count ?? 0, (file.blocks[1]?.count ?? 0) + (file.blocks[2]?.count ?? 0))
      }
      #expect(store.status().sectorSlotsUsed == blocks.reduce(0) { $0 + $1.0 }, "STORE_SEED=\(seed)")
      #expect(store.status().nodeSlotsUsed == blocks.reduce(0) { $0 + $1.1 }, "STORE_SEED=\(seed)")
      if generator.bool() { try await store.close() } else { store.abandon() }
    }
  }
}
