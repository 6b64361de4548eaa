// SPDX-License-Identifier: Apache-2.0

package import Inodes
package import Trust

// Who somebody is to this cluster. Credentials that it stores, or has copies of, it judges by itself. Others are
// guests: principals of other clusters, which these have confirmed.
extension SectorGroup {
  /// Whether somebody may call at all: the credential stands in the tree with this key, or is this member's own.
  package func confirms(_ credential: Credential) -> Bool {
    credential.keyID == self.member.credential.keyID || self.credentials.confirms(credential)
      || self.guest(credential) != nil
  }

  /// Whether the credential file of a path would be known here, stored or as a copy: if so, whoever is not is nobody,
  /// and no other cluster is asked.
  package func isStoredHere(_ path: TreePath) -> Bool {
    if self.credentials.entry(path) != nil { return true }
    // What lies directly in a delegated home is stored by the cluster above, and what lay below it before it was handed
    // over may be, too. So who is not known here may be known there.
    guard self.home.path.isRoot, let directory = path.parent else { return false }
    // Below a directory with a cluster of its own, only what lies directly in it is stored here.
    return !self.credentials.hostDirectories.contains { $0.isAncestor(of: directory) && !$0.isRoot }
  }

  /// A principal of another cluster that is confirmed at present.
  private func guest(_ credential: Credential) -> GuestDirectory.Guest? {
    guard let guest = self.guests.guest(credential), !self.isStoredHere(credential.path) else { return nil }
    return guest
  }

  /// Whether this is a member of the cluster, which may read all that it stores.
  package func isMember(_ credential: Credential) -> Bool {
    credential.keyID == self.member.credential.keyID
      || self.credentials.directory(of: credential, hosting: .sector) == self.home.directory
  }

  /// The directory at or below which somebody acts as a filesystem service; nil for everybody else.
  package func filesystemDirectory(of credential: Credential) -> FileID? {
    if let directory = self.credentials.directory(of: credential, hosting: .filesystem) { return directory }
    if let guest = self.guest(credential) {
      // Whoever serves a directory serves all that is below. As nothing above a credential is renamed, paths tell.
      let isAbove = guest.path.parent?.isSameOrAncestor(of: self.home.path) ?? false
      return guest.hosts(.filesystem) && isAbove ? self.home.directory : nil
    }
    // While the domain's first contents are made, the member's own credential is itself among them.
    guard self.generation == .root, credential.keyID == self.member.credential.keyID, self.credentials.isEmpty else {
      return nil
    }
    return self.home.directory
  }

  /// Whether somebody is a filesystem service at or above everything that is stored here.
  package func coversEverything(_ credential: Credential) -> Bool {
    self.filesystemDirectory(of: credential) == self.home.directory
  }

  /// Whether somebody is a process that may store sectors, wherever in the tree.
  package func hostsSectors(_ credential: Credential) -> Bool {
    self.credentials.directory(of: credential, hosting: .sector) != nil
      || self.guest(credential)?.hosts(.sector) ?? false
  }

  /// The directory that a process with the sector mark lies in, by what is stored here; nil for everybody else.
  func hostDirectory(of credential: Credential) -> FileID? {
    self.credentials.directory(of: credential, hosting: .sector)
  }

  /// Whether somebody is a process whose credential file lies, in this cluster or in one below, at or below a directory
  /// that is stored here.
  func isProcess(_ credential: Credential, atOrBelow file: FileID) async throws(SectorError) -> Bool {
    guard let directory = self.nearestDirectory(ofProcess: credential) else { return false }
    return try await self.isAtOrAbove(file, [directory], View(term: 0))
  }

  /// The directory that a process lies in; for a guest from a cluster below, the one here that its path leads through
  /// last. Nil for users, for guests from elsewhere, and for whoever is not confirmed.
  private func nearestDirectory(ofProcess credential: Credential) -> FileID? {
    guard credential.kind == .process else { return nil }
    if self.credentials.confirms(credential) { return self.credentials.entry(credential.path)?.directory }
    guard let guest = self.guest(credential) else { return nil }
    // Nothing above a credential is renamed, so paths tell.
    var place = guest.path.parent
    while let path = place {
      let hosts = self.credentials.processes(in: path).filter { $0.credential.marks.services.contains(.sector) }
      if let host = hosts.first { return host.directory }
      place = path.parent
    }
    return nil
  }

  /// Whether a credential file lies in a directory or anywhere below it, as of a moment after the call began.
  package func holdsCredentials(atOrBelow directory: FileID) async throws(SectorError) -> Bool {
    guard directory.generation == self.generation else { throw .wrongGeneration(directory.generation) }
    try await self.confirmRead()
    for entry in self.credentials.all {
      // Those of a delegated home lie in the cluster above.
      guard let parent = entry.directory, parent.generation == self.generation else { continue }
      if try await self.isAtOrAbove(directory, [parent], View(term: 0)) { return true }
    }
    return false
  }

  /// Whether a directory is an inode itself or one of its ancestors, by file ids.
  package func isAtOrAbove(_ directory: FileID, _ record: InodeRecord) async throws(SectorError) -> Bool {
    try await self.isAtOrAbove(directory, [record.fileID] + CommitPolicy.directories(of: record), View(term: 0))
  }

  /// Whether a directory is one of these inodes or an ancestor of one.
  func isAtOrAbove(_ directory: FileID, _ files: [FileID], _ view: View) async throws(SectorError) -> Bool {
    // Everything descends from the home.
    if directory == self.home.directory { return true }
    var queue = files
    var seen: Set<FileID> = []
    while let next = queue.popLast() {
      if next == directory { return true }
      guard next.generation == self.generation, seen.insert(next).inserted else { continue }
      guard seen.count <= SectorLimits.ancestorsMax else { return false }
      if let record = try await self.newest(next, view).record { queue += record.links.part.parents }
    }
    return false
  }
}
