// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import Inodes
internal import Sectors
internal import ServiceLifecycle
internal import Trust

/// Keeps what a process of a delegated directory knows of what lies above: the permissions of the directories, and which
/// processes there are.
struct AboveWatch: ServiceLifecycle.Service {
  let above: ClusterAbove
  let group: SectorGroup
  let filesystem: Filesystem?
  let processes: ProcessNotes
  let copies: AboveCopies

  private static let interval = Duration.seconds(1)
  /// Rounds between two looks at who there is.
  private static let processRounds = 10
  /// Rounds between two looks at what has changed of the copies on the disk.
  private static let copyRounds = 5

  func run() async throws {
    await cancelWhenGracefulShutdown {
      var round = 0
      var written: AncestorCopies?
      while !Task.isCancelled {
        await self.filesystem?.keepAncestors()
        if round % Self.processRounds == 0 {
          if let cluster = self.above.home.above.last, let volume = try? await self.above.volume() {
            await self.processes.look(in: cluster.path, asking: volume)
          }
          // Also while nobody calls, so that the copies on the disk are not older than that.
          try? await self.filesystem?.refreshAncestors()
          // Whoever owns the home operates its cluster, and whoever has its key reads what is stored.
          if let home = try? await self.above.directory() {
            self.group.noteHome(home.attributes.part)
          }
        }
        if round % Self.copyRounds == 0, let filesystem { await self.copies.write(filesystem, after: &written) }
        round += 1
        try? await Task.sleep(for: Self.interval)
      }
    }
  }
}
