// SPDX-License-Identifier: Apache-2.0

import Raft
import Replication
import SectorStore
import Testing

@Suite("A follower that was away", .timeLimit(.minutes(2)))
struct CatchUpTests {
  /// A change of 64 KiB.
  private func large(_ inode: UInt64) -> Change {
    var change = put(inode, 1)
    change.blocks = [
      BlockWrite(
        inode: inode, level: 0, index: 0, bytes: [UInt8](repeating: UInt8(truncatingIfNeeded: inode), count: 64 << 10),
        blockSize: 4_096)
    ]
    return change
  }

  /// More than a driver keeps in memory, and then some that it does keep.
  private func writeLarge(_ group: TestGroup, _ members: [TestMember], _ inodes: ClosedRange<UInt64>) async throws {
    let leader = try await group.leader(of: members)
    let driver = try leader.alive().driver
    var pending: [PendingChange] = []
    for inode in inodes {
      pending.append(try driver.propose(self.large(inode)))
      driver.flush()
      if pending.count == 16 {
        for change in pending { _ = try await change.durable() }
        pending = []
      }
    }
    for change in pending { _ = try await change.durable() }
  }

  /// Settings with which nobody but a partition ends a leadership, however slow the machine is.
  private var patient: TestMember.Settings {
    var settings = TestMember.Settings()
    settings.store = { $0.checkpointBytes = 1 << 30 }
    settings.replica = { $0.electionTimeout = .milliseconds(800)...(.milliseconds(1_200)) }
    return settings
  }

  @Test("gets from the leader's disk what is not in memory any more, in order")
  func fromDisk() async throws {
    let group = try await TestGroup(3, self.patient)
    defer { group.stop() }
    let leader = try await group.leader()
    let away = try #require(group.others(than: leader).first)
    let others = group.members.filter { $0.id != away.id }
    group.isolate(away)
    try await self.writeLarge(group, others, 1...320)
    // None overtakes the one before it, so each begins no further than the ones before have come.
    var end = try away.alive().driver.status.last.index.rawValue
    let sentBefore = group.network.appends(to: away.id).count
    group.network.heal()
    // New ones come meanwhile, from memory.
    for inode in UInt64(1_000)...1_030 { try await group.commit(put(inode, 1), of: others) }
    try await group.expectEqual()
    #expect(try leader.alive().driver.takeSnapshotRequests().isEmpty)
    let sent = group.network.appends(to: away.id).dropFirst(sentBefore)
    #expect(!sent.isEmpty)
    for append in sent {
      #expect(append.after.rawValue <= end)
      end = max(end, append.after.rawValue + UInt64(append.count))
    }
  }

  @Test("is not sent more at a time than a message may hold, by a leader that was away itself")
  func afterRestart() async throws {
    let group = try await TestGroup(3, self.patient)
    defer { group.stop() }
    let leader = try await group.leader()
    let away = try #require(group.others(than: leader).first)
    let others = group.members.filter { $0.id != away.id }
    away.kill()
    try await self.writeLarge(group, others, 1...60)
    for member in others { member.kill() }
    for member in others { try member.start() }
    try await group.commit(put(1_000, 1), of: others)
    try away.start()
    try await group.expectEqual()
    // What the log had at the start counts with its blocks.
    #expect(group.network.largestAppend <= 1 << 20)
  }

  @Test("asks for a snapshot when entries are gone, and goes on behind it")
  func snapshot() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    let leader = try await group.leader()
    let away = try #require(group.others(than: leader).first)
    let others = group.members.filter { $0.id != away.id }
    try await group.commit(put(1, 1, blocks: [0: 1]))
    group.isolate(away)
    for number in UInt64(2)...20 {
      try await group.commit(put(number, 1, blocks: [number: 1]), of: others)
      if number % 8 == 0 { for member in others { try await member.alive().store.checkpoint() } }
    }
    let end = try leader.alive().store.retainedAfter
    #expect(end > StoreLogIndex(1))
    group.network.heal()
    try await eventually("somebody asks for a snapshot") {
      try group.members.contains { try $0.alive().driver.status.members.contains { $0.replication == .snapshot } }
    }
    #expect(try await group.serveSnapshots() == 1)
    try await group.commit(put(30, 1))
    try await group.expectEqual()
    // It has the log behind the snapshot as everybody else, and comes back with it.
    away.kill(losesPower: true)
    try away.start()
    try await group.commit(put(31, 1))
    try await group.expectEqual()
  }

  @Test("asks again when a snapshot did not arrive")
  func snapshotFails() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    let leader = try await group.leader()
    let away = try #require(group.others(than: leader).first)
    let others = group.members.filter { $0.id != away.id }
    group.isolate(away)
    for number in UInt64(2)...20 {
      try await group.commit(put(number, 1), of: others)
      if number % 8 == 0 { for member in others { try await member.alive().store.checkpoint() } }
    }
    group.network.heal()
    for _ in 0..<3 {
      try await eventually("a snapshot is asked for") {
        try group.members.contains { member in
          let driver = try member.alive().driver
          let requests = driver.takeSnapshotRequests()
          guard requests[away.id] != nil else { return false }
          driver.snapshotEnded(for: away.id, through: nil)
          return true
        }
      }
    }
    try await eventually("a snapshot is under way") {
      try group.members.contains { try $0.alive().driver.status.members.contains { $0.replication == .snapshot } }
    }
    #expect(try await group.serveSnapshots() == 1)
    try await group.expectEqual()
  }
}
