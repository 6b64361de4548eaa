// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Synchronization
internal import Trust

extension SectorGroup {
  /// Refuses a commit that would leave the domain without a process that stores it: its own process would go on, but
  /// nobody would believe it any more.
  ///
  /// - Parameter removed: credential files that the commit removes.
  func requireProcess(after commit: Commit, removing removed: Set<FileID>) throws(SectorError) {
    // The credentials of another generation's members lie in the directory above it.
    guard self.generation == .root else { return }
    let changed = commit.records.filter { $0.attributes.part.type == .credential }
    guard !removed.isEmpty || !changed.isEmpty, !changed.contains(where: Self.isHost) else { return }
    let hosts = self.credentials.all.filter { entry in
      entry.directory == .rootDirectory && entry.credential.marks.services.contains(.sector)
    }
    let lost = removed.union(changed.map(\.fileID))
    guard hosts.contains(where: { lost.contains($0.fileID) }) else { return }
    // Of several that go at once, the last one stays.
    let isAnyLeft = self.state.withLock { state in
      hosts.contains { host in
        if lost.contains(host.fileID) { return false }
        guard let newest = state.inFlight[host.fileID.inode].last else { return true }
        return newest.record.map(Self.isHost) ?? false
      }
    }
    if !isAnyLeft { throw .lastProcess }
  }

  /// Whether a credential file makes its process one that stores the root's generation.
  private static func isHost(_ record: InodeRecord) -> Bool {
    guard record.links.part.count > 0, record.links.part.parents.first == .rootDirectory,
      let credential = try? CredentialFile(bytes: record.credential)
    else { return false }
    return credential.marks.services.contains(.sector)
  }
}
