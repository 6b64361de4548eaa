// SPDX-License-Identifier: Apache-2.0

import Foundation
import SectorStore
import Testing

@Suite("A log that was damaged while nobody had it open")
struct DamagedLogTests {
  @Test("is let go of where the index has it, and nothing is lost", arguments: Seeds.take(12))
  func covered(_ seed: UInt64) async throws {
    var generator = SeededGenerator(seed: seed &+ 3)
    var patient = try Patient(seed: seed) {
      $0.checkpointBytes = 64 << 20
      $0.checkpointDeadBytes = 1 << 30
    }
    // No segment is given back meanwhile, whatever checkpoints there are.
    let snapshot = try await patient.store.snapshot()
    try await patient.change(generator.number(60...120))
    try await patient.store.checkpoint()
    let applied = patient.store.status().checkpointIndex
    // Nothing here asks for a checkpoint.
    let lateCount = UInt64(generator.number(0...30))
    for late in 0..<lateCount {
      _ = try await patient.store.commit(Bench.put(100 + late, 1, [0: 1, 1: 2, 2: 3, 9: 4]))
    }
    patient.store.abandon()
    snapshot.close()
    let segments = try patient.segments
    // Often among those that the index has not taken over.
    let number = generator.number((generator.bool() ? 0 : max(0, segments.count - 4))...segments.count - 1)
    let offset = generator.chance(20) ? generator.number(0...55) : generator.number(4_096...(100 << 10))
    try Rot.flip(segments[number], at: offset)
    let following = number == segments.count - 1 ? UInt64.max : try Self.firstIndex(of: segments[number + 1])
    func isNeeded(_ applied: LogIndex) -> Bool { following > applied.rawValue + 1 }
    do throws(StoreError) {
      patient.store = try SectorStore.open(at: patient.path, patient.configuration)
    } catch {
      guard case .damaged(.log) = error else {
        Issue.record("\(error). STORE_SEED=\(seed)")
        return
      }
      #expect(isNeeded(applied), "STORE_SEED=\(seed)")
      return
    }
    // The end of the last segment may be taken for a write that was torn.
    if number < segments.count - 1 {
      #expect(patient.differences == [], "STORE_SEED=\(seed)")
      for late in 0..<lateCount { #expect(try patient.store.record(100 + late)?.version == 1, "STORE_SEED=\(seed)") }
    }
    // The index may have taken over more than it was asked to.
    let covered = patient.store.status().checkpointIndex
    #expect(patient.store.damageLetGo == nil || !isNeeded(covered), "STORE_SEED=\(seed)")
    guard patient.store.damageLetGo != nil else {
      patient.store.abandon()
      return
    }
    #expect(!(try patient.segments.contains(segments[number])))
    try await patient.change(20)
    try await patient.reopen(whole: generator.bool())
    #expect(patient.store.damageLetGo == nil)
    #expect(patient.differences == [], "STORE_SEED=\(seed)")
    patient.store.abandon()
  }

  private static func firstIndex(of segment: String) throws -> UInt64 {
    let header = [UInt8](try Data(contentsOf: URL(fileURLWithPath: segment)).prefix(48))
    return header[40..<48].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  @Test("keeps term and vote when it is let go of, and is not let go of without them")
  func hardState() async throws {
    for hasFrame in [true, false] {
      let directory = try TemporaryDirectory()
      let promise = LogHardState(term: 9, vote: 4)
      func open() throws(StoreError) -> SegmentedLog {
        try SegmentedLog.open(
          at: directory.path, generation: 7, segmentBytes: 64 << 10, covered: LogIndex(100), files: HostFiles())
      }
      var log = try SegmentedLog.create(
        at: directory.path, generation: 7, segmentBytes: 64 << 10, firstIndex: LogIndex(1), files: HostFiles())
      try log.prepare(byteCount: 100)
      log.setHardState(promise)
      try log.sync()
      for index in UInt64(1)...5 {
        let entry = LogEntry(index: LogIndex(index), term: 9, payload: [UInt8](repeating: 1, count: 14 << 10))
        try log.prepare(byteCount: 15 << 10)
        log.append(entry)
        // The last one opens the second segment, and may not have got there.
        if index < 5 || hasFrame { try log.sync() }
      }
      try Rot.flip(directory.path + "/00000000000000000001.log", at: 4_100 + (20 << 10))
      if hasFrame {
        let opened = try open()
        #expect(opened.hardState == promise)
        #expect(opened.firstIndex == LogIndex(5) && opened.lastIndex == LogIndex(5))
        #expect(try open().hardState == promise)
      } else {
        #expect(throws: StoreError.self) { try open() }
      }
    }
  }
}

@Suite("A scrub of the log")
struct LogScrubTests {
  /// Only the log, and not from the start of a pass: the checkpoint there would let go of most of it.
  private func scrubLog(_ store: SectorStore) async throws -> [DamagePlace] {
    var (found, cursor) = ([DamagePlace](), ScrubCursor(encoded: [1, 1] + [UInt8](repeating: 0, count: 17)))
    #expect(cursor != nil)
    while let bytes = cursor?.encoded(), bytes[1] == 1 {
      let step = try await store.scrubStep(after: cursor, byteCountMax: 1)
      found += step.damaged
      cursor = step.next
    }
    return found
  }

  /// What opening a copy of the log finds in it.
  private func contents(_ patient: Patient) throws -> [String] {
    let copy = patient.directory.path + "/" + UUID().uuidString
    try FileManager.default.copyItem(atPath: patient.path + "/log", toPath: copy)
    defer { try? FileManager.default.removeItem(atPath: copy) }
    do throws(StoreError) {
      let log = try SegmentedLog.open(
        at: copy, generation: patient.configuration.generation, segmentBytes: patient.configuration.segmentBytes,
        files: HostFiles())
      return ["\(log.hardState) \(log.lastTerm)"]
        + (try log.entries(log.firstIndex.rawValue..<log.nextIndex.rawValue)).map { "\($0)" }
    } catch {
      return ["\(error)"]
    }
  }

  @Test(
    "finds just the frames that are not what was written, and the log goes on without them", arguments: Seeds.take(12))
  func frames(_ seed: UInt64) async throws {
    var generator = SeededGenerator(seed: seed &+ 2)
    var patient = try Patient(seed: seed) {
      $0.segmentBytes = 128 << 10
      // Several segments are alive.
      $0.checkpointBytes = 64 << 20
      $0.checkpointDeadBytes = 1 << 30
    }
    defer { patient.store.abandon() }
    // No segment is given back meanwhile, whatever checkpoints there are.
    let snapshot = try await patient.store.snapshot()
    try await patient.change(generator.number(20...200))
    let before = try self.contents(patient)
    let segment = try #require(try patient.segments.randomElement(using: &generator))
    // In the middle of what is there: in the newest segment most is not.
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: segment)))
    let end = (bytes.lastIndex { $0 != 0 } ?? 0) + 1
    let offset = generator.chance(20) ? generator.number(0...5_000) : generator.number(4_096...end)
    try Rot.flip(segment, at: offset, mask: UInt8(generator.number(1...255)))
    let isDamaged = try self.contents(patient) != before
    let found = try await self.scrubLog(patient.store)
    #expect(found.isEmpty == !isDamaged, "STORE_SEED=\(seed) \(segment) at \(offset)")
    snapshot.close()
    for place in found {
      guard case .log(let number, let start) = place else {
        Issue.record("\(place)")
        continue
      }
      #expect(segment.hasSuffix("\(number).log") && start <= UInt64(offset), "STORE_SEED=\(seed)")
      #expect(try await patient.store.repair(place) == .repaired, "STORE_SEED=\(seed)")
      #expect(try await patient.store.repair(place) == .unneeded)
    }
    #expect(try await ScrubPass(patient.store).damaged == [], "STORE_SEED=\(seed)")
    #expect(patient.store.damageReport.isEmpty)
    try await patient.change(10)
    try await patient.reopen(whole: false)
    #expect(patient.differences == [], "STORE_SEED=\(seed)")
    try await patient.change(30)
    try await patient.reopen(whole: false)
    #expect(patient.differences == [], "STORE_SEED=\(seed)")
  }
}

extension LogScrubTests {
  private func put(_ inode: UInt64, _ version: UInt64) -> LogPayload {
    .change(Bench.put(inode, version, [version: 1]))
  }

  @Test("waits with a damaged entry until it is applied; term and vote stay")
  func unapplied() async throws {
    var member = try Member()
    defer { member.store.abandon() }
    try await member.write(
      1, hardState: LogHardState(term: 3, vote: 8), first: 1, (1...5).map { (3, self.put(1, $0)) })
    try await member.apply(3)
    let path = "/store/log/00000000000000000001.log"
    let end = try #require(member.disk.bytes(path).lastIndex { $0 != 0 })
    #expect(try await self.scrubLog(member.store) == [])
    member.disk.flip(path, at: end)
    let found = try await self.scrubLog(member.store)
    #expect(found.count == 1)
    let place = try #require(found.first)
    #expect(try await member.store.repair(place) == .waits)
    #expect(member.store.damageReport.places == [place])
    // Whoever reads it for others meets it, too.
    await #expect(throws: StoreError.damaged(place)) {
      try await member.store.entries(LogIndex(5)...LogIndex(5), byteCountMax: 1 << 20)
    }
    #expect(member.store.damageReport.places == [place])
    // The log goes on all the same.
    try await member.write(2, first: 6, [(4, self.put(2, 1))])
    try await member.apply(5)
    // A snapshot holds what comes after it.
    let snapshot = try await member.store.snapshot()
    #expect(try await member.store.repair(place) == .waits)
    snapshot.close()
    #expect(try await member.store.repair(place) == .repaired)
    #expect(try await member.store.repair(place) == .unneeded)
    #expect(member.store.damageReport.isEmpty)
    try await member.owner.wait { $0.compacted == LogIndex(5) }
    await #expect(throws: StoreError.entriesGone) {
      try await member.store.entries(LogIndex(4)...LogIndex(6), byteCountMax: 1 << 20)
    }
    #expect(try await member.store.entries(LogIndex(6)...LogIndex(6), byteCountMax: 1 << 20).count == 1)
    try member.restart()
    #expect(member.store.recoveredLog.hardState == LogHardState(term: 3, vote: 8))
    #expect(member.store.recoveredLog.applied == LogIndex(5))
    #expect(member.store.recoveredLog.entries.map(\.term) == [4])
    try await member.apply(6)
    #expect(try member.store.record(2)?.version == 1)

    // The new segment has term and vote before the old one goes.
    member.disk.flip("/store/log/00000000000000000002.log", at: 4_100)
    let again = try #require(try await self.scrubLog(member.store).first)
    #expect(again == .log(segment: 2, offset: 4_096))
    #expect(try await member.store.repair(again) == .repaired)
    try member.restart()
    #expect(member.store.recoveredLog.hardState == LogHardState(term: 3, vote: 8))
    #expect(member.store.recoveredLog.applied == LogIndex(6))
    try await member.write(3, first: 7, [(4, self.put(3, 1))])
    try await member.apply(7)
    #expect(try member.store.record(3)?.version == 1)
  }

  @Test("takes nothing that another leader's entries took the place of for damage", arguments: Seeds.take(6))
  func truncations(_ seed: UInt64) async throws {
    var generator = SeededGenerator(seed: seed)
    var member = try Member { $0.segmentBytes = 32 << 10 }
    defer { member.store.abandon() }
    var (next, applied, versions) = (UInt64(1), UInt64(0), UInt64(0))
    for round in UInt64(1)...80 {
      let truncation =
        next > applied + 1 && generator.chance(30) ? UInt64.random(in: applied + 1..<next, using: &generator) : nil
      next = truncation ?? next
      var entries: [(term: UInt64, payload: LogPayload)] = []
      for _ in 0..<generator.number(0...4) {
        versions += 1
        entries.append((round, self.put(1, versions)))
      }
      try await member.write(
        round, hardState: LogHardState(term: round, vote: generator.next()), truncation: truncation, first: next,
        entries)
      next += UInt64(entries.count)
      if generator.chance(60), next - 1 > applied {
        applied = UInt64.random(in: applied + 1...next - 1, using: &generator)
        try await member.apply(applied)
      }
      if generator.chance(10) { try await member.store.checkpoint() }
      #expect(try await self.scrubLog(member.store) == [], "STORE_SEED=\(seed)")
      if generator.chance(5) {
        try member.restart()
        #expect(try await self.scrubLog(member.store) == [], "STORE_SEED=\(seed)")
        applied = member.store.appliedIndex.rawValue
      }
    }
    #expect(try await ScrubPass(member.store).damaged == [], "STORE_SEED=\(seed)")
  }
}
