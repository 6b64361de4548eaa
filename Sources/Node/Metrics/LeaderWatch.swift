// SPDX-License-Identifier: Apache-2.0

internal import CoreMetrics
internal import Raft
internal import Replication
internal import ServiceLifecycle
internal import Telemetry

/// Counts how often somebody else leads than before. It looks now and then: who leads for less than that may be missed.
struct LeaderWatch: ServiceLifecycle.Service {
  static let changes = "blocktree_cluster_leader_changes_total"

  let replica: ReplicaDriver
  let registry: MetricsRegistry

  static let descriptions: [String: MetricsRegistry.Description] = [
    changes: .init("How often this process saw another leader, or the same in another term. The first counts.")
  ]

  /// Less than an election takes.
  private static let interval = Duration.milliseconds(100)

  func run() async throws {
    let changes = Counter(label: Self.changes, factory: self.registry)
    await cancelWhenGracefulShutdown {
      var last: Leadership?
      while !Task.isCancelled {
        let now = self.replica.status.leadership
        if let leader = now.leader, leader != last?.leader || now.term != last?.term {
          changes.increment()
          last = now
        }
        try? await Task.sleep(for: Self.interval)
      }
    }
  }
}
