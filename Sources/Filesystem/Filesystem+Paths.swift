// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import Trust

/// Where a path leads.
struct Place: Sendable {
  /// The directory of the last component; nil for the root directory itself.
  var parent: InodeState?
  /// The last component.
  var name: PathComponent?
  /// What is there; nil when there is nothing of that name.
  var found: Found?
  /// Whether the caller may pass through all directories on the way. Who may not, may still reach a file that it has
  /// permission for, but learns nothing of what is not there.
  var mayPass: Bool
  /// The directories from the root to the parent, for finding out whether a directory would come to lie in itself.
  var directories: [FileID]

  struct Found: Sendable {
    var state: InodeState
    var entry: DirectoryEntry?
  }
}

extension Filesystem {
  /// Symbolic links that are followed on the way.
  private static let linksMax = 40

  /// Finds where a path leads, following symbolic links on the way, and the last one if asked.
  ///
  /// - Throws: `notFound` when a directory on the way is missing; `permissionDenied` for anonymous callers as soon as
  ///   a directory on the way is not open to others, and for others where they may not know.
  func place(
    of path: TreePath, for caller: CallerIdentity, follow: Bool
  ) async throws(FilesystemError) -> Place {
    for _ in 0..<Self.attemptsMax {
      if let place = try await self.attemptPlace(of: path, for: caller, follow: follow) { return place }
    }
    throw .contended
  }

  /// Nil when something on the way was removed while it was looked up: another may have taken its place.
  private func attemptPlace(
    of path: TreePath, for caller: CallerIdentity, follow: Bool
  ) async throws(FilesystemError) -> Place? {
    var directories = [self.root]
    /// The entry that led to the last directory, and where it is.
    var step: (parent: InodeState, entry: DirectoryEntry)?
    var names = path.components[...]
    var mayPass = true
    var links = 0
    while true {
      guard let directory = directories.last else { throw .notFound }
      guard let name = names.popFirst() else {
        let parent = directories.count > 1 ? directories[directories.count - 2] : nil
        return Place(
          parent: parent, name: nil, found: .init(state: directory, entry: nil), mayPass: mayPass,
          directories: directories.map(\.fileID))
      }
      guard let known = try await self.directory(directory) else {
        if let step, step.entry.fileID == directory.fileID { try await self.requireGone(step.entry, from: step.parent) }
        return nil
      }
      let needed: Permission = caller == .anonymous ? [.read, .execute] : .execute
      if !self.permits(needed, known.record, caller) {
        if caller == .anonymous { throw .permissionDenied }
        mayPass = false
      }
      guard let entry = known.directory?.entry(name) else {
        if !mayPass { throw .permissionDenied }
        guard names.isEmpty else { throw .notFound }
        return Place(
          parent: directory, name: name, found: nil, mayPass: mayPass, directories: directories.map(\.fileID))
      }
      let state = self.inodes.state(entry.fileID, type: entry.type, key: entry.key)
      switch entry.type {
      case .directory where !names.isEmpty:
        guard directories.count < TreePath.byteCountMax / 2 else { throw .loop }
        directories.append(state)
        step = (directory, entry)
      case .symbolicLink where !names.isEmpty || follow:
        links += 1
        guard links <= Self.linksMax else { throw .loop }
        guard let target = try await self.target(of: state) else {
          try await self.requireGone(entry, from: directory)
          return nil
        }
        if target.first == UInt8(ascii: "/") { directories = [self.root] }
        names = try Self.follow(target, then: names, directories: &directories)
      default:
        guard names.isEmpty else { throw mayPass ? .notDirectory : .permissionDenied }
        return Place(
          parent: directory, name: name, found: .init(state: state, entry: entry), mayPass: mayPass,
          directories: directories.map(\.fileID))
      }
    }
  }

  /// The components to go on with after a symbolic link.
  private static func follow(
    _ target: [UInt8], then rest: ArraySlice<PathComponent>, directories: inout [InodeState]
  ) throws(FilesystemError) -> ArraySlice<PathComponent> {
    var names: [PathComponent] = []
    for part in target.split(separator: UInt8(ascii: "/")) {
      if part.elementsEqual([UInt8(ascii: ".")]) { continue }
      if part.elementsEqual([UInt8(ascii: "."), UInt8(ascii: ".")]) {
        // Above the root lies the root. Within the target, ".." takes back what went before it by name: a link that
        // leads through another link and up again is not followed to the letter.
        if !names.isEmpty {
          names.removeLast()
        } else if directories.count > 1 {
          directories.removeLast()
        }
        continue
      }
      do { names.append(try PathComponent(bytes: Array(part))) } catch { throw .invalidPath(error) }
    }
    guard names.count + rest.count <= TreePath.byteCountMax / 2 else { throw .loop }
    return (names + rest)[...]
  }

  /// Checks that the entry of an inode that is not there any more went with it: otherwise the inode is missing.
  func requireGone(_ entry: DirectoryEntry, from parent: InodeState) async throws(FilesystemError) {
    guard let present = try await self.directory(parent)?.directory?.entry(entry.name), present.fileID == entry.fileID
    else { return }
    throw .dataLoss(entry.fileID, .missing)
  }

  /// What a symbolic link says; nil when it is gone.
  func target(of state: InodeState) async throws(FilesystemError) -> [UInt8]? {
    guard state.type == .symbolicLink else { throw .wrongType }
    guard var known = try await self.known(state) else { return nil }
    let content = known.record.content.part
    guard content.size <= UInt64(RecordLimits.inlineContentByteCountMax) else { throw .dataLoss(state.fileID, .record) }
    return try await self.content.read(
      0..<content.size, of: content, tree: &known.tree, key: state.key, version: known.record.version)
  }

  /// A file that exists, with what is known of it. What is not there is not found, or not the caller's to know.
  func existing(
    _ path: TreePath, for caller: CallerIdentity, follow: Bool
  ) async throws(FilesystemError) -> (place: Place, state: InodeState, known: InodeState.Known) {
    // What is removed while it is looked up may have been replaced.
    for _ in 0..<Self.attemptsMax {
      let place = try await self.place(of: path, for: caller, follow: follow)
      guard let found = place.found else { throw .notFound }
      if let known = try await self.known(found.state) { return (place, found.state, known) }
      if let parent = place.parent, let entry = found.entry { try await self.requireGone(entry, from: parent) }
    }
    throw .contended
  }

  /// Does what begins with looking up paths, again while it answers nil: what it had found was removed meanwhile, and
  /// another may have taken its place.
  func lookingUp<Result>(
    _ body: () async throws(FilesystemError) -> Result?
  ) async throws(FilesystemError) -> Result {
    for _ in 0..<Self.attemptsMax {
      if let result = try await body() { return result }
    }
    throw .contended
  }

  /// Does something with inodes that were looked up; answers nil when it found nothing because one of them was removed.
  func unlessRemoved<Result>(
    _ states: [InodeState], _ body: () async throws(FilesystemError) -> Result
  ) async throws(FilesystemError) -> Result? {
    do throws(FilesystemError) { return try await body() } catch {
      guard case .notFound = error else { throw error }
      for state in states where try await self.storedRecord(state.fileID) == nil { return nil }
      throw error
    }
  }

  /// Requires permission for a file: through the directories on the way, or else given to this very caller, as owner,
  /// as a member of a group, or by the access list. What a file lets others do counts only for those whom the
  /// directories above let pass, or a closed directory would close nothing.
  func require(
    _ wanted: Permission, of record: InodeRecord, at place: Place, for caller: CallerIdentity
  ) throws(FilesystemError) {
    if place.mayPass {
      guard self.permits(wanted, record, caller) else { throw .permissionDenied }
      return
    }
    var own = record.attributes.part.rules
    // The root directory, as a group, is everybody in the domain.
    own.mode = Mode(truncating: UInt32(own.mode.rawValue & (own.group.isRoot ? 0o7700 : 0o7770)))
    own.entries.removeAll { $0.subject == .group(.root) }
    // To want nothing is no permission: it takes at least one.
    let needed = wanted.isEmpty ? [Permission.read, .write, .execute] : [wanted]
    guard needed.contains(where: { own.permits($0, caller: caller, memberOf: { _ in false }) }) else {
      throw .permissionDenied
    }
  }

  /// The directory and name that a new entry is to have. The directory must be there.
  func newPlace(
    _ path: TreePath, for caller: CallerIdentity, follow: Bool
  ) async throws(FilesystemError) -> (parent: InodeState, name: PathComponent, place: Place) {
    let place = try await self.place(of: path, for: caller, follow: follow)
    guard let parent = place.parent, let name = place.name else {
      // The root directory has no name.
      throw .alreadyExists
    }
    return (parent, name, place)
  }
}
