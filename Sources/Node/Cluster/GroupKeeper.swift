// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
internal import Inodes
internal import Logging
internal import Raft
internal import Replication
internal import Sectors
internal import SectorStore
internal import ServiceLifecycle
private import Synchronization
internal import Transport
internal import Trust

/// Brings a cluster's membership to what the credentials say, while this member leads: asks new processes who they are,
/// makes them learners, sends snapshots to those that lack too much, makes voters of those that have caught up, and drops
/// those whose credentials are gone. And tells the connections, on each member, who the others are.
final class GroupKeeper: ServiceLifecycle.Service {
  let group: SectorGroup
  let connections: MemberConnections
  let lives: LifeGuard
  let dialer: Dialer
  let members: MemberList
  let logger: Logger
  private let state = Mutex(State())

  init(
    group: SectorGroup, connections: MemberConnections, lives: LifeGuard, dialer: Dialer, members: MemberList,
    logger: Logger
  ) {
    self.group = group
    self.connections = connections
    self.lives = lives
    self.dialer = dialer
    self.members = members
    self.logger = logger
  }

  private struct State {
    /// Who answered at a path when it was asked last.
    var introduced: [TreePath: MemberIdentity] = [:]
    /// When that was.
    var answered: [TreePath: UInt64] = [:]
    /// When it was asked last.
    var asked: [TreePath: UInt64] = [:]
    var asking: Set<TreePath> = []
    var sending: Set<MemberID> = []
  }

  /// How often everything is looked at, when nobody says that something has changed.
  private static let interval = Duration.milliseconds(250)
  /// A member that was not heard for so long is asked who it is: its disk may have been replaced.
  private static let silenceMax: UInt64 = 2_000_000_000
  private static let askInterval: UInt64 = 1_000_000_000

  func run() async throws {
    await cancelWhenGracefulShutdown {
      await withDiscardingTaskGroup { tasks in
        let (rounds, round) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        tasks.addTask { for await _ in self.group.changes { round.yield() } }
        tasks.addTask {
          while !Task.isCancelled {
            round.yield()
            try? await Task.sleep(for: Self.interval)
          }
          round.finish()
        }
        for await _ in rounds { await self.look(&tasks) }
      }
    }
  }

  private func look(_ tasks: inout DiscardingTaskGroup) async {
    let status = self.group.replica.status
    self.connectPeers(status)
    guard status.leadership.role == .leader, self.group.replica.leadingTerm != nil,
      let paths = self.group.wantedMembers
    else { return }
    var wanted: Set<MemberID> = []
    if paths.contains(self.group.memberPath) { wanted.insert(self.group.replica.member) }
    for path in paths where path != self.group.memberPath {
      if let member = self.member(at: path, status, &tasks) { wanted.insert(member) }
    }
    await self.change(status, to: wanted)
    self.sendSnapshots(&tasks)
  }

  private func connectPeers(_ status: ReplicaStatus) {
    let peers = status.membership.members.compactMap { member -> MemberPeer? in
      guard member != self.group.replica.member, let path = self.group.path(of: member) else { return nil }
      return MemberPeer(id: member, path: path, addresses: self.group.addresses(of: path))
    }
    self.connections.connect(to: peers)
    // A store that has failed does not tell who they are.
    if peers.count == status.membership.members.count(where: { $0 != self.group.replica.member }) {
      self.members.note(peers)
    }
  }

  /// Who is at a path: the member that is heard from there, or whoever answers.
  private func member(at path: TreePath, _ status: ReplicaStatus, _ tasks: inout DiscardingTaskGroup) -> MemberID? {
    let known = status.membership.members.first { self.group.path(of: $0) == path }
    let now = MonotonicClock.now.nanoseconds
    let lastHeard = status.members.first { $0.member == known }?.lastHeard.nanoseconds ?? 0
    if let known, lastHeard + Self.silenceMax > now, self.isComplete(path) { return known }
    let (answer, mayAsk) = self.state.withLock { state in
      let mayAsk = state.asked[path, default: 0] + Self.askInterval <= now && state.asking.insert(path).inserted
      if mayAsk { state.asked[path] = now }
      // An answer from before the member was heard says nothing about who is there now.
      let isNewer = known == nil || state.answered[path, default: 0] > lastHeard
      return (isNewer ? state.introduced[path] : nil, mayAsk)
    }
    if mayAsk { tasks.addTask { await self.ask(path) } }
    return answer?.member ?? known
  }

  /// Whether the process at a path was not without a store when it was asked last.
  private func isComplete(_ path: TreePath) -> Bool {
    self.state.withLock { $0.introduced[path].map { $0.lastLogIndex > .zero } ?? true }
  }

  private func ask(_ path: TreePath) async {
    let own = MemberIdentity(
      generation: self.group.generation.rawValue, member: self.group.replica.member,
      incarnation: self.group.life.incarnation, warrant: self.group.life.warrant?.bytes ?? [],
      lastLogIndex: self.group.replica.status.persisted)
    do {
      let answer = try await self.connections.introduce(own, to: path, at: self.group.addresses(of: path))
      // Without a store it belongs to none. With that of another life it is not the one that is wanted.
      if answer.lastLogIndex > .zero {
        try self.lives.check(incarnation: answer.incarnation.rawValue, warrant: answer.warrant)
      }
      self.state.withLock { state in
        state.introduced[path] = answer
        state.answered[path] = MonotonicClock.now.nanoseconds
        state.asking.remove(path)
      }
    } catch {
      self.lives.note(error)
      self.logger.debug("a process does not answer", metadata: ["process": "\(path)", "error": "\(error)"])
      self.state.withLock { _ = $0.asking.remove(path) }
    }
  }

  private func change(_ status: ReplicaStatus, to wanted: Set<MemberID>) async {
    let next = MembershipPlan.next(
      status, wanted: wanted, at: MonotonicClock.now, silenceMax: self.group.timing.silenceMax)
    guard let target = next else { return }
    do {
      // Their names first, so that every member can connect to them.
      for member in target.members where self.group.path(of: member) == nil {
        let path = self.state.withLock { state in state.introduced.first { $0.value.member == member }?.key }
        guard let path else { return }
        try await self.group.setPath(path, of: member)
      }
      try self.group.replica.changeMembership(to: target, expecting: status.membershipIndex)
      self.logger.info(
        "the membership changes",
        metadata: ["voters": "\(self.names(target.voters))", "learners": "\(self.names(target.learners))"])
    } catch {
      self.logger.debug("the membership was not changed", metadata: ["error": "\(error)"])
    }
  }

  private func names(_ members: [MemberID]) -> String {
    members.map { member in self.group.path(of: member).map { "\($0)" } ?? "\(member.rawValue)" }
      .joined(separator: " ")
  }

  // MARK: Snapshots

  private func sendSnapshots(_ tasks: inout DiscardingTaskGroup) {
    let status = self.group.replica.status
    var members = Set(self.group.replica.takeSnapshotRequests().keys)
    let withoutStore = self.state.withLock { state in
      Set(state.introduced.values.filter { $0.lastLogIndex == .zero }.compactMap(\.member))
    }
    members.formUnion(withoutStore.intersection(status.membership.members))
    for member in members where self.state.withLock({ $0.sending.insert(member).inserted }) {
      tasks.addTask { await self.sendSnapshot(to: member) }
    }
  }

  /// The same snapshot again when it did not get through: what the member has of it is not sent twice.
  private func send(_ snapshot: StoreSnapshot, to peer: MemberPeer) async throws {
    var attemptsLeft = Self.snapshotAttemptsMax
    while true {
      do {
        return try await SnapshotSender.send(
          snapshot, of: self.group.store, from: self.group.replica.member, life: self.group.life,
          generation: self.group.generation.rawValue, to: peer, dialer: self.dialer,
          heal: { [group] in await group.heal($0) })
      } catch {
        attemptsLeft -= 1
        guard attemptsLeft > 0, self.group.replica.leader == self.group.replica.member, self.mayPass(error) else {
          throw error
        }
        try await Task.sleep(for: .seconds(1))
      }
    }
  }

  private static let snapshotAttemptsMax = 10

  /// Whether an error may pass: a connection that breaks, or a process that begins again.
  private func mayPass(_ error: any Error) -> Bool {
    switch error {
    case let details as StatusDetails: details.code == .unavailable && details.reason != "NOT_SERVING"
    case is TransportError: true
    default: false
    }
  }

  /// Who is there may be another one now.
  private func forget(_ path: TreePath) {
    self.state.withLock { state in
      state.introduced[path] = nil
      state.asked[path] = nil
    }
  }

  /// Waits until a member has taken up the log where its snapshot ends, or has had long enough for it.
  private func waitUntilFollowing(_ member: MemberID, _ index: StoreLogIndex) async {
    let end = ContinuousClock.now + Self.followingPatience
    while ContinuousClock.now < end, !Task.isCancelled {
      let status = self.group.replica.status
      guard status.leadership.role == .leader, let progress = status.members.first(where: { $0.member == member })
      else { return }
      if progress.replication == .replicating, progress.match.rawValue >= index.rawValue { return }
      try? await Task.sleep(for: .milliseconds(100))
    }
  }

  private static let followingPatience = Duration.seconds(30)

  private func sendSnapshot(to member: MemberID) async {
    var index: StoreLogIndex?
    if let path = self.group.path(of: member) {
      do {
        let snapshot = try await self.group.store.snapshot()
        defer { snapshot.close() }
        let peer = MemberPeer(id: member, path: path, addresses: self.group.addresses(of: path))
        self.logger.info(
          "sending a snapshot", metadata: ["to": "\(path)", "index": "\(snapshot.index.rawValue)"])
        try await self.send(snapshot, to: peer)
        index = snapshot.index
        self.logger.info("a snapshot is there", metadata: ["to": "\(path)", "index": "\(snapshot.index.rawValue)"])
        self.forget(path)
        self.group.replica.snapshotEnded(for: member, through: index)
        // While it is open, the entries that follow it are kept.
        await self.waitUntilFollowing(member, snapshot.index)
      } catch {
        self.lives.note(error)
        self.logger.warning("a snapshot was not sent", metadata: ["to": "\(path)", "error": "\(error)"])
        try? await Task.sleep(for: .seconds(1))
      }
      self.forget(path)
    }
    if index == nil { self.group.replica.snapshotEnded(for: member, through: nil) }
    self.state.withLock { _ = $0.sending.remove(member) }
  }
}
