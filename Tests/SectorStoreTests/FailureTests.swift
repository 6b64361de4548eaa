// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import SectorStore
import Testing

@Suite("Failures")
struct FailureTests {
  /// More than goes into the log itself.
  private static func large(_ version: UInt64) -> Change {
    Bench.put(1, version, Dictionary(uniqueKeysWithValues: (0..<17).map { (UInt64($0), UInt8(version)) }))
  }

  @Test("of a sync stop the store, and nothing wrong is served", arguments: [SimulatedDisk.Target.data, .log])
  func failedSyncStopsTheStore(_ target: SimulatedDisk.Target) async throws {
    let bench = try Bench()
    let store = bench.store
    _ = try await store.commit(Bench.put(1, 1, [0: 1]))
    bench.disk.failNextSync(target)
    let pending = try store.enqueue(Self.large(2))
    let failure = StoreError.failed(String(describing: FileError.failed(operation: "fdatasync", code: 5)))
    await #expect(throws: failure) { try await pending.durable() }
    #expect(throws: failure) { try store.enqueue(Bench.put(1, 3)) }
    #expect(throws: failure) { try store.record(1) }
    #expect(throws: failure) { try bench.sectors(1, 0..<1) }
    #expect(throws: failure) { try store.pin(1) }
    #expect(store.status().failure == failure)
    await #expect(throws: failure) { try await store.close() }

    // The kernel may still show what the disk does not have: what is served from now on must have reached the disk.
    bench.disk.restart(keepsMemory: true)
    func reopen() throws -> SectorStore {
      try SectorStore.open(at: Bench.directory, PowerLossRun.configuration(), files: bench.disk, index: bench.index)
    }
    let second = try reopen()
    let version = try second.record(1)?.version
    let byte = try second.readBlocking(inode: 1, level: 0, indexes: 0..<1)[0]?.first
    #expect(version == 1 && byte == 1 || version == 2 && byte == 2)
    second.abandon()
    bench.disk.restart()
    let third = try reopen()
    defer { third.abandon() }
    #expect(try third.record(1)?.version == version)
    #expect(try third.readBlocking(inode: 1, level: 0, indexes: 0..<1)[0]?.first == byte)
  }

  @Test("of the sync of a checkpoint stop the store, and the log has what was to reach the disk")
  func failedSyncOfACheckpoint() async throws {
    let bench = try Bench()
    let store = bench.store
    for version in 1...3 { _ = try await store.commit(Bench.put(1, UInt64(version), [0: UInt8(version)])) }
    bench.disk.failNextSync(.data)
    let failure = StoreError.failed(String(describing: FileError.failed(operation: "fdatasync", code: 5)))
    await #expect(throws: failure) { try await store.checkpoint() }
    #expect(throws: failure) { try store.enqueue(Bench.put(1, 4)) }
    await #expect(throws: failure) { try await store.close() }

    bench.disk.restart()
    let second = try SectorStore.open(
      at: Bench.directory, PowerLossRun.configuration(), files: bench.disk, index: bench.index)
    defer { second.abandon() }
    #expect(try second.record(1)?.version == 3)
    #expect(try second.readBlocking(inode: 1, level: 0, indexes: 0..<1)[0]?.first == 3)
  }

  @Test("of a checkpoint leave nobody waiting whose change is on its way", .timeLimit(.minutes(1)))
  func failedCheckpointAmidChanges() async throws {
    for _ in 0..<40 {
      let bench = try Bench()
      let store = bench.store
      _ = try await store.commit(Bench.put(1, 1, [0: 1]))
      bench.disk.failNextSync(.data)
      async let checkpoint: Void? = try? store.checkpoint()
      var pending: [PendingChange] = []
      while pending.count < 2_000, let change = try? store.enqueue(Bench.put(1, UInt64(pending.count) + 2, [0: 1])) {
        pending.append(change)
      }
      await _ = checkpoint
      for change in pending { _ = try? await change.durable() }
      #expect(store.status().failure != nil)
      store.abandon()
    }
  }

  @Test("for want of room refuse one change, and later ones succeed when there is room")
  func fullDisk() async throws {
    let bench = try Bench { $0.growthBytes = 256 << 10 }
    let store = bench.store
    defer { store.abandon() }
    _ = try await store.commit(Bench.put(1, 1, [0: 1]))
    bench.disk.limitCapacity(bench.disk.usedBytes)
    var version: UInt64 = 1
    var isFull = false
    // Distinct sectors, so that nothing is freed.
    while !isFull, version < 500 {
      do {
        _ = try await store.commit(Bench.put(1, version + 1, [version: UInt8(version & 127)]))
        version += 1
      } catch {
        #expect(error == .noSpace)
        isFull = true
      }
    }
    #expect(isFull)
    #expect(try store.record(1)?.version == version)
    #expect(try bench.sectors(1, 0..<2) == [1, version > 1 ? 1 : nil])
    // What needs no blocks goes on.
    _ = try await store.commit(Bench.put(2, 1))
    // Room by removing: the slots come back with a checkpoint that the next writer waits for.
    var removal = Change(term: 1)
    removal.records = [.remove(inode: 1)]
    _ = try await store.commit(removal)
    _ = try await store.commit(Bench.put(3, 1, [0: 3]))
    // Room by a larger disk.
    bench.disk.limitCapacity(.max)
    _ = try await store.commit(Bench.put(4, 1, Dictionary(uniqueKeysWithValues: (0..<100).map { ($0, 4) })))
    #expect(try bench.sectors(4, 99..<101) == [4, nil])
  }

  @Test("of checkpoints for want of room are tried again")
  func fullIndex() async throws {
    let bench = try Bench()
    let store = bench.store
    bench.index.refuseWrites(true)
    _ = try await store.commit(Bench.put(1, 1, [0: 1]))
    await #expect(throws: StoreError.noSpace) { try await store.checkpoint() }
    _ = try await store.commit(Bench.put(1, 2, [1: 2]))
    #expect(try bench.sectors(1, 0..<2) == [1, 2])
    #expect(store.status().checkpointError == .noSpace)
    bench.index.refuseWrites(false)
    try await store.checkpoint()
    #expect(store.status().checkpointIndex == LogIndex(2))
    #expect(store.status().checkpointError == nil)
    try await store.close()
  }

  @Test("of a byte in a block are found, in memory or on the disk", arguments: [UInt8(0), 1])
  func damagedBlock(_ level: UInt8) async throws {
    let bench = try Bench()
    defer { bench.store.abandon() }
    var change = Bench.put(1, 1)
    change.blocks = [
      BlockWrite(inode: 1, level: level, index: 3, bytes: pattern(0xABCD, 3 * 4_096), blockSize: 4_096)
    ]
    _ = try await bench.store.commit(change)
    let path = Bench.directory + "/data/" + (level == 0 ? "sectors" : "nodes") + "-000000"
    bench.disk.flip(path, at: 4_096 + 100)
    let damage = StoreError.damaged(.block(inode: 1, level: level, index: 4))
    #expect(throws: damage) { try bench.store.readBlocking(inode: 1, level: level, indexes: 0..<10) }
    await #expect(throws: damage) { try await bench.store.read(inode: 1, level: level, indexes: 4..<5) }
    #expect(try bench.store.readBlocking(inode: 1, level: level, indexes: 3..<4)[3] != nil)
    bench.disk.flip(path, at: 4_096 + 100)
    #expect(try await bench.store.read(inode: 1, level: level, indexes: 4..<5)[4] != nil)
  }

  @Test("of the log are found on opening")
  func damagedLog() async throws {
    let bench = try Bench()
    for version in UInt64(1)...10 { _ = try await bench.store.commit(Bench.put(1, version, [0: 1])) }
    bench.store.abandon()
    let name = try #require(bench.disk.names(Bench.directory + "/log").first { $0.hasSuffix(".log") })
    let path = Bench.directory + "/log/" + name
    bench.disk.flip(path, at: 4_096 + 70)
    #expect(throws: StoreError.damaged(.log(segment: 1, offset: 4_096))) {
      try SectorStore.open(at: Bench.directory, files: bench.disk, index: bench.index)
    }
    bench.disk.flip(path, at: 4_096 + 70)
    try SectorStore.open(at: Bench.directory, files: bench.disk, index: bench.index).abandon()
  }

  @Test("to open: no store, a newer one, a damaged header, a store that is open, one that exists")
  func opening() throws {
    let bench = try Bench()
    func open() throws(StoreError) {
      try SectorStore.open(at: Bench.directory, files: bench.disk, index: bench.index).abandon()
    }
    #expect(throws: StoreError.notAStore) { try SectorStore.open(at: "/other", files: bench.disk) }
    #expect(throws: StoreError.locked) { try open() }
    #expect(throws: StoreError.locked) {
      try SectorStore.create(at: Bench.directory, .init(generation: 1), files: bench.disk)
    }
    bench.store.abandon()
    #expect(throws: StoreError.alreadyExists) {
      try SectorStore.create(at: Bench.directory, .init(generation: 1), files: bench.disk)
    }
    try open()
    let path = Bench.directory + "/store"
    let header = bench.disk.bytes(path)
    bench.disk.flip(path, at: header.count - 3)
    #expect(throws: StoreError.damaged(.header)) { try open() }
    bench.disk.overwrite(path, at: 0, with: Array("blocktree-store 2".utf8))
    #expect(throws: StoreError.newerFormat(found: 2, supported: 1)) { try open() }
    bench.disk.overwrite(path, at: 0, with: header)
    try open()
  }

  @Test("of rows in SQLite are found, with their place")
  func damagedRows() async throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/store"
    var configuration = PowerLossRun.configuration()
    configuration.checkpointBytes = 1 << 20
    try SectorStore.create(at: path, configuration)
    let store = try SectorStore.open(at: path, configuration)
    let marker = Array("recognizable contents".utf8)
    var change = Bench.put(1, 1, [0: 1])
    change.records = [.put(.init(inode: 1, version: 1, bytes: marker + [1]))]
    let digest = try #require(Digest([UInt8](repeating: 4, count: 32)))
    change.certificates = [.init(digest: digest, bytes: marker + [2])]
    _ = try await store.commit(change)
    _ = try await store.commit(Bench.put(2, 1, [5: 1]))
    try await store.close()

    let indexPath = path + "/index.sqlite"
    let original = try Data(contentsOf: URL(fileURLWithPath: indexPath))
    func damage(_ bytes: [UInt8]) throws {
      var damaged = original
      let range = try #require(damaged.range(of: Data(bytes)))
      damaged[range.lowerBound + 3] ^= 1
      try damaged.write(to: URL(fileURLWithPath: indexPath))
    }
    func reopened(_ body: (SectorStore) throws -> Void) throws {
      let store = try SectorStore.open(at: path, configuration)
      defer { store.abandon() }
      try body(store)
    }
    try damage(marker + [1])
    try reopened { (store: SectorStore) throws -> Void in
      #expect(throws: StoreError.damaged(.record(1))) { try store.record(1) }
      #expect(try store.record(2)?.version == 1)
    }
    try damage(marker + [2])
    try reopened { (store: SectorStore) throws -> Void in
      #expect(throws: StoreError.damaged(.certificate(digest))) { try store.certificate(digest) }
    }
    // The group's mask: only the sixth block is there.
    try damage([32, 0, 0, 0, 0, 0, 0, 0])
    try reopened { (store: SectorStore) throws -> Void in
      #expect(throws: StoreError.damaged(.blockMap(inode: 2, level: 0, group: 0))) {
        try store.readBlocking(inode: 2, level: 0, indexes: 0..<9)
      }
      #expect(try store.readBlocking(inode: 1, level: 0, indexes: 0..<1)[0]?.first == 1)
    }
    // What such a group belongs to can be removed all the same.
    try damage([32, 0, 0, 0, 0, 0, 0, 0])
    let reopened = try SectorStore.open(at: path, configuration)
    var removal = Change(term: 1)
    removal.records = [.remove(inode: 2)]
    _ = try await reopened.commit(removal)
    #expect(try reopened.record(2) == nil)
    try await reopened.close()
    let last = try SectorStore.open(at: path, configuration)
    #expect(try last.record(2) == nil)
    _ = try await last.commit(Bench.put(2, 1, [5: 9]))
    #expect(try last.readBlocking(inode: 2, level: 0, indexes: 5..<6)[5]?.first == 9)
    last.abandon()

    // Truncated to nothing that SQLite could read.
    try Data(repeating: 7, count: 8_192).write(to: URL(fileURLWithPath: indexPath))
    do throws(StoreError) {
      try SectorStore.open(at: path, configuration).abandon()
      Issue.record("an index of rubbish was opened")
    } catch {
      guard case .damaged(.index) = error else {
        Issue.record("\(error)")
        return
      }
    }
  }

  @Test("never come from a log that grows for ever, though there is always a change that waits")
  func boundedLog() async throws {
    let bench = try Bench {
      $0.segmentBytes = 128 << 10
      $0.checkpointBytes = 48 << 10
    }
    let store = bench.store
    defer { store.abandon() }
    var waiting: [PendingChange] = []
    var (version, logBytesMax): (UInt64, Int) = (0, 0)
    // Some 4 MiB of entries, of which at least 50 wait at any time.
    while version < 4_000 {
      for _ in 0..<50 {
        version += 1
        var change = Bench.put(1, version)
        change.facts = [.init(key: "padding", value: [UInt8](repeating: 1, count: 1_000))]
        waiting.append(try store.enqueue(change))
      }
      if waiting.count > 100 {
        for pending in waiting.prefix(50) { _ = try await pending.durable() }
        waiting.removeFirst(50)
      }
      logBytesMax = max(logBytesMax, store.status().logBytes)
    }
    for pending in waiting { _ = try await pending.durable() }
    #expect(logBytesMax <= 12 * 128 << 10)
  }

  @Test("of a change fail those that were built on it, although another change has made the version that they expect")
  func identities() async throws {
    let bench = try Bench()
    let store = bench.store
    defer { store.abandon() }
    _ = try await store.commit(Bench.put(1, 1))
    func conditioned(_ version: UInt64, _ condition: UInt64, on bytes: [UInt8]? = nil, text: UInt8) throws -> Change {
      var change = Bench.put(1, version)
      change.records = [.put(StoredRecord(inode: 1, version: version, bytes: [text], parents: [], flags: []))]
      let digest = bytes.map { Array(SHA256.hash(data: $0)) }.flatMap(Digest.init)
      change.conditions = [.init(inode: 1, version: condition, digest: digest)]
      return change
    }
    for isAtOnce in [true, false] {
      let version = try #require(try store.record(1)?.version)
      let winner = try store.enqueue(conditioned(version + 1, version, text: 1))
      let loser = try store.enqueue(conditioned(version + 1, version, text: 2))
      if !isAtOnce { _ = try? await loser.durable() }
      // The version fits, since the winner made it.
      let following = try store.enqueue(conditioned(version + 2, version + 1, on: [2], text: 3))
      let rightful = try store.enqueue(conditioned(version + 2, version + 1, on: [1], text: 4))
      _ = try await winner.durable()
      await #expect(throws: StoreError.conditionFailed(inode: 1, current: version + 1)) { try await loser.durable() }
      await #expect(throws: StoreError.conditionFailed(inode: 1, current: version + 1)) {
        try await following.durable()
      }
      _ = try await rightful.durable()
      #expect(try store.record(1)?.bytes == [4])
    }
  }

  @Test("never come from a full queue: it refuses, and tells when there is room")
  func fullQueue() async throws {
    let bench = try Bench { $0.queueCountMax = 4 }
    let store = bench.store
    defer { store.abandon() }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for task in UInt64(1)...8 {
        group.addTask {
          for version in UInt64(1)...20 { _ = try await store.commit(Bench.put(task, version, [0: 1])) }
        }
      }
      try await group.waitForAll()
    }
    #expect(store.status().appliedIndex == LogIndex(160))
  }

  @Test("are not kept after closing: files are private, and the directory opens again")
  func closing() async throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/store"
    try SectorStore.create(at: path, PowerLossRun.configuration())
    let store = try SectorStore.open(at: path)
    #expect(throws: StoreError.locked) { try SectorStore.open(at: path) }
    _ = try await store.commit(Bench.put(1, 1, [0: 1]))
    try await store.close()
    try await store.close()
    #expect(throws: StoreError.closed) { try store.enqueue(Bench.put(1, 2)) }
    #expect(throws: StoreError.closed) { try store.record(1) }
    await #expect(throws: StoreError.closed) { try await store.read(inode: 1, level: 0, indexes: 0..<1) }
    for name in try FileManager.default.subpathsOfDirectory(atPath: directory.path) {
      let attributes = try FileManager.default.attributesOfItem(atPath: directory.path + "/" + name)
      let mode = attributes[.posixPermissions] as? NSNumber
      let isDirectory = attributes[.type] as? FileAttributeType == .typeDirectory
      #expect(mode?.intValue == (isDirectory ? 0o700 : 0o600), "\(name)")
    }
    let again = try SectorStore.open(at: path)
    #expect(try again.record(1)?.version == 1)
    #expect(again.status().checkpointIndex == LogIndex(1))
    try await again.close()
  }
}
