// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Filesystem
internal import GRPCCore
internal import Sectors
internal import ServiceLifecycle
internal import SwiftProtobuf
internal import Trust

/// Keeps what a process of a delegated directory knows of what lies above: the permissions of the directories, and which
/// processes there are.
struct AboveWatch: ServiceLifecycle.Service {
  let above: ClusterAbove
  let network: NodeNetwork
  let filesystem: Filesystem?

  private static let interval = Duration.seconds(1)
  /// Rounds between two looks at who there is.
  private static let processRounds = 10

  func run() async throws {
    await cancelWhenGracefulShutdown {
      var round = 0
      while !Task.isCancelled {
        // What can not be had stays as it was.
        try? await self.filesystem?.refreshAncestors()
        if round % Self.processRounds == 0 { await self.findProcesses() }
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
      return found.processes
    }
    let processes = (found ?? []).compactMap { process -> RemoteVolumes.Process? in
      guard let path = try? TreePath(parsing: process.path), path.parent == cluster.path else { return nil }
      return .init(path: path, addresses: process.addresses.compactMap { try? NetworkAddress(parsing: $0) })
    }
    if !processes.isEmpty { self.network.known.note(processes, in: cluster.path) }
  }
}
