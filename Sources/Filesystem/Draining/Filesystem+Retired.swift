// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import Trust

// The filesystem service of a cluster whose directory is taken back. Once its cluster is retired, nothing that it
// stores counts any more. Until the directory has been switched over, callers are told to come again in a moment. From
// then on all names lead to what the cluster above stores, and this service serves that as it serves what was there
// before the directory was handed over: so it goes on until its process is removed.
extension Filesystem {
  /// Refuses to answer from what this process's own cluster stores once that does not count any more.
  ///
  /// - Throws: `frozen`.
  func requireNotRetired() throws(FilesystemError) {
    if self.member?.isRetired ?? false { throw .sector(.frozen(self.sectors.generation)) }
  }

  /// Requires that the generation of a marked inode still takes commits, by something that was answered after the call
  /// began.
  ///
  /// - Returns: the record, which may be renewed to find out.
  /// - Throws: `frozen`; `contended` when somebody else has changed it.
  func requireOpen(_ record: InodeRecord) async throws(FilesystemError) -> InodeRecord {
    let volume = try await self.volumes.volume(of: record.fileID)
    if let member, record.fileID.generation == member.generation {
      do throws(SectorError) {
        guard try await member.freezeState() == .open else { throw .frozen(self.sectors.generation) }
      } catch {
        throw FilesystemError(error, sectorSize: volume.sectorSize)
      }
      return record
    }
    // Another cluster is asked by a commit.
    var step = Edit.Draft(record)
    step = step.changing(record.links.part, actingFor: record.links.part.actingFor)
    let edit = Edit(self, of: [step])
    let prepared = Edit.Prepared(commit: try edit.sign(), directories: [])
    guard let renewed = try await self.commit(prepared, of: edit)?[record.fileID] else {
      self.crossing.take(record.fileID)
      throw .contended
    }
    self.crossing.note(renewed)
    return renewed
  }

  /// Refuses to answer while the directory is switched over, and when this process has nothing to do with it any more.
  ///
  /// - Throws: `frozen`; `redirected` to the processes above when those let this one read nothing more.
  func requireServing() async throws(FilesystemError) {
    guard self.member?.isRetired ?? false else { return }
    do throws(FilesystemError) {
      guard let home = try await self.storedRecord(self.home.fileID) else { throw .permissionDenied }
      guard home.attributes.part.servedByGeneration != self.sectors.generation else {
        throw .sector(.frozen(self.sectors.generation))
      }
    } catch {
      guard case .permissionDenied = error else { throw error }
      throw self.redirection(upTo: nil)
    }
  }

  /// Refuses an entry in the home that leads to where copies lie until a directory is taken back: that is nobody's
  /// business but of the processes of the home.
  func requireNoStaging(
    _ entry: DirectoryEntry, in directory: InodeState, for caller: CallerIdentity
  ) async throws(FilesystemError) {
    guard directory.fileID == self.home.fileID, caller != .principal(self.identity.path),
      try await DrainStaging.isStaging(entry, in: self)
    else { return }
    throw .permissionDenied
  }
}
