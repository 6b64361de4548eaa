// SPDX-License-Identifier: Apache-2.0

import Raft
import Replication
import SectorStore
import Testing

@Suite("A group of one member", .timeLimit(.minutes(2)))
struct OneMemberTests {
  private func makeMember(_ settings: TestMember.Settings = .init()) throws -> (TestMember, TestNetwork) {
    let network = TestNetwork(seed: 1)
    return (try TestMember(1, seed: 1, network: network, settings: settings), network)
  }

  private func commit(_ change: Change, _ member: TestMember) async throws -> StoreLogIndex {
    let driver = try member.alive().driver
    let pending = try driver.propose(change)
    driver.flush()
    return try await pending.durable()
  }

  @Test("leads, and answers a change when it is durable and applied")
  func leads() async throws {
    let (member, _) = try self.makeMember()
    defer { member.kill() }
    try await member.bootstrap(facts: [.init(key: "made", value: [1])])
    try await eventually("it leads") { member.isLeading }
    let life = try member.alive()
    let (store, driver) = (life.store, life.driver)
    #expect(try store.fact("made") == [1])
    let index = try await self.commit(put(5, 1, [7], blocks: [0: 9]), member)
    #expect(driver.appliedIndex >= index.rawValue)
    #expect(try store.record(5)?.bytes == [7])
    try await driver.confirmRead()
    await #expect(throws: StoreError.conditionFailed(inode: 5, current: 1)) {
      try await self.commit(put(5, 2, expecting: nil), member)
    }
  }

  @Test("has after a crash all that it acknowledged, in a later term", arguments: [false, true])
  func crash(losesPower: Bool) async throws {
    let (member, _) = try self.makeMember()
    defer { member.kill() }
    try await member.bootstrap(facts: [.init(key: "made", value: [1])])
    try await eventually("it leads") { member.isLeading }
    var term: UInt64 = 0
    for life in UInt64(1)...4 {
      for number in UInt64(1)...20 {
        _ = try await self.commit(put(life * 100 + number, 1, [UInt8(life)], blocks: [3: UInt8(number)]), member)
      }
      let before = try #require(try member.alive().driver.leadingTerm)
      #expect(before > term)
      term = before
      member.kill(losesPower: losesPower)
      try member.start()
      try await eventually("it leads again") { member.isLeading }
    }
    let store = try member.alive().store
    #expect(try store.fact("made") == [1])
    for life in UInt64(1)...4 {
      for number in UInt64(1)...20 {
        #expect(try store.record(life * 100 + number)?.bytes == [UInt8(life)])
        let blocks = try store.readBlocking(inode: life * 100 + number, level: 0, indexes: 3..<4, version: nil)
        #expect(blocks[3]?.first == UInt8(number))
      }
    }
    let membership = try store.membership().flatMap { Membership(bytes: $0.bytes) }
    #expect(membership == Membership(voters: [member.id]))
  }

  @Test("knows its group at its next start, however soon after the first it died", arguments: 1...12)
  func membershipSurvives(operations: Int) async throws {
    let (member, _) = try self.makeMember()
    defer { member.kill() }
    // Once it takes part in anything, its store must never again look like that of a new group.
    try await member.bootstrap()
    member.disk.losePower(afterOperations: operations)
    _ = try? member.alive().driver.propose(put(1, 1))
    try? member.alive().driver.flush()
    try await eventually("the power is gone, or nothing more happens") { member.disk.isOff || member.isLeading }
    member.kill(losesPower: true)
    try member.start()
    try await eventually("it leads") { member.isLeading }
  }

  @Test("goes on when there is room again")
  func fullDisk() async throws {
    let (member, _) = try self.makeMember()
    defer { member.kill() }
    try await member.bootstrap()
    try await eventually("it leads") { member.isLeading }
    _ = try await self.commit(put(1, 1), member)
    let driver = try member.alive().driver
    member.disk.limitCapacity(member.disk.usedBytes)
    // A change with blocks is refused before it gets into the log.
    var sectors: [UInt64: UInt8] = [:]
    for index in UInt64(0)..<200 { sectors[index] = 1 }
    await #expect(throws: StoreError.noSpace) { try await self.commit(put(2, 1, blocks: sectors), member) }
    // Others go on until the log finds no room, either.
    var pending: [PendingChange] = []
    var number: UInt64 = 100
    try await eventually("the disk is full") {
      guard driver.status.isWritable else { return true }
      number += 1
      let change = put(number, 1, [UInt8](repeating: 1, count: 20_000))
      if let change = try? driver.propose(change) { pending.append(change) }
      driver.flush()
      return false
    }
    #expect(throws: StoreError.noSpace) { try driver.propose(put(3, 1)) }
    // It still knows what there is.
    try await driver.confirmRead()
    member.disk.limitCapacity(1 << 30)
    for change in pending { _ = try await change.durable() }
    try await eventually("it takes changes again") { driver.status.isWritable }
    _ = try await self.commit(put(3, 1), member)
    _ = try await self.commit(put(2, 1, blocks: sectors), member)
  }
}
