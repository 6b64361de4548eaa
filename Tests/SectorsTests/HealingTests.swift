// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import GRPCCore
import Inodes
import NIOPosix
import Raft
import Replication
import SectorStore
import Sectors
import SwiftProtobuf
import Synchronization
import Testing
import Transport
import Trust

@Suite("Healing from other members", .timeLimit(.minutes(2)))
struct SectorHealerTests {
  @Test("gives blocks to members of the cluster, and only just what is wanted")
  func fetch() async throws {
    try await ThreeMembers.with { cluster in
      let inode = try await cluster.writeFile(sectorCount: 3)
      let sealed = try await cluster.read(inode, at: 0)
      let wanted = sealed.map { wantedBlock(inode, $0.key, $0.value) }.sorted { $0.index < $1.index }
      let process = cluster.members[1].principal
      let answer = try await cluster.fetch(wanted, at: 0, as: process)
      #expect(answer == wanted.map { sealed[$0.index] })

      var others = wanted
      others[0].checksum ^= 1
      others[1].inode = 99
      others[2].index = 4_000
      #expect(try await cluster.fetch(others, at: 0, as: process) == [nil, nil, nil])

      for principal in [cluster.domain.ann, cluster.domain.bob] {
        let refusal = await failure { _ = try await cluster.fetch(wanted, at: 0, as: principal) }
        #expect(refusal.code == .permissionDenied && refusal.reason == "PERMISSION_DENIED")
      }
      let many = Array(repeating: wanted[0], count: RepairLimits.blocksMax + 1)
      let tooMany = await failure { _ = try await cluster.fetch(many, at: 0, as: process) }
      #expect(tooMany.code == .invalidArgument && tooMany.reason == "TOO_LARGE")
      let none = await failure { _ = try await cluster.fetch([], at: 0, as: process) }
      #expect(none.reason == "INVALID_REQUEST" && none.metadata == ["field": "blocks"])
      let foreign = await failure { _ = try await cluster.fetch(wanted, generation: 2, at: 0, as: process) }
      #expect(foreign.reason == "WRONG_GENERATION")
    }
  }

  @Test("a read that meets damage is answered with what another member has, and the copy is whole again")
  func healRead() async throws {
    try await ThreeMembers.with { cluster in
      let inode = try await cluster.writeFile(sectorCount: 9)
      let sealed = try await cluster.read(inode, at: 0)
      for index in [UInt64(2), 3, 7] { try cluster.damage(try #require(sealed[index]), of: 2) }
      let group = cluster.members[2].group
      // Without anybody to ask, it is damaged.
      await #expect(throws: SectorError.dataLoss(inode.fileID, place: .block(level: 0, index: 2))) {
        _ = try await cluster.read(inode, at: 2)
      }
      let healer = try cluster.healer(of: 2)
      group.setHealer(healer)
      #expect(try await cluster.read(inode, at: 2) == sealed)
      #expect(healer.counts.healed == 3)
      // Without the others.
      let alone = SectorHealer(store: group.store, peers: { [] }, fetch: { _, _ in [] })
      group.setHealer(alone)
      #expect(try await cluster.read(inode, at: 2) == sealed)
      #expect(group.store.damageReport.isEmpty && alone.counts.healed == 0)
    }
  }

  @Test("what one read heals does not wait for what another one heals")
  func reads() async throws {
    try await ThreeMembers.with { cluster in
      let inode = try await cluster.writeFile(sectorCount: 9)
      let sealed = try await cluster.read(inode, at: 0)
      func place(_ index: UInt64) -> DamagePlace {
        .block(inode: inode.fileID.inode.rawValue, level: 0, index: index)
      }
      for index in [UInt64(0), 1] { try cluster.damage(try #require(sealed[index]), of: 2) }
      let (began, beginning) = AsyncStream.makeStream(of: Void.self)
      let (gate, opening) = AsyncStream.makeStream(of: Void.self)
      let group = cluster.members[2].group
      let healer = SectorHealer(store: group.store, peers: { SectorHealer.peers(of: group) }) { blocks, _ in
        if blocks.contains(where: { $0.index == 0 }) {
          beginning.yield()
          for await _ in gate { break }
        }
        return blocks.map { sealed[$0.index] }
      }
      async let first = healer.healForRead([place(0)])
      for await _ in began { break }
      async let second = healer.healForRead([place(1), place(0)])
      while healer.counts.healed < 1 { try await Task.sleep(for: .milliseconds(5)) }
      opening.yield()
      let outcomes = await [first, second]
      #expect(outcomes == [true, true])
      #expect(healer.counts.healed == 2)
    }
  }

  @Test("asks one member after the other, and tells what nobody has from what could not be asked for")
  func outcomes() async throws {
    try await ThreeMembers.with { cluster in
      let inode = try await cluster.writeFile(sectorCount: 9)
      let sealed = try await cluster.read(inode, at: 0)
      func place(_ index: UInt64) -> DamagePlace {
        .block(inode: inode.fileID.inode.rawValue, level: 0, index: index)
      }
      // The first is damaged everywhere, the second on two members, the third on one.
      for (index, members) in [(UInt64(0), [0, 1, 2]), (1, [1, 2]), (2, [2])] {
        for member in members { try cluster.damage(try #require(sealed[index]), of: member) }
      }
      let places = (0..<4).map { place($0) }
      let healer = try cluster.healer(of: 2)
      let results = await healer.heal(places)
      #expect(results == [place(0): .lost, place(1): .healed, place(2): .healed, place(3): .unneeded])
      // One of the others may have it.
      let unreachable = SectorHealer(
        store: cluster.members[2].group.store, peers: { SectorHealer.peers(of: cluster.members[2].group) },
        fetch: { _, _ in throw TransportError.closed })
      #expect(await unreachable.heal([place(0)]) == [place(0): .waits(.unreachable)])
      // What is sent has to be right.
      let liar = SectorHealer(
        store: cluster.members[2].group.store, peers: { SectorHealer.peers(of: cluster.members[2].group) },
        fetch: { blocks, _ in blocks.map { _ in sector(7) } })
      #expect(await liar.heal([place(0)]) == [place(0): .failed])
      await #expect(throws: SectorError.dataLoss(inode.fileID, place: .block(level: 0, index: 0))) {
        _ = try await cluster.read(inode, at: 2)
      }
      // Reads do not try in vain again at once.
      #expect(await !healer.healForRead([place(0)]))
      #expect(await !healer.healForRead([place(0)]))
      #expect(healer.counts.unhealed == 2)
    }
  }
}

@Suite("Releasing a member whose store is damaged", .timeLimit(.minutes(2)))
struct ReleaseTests {
  @Test("is granted to one follower at a time, and any later leader knows of it")
  func grant() async throws {
    try await ThreeMembers.with { cluster in
      let leader = try await cluster.leader()
      let (first, second) = ((leader + 1) % 3, (leader + 2) % 3)
      let own = await failure { try await cluster.release(leader, at: leader) }
      #expect(own.code == .failedPrecondition && own.metadata == ["cause": "LEADS"])
      let elsewhere = await failure { try await cluster.release(first, at: second) }
      #expect(elsewhere.reason == "NOT_LEADER" && elsewhere.metadata["leader"] == "\(cluster.members[leader].path)")
      let stranger = await failure {
        try await cluster.call(leader, as: cluster.domain.ann) { connection in
          _ = try await Blocktree_V1_MemberService.Client(wrapping: connection.client).release(
            .with { $0.generation = 1 })
        }
      }
      #expect(stranger.reason == "PERMISSION_DENIED")

      try await cluster.release(first, at: leader)
      #expect(cluster.members[leader].group.lastReleased?.member == cluster.members[first].id)
      // Its answer may have been lost.
      try await cluster.release(first, at: leader)
      let other = await failure { try await cluster.release(second, at: leader) }
      #expect(other.reason == "RELEASE_REFUSED" && other.metadata == ["cause": "UNDER_WAY"])

      _ = try await cluster.transfer(
        at: leader, to: "\(cluster.members[second].path)", as: cluster.domain.ann)
      let later = await failure { try await cluster.release(leader, at: second) }
      #expect(later.metadata == ["cause": "UNDER_WAY"])
    }
  }

  @Test("is refused when another voter is not there")
  func lagging() async throws {
    try await ThreeMembers.with { cluster in
      let leader = try await cluster.leader()
      cluster.members[(leader + 1) % 3].group.replica.stop()
      let answer = await failure { try await cluster.release((leader + 2) % 3, at: leader) }
      #expect(answer.reason == "RELEASE_REFUSED" && answer.metadata == ["cause": "LAGGING"])
      // Nobody was released.
      #expect(cluster.members[leader].group.lastReleased == nil)
    }
  }

  @Test("is a question of who is there and who has what")
  func rule() async throws {
    // One that was real, to be changed.
    let template = Notes<ReplicaStatus?>(nil)
    try await ThreeMembers.with { cluster in
      let status = cluster.members[try await cluster.leader()].group.replica.status
      template.set(status)
    }
    let real = try #require(template.value)
    func refusal(
      of member: UInt64, voters: [UInt64], learners: [UInt64] = [], last: ReleasedMember? = nil, at time: Int64 = 0,
      change: (inout ReplicaStatus) -> Void = { _ in }
    ) throws -> ReleaseError.Cause? {
      var status = try Self.status(real, voters: voters, learners: learners)
      change(&status)
      return ReleaseRule.refusal(of: MemberID(member), status, last: last, at: Self.now, time: time)
    }
    #expect(try refusal(of: 3, voters: [1, 2, 3]) == nil)
    #expect(try refusal(of: 1, voters: [1, 2, 3]) == .leads)
    // Both have to agree that one of them goes.
    #expect(try refusal(of: 2, voters: [1, 2]) == .needed)
    #expect(try refusal(of: 3, voters: [1, 2], learners: [3]) == nil)
    #expect(try refusal(of: 9, voters: [1, 2]) == nil)
    #expect(try refusal(of: 5, voters: [1, 2, 3, 4, 5]) == nil)
    #expect(try refusal(of: 3, voters: [1, 2, 3]) { $0.membershipIsPending = true } == .changing)
    // Others.
    #expect(try refusal(of: 3, voters: [1, 2, 3]) { $0.members[0].replication = .probing } == .lagging)
    #expect(try refusal(of: 3, voters: [1, 2, 3]) { $0.members[0].isWritable = false } == .lagging)
    #expect(try refusal(of: 3, voters: [1, 2, 3]) { $0.members[0].match = Raft.LogIndex(871) } == .lagging)
    #expect(try refusal(of: 3, voters: [1, 2, 3]) { $0.members[0].match = Raft.LogIndex(872) } == nil)
    #expect(
      try refusal(of: 3, voters: [1, 2, 3]) {
        $0.members[0].lastHeard = Raft.Instant(nanoseconds: Self.now.nanoseconds - 5_000_000_001)
      } == .lagging)
    // How the one is that goes, matters to nobody.
    #expect(try refusal(of: 3, voters: [1, 2, 3]) { $0.members[1].lastHeard = Raft.Instant(nanoseconds: 0) } == nil)
    // After another one.
    let last = ReleasedMember(MemberID(2), at: 1_000)
    #expect(try refusal(of: 3, voters: [1, 2, 3], last: last, at: 1_001) == .underWay)
    #expect(try refusal(of: 3, voters: [1, 2, 3], last: last, at: 1_599) == .underWay)
    #expect(try refusal(of: 3, voters: [1, 2, 3], last: last, at: 1_600) == nil)
    #expect(try refusal(of: 3, voters: [1, 3, 4], last: last, at: 1_029) == .underWay)
    #expect(try refusal(of: 3, voters: [1, 3, 4], last: last, at: 1_030) == nil)
    #expect(try refusal(of: 2, voters: [1, 2, 3], last: last, at: 1_001) == nil)
    #expect(ReleasedMember(bytes: last.bytes) == last && ReleasedMember(bytes: []) == nil)
  }

  private static let now = Raft.Instant(nanoseconds: 100_000_000_000)

  /// Of member 1, which leads; all others are there and have everything.
  private static func status(
    _ real: ReplicaStatus, voters: [UInt64], learners: [UInt64]
  ) throws -> ReplicaStatus {
    var status = real
    let template = try #require(real.members.first)
    status.member = MemberID(1)
    status.last.index = Raft.LogIndex(1_000)
    status.membership = try #require(
      Membership(voters: voters.map { MemberID($0) }, learners: learners.map { MemberID($0) }))
    status.membershipIsPending = false
    status.isWritable = true
    status.members = status.membership.members.filter { $0 != MemberID(1) }.map { member in
      var other = template
      other.member = member
      other.match = Raft.LogIndex(1_000)
      other.replication = .replicating
      other.lastHeard = Self.now
      other.isWritable = true
      return other
    }
    return status
  }
}

/// What somebody has learned.
private final class Notes<Value: Sendable>: Sendable {
  private let state: Mutex<Value>
  init(_ value: Value) { self.state = Mutex(value) }
  var value: Value { self.state.withLock { $0 } }
  func set(_ value: Value) { self.state.withLock { $0 = value } }
}

/// As another member names it.
private func wantedBlock(_ inode: TestInode, _ index: UInt64, _ bytes: [UInt8]) -> WantedBlock {
  WantedBlock(
    inode: inode.fileID.inode.rawValue, level: 0, index: index,
    checksum: UInt32(truncatingIfNeeded: Checksum.of(bytes)))
}

extension ThreeMembers {
  /// A file that all members have applied.
  fileprivate func writeFile(sectorCount: UInt64) async throws -> TestInode {
    let leader = self.members[try await self.leader()]
    let number = file(try await leader.group.allocateInodes(1))
    var inode = TestInode(
      number, type: .file, rules: AccessRules(owner: self.domain.ann.path, group: .root, mode: Mode(truncating: 0o644)))
    try inode.write(Dictionary(uniqueKeysWithValues: (0..<sectorCount).map { ($0, sector(UInt8($0 + 1))) }))
    guard
      case .applied = try await leader.group.perform(
        try inode.commit(by: leader.principal), by: leader.principal.credential)
    else { throw TestFailure() }
    for number in 0..<3 { try await self.expectApplied(by: number) }
    return inode
  }

  /// All sealed sectors of a file, by index.
  fileprivate func read(_ inode: TestInode, at number: Int) async throws -> [UInt64: [UInt8]] {
    let count = inode.content.size / 4_096
    let range = try await self.members[number].group.read(
      inode.fileID, level: 0, indexes: 0..<count, version: inode.version)
    return Dictionary(uniqueKeysWithValues: (0..<count).compactMap { index in range[index].map { (index, Array($0)) } })
  }

  /// Changes a bit of a sector on one member's disk.
  fileprivate func damage(_ bytes: [UInt8], of number: Int) throws {
    let directory = "\(self.directory)/\(number + 1)/data"
    for name in try FileManager.default.contentsOfDirectory(atPath: directory) where name.hasPrefix("sectors") {
      let handle = try FileHandle(forUpdating: URL(filePath: "\(directory)/\(name)"))
      defer { try? handle.close() }
      var offset: UInt64 = 0
      while let block = try handle.read(upToCount: 4_096), !block.isEmpty {
        if Array(block) == bytes {
          try handle.seek(toOffset: offset + 17)
          try handle.write(contentsOf: Data([block[block.startIndex + 17] ^ 4]))
          return
        }
        offset += 4_096
      }
    }
    throw TestFailure()
  }

  fileprivate func healer(of number: Int) throws -> SectorHealer {
    let member = self.members[number]
    let security = try TransportSecurity(
      root: self.domain.authority.root,
      identity: .init(chain: member.principal.credential.chain, key: member.principal.key))
    let source = BlockSource(
      generation: 1, dialer: Dialer(security, group: MultiThreadedEventLoopGroup.singleton.next()))
    return SectorHealer(
      store: member.group.store, peers: { SectorHealer.peers(of: member.group) },
      fetch: { blocks, peer in try await source.fetch(blocks, from: peer) })
  }

  fileprivate func fetch(
    _ blocks: [WantedBlock], generation: UInt64 = 1, at number: Int, as principal: TestPrincipal
  ) async throws -> [[UInt8]?] {
    try await self.call(number, as: principal) { connection in
      let request = Blocktree_V1_FetchBlocksRequest.with {
        $0.generation = generation
        $0.blocks = blocks.map { block in
          .with {
            $0.inode = block.inode
            $0.level = UInt32(block.level)
            $0.index = block.index
            $0.checksum = block.checksum
          }
        }
      }
      let response = try await Blocktree_V1_RepairService.Client(wrapping: connection.client).fetchBlocks(request)
      return response.blocks.map { $0.bytes.isEmpty ? nil : Array($0.bytes) }
    }
  }

  /// What a member with a damaged store asks.
  fileprivate func release(_ number: Int, at leader: Int) async throws {
    try await self.call(leader, as: self.members[number].principal) { connection in
      _ = try await Blocktree_V1_MemberService.Client(wrapping: connection.client).release(
        .with {
          $0.generation = 1
          $0.member = self.members[number].id.rawValue
        })
    }
  }
}
