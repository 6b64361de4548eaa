// SPDX-License-Identifier: Apache-2.0

internal import Inodes
private import Synchronization
internal import Trust

// Who has which key.
//
// The key of a file or directory stands in its directory entry, so whoever has a directory's key has those of all that is
// below. A process begins with the key of its home, from a readcap. A new key of a directory makes those of its entries
// *exposed* all at once, without any of them being touched: each entry says in which epoch of the directory its key was
// drawn. Nothing is written under an exposed key: whoever writes draws new ones first, from the top of the path down.

/// Keys that this process has by readcaps and not by a directory entry: its home's, and those of directories that are cut
/// off from the ones above.
final class ReadcapKeys: Sendable {
  /// Beyond it all are opened again.
  private static let countMax = 4_096

  private let home: FileID
  private let keys: Mutex<[FileID: FileKey]>

  init(home: FileID, key: FileKey) {
    self.home = home
    self.keys = Mutex([home: key])
  }

  /// The newest key that is known of the home.
  ///
  /// - Parameter first: the one that the process began with.
  func home(else first: FileKey) -> FileKey { self.keys.withLock { $0[self.home] ?? first } }

  subscript(file: FileID) -> FileKey? { self.keys.withLock { $0[file] } }

  func note(_ key: FileKey, of file: FileID) {
    self.keys.withLock { keys in
      if let known = keys[file], known.epoch > key.epoch { return }
      if keys.count >= Self.countMax, keys[file] == nil {
        let home = keys[self.home]
        keys = [:]
        keys[self.home] = home
      }
      keys[file] = key
    }
  }
}

extension Filesystem {
  /// The key in a record's readcaps that is sealed to this process, of the record's own epoch; nil when there is none.
  ///
  /// - Parameter record: verified.
  func openReadcap(of record: InodeRecord) -> FileKey? {
    let key = Self.openReadcap(of: record, identity: self.identity, agreementKey: self.agreementKey)
    return key?.epoch == record.content.part.keyEpoch ? key : nil
  }

  /// The inode that an entry leads to, with the key that opens it as it is now.
  func state(of entry: DirectoryEntry) async throws(FilesystemError) -> InodeState {
    var key = entry.key
    if let next = entry.nextKey {
      // It is just being given that one, or has been.
      if try await self.storedRecord(entry.fileID)?.content.part.keyEpoch == next.epoch { key = next }
    } else if key == nil, entry.type != .credential {
      key = try await self.readcapKey(of: entry.fileID)
    }
    return self.inodes.state(entry.fileID, type: entry.type, key: key)
  }

  /// The key of an inode that is cut off from its directory; nil when this process has none.
  private func readcapKey(of file: FileID) async throws(FilesystemError) -> FileKey? {
    guard let record = try await self.storedRecord(file) else { return nil }
    if let known = self.readcapKeys[file], known.epoch == record.content.part.keyEpoch { return known }
    try await self.verify(record)
    guard let key = self.openReadcap(of: record) else { return nil }
    self.readcapKeys.note(key, of: file)
    return key
  }

  /// Requires that an inode is looked at with the key of its present epoch.
  ///
  /// - Parameter record: verified.
  /// - Throws: `keyOutdated` when it has been given a new one since it was looked up; `noKey` when this process was not.
  func requirePresentKey(_ state: InodeState, for record: InodeRecord) throws(FilesystemError) {
    guard let key = state.key, key.epoch != record.content.part.keyEpoch else { return }
    if state.fileID == self.home.fileID {
      guard let new = self.openReadcap(of: record) else { throw .noKey(state.fileID) }
      self.readcapKeys.note(new, of: state.fileID)
    }
    throw .keyOutdated(state.fileID)
  }

  /// Does something again when it was given a new key meanwhile, or had been without this process having noticed.
  func withPresentKeys<Result>(
    _ body: () async throws(FilesystemError) -> Result
  ) async throws(FilesystemError) -> Result {
    for _ in 0..<Self.attemptsMax {
      do throws(FilesystemError) { return try await body() } catch {
        guard case .keyOutdated(let file) = error else { throw error }
        self.names.forget(file)
      }
    }
    throw .contended
  }
}
