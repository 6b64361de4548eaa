// SPDX-License-Identifier: Apache-2.0

package import Inodes
internal import Sectors
package import Trust

/// Who asks, and under which operation id.
package struct Request: Sendable {
  package let caller: CallerIdentity
  package let operation: OperationID?

  package init(caller: CallerIdentity, operation: OperationID? = nil) {
    self.caller = caller
    self.operation = operation
  }

  /// The principal that writes. Anonymous callers never do.
  func writer() throws(FilesystemError) -> TreePath {
    guard case .principal(let path) = self.caller else { throw .permissionDenied }
    return path
  }

  var identified: (id: OperationID, principal: TreePath)? {
    guard let operation = self.operation, case .principal(let path) = self.caller else { return nil }
    return (operation, path)
  }
}

extension Filesystem {
  // MARK: Looking

  /// Describes a file.
  package func stat(_ path: TreePath, follow: Bool, for caller: CallerIdentity) async throws(FilesystemError)
    -> FileInfo
  {
    let place = try await self.existing(path, for: caller, follow: follow)
    try self.require([], of: place.known.record, at: place.place, for: caller)
    var info = FileInfo(place.known.record)
    info.isStale = place.isStale
    return info
  }

  /// One page of a directory.
  ///
  /// - Parameter count: how many entries at most; fewer when they would take more than `pageByteCountMax`, but at least
  ///   one, unless there is none.
  package func list(
    _ path: TreePath, after cursor: [UInt8], count: Int, withInfo: Bool, for caller: CallerIdentity
  ) async throws(FilesystemError) -> (entries: [ListedEntry], next: [UInt8], isStale: Bool) {
    var start: DirectoryContent.Cursor?
    if !cursor.isEmpty {
      start = DirectoryContent.Cursor(bytes: cursor)
      if start == nil { throw .invalid(field: "cursor") }
    }
    let (place, state, known, isStale) = try await self.lookingUp {
      () throws(FilesystemError) -> (Place, InodeState, InodeState.Known, Bool)? in
      let (place, state, _, _) = try await self.existing(path, for: caller, follow: true)
      return try await self.directoryOrStale(state).map { (place, state, $0.known, $0.isStale) }
    }
    try self.require(.read, of: known.record, at: place, for: caller)
    // Whoever stores what is in it describes it, too.
    try await self.checkServed(known.record, at: place.path, then: place.path == path ? nil : place.path)
    guard let directory = known.directory else { throw .notDirectory }
    let page = directory.page(after: start, count: count)
    // To describe what lies in a directory takes the permission to pass into it.
    let mayPass = withInfo && self.permits(.execute, known.record, caller)
    var entries: [ListedEntry] = []
    entries.reserveCapacity(page.entries.count)
    var byteCount = 0
    for entry in page.entries {
      var listed = ListedEntry(name: entry.name, fileID: entry.fileID, type: entry.type, info: nil)
      if mayPass {
        // What was removed meanwhile is not listed.
        guard let description = try await self.describe(entry, in: state) else { continue }
        switch description {
        case .info(let info): listed.info = info
        case .damaged: listed.isDamaged = true
        case .unreachable: break
        }
      }
      byteCount += listed.byteCount
      if byteCount > Self.pageByteCountMax, let last = entries.last {
        return (entries, directory.cursor(after: last.name)?.bytes ?? [], isStale)
      }
      entries.append(listed)
    }
    return (entries, page.next?.bytes ?? [], isStale)
  }

  /// About how many bytes of entries are listed at once.
  package static let pageByteCountMax = 1 << 20

  private enum Description {
    case info(FileInfo)
    case damaged
    /// Another cluster stores it, which can not be reached.
    case unreachable
  }

  /// Describes what an entry leads to; nil when both are gone. A record that is damaged, or out of reach, spoils the
  /// listing of no other.
  private func describe(
    _ entry: DirectoryEntry, in directory: InodeState
  ) async throws(FilesystemError) -> Description? {
    do throws(FilesystemError) {
      let state = try await self.state(of: entry)
      if let known = try await self.known(state) { return .info(FileInfo(known.record)) }
      try await self.requireGone(entry, from: directory)
      return nil
    } catch {
      switch error {
      case .dataLoss: return .damaged
      case .sector(.unreachable): return .unreachable
      // Given a new key since the directory was read. What is said of it needs none.
      case .keyOutdated: return try await self.storedRecord(entry.fileID).map { .info(FileInfo($0)) }
      default: throw error
      }
    }
  }

  /// What a symbolic link says.
  package func readSymbolicLink(_ path: TreePath, for caller: CallerIdentity) async throws(FilesystemError) -> [UInt8] {
    try await self.lookingUp { () throws(FilesystemError) -> [UInt8]? in
      let (place, state, known, _) = try await self.existing(path, for: caller, follow: false)
      try self.require([], of: known.record, at: place, for: caller)
      return try await self.target(of: state)
    }
  }

  // MARK: Making

  /// Makes a directory.
  ///
  /// - Parameter parents: whether missing directories on the way are made too, and an existing one is no error.
  package func makeDirectory(
    _ path: TreePath, mode: Mode, parents: Bool, _ request: Request
  ) async throws(FilesystemError) -> FileInfo {
    let writer = try request.writer()
    if parents {
      // The home is there, and what lies above is for others to know.
      for ancestor in path.ancestors.sorted(by: { $0.depth < $1.depth })
      where !ancestor.isSameOrAncestor(of: self.home.path) {
        if try await self.isMissing(ancestor, for: request.caller) {
          do throws(FilesystemError) {
            _ = try await self.makeDirectory(ancestor, mode: mode, parents: false, Request(caller: request.caller))
          } catch {
            // Somebody else may have made it meanwhile.
            guard case .alreadyExists = error else { throw error }
          }
        }
      }
      let place = try await self.place(of: path, for: request.caller, follow: true)
      if let found = place.found {
        guard found.state.type == .directory else { throw .alreadyExists }
        return try await self.stat(path, follow: true, for: request.caller)
      }
    }
    let key = FileKey.random()
    let contentID = Self.randomContentID()
    return try await self.makeInode(path, request) {
      edit, fileID, sectorSize, parent, name throws(FilesystemError) in
      var content = ContentPart(
        fileID: fileID, version: 1, sectorSize: sectorSize, contentID: contentID, modified: edit.time)
      content.directoryFormat = DirectoryContent.format
      try edit.create(
        DirectoryEntry(name: name, fileID: fileID, type: .directory, key: key), in: parent, content: content,
        mode: mode, owner: writer)
    }
  }

  /// Makes an inode and a name for it, in the generation that stores what is made in that directory, and describes it.
  ///
  /// - Parameter make: makes inode and entry with this file id and sector size, after permissions were checked.
  private func makeInode(
    _ path: TreePath, _ request: Request,
    _ make:
      @escaping @Sendable (inout Edit, FileID, Int, InodeState, PathComponent) async throws(FilesystemError) ->
      Void
  ) async throws(FilesystemError) -> FileInfo {
    try await self.lookingUp { () throws(FilesystemError) -> FileInfo? in
      let (parent, name, _) = try await self.newPlace(path, for: request.caller, follow: false)
      return try await self.unlessRemoved([parent]) { () throws(FilesystemError) in
        let volume = try await self.volumeForChildren(of: parent)
        let fileID = try await self.numbers.next(in: volume)
        let sectorSize = volume.sectorSize
        let change = DirectoryRequest(operation: request.identified, byteCount: sectorSize) {
          edit throws(FilesystemError) in
          edit.caller = request.caller
          try edit.require([.write, .execute], in: parent)
          guard edit.entry(name, in: parent) == nil else { throw .alreadyExists }
          try await make(&edit, fileID, sectorSize, parent, name)
          return fileID
        }
        do throws(FilesystemError) {
          guard let record = try await self.change(parent, change) else { throw .notFound }
          return FileInfo(record)
        } catch {
          await self.abandonCrossing(fileID, in: parent)
          throw error
        }
      }
    }
  }

  /// Makes something of a name that is not there yet, and describes it.
  ///
  /// - Parameter make: makes the inode and the entry, after permissions were checked.
  private func makeEntry(
    _ path: TreePath, _ request: Request, byteCount: Int,
    _ make: @escaping @Sendable (inout Edit, InodeState, PathComponent, Place) async throws(FilesystemError) -> FileID
  ) async throws(FilesystemError) -> FileInfo {
    try await self.lookingUp { () throws(FilesystemError) -> FileInfo? in
      let (parent, name, place) = try await self.newPlace(path, for: request.caller, follow: false)
      let change = DirectoryRequest(operation: request.identified, byteCount: byteCount) {
        edit throws(FilesystemError) in
        edit.caller = request.caller
        try edit.require([.write, .execute], in: parent)
        guard edit.entry(name, in: parent) == nil else { throw .alreadyExists }
        return try await make(&edit, parent, name, place)
      }
      return try await self.unlessRemoved([parent]) { () throws(FilesystemError) in
        guard let record = try await self.change(parent, change) else { throw .notFound }
        return FileInfo(record)
      }
    }
  }

  private func isMissing(_ path: TreePath, for caller: CallerIdentity) async throws(FilesystemError) -> Bool {
    try await self.place(of: path, for: caller, follow: true).found == nil
  }

  /// Makes a symbolic link.
  package func makeSymbolicLink(
    _ path: TreePath, target: [UInt8], _ request: Request
  ) async throws(FilesystemError) -> FileInfo {
    let writer = try request.writer()
    guard !target.isEmpty, target.count < TreePath.byteCountMax, !target.contains(0) else {
      throw .invalid(field: "target")
    }
    guard String(validating: target, as: UTF8.self) != nil else { throw .invalid(field: "target") }
    let key = FileKey.random()
    let contentID = Self.randomContentID()
    let sealed: [UInt8]
    do { sealed = try SectorCipher(key: key, contentID: contentID).seal(target, as: .inlineContent) } catch {
      throw .sector(.internalFault("seal"))
    }
    return try await self.makeInode(path, request) {
      edit, fileID, sectorSize, parent, name throws(FilesystemError) in
      var content = ContentPart(
        fileID: fileID, version: 1, size: UInt64(target.count), sectorSize: sectorSize, contentID: contentID,
        modified: edit.time)
      content.inlineContent = sealed
      try edit.create(
        DirectoryEntry(name: name, fileID: fileID, type: .symbolicLink, key: key), in: parent, content: content,
        mode: Mode(truncating: 0o777), owner: writer)
    }
  }

  /// Gives a file another name.
  package func makeLink(
    _ existing: TreePath, as path: TreePath, _ request: Request
  ) async throws(FilesystemError) -> FileInfo {
    _ = try request.writer()
    // Keys that are exposed on the way are replaced before its turn comes.
    _ = try await self.place(of: existing, for: request.caller, follow: false, drawing: .ofDirectories)
    return try await self.makeEntry(path, request, byteCount: self.sectors.sectorSize) {
      edit, parent, name, newPlace throws(FilesystemError) in
      // When it is its turn: whatever else is done in the directory would come between.
      let (place, state, _, _) = try await self.existing(existing, for: request.caller, follow: false)
      guard place.exposed == nil else { throw .keyOutdated(state.fileID) }
      guard state.type != .directory else { throw .isDirectory }
      guard state.type != .credential, var entry = place.found?.entry else { throw .wrongType }
      guard parent.fileID.generation == state.fileID.generation else { throw .crossGeneration }
      guard let record = try await edit.record(state.fileID) else { throw .contended }
      guard record.content.part.keyEpoch == state.key?.epoch else { throw .contended }
      // Whoever may not change a file must not keep it from being removed either.
      try self.require(.write, of: record, at: place, for: request.caller)
      try await edit.link(state.fileID, in: parent.fileID)
      entry.name = name
      entry.key = state.key
      entry.nextKey = nil
      entry.drawnInEpoch = try edit.record(of: parent).content.part.keyEpoch
      // Whoever has the key of a directory that it is in by a readcap may have its key, too.
      let isShared = try await edit.isAnyReadByOthers(Self.left(place.directories, for: newPlace.directories))
      entry.isMarkedExposed = isShared || place.isFoundExposed
      try edit.insert(entry, in: parent)
      return state.fileID
    }
  }

  // MARK: Removing

  /// What a removal expects to find.
  package enum RemovalKind: Sendable {
    case file, directory, any
  }

  /// Removes a name, and with the last one the file.
  package func remove(_ path: TreePath, expecting kind: RemovalKind, _ request: Request) async throws(FilesystemError) {
    _ = try request.writer()
    // A repetition finds the name gone: it is answered before the path is looked at.
    if let identified = request.identified,
      try await self.result(ofStepAt: path, identified.id, by: identified.principal) != nil
    {
      return
    }
    _ = try await self.lookingUp { () throws(FilesystemError) -> Void? in
      let place = try await self.placeOfRemoval(path, request)
      guard let parent = place.parent, let name = place.name else { throw self.noName(place) }
      guard let found = place.found else {
        // Another cluster may have been the one to note it.
        if let identified = request.identified, parent.fileID.generation != self.sectors.generation,
          try await self.result(
            of: identified.id, by: identified.principal, in: parent.fileID.generation) != nil
        {
          return ()
        }
        throw .notFound
      }
      let removal = DirectoryRequest(operation: request.identified, byteCount: self.sectors.sectorSize) {
        edit throws(FilesystemError) in
        edit.caller = request.caller
        try edit.require([.write, .execute], in: parent, isReached: place.mayPass)
        guard let entry = edit.entry(name, in: parent) else { throw .notFound }
        try await edit.checkSticky(entry.fileID, in: parent)
        switch (entry.type, kind) {
        case (.directory, .file): throw .isDirectory
        case (.directory, _): try await edit.requireEmpty(entry)
        case (_, .directory): throw .notDirectory
        default: break
        }
        edit.removeEntry(name, in: parent)
        try await edit.unlink(entry.fileID, from: parent.fileID)
        return nil
      }
      return try await self.unlessRemoved([parent]) { () throws(FilesystemError) in
        switch found.state.type {
        // Nothing is added to it meanwhile.
        case .directory: _ = try await self.change(parent, together: [found.state], removal)
        case .credential:
          try await self.withdrawing(place.path, in: parent) { () throws(FilesystemError) in
            _ = try await self.change(parent, removal)
          }
        default: _ = try await self.change(parent, removal)
        }
      }
    }
  }

  /// Where something is that is to be removed. A credential file is what the directory's own cluster stores, whoever serves
  /// the rest of the directory.
  private func placeOfRemoval(_ path: TreePath, _ request: Request) async throws(FilesystemError) -> Place {
    let place = try await self.place(
      of: path, for: request.caller, follow: false, entersLast: true, needsMember: true)
    guard place.found?.entry?.type == .credential else {
      return try await self.place(of: path, for: request.caller, follow: false)
    }
    _ = try await self.requireMember()
    // There the directory gets a new key, too, unless nobody but its own processes has that.
    if let parent = place.parent, self.isForeignHome(parent.fileID), try await !self.isCutOff(parent.fileID) {
      throw self.redirection(upTo: nil)
    }
    return place
  }

  // MARK: Renaming

  /// Renames atomically, over an existing file or empty directory if there is one.
  package func rename(
    _ from: TreePath, to: TreePath, noReplace: Bool, _ request: Request
  ) async throws(FilesystemError) -> FileInfo {
    _ = try request.writer()
    // A repetition finds the old name gone: it is answered before the paths are looked at.
    if let identified = request.identified,
      let file = try await self.result(ofStepAt: from, identified.id, by: identified.principal)
    {
      guard let file, let record = try await self.storedRecord(file) else { throw .notFound }
      return FileInfo(record)
    }
    let record = try await self.lookingUp { () throws(FilesystemError) -> InodeRecord?? in
      let source = try await self.place(of: from, for: request.caller, follow: false, drawing: .ofDirectories)
      guard let sourceParent = source.parent, let sourceName = source.name else { throw self.noName(source) }
      guard let moved = source.found else { throw .notFound }
      let target = try await self.place(of: to, for: request.caller, follow: false, drawing: .ofDirectories)
      guard let targetParent = target.parent, let targetName = target.name else {
        guard self.home.path.isRoot || target.path != self.home.path else { throw self.noName(target) }
        throw .alreadyExists
      }
      // Whoever has the key learns that there is nothing, and no more.
      guard target.mayPass || target.found != nil else { throw .permissionDenied }
      guard sourceParent.fileID.generation == targetParent.fileID.generation else { throw .crossGeneration }
      let rename = Rename(
        from: sourceParent, fromName: sourceName, to: targetParent, toName: targetName, noReplace: noReplace,
        left: Self.left(source.directories, for: target.directories), isSourceReached: source.mayPass,
        isTargetReached: target.mayPass)
      return try await self.unlessRemoved([sourceParent, targetParent]) { () throws(FilesystemError) in
        guard moved.state.type == .directory else { return try await self.perform(rename, alone: [], request) }
        // Nothing is added to a directory that is replaced.
        let replaced = target.found.map { $0.state.type == .directory ? [$0.state] : [] } ?? []
        let outcome = await self.moves.alone { () async -> DirectoryResponse in
          do throws(FilesystemError) { return .success(try await self.perform(rename, alone: replaced, request)) } catch
          {
            return .failure(error)
          }
        }
        return try outcome.get()
      }
    }
    guard let record else { throw .notFound }
    return FileInfo(record)
  }

  struct Rename: Sendable {
    let from: InodeState
    let fromName: PathComponent
    let to: InodeState
    let toName: PathComponent
    let noReplace: Bool
    /// The directories, from below the last one that both places have in common, that what is moved does not lie in any
    /// more.
    let left: [FileID]
    /// Whether the caller may pass all directories on the way to each of the two places.
    var isSourceReached = true
    var isTargetReached = true
  }

  /// The directories of one way, from below the last one that it has in common with another.
  private static func left(_ first: [FileID], for second: [FileID]) -> [FileID] {
    Array(first.dropFirst(zip(first, second).prefix { $0 == $1 }.count))
  }

  /// Renames what has the name now.
  ///
  /// - Parameter others: directories that nobody here changes meanwhile, beside the two.
  private func perform(
    _ rename: Rename, alone others: [InodeState], _ request: Request
  ) async throws(FilesystemError) -> InodeRecord? {
    try await self.change(
      rename.from, together: [rename.to] + others,
      DirectoryRequest(operation: request.identified, byteCount: 2 * self.sectors.sectorSize) {
        edit throws(FilesystemError) in
        edit.caller = request.caller
        return try await self.perform(rename, &edit)
      })
  }

  func perform(_ rename: Rename, _ edit: inout Edit) async throws(FilesystemError) -> FileID {
    try await edit.open(rename.to)
    try edit.require([.write, .execute], in: rename.from, isReached: rename.isSourceReached)
    try edit.require([.write, .execute], in: rename.to, isReached: rename.isTargetReached)
    guard var entry = edit.entry(rename.fromName, in: rename.from) else { throw .notFound }
    guard entry.type != .credential else { throw .wrongType }
    try await edit.checkSticky(entry.fileID, in: rename.from)
    if rename.from.fileID == rename.to.fileID, rename.fromName == rename.toName { return entry.fileID }
    if entry.type == .directory {
      if rename.from.fileID != rename.to.fileID {
        try await edit.require(rename.to.fileID, outside: entry.fileID)
      }
      // The record first: whoever puts a credential below gives the directory another version.
      _ = try await edit.draft(entry.fileID)
      if try await self.containsCredential(entry) { throw .wrongType }
    }
    if let target = edit.entry(rename.toName, in: rename.to) {
      if rename.noReplace { throw .alreadyExists }
      // Two names of one file: there is nothing to do (POSIX, rename).
      if target.fileID == entry.fileID { return entry.fileID }
      try await edit.checkSticky(target.fileID, in: rename.to)
      switch (entry.type, target.type) {
      case (.directory, .directory): try await edit.requireEmpty(target)
      case (.directory, _): throw .notDirectory
      case (_, .directory): throw .isDirectory
      case (_, .credential): throw .wrongType
      default: break
      }
      edit.removeEntry(rename.toName, in: rename.to)
      try await edit.unlink(target.fileID, from: rename.to.fileID)
    }
    edit.removeEntry(rename.fromName, in: rename.from)
    entry.name = rename.toName
    if rename.from.fileID != rename.to.fileID {
      // Whoever has the key of a directory that it was in by a readcap knows its key, too.
      let wasExposed = entry.isExposed(in: try edit.record(of: rename.from).content.part.keyEpoch)
      entry.isMarkedExposed = try await edit.isAnyReadByOthers(rename.left) || wasExposed
      entry.drawnInEpoch = try edit.record(of: rename.to).content.part.keyEpoch
    }
    try edit.insert(entry, in: rename.to)
    try await edit.move(entry.fileID, from: rename.from.fileID, to: rename.to.fileID)
    return entry.fileID
  }

  /// Why a name can not be taken away: the root directory has none, and that of this process's home stands above.
  private func noName(_ place: Place) -> FilesystemError {
    self.home.path.isRoot || place.path != self.home.path ? .permissionDenied : self.redirection(upTo: nil)
  }

  /// As `result`, where it is not known yet in which generation something is changed: of what lies directly in the home, in
  /// that which stores the home.
  private func result(
    ofStepAt path: TreePath, _ operation: OperationID, by principal: TreePath
  ) async throws(FilesystemError) -> FileID?? {
    let isDirect = path.parent == self.home.path
    return try await self.result(
      of: operation, by: principal, in: isDirect ? self.home.fileID.generation : self.sectors.generation)
  }

  /// Whether a credential lies in a directory or anywhere below: its path is signed, so nothing above it is renamed.
  private func containsCredential(_ entry: DirectoryEntry) async throws(FilesystemError) -> Bool {
    let volume = try await self.volumes.volume(of: entry.fileID)
    do { return try await volume.holdsCredentials(atOrBelow: entry.fileID) } catch {
      throw FilesystemError(error, sectorSize: volume.sectorSize)
    }
  }

  static func randomContentID() -> [UInt8] {
    var generator = SystemRandomNumberGenerator()
    return (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
  }
}

extension Edit {
  /// Makes an inode with a name in a directory that is open in the edit.
  mutating func create(
    _ entry: DirectoryEntry, in parent: InodeState, content: ContentPart, mode: Mode, owner: TreePath,
    blocks: Commit.Blocks? = nil, credential: [UInt8]? = nil
  ) throws(FilesystemError) {
    // The group is the parent's, as in a set-group-id directory: a directory's files belong to those who share it.
    let group = try self.record(of: parent).attributes.part.rules.group
    let acting = Self.actingFor(self.caller, self.filesystem.identity.path)
    var entry = entry
    entry.drawnInEpoch = try self.record(of: parent).content.part.keyEpoch
    var content = content
    content.actingFor = acting
    var attributes = AttributesPart(
      fileID: entry.fileID, version: 1, type: entry.type,
      rules: AccessRules(owner: owner, group: group, mode: mode), changed: self.time, created: self.time)
    attributes.actingFor = acting
    var links = LinksPart(fileID: entry.fileID, version: 1, count: 1, parents: [parent.fileID])
    links.actingFor = acting
    var draft = Draft(new: entry.fileID, content: content, attributes: attributes, links: links)
    draft.blocks = blocks
    draft.credential = credential
    self.put(draft)
    try self.insert(entry, in: parent)
  }

  /// Requires that a directory is empty, now and when it is removed by this edit.
  mutating func requireEmpty(_ entry: DirectoryEntry) async throws(FilesystemError) {
    do throws(FilesystemError) { try await self.open(try await self.filesystem.state(of: entry)) } catch {
      // Given a new key since the directory was read.
      if case .keyOutdated = error { throw .contended }
      // Its entry was there a moment ago.
      if case .notFound = error { throw try await self.mismatch(.dataLoss(entry.fileID, .missing)) }
      throw error
    }
    guard self.directories[entry.fileID]?.entries.isEmpty == true else { throw .notEmpty }
  }

  /// Whether one of these directories has readcaps.
  mutating func isAnyReadByOthers(_ directories: [FileID]) async throws(FilesystemError) -> Bool {
    for file in directories {
      guard let record = try await self.record(file) else { throw .contended }
      if !record.attributes.part.readcaps.isEmpty { return true }
    }
    return false
  }

  /// In a sticky directory only the owner of the file or of the directory may remove or rename it.
  mutating func checkSticky(_ file: FileID, in parent: InodeState) async throws(FilesystemError) {
    let rules = try self.record(of: parent).attributes.part.rules
    guard rules.mode.rawValue & 0o1000 != 0, case .principal(let path) = self.caller, rules.owner != path else {
      return
    }
    let owner = try await self.draft(file).currentAttributes?.rules.owner
    guard owner == path else { throw .permissionDenied }
  }

  /// Lets an inode's name be in another directory.
  mutating func move(_ file: FileID, from: FileID, to: FileID) async throws(FilesystemError) {
    let draft = try await self.draft(file)
    guard var links = draft.currentLinks, let place = links.parents.firstIndex(of: from) else {
      if let old = draft.old, try await !self.filesystem.isFreeOfMark(old) { throw .contended }
      throw try await self.mismatch(.dataLoss(file, .record))
    }
    links.parents[place] = to
    // Within one directory the links say the same as before; signed anew, they give the rename its new version.
    self.put(draft.changing(links, actingFor: Self.actingFor(self.caller, self.filesystem.identity.path)))
  }
}
