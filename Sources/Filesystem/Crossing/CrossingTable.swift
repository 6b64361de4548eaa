// SPDX-License-Identifier: Apache-2.0

internal import Inodes
private import Synchronization

/// New inodes that are stored already and wait for their name in a directory of another generation, while somebody in
/// this process tries to give it to them.
final class CrossingTable: Sendable {
  private let waiting = Mutex<[FileID: InodeRecord]>([:])
  /// Directories of other clusters that were passed, to settle marks by.
  private let directories = Mutex<[FileID: InodeState]>([:])

  private static let directoryCountMax = 4_096

  func note(directory: InodeState) {
    self.directories.withLock { directories in
      if directories.count >= Self.directoryCountMax { directories.removeAll() }
      directories[directory.fileID] = directory
    }
  }

  /// A directory that is named in a mark; nil when this process has no key for it, as far as it knows.
  func directory(_ file: FileID, home: InodeState) -> InodeState? {
    home.fileID == file ? home : self.directories.withLock { $0[file] }
  }

  func record(_ file: FileID) -> InodeRecord? { self.waiting.withLock { $0[file] } }
  func note(_ record: InodeRecord) { self.waiting.withLock { $0[record.fileID] = record } }
  @discardableResult
  func take(_ file: FileID) -> InodeRecord? { self.waiting.withLock { $0.removeValue(forKey: file) } }
}
