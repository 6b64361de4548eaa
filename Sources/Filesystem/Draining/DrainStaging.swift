// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import Trust

/// The place where copies of what a delegated directory holds lie until they take its place: a directory in the home of
/// the cluster that takes it back, so that all that is in it is stored there. Whoever goes on after a crash finds it by
/// its name.
struct DrainStaging: Sendable {
  let filesystem: Filesystem
  /// The directory that is taken back.
  let directory: FileID

  /// Names that are removed in one commit.
  static let batchCountMax = 64
  private static let prefix = ".drain-"
  private static let mode: UInt32 = 0o700
  /// From when on the copies count, as the first of them has taken its place.
  private static let modeOfUse: UInt32 = 0o1700

  var caller: CallerIdentity { .principal(self.filesystem.identity.path) }

  var name: PathComponent {
    get throws(FilesystemError) {
      do { return try PathComponent("\(Self.prefix)\(self.directory.inode)") } catch { throw .invalidPath(error) }
    }
  }

  /// What tells it from a directory that somebody has given such a name: the content ids of those are random.
  private var contentID: [UInt8] {
    Array(Digest32(sha256: Array("blocktree/drain/\(self.directory)".utf8)).bytes.prefix(16))
  }

  private func isOwn(_ record: InodeRecord) -> Bool {
    let rules = record.attributes.part.rules
    return record.fileID.generation == self.filesystem.sectors.generation
      && record.content.part.contentID == self.contentID
      && [Self.mode, Self.modeOfUse].contains(UInt32(rules.mode.rawValue))
      && rules.owner.parent == self.filesystem.home.path
  }

  /// Whether copies have begun to take the places of what they are copies of. They may have been changed since, so nothing
  /// is copied any more.
  func isInUse(_ staging: InodeState) async throws(FilesystemError) -> Bool {
    guard let known = try await self.filesystem.known(staging) else { throw .contended }
    return Self.isInUse(known.record)
  }

  private static func isInUse(_ record: InodeRecord) -> Bool {
    UInt32(record.attributes.part.rules.mode.rawValue) == Self.modeOfUse
  }

  /// Has an edit be committed only as long as they have not: another process may go on with the same.
  ///
  /// - Throws: `contended` when they have.
  static func requireUnused(_ staging: InodeState, in edit: inout Edit) async throws(FilesystemError) {
    guard let record = try await edit.unchangedRecord(staging.fileID), !Self.isInUse(record) else { throw .contended }
  }

  /// Says so, together with the first of them.
  static func setInUse(_ staging: InodeState, in edit: inout Edit) async throws(FilesystemError) {
    var draft = try await edit.draft(staging.fileID)
    guard var attributes = draft.currentAttributes, UInt32(attributes.rules.mode.rawValue) == Self.mode else { return }
    attributes.rules.mode = Mode(truncating: Self.modeOfUse)
    attributes.version = draft.version
    attributes.changed = edit.time
    attributes.actingFor = nil
    draft.attributes = attributes
    edit.put(draft)
  }

  /// Whether an inode in the home is such a place: nobody has to do with it but the processes of the home.
  static func isStaging(_ entry: DirectoryEntry, in filesystem: Filesystem) async throws(FilesystemError) -> Bool {
    guard entry.type == .directory, entry.name.bytes.starts(with: Self.prefix.utf8),
      let number = UInt64(String(decoding: entry.name.bytes.dropFirst(Self.prefix.utf8.count), as: UTF8.self)),
      let record = try await filesystem.storedRecord(entry.fileID)
    else { return false }
    let directory = FileID(generation: filesystem.sectors.generation, inode: InodeNumber(number))
    return DrainStaging(filesystem: filesystem, directory: directory).isOwn(record)
  }

  /// Nil when there is none.
  ///
  /// - Throws: `alreadyExists` when something else has its name.
  func find() async throws(FilesystemError) -> InodeState? {
    let home = try await self.filesystem.knownDirectory(self.filesystem.root)
    guard let entry = home.directory?.entry(try self.name) else { return nil }
    let state = try await self.filesystem.state(of: entry)
    guard state.type == .directory, let known = try await self.filesystem.known(state), self.isOwn(known.record) else {
      throw .alreadyExists
    }
    return state
  }

  /// Finds it, or makes it.
  func make() async throws(FilesystemError) -> InodeState {
    for _ in 0..<Filesystem.attemptsMax {
      if let found = try await self.find() { return found }
      let filesystem = self.filesystem
      let file = try await filesystem.numbers.next(in: filesystem.sectors)
      let entry = DirectoryEntry(name: try self.name, fileID: file, type: .directory, key: .random())
      let home = filesystem.root
      let (caller, contentID) = (self.caller, self.contentID)
      let request = DirectoryRequest(operation: nil, byteCount: filesystem.sectors.sectorSize) {
        edit throws(FilesystemError) in
        edit.caller = caller
        guard edit.entry(entry.name, in: home) == nil else { throw .alreadyExists }
        var content = ContentPart(
          fileID: file, version: 1, sectorSize: filesystem.sectors.sectorSize, contentID: contentID,
          modified: edit.time)
        content.directoryFormat = DirectoryContent.format
        try edit.create(
          entry, in: home, content: content, mode: Mode(truncating: Self.mode), owner: filesystem.identity.path)
        return file
      }
      try filesystem.drains.noteCommit()
      do throws(FilesystemError) { _ = try await filesystem.change(home, request) } catch {
        await filesystem.abandonCrossing(file, in: home)
        // Somebody else may have been faster.
        guard case .alreadyExists = error else { throw error }
      }
    }
    throw .contended
  }

  /// Removes it with all that is in it.
  func remove() async throws(FilesystemError) {
    for _ in 0..<Filesystem.attemptsMax {
      guard let staging = try await self.find() else { return }
      try await self.empty(staging)
      let (home, name, caller) = (self.filesystem.root, try self.name, self.caller)
      let request = DirectoryRequest(operation: nil, byteCount: self.filesystem.sectors.sectorSize) {
        edit throws(FilesystemError) in
        edit.caller = caller
        guard let entry = edit.entry(name, in: home), entry.fileID == staging.fileID else { return nil }
        try await edit.requireEmpty(entry)
        edit.removeEntry(name, in: home)
        try await edit.unlink(entry.fileID, from: home.fileID)
        return nil
      }
      try self.filesystem.drains.noteCommit()
      do throws(FilesystemError) {
        _ = try await self.filesystem.change(home, together: [staging], request)
        return
      } catch {
        guard error == .notEmpty || error.isConflict else { throw error }
      }
    }
    throw .contended
  }

  /// Removes all that is in a directory.
  ///
  /// - Parameter staging: as for `remove`.
  func empty(_ directory: InodeState, whileUnused staging: InodeState? = nil) async throws(FilesystemError) {
    var conflictCount = 0
    while let known = try await self.filesystem.directory(directory), let content = known.directory {
      let entries = content.page(after: nil, count: Self.batchCountMax).entries
      if entries.isEmpty { return }
      for entry in entries where entry.type == .directory {
        try await self.empty(try await self.filesystem.state(of: entry), whileUnused: staging)
      }
      if try await self.remove(entries, from: directory, whileUnused: staging) { continue }
      conflictCount += 1
      guard conflictCount < Filesystem.attemptsMax else { throw .contended }
    }
  }

  /// Removes some names, each with what it leads to, if that has no other; directories have to be empty.
  ///
  /// - Parameter staging: the place itself, as long as none of its copies is in use; nil when that makes no difference.
  /// - Returns: false when others have changed something meanwhile, and nothing was done.
  func remove(
    _ entries: [DirectoryEntry], from directory: InodeState, whileUnused staging: InodeState? = nil
  ) async throws(FilesystemError) -> Bool {
    try self.filesystem.drains.noteCommit()
    var edit = Edit(self.filesystem, caller: self.caller)
    if let staging { try await DrainStaging.requireUnused(staging, in: &edit) }
    do throws(FilesystemError) {
      try await edit.open(directory)
      var files: Set<FileID> = []
      // Two names of one file take two commits.
      for entry in entries where files.insert(entry.fileID).inserted {
        guard edit.entry(entry.name, in: directory)?.fileID == entry.fileID else { continue }
        if entry.type == .directory { try await edit.requireEmpty(entry) }
        edit.removeEntry(entry.name, in: directory)
        try await edit.unlink(entry.fileID, from: directory.fileID)
      }
      return try await self.filesystem.commit(&edit) != nil
    } catch {
      guard error.isConflict || error == .notEmpty else { throw error }
      return false
    }
  }
}
