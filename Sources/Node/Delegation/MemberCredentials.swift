// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import Inodes
internal import Logging
internal import Raft
internal import Replication
internal import Sectors
internal import ServiceLifecycle
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// Brings what a delegated cluster knows of its members to what the cluster above has of their credential files. Cut off
/// from that, all goes on as it was.
///
/// The member that leads keeps the copies: processes that are added join, and those that are removed leave. The others
/// look, too, though less often, as the leader may be among those that were removed: it is asked to hand leadership over,
/// so that it leaves in good order, and if it does not, it is not followed any more.
struct MemberCredentials: ServiceLifecycle.Service {
  let group: SectorGroup
  let above: ClusterAbove
  let inbox: MemberInbox
  let dialer: Dialer
  let logger: Logger

  /// One question of each delegated cluster to the one above.
  private static let interval = Duration.seconds(2)
  /// Looks of the one that leads, for each look of the others.
  private static let followerRounds = 2
  /// For one handover.
  private static let handoverPatience = Duration.seconds(3)

  private struct State {
    /// What was read last, by path.
    var known: [TreePath: CredentialEntry] = [:]
    var revoked = RevokedMembers()
    /// The leader that was asked to hand over.
    var asked: TreePath?
  }

  func run() async throws {
    await cancelWhenGracefulShutdown {
      var state = State()
      var round = 0
      while !Task.isCancelled {
        if self.group.replica.leader == self.group.replica.member {
          state.revoked = RevokedMembers()
          state.asked = nil
          await self.lead(&state)
        } else if round % Self.followerRounds == 0 {
          await self.follow(&state)
        }
        round += 1
        try? await Task.sleep(for: Self.interval)
      }
    }
  }

  private func lead(_ state: inout State) async {
    do throws(SectorError) {
      guard let entries = try await self.look(&state) else { return }
      try await self.group.setMemberCredentials(entries.values.sorted { $0.path < $1.path })
      // Whoever is not a member any more is nobody to be refused.
      self.inbox.refuse([])
    } catch {
      self.logger.debug("the members' credentials were not compared", metadata: ["error": "\(error)"])
    }
  }

  private func follow(_ state: inout State) async {
    do throws(SectorError) {
      let members = Self.keys(self.group.credentials.processes(in: self.group.home.path))
      guard let entries = try await self.look(&state) else { return }
      state.revoked.compare(members, with: Self.keys(entries.values.sorted { $0.path < $1.path }))
    } catch {
      // Who was revoked stays so for as long as nothing else is known.
      self.logger.debug("the members' credentials were not compared", metadata: ["error": "\(error)"])
    }
    await self.refuse(&state)
  }

  /// What the cluster above has; nil when that can not be right.
  private func look(_ state: inout State) async throws(SectorError) -> [TreePath: CredentialEntry]? {
    let entries = try await self.above.credentials(known: state.known, at: WallClock.date())
    state.known = entries
    // A directory that says of no process that it stores it is one that was not read rightly.
    return entries.values.contains { $0.credential.marks.services.contains(.sector) } ? entries : nil
  }

  private static func keys(_ entries: [CredentialEntry]) -> [TreePath: Digest32] {
    Dictionary(entries.map { ($0.path, $0.credential.marks.keyID) }) { first, _ in first }
  }

  private func refuse(_ state: inout State) async {
    let leader = self.group.replica.leader.flatMap { self.group.path(of: $0) }
    if let leader, state.revoked.paths.contains(leader), state.asked != leader {
      state.asked = leader
      self.logger.warning(
        "the leader's credential was removed: it is asked to hand over", metadata: ["leader": "\(leader)"])
      await self.askToHandOver(leader)
      return
    }
    var members: Set<MemberID> = []
    for path in state.revoked.paths {
      if let member = self.group.member(at: path), member != self.group.replica.member { members.insert(member) }
    }
    self.inbox.refuse(members)
  }

  /// Asks a leader, which may be an honest process that does not know yet, to make this member lead. In a group of two
  /// there is no other way, as both votes are needed.
  private func askToHandOver(_ leader: TreePath) async {
    for address in self.group.addresses(of: leader) {
      do {
        return try await self.dialer.withConnection(to: address, expecting: leader) { connection in
          var options = CallOptions.defaults
          options.timeout = Self.handoverPatience
          _ = try await Blocktree_V1_ClusterService.Client(wrapping: connection.client).transferLeadership(
            .with { $0.to = self.group.memberPath.description }, options: options)
        }
      } catch {
        self.logger.debug("leadership was not handed over", metadata: ["leader": "\(leader)", "error": "\(error)"])
      }
    }
  }
}
