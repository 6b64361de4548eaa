// SPDX-License-Identifier: Apache-2.0

import Raft
import Replication
import SectorStore
import Synchronization
import Testing

/// A disk, and at times a member that lives on it.
final class TestMember: Sendable {
  struct Life: Sendable {
    var store: SectorStore
    var driver: ReplicaDriver
  }

  /// How the groups of a test are made, in addition to what is the same for all.
  struct Settings: Sendable {
    var store: @Sendable (inout StoreConfiguration) -> Void = { _ in }
    var replica: @Sendable (inout ReplicaConfiguration) -> Void = { _ in }
    /// Hears what each member applies.
    var applied: @Sendable (MemberID, [AppliedEntry]) -> Void = { _, _ in }
  }

  let id: MemberID
  private let place: Mutex<(disk: SimulatedDisk, index: SimulatedIndex)>
  private let network: TestNetwork
  private let settings: Settings
  private let configuration: StoreConfiguration
  private let current = Mutex<Life?>(nil)

  static let directory = "/store"

  init(_ id: UInt64, seed: UInt64, network: TestNetwork, settings: Settings) throws {
    var configuration = StoreConfiguration(generation: 7, sectorSize: 4_096)
    configuration.memberID = id
    configuration.segmentBytes = 256 << 10
    configuration.growthBytes = 512 << 10
    configuration.dataFileBytes = 8 << 20
    configuration.reservedBytes = 0
    configuration.readerCount = 1
    configuration.retainedEntriesMin = 0
    settings.store(&configuration)
    self.id = MemberID(id)
    let disk = SimulatedDisk(seed: seed &+ id)
    self.place = Mutex((disk, SimulatedIndex(disk: disk)))
    self.network = network
    self.settings = settings
    self.configuration = configuration
    try SectorStore.create(at: Self.directory, configuration, files: disk)
  }

  var disk: SimulatedDisk { self.place.withLock { $0.disk } }

  private func open() throws -> SectorStore {
    let place = self.place.withLock { $0 }
    return try SectorStore.open(
      at: Self.directory, self.configuration, files: place.disk, appliesLog: false, index: place.index)
  }

  /// Makes the store what the stores of all first members of a group are.
  func found(_ membership: Membership) async throws {
    let store = try self.open()
    var change = Change(term: 1)
    change.facts = [SectorStore.membershipFact(membership.bytes)]
    _ = try await store.commit(change)
    try await store.close()
  }

  /// Makes the store a group of its own, as a new cluster begins, and goes on as its only member.
  func bootstrap(facts: [Change.Fact] = []) async throws {
    let store = try self.open()
    try self.begin(store, try await ReplicaDriver.bootstrap(store, facts: facts))
  }

  func start() throws {
    let store = try self.open()
    try self.begin(store, store.recoveredLog)
  }

  private func begin(_ store: SectorStore, _ log: RecoveredLog) throws {
    var configuration = ReplicaConfiguration(
      member: self.id, incarnation: GroupIncarnation(1), seed: .random(in: .min ... .max))
    // Slower than in earnest: the machine does other things, too.
    configuration.heartbeatInterval = .milliseconds(40)
    configuration.electionTimeout = .milliseconds(250)...(.milliseconds(500))
    configuration.storageStallLimit = .seconds(5)
    configuration.clockDriftBound = ClockDriftBound(perThousand: 10)
    self.settings.replica(&configuration)
    do {
      let driver = try ReplicaDriver(
        store: store, log: log, configuration: configuration, transport: self.network.link(from: self.id))
      var observer = ReplicaDriver.Observer()
      observer.violated = { [id] violation in Issue.record("\(id.rawValue) sees \(violation)") }
      observer.applied = { [settings, id] entries in settings.applied(id, entries) }
      driver.setObserver(observer)
      self.current.withLock { $0 = Life(store: store, driver: driver) }
      self.network.connect(driver)
      try #require(driver.start())
    } catch {
      store.abandon()
      throw error
    }
  }

  /// Ends as a crash would: of the process, or of the machine, which forgets what was not synced.
  func kill(losesPower: Bool = false) {
    self.network.disconnect(self.id)
    if losesPower { self.disk.losePowerNow() }
    self.current.withLock { $0.take() }?.store.abandon()
    self.disk.restart(keepsMemory: !losesPower)
  }

  /// Begins anew from another member's snapshot, if that is ahead of all that this one may have promised to keep.
  ///
  /// - Returns: where the snapshot stands; nil where it is of no use.
  func install(_ snapshot: StoreSnapshot) throws -> StoreLogIndex? {
    self.kill()
    let old = try self.open()
    let log = old.recoveredLog
    old.abandon()
    // An entry that agrees may have been counted, and so may what follows it: they must not be forgotten.
    let offset = Int(snapshot.index.rawValue) - Int(log.applied.rawValue) - 1
    let agrees = offset < 0 || offset < log.entries.count && log.entries[offset].term == snapshot.term
    guard !agrees else {
      try self.start()
      return nil
    }
    let disk = SimulatedDisk(seed: snapshot.index.rawValue)
    let index = SimulatedIndex(disk: disk)
    let importing = try SnapshotImport.begin(
      at: Self.directory, self.configuration, index: snapshot.index, term: snapshot.term, files: disk, storeIndex: index
    )
    var cursor: SnapshotCursor?
    repeat {
      let page = try snapshot.items(after: cursor, byteCountMax: 1 << 20)
      try importing.add(page.items)
      cursor = page.next
    } while cursor != nil
    try importing.finish(hardState: log.hardState)
    self.place.withLock { $0 = (disk, index) }
    try self.start()
    return snapshot.index
  }

  var life: Life? { self.current.withLock { $0 } }
  func alive() throws -> Life { try #require(self.life) }

  var isLeading: Bool { self.life?.driver.leadingTerm != nil }
}
