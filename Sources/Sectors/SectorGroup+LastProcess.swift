// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Synchronization
internal import Trust

extension SectorGroup {
  /// Refuses a commit that would leave the domain, or the cluster of a directory that is stored here, without a process
  /// that stores it: its own processes would go on, but nobody would believe them any more.
  ///
  /// - Parameter removed: credential files that the commit removes.
  /// - Throws: `lastProcess`; `delegated`, for the cluster of a directory below.
  /// - Returns: the versions of other inodes that this rests on.
  func requireProcesses(
    after commit: Commit, removing removed: Set<FileID>, _ view: View
  ) async throws(SectorError) -> [FileID: Version] {
    let changed = commit.records.filter { $0.attributes.part.type == .credential }
    guard !removed.isEmpty || !changed.isEmpty else { return [:] }
    let lost = removed.union(changed.map(\.fileID))
    let kept = Set(changed.compactMap(Self.hostDirectory))
    let hosts = self.credentials.all.filter { $0.credential.marks.services.contains(.sector) }
    var grounds: [FileID: Version] = [:]
    // The home of any other generation is stored by the cluster above, and so are the credentials in it.
    for host in hosts where lost.contains(host.fileID) {
      guard let directory = host.directory, !kept.contains(directory) else { continue }
      // Of several that go at once, the last one stays.
      if let ground = try await self.newestHost(of: directory, among: hosts, without: lost, view) {
        grounds[ground.file] = ground.version
      } else if directory == self.home.directory {
        throw .lastProcess
      } else if directory.generation == self.generation {
        let record = try await self.newest(directory, view).record
        if record?.attributes.part.servedByGeneration != nil {
          throw .delegated(host.path.parent ?? .root)
        }
        // Nor may it be handed over meanwhile.
        if !removed.contains(directory), !commit.records.contains(where: { $0.fileID == directory }), let record {
          grounds[directory] = record.version
        }
      }
    }
    return grounds
  }

  /// Refuses what only a process with the sector mark in a directory may do, unless it lies there with all that is in
  /// flight.
  ///
  /// - Returns: the version of its credential file that this rests on.
  func requireHost(
    _ path: TreePath, in directory: FileID, _ view: View
  ) async throws(SectorError) -> (file: FileID, version: Version) {
    guard let file = self.credentials.entry(path)?.fileID, file.generation == self.generation,
      let newest = try await self.newest(file, view).record, Self.hostDirectory(newest) == directory
    else { throw .permissionDenied }
    return (file, newest.version)
  }

  /// A process that stores a directory's generation, with all that is in flight.
  private func newestHost(
    of directory: FileID, among hosts: [CredentialEntry], without lost: Set<FileID>, _ view: View
  ) async throws(SectorError) -> (file: FileID, version: Version)? {
    for host in hosts where host.directory == directory && !lost.contains(host.fileID) {
      guard host.fileID.generation == self.generation else { continue }
      guard let newest = try await self.newest(host.fileID, view).record else { continue }
      if Self.hostDirectory(newest) == directory { return (host.fileID, newest.version) }
    }
    return nil
  }

  /// The directory whose generation a credential file makes its process store; nil when it makes it store none.
  private static func hostDirectory(_ record: InodeRecord) -> FileID? {
    guard record.links.part.count > 0, let directory = record.links.part.parents.first,
      let credential = try? CredentialFile(bytes: record.credential), credential.marks.services.contains(.sector)
    else { return nil }
    return directory
  }
}
