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
  /// The path itself, without symbolic links on the way.
  var path: TreePath
  /// Whether the caller has the key of a directory on the way.
  var isReadable = false
  /// The first entry of a directory on the way whose key is exposed.
  var exposed: ExposedEntry?
  /// Whether that of what was found is.
  var isFoundExposed = false

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
  ///
  /// - Parameters:
  ///   - entersLast: whether the last directory is looked into although another cluster serves it: what is meant is of
  ///     the cluster that stores the directory itself.
  ///   - needsMember: whether it is for something that only members of a cluster do. Where a directory's own processes
  ///     are gateways, that is done here.
  func place(
    of path: TreePath, for caller: CallerIdentity, follow: Bool, entersLast: Bool = false,
    needsMember: Bool = false, drawing keys: Drawing = .none
  ) async throws(FilesystemError) -> Place {
    var attemptCount = 0
    var drawnCount = 0
    while attemptCount < Self.attemptsMax, drawnCount < TreePath.byteCountMax {
      let place: Place?
      do throws(FilesystemError) {
        place = try await self.attemptPlace(
          of: path, for: caller, follow: follow, entersLast: entersLast, needsMember: needsMember)
      } catch {
        guard case .keyOutdated(let file) = error else { throw error }
        self.names.forget(file)
        place = nil
      }
      attemptCount += 1
      guard let place else { continue }
      guard let exposed = self.exposed(at: place, keys) else { return place }
      // From the top down: with a new key of a directory, those of all that is in it are to be new.
      do throws(FilesystemError) { try await self.drawKey(exposed) } catch {
        if case .keyOutdated = error { continue }
        guard error.isConflict else { throw error }
        continue
      }
      attemptCount -= 1
      drawnCount += 1
    }
    throw .contended
  }

  /// Which exposed keys on a way are to be replaced by new ones before it is used.
  enum Drawing: Sendable {
    /// None: nothing is going to be written.
    case none
    /// Those of the directories: something is going to be put into the last one.
    case ofDirectories
    /// These and that of the file.
    case ofFile
  }

  private func exposed(at place: Place, _ keys: Drawing) -> ExposedEntry? {
    switch keys {
    case .none: return nil
    case .ofDirectories: return place.exposed
    case .ofFile:
      if let exposed = place.exposed { return exposed }
      guard place.isFoundExposed, let parent = place.parent, let entry = place.found?.entry else { return nil }
      return ExposedEntry(directory: parent, name: entry.name)
    }
  }

  /// Nil when something on the way was removed while it was looked up: another may have taken its place.
  private func attemptPlace(
    of path: TreePath, for caller: CallerIdentity, follow: Bool, entersLast: Bool, needsMember: Bool
  ) async throws(FilesystemError) -> Place? {
    try await self.requireServing()
    // What lies elsewhere is for others to judge.
    guard self.home.path.isSameOrAncestor(of: path) else { throw self.redirection(upTo: nil) }
    var way = Way(root: self.root, home: self.home.path, isReached: try await self.letsPass(caller))
    if self.holdsReadcapAbove(caller) { way.setReadable() }
    guard var names = way.begin(path.components) else { throw self.redirection(upTo: nil) }
    /// The entry that led to the last directory, and where it is.
    var step: (parent: InodeState, entry: DirectoryEntry)?
    /// Whether the caller may pass all directories to the symbolic links that were followed.
    var mayFollow = true
    var links = 0
    while true {
      let directory = way.directory
      var mayPass = mayFollow && way.isReached
      guard let name = names.popFirst() else {
        return Place(
          parent: way.directories.dropLast().last, name: nil, found: .init(state: directory, entry: nil),
          mayPass: mayPass, directories: way.directories.map(\.fileID), path: try way.path(),
          isReadable: way.isReadable, exposed: way.exposed)
      }
      if directory.key == nil {
        try await self.checkCutOff(
          directory, at: way, then: [name] + names, for: caller, mayPass, needsMember: needsMember)
      }
      guard let looked = try await self.look(for: name, in: directory) else {
        if let step, step.entry.fileID == directory.fileID { try await self.requireGone(step.entry, from: step.parent) }
        return nil
      }
      let needed: Permission = caller == .anonymous ? [.read, .execute] : .execute
      if self.holdsReadcap(caller, looked.record) {
        // Whoever has the key can read all that is here, in a place that others do not get to. To write takes permission.
        way.setReadable()
        let rules = looked.record.attributes.part.rules
        mayPass =
          mayFollow
          && (mayPass ? rules : rules.ofClosedPlace).permits(needed, caller: caller, memberOf: { _ in false })
      } else if !self.permits(needed, looked.record, caller) {
        if caller == .anonymous { throw .permissionDenied }
        mayPass = false
      }
      let mayLook = mayPass || way.isReadable
      // Who is asked for a credential file is asked for what its directory's own cluster stores.
      if !names.isEmpty || !entersLast {
        if links > 0, !mayLook, self.isServedElsewhere(looked.record) { throw .permissionDenied }
        try await self.checkServed(
          looked.record, at: way, then: [name] + names, asked: path, needsMember: needsMember)
      }
      guard let entry = looked.entry else {
        if !mayLook { throw .permissionDenied }
        guard names.isEmpty else { throw .notFound }
        return Place(
          parent: directory, name: name, found: nil, mayPass: mayPass, directories: way.directories.map(\.fileID),
          path: try way.path(name), isReadable: way.isReadable, exposed: way.exposed)
      }
      try await self.requireNoStaging(entry, in: directory, for: caller)
      let state = try await self.state(of: entry)
      let isExposed = entry.isExposed(in: looked.record.content.part.keyEpoch)
      switch entry.type {
      case .directory where !names.isEmpty:
        guard way.directories.count < TreePath.byteCountMax / 2 else { throw .loop }
        way.enter(state, entry, isExposed: isExposed, isReached: mayPass)
        step = (directory, entry)
      case .symbolicLink where !names.isEmpty || follow:
        links += 1
        guard links <= Self.linksMax else { throw .loop }
        guard let target = try await self.target(of: state) else {
          try await self.requireGone(entry, from: directory)
          return nil
        }
        let components = try way.components(following: target, then: names)
        mayFollow = mayLook
        guard let rest = way.begin(components) else {
          // Where a link leads that lies in a closed place is not told.
          throw mayLook ? self.redirection(upTo: try Self.path(components)) : .permissionDenied
        }
        names = rest
        step = nil
      default:
        guard names.isEmpty else { throw mayLook ? .notDirectory : .permissionDenied }
        return Place(
          parent: directory, name: name, found: .init(state: state, entry: entry), mayPass: mayPass,
          directories: way.directories.map(\.fileID), path: try way.path(name),
          isReadable: way.isReadable && entry.key != nil, exposed: way.exposed, isFoundExposed: isExposed)
      }
    }
  }

  /// What is said of a directory that this process has no key for: its own processes may have it.
  private func checkCutOff(
    _ directory: InodeState, at way: Way, then names: [PathComponent], for caller: CallerIdentity, _ mayPass: Bool,
    needsMember: Bool
  ) async throws(FilesystemError) {
    guard let known = try await self.known(directory) else { return }
    let needed: Permission = caller == .anonymous ? [.read, .execute] : .execute
    let isLetIn = mayPass && self.permits(needed, known.record, caller)
    guard isLetIn || self.holdsReadcap(caller, known.record) else { throw .permissionDenied }
    try await self.checkServed(
      known.record, at: way.path(), then: Self.path(way.components + names), needsMember: needsMember)
    throw .noKey(directory.fileID)
  }

  /// Whether a readcap gives a caller the key of an inode.
  func holdsReadcap(_ caller: CallerIdentity, _ record: InodeRecord) -> Bool {
    guard case .principal(let path) = caller else { return false }
    return record.attributes.part.readcaps.contains { $0.principal == path }
  }

  /// Whether a readcap of a directory above the home gives a caller the key of all that is here.
  private func holdsReadcapAbove(_ caller: CallerIdentity) -> Bool {
    guard !self.home.path.isRoot, caller != .anonymous, let home = self.ancestors.home,
      let above = self.ancestors.above
    else { return false }
    // From below upwards, as far as keys lead down.
    var isCutOff = home.attributes.part.isCutOff
    for record in above {
      if isCutOff { return false }
      if self.holdsReadcap(caller, record) { return true }
      isCutOff = record.attributes.part.isCutOff
    }
    return false
  }

  private static func path(_ components: some Sequence<PathComponent>) throws(FilesystemError) -> TreePath {
    do { return try TreePath(components) } catch { throw .invalidPath(error) }
  }

  // MARK: Other clusters

  /// Says that what was asked for lies above, or beside, what this process answers for.
  ///
  /// - Parameter path: where symbolic links have led to; nil for the path that was asked for.
  func redirection(upTo path: TreePath?) -> FilesystemError {
    guard var above = self.neighbours.above() else { return .parentUnreachable }
    above.path = path
    return .redirected(above)
  }

  /// Whether every directory above the home lets a caller pass.
  private func letsPass(_ caller: CallerIdentity) async throws(FilesystemError) -> Bool {
    if self.home.path.isRoot { return true }
    let needed: Permission = caller == .anonymous ? [.read, .execute] : .execute
    let mayPass = try await self.ancestorsPermit(needed, for: caller)
    if !mayPass, caller == .anonymous { throw .permissionDenied }
    return mayPass
  }

  private func isServedElsewhere(_ record: InodeRecord) -> Bool {
    record.attributes.part.servedByGeneration != nil && record.fileID != self.home.fileID
  }

  /// Takes note of a directory that another cluster serves, and sends callers to its processes where these answer.
  ///
  /// - Parameters:
  ///   - names: what is looked for below.
  ///   - asked: the path that the caller has asked for.
  private func checkServed(
    _ record: InodeRecord, at way: Way, then names: some Sequence<PathComponent>, asked: TreePath, needsMember: Bool
  ) async throws(FilesystemError) {
    guard record.attributes.part.servedByGeneration != nil, record.fileID != self.home.fileID else { return }
    self.crossing.note(directory: way.directory)
    let path = try Self.path(way.components + Array(names))
    try await self.checkServed(
      record, at: try way.path(), then: path == asked ? nil : path, needsMember: needsMember)
  }

  /// - Parameters:
  ///   - directory: the path of the directory with the record.
  ///   - path: what the caller is to ask for there, if it is not what it has asked for here.
  ///   - needsMember: whether those who answer there have to be members of their cluster.
  func checkServed(
    _ record: InodeRecord, at directory: TreePath, then path: TreePath?, needsMember: Bool = false
  ) async throws(FilesystemError) {
    guard let generation = record.attributes.part.servedByGeneration, record.fileID != self.home.fileID else { return }
    self.volumes.note(generation, serving: directory, record.fileID)
    let processes = await self.processes(in: directory, record.fileID).filter { process in
      process.services.contains(.filesystem) && (!needsMember || process.services.contains(.sector))
    }
    guard !processes.isEmpty else { return }
    throw .redirected(
      FilesystemRedirection(
        directory: directory, processes: processes.map { .init(path: $0.path, addresses: $0.addresses) }, path: path))
  }

  /// The volume that new inodes with a name in a directory go to.
  func volumeForChildren(of directory: InodeState) async throws(FilesystemError) -> any Volume {
    guard let known = try await self.known(directory) else { throw .notFound }
    return try await self.volumes.volume(
      of: known.record.attributes.part.servedByGeneration ?? directory.fileID.generation)
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
    _ path: TreePath, for caller: CallerIdentity, follow: Bool, needsMember: Bool = false,
    drawing keys: Drawing = .none
  ) async throws(FilesystemError) -> (place: Place, state: InodeState, known: InodeState.Known, isStale: Bool) {
    // What is removed while it is looked up may have been replaced.
    for _ in 0..<Self.attemptsMax {
      let place = try await self.place(
        of: path, for: caller, follow: follow, needsMember: needsMember, drawing: keys)
      guard let found = place.found else { throw .notFound }
      do throws(FilesystemError) {
        if let (known, isStale) = try await self.knownOrStale(found.state) {
          return (place, found.state, known, isStale)
        }
      } catch {
        // Or given a new key.
        guard case .keyOutdated(let file) = error else { throw error }
        self.names.forget(file)
        continue
      }
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
      do throws(FilesystemError) {
        if let result = try await body() { return result }
      } catch {
        guard case .keyOutdated(let file) = error else { throw error }
        self.names.forget(file)
      }
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
    // Whoever has the key can read it anyhow.
    if wanted.isSubset(of: [.read, .execute]), place.isReadable || self.holdsReadcap(caller, record) { return }
    if place.mayPass {
      guard self.permits(wanted, record, caller) else { throw .permissionDenied }
      return
    }
    let own = record.attributes.part.rules.ofClosedPlace
    // To want nothing is no permission: it takes at least one.
    let needed = wanted.isEmpty ? [Permission.read, .write, .execute] : [wanted]
    guard needed.contains(where: { own.permits($0, caller: caller, memberOf: { _ in false }) }) else {
      throw .permissionDenied
    }
  }

  /// The directory and name that a new entry is to have. The directory must be there.
  func newPlace(
    _ path: TreePath, for caller: CallerIdentity, follow: Bool, entersLast: Bool = false, needsMember: Bool = false
  ) async throws(FilesystemError) -> (parent: InodeState, name: PathComponent, place: Place) {
    let place = try await self.place(
      of: path, for: caller, follow: follow, entersLast: entersLast, needsMember: needsMember, drawing: .ofDirectories)
    // Whoever has the key learns that there is nothing, and no more.
    guard place.mayPass || place.found != nil else { throw .permissionDenied }
    guard let parent = place.parent, let name = place.name else {
      // Whoever serves the directory above knows of the name.
      guard self.home.path.isRoot || place.path != self.home.path else { throw self.redirection(upTo: nil) }
      // The root directory has no name.
      throw .alreadyExists
    }
    return (parent, name, place)
  }
}
