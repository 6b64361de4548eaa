// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import SectorStore
internal import Sectors
package import Trust

extension Filesystem {
  // MARK: Reading

  /// A file that is being read: one version of it, kept for as long as this lives.
  package struct Reader: Sendable {
    package let info: FileInfo
    private let content: FileContent
    private let part: ContentPart
    private let version: Version
    private let key: FileKey?
    private let credential: [UInt8]?
    private var tree: IntegrityTree
    private let kept: any KeptVersion

    fileprivate init(_ known: InodeState.Known, key: FileKey?, content: FileContent, kept: any KeptVersion) {
      self.info = FileInfo(known.record)
      self.content = content
      self.part = known.record.content.part
      self.version = known.record.version
      self.key = key
      self.credential = known.record.attributes.part.type == .credential ? known.record.credential : nil
      self.tree = known.tree
      self.kept = kept
    }

    /// Reads a range, cut off at the end of the file; at most `Filesystem.readByteCountMax`.
    package mutating func read(offset: UInt64, count: Int) async throws(FilesystemError) -> [UInt8] {
      guard offset < self.info.size, count > 0 else { return [] }
      let end = offset + min(UInt64(min(count, Filesystem.readByteCountMax)), self.info.size - offset)
      if let credential = self.credential { return Array(credential[Int(offset)..<Int(end)]) }
      // A long read would gather the whole tree.
      if self.tree.loadedNodeCount > 64 { self.tree.forgetUnchangedNodes() }
      return try await self.content.read(
        offset..<end, of: self.part, tree: &self.tree, key: self.key, version: self.version)
    }

    /// The same as a value, so that one range can be read while another is sent.
    package consuming func reading(
      offset: UInt64, count: Int
    ) async throws(FilesystemError) -> (reader: Reader, bytes: [UInt8]) {
      var reader = self
      let bytes = try await reader.read(offset: offset, count: count)
      return (reader, bytes)
    }
  }

  /// The most that `Reader.read` answers at once.
  package static let readByteCountMax = FileContent.chunkByteCount

  /// Begins to read a file.
  package func open(_ path: TreePath, for caller: CallerIdentity) async throws(FilesystemError) -> Reader {
    for _ in 0..<Self.attemptsMax {
      let (place, state, known, _) = try await self.existing(path, for: caller, follow: true)
      guard state.type != .directory else { throw .isDirectory }
      guard state.type == .file || state.type == .credential else { throw .wrongType }
      try self.require(.read, of: known.record, at: place, for: caller)
      do throws(FilesystemError) {
        let kept = try await self.keep(state.fileID, version: known.record.version)
        return Reader(known, key: state.key, content: self.content, kept: kept)
      } catch {
        // It was changed between the look and the keeping.
        guard error.isConflict else { throw error }
      }
    }
    throw .contended
  }

  // MARK: Writing in place

  /// Writes bytes into an existing file in one atomic step, durable when it returns.
  ///
  /// - Parameters:
  ///   - offset: where; nil for the end.
  ///   - data: at most `writeByteCountMax`.
  package func write(
    _ data: ArraySlice<UInt8>, to path: TreePath, at offset: UInt64?, _ request: Request
  ) async throws(FilesystemError) -> FileInfo {
    guard data.count <= Self.writeByteCountMax else {
      throw .tooLarge("data", limit: Self.writeByteCountMax, found: data.count)
    }
    return try await self.changeContent(path, request) { content, change, key, version throws(FilesystemError) in
      try await content.write(
        data, at: offset ?? change.content.size, to: &change, key: key, version: version)
    }
  }

  /// The most that is written in one atomic step.
  package static let writeByteCountMax = FileContent.chunkByteCount

  /// Sets the size of a file in one atomic step; what is added reads as zeros.
  package func truncate(
    _ path: TreePath, to size: UInt64, _ request: Request
  ) async throws(FilesystemError) -> FileInfo {
    try await self.changeContent(path, request) { content, change, key, version throws(FilesystemError) in
      try await content.resize(to: size, &change, key: key, version: version)
    }
  }

  private func changeContent(
    _ path: TreePath, _ request: Request,
    _ work: (FileContent, inout FileContent.Change, FileKey, Version) async throws(FilesystemError) -> Void
  ) async throws(FilesystemError) -> FileInfo {
    _ = try request.writer()
    return try await self.lookingUp { () throws(FilesystemError) -> FileInfo? in
      let (place, state, known, _) = try await self.existing(
        path, for: request.caller, follow: true, drawing: .ofFile)
      guard state.type != .directory else { throw .isDirectory }
      guard state.type == .file else { throw .wrongType }
      try self.require(.write, of: known.record, at: place, for: request.caller)
      guard let key = state.key else { throw .noKey(state.fileID) }
      let outcome = await state.changes.alone { () async -> Result<FileInfo?, FilesystemError> in
        do throws(FilesystemError) {
          for _ in 0..<Self.attemptsMax {
            switch try await self.attemptContent(state, key: key, at: place, request, work) {
            case .done(let info): return .success(info)
            case .removed: return .success(nil)
            case .conflict: continue
            }
          }
          return .failure(.contended)
        } catch {
          return .failure(error)
        }
      }
      return try outcome.get()
    }
  }

  private enum ContentAttempt {
    case done(FileInfo)
    /// Others changed the file meanwhile, and nothing was done.
    case conflict
    /// The file is gone.
    case removed
  }

  private func attemptContent(
    _ state: InodeState, key: FileKey, at place: Place, _ request: Request,
    _ work: (FileContent, inout FileContent.Change, FileKey, Version) async throws(FilesystemError) -> Void
  ) async throws(FilesystemError) -> ContentAttempt {
    if let identified = request.identified,
      try await self.result(of: identified.id, by: identified.principal, in: state.fileID.generation) != nil
    {
      guard let record = try await self.storedRecord(state.fileID) else { throw .notFound }
      return .done(FileInfo(record))
    }
    guard let known = try await self.known(state) else { return .removed }
    try self.require(.write, of: known.record, at: place, for: request.caller)
    var change = FileContent.Change(content: known.record.content.part, tree: known.tree)
    do throws(FilesystemError) { try await work(self.content, &change, key, known.record.version) } catch {
      if error.isConflict { return .conflict }
      throw error
    }
    change.sealTree()
    var edit = Edit(self, caller: request.caller)
    if let identified = request.identified {
      edit.complete(identified.id, of: identified.principal, about: state.fileID)
    }
    var draft = Edit.Draft(known.record)
    edit.setContent(of: &draft, to: change)
    edit.put(draft)
    guard let record = try await self.commit(&edit)?[state.fileID] else { return .conflict }
    if change.tree.loadedNodeCount > 64 { change.tree.forgetUnchangedNodes() }
    self.inodes.remember(InodeState.Known(record: record, tree: change.tree, directory: nil), of: state)
    return .done(FileInfo(record))
  }

  // MARK: Writing whole files

  /// A new content that grows until it gets its name. Whoever makes one ends it by `finish` or `abandon`.
  ///
  /// Up to `bufferByteCount` is kept in memory, and a file that is no larger takes one commit in all. What is longer
  /// goes into an inode without a name, marked pending, by one commit for each piece: while that is on its way, the next
  /// piece is sealed. Nobody but its owner can reach the inode, and only by its number.
  package struct Upload: Sendable {
    fileprivate let filesystem: Filesystem
    fileprivate let fileID: FileID
    fileprivate let key: FileKey
    fileprivate let path: TreePath
    fileprivate var parent: InodeState
    fileprivate var name: PathComponent
    fileprivate let mustBeNew: Bool
    fileprivate let mode: Mode
    fileprivate let request: Request
    /// The content as far as it is stored, or, with `isSealed`, one piece further.
    fileprivate var change: FileContent.Change
    /// Whether `change` has a piece that is to be committed.
    fileprivate var isSealed = false
    fileprivate var stored: InodeRecord?
    fileprivate var buffer: [UInt8] = []
    fileprivate let started: Int64
    /// For how long the way holds that was looked up at the start; nanoseconds.
    private static let freshness: Int64 = 500_000_000
    /// When the last piece was sealed, nanoseconds since 1970 UTC.
    fileprivate var sealed: Int64 = 0

    /// Bytes of a piece.
    package static let bufferByteCount = 2 << 20
    /// Nanoseconds after which a piece is sealed although it is not full. Whoever settles what was broken off takes an
    /// inode for that when nothing of it was stored in a minute, and a piece is stored when the next one is sealed.
    package static let sealingInterval: Int64 = 15_000_000_000

    /// Adds bytes. Those that fill a piece are sealed when this returns, and durable, though they have no name yet, when
    /// another piece was filled.
    package mutating func append(_ data: [UInt8]) async throws(FilesystemError) {
      if self.buffer.isEmpty {
        self.buffer = data
      } else {
        self.buffer.append(contentsOf: data)
      }
      // What may turn out to be the last piece waits for its name.
      while self.buffer.count > Self.bufferByteCount {
        try await self.addPiece(self.buffer.prefix(Self.bufferByteCount))
        self.buffer.removeFirst(Self.bufferByteCount)
      }
      // The last sector may be the last of all, and not be full.
      let whole = (self.buffer.count - 1) / self.change.content.sectorSize * self.change.content.sectorSize
      if self.isSealed, whole > 0, self.filesystem.now() - self.sealed >= Self.sealingInterval {
        try await self.addPiece(self.buffer.prefix(whole))
        self.buffer.removeFirst(whole)
      }
    }

    /// The same as a value, so that one piece can be stored while the next one is received.
    package consuming func appending(_ data: [UInt8]) async throws(FilesystemError) -> Upload {
      var upload = self
      try await upload.append(data)
      return upload
    }

    /// Seals a piece, while the one before it is committed.
    private mutating func addPiece(_ piece: ArraySlice<UInt8>) async throws(FilesystemError) {
      let present = self
      async let storing = present.storing()
      var next = FileContent.Change(content: self.change.content, tree: self.change.tree)
      // What goes on at the end needs nothing of the tree that is only being stored: that part of it is kept.
      next.tree.forgetUnchangedNodes()
      var failure: FilesystemError?
      do throws(FilesystemError) {
        try await self.filesystem.content.write(
          piece, at: next.content.size, to: &next, key: self.key, version: self.stored?.version)
        next.sealTree()
      } catch {
        failure = error
      }
      // First what came of the piece before, so that it is known what there is to be removed.
      self.stored = try await storing.get()
      if let failure { throw failure }
      self.change = next
      self.isSealed = true
      self.sealed = self.filesystem.now()
    }

    /// Commits the piece that is sealed, if there is one.
    private mutating func store() async throws(FilesystemError) {
      self.stored = try await self.storing().get()
      self.change.blocks = Commit.Blocks()
      self.isSealed = false
    }

    /// The record that the inode has when the sealed piece is durable.
    private func storing() async -> Result<InodeRecord?, FilesystemError> {
      guard self.isSealed else { return .success(self.stored) }
      var edit = Edit(self.filesystem, caller: self.request.caller)
      do throws(FilesystemError) {
        if let stored = self.stored {
          var draft = Edit.Draft(stored)
          edit.setContent(of: &draft, to: self.change)
          edit.put(draft)
        } else {
          try edit.createPending(
            self.fileID, in: self.parent.fileID,
            owner: try self.request.writer(), change: self.change, operation: self.request.operation)
        }
        guard let record = try await self.filesystem.commit(&edit)?[self.fileID] else { return .failure(.contended) }
        return .success(record)
      } catch {
        return .failure(error)
      }
    }

    /// Gives the content its name, in place of what had it, in one commit. Durable when it returns.
    ///
    /// - Parameter modified: a modification time to set.
    package mutating func finish(modified: Int64?) async throws(FilesystemError) -> FileInfo {
      try await self.store()
      var change = self.change
      if !self.buffer.isEmpty {
        try await self.filesystem.content.write(
          self.buffer[...], at: change.content.size, to: &change, key: self.key, version: self.stored?.version)
      }
      change.sealTree()
      self.buffer = []
      let filesystem = self.filesystem
      let caller = self.request.caller
      // It may have taken long: a directory on the way may have been given a new key.
      var looksFirst = self.stored != nil || filesystem.now() - self.started > Self.freshness
      for _ in 0..<Filesystem.attemptsMax {
        if !looksFirst {
          do throws(FilesystemError) {
            if let info = try await self.name(change, modified: modified) { return info }
          } catch {
            guard case .keyOutdated(let file) = error else { throw error }
            filesystem.names.forget(file)
          }
        }
        looksFirst = false
        // Another directory may have taken the place of the one that there was.
        let (parent, name, place) = try await filesystem.newPlace(self.path, for: caller, follow: true)
        guard
          try await filesystem.mayUpload(to: place, parent, mustBeNew: self.mustBeNew, self.request)
        else { continue }
        (self.parent, self.name) = (parent, name)
      }
      throw .contended
    }

    /// Gives the content its name; nil when the directory was removed.
    private func name(
      _ change: FileContent.Change, modified: Int64?
    ) async throws(FilesystemError) -> FileInfo? {
      let byteCount = change.blocks.runs.reduce(2 * self.filesystem.sectors.sectorSize) { $0 + $1.bytes.count }
      let request = DirectoryRequest(operation: self.request.identified, byteCount: byteCount) {
        edit throws(FilesystemError) in
        edit.caller = self.request.caller
        try await edit.name(self, change: change, modified: modified)
        return self.fileID
      }
      return try await self.filesystem.unlessRemoved([self.parent]) { () throws(FilesystemError) in
        if let record = try await self.filesystem.change(self.parent, request) { return FileInfo(record) }
        guard let info = try await self.writtenBefore(change.content) else { throw .notFound }
        return info
      }
    }

    /// What a repetition is answered whose file has made room for another one since, or was removed: it was written
    /// nevertheless.
    private func writtenBefore(_ content: ContentPart) async throws(FilesystemError) -> FileInfo? {
      guard let identified = self.request.identified,
        let file = try await self.filesystem.result(
          of: identified.id, by: identified.principal, in: self.parent.fileID.generation) ?? nil
      else { return nil }
      let rules = AccessRules(owner: try self.request.writer(), group: .root, mode: self.mode)
      return FileInfo(nameless: file, content: content, rules: rules)
    }

    /// Removes what was stored so far, also by a copy of this that got further.
    package func abandon() async {
      self.filesystem.crossing.take(self.fileID)
      guard let stored = try? await self.filesystem.storedRecord(self.fileID), stored.links.part.count == 0 else {
        return
      }
      // Its name is another cluster's to give, and may have been given although it was not said.
      if let mark = stored.links.part.pending, mark.directory.generation != self.fileID.generation {
        return await self.filesystem.settleFirmly(self.fileID, in: self.parent, mayCondemn: true)
      }
      var edit = Edit(self.filesystem, caller: self.request.caller)
      var draft = Edit.Draft(stored)
      draft.isRemoved = true
      edit.put(draft)
      // What can not be removed now is a pending inode, which is removed some time later.
      _ = try? await self.filesystem.commit(&edit)
    }
  }

  /// Begins to write a whole file.
  ///
  /// - Parameter mustBeNew: whether an existing file is an error.
  package func upload(
    _ path: TreePath, mode: Mode, mustBeNew: Bool, _ request: Request
  ) async throws(FilesystemError) -> Upload {
    _ = try request.writer()
    return try await self.lookingUp { () throws(FilesystemError) -> Upload? in
      let (parent, name, place) = try await self.newPlace(path, for: request.caller, follow: true)
      guard try await self.mayUpload(to: place, parent, mustBeNew: mustBeNew, request) else { return nil }
      return try await self.upload(path, parent: parent, name: name, mode: mode, mustBeNew: mustBeNew, request)
    }
  }

  /// Judged again when the file gets its name; here so that nobody sends a long file in vain.
  ///
  /// - Returns: false when what was found was removed meanwhile.
  fileprivate func mayUpload(
    to place: Place, _ parent: InodeState, mustBeNew: Bool, _ request: Request
  ) async throws(FilesystemError) -> Bool {
    guard let found = place.found else {
      guard let known = try await self.directory(parent) else { return false }
      guard self.permits([.write, .execute], known.record, request.caller) else { throw .permissionDenied }
      return true
    }
    guard found.state.type != .directory else { throw .isDirectory }
    guard !mustBeNew else {
      // A repetition finds its own file.
      if let identified = request.identified,
        try await self.result(of: identified.id, by: identified.principal, in: parent.fileID.generation) != nil
      {
        return true
      }
      throw .alreadyExists
    }
    guard found.state.type == .file else { throw .wrongType }
    guard let known = try await self.known(found.state) else {
      if let entry = found.entry { try await self.requireGone(entry, from: parent) }
      return false
    }
    try self.require(.write, of: known.record, at: place, for: request.caller)
    return true
  }

  private func upload(
    _ path: TreePath, parent: InodeState, name: PathComponent, mode: Mode, mustBeNew: Bool, _ request: Request
  ) async throws(FilesystemError) -> Upload {
    let volume = try await self.volumeForChildren(of: parent)
    let fileID = try await self.numbers.next(in: volume)
    let content = ContentPart(
      fileID: fileID, version: 1, sectorSize: volume.sectorSize, contentID: Self.randomContentID(),
      modified: self.now())
    return Upload(
      filesystem: self, fileID: fileID, key: FileKey.random(), path: path, parent: parent, name: name,
      mustBeNew: mustBeNew, mode: mode, request: request,
      change: FileContent.Change(content: content, tree: IntegrityTree()), started: self.now())
  }

  /// Makes an empty file, if there is none.
  package func makeFile(_ path: TreePath, mode: Mode, _ request: Request) async throws(FilesystemError) {
    var upload = try await self.upload(path, mode: mode, mustBeNew: true, request)
    _ = try await upload.finish(modified: nil)
  }
}

extension Edit {
  /// Puts a changed content into a draft.
  mutating func setContent(of draft: inout Draft, to change: FileContent.Change) {
    var content = change.content
    content.version = draft.version
    content.modified = self.time
    content.actingFor = Self.actingFor(self.caller, self.filesystem.identity.path)
    draft.content = content
    draft.blocks = change.blocks
  }

  /// Makes an inode that has no name yet.
  mutating func createPending(
    _ file: FileID, in directory: FileID, owner: TreePath, change: FileContent.Change,
    operation: OperationID?
  ) throws(FilesystemError) {
    let acting = Self.actingFor(self.caller, self.filesystem.identity.path)
    var content = change.content
    content.actingFor = acting
    // Nobody but the owner until it has its place.
    var attributes = AttributesPart(
      fileID: file, version: 1, type: .file,
      rules: AccessRules(owner: owner, group: .root, mode: Mode(truncating: 0o600)),
      changed: self.time, created: self.time)
    attributes.actingFor = acting
    var links = LinksPart(fileID: file, version: 1, count: 0, parents: [])
    links.pending = PendingMark(directory: directory, operation: operation, since: self.time)
    links.actingFor = acting
    var draft = Draft(new: file, content: content, attributes: attributes, links: links)
    draft.blocks = change.blocks
    self.put(draft)
  }

  /// Gives an uploaded file its name.
  fileprivate mutating func name(
    _ upload: Filesystem.Upload, change: FileContent.Change, modified: Int64?
  ) async throws(FilesystemError) {
    let owner = try upload.request.writer()
    let acting = Self.actingFor(self.caller, self.filesystem.identity.path)
    let parentRules = try self.record(of: upload.parent).attributes.part.rules
    var rules = AccessRules(owner: owner, group: parentRules.group, mode: upload.mode)
    if let present = self.entry(upload.name, in: upload.parent) {
      guard !upload.mustBeNew else { throw .alreadyExists }
      guard present.type == .file else { throw present.type == .directory ? .isDirectory : .wrongType }
      let old = try await self.draft(present.fileID)
      guard let oldRules = old.currentAttributes?.rules else { throw .dataLoss(present.fileID, .record) }
      guard oldRules.permits(.write, caller: self.caller, memberOf: { _ in false }) else { throw .permissionDenied }
      // The new content takes the place of the old one for those who could use that.
      rules = oldRules
      self.removeEntry(upload.name, in: upload.parent)
      try await self.unlink(present.fileID, from: upload.parent.fileID)
    } else {
      try self.require([.write, .execute], in: upload.parent)
    }
    var draft: Draft
    if let stored = upload.stored {
      draft = Draft(stored)
    } else {
      draft = Draft(
        new: upload.fileID, content: change.content,
        attributes: AttributesPart(
          fileID: upload.fileID, version: 1, type: .file, rules: rules, changed: self.time, created: self.time),
        links: LinksPart(fileID: upload.fileID, version: 1, count: 1, parents: [upload.parent.fileID]))
    }
    let version = draft.version
    self.setContent(of: &draft, to: change)
    if var attributes = draft.currentAttributes {
      attributes.version = version
      attributes.rules = rules
      attributes.changed = self.time
      attributes.actingFor = acting
      if let modified {
        attributes.modified = modified
        attributes.modifiedAtVersion = version
      }
      draft.attributes = attributes
    }
    var links = LinksPart(fileID: upload.fileID, version: version, count: 1, parents: [upload.parent.fileID])
    links.actingFor = acting
    draft.links = links
    self.put(draft)
    var entry = DirectoryEntry(name: upload.name, fileID: upload.fileID, type: .file, key: upload.key)
    entry.drawnInEpoch = try self.record(of: upload.parent).content.part.keyEpoch
    try self.insert(entry, in: upload.parent)
  }
}
