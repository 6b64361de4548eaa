// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import Trust

/// A request to change a directory, together with those of others.
struct DirectoryRequest: Sendable {
  /// Who asks, for its operation id; nil when there is none.
  let operation: (id: OperationID, principal: TreePath)?
  /// About how many bytes of sectors it commits.
  let byteCount: Int
  /// Makes the change, and answers the inode that it is about. It may be called again after a conflict, with what is
  /// stored then, so it keeps nothing between calls.
  let work: @Sendable (inout Edit) async throws(FilesystemError) -> FileID?
}

/// What came of a request: the record of the inode that it was about, nil if that is gone.
typealias DirectoryResponse = Result<InodeRecord?, FilesystemError>

/// Changes to inodes and directories that are to become one commit. A copy is cheap, so that a request which fails
/// halfway leaves nothing behind.
///
/// Whatever an edit decides by is of one version, and the commit's condition is that very version: each record is read
/// once, and that of an open directory is the one that its entries belong to. So it makes no difference who else
/// changes the same inodes at the same time. What does not fit together because others changed something while it was
/// read is thrown as `contended`; then everything is read again.
struct Edit: Sendable {
  /// A changed record. Parts that are nil stay as they are.
  struct Draft: Sendable {
    let fileID: FileID
    /// Nil for a new inode.
    let old: InodeRecord?
    var content: ContentPart?
    var attributes: AttributesPart?
    var links: LinksPart?
    var credential: [UInt8]?
    var blocks: Commit.Blocks?
    var isRemoved = false

    init(_ old: InodeRecord) {
      self.fileID = old.fileID
      self.old = old
    }

    init(new fileID: FileID, content: ContentPart, attributes: AttributesPart, links: LinksPart) {
      self.fileID = fileID
      self.old = nil
      self.content = content
      self.attributes = attributes
      self.links = links
    }

    /// The version that the commit gives it.
    var version: Version { (self.old?.version ?? .absent).next }
    var currentContent: ContentPart? { self.content ?? self.old?.content.part }
    var currentAttributes: AttributesPart? { self.attributes ?? self.old?.attributes.part }
    var currentLinks: LinksPart? { self.links ?? self.old?.links.part }
  }

  /// A directory whose entries may change.
  struct Directory: Sendable {
    let state: InodeState
    let known: InodeState.Known
    var entries: DirectoryContent
  }

  let filesystem: Filesystem
  /// On whose behalf. Set anew for each request.
  var caller: CallerIdentity { didSet { self.callers.insert(self.caller) } }
  /// All on whose behalf something was done so far.
  private var callers: Set<CallerIdentity> = []
  private(set) var drafts: [FileID: Draft] = [:]
  private(set) var directories: [FileID: Directory] = [:]
  /// Records of other inodes than open directories, as they were first read.
  private var records: [FileID: InodeRecord] = [:]
  /// Inodes that are not changed, but have to be as they were read when the edit is committed.
  private var unchanged: Set<FileID> = []
  private(set) var operations: [Commit.Operation] = []
  /// Keys that directories and files are given by this edit.
  private var drawn: [FileID: FileKey] = [:]
  /// The sessions of these, and whose they are.
  private(set) var sessions: [[UInt8]: TreePath] = [:]
  let time: Int64

  init(_ filesystem: Filesystem, caller: CallerIdentity) {
    self.filesystem = filesystem
    self.caller = caller
    self.callers = caller == .anonymous ? [] : [caller]
    self.time = filesystem.now()
  }

  /// An edit of nothing but these drafts.
  init(_ filesystem: Filesystem, of drafts: [Draft]) {
    self.init(filesystem, caller: .principal(filesystem.identity.path))
    for draft in drafts { self.put(draft) }
  }

  /// The principal that is named in what is signed; nil for the process itself.
  static func actingFor(_ caller: CallerIdentity, _ process: TreePath) -> TreePath? {
    if case .principal(let path) = caller, path != process { path } else { nil }
  }

  private var actingFor: TreePath? { Self.actingFor(self.caller, self.filesystem.identity.path) }

  /// The edit completes an operation of a principal.
  mutating func complete(_ operation: OperationID, of principal: TreePath, about file: FileID?) {
    self.operations.append(.init(id: operation, result: Filesystem.encode(file)))
    self.sessions[operation.session] = principal
  }

  // MARK: Directories

  /// Takes a directory into the edit, as it is now. Whoever has a turn at it meets fewer conflicts.
  mutating func open(_ state: InodeState) async throws(FilesystemError) {
    guard self.directories[state.fileID] == nil else { return }
    let known = try await self.filesystem.knownDirectory(state)
    guard let entries = known.directory else { throw .notDirectory }
    if let read = self.records[state.fileID], read.version != known.record.version { throw .contended }
    self.directories[state.fileID] = Directory(state: state, known: known, entries: entries)
  }

  func record(of directory: InodeState) throws(FilesystemError) -> InodeRecord {
    guard let open = self.directories[directory.fileID] else { throw .notDirectory }
    return open.known.record
  }

  func entry(_ name: PathComponent, in directory: InodeState) -> DirectoryEntry? {
    self.directories[directory.fileID]?.entries.entry(name)
  }

  /// Requires permission for a directory.
  ///
  /// - Parameter isReached: whether the caller may pass all directories above it. If not, what it lets others do does not
  ///   count.
  func require(
    _ wanted: Permission, in directory: InodeState, isReached: Bool = true
  ) throws(FilesystemError) {
    let rules = try self.record(of: directory).attributes.part.rules
    guard (isReached ? rules : rules.ofClosedPlace).permits(wanted, caller: self.caller, memberOf: { _ in false })
    else {
      throw .permissionDenied
    }
  }

  mutating func insert(_ entry: DirectoryEntry, in directory: InodeState) throws(FilesystemError) {
    self.directories[directory.fileID]?.entries.insert(entry)
  }

  /// Takes note of the key that an inode's draft says it has from now on.
  mutating func note(_ key: FileKey, of file: FileID) { self.drawn[file] = key }

  /// Changes what an entry that is there says, but for its name.
  mutating func update(_ entry: DirectoryEntry, in directory: InodeState) {
    self.directories[directory.fileID]?.entries.update(entry)
  }

  mutating func removeEntry(_ name: PathComponent, in directory: InodeState) {
    self.directories[directory.fileID]?.entries.remove(name)
  }

  // MARK: Inodes

  /// The record of an inode that the edit works with, its signatures not verified; nil when there is none.
  mutating func record(_ file: FileID) async throws(FilesystemError) -> InodeRecord? {
    if let open = self.directories[file] { return open.known.record }
    if let read = self.records[file] { return read }
    let record = try await self.filesystem.storedRecord(file)
    self.records[file] = record
    return record
  }

  /// As `record`, and nothing is committed when the inode has changed since.
  mutating func unchangedRecord(_ file: FileID) async throws(FilesystemError) -> InodeRecord? {
    guard let record = try await self.record(file) else { return nil }
    self.unchanged.insert(file)
    return record
  }

  /// The draft of an inode that a directory's entry leads to, begun from the record that the edit works with.
  mutating func draft(_ file: FileID) async throws(FilesystemError) -> Draft {
    if let draft = self.drafts[file] { return draft }
    guard let record = try await self.record(file) else { throw try await self.mismatch(.dataLoss(file, .missing)) }
    return Draft(record)
  }

  /// What to throw when things that were read do not fit together: that is damage only if all of them are still as they
  /// were read, since each commit leaves them fitting.
  func mismatch(_ damage: FilesystemError) async throws(FilesystemError) -> FilesystemError {
    for read in self.directories.values.map(\.known.record) + Array(self.records.values) {
      guard try await self.filesystem.storedRecord(read.fileID)?.version == read.version else { return .contended }
    }
    return damage
  }

  /// Requires that a directory does not lie in another one, nor is it, now and when the edit is committed.
  mutating func require(_ directory: FileID, outside other: FileID) async throws(FilesystemError) {
    var next = directory
    var count = 0
    // The root directory never moves, nor does a directory that another cluster serves: nothing above a credential does.
    while next != .rootDirectory, next.generation == directory.generation {
      count += 1
      guard next != other, count <= SectorLimits.ancestorsMax else { throw .loop }
      guard let record = try await self.record(next), let parent = record.links.part.parents.first else {
        throw try await self.mismatch(.dataLoss(next, .missing))
      }
      self.unchanged.insert(next)
      next = parent
    }
  }

  /// Gives an inode a new version as it is, so that no rename of it that began before can be committed any more.
  mutating func touch(_ file: FileID) async throws(FilesystemError) {
    let draft = try await self.draft(file)
    guard let links = draft.currentLinks else { throw .dataLoss(file, .record) }
    self.put(draft.changing(links, actingFor: self.actingFor))
  }

  mutating func put(_ draft: Draft) { self.drafts[draft.fileID] = draft }

  /// Adds a name to an inode.
  mutating func link(_ file: FileID, in directory: FileID) async throws(FilesystemError) {
    let draft = try await self.draft(file)
    // Its name may have been taken away in this edit, and another file have it.
    guard var links = draft.currentLinks, !draft.isRemoved else { throw .contended }
    // Whoever has marked it counts its names when it is done.
    if let old = draft.old, try await !self.filesystem.isFreeOfMark(old) { throw .contended }
    guard links.parents.count < RecordLimits.parentsMax else { throw .limitReached("links") }
    links.parents.append(directory)
    links.count += 1
    links.pending = nil
    self.put(draft.changing(links, actingFor: self.actingFor))
  }

  /// Takes a name away from an inode, and the inode with the last one.
  mutating func unlink(_ file: FileID, from directory: FileID) async throws(FilesystemError) {
    var draft = try await self.draft(file)
    guard var links = draft.currentLinks, let place = links.parents.firstIndex(of: directory) else {
      if let old = draft.old, try await !self.filesystem.isFreeOfMark(old) { throw .contended }
      throw try await self.mismatch(.dataLoss(file, .record))
    }
    links.parents.remove(at: place)
    links.count -= 1
    if links.count == 0 {
      // Whoever has changed it in this edit is answered with its record: that is committed first.
      guard self.drafts[file] == nil else { throw .contended }
      draft.isRemoved = true
      self.put(draft)
    } else {
      self.put(draft.changing(links, actingFor: self.actingFor))
    }
  }

  // MARK: Into a commit

  /// What is committed, and what will be known of the directories once it is.
  struct Prepared {
    var commit: Commit
    var directories: [SealedDirectory]
  }

  /// A directory as it will be.
  typealias SealedDirectory = (state: InodeState, tree: IntegrityTree, entries: DirectoryContent)

  /// Seals changed directories, signs everything, all parts of a kind with one signature.
  mutating func prepare() async throws(FilesystemError) -> Prepared {
    let directories = try await self.sealDirectories()
    return Prepared(commit: try self.sign(), directories: directories)
  }

  /// Whether inodes of more than one generation are changed.
  var isCrossing: Bool {
    Set(self.drafts.keys.map(\.generation)).union(self.changedDirectories.map(\.generation)).count > 1
  }

  /// The records of directories that are changed, as they were read.
  var changedDirectoryRecords: [InodeRecord] {
    self.changedDirectories.compactMap { self.directories[$0]?.known.record }
  }

  /// Directories whose drafts are made when they are sealed. Others are only looked at.
  private var changedDirectories: [FileID] {
    self.directories.values.filter { directory in
      directory.entries.isChanged || UInt64(directory.entries.sectorCount) != directory.known.tree.sectorCount
    }.map(\.state.fileID)
  }

  /// The drafts of the generation with the changed directories, and those of others.
  ///
  /// - Throws: `crossGeneration` when directories of several generations are changed.
  func parted() throws(FilesystemError) -> (own: Edit, directory: FileID?, others: [Draft]) {
    let changed = self.changedDirectories
    guard let generation = changed.first?.generation, changed.allSatisfy({ $0.generation == generation })
    else { throw .crossGeneration }
    var own = self
    own.directories = self.directories.filter { $0.key.generation == generation }
    own.drafts = self.drafts.filter { $0.key.generation == generation }
    own.unchanged = self.unchanged.filter { $0.generation == generation }
    let others = self.drafts.values.filter { $0.fileID.generation != generation }.sorted { $0.fileID < $1.fileID }
    return (own, changed.count == 1 ? changed.first : nil, others)
  }

  /// Seals changed directories.
  mutating func sealDirectories() async throws(FilesystemError) -> [SealedDirectory] {
    var directories: [SealedDirectory] = []
    for id in self.directories.keys.sorted() {
      guard var directory = self.directories[id] else { continue }
      let sectors: [(index: Int, bytes: [UInt8])]
      do { sectors = try directory.entries.takeChangedSectors() } catch {
        throw .sector(.internalFault("directory"))
      }
      let record = directory.known.record
      let count = directory.entries.sectorCount
      guard !sectors.isEmpty || UInt64(count) != directory.known.tree.sectorCount else { continue }
      guard let key = self.drawn[id] ?? directory.state.key else { throw .noKey(id) }
      var draft = try await self.draft(id)
      guard !draft.isRemoved else { throw .notFound }
      // If it is given a new key at the same time, its entries are sealed under that one.
      var change = FileContent.Change(content: draft.content ?? record.content.part, tree: directory.known.tree)
      try await self.filesystem.content.write(
        sectors: sectors, count: count, to: &change, key: key, version: record.version)
      change.sealTree()
      change.content.version = draft.version
      change.content.modified = self.time
      // Entries that were changed for several callers at once are the service's own word.
      change.content.actingFor = self.callers.count == 1 ? self.actingFor : nil
      change.content.directoryFormat = DirectoryContent.format
      draft.content = change.content
      draft.blocks = change.blocks
      self.put(draft)
      change.tree.forgetUnchangedNodes()
      directories.append((directory.state, change.tree, directory.entries))
    }
    return directories
  }

  /// Signs the drafts.
  func sign() throws(FilesystemError) -> Commit {
    var commit = Commit()
    commit.operations = self.operations
    let drafts = self.drafts.values.sorted { $0.fileID < $1.fileID }
    let kept = drafts.filter { !$0.isRemoved }
    do {
      let signer = self.filesystem.signer
      var contents = try signer.sign(kept.compactMap(\.content))[...]
      var attributes = try signer.sign(kept.compactMap(\.attributes))[...]
      var links = try signer.sign(kept.compactMap(\.links))[...]
      for draft in kept {
        guard let content = draft.content == nil ? draft.old?.content : contents.popFirst(),
          let attributes = draft.attributes == nil ? draft.old?.attributes : attributes.popFirst(),
          let links = draft.links == nil ? draft.old?.links : links.popFirst()
        else { throw FilesystemError.sector(.internalFault("draft")) }
        commit.records.append(
          InodeRecord(
            fileID: draft.fileID, version: draft.version, content: content, attributes: attributes, links: links,
            credential: draft.credential ?? draft.old?.credential ?? []))
        if let blocks = draft.blocks { commit.blocks[draft.fileID] = blocks }
      }
    } catch let error as FilesystemError {
      throw error
    } catch let error as RecordError {
      if case .tooLarge(let field) = error { throw .limitReached(field) }
      throw .sector(.internalFault("\(error)"))
    } catch {
      throw .sector(.internalFault("signing"))
    }
    for draft in drafts where draft.isRemoved {
      guard let old = draft.old else { continue }
      commit.removals.append(draft.fileID)
      commit.conditions.append(.init(draft.fileID, old.version))
    }
    // A changed record is a condition by itself.
    for file in self.unchanged.sorted() where self.drafts[file] == nil {
      guard let record = self.directories[file]?.known.record ?? self.records[file] else { continue }
      commit.conditions.append(.init(file, record.version))
    }
    return commit
  }
}

extension Edit.Draft {
  /// The draft with other links.
  func changing(_ links: LinksPart, actingFor: TreePath?) -> Edit.Draft {
    var draft = self
    draft.links = links
    draft.links?.version = self.version
    draft.links?.actingFor = actingFor
    return draft
  }
}
