// SPDX-License-Identifier: Apache-2.0

import Raft
import Replication
import SectorStore
import Testing

@Suite("Whoever waits for a member", .timeLimit(.minutes(2)))
struct EndTests {
  enum End: CaseIterable, Sendable { case stopped, abandoned, failed, closed }

  @Test("is answered when it ends", arguments: End.allCases)
  func ends(_ end: End) async throws {
    var settings = TestMember.Settings()
    // Each read needs the others.
    settings.replica = { $0.clockDriftBound = nil }
    let group = try await TestGroup(3, settings)
    defer { group.stop() }
    let leader = try await group.leader()
    let life = try leader.alive()
    group.isolate(leader)
    var pending: [PendingChange] = []
    for number in UInt64(1)...20 { pending.append(try life.driver.propose(put(number, 1))) }
    life.driver.flush()
    await withTaskGroup { tasks in
      for change in pending {
        tasks.addTask {
          do throws(StoreError) {
            _ = try await change.durable()
            Issue.record("It can not have been committed.")
          } catch {}
        }
      }
      for _ in 0..<20 {
        tasks.addTask {
          do throws(StoreError) {
            try await life.driver.confirmRead()
            Issue.record("Nobody can have confirmed it.")
          } catch {}
        }
      }
      tasks.addTask { #expect(await life.driver.transferLeadership() != .handedOver) }
      await pause()
      switch end {
      case .stopped: life.driver.stop()
      case .abandoned: life.store.abandon()
      case .closed: try? await life.store.close()
      case .failed:
        leader.disk.failNextSync(.log)
        _ = try? life.driver.propose(put(100, 1))
        life.driver.flush()
      }
      await tasks.waitForAll()
    }
    try await eventually("it takes nothing more") { (try? life.driver.propose(put(101, 1))) == nil }
    await #expect(throws: StoreError.self) { try await life.driver.confirmRead() }
    if end != .failed { #expect(throws: StoreError.closed) { try life.driver.propose(put(101, 1)) } }
    #expect(await life.driver.transferLeadership() == .impossible)
    life.driver.stop()
    await life.driver.waitForLeader(.seconds(600))
    #expect(throws: StoreError.closed) {
      try life.driver.changeMembership(to: life.driver.status.membership, expecting: .zero)
    }
    // The others do without it.
    try await group.commit(put(200, 1), of: group.others(than: leader))
  }

  @Test("hears when nobody leads in time, or that somebody does")
  func waitForLeader() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    for member in group.members { await (try member.alive()).driver.waitForLeader(.seconds(30)) }
    #expect(try group.members.allSatisfy { try $0.alive().driver.leader != nil })
    let member = try #require(group.members.first)
    let driver = try member.alive().driver
    group.isolate(member)
    try await eventually("it knows nobody who leads") { driver.leader == nil }
    await driver.waitForLeader(.milliseconds(20))
    #expect(driver.leader == nil)
    let waiting = Task { await driver.waitForLeader(.seconds(600)) }
    await pause()
    driver.stop()
    await waiting.value
  }
}

@Suite("A leader without room", .timeLimit(.minutes(2)))
struct FullDiskTests {
  @Test("lets somebody else lead, and takes part again when there is some", arguments: [true, false])
  func full(hasBlocks: Bool) async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    try await group.commit(put(1, 1))
    let full = try await group.leader()
    let driver = try full.alive().driver
    full.disk.limitCapacity(full.disk.usedBytes)
    var sectors: [UInt64: UInt8] = [:]
    for index in UInt64(0)..<200 { sectors[index] = 1 }
    if hasBlocks {
      #expect(throws: StoreError.noSpace) { try driver.propose(put(2, 1, blocks: sectors)) }
    } else {
      var number: UInt64 = 100
      try await eventually("it refuses changes") {
        number += 1
        do throws(StoreError) {
          _ = try driver.propose(put(number, 1, [UInt8](repeating: 1, count: 20_000)))
          driver.flush()
          return false
        } catch {
          return error == .noSpace || error == .notLeader
        }
      }
    }
    try await eventually("somebody else leads") { group.others(than: full).contains(where: \.isLeading) }
    let others = group.others(than: full)
    for inode in UInt64(1_000)...1_010 { try await group.commit(put(inode, 1, blocks: sectors), of: others) }
    #expect(throws: StoreError.notLeader) { try driver.propose(put(3, 1)) }
    full.disk.limitCapacity(1 << 30)
    try await group.expectEqual()
    #expect(driver.status.isWritable)
  }
}
