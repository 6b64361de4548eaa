// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Testing

/// A store on a disk that loses power at random points, over and over.
struct PowerLossRun {
  static let directory = "/store"

  static func configuration() -> StoreConfiguration {
    var configuration = StoreConfiguration(generation: 7, sectorSize: 4_096)
    configuration.segmentBytes = 128 << 10
    configuration.checkpointBytes = 48 << 10
    configuration.checkpointDeadBytes = 256 << 10
    configuration.growthBytes = 512 << 10
    configuration.dataFileBytes = 2 << 20
    configuration.reservedBytes = 0
    configuration.cacheBytesMax = 4_096
    configuration.readerCount = 1
    return configuration
  }

  /// Returns what was wrong after a recovery, in words.
  static func violations(seed: UInt64, ignoring target: SimulatedDisk.Target? = nil, losses: Int = 3) async -> [String]
  {
    let disk = SimulatedDisk(seed: seed)
    let index = SimulatedIndex(disk: disk)
    var maker = ChangeMaker(seed: seed &* 31 &+ 7)
    var generator = SeededGenerator(seed: seed &+ 1)
    // All changes that may be in the log, in its order; the first so many are known to be.
    var changes: [Change] = []
    var acknowledged = 0
    disk.writeShort(generator.bool())

    do throws(StoreError) {
      try SectorStore.create(at: self.directory, self.configuration(), files: disk)
      disk.ignoreSyncs(target)
      for loss in 0...losses {
        let store: SectorStore
        do throws(StoreError) {
          store = try SectorStore.open(at: self.directory, self.configuration(), files: disk, index: index)
        } catch {
          return ["open after loss \(loss): \(error)"]
        }
        let applied = Int(store.status().appliedIndex.rawValue)
        if applied < acknowledged || applied > changes.count {
          store.abandon()
          return ["\(acknowledged) of \(changes.count) acknowledged, \(applied) found"]
        }
        changes.removeSubrange(applied...)
        acknowledged = applied
        var model = Model()
        for change in changes { model.apply(change) }
        maker.restart(from: model)
        let differences = model.differences(store, inodes: 1...maker.inodeMax)
        if !differences.isEmpty || loss == losses {
          store.abandon()
          return differences.map { "after loss \(loss): \($0)" }
        }

        disk.losePower(afterOperations: generator.number(1...120))
        var waiting: [(number: Int, pending: PendingChange)] = []
        sending: while !disk.isOff, changes.count < applied + 400 {
          for _ in 0..<generator.number(1...12) {
            let change = maker.next()
            guard let pending = try? store.enqueue(change) else { break sending }
            changes.append(change)
            waiting.append((changes.count, pending))
          }
          if let last = waiting.last, generator.chance(60), (try? await last.pending.durable()) != nil {
            acknowledged = max(acknowledged, last.number)
          }
        }
        for (number, pending) in waiting where (try? await pending.durable()) != nil {
          acknowledged = max(acknowledged, number)
        }
        store.abandon()
        disk.restart()
      }
      return []
    } catch {
      return ["\(error)"]
    }
  }
}

@Suite("After a loss of power")
struct PowerLossTests {
  @Test("every acknowledged change is there in full, and none half")
  func nothingIsLost() async {
    for seed in Seeds.take(250) {
      let violations = await PowerLossRun.violations(seed: seed)
      #expect(violations.isEmpty, "STORE_SEED=\(seed)")
      if !violations.isEmpty { break }
    }
  }

  @Test("a missing sync is found", arguments: [SimulatedDisk.Target.data, .log, .directories])
  func missingSyncIsFound(_ target: SimulatedDisk.Target) async {
    var found: UInt64?
    for seed in Seeds.take(300) where found == nil {
      if await !PowerLossRun.violations(seed: seed, ignoring: target).isEmpty { found = seed }
    }
    #expect(found != nil, "runs without syncs of \(target) went unnoticed")
  }
}
