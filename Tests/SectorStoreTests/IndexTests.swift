// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Testing

/// What every index must do. The simulation is only worth something if its index does the same as SQLite's.
@Suite("An index")
struct IndexTests {
  enum Kind: Sendable, CaseIterable { case sqlite, simulated }

  /// Runs `body` with a way to open the index again.
  private func with(_ kind: Kind, _ body: (() throws -> any StoreIndex) throws -> Void) throws {
    switch kind {
    case .sqlite:
      let directory = try TemporaryDirectory()
      try body { try SQLiteIndex(path: directory.path + "/index.sqlite") }
    case .simulated:
      let index = SimulatedIndex(disk: SimulatedDisk(seed: 1))
      try body { index }
    }
  }

  private func record(_ inode: UInt64, _ version: UInt64, parents: [UInt64] = [], flags: RecordFlags = [])
    -> StoredRecord
  {
    StoredRecord(inode: inode, version: version, bytes: pattern(inode &* version, 50), parents: parents, flags: flags)
  }

  @Test("starts empty", arguments: Kind.allCases)
  func empty(_ kind: Kind) throws {
    try self.with(kind) { open in
      let index = try open()
      defer { index.close() }
      #expect(try index.applied().index == .zero)
      #expect(try index.record(1) == nil)
      #expect(try index.group(.init(inode: 1, level: 0, group: 0)) == nil)
      #expect(try index.inodeMax() == 0)
      #expect(try index.sessions().isEmpty)
      #expect(try index.facts().isEmpty)
    }
  }

  @Test("in SQLite syncs each transaction, also when it was opened before")
  func syncsTransactions() throws {
    let directory = try TemporaryDirectory()
    for _ in 0..<2 {
      let index = try SQLiteIndex(path: directory.path + "/index.sqlite")
      #expect(try index.synchronousLevel == 2)
      index.close()
    }
  }

  @Test("takes layers over as a whole, and keeps them", arguments: Kind.allCases)
  func takesLayers(_ kind: Kind) throws {
    let digest = try #require(Digest([UInt8](repeating: 3, count: 32)))
    let (session, other) = (SessionID(high: .max, low: 1), SessionID(high: 2, low: 2))
    let key = GroupKey(inode: 3, level: 2, group: 1 << 40)
    var group = BlockGroup(version: 5, pointers: [])
    group[0] = BlockPointer(slot: 1 << 40, checksum: .max)
    group[63] = BlockPointer(slot: 0, checksum: 7)

    var first = Layer()
    first.put(.put(self.record(1, 1, parents: [8, 9])), inode: 1)
    first.put(.put(self.record(2, 1, parents: [8], flags: .pending)), inode: 2)
    first.put(.put(self.record(3, 1, parents: [8], flags: [.pending, .credential])), inode: 3)
    first.put(group, key: key)
    first.put(group, key: GroupKey(inode: 3, level: 0, group: 1))
    first.sessions[session] = SessionHeader(owner: [1], openedAt: -4, highest: 2_000, lastUsed: LogIndex(6))
    first.sessions[other] = SessionHeader(owner: [], openedAt: 4, highest: 1, lastUsed: LogIndex(7))
    first.results = [session: [2_000: [1], 977: [2], 976: [3]], other: [1: []]]
    first.certificates[digest] = [1, 2, 3]
    first.facts = ["a": [1], "ä\0": []]
    (first.lastIndex, first.lastTerm) = (LogIndex(7), .max)

    var second = Layer()
    second.put(.put(self.record(1, 2, parents: [9, 10])), inode: 1)
    second.put(.removed, inode: 2)
    second.put(BlockGroup(version: 9, pointers: []), key: key)
    second.evicted = [other]
    second.facts = ["a": [2]]
    (second.lastIndex, second.lastTerm) = (LogIndex(9), .max)

    try self.with(kind) { open in
      var index = try open()
      try index.write(first)
      for round in 0..<2 {
        #expect(try index.applied().index == LogIndex(7))
        #expect(try index.applied().term == .max)
        #expect(try index.record(3) == first.records[3]?.record)
        #expect(try index.group(key) == group)
        #expect(Set(try index.groupKeys(inode: 3)) == [key, GroupKey(inode: 3, level: 0, group: 1)])
        #expect(try index.inodes(parent: 8).sorted() == [1, 2, 3])
        #expect(try index.inodes(flag: .pending).sorted() == [2, 3])
        #expect(try index.inodes(flag: .credential) == [3])
        #expect(try index.inodeMax() == 3)
        #expect(try index.sessions() == first.sessions)
        #expect(try index.result(session, sequence: 977) == [2])
        #expect(try index.result(session, sequence: 976) == nil)
        #expect(try index.result(other, sequence: 1) == [])
        #expect(try index.certificate(digest) == [1, 2, 3])
        #expect(try index.facts() == first.facts)
        if round == 0 {
          index.close()
          index = try open()
        }
      }
      try index.write(second)
      #expect(try index.applied().index == LogIndex(9))
      #expect(try index.record(1)?.version == 2)
      #expect(try index.record(2) == nil)
      #expect(try index.inodes(parent: 8) == [3])
      #expect(try index.inodes(parent: 10) == [1])
      #expect(try index.inodes(flag: .pending) == [3])
      #expect(try index.group(key) == nil)
      #expect(try index.sessions().keys.sorted { $0.high < $1.high } == [session])
      #expect(try index.result(other, sequence: 1) == nil)
      #expect(try index.facts() == ["a": [2], "ä\0": []])
      index.close()
    }
  }
}
