// SPDX-License-Identifier: Apache-2.0

internal import Inodes
private import Synchronization
internal import Trust

/// What this process remembers of one inode: its key, and in the table that it stands in, its verified record, its
/// tree, and for a directory its entries. Everything but the key is only a copy of what the sector service holds, for
/// one version.
final class InodeState: Sendable {
  struct Known: Sendable {
    /// The record, its signatures verified.
    var record: InodeRecord
    /// As much of the tree as was needed so far.
    var tree: IntegrityTree
    /// A directory's entries, once they were read.
    var directory: DirectoryContent?

    /// About how much memory it takes.
    var byteCount: Int {
      let parts = self.record.content.body.count + self.record.attributes.body.count + self.record.links.body.count
      // Each part is there as bytes and parsed.
      return 1_024 + 2 * parts + self.record.credential.count
        + self.tree.loadedNodeCount * (TreeShape.nodeByteCount + 96) + (self.directory?.memoryByteCount ?? 0)
    }
  }

  let fileID: FileID
  let type: FileType
  /// Nil for what is not encrypted (credential files), or when this process has no key for it.
  let key: FileKey?
  /// Whoever changes the inode's content or a directory's entries takes turns here. It only spares conflicts: that a
  /// change is built on what is there when it is committed is for the commit's conditions, as another state, or another
  /// process, may be used for the same inode at the same time.
  let changes = CombiningQueue<DirectoryRequest, DirectoryResponse>(batchCountMax: 64)
  fileprivate let kept = Mutex<Known?>(nil)
  fileprivate let coming = Mutex<Coming?>(nil)

  /// What a directory will be once a commit that is under way is durable.
  struct Coming: Sendable {
    /// The content part that says so: whoever finds it stored need not read what it stands for.
    let content: Signed<ContentPart>
    let tree: IntegrityTree
    let entries: DirectoryContent
  }

  fileprivate init(fileID: FileID, type: FileType, key: FileKey?) {
    self.fileID = fileID
    self.type = type
    self.key = key
  }

  /// What is known of the version, nil if that is nothing.
  func known(at version: Version) -> Known? {
    self.kept.withLock { $0?.record.version == version ? $0 : nil }
  }

  /// What is known of the newest version that was ever seen; nil if that is nothing, or was forgotten.
  var lastKnown: Known? { self.kept.withLock { $0 } }

  /// Keeps what is known, unless as much is known of this version or a newer one already; answers whether it did.
  fileprivate func keep(_ new: Known) -> Bool {
    self.kept.withLock { kept in
      if let present = kept {
        if present.record.version > new.record.version { return false }
        if present.record.version == new.record.version, present.directory != nil, new.directory == nil { return false }
      }
      kept = new
      return true
    }
  }

  /// Says what is about to be committed; nil when that has come to its end. The store shows a new version to everybody
  /// a moment before whoever made it hears of that. Without this, all who look a name up in that moment would read the
  /// directory anew.
  func announce(_ coming: Coming?) { self.coming.withLock { $0 = coming } }

  fileprivate func forget() { self.kept.withLock { $0 = nil } }
}

/// The inodes that this process remembers, with what it knows of them: as much as fits into so many bytes, estimated.
/// What was not used in a while is the first to go.
final class InodeTable: Sendable {
  private struct Entry {
    let state: InodeState
    var byteCount: Int
  }

  private struct Generation {
    private(set) var entries: [FileID: Entry] = [:]
    private(set) var byteCount = 0

    mutating func remove(_ file: FileID) -> Entry? {
      guard let entry = self.entries.removeValue(forKey: file) else { return nil }
      self.byteCount -= entry.byteCount
      return entry
    }

    mutating func insert(_ entry: Entry) {
      self.entries[entry.state.fileID] = entry
      self.byteCount += entry.byteCount
    }
  }

  private struct State {
    // Two generations: when the young one is full it becomes the old one, and the old one is forgotten.
    var young = Generation()
    var old = Generation()

    func entry(_ file: FileID) -> Entry? { self.young.entries[file] ?? self.old.entries[file] }

    /// Takes an entry, in place of the one of the same inode; answers those that have to go.
    mutating func insert(_ entry: Entry, generationByteCountMax: Int) -> [Entry] {
      _ = self.remove(entry.state.fileID)
      var dropped: [Entry] = []
      if self.young.byteCount + entry.byteCount > generationByteCountMax, self.young.byteCount > 0 {
        dropped = Array(self.old.entries.values)
        self.old = self.young
        self.young = Generation()
      }
      self.young.insert(entry)
      return dropped
    }

    mutating func remove(_ file: FileID) -> Entry? {
      let young = self.young.remove(file)
      let old = self.old.remove(file)
      return young ?? old
    }
  }

  /// What a state takes of which nothing is known.
  static let stateByteCount = 512

  private let generationByteCountMax: Int
  private let table = Mutex(State())

  init(byteCountMax: Int) { self.generationByteCountMax = max(1, byteCountMax / 2) }

  /// Bytes that are in use, by estimate.
  var byteCount: Int { self.table.withLock { $0.young.byteCount + $0.old.byteCount } }

  /// The inode's state, made if there is none. One with another key or type takes the place of the former.
  func state(_ file: FileID, type: FileType, key: FileKey?) -> InodeState {
    let (state, dropped) = self.table.withLock { table -> (InodeState, [Entry]) in
      if let found = table.young.entries[file]?.state, found.type == type, found.key == key { return (found, []) }
      var entry: Entry
      if let old = table.old.entries[file], old.state.type == type, old.state.key == key {
        entry = old
      } else {
        entry = Entry(state: InodeState(fileID: file, type: type, key: key), byteCount: Self.stateByteCount)
      }
      return (entry.state, table.insert(entry, generationByteCountMax: self.generationByteCountMax))
    }
    Self.forget(dropped)
    return state
  }

  /// The state that others use for the same inode now.
  func current(_ state: InodeState) -> InodeState { self.state(state.fileID, type: state.type, key: state.key) }

  /// Remembers what is known of an inode, unless something newer is known already. Of what is too large to be kept, a
  /// directory of very many entries, only the record is.
  func remember(_ new: InodeState.Known, of state: InodeState) {
    var new = new
    var byteCount = Self.stateByteCount + new.byteCount
    if byteCount > self.generationByteCountMax {
      new = InodeState.Known(record: new.record, tree: IntegrityTree(new.record.content.part), directory: nil)
      byteCount = Self.stateByteCount + new.byteCount
    }
    guard state.keep(new) else { return }
    let dropped = self.table.withLock { table -> [Entry] in
      // What is not counted is not kept: of two states for one inode the one that others use has it.
      if let present = table.entry(state.fileID), present.state !== state {
        return [Entry(state: state, byteCount: byteCount)]
      }
      return table.insert(
        Entry(state: state, byteCount: byteCount), generationByteCountMax: self.generationByteCountMax)
    }
    Self.forget(dropped)
  }

  /// What is known now of a verified record: tree and entries stay as long as the content does.
  func update(_ state: InodeState, to record: InodeRecord) -> InodeState.Known {
    let former = state.kept.withLock { $0 }
    var new = InodeState.Known(record: record, tree: IntegrityTree(record.content.part), directory: nil)
    if let former, former.record.content == record.content {
      new.tree = former.tree
      new.directory = former.directory
    } else if let coming = state.coming.withLock({ $0 }), coming.content == record.content {
      new.tree = coming.tree
      new.directory = coming.entries
    }
    self.remember(new, of: state)
    return new
  }

  /// Forgets an inode that was removed.
  func forget(_ file: FileID) {
    if let entry = self.table.withLock({ $0.remove(file) }) { Self.forget([entry]) }
  }

  /// Outside of the lock, since it may be much that is freed. Somebody may hold a state for long.
  private static func forget(_ dropped: [Entry]) {
    for entry in dropped { entry.state.forget() }
  }
}
