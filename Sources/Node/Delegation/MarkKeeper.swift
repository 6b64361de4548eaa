// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import Logging
internal import Replication
internal import Sectors
internal import ServiceLifecycle

/// Settles, on the member that leads, what steps over two clusters have left behind.
struct MarkKeeper: ServiceLifecycle.Service {
  let group: SectorGroup
  let filesystem: Filesystem
  let logger: Logger

  private static let interval = Duration.seconds(5)
  /// Nanoseconds. Nobody takes longer for a step, unless it has been stopped: then it finds its inode condemned.
  private static let age: Int64 = 60_000_000_000

  func run() async throws {
    await cancelWhenGracefulShutdown {
      while !Task.isCancelled {
        try? await Task.sleep(for: Self.interval)
        guard self.group.replica.leader == self.group.replica.member else { continue }
        do {
          let count = try await self.filesystem.settleMarks(olderThan: Self.age)
          if count > 0 { self.logger.info("settled unfinished names", metadata: ["count": "\(count)"]) }
        } catch {
          self.logger.debug("unfinished names were not settled", metadata: ["error": "\(error)"])
        }
      }
    }
  }
}
