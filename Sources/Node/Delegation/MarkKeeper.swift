// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import Logging
internal import Replication
internal import Sectors
internal import ServiceLifecycle

/// Settles what steps over two clusters have left behind, and what uploads have that were broken off. Each member with a filesystem service does, as the one that
/// leads may have none; those that follow wait longer, so that it is mostly done once. Doing it twice does no harm.
struct MarkKeeper: ServiceLifecycle.Service {
  let group: SectorGroup
  let filesystem: Filesystem
  let logger: Logger

  private static let interval = Duration.seconds(5)
  /// Nanoseconds. Nobody takes longer for a step, unless it has been stopped: then it finds its inode condemned.
  private static let age: Int64 = 60_000_000_000
  /// Nanoseconds.
  private static let followerAge: Int64 = 90_000_000_000
  /// How much longer an upload may be without another piece.
  private static let uploadFactor: Int64 = 60

  func run() async throws {
    await cancelWhenGracefulShutdown {
      while !Task.isCancelled {
        try? await Task.sleep(for: Self.interval)
        let isLeader = self.group.replica.leader == self.group.replica.member
        let age = isLeader ? Self.age : Self.followerAge
        do {
          let count = try await self.filesystem.settleMarks(olderThan: age)
          if count > 0 { self.logger.info("settled unfinished names", metadata: ["count": "\(count)"]) }
          let removed = try await self.filesystem.removePending(olderThan: Self.uploadFactor * age)
          if removed > 0 { self.logger.info("removed unfinished files", metadata: ["count": "\(removed)"]) }
        } catch {
          self.logger.debug("unfinished names were not settled", metadata: ["error": "\(error)"])
        }
      }
    }
  }
}
