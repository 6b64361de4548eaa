// SPDX-License-Identifier: Apache-2.0

internal import Inodes
private import Synchronization
package import Trust

/// Copies of the records of the home and of all directories above it, for their permissions. They are brought up to date once in a
/// while, so what is changed there counts here within that time; a site that is cut off goes on with what it has.
final class Ancestors: Sendable {
  /// From the home's parent to the root directory; nil before they were read.
  private let records = Mutex<(home: InodeRecord, above: [InodeRecord])?>(nil)

  /// The home's own.
  var home: InodeRecord? { self.records.withLock { $0?.home } }
  /// Of all above it.
  var above: [InodeRecord]? { self.records.withLock { $0?.above } }

  func note(home: InodeRecord, above: [InodeRecord]) { self.records.withLock { $0 = (home, above) } }
}

extension Filesystem {
  /// Reads the records of the home and of the directories above it anew. To be called about once a second.
  ///
  /// - Throws: when one of them can not be had; the copies stay as they are.
  package func refreshAncestors() async throws(FilesystemError) {
    guard !self.home.path.isRoot else { return }
    var records: [InodeRecord] = []
    var next = self.home.fileID
    while next != .rootDirectory {
      guard records.count <= TreePath.byteCountMax / 2 else { throw .loop }
      guard let record = try await self.storedRecord(next) else { throw .dataLoss(next, .missing) }
      try await self.verify(record)
      records.append(record)
      guard let parent = record.links.part.parents.first else { throw .dataLoss(next, .record) }
      next = parent
    }
    guard let root = try await self.storedRecord(.rootDirectory) else { throw .dataLoss(.rootDirectory, .missing) }
    try await self.verify(root)
    guard let home = records.first else { return }
    self.ancestors.note(home: home, above: records.dropFirst() + [root])
  }

  /// Whether every directory above the home permits something, by the copies that this process has of their records.
  ///
  /// - Throws: `parentUnreachable` and the like when there are none yet.
  package func ancestorsPermit(
    _ wanted: Permission, for caller: CallerIdentity
  ) async throws(FilesystemError) -> Bool {
    if self.home.path.isRoot { return true }
    if self.ancestors.above == nil { try await self.refreshAncestors() }
    return self.ancestors.above?.allSatisfy { self.permits(wanted, $0, caller) } ?? false
  }
}
