// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Inodes
internal import Logging
internal import Replication
internal import Sectors
internal import ServiceLifecycle
internal import Trust

/// Brings the copies of the members' credential files, while this member leads, to what the cluster above has: processes
/// that are added join, and those that are removed leave. Cut off from the cluster above, all goes on as it was.
struct MemberCredentials: ServiceLifecycle.Service {
  let group: SectorGroup
  let above: ClusterAbove
  let logger: Logger

  /// One question of each delegated cluster to the one above.
  private static let interval = Duration.seconds(2)

  func run() async throws {
    await cancelWhenGracefulShutdown {
      var known: [TreePath: CredentialEntry] = [:]
      while !Task.isCancelled {
        if self.group.replica.leader == self.group.replica.member { await self.look(&known) }
        try? await Task.sleep(for: Self.interval)
      }
    }
  }

  private func look(_ known: inout [TreePath: CredentialEntry]) async {
    do throws(SectorError) {
      let entries = try await self.above.credentials(known: known, at: WallClock.date())
      known = entries
      // A directory that says of no process that it stores it is one that was not read rightly.
      guard entries.values.contains(where: { $0.credential.marks.services.contains(.sector) }) else { return }
      try await self.group.setMemberCredentials(entries.values.sorted { $0.path < $1.path })
    } catch {
      self.logger.debug("the members' credentials were not compared", metadata: ["error": "\(error)"])
    }
  }
}
