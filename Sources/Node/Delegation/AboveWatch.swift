// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Filesystem
internal import GRPCCore
internal import Inodes
internal import Logging
internal import NIOPosix
internal import Sectors
internal import ServiceLifecycle
internal import SwiftProtobuf
internal import Trust

/// Keeps what a process of a delegated directory knows of what lies above: the permissions of the directories, and which
/// processes there are. These are written to the node's description, too, which it starts from the next time.
struct AboveWatch: ServiceLifecycle.Service {
  let above: ClusterAbove
  let group: SectorGroup
  let network: NodeNetwork
  let filesystem: Filesystem?
  let directory: NodeDirectory
  let pool: NIOThreadPool
  let copies: AboveCopies
  let logger: Logger

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
          await self.findProcesses()
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

  private func findProcesses() async {
    guard let cluster = self.above.home.above.last, let volume = try? await self.above.volume() else { return }
    let found = try? await volume.cluster.call(.read) { call in
      let request = Blocktree_V1_FindRequest.with {
        $0.scope = cluster.path.description
        $0.kind = .contained
      }
      guard case .found(let found)? = try await call.discovery.find(request, options: call.options).answer else {
        throw SectorError.malformedAnswer("find")
      }
      return found
    }
    guard let found else { return }
    let processes = found.processes.compactMap { process -> RemoteVolumes.Process? in
      guard let path = try? TreePath(parsing: process.path), path.parent == cluster.path else { return nil }
      return .init(path: path, addresses: process.addresses.compactMap { try? NetworkAddress(parsing: $0) })
    }
    guard !processes.isEmpty else { return }
    self.network.known.note(processes, in: cluster.path)
    if !found.isStale { await self.keep(processes, in: cluster.path) }
  }

  private func keep(_ processes: [RemoteVolumes.Process], in directory: TreePath) async {
    let file = self.directory.description
    let startingPoints = processes.map {
      NodeDescription.Process(path: $0.path.description, addresses: $0.addresses.map(\.description))
    }
    do {
      try await self.pool.runIfActive {
        var description = try NodeDescription(readingFrom: file)
        let former = description
        description.setStartingPoints(startingPoints, in: directory)
        if description != former { try description.write(to: file) }
      }
    } catch {
      // What it says still holds, as far as it did.
      self.logger.debug("the processes above were not written down", metadata: ["error": "\(error)"])
    }
  }
}
