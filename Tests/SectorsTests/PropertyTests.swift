// SPDX-License-Identifier: Apache-2.0

import Inodes
import SectorStore
import Sectors
import Synchronization
import Testing
import Trust

@Suite("Many committers at once")
struct PropertyTests {
  /// One commit: what it wrote where, and what came of it.
  struct Attempt: Sendable {
    enum Outcome: Sendable {
      case applied
      case refused
      /// The answer never came.
      case unknown
    }

    let number: Int
    /// By inode: the version that it made, and the sector that it wrote.
    var writes: [FileID: (version: Version, index: UInt64)]
    var outcome = Outcome.unknown

    var mark: [UInt8] {
      withUnsafeBytes(of: UInt64(self.number).bigEndian, Array.init) + [UInt8](repeating: 0, count: 4_088)
    }
  }

  /// What the committers have done.
  final class History: Sendable {
    let attempts = Mutex<[Attempt]>([])
    private let count = Atomic(0)

    var commitCount: Int { self.count.load(ordering: .relaxed) }
    func nextNumber() -> Int { self.count.add(1, ordering: .relaxed).newValue }
  }

  @Test(
    "lose nothing that was answered and leave nothing half, with conflicts and over a crash", arguments: Seeds.take(4))
  func committers(seed: UInt64) async throws {
    let test = try await TestGroup()
    var inodes: [TestInode] = []
    for _ in 0..<6 { inodes.append(try await test.makeFile(mode: 0o666)) }
    let history = History()
    let crashAt = Int.random(in: 150...300)
    let group = try test.group
    await withTaskGroup(of: Void.self) { tasks in
      for committer in 0..<8 {
        tasks.addTask { [inodes] in
          var generator = SeededGenerator(seed: seed &* 100 &+ UInt64(committer))
          let principal = [test.domain.ann, test.domain.bob, test.domain.cleo][committer % 3]
          while history.commitCount < 400 {
            let batch = await self.batch(of: inodes, by: principal, on: test, history, &generator)
            guard let batch else { break }
            let outcomes = await group.perform(batch.map(\.commit), by: principal.credential)
            history.attempts.withLock { attempts in
              for (item, outcome) in zip(batch, outcomes) {
                var attempt = item.attempt
                switch outcome {
                case .success: attempt.outcome = .applied
                case .failure(.notServing): attempt.outcome = .unknown
                case .failure: attempt.outcome = .refused
                }
                attempts.append(attempt)
              }
            }
            // The store stops as in a crash, in the middle of it all.
            if history.commitCount > crashAt { group.store.abandon() }
          }
        }
      }
    }
    try await test.reopen(orderly: false)
    try await self.check(history.attempts.withLock { $0 }, inodes, test, seed: seed)
  }

  private typealias Item = (attempt: Attempt, commit: Commit)

  /// One to three commits in a row, each of one to three inodes, built on what is stored, or was a moment ago.
  private func batch(
    of inodes: [TestInode], by principal: TestPrincipal, on test: TestGroup, _ history: History,
    _ generator: inout SeededGenerator
  ) async -> [Item]? {
    let chosen = inodes.shuffled(using: &generator).prefix(Int.random(in: 1...3, using: &generator))
    let indexes: [UInt64] = [0, 1, 3, 20, 80]
    let index = indexes.randomElement(using: &generator) ?? 0
    var current: [TestInode] = []
    for inode in chosen {
      while true {
        do {
          current.append(try await test.continuing(inode, toWriteAt: index))
          break
        } catch SectorError.versionGone {
          // Somebody was faster: once more.
        } catch {
          return nil
        }
      }
    }
    var batch: [Item] = []
    for _ in 0..<Int.random(in: 1...3, using: &generator) {
      let number = history.nextNumber()
      var attempt = Attempt(number: number, writes: [:])
      var commit = Commit()
      for place in current.indices {
        guard let part = try? current[place].commit(writing: attempt.mark, at: index, by: principal) else { return nil }
        attempt.writes[current[place].fileID] = (part.records[0].version, index)
        commit.records += part.records
        commit.blocks.merge(part.blocks) { $1 }
      }
      batch.append((attempt, commit))
    }
    return batch
  }

  private func check(_ attempts: [Attempt], _ inodes: [TestInode], _ test: TestGroup, seed: UInt64) async throws {
    let applied = attempts.filter { $0.outcome == .applied }
    let unknown = attempts.filter { $0.outcome == .unknown }
    #expect(!applied.isEmpty && applied.count < attempts.count, "seed \(seed)")
    var present: [FileID: (version: Version, contents: [UInt64: [UInt8]])] = [:]
    for inode in inodes {
      let record = try #require(try await test.group.record(inode.fileID))
      let contents = try #require(try await test.read(inode))
      present[inode.fileID] = (record.version, contents)
      // No version was given to two commits.
      let writes = applied.compactMap { attempt in attempt.writes[inode.fileID].map { (attempt, $0) } }
      #expect(Set(writes.map(\.1.version)).count == writes.count, "seed \(seed)")
      for (attempt, write) in writes {
        #expect(write.version <= record.version, "seed \(seed): what was answered is lost")
        let isLast =
          !writes.contains { $0.1.index == write.index && $0.1.version > write.version }
          && !unknown.contains { $0.writes[inode.fileID]?.index == write.index }
        if isLast { #expect(contents[write.index] == attempt.mark, "seed \(seed)") }
      }
      // What was refused is nowhere.
      let marks = Set(attempts.filter { $0.outcome == .refused }.map(\.mark))
      #expect(contents.values.allSatisfy { !marks.contains($0) }, "seed \(seed)")
    }
    // What was not answered is there as a whole or not at all.
    for attempt in unknown + applied {
      let newest = attempt.writes.filter { present[$0.key]?.version == $0.value.version }
      let seen = newest.filter { present[$0.key]?.contents[$0.value.index] == attempt.mark }
      guard !seen.isEmpty else { continue }
      #expect(seen.count == newest.count, "seed \(seed)")
      for (file, write) in attempt.writes {
        #expect((present[file]?.version ?? 0) >= write.version, "seed \(seed): half of a commit")
      }
    }
  }
}

extension TestGroup {
  /// A file as somebody sees it who has read what is needed to write a sector.
  func continuing(_ inode: TestInode, toWriteAt index: UInt64) async throws -> TestInode {
    let group = try self.group
    let record = try #require(try await group.record(inode.fileID))
    var copy = try TestInode.continuing(inode, at: record)
    while case let missing = copy.missing(for: index), !missing.isEmpty {
      for key in missing {
        let range = try await group.read(
          inode.fileID, level: key.level, indexes: key.index..<key.index + 1, version: record.version)
        try copy.insert(Array(#require(range[key.index])), at: key)
      }
    }
    return copy
  }
}
