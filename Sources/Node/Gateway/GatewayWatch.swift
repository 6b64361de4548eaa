// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import Inodes
internal import Logging
internal import Sectors
internal import ServiceLifecycle
internal import Trust

/// Keeps what a gateway knows of the clusters around it: the permissions of the directories above, which processes there
/// are, and who serves its home. When that is another cluster than before, the node begins again.
struct GatewayWatch: ServiceLifecycle.Service {
  let home: GatewayHome
  let filesystem: Filesystem
  /// What the home's cluster stores.
  let volume: RemoteVolume
  /// The cluster above; nil for the root directory.
  let above: ClusterAbove?
  let processes: ProcessNotes
  /// Kept for when the cluster above can not be reached; nil where that is the home's own.
  let copies: AboveCopies?
  let end: NodeEnd
  let logger: Logger

  private static let interval = Duration.seconds(1)
  /// Rounds between two looks at who serves the home.
  private static let homeRounds = 2
  /// Rounds between two looks at who there is.
  private static let processRounds = 10
  /// Rounds between two looks at what has changed of the copies on the disk.
  private static let copyRounds = 5

  func run() async throws {
    await cancelWhenGracefulShutdown {
      var round = 0
      var written: AncestorCopies?
      while !Task.isCancelled {
        await self.filesystem.keepAncestors()
        if round % Self.processRounds == 0 {
          await self.processes.look(in: self.home.cluster.path, asking: self.volume)
          if let above, let directory = self.home.above, directory != self.home.cluster.path,
            let volume = try? await above.volume()
          {
            await self.processes.look(in: directory, asking: volume)
          }
          // Also while nobody calls, so that the copies on the disk are not older than that.
          if above != nil { try? await self.filesystem.refreshAncestors() }
        }
        if round % Self.homeRounds == 0 { await self.checkHome() }
        if round % Self.copyRounds == 0, let copies { await copies.write(self.filesystem, after: &written) }
        round += 1
        try? await Task.sleep(for: Self.interval)
      }
    }
  }

  private func checkHome() async {
    guard let above, let place = self.home.place, let record = try? await above.directory() else { return }
    let present = GatewayHome(place, servedBy: record.attributes.part.servedByGeneration)
    guard present.cluster != self.home.cluster else { return }
    self.logger.notice(
      "another cluster serves the directory now: beginning again",
      metadata: ["directory": "\(place.path)", "generation": "\(present.cluster.generation)"])
    self.end.request(.homeServedAnew)
  }
}
