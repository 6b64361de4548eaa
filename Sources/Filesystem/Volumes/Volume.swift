// SPDX-License-Identifier: Apache-2.0

package import Inodes
package import SectorStore
package import Sectors
package import Trust

/// One generation as the filesystem service works with it: the sector service of its cluster, in this process or in
/// another one.
///
/// Where the bytes come from makes no difference: everything that is read is verified by whoever reads it, and what is
/// committed is judged by the cluster.
package protocol Volume: Sendable {
  var generation: Generation { get }
  /// Bytes in a sector of this generation.
  var sectorSize: Int { get }

  /// The newest record, as of a moment after the call began; nil when there is no such inode. Its signatures are not
  /// verified.
  ///
  /// - Throws: `permissionDenied` when this process may not know; `unreachable` when the cluster can not be reached.
  func record(_ file: FileID) async throws(SectorError) -> InodeRecord?
  /// A record that may be behind, for what never changes. It asks nobody else, if it can.
  func storedRecord(_ file: FileID) async throws(SectorError) -> InodeRecord?
  /// Verifies the acceptance and the signatures of a record.
  ///
  /// - Throws: `dataLoss` when a signature is not that of the bytes.
  func verify(_ record: InodeRecord) async throws(SectorError)

  /// Reads neighbouring sectors or tree nodes of one version, at most 4 MiB; they are not verified.
  ///
  /// - Throws: `versionGone` when the version is not kept any more.
  func read(
    _ file: FileID, level: Int, indexes: Range<UInt64>, version: Version
  ) async throws(SectorError) -> BlockRange
  /// Keeps a version readable for as long as the result lives, where that can be done; otherwise a read of it may throw
  /// `versionGone`.
  ///
  /// - Throws: `versionGone` or `notFound` when it is known not to be there any more.
  func keep(_ file: FileID, version: Version) async throws(SectorError) -> any KeptVersion

  /// Performs one commit, all of it in this generation. Durable on a majority of the cluster when it returns.
  ///
  /// - Parameter committer: this process.
  func perform(_ commit: Commit, by committer: Credential) async throws(SectorError) -> CommitOutcome
  /// What is known of an operation: its result when it was applied, nil when it is new.
  func result(of operation: OperationID, by principal: TreePath) async throws(SectorError) -> [UInt8]?
  /// Opens a session for a principal. Durable when it returns.
  func openSession(owner: TreePath) async throws(SectorError) -> [UInt8]
  /// Has the cluster know a session that was opened at another one, so that its operations can be completed here, too. To
  /// do this again changes nothing. Durable when it returns.
  func adopt(session: [UInt8], owner: TreePath) async throws(SectorError)
  /// Hands out inode numbers, never to be handed out again: the first of so many. Durable when it returns.
  func allocateInodes(_ count: UInt32) async throws(SectorError) -> UInt64
  /// Whether a credential file lies in a directory or anywhere below it, as of a moment after the call began.
  func holdsCredentials(atOrBelow directory: FileID) async throws(SectorError) -> Bool
  /// How much room there is, as the member that answers has it.
  func usage() async throws(SectorError) -> VolumeUsage
  /// Whether what is stored there may be changed, as the member that answers has applied it.
  func freezeState() async throws(SectorError) -> FreezeState
  /// Says whether it may be changed. Durable when it returns, and in force for all commits that are answered later. For
  /// filesystem services above; to say the same again changes nothing.
  ///
  /// - Parameter process: this process.
  /// - Throws: `invalid` with the field `state` where the present state does not allow it.
  func setFreeze(_ state: FreezeState, by process: Credential) async throws(SectorError)
}

/// How much room a generation takes, and has.
package struct VolumeUsage: Hashable, Sendable {
  /// Bytes of sectors and tree nodes in use.
  package let usedBytes: UInt64
  /// Bytes that may still be stored.
  package let freeBytes: UInt64
  package let inodes: UInt64

  package init(usedBytes: UInt64, freeBytes: UInt64, inodes: UInt64) {
    self.usedBytes = usedBytes
    self.freeBytes = freeBytes
    self.inodes = inodes
  }
}

/// A version of an inode that can be read as long as this lives.
package protocol KeptVersion: AnyObject, Sendable {}

extension Pin: KeptVersion {}

extension SectorGroup: Volume {
  package func keep(_ file: FileID, version: Version) async throws(SectorError) -> any KeptVersion {
    try self.pin(file, version: version)
  }

  package func adopt(session: [UInt8], owner: TreePath) async throws(SectorError) {
    _ = try await self.openSession(owner: SessionOwner(owner), adopting: session)
  }

  package func usage() async throws(SectorError) -> VolumeUsage {
    let status = self.status()
    return VolumeUsage(usedBytes: status.usedBytes, freeBytes: status.diskFreeBytes, inodes: status.inodes)
  }

  package func freezeState() async throws(SectorError) -> FreezeState {
    try await self.confirmRead()
    return self.freeze
  }

  package func setFreeze(_ state: FreezeState, by process: Credential) async throws(SectorError) {
    try await self.setFreeze(state, by: process.path)
  }
}

/// The volumes of other clusters.
package protocol VolumeSource: Sendable {
  /// The volume of a generation.
  ///
  /// - Parameters:
  ///   - directory: the directory that the generation serves.
  ///   - id: that directory's file id.
  /// - Throws: `unreachable` when nobody who serves it is known or can be reached.
  func volume(
    _ generation: Generation, serving directory: TreePath, _ id: FileID
  ) async throws(SectorError) -> any Volume
}
