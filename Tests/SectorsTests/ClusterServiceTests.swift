// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import GRPCCore
import Inodes
import Logging
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

@Suite("The cluster service", .timeLimit(.minutes(2)))
struct ClusterServiceTests {
  @Test("serves nobody without a credential that stands in the tree")
  func confirmed() async throws {
    try await ThreeMembers.with { cluster in
      let stranger = try cluster.domain.principal(.user, "/stranger")
      for number in 0..<3 {
        for principal in [nil, stranger] {
          let status = await failure { _ = try await cluster.status(of: number, as: principal) }
          #expect(status.code == .permissionDenied && status.reason == "PERMISSION_DENIED")
          let transfer = await failure { _ = try await cluster.transfer(at: number, as: principal) }
          #expect(transfer.code == .permissionDenied && transfer.reason == "PERMISSION_DENIED")
        }
      }
    }
  }

  @Test("says on each member how that one is, and on the leader how far the others are")
  func status() async throws {
    try await ThreeMembers.with { cluster in
      let leader = try await cluster.leader()
      let paths = cluster.members.map { "\($0.path)" }
      for number in 0..<3 {
        try await cluster.expectApplied(by: number)
        let status = try await cluster.status(of: number, as: cluster.domain.bob)
        #expect(status.generation == 1 && status.process == paths[number])
        #expect(status.member == cluster.members[number].id.rawValue)
        #expect(status.role == (number == leader ? .leader : .follower))
        #expect(status.leader.process == paths[leader])
        #expect(status.leader.member == cluster.members[leader].id.rawValue)
        #expect(status.leader.addresses == ["\(try cluster.members[leader].address)"])
        #expect(status.term >= 1 && status.commitIndex > 1 && status.appliedIndex == status.commitIndex)
        #expect(status.lastLogIndex >= status.commitIndex && status.persistedIndex <= status.lastLogIndex)
        #expect(status.members.map(\.process) == paths)
        #expect(status.members.map(\.member) == cluster.members.map(\.id.rawValue))
        #expect(try status.members.map(\.addresses) == cluster.members.map { ["\(try $0.address)"] })
        #expect(status.members.allSatisfy { $0.vote == .voter && $0.hasProgress == (number == leader) })
        #expect(status.disk.freeBytes > 0 && status.disk.logBytes > 0)
        #expect(status.disk.allocatedBytes >= status.disk.usedBytes)
        #expect(status.isWritable && status.storeFailure.isEmpty && status.transferTarget == 0)
        #expect(!status.membershipIsChanging)
      }
      try await eventually {
        let status = try await cluster.status(of: leader, as: cluster.domain.bob)
        return status.members.allSatisfy { member in
          let progress = member.progress
          return progress.lag == 0 && progress.matchIndex == status.lastLogIndex
            && progress.nextIndex == status.lastLogIndex + 1 && progress.replication == .replicating
            && progress.isWritable && progress.silenceMs < 10_000
        }
      }
    }
  }

  @Test("shows how far a member lags that does not answer any more, and does not hand over to it")
  func lag() async throws {
    try await ThreeMembers.with { cluster in
      let leader = try await cluster.leader()
      let dead = (leader + 1) % 3
      cluster.members[dead].group.replica.stop()
      for _ in 0..<3 { _ = try await cluster.members[leader].group.allocateInodes(1) }
      try await eventually {
        let status = try await cluster.status(of: leader, as: cluster.domain.bob)
        let progress = status.members[dead].progress
        return progress.lag >= 3 && progress.lag == status.lastLogIndex - progress.matchIndex
          && progress.silenceMs > 400 && status.members[3 - leader - dead].progress.lag == 0
      }
      let answer = await failure {
        _ = try await cluster.transfer(at: leader, to: "\(cluster.members[dead].path)", as: cluster.domain.ann)
      }
      #expect(answer.code == .failedPrecondition && answer.reason == "TRANSFER_FAILED")
      #expect(answer.metadata == ["cause": "TIMEOUT"])
      // It leads on.
      let status = try await cluster.status(of: leader, as: cluster.domain.bob)
      #expect(status.role == .leader && status.transferTarget == 0)
      _ = try await cluster.members[leader].group.allocateInodes(1)
    }
  }

  @Test("hands leadership over to whom is named, and answers when that one leads")
  func transfer() async throws {
    try await ThreeMembers.with { cluster in
      let leader = try await cluster.leader()
      let target = (leader + 2) % 3
      let path = "\(cluster.members[target].path)"
      let former = try await cluster.status(of: leader, as: cluster.domain.ann)
      let answer = try await cluster.transfer(at: leader, to: path, as: cluster.domain.ann)
      #expect(answer.leader.process == path && answer.term > former.term)
      #expect(answer.leader.member == cluster.members[target].id.rawValue)
      #expect(answer.leader.addresses == ["\(try cluster.members[target].address)"])
      let status = try await cluster.status(of: target, as: cluster.domain.ann)
      #expect(status.role == .leader && status.term == answer.term)
      // What was acknowledged is there, and it goes on.
      let group = cluster.members[target].group
      #expect(try await group.record(.rootDirectory) != nil)
      _ = try await group.allocateInodes(1)

      // Once more the same: it is so already.
      let again = try await cluster.transfer(at: target, to: path, as: cluster.domain.ann)
      #expect(again == answer)
      // The former leader says where to go.
      let hint = await failure { _ = try await cluster.transfer(at: leader, to: path, as: cluster.domain.ann) }
      #expect(hint.code == .unavailable && hint.reason == "NOT_LEADER")
      #expect(hint.metadata == ["leader": path, "addresses": "\(try cluster.members[target].address)"])
    }
  }

  @Test("lets processes of the cluster and the root directory's owner hand over, and nobody else")
  func permission() async throws {
    try await ThreeMembers.with { cluster in
      let leader = try await cluster.leader()
      let refusal = await failure { _ = try await cluster.transfer(at: leader, as: cluster.domain.bob) }
      #expect(refusal.code == .permissionDenied && refusal.reason == "PERMISSION_DENIED")
      #expect(try await cluster.status(of: leader, as: cluster.domain.bob).role == .leader)

      let malformed = await failure { _ = try await cluster.transfer(at: leader, to: "node", as: cluster.domain.ann) }
      #expect(malformed.code == .invalidArgument && malformed.metadata == ["field": "to"])
      let unknown = await failure { _ = try await cluster.transfer(at: leader, to: "/bob", as: cluster.domain.ann) }
      #expect(unknown.code == .notFound && unknown.reason == "NOT_FOUND" && unknown.metadata == ["path": "/bob"])

      let process = cluster.members[(leader + 1) % 3].principal
      let answer = try await cluster.transfer(at: leader, as: process)
      #expect(answer.leader.process != "\(cluster.members[leader].path)")
    }
  }

  @Test("has nobody to hand over to where there is one member")
  func alone() async throws {
    let test = try await TestGroup()
    let group = try test.group
    let status = group.clusterStatus()
    #expect(status.members.map(\.process) == [test.domain.node.path])
    #expect(status.leader?.process == test.domain.node.path)
    #expect(status.members.first?.progress?.lag == 0)
    await #expect(throws: TransferError.failed(.unfit)) { _ = try await group.transferLeadership(to: nil) }
    let own = try await group.transferLeadership(to: test.domain.node.path)
    #expect(own.leader.process == test.domain.node.path)
  }

  @Test("says who comes and who goes while the membership changes")
  func votes() throws {
    typealias Vote = ClusterStatus.Member.Vote
    let ids = (1...5).map { MemberID(UInt64($0)) }
    let joint = try #require(
      Membership(voters: [ids[0], ids[1]], outgoing: [ids[0], ids[2]], learners: [ids[2], ids[3]]))
    #expect(ids.map { Vote(of: $0, in: joint) } == [.voter, .coming, .going, .learner, nil])
    let settled = try #require(Membership(voters: [ids[0]], learners: [ids[1]]))
    #expect(ids.prefix(3).map { Vote(of: $0, in: settled) } == [.voter, .learner, nil])
  }
}

/// A cluster of three members of one process: real stores, consensus and servers on loopback. `/node1` to `/node3` are
/// in the tree with their addresses; the root directory is Ann's.
final class ThreeMembers: Sendable {
  final class Member: Sendable {
    let id: MemberID
    let keys: PrincipalKeys
    let principal: TestPrincipal
    let group: SectorGroup
    let connections: MemberConnections
    let server: GRPCServer<NodeServerTransport>
    let transport: NodeServerTransport
    private let heardAt = Mutex<NetworkAddress?>(nil)

    var path: TreePath { self.principal.path }
    var address: NetworkAddress { get throws { try #require(self.heardAt.withLock { $0 }) } }

    init(
      _ principal: TestPrincipal, _ group: SectorGroup, _ connections: MemberConnections,
      _ handler: MemberServiceHandler,
      in domain: TestDomain
    ) throws {
      self.id = group.replica.member
      self.keys = principal.keys
      self.principal = principal
      self.group = group
      self.connections = connections
      var logger = Logger(label: "test")
      logger.logLevel = .critical
      self.transport = try NodeServerTransport(
        security: TransportSecurity(
          root: domain.authority.root, identity: .init(chain: principal.credential.chain, key: principal.key)),
        listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)], group: MultiThreadedEventLoopGroup.singleton,
        logger: logger)
      let operating = ClusterServiceHandler(group) { _ in }
      self.server = GRPCServer(transport: self.transport, services: [handler, operating, RepairServiceHandler(group)])
    }

    func listen() async throws {
      let address = try await self.transport.listeningAddresses.first
      self.heardAt.withLock { $0 = address }
    }
  }

  let domain: TestDomain
  let members: [Member]
  /// The store of a member is in a directory named by its number, from 1.
  let directory: String

  private init(_ domain: TestDomain, _ members: [Member], directory: String) {
    self.domain = domain
    self.members = members
    self.directory = directory
  }

  static func with(_ body: (ThreeMembers) async throws -> Void) async throws {
    let directory = NSTemporaryDirectory() + "SectorsTests/" + UUID().uuidString
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let domain = try TestDomain()
    var members: [Member] = []
    defer {
      for member in members {
        member.group.replica.stop()
        member.group.store.abandon()
      }
    }
    for number in 1...3 { members.append(try await self.member(number, domain, directory)) }
    let cluster = ThreeMembers(domain, members, directory: directory)
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      for member in cluster.members {
        tasks.addTask { try await member.server.serve() }
        tasks.addTask { await member.connections.run() }
        try await member.listen()
      }
      let result: Result<Void, any Error>
      do {
        try await cluster.begin()
        try await body(cluster)
        result = .success(())
      } catch {
        result = .failure(error)
      }
      for member in cluster.members { member.connections.connect(to: []) }
      for member in cluster.members { member.server.beginGracefulShutdown() }
      // The servers end by themselves, the connections do not.
      for _ in cluster.members { try await tasks.next() }
      tasks.cancelAll()
      try result.get()
    }
  }

  private func begin() async throws {
    let peers = try self.members.map { MemberPeer(id: $0.id, path: $0.path, addresses: [try $0.address]) }
    for member in self.members { member.connections.connect(to: peers.filter { $0.id != member.id }) }
    try await self.format()
  }

  private static func member(_ number: Int, _ domain: TestDomain, _ directory: String) async throws -> Member {
    let ids = (1...3).map { MemberID(100 + UInt64($0)) }
    let place = "\(directory)/\(number)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    var configuration = TestGroup.configuration
    configuration.memberID = ids[number - 1].rawValue
    try SectorStore.create(at: place, configuration)
    // All begin with the same first entry, as after a snapshot.
    let membership = try #require(Membership(voters: ids))
    let founding = try SectorStore.open(at: place, configuration)
    var change = Change(term: 1)
    change.facts = [SectorStore.membershipFact(membership.bytes)]
    _ = try await founding.commit(change)
    try await founding.close()

    let store = try SectorStore.open(at: place, configuration, appliesLog: false)
    let principal = try domain.principal(.process, "/node\(number)", services: [.sector, .filesystem])
    let box = ReplicaBox()
    let receiver = MemberReceiver(
      received: { box.value?.receive($0, payloads: $1, from: $2) }, unreachable: { box.value?.unreachable($0) })
    let security = try TransportSecurity(
      root: domain.authority.root, identity: .init(chain: principal.credential.chain, key: principal.key))
    let lives = LifeGuard(generation: 1, life: .first, root: domain.authority.root, heard: { _ in })
    let connections = MemberConnections(
      member: ids[number - 1], lives: lives,
      dialer: Dialer(security, group: MultiThreadedEventLoopGroup.singleton.next(), limits: MemberLimits.transport()),
      receiver: receiver)
    let group = try await SectorGroup(
      store: store, generation: .root, sectorSize: store.configuration.sectorSize,
      member: .init(credential: principal.credential, key: principal.key), verifier: domain.verifier,
      signatures: SignatureCache(), now: presentTime, timing: self.timing, transport: connections)
    box.set(group.replica)
    let paths = try (1...3).map { try path("/node\($0)") }
    var service = MemberServiceHandler.Configuration(
      generation: 1, store: store.configuration,
      identity: {
        MemberIdentity(
          generation: 1, member: group.replica.member, incarnation: GroupIncarnation(1),
          lastLogIndex: group.replica.status.persisted)
      }, admits: { paths.contains($0.path) },
      memberID: { path in paths.firstIndex(of: path).map { ids[$0] } }, lives: lives)
    service.release = { path, member in try await group.release(path, member: member) }
    let handler = MemberServiceHandler(service, receiver: receiver)
    return try Member(principal, group, connections, handler, in: domain)
  }

  /// Slow, so that a machine that has other things to do elects nobody without need.
  private static var timing: GroupTiming {
    var timing = GroupTiming()
    timing.heartbeatInterval = .milliseconds(50)
    timing.electionTimeout = .milliseconds(800)...(.milliseconds(1_600))
    return timing
  }

  private final class ReplicaBox: Sendable {
    private let replica = Mutex<ReplicaDriver?>(nil)
    var value: ReplicaDriver? { self.replica.withLock { $0 } }
    func set(_ value: ReplicaDriver) { self.replica.withLock { $0 = value } }
  }

  /// Makes what every domain has, on whoever is elected.
  private func format() async throws {
    let leader = self.members[try await self.leader()]
    let group = leader.group
    for member in self.members { try await group.setPath(member.path, of: member.id) }
    _ = try await group.allocateInodes(7)
    let rules = AccessRules(owner: self.domain.ann.path, group: .root, mode: Mode(truncating: 0o755))
    var commit = Commit()
    for (number, type) in [(UInt64(1), FileType.superblock), (2, .directory)] {
      var inode = TestInode(file(number), type: type, rules: rules)
      inode.links.parents = []
      commit.records.append(try inode.next(by: leader.principal))
    }
    var credentials = [self.domain.ann.credentialFile, self.domain.bob.credentialFile]
    for member in self.members {
      credentials.append(
        try TestDomain.principal(
          .process, "\(member.path)", services: [.sector, .filesystem], keys: member.keys, addresses: [member.address],
          by: self.domain.authority
        ).credentialFile)
    }
    for (number, credential) in credentials.enumerated() {
      var inode = TestInode(file(3 + UInt64(number)), type: .credential, rules: rules)
      inode.credential = credential.bytes
      commit.records.append(try inode.next(by: leader.principal))
    }
    guard case .applied = try await group.perform(commit, by: leader.principal.credential) else { throw TestFailure() }
    for number in 0..<3 { try await self.expectApplied(by: number) }
  }

  /// Waits until somebody leads and knows what there is.
  func leader() async throws -> Int {
    try await eventually { self.members.contains { $0.group.replica.leadingTerm != nil } }
    return try #require(self.members.firstIndex { $0.group.replica.leadingTerm != nil })
  }

  /// Waits until a member has all that the leader has committed.
  func expectApplied(by number: Int) async throws {
    let leader = self.members[try await self.leader()].group.replica
    let index = leader.status.commit.rawValue
    try await eventually { self.members[number].group.replica.appliedIndex >= index }
  }

  func status(
    of number: Int, as principal: TestPrincipal?
  ) async throws -> Blocktree_V1_ClusterServiceGetStatusResponse {
    try await self.call(number, as: principal) { connection in
      try await Blocktree_V1_ClusterService.Client(wrapping: connection.client).getStatus(.init())
    }
  }

  func transfer(
    at number: Int, to path: String = "", as principal: TestPrincipal?
  ) async throws -> Blocktree_V1_TransferLeadershipResponse {
    try await self.call(number, as: principal) { connection in
      try await Blocktree_V1_ClusterService.Client(wrapping: connection.client).transferLeadership(
        .with { $0.to = path })
    }
  }

  func call<Result: Sendable>(
    _ number: Int, as principal: TestPrincipal?, _ body: (NodeConnection) async throws -> Result
  ) async throws -> Result {
    let security = try TransportSecurity(
      root: self.domain.authority.root, identity: principal.map { .init(chain: $0.credential.chain, key: $0.key) })
    return try await Dialer(security, group: MultiThreadedEventLoopGroup.singleton).withConnection(
      to: self.members[number].address, body)
  }
}
