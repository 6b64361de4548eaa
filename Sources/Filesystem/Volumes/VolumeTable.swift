// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
private import Synchronization
internal import Trust

/// The volumes that a filesystem service works with: its own cluster's, and those of other clusters, once it has met a
/// directory that they serve.
final class VolumeTable: Sendable {
  private struct State {
    /// By generation, the directory that it serves. Never more than there are delegated directories that were passed.
    var directories: [Generation: (path: TreePath, id: FileID)] = [:]
    /// Sessions that other clusters have been told of.
    var adopted: Set<Adoption> = []
  }

  private struct Adoption: Hashable {
    let generation: Generation
    let session: [UInt8]
  }

  /// Beyond it all are told again, which changes nothing.
  private static let adoptedCountMax = 4_096
  private static let directoryCountMax = 65_536

  private let own: any Volume
  private let others: (any VolumeSource)?
  private let state = Mutex(State())

  init(own: any Volume, others: (any VolumeSource)?) {
    self.own = own
    self.others = others
  }

  /// Which directory a generation serves.
  ///
  /// What was noted once stays: a directory that claims another one's generation does not get what is stored there. Of two
  /// claims, that of the directory which is stored further up counts.
  func note(_ generation: Generation, serving path: TreePath, _ id: FileID) {
    guard generation != self.own.generation else { return }
    self.state.withLock { state in
      if let known = state.directories[generation], known.id != id, known.id.generation <= id.generation { return }
      if state.directories.count >= Self.directoryCountMax, state.directories[generation] == nil {
        state.directories.removeAll()
      }
      state.directories[generation] = (path, id)
    }
  }

  func volume(of file: FileID) async throws(FilesystemError) -> any Volume {
    try await self.volume(of: file.generation)
  }

  func volume(of generation: Generation) async throws(FilesystemError) -> any Volume {
    if generation == self.own.generation { return self.own }
    guard let others, let directory = self.state.withLock({ $0.directories[generation] }) else {
      throw .sector(.unreachable(generation))
    }
    do { return try await others.volume(generation, serving: directory.path, directory.id) } catch {
      throw FilesystemError(error, sectorSize: self.own.sectorSize)
    }
  }

  /// Has another cluster know a session.
  func adopt(_ session: [UInt8], of owner: TreePath, in volume: any Volume) async throws(SectorError) {
    let adoption = Adoption(generation: volume.generation, session: session)
    if self.state.withLock({ $0.adopted.contains(adoption) }) { return }
    try await volume.adopt(session: session, owner: owner)
    self.state.withLock { state in
      if state.adopted.count >= Self.adoptedCountMax { state.adopted.removeAll() }
      state.adopted.insert(adoption)
    }
  }
}
