// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Testing

@Suite("A scrub")
struct ScrubTests {
  @Test("verifies every block, and finds nothing in a store that is whole", arguments: Seeds.take(4))
  func whole(_ seed: UInt64) async throws {
    var generator = SeededGenerator(seed: seed)
    var patient = try Patient(seed: seed, sectorSize: generator.bool() ? 4_096 : 65_536)
    defer { patient.store.abandon() }
    let empty = try await ScrubPass(patient.store)
    #expect(empty.damaged == [] && empty.blockCount == 0)
    try await patient.change(60)
    for byteCountMax in [1, 5_000, 300_000, 1 << 30] {
      let pass = try await ScrubPass(patient.store, byteCountMax: byteCountMax)
      #expect(pass.damaged == [], "STORE_SEED=\(seed)")
      #expect(pass.blockCount == patient.blockCount, "STORE_SEED=\(seed)")
      #expect(pass.byteCount > patient.blockCount * 4_096)
    }
    #expect(patient.store.damageReport.isEmpty)
  }

  @Test("takes nothing that is written meanwhile for damage", arguments: Seeds.take(4))
  func concurrent(_ seed: UInt64) async throws {
    var patient = try Patient(seed: seed) {
      $0.segmentBytes = 64 << 10
      $0.checkpointEntries = 20
    }
    defer { patient.store.abandon() }
    let store = patient.store
    try await patient.change(30)
    let isOver = Monitor(false)
    let found = try await withThrowingTaskGroup(of: [DamagePlace].self) { group in
      for size in [1, 3_000, 100_000] {
        group.addTask {
          var found: [DamagePlace] = []
          repeat { found += try await ScrubPass(store, byteCountMax: size).damaged } while !isOver.withLock({ $0 })
          return found
        }
      }
      var waiting: [PendingChange] = []
      for _ in 0..<1_500 {
        waiting.append(try store.enqueue(patient.maker.next()))
        if waiting.count == 20 {
          for pending in waiting { _ = try await pending.durable() }
          waiting.removeAll()
        }
      }
      for pending in waiting { _ = try await pending.durable() }
      isOver.withLock { $0 = true }
      return try await group.reduce(into: []) { $0 += $1 }
    }
    #expect(found == [], "STORE_SEED=\(seed)")
    #expect(patient.differences == [], "STORE_SEED=\(seed)")
  }

  @Test("reads blocks that stay where they are, however long it takes", arguments: Seeds.take(3))
  func slow(_ seed: UInt64) async throws {
    let bench = try Bench(seed: seed) {
      $0.checkpointEntries = 4
      $0.growthBytes = 64 << 12
    }
    let store = bench.store
    defer { store.abandon() }
    var maker = ChangeMaker(seed: seed)
    for _ in 0..<30 { _ = try await store.commit(maker.next()) }
    bench.disk.slowScrubs(microseconds: 300)
    let isOver = Monitor(false)
    async let found = {
      var found: [DamagePlace] = []
      repeat { found += try await ScrubPass(store).damaged } while !isOver.withLock { $0 }
      return found
    }()
    for _ in 0..<400 { _ = try await store.commit(maker.next()) }
    isOver.withLock { $0 = true }
    let places = try await found
    #expect(places == [], "STORE_SEED=\(seed)")
  }

  @Test(
    "finds just the blocks that can not be read, and another store's bytes make them whole", arguments: Seeds.take(6))
  func blocks(_ seed: UInt64) async throws {
    var generator = SeededGenerator(seed: seed &+ 5)
    var patient = try Patient(seed: seed, sectorSize: generator.bool() ? 4_096 : 16_384)
    defer { patient.store.abandon() }
    try await patient.change(60)
    let twin = try await patient.twin()
    defer { twin.abandon() }
    try await patient.change(40, and: [twin])
    if generator.bool() { try await patient.reopen(whole: generator.bool()) }
    for path in try patient.files("data") {
      let size = try Rot.size(path)
      for _ in 0..<20 { try Rot.flip(path, at: generator.number(0...size - 1)) }
    }
    let expected = patient.unreadable()
    let pass = try await ScrubPass(patient.store, byteCountMax: generator.number(1...500_000))
    #expect(Set(pass.damaged) == expected, "STORE_SEED=\(seed)")
    #expect(pass.omittedCount == 0)
    #expect(Set(patient.store.damageReport.places) == expected, "STORE_SEED=\(seed)")
    #expect(try await ScrubPass(twin).damaged == [])

    for place in pass.damaged {
      guard case .needsBlock(let wanted) = try await patient.store.repair(place) else {
        Issue.record("\(place) can not be repaired. STORE_SEED=\(seed)")
        continue
      }
      var bytes = try #require(try await twin.block(wanted))
      #expect(try await patient.store.block(wanted) == nil)
      bytes[7] ^= 1
      #expect(try await patient.store.repair(wanted, with: bytes) == .failed)
      bytes[7] ^= 1
      #expect(try await patient.store.repair(wanted, with: bytes) == .repaired)
      #expect(try await patient.store.repair(wanted, with: bytes) == .unneeded)
      #expect(try await patient.store.repair(place) == .unneeded)
    }
    #expect(patient.store.damageReport.isEmpty)
    #expect(patient.differences == [], "STORE_SEED=\(seed)")
    #expect(try await ScrubPass(patient.store).damaged == [])
    try await patient.reopen(whole: false)
    #expect(patient.differences == [], "STORE_SEED=\(seed)")
    #expect(try await ScrubPass(patient.store).damaged == [])
  }

  @Test("and repairs go on while the store changes", arguments: Seeds.take(4))
  func repairsUnderChange(_ seed: UInt64) async throws {
    var generator = SeededGenerator(seed: seed &+ 9)
    var patient = try Patient(seed: seed) { $0.checkpointEntries = 30 }
    defer { patient.store.abandon() }
    try await patient.change(60)
    let twin = try await patient.twin()
    defer { twin.abandon() }
    let store = patient.store
    let (changing, rotting) = (patient, patient)
    async let changed = {
      var patient = changing
      try await patient.change(250, and: [twin])
      return patient
    }()
    for _ in 0..<8 {
      for path in try rotting.files("data") {
        for _ in 0..<6 { try Rot.flip(path, at: generator.number(0...(try Rot.size(path)) - 1)) }
      }
      // What the twin has already superseded, or not got yet, is left for the end.
      for place in try await ScrubPass(store).damaged { _ = try await store.heal(place, from: twin) }
    }
    patient = try await changed
    for place in try await ScrubPass(store).damaged {
      #expect(try await store.heal(place, from: twin) == .repaired, "STORE_SEED=\(seed)")
    }
    for place in store.damageReport.places {
      #expect(try await store.repair(place) == .unneeded, "STORE_SEED=\(seed)")
    }
    #expect(store.damageReport.isEmpty)
    #expect(try await ScrubPass(store).damaged == [], "STORE_SEED=\(seed)")
    #expect(patient.differences == [], "STORE_SEED=\(seed)")
  }

  @Test("reports what a read has met, until it is repaired")
  func reads() async throws {
    var patient = try Patient(seed: 3)
    defer { patient.store.abandon() }
    _ = try await patient.store.commit(Bench.put(1, 1, [5: 1]))
    let twin = try await patient.twin()
    defer { twin.abandon() }
    patient.maker = ChangeMaker(seed: 3)
    let path = patient.path + "/data/sectors-000000"
    for offset in stride(from: 0, to: 4_096 * 64, by: 4_096) { try Rot.flip(path, at: offset) }
    let place = DamagePlace.block(inode: 1, level: 0, index: 5)
    #expect(throws: StoreError.damaged(place)) {
      try patient.store.readBlocking(inode: 1, level: 0, indexes: 0..<9)
    }
    #expect(patient.store.damageReport.places == [place])
    #expect(try await patient.store.heal(place, from: twin) == .repaired)
    #expect(patient.store.damageReport.isEmpty)
    #expect(try patient.store.readBlocking(inode: 1, level: 0, indexes: 5..<6)[5]?.first == 1)
    // Another version than that which is wanted is no help.
    let wanted = WantedBlock(inode: 1, level: 0, index: 5, checksum: 77)
    #expect(try await twin.block(wanted) == nil)
    #expect(try await twin.block(WantedBlock(inode: 9, level: 0, index: 5, checksum: 0)) == nil)
    #expect(try await twin.block(WantedBlock(inode: 1, level: 200, index: .max, checksum: 0)) == nil)
  }

  @Test("of a store that is closed, and a repair, are refused")
  func closed() async throws {
    let patient = try Patient(seed: 3)
    try await patient.store.close()
    await #expect(throws: StoreError.closed) { try await patient.store.scrubStep(after: nil, byteCountMax: 1) }
    await #expect(throws: StoreError.closed) { try await patient.store.repair(.header) }
    await #expect(throws: StoreError.closed) {
      try await patient.store.repair(.block(inode: 1, level: 0, index: 1))
    }
  }

  @Test("ends with the store, wherever it is", arguments: Seeds.take(3))
  func closing(_ seed: UInt64) async throws {
    for round in UInt64(0)..<6 {
      var patient = try Patient(seed: seed &+ round)
      try await patient.change(20)
      let store = patient.store
      async let ending: StoreError = {
        while true {
          do throws(StoreError) { _ = try await ScrubPass(store, byteCountMax: 10_000) } catch { return error }
        }
      }()
      try await patient.change(Int(round) * 3)
      if round % 2 == 0 { try await store.close() } else { store.abandon() }
      let error = await ending
      #expect(error == .closed)
      patient.store = try SectorStore.open(at: patient.path, patient.configuration)
      #expect(patient.differences == [], "STORE_SEED=\(seed)")
      patient.store.abandon()
    }
  }

  @Test("goes on at a cursor that was kept, and takes no other bytes for one")
  func cursors() async throws {
    var patient = try Patient(seed: 8)
    defer { patient.store.abandon() }
    try await patient.change(40)
    var (cursors, blocks, cursor) = ([[UInt8]](), 0, ScrubCursor?.none)
    repeat {
      let step = try await patient.store.scrubStep(after: cursor, byteCountMax: 20_000)
      cursor = step.next
      blocks += step.blockCount
      if let bytes = cursor?.encoded() { cursors.append(bytes) }
      try await patient.reopen()
    } while cursor != nil
    #expect(blocks == patient.blockCount)
    #expect(cursors.count > 10 && Set(cursors).count == cursors.count)
    for bytes in cursors {
      #expect(bytes.count <= 300)
      #expect(ScrubCursor(encoded: bytes)?.encoded() == bytes)
      #expect(ScrubCursor(encoded: Array(bytes.dropLast())) == nil || bytes.count == 3)
      #expect(ScrubCursor(encoded: [2] + bytes.dropFirst()) == nil)
    }
    #expect(ScrubCursor(encoded: []) == nil)
  }
}
