// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import Trust

// A gateway is a filesystem service whose process stores nothing: it has the key of its directory, and works on what the
// cluster that serves the directory stores, over the network. It keeps nothing that counts. What is written down in a
// cluster's own state takes one of its members: who is let in, and what is to be done in the background.
extension Filesystem {
  /// This process as a member of its cluster.
  ///
  /// - Throws: in a gateway `notLeader`, naming a member that does what was asked for, or `redirected` to the cluster
  ///   above where the gateway's own has no member that can read directories.
  func requireMember() async throws(FilesystemError) -> SectorGroup {
    if let member { return member }
    let able = await self.neighbours.processes(self.home.path).filter { process in
      process.path != self.identity.path && process.services.contains(.filesystem)
        && process.services.contains(.sector)
    }
    if let member = able.randomElement() {
      throw .sector(.notLeader(SectorLeader(path: member.path, addresses: member.addresses)))
    }
    throw self.home.path.isRoot ? .sector(.unreachable(self.sectors.generation)) : self.redirection(upTo: nil)
  }

  /// The processes that lie directly in a directory which this process's cluster stores, and host anything.
  func processes(in directory: TreePath, _ file: FileID) async -> [FilesystemNeighbour] {
    guard let member else { return await self.neighbours.processes(directory) }
    return member.credentials.processes(in: directory).filter { $0.directory == file }.map { entry in
      FilesystemNeighbour(
        path: entry.path, services: entry.credential.marks.services,
        addresses: entry.credential.addresses?.addresses.addresses ?? [])
    }
  }
}
