// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
private import Synchronization
internal import Trust

/// What a process knows of the names in its home directory, which another cluster stores, so that it need not ask that for
/// every path.
///
/// A name leads to an inode of this process's own generation, and no name is taken away from such an inode, or moved,
/// before the inode has another links part (see `Filesystem+Crossing.swift`). So a name that was seen still holds as long
/// as the inode has the links part that it had then: which is asked of this process's own cluster, and is as good as asking the other one.
final class HomeNames: Sendable {
  struct Seen: Sendable {
    let entry: DirectoryEntry
    /// The version of the inode's links part.
    let links: Version
  }

  /// Beyond it all are looked up again.
  private static let countMax = 65_536

  private let seen = Mutex<[PathComponent: Seen]>([:])
  /// Grows whenever something of it changes.
  private let changes = Atomic<UInt64>(0)
  var changeCount: UInt64 { self.changes.load(ordering: .relaxed) }

  func seen(_ name: PathComponent) -> Seen? { self.seen.withLock { $0[name] } }

  var all: [PathComponent: Seen] { self.seen.withLock { $0 } }

  func note(_ entry: DirectoryEntry, links: Version) {
    self.seen.withLock { seen in
      if let known = seen[entry.name], known.entry == entry, known.links == links { return }
      if seen.count >= Self.countMax, seen[entry.name] == nil { seen.removeAll() }
      seen[entry.name] = Seen(entry: entry, links: links)
      self.changes.add(1, ordering: .relaxed)
    }
  }

  func forget(_ name: PathComponent) { self.seen.withLock { $0[name] = nil } }

  /// Forgets all names of an inode.
  func forget(_ file: FileID) {
    self.seen.withLock { seen in
      for (name, known) in seen where known.entry.fileID == file { seen[name] = nil }
    }
  }
}

extension Filesystem {
  /// Whether a directory is this process's home, and another cluster stores it.
  func isForeignHome(_ file: FileID) -> Bool {
    file == self.home.fileID && file.generation != self.sectors.generation
  }

  /// Whether a directory's key is in no directory entry, so that only its own processes have it.
  func isCutOff(_ directory: FileID) async throws(FilesystemError) -> Bool {
    // Also by whoever has not learnt its newest key yet.
    guard let record = try await self.storedRecord(directory) else { return false }
    try await self.verify(record)
    return record.attributes.part.isCutOff
  }

  /// A directory's record and what has a name in it; nil when the directory is gone.
  func look(
    for name: PathComponent, in directory: InodeState
  ) async throws(FilesystemError) -> (record: InodeRecord, entry: DirectoryEntry?)? {
    guard self.isForeignHome(directory.fileID) else {
      guard let known = try await self.directory(directory) else { return nil }
      return (known.record, known.directory?.entry(name))
    }
    if let looked = try await self.lookWithoutAsking(for: name) { return looked }
    do throws(FilesystemError) {
      return try await self.lookAsking(for: name, in: directory)
    } catch {
      // Cut off: what the last copy of the directory says is better than nothing. What it does not say, is not known.
      guard case .sector(.unreachable) = error, let known = self.lastKnownHome,
        let entry = known.directory?.entry(name)
      else { throw self.error(error, about: [directory]) }
      return (known.record, entry)
    }
  }

  /// By what was seen before; nil when that does not hold any more.
  private func lookWithoutAsking(
    for name: PathComponent
  ) async throws(FilesystemError) -> (record: InodeRecord, entry: DirectoryEntry?)? {
    // The names lead elsewhere, or are about to. Who is no member does not know whether they do.
    guard let member, !member.isRetired else { return nil }
    guard let home = self.ancestors.home, let seen = self.names.seen(name) else { return nil }
    guard let links = try await self.storedRecord(seen.entry.fileID)?.links.part, links.version == seen.links,
      links.pending == nil
    else {
      self.names.forget(name)
      return nil
    }
    return (home, seen.entry)
  }

  private func lookAsking(
    for name: PathComponent, in directory: InodeState
  ) async throws(FilesystemError) -> (record: InodeRecord, entry: DirectoryEntry?)? {
    guard let known = try await self.directory(directory) else { return nil }
    let entry = known.directory?.entry(name)
    if let entry, entry.fileID.generation == self.sectors.generation,
      let links = try await self.storedRecord(entry.fileID)?.links.part, links.pending == nil,
      // The name was there after the links part was.
      try await self.storedRecord(directory.fileID)?.version == known.record.version
    {
      self.names.note(entry, links: links.version)
    }
    return (known.record, entry)
  }

  /// That the cluster above can not be reached, if that is what kept something from being done in the home.
  func error(_ error: FilesystemError, about directories: [InodeState]) -> FilesystemError {
    guard case .sector(.unreachable) = error, directories.contains(where: { self.isForeignHome($0.fileID) }) else {
      return error
    }
    return .parentUnreachable
  }

  /// As `known`; of the home, when the cluster that stores it can not be reached, the last copy.
  func knownOrStale(
    _ state: InodeState
  ) async throws(FilesystemError) -> (known: InodeState.Known, isStale: Bool)? {
    do throws(FilesystemError) {
      return try await self.known(state).map { ($0, false) }
    } catch {
      guard case .sector(.unreachable) = error, self.isForeignHome(state.fileID),
        let known = state.lastKnown ?? self.lastKnownHome
      else { throw error }
      return (known, true)
    }
  }

  /// As `directory`, in the same way.
  func directoryOrStale(
    _ state: InodeState
  ) async throws(FilesystemError) -> (known: InodeState.Known, isStale: Bool)? {
    do throws(FilesystemError) {
      return try await self.directory(state).map { ($0, false) }
    } catch {
      guard case .sector(.unreachable) = error, self.isForeignHome(state.fileID), let known = self.lastKnownHome
      else { throw error }
      return (known, true)
    }
  }
}
