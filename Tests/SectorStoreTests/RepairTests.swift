// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Testing

@Suite("A repair")
struct RepairTests {
  @Test("is durable when it says so", arguments: Seeds.take(20))
  func durable(_ seed: UInt64) async throws {
    let bench = try Bench(seed: seed)
    _ = try await bench.store.commit(Bench.put(1, 1, [0: 1, 5: 2]))
    // From here on the log writes no block once more.
    try await bench.store.checkpoint()
    let wanted: WantedBlock
    let path = Bench.directory + "/data/sectors-000000"
    // Both slots, whichever the block has.
    for offset in [100, 4_200] { bench.disk.flip(path, at: offset) }
    guard case .needsBlock(let block) = try await bench.store.repair(.block(inode: 1, level: 0, index: 5)) else {
      Issue.record("nothing is damaged")
      return
    }
    wanted = block
    #expect(try await bench.store.repair(wanted, with: [UInt8](repeating: 2, count: 4_096)) == .repaired)
    bench.disk.losePowerNow()
    bench.store.abandon()
    bench.disk.restart()
    let store = try SectorStore.open(
      at: Bench.directory, PowerLossRun.configuration(), files: bench.disk, index: bench.index)
    defer { store.abandon() }
    #expect(try store.readBlocking(inode: 1, level: 0, indexes: 5..<6)[5]?.first == 2)
    #expect(throws: StoreError.damaged(.block(inode: 1, level: 0, index: 0))) {
      try store.readBlocking(inode: 1, level: 0, indexes: 0..<1)
    }
  }

  @Test("whose sync fails stops the store, which can not know what else did not reach the disk")
  func failedSync() async throws {
    let bench = try Bench()
    _ = try await bench.store.commit(Bench.put(1, 1, [5: 2]))
    bench.disk.flip(Bench.directory + "/data/sectors-000000", at: 100)
    guard case .needsBlock(let wanted) = try await bench.store.repair(.block(inode: 1, level: 0, index: 5)) else {
      Issue.record("nothing is damaged")
      return
    }
    bench.disk.failNextSync(.data)
    let failure = StoreError.failed(String(describing: FileError.failed(operation: "fdatasync", code: 5)))
    await #expect(throws: failure) {
      try await bench.store.repair(wanted, with: [UInt8](repeating: 2, count: 4_096))
    }
    #expect(bench.store.status().failure == failure)
    bench.store.abandon()
  }

  @Test("of a block that has changed since says what is wanted now")
  func changed() async throws {
    let bench = try Bench()
    let store = bench.store
    defer { store.abandon() }
    let path = Bench.directory + "/data/sectors-000000"
    let place = DamagePlace.block(inode: 1, level: 0, index: 5)
    _ = try await store.commit(Bench.put(1, 1, [5: 2]))
    bench.disk.flip(path, at: 100)
    guard case .needsBlock(let first) = try await store.repair(place) else {
      Issue.record("nothing is damaged")
      return
    }
    _ = try await store.commit(Bench.put(1, 2, [5: 3]))
    #expect(try await store.repair(first, with: [UInt8](repeating: 2, count: 4_096)) == .unneeded)
    bench.disk.flip(path, at: 4_200)
    guard case .needsBlock(let second) = try await store.repair(first, with: [UInt8](repeating: 2, count: 4_096)) else {
      Issue.record("the newer one is not wanted")
      return
    }
    #expect(second != first && second.index == 5)
    var removal = Change(term: 1)
    removal.records = [.remove(inode: 1)]
    _ = try await store.commit(removal)
    #expect(try await store.repair(second, with: [UInt8](repeating: 3, count: 4_096)) == .unneeded)
    #expect(try await store.repair(place) == .unneeded)
  }
}
