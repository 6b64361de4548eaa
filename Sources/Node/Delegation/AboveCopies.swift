// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import Inodes
internal import Logging
internal import NIOPosix
internal import Sectors
internal import Trust

/// Keeps copies of what lies above on the node's disk, and begins with them: see ``AboveFile``. A full disk, or a file that
/// is damaged, keeps nobody from anything: the process has to reach the cluster above then, before it serves.
struct AboveCopies: Sendable {
  let home: NodeHome
  let volumes: RemoteVolumes
  let path: String
  let pool: NIOThreadPool
  let logger: Logger

  /// Has a filesystem service begin with what an earlier run has kept, if that verifies.
  ///
  /// - Returns: the home's record; nil when nothing was kept.
  func restore(to filesystem: Filesystem) async -> InodeRecord? {
    let path = self.path
    let file: AboveFile
    do {
      let read = try await self.pool.runIfActive { () -> Result<AboveFile?, NodeError> in
        do throws(NodeError) { return .success(try AboveFile.read(path)) } catch { return .failure(error) }
      }
      guard let found = try read.get() else { return nil }
      file = found
    } catch {
      self.warn("\(error)")
      return nil
    }
    for chain in file.chains { self.volumes.note(signer: chain) }
    for record in file.copies.records {
      let cluster = self.home.above.first { $0.generation == record.fileID.generation }
      guard let cluster, self.volumes.isVerified(record, servedBy: cluster.path) else {
        self.warn("a record does not verify")
        return nil
      }
    }
    do { try filesystem.restore(file.copies) } catch {
      self.warn("\(error)")
      return nil
    }
    return file.copies.records.first
  }

  private func warn(_ why: String) {
    self.logger.warning(
      "the copies of the directories above are left out: until one of their processes is reached, nothing is served",
      metadata: ["file": "\(self.path)", "why": "\(why)"])
  }

  /// Writes down what is known now, if it has changed.
  ///
  /// - Parameter written: what was written down before; nil for what an earlier run has.
  func write(_ filesystem: Filesystem, after written: inout AncestorCopies?) async {
    let (path, former) = (self.path, written)
    let copies = await filesystem.copiesOfAncestors()
    guard copies != former || copies == nil else { return }
    let file = copies.flatMap { copies in
      self.volumes.signers(of: copies.records).map { AboveFile(copies: copies, chains: $0) }
    }
    do {
      if let file {
        let isKept = try await self.pool.runIfActive { try file.write(path) }
        if !isKept {
          self.logger.debug("what lies above is too large for a copy")
        }
      } else if copies == nil {
        // What was kept has been closed to this process, or could not be read back.
        try await self.pool.runIfActive { if OwnerFiles.exists(path) { OwnerFiles.removeTree(path) } }
      } else {
        // Somebody who has signed is not known any more: with the next look.
        return
      }
      written = copies
    } catch {
      // What it says still holds, as far as it did.
      self.logger.debug("the copies of what lies above were not written down", metadata: ["error": "\(error)"])
    }
  }
}
