// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Synchronization
import Testing

/// Collects what a store tells whoever decides what stands in its log.
final class Owner: LogOwner {
  struct Heard: Sendable {
    var persisted: UInt64 = 0
    var applied: [AppliedEntry] = []
    var compacted = LogIndex.zero
    var isOutOfSpace = false
    var failure: StoreError?
  }

  let heard = Mutex(Heard())

  func persisted(through id: UInt64) { self.heard.withLock { $0.persisted = id } }
  func applied(_ entries: [AppliedEntry]) { self.heard.withLock { $0.applied += entries } }
  func compacted(through index: LogIndex) { self.heard.withLock { $0.compacted = index } }
  func ranOutOfSpace() { self.heard.withLock { $0.isOutOfSpace = true } }
  func foundSpace() { self.heard.withLock { $0.isOutOfSpace = false } }
  func stopped(_ error: StoreError) { self.heard.withLock { $0.failure = error } }

  func wait(_ isTrue: (Heard) -> Bool) async throws {
    for _ in 0..<20_000 {
      if self.heard.withLock({ isTrue($0) }) { return }
      try await Task.sleep(for: .milliseconds(1))
    }
    Issue.record("It never happened.")
  }
}

/// A store of a group's member, whose consensus is the test.
struct Member {
  let disk: SimulatedDisk
  let index: SimulatedIndex
  var store: SectorStore
  var owner = Owner()
  var configuration: StoreConfiguration

  init(_ change: (inout StoreConfiguration) -> Void = { _ in }) throws {
    var configuration = PowerLossRun.configuration()
    configuration.segmentBytes = 64 << 10
    configuration.retainedEntriesMin = 0
    change(&configuration)
    self.configuration = configuration
    self.disk = SimulatedDisk(seed: 9)
    self.index = SimulatedIndex(disk: self.disk)
    try SectorStore.create(at: "/store", configuration, files: self.disk)
    self.store = try Self.open(self.disk, self.index, configuration, self.owner)
  }

  private static func open(
    _ disk: SimulatedDisk, _ index: SimulatedIndex, _ configuration: StoreConfiguration, _ owner: Owner
  ) throws -> SectorStore {
    let store = try SectorStore.open(
      at: "/store", configuration, files: disk, appliesLog: false, index: index)
    store.setOwner(owner)
    store.setRetainsEntries(true)
    return store
  }

  /// As after a loss of power.
  mutating func restart() throws {
    self.disk.losePowerNow()
    self.store.abandon()
    self.disk.restart()
    self.owner = Owner()
    self.store = try Self.open(self.disk, self.index, self.configuration, self.owner)
  }

  func write(
    _ id: UInt64, hardState: LogHardState? = nil, truncation: UInt64? = nil, first: UInt64,
    _ entries: [(term: UInt64, payload: LogPayload)]
  ) async throws {
    try self.store.write(
      LogWrite(
        id: id, hardState: hardState, truncation: truncation.map { LogIndex($0) }, firstIndex: LogIndex(first),
        entries: entries.map { .init(term: $0.term, payload: $0.payload) }))
    try await self.owner.wait { $0.persisted >= id }
  }

  func apply(_ index: UInt64) async throws {
    self.store.apply(through: LogIndex(index))
    try await self.owner.wait { ($0.applied.last?.index ?? .zero) >= LogIndex(index) }
  }
}

@Suite("The log of a group's member")
struct GroupLogTests {
  private func put(_ inode: UInt64, _ version: UInt64, _ sectors: [UInt64: UInt8] = [:]) -> LogPayload {
    .change(Bench.put(inode, version, sectors))
  }

  @Test("is durable before it is applied, and nothing of it can be read before")
  func order() async throws {
    let member = try Member()
    defer { member.store.abandon() }
    try await member.write(1, first: 1, [(1, .noop), (1, self.put(1, 1, [0: 7])), (1, self.put(2, 1))])
    #expect(try member.store.record(1) == nil)
    try await member.apply(2)
    #expect(try member.store.record(1)?.version == 1)
    #expect(try member.store.record(2) == nil)
    #expect(member.store.appliedIndex == LogIndex(2))
  }

  @Test("comes back after a loss of power with term and vote, and waits for being applied")
  func restart() async throws {
    var member = try Member()
    defer { member.store.abandon() }
    try await member.write(
      1, hardState: LogHardState(term: 3, vote: 8), first: 1,
      [(3, .noop), (3, self.put(1, 1, [0: 7])), (3, .membership([1, 2, 3]))])
    try await member.apply(1)
    try await member.write(2, hardState: LogHardState(term: 4), first: 4, [])
    try member.restart()
    let log = member.store.recoveredLog
    #expect(log.hardState == LogHardState(term: 4))
    #expect(log.applied == .zero)
    #expect(log.entries.map(\.term) == [3, 3, 3])
    #expect(log.entries.map(\.kind) == [.noop, .change, .membership([1, 2, 3])])
    #expect(try member.store.record(1) == nil)
    try await member.apply(3)
    #expect(try member.store.record(1)?.version == 1)
    let membership = try member.store.membership()
    #expect(membership?.index == LogIndex(3) && membership?.bytes == [1, 2, 3])
  }

  @Test("keeps term and vote when the segments in which they were written are used again")
  func recycling() async throws {
    var member = try Member { $0.checkpointEntries = 20 }
    defer { member.store.abandon() }
    try await member.write(1, hardState: LogHardState(term: 5, vote: 1), first: 1, [(5, .noop)])
    for number in UInt64(1)...200 {
      try await member.write(
        number + 1, first: number + 1, [(5, self.put(number, 1, [0: UInt8(number & 255), 900: 1]))])
      try await member.apply(number + 1)
    }
    try await member.store.checkpoint()
    try await member.owner.wait { $0.compacted > LogIndex(100) }
    try member.restart()
    #expect(member.store.recoveredLog.hardState == LogHardState(term: 5, vote: 1))
    #expect(member.store.recoveredLog.applied > LogIndex(100))
  }

  @Test("forgets what another leader's entries take the place of, and gives its room back")
  func truncation() async throws {
    var member = try Member()
    defer { member.store.abandon() }
    try await member.write(1, first: 1, [(1, .noop), (1, self.put(1, 1, [0: 1])), (1, self.put(2, 1, [0: 2, 5: 3]))])
    let usedBefore = member.store.status().sectorSlotsUsed
    try await member.write(
      2, hardState: LogHardState(term: 2), truncation: 2, first: 2, [(2, self.put(1, 1, [0: 9]))])
    #expect(member.store.status().sectorSlotsUsed == usedBefore - 2)
    try member.restart()
    #expect(member.store.recoveredLog.entries.map(\.term) == [1, 2])
    try await member.apply(2)
    #expect(try member.store.record(2) == nil)
    let blocks = try member.store.readBlocking(inode: 1, level: 0, indexes: 0..<1, version: nil)
    #expect(blocks[0]?.first == 9)
  }

  @Test("has entries that do nothing where their conditions do not hold; their room comes back")
  func voidEntries() async throws {
    let member = try Member()
    defer { member.store.abandon() }
    var change = Bench.put(1, 2, [0: 5])
    change.conditions = [.init(inode: 1, version: 7)]
    try await member.write(1, first: 1, [(1, self.put(1, 1, [0: 1])), (1, .change(change)), (1, self.put(2, 1))])
    try await member.apply(3)
    let results = member.owner.heard.withLock { $0.applied.map { (try? $0.result.get()) != nil } }
    #expect(results == [true, false, true])
    #expect(try member.store.record(1)?.version == 1)
    // Two checkpoints, as others may still ask for the entry, blocks and all.
    try await member.store.checkpoint()
    try await member.write(2, first: 4, [(1, .noop)])
    try await member.apply(4)
    try await member.store.checkpoint()
    try await member.write(3, first: 5, [(1, .noop)])
    try await member.apply(5)
    #expect(member.store.status().sectorSlotsUsed == 1)
  }

  @Test("is read back for others, whole, until the checkpoint after the next")
  func reading() async throws {
    let member = try Member()
    defer { member.store.abandon() }
    try await member.write(1, first: 1, [(1, .noop), (1, self.put(1, 1, [0: 1, 1: 2])), (1, .noop)])
    try await member.apply(3)
    func read(_ range: ClosedRange<UInt64>) async throws -> [LogIndex: LogPayload] {
      let found = try await member.store.entries(
        LogIndex(range.lowerBound)...LogIndex(range.upperBound), byteCountMax: 1 << 20)
      return Dictionary(uniqueKeysWithValues: found.map { ($0.index, $0.entry.payload) })
    }
    // What the entry wrote is superseded, and no longer the newest, but not gone.
    try await member.write(2, first: 4, [(1, self.put(1, 2, [0: 8, 1: 9]))])
    try await member.apply(4)
    try await member.store.checkpoint()
    let entries = try await read(1...9)
    #expect(entries.keys.sorted() == (1...4).map { LogIndex($0) })
    guard case .change(let change) = entries[LogIndex(2)] else { throw CancellationError() }
    #expect(change.records == Bench.put(1, 1).records)
    #expect(change.blocks.sorted { $0.index < $1.index }.map { $0.bytes.first } == [1, 2])
    try await member.write(3, first: 5, [(1, .noop)])
    try await member.apply(5)
    try await member.store.checkpoint()
    await #expect(throws: StoreError.entriesGone) { try await read(2...3) }
    #expect(try await read(5...5).count == 1)
  }

  @Test("waits for room without losing its place, and goes on by itself")
  func fullDisk() async throws {
    let member = try Member { $0.segmentBytes = 1 << 20 }
    defer { member.store.abandon() }
    try await member.write(1, first: 1, [(1, self.put(1, 1))])
    member.disk.limitCapacity(1 << 20)
    var sectors: [UInt64: UInt8] = [:]
    for index in UInt64(0)..<1_000 { sectors[index] = 1 }
    let large = LogWrite(
      id: 2, hardState: nil, truncation: nil, firstIndex: LogIndex(2),
      entries: [.init(term: 1, payload: self.put(2, 1, sectors))])
    try member.store.write(large)
    try member.store.write(
      LogWrite(
        id: 3, hardState: nil, truncation: nil, firstIndex: LogIndex(3),
        entries: [.init(term: 1, payload: self.put(3, 1))]))
    try await member.owner.wait { $0.isOutOfSpace }
    #expect(member.owner.heard.withLock { $0.persisted } == 1)
    // What is in the log already is not held up.
    try await member.apply(1)
    member.disk.limitCapacity(1 << 30)
    member.store.retryWrites()
    try await member.owner.wait { $0.persisted == 3 && !$0.isOutOfSpace }
    try await member.apply(3)
    #expect(try member.store.record(3)?.version == 1)
  }
}
