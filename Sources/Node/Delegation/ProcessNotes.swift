// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import Logging
internal import NIOPosix
internal import Sectors
internal import SwiftProtobuf
internal import Trust

/// Finds out which processes another cluster has, and keeps that: in memory, and in the node's description, which it
/// starts from the next time.
struct ProcessNotes: Sendable {
  let known: KnownProcesses
  let directory: NodeDirectory
  let pool: NIOThreadPool
  let logger: Logger

  /// Takes note of who lies in a directory. When nobody says, all stays as it was.
  func look(in directory: TreePath, asking volume: RemoteVolume) async {
    let found = try? await volume.cluster.call(.read) { call in
      let request = Blocktree_V1_FindRequest.with {
        $0.scope = directory.description
        $0.kind = .contained
      }
      guard case .found(let found)? = try await call.discovery.find(request, options: call.options).answer else {
        throw SectorError.malformedAnswer("find")
      }
      return found
    }
    guard let found else { return }
    let processes = found.processes.compactMap { process -> RemoteVolumes.Process? in
      guard let path = try? TreePath(parsing: process.path), path.parent == directory else { return nil }
      return .init(
        path: path, addresses: process.addresses.compactMap { try? NetworkAddress(parsing: $0) },
        services: process.services.compactMap { try? Service($0) })
    }
    guard !processes.isEmpty else { return }
    self.known.note(processes, in: directory)
    if !found.isStale { await self.keep(processes, in: directory) }
  }

  private func keep(_ processes: [RemoteVolumes.Process], in directory: TreePath) async {
    let startingPoints = processes.map {
      NodeDescription.Process(path: $0.path.description, addresses: $0.addresses.map(\.description))
    }
    await self.change { $0.setStartingPoints(startingPoints, in: directory) }
  }

  /// Changes what the node starts from, on the disk.
  func change(_ body: @escaping @Sendable (inout NodeDescription) -> Void) async {
    let file = self.directory.description
    do {
      try await self.pool.runIfActive {
        var description = try NodeDescription(readingFrom: file)
        let former = description
        body(&description)
        if description != former { try description.write(to: file) }
      }
    } catch {
      // What it says still holds, as far as it did.
      self.logger.debug("what the node starts from was not written down", metadata: ["error": "\(error)"])
    }
  }
}
