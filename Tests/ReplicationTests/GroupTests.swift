// SPDX-License-Identifier: Apache-2.0

import Raft
import Replication
import SectorStore
import Synchronization
import Testing

@Suite("A group of three members", .timeLimit(.minutes(2)))
struct GroupTests {
  @Test("does everywhere what one of them was told")
  func replicates() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    for number in UInt64(1)...50 { try await group.commit(put(number, 1, [1], blocks: [number: 1, number + 70: 2])) }
    for number in UInt64(1)...50 where number % 3 == 0 {
      try await group.commit(put(number, 2, [2], blocks: [number: 3]))
    }
    try await group.expectEqual()
  }

  @Test("judges conditions in the order of the log, so that one of many wins")
  func conditions() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    let leader = try await group.leader()
    let driver = try leader.alive().driver
    for version in UInt64(1)...10 {
      let before: UInt64? = version == 1 ? nil : version - 1
      var pending: [PendingChange] = []
      for number in UInt8(0)..<8 {
        pending.append(try driver.propose(put(1, version, [number], expecting: before)))
      }
      driver.flush()
      var winners: [Int] = []
      for number in pending.indices {
        do throws(StoreError) {
          _ = try await pending[number].durable()
          winners.append(number)
        } catch {
          #expect(error == .conditionFailed(inode: 1, current: version))
        }
      }
      #expect(winners == [0])
    }
    try await group.expectEqual()
  }

  @Test("refuses proposals on followers")
  func followers() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    let leader = try await group.leader()
    for member in group.others(than: leader) {
      let driver = try member.alive().driver
      try await eventually("it knows who leads") { driver.leader == leader.id }
      #expect(throws: StoreError.notLeader) { try driver.propose(put(1, 1)) }
      member.disk.limitCapacity(member.disk.usedBytes)
      #expect(throws: StoreError.notLeader) { try driver.propose(put(1, 1, blocks: [1: 1])) }
      #expect(driver.leadingTerm == nil)
    }
  }

  @Test("tells whoever waits that leadership was lost, and forgets what was not committed")
  func leadershipLost() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    let old = try await group.leader()
    let others = group.others(than: old)
    group.isolate(old)
    let driver = try old.alive().driver
    let pending = try driver.propose(put(1, 1, [1], blocks: [0: 1]))
    driver.flush()
    await #expect(throws: StoreError.leadershipLost) { try await pending.durable() }
    try await group.commit(put(1, 1, [2], blocks: [0: 2]), of: others)
    group.network.heal()
    try await group.expectEqual()
    #expect(try old.alive().store.record(1)?.bytes == [2])
  }

  // MARK: Reads

  @Test("confirms reads on each member, with all that was acknowledged before")
  func reads() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    for version in UInt64(1)...30 {
      try await group.commit(put(1, version))
      for member in group.members {
        let life = try member.alive()
        do throws(StoreError) { try await life.driver.confirmRead() } catch .notLeader { continue }
        #expect(try life.store.record(1)?.version == version)
      }
    }
  }

  @Test("never confirms a read on a leader that the others have replaced", arguments: [true, false])
  func staleLeader(hasLease: Bool) async throws {
    var settings = TestMember.Settings()
    settings.replica = { if !hasLease { $0.clockDriftBound = nil } }
    let group = try await TestGroup(3, settings)
    defer { group.stop() }
    try await group.commit(put(1, 1))
    let old = try await group.leader()
    let life = try old.alive()
    let newest = Atomic<UInt64>(1)
    group.isolate(old)
    // It asks itself all the time, and what it is told must be the newest.
    let asking = Task { () -> (confirmed: Int, refused: Int, stale: Int) in
      var counts = (confirmed: 0, refused: 0, stale: 0)
      while !Task.isCancelled {
        let floor = newest.load(ordering: .sequentiallyConsistent)
        do throws(StoreError) {
          if !life.driver.isReadConfirmed { try await life.driver.confirmRead() }
          counts.confirmed += 1
          if try life.store.record(1)?.version ?? 0 < floor { counts.stale += 1 }
        } catch {
          counts.refused += 1
        }
        await pause()
      }
      return counts
    }
    for version in UInt64(2)...10 {
      try await group.commit(put(1, version), of: group.others(than: old))
      newest.store(version, ordering: .sequentiallyConsistent)
      await pause()
    }
    await #expect(throws: StoreError.notLeader) { try await life.driver.confirmRead() }
    asking.cancel()
    let counts = await asking.value
    #expect(counts.stale == 0)
    #expect(counts.refused > 0)
    group.network.heal()
    try await eventually("it confirms again") { life.driver.leader != nil }
    try await group.expectEqual()
  }

  @Test("does not keep a reader waiting whom it can not tell any more")
  func cutOffReader() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    let leader = try await group.leader()
    let follower = try #require(group.others(than: leader).first)
    let driver = try follower.alive().driver
    try await eventually("it knows who leads") { driver.leader == leader.id }
    // It learns how much is committed, but gets none of it.
    follower.disk.limitCapacity(follower.disk.usedBytes)
    var number: UInt64 = 1
    try await eventually("its disk is full") {
      number += 1
      let change = put(number, 1, [UInt8](repeating: 1, count: 20_000))
      let leading = try leader.alive().driver
      _ = try? leading.propose(change)
      leading.flush()
      return !driver.status.isWritable
    }
    let end = try leader.alive().driver.status.last.index
    try await eventually("the others have it") {
      try leader.alive().driver.appliedIndex >= end.rawValue
    }
    let reading = Task { () -> Result<Void, StoreError> in
      do throws(StoreError) {
        try await driver.confirmRead()
        return .success(())
      } catch {
        return .failure(error)
      }
    }
    await pause()
    group.isolate(follower)
    let result = await reading.value
    #expect(throws: StoreError.notLeader) { try result.get() }
    follower.disk.limitCapacity(1 << 30)
    group.network.heal()
    try await group.expectEqual()
  }

  // MARK: Leading

  @Test("hands leadership over to the member that is named")
  func transfer() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    var count = 0
    for round in UInt64(1)...10 {
      let old = try await group.leader()
      try await group.commit(put(round, 1))
      let next = try #require(group.others(than: old).randomElement())
      let result = try await old.alive().driver.transferLeadership(to: next.id)
      guard result == .handedOver else { continue }
      count += 1
      try await eventually("somebody else leads") { group.members.contains { $0.isLeading } && !old.isLeading }
      try await group.commit(put(round, 2))
    }
    #expect(count > 0)
    let follower = try #require(group.members.first { !$0.isLeading })
    #expect(try await follower.alive().driver.transferLeadership() == .impossible)
    try await group.expectEqual()
  }

  @Test("answers each of two who want leadership handed over")
  func twoTransfers() async throws {
    let group = try await TestGroup(3)
    defer { group.stop() }
    let old = try await group.leader()
    let driver = try old.alive().driver
    // Nobody answers, so the first takes until the time is up.
    group.isolate(old)
    async let first = driver.transferLeadership()
    try await eventually("it is under way") { driver.status.transferTarget != nil || !old.isLeading }
    let second = await driver.transferLeadership()
    #expect(second == .impossible)
    #expect(await first != .impossible)
  }

  // MARK: Membership

  @Test("takes a learner in, lets it vote, and lets another go")
  func membership() async throws {
    let group = try await TestGroup(3, spare: 1)
    defer { group.stop() }
    let changes = Atomic(0)
    let leader = try await group.leader()
    let driver = try leader.alive().driver
    var observer = ReplicaDriver.Observer()
    observer.changed = { changes.add(1, ordering: .relaxed) }
    driver.setObserver(observer)
    let newcomer = group.members[3]
    let voters = Array(group.ids.prefix(3))
    try await group.commit(put(1, 1, blocks: [0: 1]))

    func change(to target: Membership?) async throws {
      let target = try #require(target)
      let before = changes.load(ordering: .relaxed)
      try await eventually("no change is pending") {
        do throws(StoreError) {
          try driver.changeMembership(to: target, expecting: driver.status.membershipIndex)
          return true
        } catch {
          return false
        }
      }
      #expect(changes.load(ordering: .relaxed) > before)
      try await eventually("the change is done") {
        !driver.status.membershipIsPending && driver.status.membership == target
      }
    }

    try await change(to: Membership(voters: voters, learners: [newcomer.id]))
    try await group.settle()
    #expect(try newcomer.alive().store.record(1)?.version == 1)
    #expect(throws: StoreError.queueFull) {
      try driver.changeMembership(to: driver.status.membership, expecting: LogIndex(1_000_000))
    }
    try await change(to: Membership(voters: voters + [newcomer.id]))
    let gone = try #require(group.members.first { $0.id != leader.id && $0.id != newcomer.id })
    let rest = voters.filter { $0 != gone.id } + [newcomer.id]
    try await change(to: Membership(voters: rest))
    gone.kill()
    try await group.commit(put(1, 2))
    // Without the newcomer there is no majority any more.
    let others = group.members.filter { $0.id != gone.id }
    let third = try #require(others.first { $0.id != leader.id && $0.id != newcomer.id })
    third.kill()
    try await group.commit(put(1, 3), of: [leader, newcomer])
    try third.start()
    try await group.expectEqual(others)
    for member in others {
      let stored = try #require(try member.alive().store.membership())
      let membership = Membership(bytes: stored.bytes)
      #expect(membership == Membership(voters: rest))
    }
  }

  @Test("keeps entries for the others from the moment that there is another")
  func retention() async throws {
    let network = TestNetwork(seed: 3)
    let settings = TestMember.Settings(store: { $0.retainedEntriesMin = 1_000 })
    let first = try TestMember(1, seed: 3, network: network, settings: settings)
    let second = try TestMember(2, seed: 3, network: network, settings: settings)
    defer {
      first.kill()
      second.kill()
      network.stop()
    }
    #expect(network.start())
    try await first.found(try #require(Membership(voters: [first.id])))
    try await second.found(try #require(Membership(voters: [first.id])))
    try first.start()
    let life = try first.alive()
    let (store, driver) = (life.store, life.driver)
    try await eventually("it leads") { first.isLeading }
    try driver.changeMembership(
      to: try #require(Membership(voters: [first.id], learners: [second.id])), expecting: driver.status.membershipIndex)
    for number in UInt64(1)...10 {
      let pending = try driver.propose(put(number, 1, blocks: [0: 1]))
      driver.flush()
      _ = try await pending.durable()
    }
    let before = store.appliedIndex
    try await store.checkpoint()
    #expect(store.retainedAfter < before)
    try second.start()
    try await eventually("the learner has it all") { try second.alive().driver.appliedIndex >= before.rawValue }
    #expect(driver.takeSnapshotRequests().isEmpty)
  }
}
