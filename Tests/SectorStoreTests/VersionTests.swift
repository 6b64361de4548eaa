// SPDX-License-Identifier: Apache-2.0

import Foundation
import SectorStore
import Testing

/// A store on a simulated disk that does not fail, for tests of single rules.
struct Bench {
  let disk: SimulatedDisk
  let index: SimulatedIndex
  let store: SectorStore
  static let directory = "/store"

  init(seed: UInt64 = 5, _ change: (inout StoreConfiguration) -> Void = { _ in }) throws {
    self.disk = SimulatedDisk(seed: seed)
    var configuration = PowerLossRun.configuration()
    configuration.segmentBytes = 1 << 20
    configuration.checkpointBytes = 1 << 20
    configuration.checkpointDeadBytes = 1 << 30
    change(&configuration)
    self.index = SimulatedIndex(disk: self.disk)
    try SectorStore.create(at: Self.directory, configuration, files: self.disk)
    self.store = try SectorStore.open(at: Self.directory, configuration, files: self.disk, index: self.index)
  }

  /// A change that gives an inode a version, with single sectors of one repeated byte.
  static func put(_ inode: UInt64, _ version: UInt64, _ sectors: [UInt64: UInt8] = [:]) -> Change {
    var change = Change(term: 1)
    change.records = [.put(StoredRecord(inode: inode, version: version, bytes: [UInt8(version & 255)]))]
    change.blocks = sectors.map { index, byte in
      BlockWrite(inode: inode, level: 0, index: index, bytes: [UInt8](repeating: byte, count: 4_096), blockSize: 4_096)
    }
    return change
  }

  /// The first byte of each sector in the range, nil for holes.
  func sectors(_ inode: UInt64, _ range: Range<UInt64>, version: UInt64? = nil) throws(StoreError) -> [UInt8?] {
    let blocks = try self.store.readBlocking(inode: inode, level: 0, indexes: range, version: version)
    return range.map { blocks[$0]?.first }
  }

  /// After this, what the writer knows of slots is in the status.
  func settle() async throws {
    try await self.store.checkpoint()
    _ = try await self.store.commit(Self.put(999, (try self.store.record(999)?.version ?? 0) + 1))
  }
}

@Suite("Versions")
struct VersionTests {
  @Test("stay readable while pinned, and their slots are free afterwards")
  func pinsKeepVersions() async throws {
    let bench = try Bench()
    let store = bench.store
    defer { store.abandon() }
    _ = try await store.commit(Bench.put(1, 1, [0: 1, 1: 1, 70: 1]))
    let first = try store.pin(1)
    _ = try await store.commit(Bench.put(1, 2, [1: 2]))
    _ = try await store.commit(Bench.put(1, 3, [0: 3, 2: 3]))
    let third = try store.pin(1, version: 3)
    var cut = Bench.put(1, 4, [200: 4])
    cut.truncations = [.init(inode: 1, keptCounts: [1])]
    _ = try await store.commit(cut)
    for _ in 0..<2 {
      #expect(try bench.sectors(1, 0..<3, version: 1) == [1, 1, nil])
      #expect(try bench.sectors(1, 70..<71, version: 1) == [1])
      #expect(try bench.sectors(1, 0..<3, version: 3) == [3, 2, 3])
      #expect(try bench.sectors(1, 70..<71, version: 3) == [1])
      #expect(try bench.sectors(1, 200..<201, version: 3) == [nil])
      #expect(try bench.sectors(1, 0..<3) == [3, nil, nil])
      #expect(try bench.sectors(1, 70..<71) == [nil])
      #expect(try bench.sectors(1, 200..<201, version: 4) == [4])
      #expect(throws: StoreError.versionGone(inode: 1, version: 2, current: 4)) {
        try bench.sectors(1, 0..<3, version: 2)
      }
      try await bench.settle()
    }
    #expect(store.status().sectorSlotsUsed == 7)
    first.release()
    #expect(throws: StoreError.versionGone(inode: 1, version: 1, current: 4)) {
      try bench.sectors(1, 0..<3, version: 1)
    }
    #expect(try bench.sectors(1, 0..<3, version: 3) == [3, 2, 3])
    try await bench.settle()
    #expect(store.status().sectorSlotsUsed == 5)
    third.release()
    third.release()
    #expect(store.status().pinCount == 0)
    try await bench.settle()
    #expect(store.status().sectorSlotsUsed == 2)
  }

  @Test("of a removed inode stay readable while pinned")
  func removalKeepsPinned() async throws {
    let bench = try Bench()
    let store = bench.store
    defer { store.abandon() }
    _ = try await store.commit(Bench.put(5, 8, [0: 7, 100: 7]))
    let pin = try store.pin(5, version: 8)
    var removal = Change(term: 1)
    removal.records = [.remove(inode: 5)]
    _ = try await store.commit(removal)
    try await bench.settle()
    #expect(try store.record(5) == nil)
    #expect(try bench.sectors(5, 0..<2, version: 8) == [7, nil])
    #expect(try bench.sectors(5, 100..<101, version: 8) == [7])
    #expect(throws: StoreError.unknownInode(5)) { try bench.sectors(5, 0..<1) }
    pin.release()
    #expect(throws: StoreError.versionGone(inode: 5, version: 8, current: nil)) {
      try bench.sectors(5, 0..<1, version: 8)
    }
    try await bench.settle()
    #expect(store.status().sectorSlotsUsed == 0)
  }

  @Test("are refused when they do not exist yet, or can not be pinned any more")
  func pinsAreStrict() async throws {
    let bench = try Bench()
    defer { bench.store.abandon() }
    #expect(throws: StoreError.unknownInode(1)) { try bench.store.pin(1) }
    _ = try await bench.store.commit(Bench.put(1, 1, [0: 1]))
    _ = try await bench.store.commit(Bench.put(1, 2, [1: 2]))
    #expect(throws: StoreError.versionGone(inode: 1, version: 3, current: 2)) { try bench.store.pin(1, version: 3) }
    #expect(throws: StoreError.versionGone(inode: 1, version: 1, current: 2)) { try bench.store.pin(1, version: 1) }
    #expect(try bench.store.pin(1).version == 2)
  }

  @Test("that nobody pinned are gone rather than guessed")
  func unpinnedVersionsAreNotGuessed() async throws {
    let bench = try Bench()
    let store = bench.store
    defer { store.abandon() }
    _ = try await store.commit(Bench.put(1, 1, [0: 1, 64: 1]))
    var cut = Bench.put(1, 2)
    cut.truncations = [.init(inode: 1, keptCounts: [64])]
    cut.blocks = [
      BlockWrite(inode: 1, level: 0, index: 3, bytes: [UInt8](repeating: 2, count: 4_096), blockSize: 4_096)
    ]
    _ = try await store.commit(cut)
    // The hole leaves the layers, and has no row.
    for _ in 0..<3 { try await bench.settle() }
    let pin = try store.pin(1)
    _ = try await store.commit(Bench.put(1, 3, [64: 3]))
    #expect(try bench.sectors(1, 64..<65, version: 2) == [nil])
    #expect(throws: StoreError.versionGone(inode: 1, version: 1, current: 3)) {
      try bench.sectors(1, 64..<65, version: 1)
    }
    #expect(throws: StoreError.versionGone(inode: 1, version: 1, current: 3)) {
      try bench.sectors(1, 0..<1, version: 1)
    }
    pin.release()
    // What has not changed since is served all the same.
    #expect(try bench.sectors(1, 3..<4, version: 2) == [2])
  }

  @Test("must rise, and conditions must hold in the order of the queue")
  func conditionsAreChecked() async throws {
    let bench = try Bench()
    let store = bench.store
    defer { store.abandon() }
    var create = Bench.put(1, 1)
    create.conditions = [.init(inode: 1, version: nil)]
    var again = Bench.put(1, 2)
    again.conditions = [.init(inode: 1, version: 1)]
    // All at once: later ones see what earlier ones did, though none is durable yet.
    let pending = try [create, create, again, again, Bench.put(1, 2)].map { try store.enqueue($0) }
    var results: [StoreError?] = []
    for item in pending {
      do throws(StoreError) {
        _ = try await item.durable()
        results.append(nil)
      } catch {
        results.append(error)
      }
    }
    #expect(
      results == [
        nil, .conditionFailed(inode: 1, current: 1), nil, .conditionFailed(inode: 1, current: 2),
        .invalidChange(.versionNotHigher),
      ])
    // What is refused has its place in the log all the same.
    #expect(store.status().appliedIndex == LogIndex(5))
  }

  @Test("reject changes that break a rule before they are queued")
  func faultsAreFound() throws {
    let bench = try Bench()
    defer { bench.store.abandon() }
    func fault(_ edit: (inout Change) -> Void) -> StoreError? {
      var change = Bench.put(1, 1, [0: 1])
      edit(&change)
      do throws(StoreError) {
        _ = try bench.store.enqueue(change)
        return nil
      } catch {
        return error
      }
    }
    let sector = [UInt8](repeating: 0, count: 4_096)
    #expect(fault { $0.records = [] } == .invalidChange(.blocksWithoutRecord))
    #expect(fault { $0.records.append(.remove(inode: 1)) } == .invalidChange(.inodeTwice))
    #expect(fault { $0.records.append(.remove(inode: 0)) } == .invalidChange(.inodeOutOfRange))
    #expect(
      fault { $0.blocks.append(.init(inode: 1, level: 0, index: 0, bytes: sector, blockSize: 4_096)) }
        == .invalidChange(.blocksOverlap))
    #expect(
      fault { $0.blocks = [.init(inode: 1, level: 1, index: 0, bytes: sector + [1], blockSize: 4_096)] }
        == .invalidChange(.blockSizeWrong))
    #expect(
      fault { $0.blocks = [.init(inode: 1, level: 0, index: .max, bytes: sector, blockSize: 4_096)] }
        == .invalidChange(.blockIndexTooHigh))
    #expect(
      fault { $0.records = [.put(.init(inode: 1, version: 1, bytes: .init(repeating: 0, count: 65_537)))] }
        == .invalidChange(.recordTooLong))
    #expect(
      fault { $0.operations = [.init(session: .random(), sequence: 1, result: .init(repeating: 0, count: 1_025))] }
        == .invalidChange(.resultTooLong))
  }
}

@Suite("Sessions")
struct SessionTests {
  private func open(_ sessions: SessionID...) -> Change {
    var change = Change(term: 1)
    change.sessionsOpened = sessions.map { .init(session: $0, owner: [9], openedAt: 77) }
    return change
  }

  private func apply(_ session: SessionID, _ sequence: UInt64, _ result: [UInt8] = [1]) -> Change {
    var change = Change(term: 1)
    change.operations = [.init(session: session, sequence: sequence, result: result)]
    return change
  }

  @Test("remember their last 1,024 results, through checkpoints and reopening")
  func rememberResults() async throws {
    let bench = try Bench()
    var store = bench.store
    defer { store.abandon() }
    let session = SessionID.random()
    #expect(try store.operationStatus(session, sequence: 1) == .unknownSession)
    await #expect(throws: StoreError.unknownSession(session)) { try await store.commit(self.apply(session, 1)) }
    _ = try await store.commit(self.open(session))
    #expect(try store.session(session)?.owner == [9])
    #expect(try store.operationStatus(session, sequence: 1) == .new)
    _ = try await store.commit(self.apply(session, 5, [55]))
    _ = try await store.commit(self.apply(session, 3, [33]))
    try await store.checkpoint()
    _ = try await store.commit(self.apply(session, 1_027, [27]))
    for round in 0..<3 {
      #expect(try store.operationStatus(session, sequence: 3) == .tooOld)
      #expect(try store.operationStatus(session, sequence: 4) == .new)
      #expect(try store.operationStatus(session, sequence: 5) == .applied(result: [55]))
      #expect(try store.operationStatus(session, sequence: 1_027) == .applied(result: [27]))
      #expect(try store.operationStatus(session, sequence: 1_028) == .new)
      if round == 0 { try await store.checkpoint() }
      if round == 1 {
        store.abandon()
        store = try SectorStore.open(
          at: Bench.directory, PowerLossRun.configuration(), files: bench.disk, index: bench.index)
      }
    }
    await #expect(throws: StoreError.alreadyApplied(session, sequence: 5)) {
      try await store.commit(self.apply(session, 5))
    }
    await #expect(throws: StoreError.operationTooOld(session, sequence: 2)) {
      try await store.commit(self.apply(session, 2))
    }
    // Opening again changes nothing.
    _ = try await store.commit(self.open(session))
    #expect(try store.operationStatus(session, sequence: 5) == .applied(result: [55]))
  }

  @Test("refuse the second of two equal operations in one batch")
  func duplicateInFlight() async throws {
    let bench = try Bench()
    defer { bench.store.abandon() }
    let session = SessionID.random()
    var opening = self.open(session)
    opening.operations = [.init(session: session, sequence: 1, result: [1])]
    let pending = try [opening, self.apply(session, 2), self.apply(session, 2), self.apply(session, 1)]
      .map { try bench.store.enqueue($0) }
    _ = try await pending[0].durable()
    _ = try await pending[1].durable()
    await #expect(throws: StoreError.alreadyApplied(session, sequence: 2)) { try await pending[2].durable() }
    await #expect(throws: StoreError.alreadyApplied(session, sequence: 1)) { try await pending[3].durable() }
  }

  @Test("are bounded in number for each owner, who can not have those of others dropped")
  func ownersSessions() async throws {
    let bench = try Bench {
      $0.sessionCountMax = 100
      $0.sessionsPerOwnerMax = 3
    }
    let store = bench.store
    defer { store.abandon() }
    func open(_ session: SessionID, by owner: UInt8) async throws {
      var change = Change(term: 1)
      change.sessionsOpened = [.init(session: session, owner: [owner], openedAt: 1)]
      _ = try await store.commit(change)
    }
    let others = SessionID(high: 1_000, low: 0)
    try await open(others, by: 2)
    let own = (0..<50).map { SessionID(high: $0, low: 0) }
    for session in own { try await open(session, by: 1) }
    #expect(try own.filter { try store.session($0) != nil } == Array(own.suffix(3)))
    #expect(try store.session(others) != nil)
    // The one that was used last stays.
    _ = try await store.commit(self.apply(own[47], 1))
    try await open(own[0], by: 1)
    #expect(try own.filter { try store.session($0) != nil } == [own[0], own[47], own[49]])
    #expect(store.status().sessionCount == 4)
  }

  @Test("are bounded in number, and the least recently used goes first")
  func leastRecentlyUsedGoes() async throws {
    let bench = try Bench { $0.sessionCountMax = 3 }
    var store = bench.store
    defer { store.abandon() }
    let sessions = (0..<5).map { SessionID(high: $0, low: 0) }
    for session in sessions[..<3] { _ = try await store.commit(self.open(session)) }
    _ = try await store.commit(self.apply(sessions[0], 1))
    _ = try await store.commit(self.open(sessions[3]))
    #expect(try store.session(sessions[1]) == nil)
    #expect(try store.operationStatus(sessions[0], sequence: 1) == .applied(result: [1]))
    try await store.checkpoint()
    store.abandon()
    var configuration = PowerLossRun.configuration()
    configuration.sessionCountMax = 3
    store = try SectorStore.open(at: Bench.directory, configuration, files: bench.disk, index: bench.index)
    _ = try await store.commit(self.open(sessions[4]))
    #expect(try store.session(sessions[2]) == nil)
    #expect(try store.operationStatus(sessions[2], sequence: 1) == .unknownSession)
    #expect(try store.session(sessions[0]) != nil)
    #expect(store.status().sessionCount == 3)
    // One that comes back remembers nothing.
    _ = try await store.commit(self.apply(sessions[3], 1))
    _ = try await store.commit(self.open(sessions[1]))
    #expect(try store.session(sessions[0]) == nil)
    _ = try await store.commit(self.open(sessions[0]))
    _ = try await store.commit(self.apply(sessions[0], 2))
    #expect(try store.operationStatus(sessions[0], sequence: 1) == .new)
  }
}
