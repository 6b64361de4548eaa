// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Testing

@Suite("The log")
struct SegmentedLogTests {
  static let directory = "/log"
  let disk = SimulatedDisk(seed: 1)

  private func create(segmentBytes: Int = 16 << 10) throws -> SegmentedLog {
    try SegmentedLog.create(
      at: Self.directory, generation: 3, segmentBytes: segmentBytes, firstIndex: LogIndex(1), files: self.disk)
  }

  private func open(segmentBytes: Int = 16 << 10) throws(StoreError) -> SegmentedLog {
    try SegmentedLog.open(at: Self.directory, generation: 3, segmentBytes: segmentBytes, files: self.disk)
  }

  private func entry(_ index: UInt64, term: UInt64 = 1, count: Int = 300) -> LogEntry {
    LogEntry(index: LogIndex(index), term: term, payload: pattern(index &* 77 &+ term, count))
  }

  private func append(_ log: inout SegmentedLog, _ entries: [LogEntry]) throws {
    try log.prepare(byteCount: entries.reduce(0) { $0 + 64 + $1.payload.count })
    for entry in entries { log.append(entry) }
    try log.sync()
  }

  /// Segment files, oldest first.
  private var segments: [String] {
    self.disk.names(Self.directory).filter { $0.hasSuffix(".log") }.map { Self.directory + "/" + $0 }
  }

  @Test("returns what was appended, after a reopening too")
  func keepsEntries() throws {
    var log = try self.create()
    let entries = (1...200).map { self.entry($0, term: $0 / 50, count: Int($0) * 3) }
    for start in stride(from: 0, to: 200, by: 5) { try self.append(&log, Array(entries[start..<start + 5])) }
    #expect(try log.entries(1..<201) == entries)
    #expect(self.segments.count > 2)
    let reopened = try self.open()
    #expect(reopened.firstIndex == LogIndex(1))
    #expect(reopened.lastIndex == LogIndex(200))
    #expect(reopened.lastTerm == 4)
    #expect(try reopened.entries(1..<201) == entries)
    #expect(try reopened.entries(37..<41) == Array(entries[36..<40]))
  }

  @Test(
    "forgets what was truncated, and what is appended then takes its place", arguments: [2, 60, 99, 100] as [UInt64])
  func truncates(_ from: UInt64) throws {
    var log = try self.create()
    for index in UInt64(1)...100 { try self.append(&log, [self.entry(index)]) }
    try log.truncate(from: LogIndex(from))
    #expect(log.lastIndex == LogIndex(from - 1))
    #expect(try self.open().lastIndex == LogIndex(from - 1))
    for index in from...from + 70 { try self.append(&log, [self.entry(index, term: 2)]) }
    let expected = (1..<from).map { self.entry($0) } + (from...from + 70).map { self.entry($0, term: 2) }
    #expect(try log.entries(1..<from + 71) == expected)
    let reopened = try self.open()
    #expect(reopened.lastIndex == LogIndex(from + 70))
    #expect(reopened.lastTerm == 2)
    #expect(try reopened.entries(1..<from + 71) == expected)
  }

  @Test("never replays what a recycled segment held before")
  func recycledSegmentsAreEmpty() throws {
    var log = try self.create()
    for round in UInt64(0)..<40 {
      for index in round * 10 + 1...round * 10 + 10 { try self.append(&log, [self.entry(index)]) }
      try log.recycle(through: LogIndex(round * 10 + 5))
      let reopened = try self.open()
      #expect(reopened.lastIndex == LogIndex(round * 10 + 10))
      #expect(reopened.firstIndex > LogIndex(max(round * 10, 50) - 50))
    }
    // Files were used again, not added.
    #expect(self.disk.names(Self.directory).count <= 6)
  }

  @Test("cuts a torn end, wherever it was torn")
  func cutsTornEnd() throws {
    for kept in stride(from: 0, to: 1_000, by: 61) {
      let disk = SimulatedDisk(seed: 2)
      var log = try SegmentedLog.create(
        at: Self.directory, generation: 3, segmentBytes: 16 << 10, firstIndex: LogIndex(1), files: disk)
      try self.append(&log, [self.entry(1), self.entry(2)])
      let path = Self.directory + "/" + disk.names(Self.directory)[0]
      let before = disk.bytes(path)
      try self.append(&log, [self.entry(3), self.entry(4), self.entry(5)])
      let end = 4_096 + 2 * 360
      // The last write came to the disk in part.
      disk.overwrite(path, at: end + kept, with: Array(before[(end + kept)..<(end + 1_200)]))
      var reopened = try SegmentedLog.open(at: Self.directory, generation: 3, segmentBytes: 16 << 10, files: disk)
      #expect(reopened.lastIndex == LogIndex(UInt64(2 + kept / 360)))
      // And goes on behind it.
      let next = reopened.nextIndex.rawValue
      try self.append(&reopened, [self.entry(next, term: 9)])
      let again = try SegmentedLog.open(at: Self.directory, generation: 3, segmentBytes: 16 << 10, files: disk)
      #expect(try again.entry(LogIndex(next)) == self.entry(next, term: 9))
      #expect(again.lastIndex == LogIndex(next))
    }
  }

  @Test("is cut, not called damaged, when a later frame of the last write is whole")
  func lastWriteMayHaveHoles() throws {
    var log = try self.create()
    try self.append(&log, [self.entry(1)])
    try self.append(&log, [self.entry(2), self.entry(3), self.entry(4)])
    self.disk.overwrite(self.segments[0], at: 4_096 + 360 + 100, with: [UInt8](repeating: 0, count: 20))
    #expect(try self.open().lastIndex == LogIndex(1))
  }

  @Test("goes on after any loss of power while a segment takes the name of a file that had not got its size")
  func halfMadeSpare() throws {
    for seed in UInt64(1)...40 {
      for operations in 1...14 {
        let disk = SimulatedDisk(seed: seed)
        var log = try SegmentedLog.create(
          at: Self.directory, generation: 3, segmentBytes: 16 << 10, firstIndex: LogIndex(1), files: disk)
        for index in UInt64(1)...20 { try self.append(&log, [self.entry(index)]) }
        // What a loss of power in the middle of making a spare may leave.
        let half = try disk.open(Self.directory + "/spare-00000000000000000002", create: true)
        _ = try [UInt8](repeating: 0, count: 512).withUnsafeBytes { try half.write($0, at: 0) }
        try half.sync()
        try disk.syncDirectory(Self.directory)

        log = try SegmentedLog.open(at: Self.directory, generation: 3, segmentBytes: 16 << 10, files: disk)
        disk.losePower(afterOperations: operations)
        #expect(throws: (any Error).self) {
          for index in UInt64(21)...400 { try self.append(&log, [self.entry(index)]) }
        }
        disk.restart()
        let reopened = try SegmentedLog.open(
          at: Self.directory, generation: 3, segmentBytes: 16 << 10, files: disk)
        #expect(reopened.lastIndex >= LogIndex(20), "seed \(seed), after \(operations) operations")
      }
    }
  }

  @Test("reports a wrong byte in a frame that was durable, with its place")
  func findsDamage() throws {
    var log = try self.create()
    for index in UInt64(1)...100 { try self.append(&log, [self.entry(index)]) }
    #expect(self.segments.count == 3)
    for (number, path) in self.segments.enumerated() {
      // Somewhere in each third frame, but not in the very last batch.
      for frame in stride(from: 0, to: number == 2 ? 31 : 34, by: 3) {
        let start = 4_096 + frame * 360
        for offset in [0, 5, 9, 40, 50, 60, 355] where start + offset < 16 << 10 {
          self.disk.flip(path, at: start + offset)
          let expected = StoreError.damaged(.log(segment: UInt64(number + 1), offset: UInt64(start)))
          #expect(throws: expected) { try self.open() }
          self.disk.flip(path, at: start + offset)
        }
      }
    }
    #expect(try self.open().lastIndex == LogIndex(100))
  }

  @Test("reports a missing segment, a damaged header, a foreign one and a newer one")
  func checksSegments() throws {
    var log = try self.create()
    for index in UInt64(1)...100 { try self.append(&log, [self.entry(index)]) }
    let path = self.segments[1]
    self.disk.flip(path, at: 33)
    #expect(throws: StoreError.damaged(.log(segment: 2, offset: 0))) { try self.open() }
    self.disk.flip(path, at: 33)
    #expect(throws: StoreError.damaged(.log(segment: 1, offset: 0))) {
      try SegmentedLog.open(at: Self.directory, generation: 4, segmentBytes: 16 << 10, files: self.disk)
    }
    let header = Array(self.disk.bytes(path)[..<48])
    let newer = Array(header[..<8]) + [9, 0, 0, 0] + Array(header[12...])
    let checksum = withUnsafeBytes(of: Checksum.of(newer).littleEndian, Array.init)
    let original = Array(self.disk.bytes(path)[..<56])
    self.disk.overwrite(path, at: 0, with: newer + checksum)
    #expect(throws: StoreError.newerFormat(found: 9, supported: 1)) { try self.open() }
    self.disk.overwrite(path, at: 0, with: original)
    #expect(try self.open().lastIndex == LogIndex(100))
    try self.disk.remove(path)
    #expect(throws: StoreError.damaged(.log(segment: 2, offset: 0))) { try self.open() }
  }
}

@Suite("The slot pool")
struct SlotPoolTests {
  @Test("hands out each slot once, in one run while it can", arguments: Seeds.take(20))
  func matchesASet(_ seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var pool = SlotPool()
    var used: Set<UInt64> = []
    for _ in 0..<400 {
      if generator.chance(5) { pool.grow(to: pool.capacity + generator.number(1...200)) }
      var runs: [SlotRun] = []
      let count = generator.number(1...90)
      let isTaken = pool.allocate(count, into: &runs)
      #expect(isTaken == (count <= pool.capacity - used.count))
      let slots = runs.flatMap { $0.first..<$0.first + UInt64($0.count) }
      #expect(slots.count == (isTaken ? count : 0))
      for slot in slots {
        #expect(slot < UInt64(pool.capacity))
        #expect(used.insert(slot).inserted, "STORE_SEED=\(seed)")
      }
      for slot in used.sorted() where generator.chance(12) {
        pool.release(slot)
        used.remove(slot)
      }
      #expect(pool.usedCount == used.count)
    }
    var whole = SlotPool()
    whole.grow(to: 1_000)
    var runs: [SlotRun] = []
    #expect(whole.allocate(1_000, into: &runs))
    #expect(runs == [SlotRun(first: 0, count: 1_000)])
    let isTakenTwice = whole.take(3) || whole.take(1_000)
    #expect(!isTakenTwice)
  }
}
