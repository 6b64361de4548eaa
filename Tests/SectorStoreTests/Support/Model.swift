// SPDX-License-Identifier: Apache-2.0

import Foundation
import SectorStore

/// What a store should hold, in the most obvious way.
struct Model: Sendable {
  struct File: Sendable {
    var record: StoredRecord
    var blocks: [UInt8: [UInt64: ArraySlice<UInt8>]] = [:]
  }

  var files: [UInt64: File] = [:]
  var sessions: [SessionID: [UInt64: [UInt8]]] = [:]
  var certificates: [Digest: [UInt8]] = [:]
  var facts: [String: [UInt8]] = [:]

  mutating func apply(_ change: Change) {
    for change in change.records {
      switch change {
      case .put(let record): self.files[record.inode, default: File(record: record)].record = record
      case .remove(let inode): self.files[inode] = nil
      }
    }
    for truncation in change.truncations {
      for (level, blocks) in self.files[truncation.inode]?.blocks ?? [:] {
        let kept = Int(level) < truncation.keptCounts.count ? truncation.keptCounts[Int(level)] : 0
        self.files[truncation.inode]?.blocks[level] = blocks.filter { $0.key < kept }
      }
    }
    for write in change.blocks {
      for number in 0..<write.count {
        let start = write.bytes.startIndex + number * write.blockSize
        self.files[write.inode]?.blocks[write.level, default: [:]][write.index + UInt64(number)] =
          write.bytes[start..<start + write.blockSize]
      }
    }
    for opening in change.sessionsOpened where self.sessions[opening.session] == nil {
      self.sessions[opening.session] = [:]
    }
    for operation in change.operations { self.sessions[operation.session]?[operation.sequence] = operation.result }
    for certificate in change.certificates { self.certificates[certificate.digest] = certificate.bytes }
    for fact in change.facts { self.facts[fact.key] = fact.value }
  }

  /// How the store differs, in words; empty if it does not.
  func differences(_ store: SectorStore, inodes: ClosedRange<UInt64>) -> [String] {
    var differences: [String] = []
    func note(_ what: String, _ body: () throws(StoreError) -> Bool) {
      do throws(StoreError) {
        if try !body() { differences.append("\(what) differs") }
      } catch {
        differences.append("\(what): \(error)")
      }
    }
    for inode in inodes {
      note("record \(inode)") { () throws(StoreError) in try store.record(inode) == self.files[inode]?.record }
      guard let file = self.files[inode] else { continue }
      for level in UInt8(0)...2 {
        note("blocks of \(inode) at level \(level)") { () throws(StoreError) in
          try file.matches(store, level: level, version: nil)
        }
      }
    }
    for parent in UInt64(1)...4 {
      let expected = self.files.values.filter { $0.record.parents.contains(parent) }.map(\.record.inode).sorted()
      note("children of \(parent)") { () throws(StoreError) in try store.inodes(parent: parent) == expected }
    }
    for flag in [RecordFlags.credential, .pending] {
      let expected = self.files.values.filter { $0.record.flags.contains(flag) }.map(\.record.inode).sorted()
      note("inodes with \(flag)") { () throws(StoreError) in try store.inodes(flag: flag) == expected }
    }
    for (session, results) in self.sessions {
      for (sequence, result) in results {
        note("result \(sequence)") { () throws(StoreError) in
          try store.operationStatus(session, sequence: sequence) == .applied(result: result)
        }
      }
      note("next operation") { () throws(StoreError) in
        try store.operationStatus(session, sequence: (results.keys.max() ?? 0) + 1) == .new
      }
    }
    for (digest, bytes) in self.certificates {
      note("certificate") { () throws(StoreError) in try store.certificate(digest) == bytes }
    }
    for (key, value) in self.facts { note("fact \(key)") { () throws(StoreError) in try store.fact(key) == value } }
    return differences
  }
}

extension Model.File {
  func matches(_ store: SectorStore, level: UInt8, version: UInt64?) throws(StoreError) -> Bool {
    let blocks = self.blocks[level] ?? [:]
    let end = (blocks.keys.max() ?? 0) + 2
    let range = try store.readBlocking(inode: self.record.inode, level: level, indexes: 0..<end, version: version)
    return (0..<end).allSatisfy { isEqual(range[$0], blocks[$0]) }
  }
}

/// Random changes that are all valid, one after the other.
struct ChangeMaker: Sendable {
  var generator: SeededGenerator
  /// The state after all changes made.
  var model = Model()
  let sectorSize: Int
  let inodeMax: UInt64
  private var contents: UInt64 = 0
  private var sessions: [SessionID] = []
  private var removedVersions: [UInt64: UInt64] = [:]

  init(seed: UInt64, sectorSize: Int = 4_096, inodeMax: UInt64 = 12) {
    self.generator = SeededGenerator(seed: seed)
    self.sectorSize = sectorSize
    self.inodeMax = inodeMax
  }

  /// Goes on from another state, after a recovery.
  mutating func restart(from model: Model) {
    self.model = model
    self.sessions = self.sessions.filter { model.sessions[$0] != nil }
  }

  mutating func next() -> Change {
    var change = Change(term: 1)
    for _ in 0..<self.generator.number(1...2) {
      let inode = UInt64.random(in: 1...self.inodeMax, using: &self.generator)
      if !change.records.contains(where: { inodeOf($0) == inode }) { self.addInode(inode, to: &change) }
    }
    self.addOthers(to: &change)
    self.model.apply(change)
    return change
  }

  private mutating func addInode(_ inode: UInt64, to change: inout Change) {
    let current = self.model.files[inode]?.record
    change.conditions.append(.init(inode: inode, version: current?.version))
    if let current, self.generator.chance(8) {
      self.removedVersions[inode] = current.version
      change.records.append(.remove(inode: inode))
      return
    }
    let version = (current?.version ?? self.removedVersions[inode] ?? 0) + UInt64(self.generator.number(1...3))
    change.records.append(
      .put(
        StoredRecord(
          inode: inode, version: version, bytes: self.bytes(self.generator.number(0...900)),
          parents: (0..<self.generator.number(0...2)).map { _ in UInt64.random(in: 1...4, using: &self.generator) }
            .uniqued(),
          flags: RecordFlags(rawValue: UInt32(self.generator.number(0...3))))))
    if self.generator.chance(12) {
      change.truncations.append(
        .init(inode: inode, keptCounts: [UInt64(self.generator.number(0...150)), UInt64(self.generator.number(0...3))]))
    }
    var next: [UInt8: Int] = [:]
    for _ in 0..<self.generator.number(0...3) {
      let level: UInt8 = self.generator.chance(70) ? 0 : UInt8(self.generator.number(1...2))
      // Upwards within a level, so that writes never overlap.
      let first = next[level, default: 0] + self.generator.number(0...(level == 0 ? 60 : 3))
      let count = self.generator.chance(10) ? self.generator.number(10...80) : self.generator.number(1...4)
      next[level] = first + count
      let size = level == 0 ? self.sectorSize : 4_096
      change.blocks.append(
        BlockWrite(
          inode: inode, level: level, index: UInt64(first), bytes: self.bytes(count * size), blockSize: size))
    }
  }

  private mutating func addOthers(to change: inout Change) {
    if self.sessions.isEmpty || self.sessions.count < 5 && self.generator.chance(5) {
      let session = SessionID(high: self.generator.next(), low: self.generator.next())
      self.sessions.append(session)
      change.sessionsOpened.append(.init(session: session, owner: [1, 2, 3], openedAt: 4))
    }
    if self.generator.chance(40) {
      let session = self.sessions[self.generator.number(0...self.sessions.count - 1)]
      let highest = self.model.sessions[session]?.keys.max() ?? 0
      change.operations.append(
        .init(session: session, sequence: highest + 1, result: self.bytes(self.generator.number(0...60))))
    }
    if self.generator.chance(10) {
      let bytes = self.bytes(40)
      if let digest = Digest(bytes.prefix(32)) { change.certificates.append(.init(digest: digest, bytes: bytes)) }
    }
    if self.generator.chance(20) {
      change.facts.append(.init(key: "fact\(self.generator.number(0...5))", value: self.bytes(9)))
    }
  }

  /// Bytes that no other call gives.
  private mutating func bytes(_ count: Int) -> [UInt8] {
    self.contents += 1
    return pattern(self.contents &* 0x9E37_79B9_7F4A_7C15, count)
  }
}

func pattern(_ word: UInt64, _ count: Int) -> [UInt8] {
  [UInt64](repeating: word, count: (count + 7) / 8).withUnsafeBytes { Array($0.prefix(count)) }
}

/// As `==`, which is very slow for slices without optimization.
private func isEqual(_ left: ArraySlice<UInt8>?, _ right: ArraySlice<UInt8>?) -> Bool {
  guard let left, let right else { return left == nil && right == nil }
  return left.withUnsafeBytes { left in
    right.withUnsafeBytes { right in
      guard left.count == right.count, let start = left.baseAddress, let other = right.baseAddress else { return false }
      return memcmp(start, other, left.count) == 0
    }
  }
}

func inodeOf(_ change: RecordChange) -> UInt64 {
  switch change {
  case .put(let record): record.inode
  case .remove(let inode): inode
  }
}

extension Array where Element: Hashable {
  fileprivate func uniqued() -> [Element] {
    var seen: Set<Element> = []
    return self.filter { seen.insert($0).inserted }
  }
}
