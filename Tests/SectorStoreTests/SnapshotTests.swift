// SPDX-License-Identifier: Apache-2.0

import Foundation
import SectorStore
import Testing

/// Stores to take snapshots of, and ways to get them across.
private enum Snapshots {
  static func configuration(sectorSize: Int = 4_096) -> StoreConfiguration {
    var configuration = PowerLossRun.configuration()
    configuration.sectorSize = sectorSize
    configuration.checkpointBytes = 16 << 10
    // Several marks in each import.
    configuration.batchBytes = 200 << 10
    return configuration
  }

  /// Everything from a cursor on, in pages of about this many bytes, encoded and decoded as for a journey.
  static func items(
    _ snapshot: StoreSnapshot, after start: SnapshotCursor? = nil, byteCountMax: Int = 100_000
  ) throws -> [SnapshotItem] {
    var items: [SnapshotItem] = []
    var cursor = start
    repeat {
      let page = try snapshot.items(after: cursor, byteCountMax: byteCountMax)
      for item in page.items {
        let encoded = item.encoded()
        #expect(encoded.count <= SnapshotItem.encodedBytesMax)
        items.append(try #require(SnapshotItem(encoded: encoded)))
      }
      cursor = try page.next.map { try #require(SnapshotCursor(encoded: $0.encoded())) }
    } while cursor != nil
    return items
  }

  static func items(_ store: SectorStore) async throws -> [SnapshotItem] {
    let snapshot = try await store.snapshot()
    defer { snapshot.close() }
    return try self.items(snapshot)
  }

  /// How a store differs from what the items and the model of their index say, in words.
  static func differences(
    _ store: SectorStore, _ items: [SnapshotItem], _ model: Model, index: LogIndex, term: UInt64
  ) async throws -> [String] {
    var differences = model.differences(store, inodes: 1...12)
    let status = store.status()
    if status.appliedIndex != index || status.appliedTerm != term { differences.append("index or term differs") }
    for case .session(let session, let header) in items where try store.session(session) != header {
      differences.append("session differs")
    }
    // Versions of groups, rows that the model does not know of, and all the rest.
    if try await self.items(store) != items { differences.append("the snapshot of the copy differs") }
    return differences
  }
}

@Suite("A snapshot")
struct SnapshotTests {
  @Test("makes a store equal to the donor at its index, while the donor goes on", arguments: Seeds.take(6))
  func equalsTheDonor(_ seed: UInt64) async throws {
    let directory = try TemporaryDirectory()
    var generator = SeededGenerator(seed: seed)
    // Groups of the larger sectors take several items.
    let sectorSize = generator.bool() ? 4_096 : 32_768
    let configuration = Snapshots.configuration(sectorSize: sectorSize)
    try SectorStore.create(at: directory.path + "/donor", configuration)
    let donor = try SectorStore.open(at: directory.path + "/donor", configuration)

    /// Commits changes with checkpoints in between; returns the states after each.
    @Sendable func change(_ maker: ChangeMaker, _ count: Int) async throws -> (maker: ChangeMaker, models: [Model]) {
      var (maker, models) = (maker, [Model]())
      for _ in 0..<count {
        _ = try await donor.commit(maker.next())
        models.append(maker.model)
        if maker.generator.chance(15) { try await donor.checkpoint() }
      }
      return (maker, models)
    }

    var (maker, models) = try await change(ChangeMaker(seed: seed, sectorSize: sectorSize), generator.number(1...60))
    models.insert(Model(), at: 0)
    let (before, count) = (maker, generator.number(1...60))
    async let changes = change(before, count)
    let snapshot = try await donor.snapshot()
    let pageBytes = generator.number(1...400_000)
    let first = try await donor.perform { () throws(StoreError) in
      try snapshot.items(byteCountMax: pageBytes)
    }
    let changed = try await changes
    maker = changed.maker
    models += changed.models
    let model = models[Int(snapshot.index.rawValue)]
    #expect(snapshot.term == (snapshot.index == .zero ? 0 : 1))

    let copy = directory.path + "/copy"
    let importing = try SnapshotImport.begin(at: copy, configuration, index: snapshot.index, term: snapshot.term)
    var (items, page) = (first.items, first)
    try importing.add(page.items)
    while let cursor = page.next {
      // What the snapshot refers to is superseded, and would be overwritten, meanwhile.
      maker = try await change(maker, generator.number(0...3)).maker
      page = try snapshot.items(after: cursor, byteCountMax: generator.number(1...400_000))
      items += page.items
      try importing.add(page.items)
    }
    #expect(throws: StoreError.notAStore) { try SectorStore.open(at: copy, configuration) }
    try importing.finish()
    #expect(try Snapshots.items(snapshot) == items, "STORE_SEED=\(seed)")
    snapshot.close()
    snapshot.close()
    #expect(throws: StoreError.closed) { try snapshot.items(byteCountMax: 1) }

    var store = try SectorStore.open(at: copy, configuration)
    let differences = try await Snapshots.differences(
      store, items, model, index: snapshot.index, term: snapshot.term)
    #expect(differences == [], "STORE_SEED=\(seed)")
    // The copy goes on by itself.
    var other = maker
    other.restart(from: model)
    for _ in 0..<20 { _ = try await store.commit(other.next()) }
    #expect(other.model.differences(store, inodes: 1...12) == [], "STORE_SEED=\(seed)")
    try await self.expectNoLostSlots(store, &other)
    store.abandon()
    store = try SectorStore.open(at: copy, configuration)
    #expect(other.model.differences(store, inodes: 1...12) == [], "STORE_SEED=\(seed)")
    try await store.close()

    // The donor has what it should, and gets back the slots that were held.
    #expect(maker.model.differences(donor, inodes: 1...12) == [], "STORE_SEED=\(seed)")
    try await self.expectNoLostSlots(donor, &maker)
    try await donor.close()
  }

  /// The slots in use are those of the newest versions.
  private func expectNoLostSlots(_ store: SectorStore, _ maker: inout ChangeMaker) async throws {
    for _ in 0..<2 {
      try await store.checkpoint()
      var fact = Change(term: 1)
      fact.facts = [.init(key: "last", value: [])]
      _ = try await store.commit(fact)
      maker.model.apply(fact)
    }
    let blocks = maker.model.files.values.map { file in
      (file.blocks[0]?.count ?? 0, (file.blocks[1]?.count ?? 0) + (file.blocks[2]?.count ?? 0))
    }
    #expect(store.status().sectorSlotsUsed == blocks.reduce(0) { $0 + $1.0 })
    #expect(store.status().nodeSlotsUsed == blocks.reduce(0) { $0 + $1.1 })
  }

  @Test("of an empty store makes an empty store")
  func empty() async throws {
    let directory = try TemporaryDirectory()
    let configuration = Snapshots.configuration()
    try SectorStore.create(at: directory.path + "/donor", configuration)
    let donor = try SectorStore.open(at: directory.path + "/donor", configuration)
    let items = try await Snapshots.items(donor)
    #expect(items == [.end(SnapshotCounts())])
    let importing = try SnapshotImport.begin(at: directory.path + "/copy", configuration, index: .zero, term: 0)
    try importing.add(items)
    try importing.finish()
    let store = try SectorStore.open(at: directory.path + "/copy", configuration)
    #expect(store.recoveredLog.hardState == LogHardState())
    #expect(try await store.commit(Bench.put(1, 1, [0: 1])) == LogIndex(1))
    try await store.close()
    try await donor.close()
  }

  @Test("gives way to what the member has promised")
  func hardState() async throws {
    let directory = try TemporaryDirectory()
    let configuration = Snapshots.configuration()
    let importing = try SnapshotImport.begin(at: directory.path, configuration, index: LogIndex(40), term: 3)
    try importing.add([.end(SnapshotCounts())])
    let promise = LogHardState(term: 9, vote: .max)
    try importing.finish(hardState: promise)
    let store = try SectorStore.open(at: directory.path, configuration, appliesLog: false)
    #expect(store.recoveredLog.hardState == promise)
    #expect(store.recoveredLog.applied == LogIndex(40))
    #expect(store.recoveredLog.appliedTerm == 3)
    #expect(store.recoveredLog.entries.isEmpty)
    try await store.close()
  }

  @Test("that was interrupted goes on from the last mark, any number of times", arguments: Seeds.take(6))
  func interruptions(_ seed: UInt64) async throws {
    let directory = try TemporaryDirectory()
    var generator = SeededGenerator(seed: seed)
    let configuration = Snapshots.configuration(sectorSize: generator.bool() ? 4_096 : 32_768)
    try SectorStore.create(at: directory.path + "/donor", configuration)
    let donor = try SectorStore.open(at: directory.path + "/donor", configuration)
    var maker = ChangeMaker(seed: seed, sectorSize: configuration.sectorSize)
    for _ in 0..<80 { _ = try await donor.commit(maker.next()) }
    let snapshot = try await donor.snapshot()
    let items = try Snapshots.items(snapshot)

    let copy = directory.path + "/copy"
    var (markCount, lastMark) = (0, SnapshotCursor?.none)
    if generator.bool() {
      // Of something else: nothing of it must stay.
      let other = try SnapshotImport.begin(at: copy, configuration, index: LogIndex(3), term: 1)
      try other.add(Array(items.prefix(generator.number(1...items.count - 1))))
    }
    while true {
      let importing = try SnapshotImport.begin(at: copy, configuration, index: snapshot.index, term: snapshot.term)
      #expect(importing.cursor == lastMark || lastMark.map { $0 < importing.cursor ?? $0 } ?? true)
      if importing.cursor != lastMark { markCount += 1 }
      lastMark = importing.cursor
      #expect(throws: SnapshotImportError.store(.locked)) {
        try SnapshotImport.begin(at: copy, configuration, index: snapshot.index, term: snapshot.term)
      }
      // All that is left, or a part of it, or nothing.
      var rest = try Snapshots.items(snapshot, after: importing.cursor)[...]
      let isWhole = markCount > 0 && generator.chance(10)
      if !isWhole { rest = rest.prefix(generator.number(0...items.count / 2)) }
      while !rest.isEmpty {
        let count = generator.number(1...20)
        try importing.add(Array(rest.prefix(count)))
        rest = rest.dropFirst(count)
      }
      if isWhole {
        try importing.finish()
        break
      }
      if generator.bool() { importing.close() }
    }
    let store = try SectorStore.open(at: copy, configuration)
    let differences = try await Snapshots.differences(
      store, items, maker.model, index: snapshot.index, term: snapshot.term)
    #expect(differences == [], "STORE_SEED=\(seed)")
    try await store.close()
    #expect(throws: SnapshotImportError.store(.alreadyExists)) {
      try SnapshotImport.begin(at: copy, configuration, index: snapshot.index, term: snapshot.term)
    }
    try await donor.close()
  }

  @Test("that loses power on the way becomes the whole store in the end")
  func powerLoss() async throws {
    for seed in Seeds.take(120) {
      let violations = try await SnapshotPowerLoss.violations(seed: seed)
      #expect(violations == [], "STORE_SEED=\(seed)")
      if !violations.isEmpty { break }
    }
  }

  @Test("would not without each of its syncs", arguments: [SimulatedDisk.Target.data, .log, .directories])
  func missingSyncIsFound(_ target: SimulatedDisk.Target) async throws {
    var found: UInt64?
    for seed in Seeds.take(120) where found == nil {
      do {
        if try await !SnapshotPowerLoss.violations(seed: seed, ignoring: target).isEmpty { found = seed }
      } catch StoreError.damaged {
        found = seed
      }
    }
    #expect(found != nil, "imports without syncs of \(target) went unnoticed")
  }

  @Test("tells the place of a damaged block, and can be read up to there", arguments: [UInt8(0), 1])
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
    let snapshot = try await bench.store.snapshot()
    let record = try snapshot.items(byteCountMax: 1)
    #expect(record.next == .record(1))
    let damage = StoreError.damaged(.block(inode: 1, level: level, index: 4))
    #expect(throws: damage) { try snapshot.items(after: record.next, byteCountMax: 1) }
    bench.disk.flip(path, at: 4_096 + 100)
    #expect(try snapshot.items(after: record.next, byteCountMax: 1).items.count == 1)
  }

  @Test("tells the place of a damaged row")
  func damagedRow() async throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/store"
    try SectorStore.create(at: path, Snapshots.configuration())
    var store = try SectorStore.open(at: path)
    var change = Change(term: 1)
    let needle = pattern(0x1122_3344_5566_7788, 64)
    change.records = [.put(StoredRecord(inode: 7, version: 1, bytes: needle))]
    _ = try await store.commit(change)
    try await store.close()
    let index = URL(fileURLWithPath: path + "/index.sqlite")
    var bytes = try Data(contentsOf: index)
    let place = try #require(bytes.firstRange(of: needle))
    bytes[place.lowerBound + 9] ^= 4
    try bytes.write(to: index)
    store = try SectorStore.open(at: path)
    let snapshot = try await store.snapshot()
    #expect(throws: StoreError.damaged(.record(7))) { try snapshot.items(byteCountMax: 1) }
    try await store.close()
  }

  @Test("ends with its store, which can be opened again at once")
  func endsWithTheStore() async throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/store"
    try SectorStore.create(at: path, Snapshots.configuration())
    for isClosed in [true, false] {
      let store = try SectorStore.open(at: path)
      _ = try await store.commit(Bench.put(isClosed ? 1 : 2, 1, [0: 1]))
      let snapshot = try await store.snapshot()
      if isClosed { try await store.close() } else { store.abandon() }
      #expect(throws: StoreError.closed) { try snapshot.items(byteCountMax: 1) }
      await #expect(throws: StoreError.closed) { try await store.snapshot() }
      try await SectorStore.open(at: path).close()
    }
  }

  @Test("costs room while it is held: changes are refused on a full disk, and taken when it has ended")
  func holdsSlots() async throws {
    let bench = try Bench { $0.growthBytes = 256 << 10 }
    let store = bench.store
    defer { store.abandon() }
    var version: UInt64 = 1
    func put() async throws(StoreError) {
      _ = try await store.commit(Bench.put(1, version, Dictionary(uniqueKeysWithValues: (0..<20).map { ($0, 4) })))
      version += 1
    }
    try await put()
    bench.disk.limitCapacity(bench.disk.usedBytes)
    // The same 20 sectors again and again, in 64 slots.
    for _ in 0..<20 { try await put() }
    let first = try await store.snapshot()
    let second = try await store.snapshot()
    first.close()
    var refusal: StoreError?
    for _ in 0..<10 where refusal == nil {
      do throws(StoreError) { try await put() } catch { refusal = error }
    }
    #expect(refusal == .noSpace)
    #expect(try Snapshots.items(second).count == 3)
    second.close()
    for _ in 0..<20 { try await put() }
  }

  @Test("is refused where it is not what a donor gives")
  func faults() async throws {
    let directory = try TemporaryDirectory()
    let session = SessionID(high: 1, low: 2)
    let header = SessionHeader(owner: [1], openedAt: 2, highest: 3, lastUsed: LogIndex(1))
    let record = SnapshotItem.record(StoredRecord(inode: 5, version: 4, bytes: [1]))
    func blocks(_ change: (inout SnapshotBlocks) -> Void = { _ in }) -> SnapshotItem {
      let write = BlockWrite(inode: 5, level: 0, index: 0, bytes: pattern(9, 8_192), blockSize: 4_096)
      var blocks = SnapshotBlocks(
        key: GroupKey(inode: 5, level: 0, group: 0), version: 4, mask: 0b101, skipped: 0,
        checksums: [UInt32](repeating: 0, count: 2), bytes: Array(write.bytes))
      let word = UInt32(truncatingIfNeeded: Checksum.of(pattern(9, 4_096)))
      blocks.checksums = [word, word]
      change(&blocks)
      return .blocks(blocks)
    }
    let half = blocks {
      $0.checksums.removeLast()
      $0.bytes.removeLast(4_096)
    }
    var counts = SnapshotCounts()
    counts.records = 1
    counts.groups = 1
    let cases: [([SnapshotItem], SnapshotFault)] = [
      ([record, record], .orderWrong),
      ([record, .record(StoredRecord(inode: 4, version: 1, bytes: []))], .orderWrong),
      ([.session(session, header), record], .orderWrong),
      ([.end(SnapshotCounts()), record], .orderWrong),
      ([record, blocks(), blocks()], .orderWrong),
      ([.record(StoredRecord(inode: 0, version: 1, bytes: []))], .itemOutOfRange),
      ([.record(StoredRecord(inode: 1, version: 1, bytes: [UInt8](repeating: 1, count: 65_537)))], .itemOutOfRange),
      ([record, blocks { $0.mask = 0b1 }], .itemOutOfRange),
      ([record, blocks { $0.key.group = 1 << 46 }], .itemOutOfRange),
      ([record, blocks { $0.bytes.removeLast(2) }], .blockSizeWrong),
      ([record, blocks { $0.bytes[4_099] ^= 1 }], .blockDamaged),
      ([record, blocks { $0.checksums[0] ^= 1 }], .blockDamaged),
      ([blocks()], .blocksWithoutRecord),
      ([record, blocks { $0.version = 5 }], .blocksWithoutRecord),
      ([record, half, .session(session, header)], .groupIncomplete),
      ([record, half, .end(counts)], .groupIncomplete),
      (
        [
          record, half,
          blocks {
            $0.skipped = 1
            $0.mask = 0b111
          },
        ], .groupIncomplete
      ),
      ([record, blocks { $0.mask = 0b1101 }, .end(counts)], .groupIncomplete),
      ([record, blocks { ($0.mask, $0.skipped) = (0b1101, 1) }], .groupIncomplete),
      ([.result(session, sequence: 1, bytes: [])], .resultWithoutSession),
      ([.session(session, header), .result(session, sequence: 4, bytes: [])], .resultWithoutSession),
      ([record, .end(counts)], .countsDiffer),
      ([record, .session(session, header), .end(counts)], .countsDiffer),
      ([record, blocks()], .endMissing),
    ]
    let configuration = Snapshots.configuration()
    for (number, (items, fault)) in cases.enumerated() {
      let importing = try SnapshotImport.begin(
        at: directory.path + "/\(number)", configuration, index: LogIndex(1), term: 1)
      let error = SnapshotImportError.invalid(fault)
      #expect(throws: error, "\(number)") {
        try importing.add(items)
        try importing.finish()
      }
      // Only the end may still come.
      if fault != .endMissing { #expect(throws: error, "\(number)") { try importing.add([]) } }
      importing.close()
      #expect(throws: SnapshotImportError.store(.closed)) { try importing.finish() }
    }
    // The same without a fault.
    let second = blocks {
      $0.checksums.removeLast()
      $0.bytes.removeLast(4_096)
      $0.skipped = 1
    }
    let importing = try SnapshotImport.begin(
      at: directory.path + "/good", configuration, index: LogIndex(1), term: 1)
    try importing.add([record, half, second, .end(counts)])
    try importing.finish()
    let store = try SectorStore.open(at: directory.path + "/good", configuration)
    let range = try store.readBlocking(inode: 5, level: 0, indexes: 0..<4)
    #expect((0..<4).map { range[$0] != nil } == [true, false, true, false])
    try await store.close()
  }

  @Test("of an index stands still, and has its rows in the order of cursors, in SQLite as in the simulation")
  func indexRows() throws {
    let directory = try TemporaryDirectory()
    let (low, high) = (SessionID(high: 1, low: .max), SessionID(high: .max, low: 0))
    var layer = Layer()
    for inode in [3, 1, UInt64(Int64.max)] {
      layer.put(.put(StoredRecord(inode: inode, version: 1, bytes: [1])), inode: inode)
      for (level, number) in [(UInt8(0), UInt64(1)), (0, 0), (200, 1 << 45)] {
        let group = BlockGroup(version: 1, pointers: [BlockPointer(slot: inode & 0xFF, checksum: 1)])
        layer.put(group, key: GroupKey(inode: inode, level: level, group: number))
      }
    }
    layer.sessions[high] = SessionHeader(owner: [], openedAt: 0, highest: 1 << 63 + 5, lastUsed: LogIndex(1))
    layer.sessions[low] = SessionHeader(owner: [], openedAt: 0, highest: 7, lastUsed: LogIndex(1))
    layer.results[high] = [1 << 63 - 1: [1], 1 << 63: [2], 1 << 63 + 5: [3], 1 << 63 + 6: [4]]
    // The last two of no session, and beyond the highest.
    layer.results[low] = [7: [1], 6: [2], .max: [3]]
    layer.results[SessionID(high: 0, low: 0)] = [1: [1]]
    for byte in [UInt8(0), 255, 9] {
      layer.certificates[try #require(Digest([UInt8](repeating: byte, count: 32)))] = [byte]
    }
    layer.facts = ["": [1], "b": [2], "a": [], "ab": [4], "\u{FF}": [5]]
    layer.lastIndex = LogIndex(4)
    let sqlite = try SQLiteIndex(path: directory.path + "/index.sqlite")
    let simulated = SimulatedIndex(disk: SimulatedDisk(seed: 1))
    var descriptions: [[String]] = []
    for index in [sqlite, simulated] as [any StoreIndex] {
      try index.write(layer)
      let snapshot = try index.snapshot()
      var change = Layer()
      change.put(.removed, inode: 3)
      change.facts = ["b": [9], "c": []]
      change.evicted = [low]
      (change.lastIndex, change.lastTerm) = (LogIndex(5), 1)
      try index.write(change)
      #expect(try snapshot.applied().index == LogIndex(4))
      var rows: [String] = ["\(try snapshot.counts())"]
      var cursors: [SnapshotCursor?] = [nil]
      var rest: [Int] = []
      try snapshot.forEachRow(after: nil) { row throws(StoreError) in
        rows.append("\(row)")
        switch row {
        case .record(let record): cursors.append(.record(record.inode))
        case .group(let key, _): cursors.append(.blocks(key, covered: 1))
        case .session(let session, _): cursors.append(.session(session))
        case .result(let session, let sequence, _): cursors.append(.result(session, sequence: sequence))
        case .certificate(let digest, _): cursors.append(.certificate(digest))
        case .fact(let key, _): cursors.append(.fact(key))
        }
        return true
      }
      #expect(cursors.count == 1 + 3 + 9 + 2 + 5 + 3 + 5)
      for (left, right) in zip(cursors.dropFirst(), cursors.dropFirst(2)) {
        if let left, let right { #expect(left < right) }
      }
      // From each place on, the rest.
      for cursor in cursors {
        var count = 0
        try snapshot.forEachRow(after: cursor) { _ throws(StoreError) in
          count += 1
          return true
        }
        rest.append(count)
      }
      let expected = cursors.indices.map { number in
        if case .blocks = cursors[number] { return cursors.count - number }
        return cursors.count - 1 - number
      }
      #expect(rest == expected)
      descriptions.append(rows)
      snapshot.close()
      #expect(throws: StoreError.closed) { try snapshot.forEachRow(after: nil) { _ throws(StoreError) in true } }
      index.close()
    }
    #expect(descriptions[0] == descriptions[1])
  }

  @Test("has items that are not decoded where any bit has changed, or bytes are missing or too many")
  func encoding() throws {
    let digest = try #require(Digest([UInt8](0..<32)))
    let session = SessionID(high: .max, low: 2)
    let header = SessionHeader(owner: [1, 2], openedAt: -2, highest: .max, lastUsed: LogIndex(9))
    var counts = SnapshotCounts()
    counts.facts = .max
    let blocks = SnapshotBlocks(
      key: GroupKey(inode: 5, level: 255, group: 7), version: 4, mask: .max, skipped: 62, checksums: [1, 2],
      bytes: [3, 4, 5, 6])
    let items: [SnapshotItem] = [
      .record(StoredRecord(inode: 5, version: 4, bytes: [1, 2], parents: [3, 4], flags: .pending)),
      .blocks(blocks), .session(session, header), .result(session, sequence: 1 << 63, bytes: [1]),
      .result(session, sequence: 1, bytes: []), .certificate(digest, bytes: [7]), .fact(key: "ä\0", value: [8]),
      .end(counts),
    ]
    var last: SnapshotCursor?
    for item in items {
      let encoded = item.encoded()
      #expect(SnapshotItem(encoded: encoded) == item)
      #expect(SnapshotCursor(encoded: item.cursor.encoded()) == item.cursor)
      if let last { #expect(last < item.cursor) }
      last = item.cursor
      var fieldsCount = encoded.count
      if case .blocks = item { fieldsCount -= blocks.bytes.count }
      for bit in 0..<fieldsCount * 8 {
        var changed = encoded
        changed[bit / 8] ^= 1 << UInt8(bit % 8)
        #expect(SnapshotItem(encoded: changed) == nil)
      }
      for count in 0..<fieldsCount { #expect(SnapshotItem(encoded: Array(encoded.prefix(count))) == nil) }
      #expect(SnapshotItem(encoded: encoded + [0]) == nil)
      if case .fact = item { continue }
      for count in 0..<item.cursor.encoded().count {
        #expect(SnapshotCursor(encoded: Array(item.cursor.encoded().prefix(count))) == nil)
      }
      #expect(SnapshotCursor(encoded: item.cursor.encoded() + [0]) == nil)
    }
    #expect(SnapshotItem(encoded: [UInt8](repeating: 1, count: SnapshotItem.encodedBytesMax + 1)) == nil)
  }
}

/// An import on a disk that loses power at random points, over and over.
private enum SnapshotPowerLoss {
  /// Returns what was wrong in the end, in words.
  static func violations(seed: UInt64, ignoring target: SimulatedDisk.Target? = nil) async throws -> [String] {
    var configuration = Snapshots.configuration()
    configuration.batchBytes = 100 << 10
    let bench = try Bench()
    defer { bench.store.abandon() }
    var maker = ChangeMaker(seed: seed)
    for _ in 0..<25 { _ = try await bench.store.commit(maker.next()) }
    let snapshot = try await bench.store.snapshot()
    let items = try Snapshots.items(snapshot)
    snapshot.close()

    let disk = SimulatedDisk(seed: seed)
    let index = SimulatedIndex(disk: disk)
    var generator = SeededGenerator(seed: seed &+ 1)
    disk.writeShort(generator.bool())
    disk.ignoreSyncs(target)
    var isFinished = false
    // An import takes some 100 operations.
    for _ in 0..<60 {
      let found: Result<SectorStore, StoreError> = Result { () throws(StoreError) in
        try SectorStore.open(at: "/copy", configuration, files: disk, index: index)
      }
      switch found {
      case .success(let store):
        defer { store.abandon() }
        return try await Snapshots.differences(
          store, items, maker.model, index: snapshot.index, term: snapshot.term)
      case .failure(.notAStore) where !isFinished: break
      case .failure(let error): return ["open: \(error)"]
      }
      // Longer and longer, so that it comes to an end.
      disk.losePower(afterOperations: generator.number(1...60) + disk.operationCount / 8)
      do throws(SnapshotImportError) {
        let importing = try SnapshotImport.begin(
          at: "/copy", configuration, index: snapshot.index, term: snapshot.term, files: disk, storeIndex: index)
        let start = importing.cursor
        var rest = items.drop { item in start.map { item.cursor <= $0 } ?? false }
        while !rest.isEmpty {
          let count = generator.number(1...10)
          try importing.add(Array(rest.prefix(count)))
          rest = rest.dropFirst(count)
        }
        try importing.finish()
        isFinished = true
        disk.losePowerNow()
      } catch {
        guard disk.isOff else { return ["\(error)"] }
      }
      disk.restart()
    }
    return ["no end"]
  }
}
