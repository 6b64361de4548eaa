// SPDX-License-Identifier: Apache-2.0

import Raft
import Replication
import SectorStore
import Testing

/// A group of members in this process.
final class TestGroup: Sendable {
  let network: TestNetwork
  let members: [TestMember]

  /// - Parameter spare: members that no membership knows yet.
  init(_ count: Int, spare: Int = 0, seed: UInt64 = 1, _ settings: TestMember.Settings = .init()) async throws {
    let network = TestNetwork(seed: seed)
    let members = try (1...UInt64(count + spare)).map {
      try TestMember($0, seed: seed, network: network, settings: settings)
    }
    self.network = network
    self.members = members
    let membership = try #require(Membership(voters: members.prefix(count).map(\.id)))
    for member in members {
      try await member.found(membership)
      try member.start()
    }
    try #require(network.start())
  }

  /// Ends all; what happened before counts.
  func stop() {
    for member in self.members { member.kill() }
    self.network.stop()
  }

  func member(_ id: MemberID) throws -> TestMember { try #require(self.members.first { $0.id == id }) }
  var ids: [MemberID] { self.members.map(\.id) }
  func isolate(_ member: TestMember) { self.network.isolate(member.id, from: self.ids) }

  /// Waits until one of these leads and knows the state.
  func leader(of members: [TestMember]? = nil) async throws -> TestMember {
    let members = members ?? self.members
    try await eventually("somebody leads") { members.contains(where: \.isLeading) }
    // The latest term counts: an earlier leader may not know yet.
    let leaders = members.compactMap { member in member.life?.driver.leadingTerm.map { (term: $0, member: member) } }
    guard let leader = leaders.max(by: { $0.term < $1.term }) else { return try await self.leader(of: members) }
    return leader.member
  }

  func others(than member: TestMember) -> [TestMember] { self.members.filter { $0.id != member.id } }

  /// Has a change applied, by whoever leads, again and again until that is certain.
  @discardableResult
  func commit(_ change: Change, of members: [TestMember]? = nil) async throws -> StoreLogIndex {
    while true {
      let leader = try await self.leader(of: members)
      do throws(StoreError) {
        guard let driver = leader.life?.driver else { continue }
        let pending = try driver.propose(change)
        driver.flush()
        return try await pending.durable()
      } catch {
        switch error {
        case .notLeader, .leadershipLost, .queueFull, .closed: await pause()
        default: throw error
        }
      }
    }
  }

  /// Gives each member that needs it a snapshot of whoever leads. Returns how many got one.
  func serveSnapshots() async throws -> Int {
    var count = 0
    for donor in self.members {
      guard let life = donor.life else { continue }
      for id in life.driver.takeSnapshotRequests().keys {
        guard let member = self.members.first(where: { $0.id == id }), member.life != nil,
          let snapshot = try? await life.store.snapshot()
        else {
          life.driver.snapshotEnded(for: id, through: nil)
          continue
        }
        defer { snapshot.close() }
        let index = try member.install(snapshot)
        life.driver.snapshotEnded(for: id, through: index)
        if index != nil { count += 1 }
      }
    }
    return count
  }

  /// Waits until all of these have applied the same, and returns how far.
  func settle(_ members: [TestMember]? = nil) async throws {
    let members = members ?? self.members
    try await eventually("all agree") {
      let statuses = members.compactMap { $0.life?.driver.status }
      let applied = Set(members.compactMap { $0.life?.driver.appliedIndex })
      return statuses.count == members.count && applied.count == 1
        && statuses.allSatisfy { $0.last.index.rawValue == applied.first }
        && statuses.contains { $0.leadership.role == .leader }
    }
  }

  /// Expects all of these to hold the same, to the last byte.
  func expectEqual(_ members: [TestMember]? = nil) async throws {
    try await self.settle(members)
    var first: [SnapshotItem]?
    for member in members ?? self.members {
      let items = try await contents(of: try member.alive().store)
      if let first {
        #expect(items.count == first.count)
        let difference = zip(items, first).first { $0 != $1 }
        if let difference { Issue.record("\(member.id.rawValue) differs: \(difference)") }
      } else {
        first = items
      }
    }
  }
}

/// All that a store holds, in an order that depends on nothing else.
func contents(of store: SectorStore) async throws -> [SnapshotItem] {
  let snapshot = try await store.snapshot()
  defer { snapshot.close() }
  var items: [SnapshotItem] = []
  var cursor: SnapshotCursor?
  repeat {
    let page = try snapshot.items(after: cursor, byteCountMax: 1 << 20)
    items += page.items
    cursor = page.next
  } while cursor != nil
  return items
}

/// Waits until it is true; records an issue after half a minute.
func eventually(_ what: Comment, _ isTrue: () throws -> Bool) async throws {
  for _ in 0..<6_000 {
    if try isTrue() { return }
    await pause()
  }
  Issue.record(what)
  throw CancellationError()
}

func pause() async { try? await Task.sleep(for: .milliseconds(5)) }

/// The record of an inode, with blocks that each hold one byte all over.
func put(
  _ inode: UInt64, _ version: UInt64, _ bytes: [UInt8] = [], blocks: [UInt64: UInt8] = [:]
) -> Change {
  var change = Change()
  change.records = [.put(StoredRecord(inode: inode, version: version, bytes: bytes))]
  for (index, byte) in blocks.sorted(by: { $0.key < $1.key }) {
    change.blocks.append(
      BlockWrite(
        inode: inode, level: 0, index: index, bytes: [UInt8](repeating: byte, count: 4_096), blockSize: 4_096))
  }
  return change
}

/// The same, provided that the record has this version now; nil: that there is none.
func put(_ inode: UInt64, _ version: UInt64, _ bytes: [UInt8] = [], expecting: UInt64?) -> Change {
  var change = put(inode, version, bytes)
  change.conditions = [.init(inode: inode, version: expecting)]
  return change
}
