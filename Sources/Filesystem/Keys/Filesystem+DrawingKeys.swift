// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import Trust

/// An entry whose key may be known to somebody who is not to read what is written from now on.
struct ExposedEntry: Sendable {
  let directory: InodeState
  let name: PathComponent
}

extension Filesystem {
  /// Gives what an exposed entry leads to a new key. Durable when it returns.
  func drawKey(_ exposed: ExposedEntry) async throws(FilesystemError) {
    // What was seen of it may be out of date, so that somebody has done it already.
    if self.isForeignHome(exposed.directory.fileID) { self.names.forget(exposed.name) }
    // A next key that was planned before, and is only put in its place, may be exposed, too.
    for _ in 0..<Self.attemptsMax {
      guard let known = try await self.directory(exposed.directory), let entry = known.directory?.entry(exposed.name)
      else { return }
      guard entry.isExposed(in: known.record.content.part.keyEpoch) else { return }
      try await self.drawKey(of: entry, exposed)
    }
    throw .contended
  }

  private func drawKey(of entry: DirectoryEntry, _ exposed: ExposedEntry) async throws(FilesystemError) {
    if entry.fileID.generation != exposed.directory.fileID.generation {
      return try await self.drawKeyOverTwoClusters(entry, in: exposed.directory)
    }
    do throws(FilesystemError) {
      _ = try await self.drawKeys([exposed.name], in: exposed.directory, isOnlyOne: true)
    } catch {
      guard case .keyStandsElsewhere(let file) = error else { throw error }
      try await self.drawKey(of: entry.fileID, from: file)
    }
  }

  /// Draws the key of a file that has names in several directories from the one that another cluster stores.
  private func drawKey(of file: FileID, from directory: FileID) async throws(FilesystemError) {
    guard let state = try await self.directory(at: directory),
      let entry = try await self.directory(state)?.directory?.all.first(where: { $0.fileID == file })
    else { throw .contended }
    try await self.drawKeyOverTwoClusters(entry, in: state)
  }

  /// Gives what exposed entries of one directory lead to new keys, in one commit if there are not very many. All of it is
  /// of the directory's own generation.
  ///
  /// - Parameter isOnlyOne: whether to throw what is wrong with it.
  /// - Returns: how many were given one.
  func drawKeys(
    _ names: [PathComponent], in directory: InodeState, isOnlyOne: Bool = false
  ) async throws(FilesystemError) -> Int {
    let count = Counter()
    let request = DirectoryRequest(operation: nil, byteCount: directory.type == .directory ? 1 << 20 : 0) {
      edit throws(FilesystemError) in
      edit.caller = .principal(self.identity.path)
      count.reset()
      for name in names {
        let epoch = try edit.record(of: directory).content.part.keyEpoch
        guard let entry = edit.entry(name, in: directory), entry.isExposed(in: epoch),
          entry.fileID.generation == directory.fileID.generation
        else { continue }
        let before = edit
        do throws(FilesystemError) { try await edit.drawKey(of: entry, in: directory) } catch {
          // What is wrong with one of them is no fault of the others.
          if error.isConflict || isOnlyOne { throw error }
          edit = before
          continue
        }
        count.add()
      }
      return nil
    }
    _ = try await self.change(directory, request)
    return count.value
  }

  /// The same for an entry in a directory that another cluster stores. As there is no commit over both, the entry has the
  /// present key and the next one while the inode goes over from one to the other, and whoever reads takes the one that
  /// fits. A next key that stands there is never replaced by another, so it does not matter who goes on after a crash, nor
  /// how many do so at the same time.
  private func drawKeyOverTwoClusters(
    _ entry: DirectoryEntry, in directory: InodeState
  ) async throws(FilesystemError) {
    guard let present = entry.key, present.epoch < .max else { throw .limitReached("key epochs") }
    var entry = entry
    if entry.nextKey == nil {
      entry.nextKey = .random(epoch: present.epoch + 1)
      guard let planned = try await self.update(entry, from: present, in: directory, drawn: true) else {
        throw .keyOutdated(entry.fileID)
      }
      entry = planned
    }
    guard let next = entry.nextKey else { return }
    for _ in 0..<Self.attemptsMax {
      guard let record = try await self.storedRecord(entry.fileID) else { return }
      if record.content.part.keyEpoch == next.epoch { break }
      try await self.verify(record)
      var edit = Edit(self, caller: .principal(self.identity.path))
      do throws(FilesystemError) {
        try await edit.beginEpoch(of: entry.fileID, from: present, to: next)
        try await edit.update(entry.fileID, key: next, in: nil)
        if try await self.commit(&edit) != nil { break }
      } catch {
        guard error.isConflict else { throw error }
      }
    }
    // Nothing takes the place of the present key that does not open what is there.
    guard let content = try await self.storedRecord(entry.fileID)?.content.part,
      (try? FileKeys(next, content: content)) != nil
    else { throw .contended }
    entry.key = next
    entry.nextKey = nil
    entry.isMarkedExposed = false
    _ = try await self.update(entry, from: present, in: directory, drawn: false)
    self.names.forget(entry.fileID)
  }

  /// Changes the keys of an entry as long as it has the one that was seen; nil when it has not.
  ///
  /// - Parameter drawn: whether its next key is a new one, drawn in the present epoch of the directory.
  private func update(
    _ new: DirectoryEntry, from present: FileKey, in directory: InodeState, drawn: Bool
  ) async throws(FilesystemError) -> DirectoryEntry? {
    let result = Holder<DirectoryEntry>()
    let request = DirectoryRequest(operation: nil, byteCount: self.sectors.sectorSize) { edit throws(FilesystemError) in
      edit.caller = .principal(self.identity.path)
      result.value = nil
      let epoch = try edit.record(of: directory).content.part.keyEpoch
      let entries = edit.entries(of: new.fileID, in: directory).filter { $0.key == present }
      let planned = entries.compactMap(\.nextKey).first
      for var entry in entries {
        if drawn {
          entry.nextKey = planned ?? new.nextKey
          if planned == nil { entry.drawnInEpoch = epoch }
        } else {
          guard entry.nextKey == new.key else { continue }
          entry.key = new.key
          entry.nextKey = nil
          entry.isMarkedExposed = false
        }
        edit.update(entry, in: directory)
        if entry.name == new.name { result.value = entry }
      }
      return nil
    }
    _ = try await self.change(directory, request)
    return result.value
  }
}
