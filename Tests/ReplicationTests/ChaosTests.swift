// SPDX-License-Identifier: Apache-2.0

import Foundation
import Raft
import Replication
import SectorStore
import Synchronization
import Testing

/// Whatever happens to members, disks and network, all members do the same, once, and nothing that was answered is lost.
@Suite("A group in bad weather", .timeLimit(.minutes(5)))
struct ChaosTests {
  /// `REPLICATION_SEED` brings back the faults of a run. Threads decide the rest, so it may take some runs to see the
  /// same again.
  private static var seeds: [UInt64] {
    if let text = ProcessInfo.processInfo.environment["REPLICATION_SEED"], let seed = UInt64(text) { return [seed] }
    let start = UInt64.random(in: 0..<1 << 32)
    return (0..<2).map { start + $0 }
  }

  @Test("keeps what it has acknowledged, and does each operation once", arguments: Self.seeds)
  func chaos(seed: UInt64) async throws {
    let problems = try await ChaosRun(seed: seed).run()
    #expect(problems.isEmpty, "Seed \(seed): REPLICATION_SEED=\(seed)")
  }
}

/// What all members have applied, compared entry by entry as they do.
private final class Witness: Sendable {
  private struct State {
    /// What each entry did, by whoever applied it first.
    var entries: [StoreLogIndex: String] = [:]
    /// Where each operation was applied.
    var places: [String: StoreLogIndex] = [:]
    var problems: [String] = []
  }

  private let state = Mutex(State())

  func applied(_ member: MemberID, _ entries: [AppliedEntry]) {
    self.state.withLock { state in
      for entry in entries {
        let word = "\(entry.term) \(entry.result) \(entry.records)"
        if let known = state.entries[entry.index], known != word {
          state.problems.append("\(member.rawValue) did \(word) at \(entry.index.rawValue), others \(known)")
        }
        state.entries[entry.index] = word
        guard (try? entry.result.get()) != nil else { continue }
        for case .put(let record) in entry.records {
          let name = "\(record.inode): \(record.bytes)"
          if let place = state.places[name], place != entry.index {
            state.problems.append("\(name) was done at \(place.rawValue) and \(entry.index.rawValue)")
          }
          state.places[name] = entry.index
        }
      }
    }
  }

  func note(_ problem: String) { self.state.withLock { $0.problems.append(problem) } }
  var problems: [String] { self.state.withLock { $0.problems } }
}

private final class ChaosRun: Sendable {
  private struct Acknowledged: Sendable {
    var session: SessionID
    var sequence: UInt64
    var inode: UInt64
    var version: UInt64
  }

  private let seed: UInt64
  private let witness = Witness()
  private let acknowledged = Mutex<[Acknowledged]>([])
  /// The version of each counter that somebody was told of.
  private let floors = Mutex<[UInt64: UInt64]>([:])
  private let isOver = Atomic(false)
  private let readCount = Atomic(0)

  private static let clientCount = 4
  private static let counters = UInt64(1)...2
  private static let faultCount = 14

  init(seed: UInt64) { self.seed = seed }

  func run() async throws -> [String] {
    var settings = TestMember.Settings()
    settings.applied = { [witness] member, entries in witness.applied(member, entries) }
    settings.store = {
      $0.segmentBytes = 64 << 10
      // Members that were away for long come back by a snapshot.
      $0.checkpointEntries = 150
    }
    let group = try await TestGroup(3, seed: self.seed, settings)
    defer { group.stop() }
    group.network.setWeather(.init(lossPercent: 2, repetitionPercent: 2, delay: 0...4_000))
    await withTaskGroup { tasks in
      for number in 0..<Self.clientCount { tasks.addTask { await self.write(number, group) } }
      tasks.addTask { await self.read(group) }
      tasks.addTask { await self.disturb(group) }
      await tasks.waitForAll()
    }
    group.network.heal()
    group.network.setWeather(.init())
    for member in group.members where member.life == nil { try member.start() }
    for version in UInt64(1)...3 {
      // Whoever still lacks entries that are gone.
      try await group.commit(put(99, version, [UInt8(version)]))
      try await self.serveSnapshotsUntilSettled(group)
    }
    try await group.expectEqual()
    try self.check(group)
    for member in group.members { member.kill(losesPower: true) }
    for member in group.members { try member.start() }
    try await group.commit(put(98, 1))
    try await group.expectEqual()
    try self.check(group)
    return self.witness.problems
  }

  private func serveSnapshotsUntilSettled(_ group: TestGroup) async throws {
    for _ in 0..<6_000 {
      _ = try await group.serveSnapshots()
      let applied = Set(group.members.compactMap { $0.life?.driver.appliedIndex })
      if applied.count == 1 { return }
      await pause()
    }
    self.witness.note("The members did not agree again.")
  }

  private func check(_ group: TestGroup) throws {
    let acknowledged = self.acknowledged.withLock { $0 }
    if acknowledged.count < 20 { self.witness.note("Only \(acknowledged.count) operations were done.") }
    if self.readCount.load(ordering: .relaxed) < 20 { self.witness.note("Hardly anything was read.") }
    var taken: Set<[UInt64]> = []
    for item in acknowledged where !taken.insert([item.inode, item.version]).inserted {
      self.witness.note("Version \(item.version) of \(item.inode) was given twice.")
    }
    for member in group.members {
      let store = try member.alive().store
      for item in acknowledged {
        switch try store.operationStatus(item.session, sequence: item.sequence) {
        // A session remembers its last thousand.
        case .applied, .tooOld: break
        case .new, .unknownSession:
          self.witness.note("\(member.id.rawValue) has forgotten \(item)")
          continue
        }
        if try store.record(item.inode)?.version ?? 0 < item.version {
          self.witness.note("\(member.id.rawValue) has an older record than \(item)")
        }
      }
    }
  }

  // MARK: Clients

  private func write(_ number: Int, _ group: TestGroup) async {
    var generator = SeededGenerator(seed: self.seed &+ UInt64(number) &* 7_919)
    let session = SessionID(high: 1, low: UInt64(number) + 1)
    var ownVersion: UInt64 = 0
    var sequence: UInt64 = 0
    while !self.isOver.load(ordering: .relaxed) {
      sequence += 1
      let isCounter = generator.bool()
      let inode = isCounter ? UInt64(generator.number(1...2)) : 10 + UInt64(number)
      var expected: UInt64? = ownVersion == 0 ? nil : ownVersion
      if isCounter {
        guard case .some(let version) = await self.version(of: inode, group, &generator) else { return }
        expected = version
      }
      var change = put(inode, (expected ?? 0) + 1, [UInt8(number)] + Array("\(sequence)".utf8), expecting: expected)
      if !isCounter {
        let block = [UInt8](repeating: UInt8(truncatingIfNeeded: sequence), count: 4_096)
        change.blocks = [BlockWrite(inode: inode, level: 0, index: sequence % 5, bytes: block, blockSize: 4_096)]
      }
      change.sessionsOpened = [.init(session: session, owner: [UInt8(number)], openedAt: 1)]
      change.operations = [.init(session: session, sequence: sequence, result: [UInt8(truncatingIfNeeded: sequence)])]
      guard let isDone = await self.perform(change, session, sequence, group, &generator) else { return }
      guard isDone else {
        if !isCounter { self.witness.note("Only client \(number) writes \(inode), and was refused.") }
        continue
      }
      if !isCounter { ownVersion += 1 }
      let version = (expected ?? 0) + 1
      self.floors.withLock { $0[inode] = max($0[inode] ?? 0, version) }
      self.acknowledged.withLock {
        $0.append(.init(session: session, sequence: sequence, inode: inode, version: version))
      }
    }
  }

  /// Asks again and again until it is certain whether the change was done; nil when the time is up before.
  private func perform(
    _ change: Change, _ session: SessionID, _ sequence: UInt64, _ group: TestGroup, _ generator: inout SeededGenerator
  ) async -> Bool? {
    while !self.isOver.load(ordering: .relaxed) {
      guard let life = self.anyone(group, &generator) else {
        await pause()
        continue
      }
      do throws(StoreError) {
        let pending = try life.driver.propose(change)
        life.driver.flush()
        _ = try await pending.durable()
        return true
      } catch {
        switch error {
        case .alreadyApplied: return true
        case .conditionFailed:
          // Its condition may have failed because it was done before.
          guard let status = try? life.store.operationStatus(session, sequence: sequence) else { continue }
          if case .applied = status { return true }
          return false
        case .invalidChange, .unknownSession, .operationTooOld, .damaged:
          self.witness.note("An operation was refused: \(error)")
          return nil
        default: await pause()
        }
      }
    }
    return nil
  }

  /// Who leads, as far as is known; now and then anyone.
  private func anyone(_ group: TestGroup, _ generator: inout SeededGenerator) -> TestMember.Life? {
    let leader = group.members.first { $0.isLeading }
    if let leader, !generator.chance(10) { return leader.life }
    return group.members[generator.number(0...group.members.count - 1)].life
  }

  /// The version of a record, as any member confirms it; nil when the time is up.
  private func version(of inode: UInt64, _ group: TestGroup, _ generator: inout SeededGenerator) async -> UInt64?? {
    while !self.isOver.load(ordering: .relaxed) {
      let floor = self.floors.withLock { $0[inode] }
      guard let life = group.members[generator.number(0...group.members.count - 1)].life else {
        await pause()
        continue
      }
      do throws(StoreError) {
        if !life.driver.isReadConfirmed { try await life.driver.confirmRead() }
        let version = try life.store.record(inode)?.version
        if version ?? 0 < floor ?? 0 {
          self.witness.note("\(life.driver.member.rawValue) read \(version ?? 0) of \(inode) after \(floor ?? 0)")
        }
        self.readCount.add(1, ordering: .relaxed)
        return .some(version)
      } catch {
        await pause()
      }
    }
    return nil
  }

  private func read(_ group: TestGroup) async {
    var generator = SeededGenerator(seed: self.seed &+ 31)
    while !self.isOver.load(ordering: .relaxed) {
      for inode in Self.counters { _ = await self.version(of: inode, group, &generator) }
      await pause()
    }
  }

  // MARK: Faults

  private func disturb(_ group: TestGroup) async {
    var generator = SeededGenerator(seed: self.seed &+ 17)
    func wait(_ milliseconds: ClosedRange<Int>, _ generator: inout SeededGenerator) async throws {
      let count = generator.number(milliseconds) / 10
      for _ in 0..<count {
        try await Task.sleep(for: .milliseconds(10))
        _ = try await group.serveSnapshots()
      }
    }
    do {
      for _ in 0..<Self.faultCount {
        try await wait(100...400, &generator)
        let victim = group.members[generator.number(0...2)]
        let leader = group.members.first { $0.isLeading } ?? victim
        let others = group.others(than: victim)
        switch generator.number(0...8) {
        case 0, 1: victim.kill(losesPower: generator.bool())
        case 2: leader.kill(losesPower: generator.bool())
        case 3: for member in group.members { member.kill(losesPower: generator.bool()) }
        case 4: group.isolate(leader)
        case 5: group.isolate(victim)
        case 6: group.network.cut(victim.id, others[0].id)
        case 7: _ = await leader.life?.driver.transferLeadership()
        default: try? await victim.life?.store.checkpoint()
        }
        try await wait(100...900, &generator)
        group.network.heal()
        for member in group.members where member.life == nil { try member.start() }
      }
      // Everybody finds somebody to ask for a while.
      try await wait(1_000...1_000, &generator)
    } catch {
      self.witness.note("\(error)")
    }
    self.isOver.store(true, ordering: .relaxed)
  }
}
