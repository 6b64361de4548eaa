// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import SectorStore
internal import Trust

extension Filesystem {
  /// Removes what uploads left behind that were broken off: inodes that never got their name. Those of uploads in progress
  /// look the same, here and in other processes, but get another piece now and then.
  ///
  /// While the cluster is frozen, nothing is: of what is moved elsewhere, these are not.
  ///
  /// - Parameter age: nanoseconds since the last piece; none only where nobody can be uploading.
  /// - Returns: how many were removed.
  package func removePending(olderThan age: Int64) async throws(FilesystemError) -> Int {
    guard let member, member.freeze == .open else { return 0 }
    let inodes: [UInt64]
    do { inodes = try member.store.inodes(flag: .pending) } catch {
      throw .sector(SectorError(error, generation: self.sectors.generation))
    }
    var removed = 0
    for inode in inodes {
      let file = FileID(generation: self.sectors.generation, inode: InodeNumber(inode))
      // One that is damaged is no reason to leave the others.
      guard let record = try? await self.storedRecord(file), let mark = record.links.part.pending,
        record.links.part.count == 0, mark.directory.generation == self.sectors.generation,
        max(mark.since, record.content.part.modified) <= self.now() - age
      else { continue }
      var edit = Edit(self, caller: .principal(self.identity.path))
      var draft = Edit.Draft(record)
      draft.isRemoved = true
      edit.put(draft)
      if try await self.commit(&edit) != nil { removed += 1 }
    }
    return removed
  }

  /// Settles what steps over two clusters have left behind: inodes whose mark is older than somebody takes for a step.
  ///
  /// - Parameter age: nanoseconds.
  /// - Returns: how many were settled.
  package func settleMarks(olderThan age: Int64) async throws(FilesystemError) -> Int {
    guard let member else { return 0 }
    let inodes: [UInt64]
    do { inodes = try member.store.inodes(flag: .pending) } catch {
      throw .sector(SectorError(error, generation: self.sectors.generation))
    }
    var settled = 0
    for inode in inodes {
      let file = FileID(generation: self.sectors.generation, inode: InodeNumber(inode))
      // One that is damaged is no reason to leave the others.
      guard let record = try? await self.storedRecord(file), let mark = record.links.part.pending,
        mark.directory.generation != self.sectors.generation,
        // An upload that goes on is stored piece by piece.
        max(mark.since, record.content.part.modified) <= self.now() - age,
        let directory = self.crossing.directory(mark.directory, home: self.root)
      else { continue }
      await self.settleFirmly(file, in: directory, mayCondemn: true)
      if let record = try? await self.storedRecord(file), record.links.part.pending != nil { continue }
      settled += 1
    }
    return settled
  }
}
