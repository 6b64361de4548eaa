// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import Replication
internal import Sectors
internal import ServiceLifecycle
private import Synchronization

/// Keeps the streams to the other members open, until everything that needs them has ended.
struct MemberTraffic: ServiceLifecycle.Service {
  let connections: MemberConnections

  func run() async throws {
    await cancelWhenGracefulShutdown { await self.connections.run() }
  }
}

/// Hands what other members say to the consensus, as soon as that runs; until then it is lost, as on any network.
final class MemberInbox: Sendable {
  private let replica = Mutex<ReplicaDriver?>(nil)
  private let revoked = Mutex<Set<MemberID>>([])

  /// From now on these are neither followed nor elected, and no others are refused that.
  func refuse(_ members: Set<MemberID>) { self.revoked.withLock { $0 = members } }

  func refuses(_ member: MemberID?) -> Bool {
    member.map { member in self.revoked.withLock { $0.contains(member) } } ?? false
  }

  func connect(_ replica: ReplicaDriver) { self.replica.withLock { $0 = replica } }

  /// Ends this member's part in the consensus. Blocks.
  func stop() { self.replica.withLock { $0 }?.stop() }

  var receiver: MemberReceiver {
    MemberReceiver(
      received: { message, payloads, sender in
        guard !message.asksToBeFollowed || !self.refuses(sender) else { return }
        self.replica.withLock { $0 }?.receive(message, payloads: payloads, from: sender)
      },
      unreachable: { member in self.replica.withLock { $0 }?.unreachable(member) })
  }
}

/// Hands leadership over before anything of the node stops, so that nobody has to wait for an election.
struct LeadershipHandover: ServiceLifecycle.Service {
  let replica: ReplicaDriver

  /// When nobody takes over by then, the others elect somebody after all.
  private static let patience = Duration.seconds(2)

  func run() async throws {
    try? await gracefulShutdown()
    let status = self.replica.status
    guard status.leadership.role == .leader, status.membership.voters.count > 1 else { return }
    await withTaskGroup { group in
      group.addTask {
        _ = await self.replica.transferLeadership()
        // The target has been told; let it win while this member still answers.
        for _ in 0..<40 where self.replica.status.leadership.role == .leader {
          try? await Task.sleep(for: .milliseconds(10))
        }
      }
      group.addTask { try? await Task.sleep(for: Self.patience) }
      await group.next()
      group.cancelAll()
    }
  }
}
