// SPDX-License-Identifier: Apache-2.0

import Foundation
import SectorStore
import Testing

@Suite("A scrub of the index")
struct IndexScrubTests {
  private static let marker = Array("recognizable contents".utf8)
  private static let inode: UInt64 = 0x0122_3344_5566_7788
  private static let parent: UInt64 = 0x0A0B_0C0D_0E0F_1011

  /// A store at rest whose index holds one of each kind of row.
  private func patient() async throws -> Patient {
    let patient = try Patient(seed: 1)
    var change = Bench.put(1, 1, [0: 1, 5: 2])
    change.records = [
      .put(.init(inode: 1, version: 1, bytes: Self.marker + [1], parents: [Self.parent])),
      .put(.init(inode: Self.inode, version: 1, bytes: [], flags: .pending)),
    ]
    change.facts = [.init(key: "fact", value: Self.marker + [2]), .init(key: "other", value: [9])]
    let session = SessionID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718)
    change.sessionsOpened = [.init(session: session, owner: Self.marker + [3], openedAt: 4)]
    change.operations = [.init(session: session, sequence: 1, result: Self.marker + [4])]
    if let digest = Digest([UInt8](repeating: 4, count: 32)) {
      change.certificates = [.init(digest: digest, bytes: Self.marker + [5])]
    }
    _ = try await patient.store.commit(change)
    // Into the main file.
    try await patient.store.close()
    return patient
  }

  private func check(_ patient: Patient) throws -> [Bool] {
    let store = patient.store
    let session = SessionID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718)
    return [
      try store.record(1)?.bytes == Self.marker + [1], try store.inodes(parent: Self.parent) == [1],
      try store.inodes(flag: .pending) == [Self.inode], try store.fact("fact") == Self.marker + [2],
      try store.session(session)?.owner == Self.marker + [3],
      try store.operationStatus(session, sequence: 1) == .applied(result: Self.marker + [4]),
    ]
  }

  /// Damages the only place with these bytes, after the store was opened.
  private func damage(_ patient: inout Patient, _ bytes: [UInt8], byte: Int = 3) async throws {
    let path = patient.path + "/index.sqlite"
    let found = try Rot.find(bytes, in: path)
    #expect(found.count == 1)
    patient.store = try SectorStore.open(at: patient.path, patient.configuration)
    try Rot.flip(path, at: found[0] + byte, mask: 1)
  }

  @Test("makes facts and sessions whole from memory", arguments: [UInt8(2), 3])
  func small(_ kind: UInt8) async throws {
    var patient = try await self.patient()
    try await self.damage(&patient, Self.marker + [kind])
    let place: DamagePlace =
      kind == 2 ? .fact("fact") : .session(SessionID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718))
    #expect(try await ScrubPass(patient.store).damaged == [place])
    #expect(try await patient.store.repair(place) == .repaired)
    #expect(try await patient.store.repair(place) == .unneeded)
    #expect(try await ScrubPass(patient.store).damaged == [])
    try await patient.reopen()
    #expect(try self.check(patient).allSatisfy { $0 })
    patient.store.abandon()
  }

  @Test("finds what is in SQLite's own log only, and what is not there at all any more")
  func files() async throws {
    let patient = try Patient(seed: 1)
    defer { patient.store.abandon() }
    var change = Change(term: 1)
    change.facts = [.init(key: "fact", value: Self.marker)]
    _ = try await patient.store.commit(change)
    try await patient.store.checkpoint()
    let wal = patient.path + "/index.sqlite-wal"
    let found = try Rot.find(Self.marker, in: wal)
    #expect(found.count == 1)
    for offset in found { try Rot.flip(wal, at: offset) }
    #expect(try await ScrubPass(patient.store).damaged == [.fact("fact")])
    #expect(try await patient.store.repair(.fact("fact")) == .repaired)
    #expect(try await ScrubPass(patient.store).damaged == [])

    for number in UInt64(1)...300 {
      change.facts = [.init(key: "fact\(number)", value: [UInt8](repeating: 1, count: 500))]
      _ = try await patient.store.commit(change)
    }
    try await patient.store.close()
    let again = try SectorStore.open(at: patient.path, patient.configuration)
    defer { again.abandon() }
    let path = patient.path + "/index.sqlite"
    let handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
    try handle.truncate(atOffset: UInt64(try Rot.size(path) / 2))
    try handle.close()
    var damaged: [DamagePlace] = []
    do {
      damaged = try await ScrubPass(again).damaged
    } catch {
      // The checkpoint that a pass begins with may meet it first.
      #expect(again.status().failure != nil)
      return
    }
    #expect(damaged.contains { if case .index = $0 { true } else { false } })
  }

  @Test("tells on opening of a session that nobody knows any more")
  func lostSession() async throws {
    var patient = try await self.patient()
    try await self.damage(&patient, Self.marker + [3])
    patient.store.abandon()
    patient.store = try SectorStore.open(at: patient.path, patient.configuration)
    let session = SessionID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718)
    #expect(try patient.store.session(session) == nil)
    #expect(patient.store.damageReport.places == [.session(session)])
    #expect(try await patient.store.repair(.session(session)) == .needsNewStore)
    #expect(try await ScrubPass(patient.store).damaged == [.session(session)])
    patient.store.abandon()
  }

  @Test("makes what is made from records anew")
  func derived() async throws {
    for (value, part) in [(Self.parent, DerivedPart.parents), (Self.inode, .flags)] {
      var patient = try await self.patient()
      try await self.damage(&patient, withUnsafeBytes(of: value.bigEndian, Array.init), byte: 7)
      #expect(try !self.check(patient).allSatisfy { $0 })
      #expect(try await ScrubPass(patient.store).damaged == [part.place])
      #expect(try await patient.store.repair(part.place) == .repaired)
      #expect(try await ScrubPass(patient.store).damaged == [])
      try await patient.reopen()
      #expect(try self.check(patient).allSatisfy { $0 })
      patient.store.abandon()
    }
  }

  @Test("tells rows that only a new store brings back")
  func rows() async throws {
    let digest = try #require(Digest([UInt8](repeating: 4, count: 32)))
    let session = SessionID(high: 0x0102_0304_0506_0708, low: 0x1112_1314_1516_1718)
    let rows: [(bytes: [UInt8], place: DamagePlace)] = [
      (Self.marker + [1], .record(1)), (Self.marker + [4], .session(session)),
      (Self.marker + [5], .certificate(digest)),
      // The mask: the first and the sixth block.
      ([33, 0, 0, 0, 0, 0, 0, 0], .blockMap(inode: 1, level: 0, group: 0)),
    ]
    for (bytes, place) in rows {
      var patient = try await self.patient()
      try await self.damage(&patient, bytes)
      #expect(try await ScrubPass(patient.store).damaged == [place])
      #expect(patient.store.damageReport.places == [place])
      #expect(try await patient.store.repair(place) == .needsNewStore)
      // Everything else is verified all the same, and can be read.
      #expect(try patient.store.fact("other") == [9])
      patient.store.abandon()
    }
  }

  @Test("has the header written once more")
  func header() async throws {
    var patient = try await self.patient()
    patient.store = try SectorStore.open(at: patient.path, patient.configuration)
    try Rot.flip(patient.path + "/store", at: 30)
    #expect(try await ScrubPass(patient.store).damaged == [.header])
    #expect(try await patient.store.repair(.header) == .repaired)
    #expect(try await patient.store.repair(.header) == .unneeded)
    let (created, configuration) = (patient.store.created, patient.store.configuration)
    try await patient.reopen()
    #expect(patient.store.created == created && patient.store.configuration == configuration)
    patient.store.abandon()
  }

  @Test("leaves no byte of SQLite's file that changes an answer unnoticed", arguments: Seeds.take(3))
  func noSilentDamage(_ seed: UInt64) async throws {
    var generator = SeededGenerator(seed: seed)
    var patient = try Patient(seed: seed)
    try await patient.change(80)
    try await patient.store.close()
    let path = patient.path + "/index.sqlite"
    let original = try Data(contentsOf: URL(fileURLWithPath: path))
    var (noticed, harmless) = (0, 0)
    for _ in 0..<40 {
      let offset = generator.number(0...original.count - 1)
      try original.write(to: URL(fileURLWithPath: path))
      try Rot.flip(path, at: offset, mask: UInt8(1 << generator.number(0...7)))
      do throws(StoreError) {
        patient.store = try SectorStore.open(at: patient.path, patient.configuration)
      } catch {
        // Noticed on opening.
        noticed += 1
        continue
      }
      do {
        let found = try await ScrubPass(patient.store).damaged
        if found.isEmpty {
          #expect(patient.differences == [], "STORE_SEED=\(seed) at \(offset)")
          harmless += 1
        } else {
          noticed += 1
        }
      } catch {
        // A checkpoint has met it.
        noticed += 1
      }
      patient.store.abandon()
    }
    #expect(noticed > 0 && harmless > 0)
  }
}
