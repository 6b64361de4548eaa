// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import NIOPosix
import Raft
import SectorStore
import Sectors
import SwiftProtobuf
import Synchronization
import Testing
import Transport
import Trust

/// Warrants that somebody heard of.
final class Heard: Sendable {
  private let state = Mutex<[RecoveryWarrant]>([])
  var warrants: [RecoveryWarrant] { self.state.withLock { $0 } }
  func note(_ warrant: RecoveryWarrant) { self.state.withLock { $0.append(warrant) } }
}

extension TestDomain {
  func warrant(
    _ incarnation: UInt64, generation: UInt64 = 1, process: String = "/servers/2", member: UInt64 = 102,
    time: UInt64 = 1
  ) throws -> RecoveryWarrant {
    try RecoveryWarrant(
      signedBy: self.authority.key, root: self.authority.root, generation: generation, incarnation: incarnation,
      process: path(process), member: member, issuedAtMilliseconds: time)
  }
}

@Suite("The lives of a cluster")
struct LifeGuardTests {
  private let domain: TestDomain
  private let heard = Heard()

  init() throws { self.domain = try TestDomain() }

  private func lives(_ warrant: RecoveryWarrant?, hasStore: Bool = true) -> LifeGuard {
    LifeGuard(
      generation: 1, life: GroupLife(warrant), root: self.domain.authority.root, hasStore: hasStore,
      heard: self.heard.note)
  }

  @Test("begin with one that nobody has to prove, and members of the same take each other")
  func same() throws {
    let first = self.lives(nil)
    try first.check(incarnation: 0, warrant: [])
    try first.check(incarnation: 1, warrant: [])
    let warrant = try self.domain.warrant(2)
    let second = self.lives(warrant)
    try second.check(incarnation: 2, warrant: warrant.bytes)
    // The same, signed once more.
    try second.check(incarnation: 2, warrant: self.domain.warrant(2).bytes)
    #expect(self.heard.warrants.isEmpty)
  }

  @Test("end when a later one is proved, which is told once, and nothing is heard then")
  func superseded() throws {
    let lives = self.lives(try self.domain.warrant(2))
    let later = try self.domain.warrant(3)
    for _ in 0..<2 {
      #expect(throws: MemberError.notServing) { try lives.check(incarnation: 3, warrant: later.bytes) }
    }
    #expect(throws: MemberError.notServing) { try lives.check(incarnation: 1, warrant: []) }
    #expect(self.heard.warrants == [later])
    #expect(lives.life.incarnation == GroupIncarnation(2))
  }

  @Test("of which the earlier is over are told the later one and its proof")
  func stale() throws {
    let warrant = try self.domain.warrant(3, time: 5)
    let lives = self.lives(warrant)
    let stale = MemberError.staleIncarnation(GroupLife(warrant))
    #expect(throws: stale) { try lives.check(incarnation: 1, warrant: []) }
    #expect(throws: stale) { try lives.check(incarnation: 2, warrant: self.domain.warrant(2, time: 9).bytes) }
    // An operator may have given the same number to two processes: one of both has to give way.
    let other = try self.domain.warrant(3, process: "/servers/3", member: 103, time: 4)
    #expect(throws: stale) { try lives.check(incarnation: 3, warrant: other.bytes) }
    #expect(self.heard.warrants.isEmpty)

    // Which is what the other one acts on.
    let behind = self.lives(other)
    behind.note(stale)
    #expect(self.heard.warrants == [warrant])
    #expect(throws: MemberError.notServing) { try behind.check(incarnation: 3, warrant: other.bytes) }
  }

  @Test("are not ended by a claim that the root principal did not sign for this generation")
  func forged() throws {
    let lives = self.lives(nil)
    let stranger = try TestDomain()
    let good = try self.domain.warrant(2).bytes
    var changed = good
    changed[good.count - 1] ^= 1
    #expect(throws: MemberError.invalid(field: "warrant")) { try lives.check(incarnation: 2, warrant: []) }
    #expect(throws: MemberError.invalid(field: "incarnation")) { try lives.check(incarnation: 3, warrant: good) }
    let claims = [changed, [1, 2, 3], try stranger.warrant(2).bytes, try self.domain.warrant(2, generation: 2).bytes]
    for claim in claims {
      #expect(throws: MemberError.invalid(field: "warrant")) { try lives.check(incarnation: 2, warrant: claim) }
    }
    lives.note(MemberError.staleIncarnation(GroupLife(try stranger.warrant(2))))
    lives.note(MemberError.staleIncarnation(.first))
    lives.note(MemberError.permissionDenied)
    #expect(self.heard.warrants.isEmpty)
    try lives.check(incarnation: 1, warrant: [])
  }

  @Test("do not bind a process without a store, which takes the latest and stays there")
  func withoutStore() throws {
    let lives = self.lives(nil, hasStore: false)
    let (second, third) = (try self.domain.warrant(2), try self.domain.warrant(3))
    try lives.check(incarnation: 1, warrant: [])
    try lives.check(incarnation: 2, warrant: second.bytes)
    try lives.check(incarnation: 3, warrant: third.bytes)
    #expect(throws: MemberError.staleIncarnation(GroupLife(third))) {
      try lives.check(incarnation: 2, warrant: second.bytes)
    }
    #expect(self.heard.warrants == [second, third])
  }
}

@Suite("Members of two lives over TLS", .timeLimit(.minutes(2)))
struct LifeServiceTests {
  @Test("refuse each other's streams, and the earlier one hears why, whoever begins", arguments: [true, false])
  func streams(earlierBegins: Bool) async throws {
    let cluster = try TestCluster(2)
    let warrant = try cluster.domain.warrant(2)
    let (heard, inbox) = (Heard(), Inbox())
    let earlier = cluster.lives(heard: heard.note)
    let later = cluster.lives(GroupLife(warrant)) { _ in Issue.record("The later life does not end.") }
    let (begins, serves) = earlierBegins ? (earlier, later) : (later, earlier)
    try await cluster.withServer(2, inbox, lives: serves) { address in
      try await cluster.withConnections(1, Inbox(), lives: begins) { connections in
        connections.connect(to: [cluster.peer(2, at: address)])
        try await eventually { heard.warrants == [warrant] }
        try await eventually { connections.status.allSatisfy { $0.failure != nil } }
        let reasons = Set(connections.status.compactMap { $0.failure?.reason })
        #expect(reasons.isSubset(of: earlierBegins ? ["STALE_INCARNATION"] : ["NOT_SERVING"]), "\(reasons)")
      }
    }
    #expect(inbox.received.isEmpty)
  }

  @Test("do not introduce themselves to each other, and the earlier one hears why", arguments: [true, false])
  func introduce(earlierAsks: Bool) async throws {
    let cluster = try TestCluster(2)
    let warrant = try cluster.domain.warrant(2)
    let heard = Heard()
    let earlier = cluster.lives(heard: heard.note)
    let later = cluster.lives(GroupLife(warrant))
    try await cluster.withServer(2, Inbox(), lives: earlierAsks ? later : earlier) { address in
      try await cluster.withConnections(1, Inbox(), lives: earlierAsks ? earlier : later) { connections in
        var own = cluster.identity(1)
        if !earlierAsks {
          own.incarnation = GroupIncarnation(2)
          own.warrant = warrant.bytes
        }
        let path = cluster.processes[1].path
        do {
          _ = try await connections.introduce(own, to: path, at: [address])
          Issue.record("It was taken for one of the same life.")
        } catch {
          #expect(StatusDetails(describing: error).reason == (earlierAsks ? "STALE_INCARNATION" : "NOT_SERVING"))
          (earlierAsks ? earlier : later).note(error)
        }
        #expect(heard.warrants == [warrant])
      }
    }
  }

  @Test("take no snapshots of an earlier life, which hears why")
  func snapshot() async throws {
    let cluster = try TestCluster(2)
    let donor = try SnapshotDonor(seed: Seeds.take(1)[0])
    try await donor.fill(20)
    let warrant = try cluster.domain.warrant(2)
    let receiver = SnapshotReceiver(
      cluster, 2, directory: donor.target, lives: cluster.lives(GroupLife(warrant)))
    try await cluster.withSnapshotServer(2, receiver) { address in
      let snapshot = try await donor.store.snapshot()
      defer { snapshot.close() }
      do {
        try await cluster.send(snapshot, of: donor.store, to: address)
        Issue.record("It was taken.")
      } catch {
        #expect(StatusDetails(describing: error).reason == "STALE_INCARNATION")
        let heard = Heard()
        cluster.lives(heard: heard.note).note(error)
        #expect(heard.warrants == [warrant])
      }
      #expect(receiver.installed.isEmpty)
      try await cluster.send(snapshot, of: donor.store, life: GroupLife(warrant), to: address)
      #expect(receiver.installed.count == 1)
    }
  }
}
