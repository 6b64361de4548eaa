// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import Transport
internal import Trust

extension ClientCore {
  /// How often it is looked which clusters are to be asked for their members. Programs that do one thing and end need not
  /// know them.
  private static var tick: Duration { .seconds(1) }
  /// Between two looks at one cluster: doubled each time, up to the second. A cluster that is being set up gets its members
  /// one after the other, and the one that the profile names may be the first to go.
  private static var lookIntervalMin: Duration { .seconds(2) }
  private static var lookIntervalMax: Duration { .seconds(60) }

  /// Learns, now and then, which processes belong to the clusters. A profile may name one only, and others may have
  /// joined since: when that one is gone, nobody could say any more who else there is.
  func learnMembers() async {
    // Nobody tells anonymous callers.
    guard !self.isAnonymous else { return }
    var looked: [ObjectIdentifier: (last: ContinuousClock.Instant, interval: Duration)] = [:]
    while (try? await Task.sleep(for: Self.tick)) != nil {
      let clusters = self.clusters
      let now = ContinuousClock.now
      looked = looked.filter { entry in clusters.contains { ObjectIdentifier($0) == entry.key } }
      await withTaskGroup(of: Void.self) { group in
        for cluster in clusters {
          let former = looked[ObjectIdentifier(cluster)]
          if let former, now - former.last < former.interval { continue }
          guard let connection = cluster.openConnection else { continue }
          let interval = former.map { min($0.interval * 2, Self.lookIntervalMax) } ?? Self.lookIntervalMin
          looked[ObjectIdentifier(cluster)] = (now, interval)
          group.addTask { await cluster.learnMembers(over: connection) }
        }
      }
    }
  }
}

extension ClusterCore {
  private static var lookPatience: Duration { .seconds(5) }
  private static var memberCountMax: Int { 64 }

  fileprivate func learnMembers(over connection: NodeConnection) async {
    var options = CallOptions.defaults
    options.timeout = Self.lookPatience
    let cluster = Blocktree_V1_ClusterService.Client(wrapping: connection.client)
    // It is only to be prepared: whatever this fails for, calls notice it when they need to.
    guard let status = try? await cluster.getStatus(.init(), options: options) else { return }
    for member in status.members.prefix(Self.memberCountMax) {
      guard let path = try? TreePath(parsing: member.process) else { continue }
      self.learn(ProcessHint(path: path, addresses: member.addresses.compactMap { try? NetworkAddress(parsing: $0) }))
    }
  }
}
