// SPDX-License-Identifier: Apache-2.0

internal import Inodes
package import Raft
internal import Replication
internal import SectorStore
internal import Synchronization
package import Trust

/// How fast members of a cluster notice that one of them is gone. See `ReplicaConfiguration`.
package struct GroupTiming: Hashable, Sendable {
  package var heartbeatInterval: Duration = .milliseconds(30)
  package var electionTimeout: ClosedRange<Duration> = .milliseconds(150)...(.milliseconds(300))
  /// The clocks of members run at most so much fast or slow. With it, a leader serves reads without asking the others.
  package var clockDriftBound: ClockDriftBound? = ClockDriftBound(perThousand: 10)

  package init() {}

  /// Nanoseconds. A leader that has not heard a member for longer takes it for gone.
  package var silenceMax: UInt64 { UInt64(max(self.electionTimeout.upperBound / .nanoseconds(1), 0)) }
}

extension SectorGroup {
  /// Returns when what this member has applied includes every commit that was answered before the call.
  package func confirmRead() async throws(SectorError) {
    if self.replica.isReadConfirmed { return }
    await self.replica.waitForLeader(Self.electionPatience)
    do { try await self.replica.confirmRead() } catch { throw self.error(error) }
  }

  /// An election that goes well is over by then. Whoever waits longer might as well ask another member.
  private static let electionPatience = Duration.milliseconds(400)

  /// Makes sure that this member leads the cluster, and knows the state that it judges by.
  ///
  /// - Returns: the term of its leadership.
  @discardableResult
  func lead() async throws(SectorError) -> UInt64 {
    while true {
      if let term = self.replica.leadingTerm {
        try self.begin(term)
        return term
      }
      await self.replica.waitForLeader(Self.electionPatience)
      guard self.replica.leader == self.replica.member else { throw .notLeader(self.leader) }
      // It has been elected, and still applies what there was before.
      do { try await self.replica.confirmRead() } catch { throw self.error(error) }
    }
  }

  /// With a new term, nothing is in flight that this member could know of.
  private func begin(_ term: UInt64) throws(SectorError) {
    let counts: (nextInode: UInt64, inodes: UInt64)
    let nextGeneration: UInt64
    let freeze: Freeze
    if self.state.withLock({ $0.term == term }) { return }
    do throws(StoreError) {
      counts = try Self.counts(self.store)
      nextGeneration = try Self.nextGeneration(self.store)
      freeze = try Freeze(of: self.store)
    } catch {
      throw self.error(error)
    }
    self.state.withLock { state in
      guard state.term < term else { return }
      state.term = term
      state.inFlight = InFlight()
      state.operations = [:]
      state.credentialPaths = [:]
      state.nextInode = max(counts.nextInode, InodeNumber.rootDirectory.rawValue + 1)
      state.generations = GenerationNumbers(next: nextGeneration)
      state.inodeCount = counts.inodes
      state.freeze = freeze
      state.retired = []
    }
  }

  // MARK: Who leads

  /// The process that leads, if this member knows. Of one that was removed from the group, any member: it does not hear
  /// any more who leads, and callers may know nobody else.
  package var leader: SectorLeader? {
    let id: MemberID?
    if let leader = self.replica.leader {
      id = leader
    } else {
      let membership = self.replica.status.membership
      id = membership.contains(self.replica.member) ? nil : membership.voters.first
    }
    guard let id, let path = self.path(of: id) else { return nil }
    return SectorLeader(path: path, addresses: self.addresses(of: path))
  }

  /// The process that a member is; nil where it is not known.
  package func path(of member: MemberID) -> TreePath? {
    guard let bytes = try? self.store.fact(Self.memberKey(member)) else { return nil }
    return try? TreePath(parsing: String(decoding: bytes, as: UTF8.self))
  }

  /// Remembers which process a member is. Durable when it returns.
  package func setPath(_ path: TreePath, of member: MemberID) async throws(SectorError) {
    try await self.lead()
    var change = Change()
    change.facts = [Self.memberFact(member, path: path)]
    do throws(StoreError) {
      let pending = try self.replica.propose(change)
      self.replica.flush()
      _ = try await pending.durable()
    } catch {
      throw self.error(error)
    }
  }

  /// The member of the present membership that a process is; nil when it is none.
  package func member(at path: TreePath) -> MemberID? {
    self.replica.status.membership.members.first { self.path(of: $0) == path }
  }

  /// The processes that should be members, by their credentials, without those that are about to lose these; nil when
  /// some can not be read.
  package var wantedMembers: Set<TreePath>? {
    guard self.credentials.damaged.isEmpty else { return nil }
    let entries = self.credentials.all.filter { entry in
      entry.directory == self.home.directory && entry.credential.marks.services.contains(.sector)
    }
    let leaving = self.departures.withLock { Set($0.paths) }
    return Set(entries.map(\.credential.marks.place.path)).subtracting(leaving)
  }

  /// Where a process says that it can be reached.
  package func addresses(of path: TreePath) -> [NetworkAddress] {
    self.credentials.entry(path)?.credential.addresses?.addresses.addresses ?? []
  }

  private static func memberKey(_ member: MemberID) -> String {
    SectorStore.memberFactPrefix + String(member.rawValue, radix: 16)
  }

  /// What keeps the path of the process that a member is.
  static func memberFact(_ member: MemberID, path: TreePath) -> Change.Fact {
    .init(key: self.memberKey(member), value: path.bytes)
  }

  /// Translates what the store or the consensus threw, with who leads instead where that is known.
  func error(_ error: StoreError) -> SectorError {
    if case .notLeader = error { return .notLeader(self.leader) }
    return SectorError(error, generation: self.generation)
  }
}
