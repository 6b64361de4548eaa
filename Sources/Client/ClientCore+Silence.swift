// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
private import Synchronization
internal import Transport

extension ClientCore {
  /// How often it is looked whether anything has been answered.
  private static var watchInterval: Duration { .milliseconds(500) }
  /// Finds out that a process has fallen silent: it was stopped, or the network swallows everything. Its connections
  /// would stay open until the keepalive of the transport notices, which is later than callers want to wait when another
  /// process may serve them.
  ///
  /// When nothing was answered for a while that should have been, the process is asked whether it lives; if that is not
  /// answered either, its connection is closed. What waits there fails then as on any connection that breaks. Nothing
  /// of this happens while no other process is known.
  func watchForSilence() async {
    var former: [ObjectIdentifier: UInt64] = [:]
    while (try? await Task.sleep(for: Self.watchInterval)) != nil {
      var present: [ObjectIdentifier: UInt64] = [:]
      await withTaskGroup(of: Void.self) { group in
        for cluster in self.clusters {
          let (isWaiting, answered) = cluster.waiting.snapshot
          present[ObjectIdentifier(cluster)] = answered
          guard isWaiting, answered == former[ObjectIdentifier(cluster)], let watched = cluster.watched else {
            continue
          }
          group.addTask { await cluster.closeIfSilent(watched.place, watched.connection) }
        }
      }
      former = present
    }
  }
}

extension ClusterCore {
  /// How long a process may take to say that it lives, while calls wait for it. Long enough for one that is only busy.
  private static var probePatience: Duration { .seconds(3) }

  fileprivate func closeIfSilent(_ place: ProcessDirectory.Place, _ connection: NodeConnection) async {
    if await self.isAlive(connection) || Task.isCancelled { return }
    self.silenced(place)
    connection.close()
  }

  private func isAlive(_ connection: NodeConnection) async -> Bool {
    var options = CallOptions.defaults
    options.timeout = Self.probePatience
    let health = Grpc_Health_V1_Health.Client(wrapping: connection.client)
    do {
      _ = try await health.check(.init(), options: options)
      return true
    } catch {
      // Whatever it says, it says something. A connection that has closed needs no closing.
      return (error as? RPCError)?.code != .deadlineExceeded
    }
  }
}

/// Counts what waits for answers.
final class WaitingCount: Sendable {
  private let open = Atomic<Int>(0)
  private let answered = Atomic<UInt64>(0)

  var snapshot: (isWaiting: Bool, answered: UInt64) {
    (self.open.load(ordering: .relaxed) > 0, self.answered.load(ordering: .relaxed))
  }

  func counting<Result>(_ body: () async throws -> Result) async throws -> Result {
    self.open.add(1, ordering: .relaxed)
    defer {
      self.open.subtract(1, ordering: .relaxed)
      self.answered.add(1, ordering: .relaxed)
    }
    return try await body()
  }
}
