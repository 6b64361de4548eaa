// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import Trust

/// Brings the copies of what a delegated directory holds up to date, again and again: each pass goes through all of it,
/// compares each inode with its copy, and changes what differs. Between passes, and during one, anything may change:
/// what a pass has missed, the next one finds. When nothing can change any more, a pass that changes nothing shows that
/// the copies are the same.
///
/// Each copy stands in the staging directory under the same path, and has the same keys and sealed sectors. Which copy
/// is whose is remembered by file id, so that what was renamed meanwhile is moved, and what has several names has one
/// copy; and found again by path and content id after another process took over.
struct DrainPass: Sendable {
  /// What a pass is about.
  enum Kind: Sendable {
    /// All but credential files: a copy of those would count at once.
    case contents
    /// Credential files. Nothing may change any more.
    case credentials
    /// All. Nothing may change any more.
    case all
  }

  /// Inodes that are looked at at once.
  private static let chunkCount = 64
  /// Inodes that are changed in one commit.
  private static let batchCountMax = 64
  /// Bytes of sectors in a commit of several inodes.
  private static let batchByteCountMax = 1 << 20
  /// Contents up to so many bytes are committed together with others.
  private static let smallByteCountMax = 256 << 10
  /// Bytes of sectors in a commit of one inode: as for an upload.
  private static let pieceByteCountMax = Filesystem.Upload.bufferByteCount

  let filesystem: Filesystem
  /// The directory that is taken back.
  let directory: InodeState
  /// The generation that serves it.
  let generation: Generation
  let staging: DrainStaging
  let target: InodeState
  let progress: TaskProgress

  private var kind = Kind.contents
  /// By source, its copy.
  private var copies: [FileID: FileID] = [:]
  /// By copy, its source.
  private var sources: [FileID: FileID] = [:]
  /// Copies of directories, with their keys, as they were met.
  private var directories: [FileID: InodeState] = [:]
  /// The copies on the way from the staging directory to where the pass has got to.
  private var way: [FileID] = []
  /// What is in no place any more. It is removed at the end, as it may only have been moved.
  private var surplus: [(directory: InodeState, entry: DirectoryEntry)] = []

  /// Inodes that were changed, by this pass.
  private(set) var changeCount = 0
  /// Bytes of sectors that were copied, by this pass.
  private(set) var byteCount = 0
  /// Whether something was changing while it was looked at, and was left to the next pass.
  private(set) var isIncomplete = false
  /// Of new copies of long contents, how many bytes are still to be copied, as far as it is told.
  private var remaining: [FileID: UInt64] = [:]
  /// Copies that lack a readcap, as its holder's key is not known.
  private(set) var lost: Set<FileID> = []

  init(
    _ filesystem: Filesystem, of directory: InodeState, generation: Generation, to target: InodeState,
    _ progress: TaskProgress
  ) {
    self.filesystem = filesystem
    self.directory = directory
    self.generation = generation
    self.staging = DrainStaging(filesystem: filesystem, directory: directory.fileID)
    self.target = target
    self.progress = progress
  }

  /// An inode that has a name.
  private struct Item: Sendable {
    /// The entry that leads to it.
    let entry: DirectoryEntry
    /// Verified.
    let record: InodeRecord
    /// With the key that it has now.
    let state: InodeState

    /// The entry that leads to its copy.
    func entry(of copy: FileID) -> DirectoryEntry {
      var entry = self.entry
      entry.fileID = copy
      // What is cut off stays so.
      if entry.key != nil { entry.key = self.state.key }
      // One that was only planned may be known already.
      if let next = entry.nextKey, next != entry.key { entry.isMarkedExposed = true }
      entry.nextKey = nil
      return entry
    }
  }

  /// Goes through everything once.
  ///
  /// - Throws: `drainRefused`; `contended` when somebody else has changed the copies.
  mutating func run(_ kind: Kind) async throws(FilesystemError) {
    self.kind = kind
    (self.changeCount, self.byteCount, self.isIncomplete, self.way, self.surplus) = (0, 0, false, [], [])
    self.directories[self.target.fileID] = self.target
    try await self.copy(self.directory, to: self.target)
    // What lies deeper first.
    for (directory, entry) in self.surplus.reversed() { try await self.remove(entry, from: directory) }
  }

  /// Whether the last pass has found everything as it should be.
  var isClean: Bool { self.changeCount == 0 && !self.isIncomplete }

  // MARK: Directories

  private mutating func copy(_ source: InodeState, to target: InodeState) async throws(FilesystemError) {
    let isTop = source.fileID == self.directory.fileID
    guard let known = try await self.filesystem.directory(source), let content = known.directory,
      let present = try await self.filesystem.knownDirectory(target).directory
    else {
      self.isIncomplete = true
      return
    }
    if !isTop, known.record.attributes.part.servedByGeneration != nil { throw .drainRefused(.nested) }
    // What the directory held before it was handed over is not stored by its own cluster.
    let entries = content.all.filter { !isTop || $0.fileID.generation == self.generation }
      .sorted { $0.name < $1.name }
    guard entries.allSatisfy({ $0.fileID.generation == self.generation }) else { throw .drainRefused(.nested) }
    let names = Set(entries.map(\.name))
    for entry in present.all.sorted(by: { $0.name < $1.name }) where !names.contains(entry.name) {
      self.surplus.append((target, entry))
    }
    self.way.append(target.fileID)
    defer { self.way.removeLast() }
    for start in stride(from: 0, to: entries.count, by: Self.chunkCount) {
      try await self.pause(bytes: 0)
      let items = try await self.read(entries[start..<min(start + Self.chunkCount, entries.count)])
      let below = try await self.copy(items, in: target)
      for (item, copy) in below {
        guard !self.way.contains(copy.fileID) else {
          self.isIncomplete = true
          continue
        }
        try await self.copy(item.state, to: copy)
        try await self.finish(item, copy)
      }
    }
  }

  private func pause(bytes: Int) async throws(FilesystemError) {
    // There is no way back any more.
    if self.kind == .contents { try await self.progress.pause(bytes: bytes) }
  }

  /// Reads what entries lead to, many at a time. What is gone, or is just being changed, is left out.
  private mutating func read(_ entries: ArraySlice<DirectoryEntry>) async throws(FilesystemError) -> [Item] {
    let filesystem = self.filesystem
    let wanted =
      self.kind == .credentials
      ? entries.filter { $0.type == .credential || $0.type == .directory } : Array(entries)
    let results = await withTaskGroup(of: (Int, Result<(InodeRecord, InodeState)?, FilesystemError>).self) { group in
      for (number, entry) in wanted.enumerated() {
        group.addTask {
          do throws(FilesystemError) {
            guard let record = try await filesystem.storedRecord(entry.fileID) else { return (number, .success(nil)) }
            return (number, .success((record, try await filesystem.state(of: entry))))
          } catch {
            return (number, .failure(error))
          }
        }
      }
      var results: [Int: Result<(InodeRecord, InodeState)?, FilesystemError>] = [:]
      for await (number, result) in group { results[number] = result }
      return results
    }
    var items: [Item] = []
    for (number, entry) in wanted.enumerated() {
      guard let (record, state) = try results[number]?.get() else {
        self.isIncomplete = true
        continue
      }
      try await filesystem.verify(record)
      guard record.attributes.part.type == entry.type else { throw .dataLoss(entry.fileID, .record) }
      if entry.type == .credential {
        let services = (try? CredentialFile(bytes: record.credential))?.marks.services ?? []
        // Such a process would have to be told that its directory is another one.
        guard !services.contains(.sector), !services.contains(.filesystem) else { throw .drainRefused(.nested) }
        if self.kind == .contents { continue }
      } else {
        guard let key = state.key else { throw .drainRefused(.noKey) }
        guard key.epoch == record.content.part.keyEpoch else {
          self.isIncomplete = true
          continue
        }
      }
      items.append(Item(entry: entry, record: record, state: state))
    }
    return items
  }

  // MARK: Inodes

  /// Copies inodes to a directory, but not what lies in those that are directories.
  ///
  /// - Returns: the directories among them, with their copies.
  private mutating func copy(
    _ items: [Item], in target: InodeState
  ) async throws(FilesystemError) -> [(Item, InodeState)] {
    var edit = try await self.begin(target)
    var byteCount = 0
    var large: [(Item, FileID)] = []
    var below: [(Item, InodeState)] = []
    for item in items {
      if byteCount >= Self.batchByteCountMax || edit.drafts.count >= Self.batchCountMax {
        try await self.commit(&edit, byteCount)
        (edit, byteCount) = (try await self.begin(target), 0)
      }
      var copy = try await self.copy(of: item, in: &edit, of: target)
      var present = edit.entry(item.entry.name, in: target)
      if let other = present, other.fileID != copy {
        try await self.commit(&edit, byteCount)
        try await self.remove(other, from: target)
        (edit, byteCount) = (try await self.begin(target), 0)
        // It may have been within what was removed.
        copy = try await self.copy(of: item, in: &edit, of: target)
        present = nil
      }
      if present == nil, let moved = copy, item.entry.type == .directory {
        try await self.commit(&edit, byteCount)
        if try await !self.move(item, moved, to: target) { copy = nil }
        (edit, byteCount) = (try await self.begin(target), 0)
      }
      let outcome: Outcome
      do throws(FilesystemError) {
        if let copy {
          outcome = try await self.update(copy, item, in: &edit, of: target)
        } else {
          outcome = try await self.create(item, in: &edit, of: target)
        }
      } catch {
        // It was changed while it was read.
        guard error.isConflict else { throw error }
        self.isIncomplete = true
        continue
      }
      // With access list and readcaps, a record takes up to 64 KiB.
      byteCount += outcome.byteCount + ((try? item.record.serialized().count) ?? 0)
      if outcome.isLarge { large.append((item, outcome.file)) }
      if item.entry.type == .directory {
        let state = self.filesystem.inodes.state(outcome.file, type: .directory, key: item.state.key)
        self.directories[outcome.file] = state
        below.append((item, state))
      }
    }
    try await self.commit(&edit, byteCount)
    for (item, copy) in large {
      do throws(FilesystemError) { try await self.copyContent(of: item, to: copy) } catch {
        guard error.isConflict else { throw error }
        self.isIncomplete = true
      }
    }
    return below
  }

  private struct Outcome {
    let file: FileID
    var byteCount = 0
    /// Whether its content is to be copied in commits of its own.
    var isLarge = false
  }

  private func begin(_ target: InodeState) async throws(FilesystemError) -> Edit {
    var edit = try await self.begin()
    try await edit.open(target)
    return edit
  }

  private func begin() async throws(FilesystemError) -> Edit {
    var edit = Edit(self.filesystem, caller: self.staging.caller)
    try await DrainStaging.requireUnused(self.target, in: &edit)
    return edit
  }

  private mutating func commit(_ edit: inout Edit, _ byteCount: Int) async throws(FilesystemError) {
    try self.filesystem.drains.noteCommit()
    let count = edit.drafts.count
    // Nobody else has to do with it but who takes over from this process.
    guard try await self.filesystem.commit(&edit) != nil else { throw .contended }
    self.changeCount += count
    self.byteCount += byteCount
    if byteCount > 0 { try await self.pause(bytes: byteCount) }
  }

  /// The copy of an inode; nil when there is none that could be brought up to date.
  private mutating func copy(
    of item: Item, in edit: inout Edit, of target: InodeState
  ) async throws(FilesystemError) -> FileID? {
    let source = item.record.fileID
    if let known = self.copies[source] {
      // Made in this very edit, under another name.
      if let draft = edit.drafts[known], draft.old == nil { return known }
      if let record = try await edit.record(known), self.isCopy(record, self.directories[known]?.key, of: item) {
        return known
      }
      self.copies[source] = nil
      self.sources[known] = nil
    }
    guard let present = edit.entry(item.entry.name, in: target), self.sources[present.fileID] == nil,
      let record = try await edit.record(present.fileID), self.isCopy(record, present.key, of: item)
    else { return nil }
    self.note(present.fileID, of: item)
    self.progress.done(inodes: 1, bytes: item.record.content.part.size)
    return present.fileID
  }

  private mutating func note(_ copy: FileID, of item: Item) {
    self.copies[item.record.fileID] = copy
    self.sources[copy] = item.record.fileID
    self.progress.count(inodes: 1, bytes: item.record.content.part.size)
  }

  /// Whether an inode can be made the same as another one: what never changes of an inode is the same already.
  ///
  /// - Parameter key: of the copy.
  private func isCopy(_ copy: InodeRecord, _ key: FileKey?, of item: Item) -> Bool {
    let (old, new) = (copy.content.part, item.record.content.part)
    let (attributes, wanted) = (copy.attributes.part, item.record.attributes.part)
    guard attributes.type == wanted.type, attributes.created == wanted.created, old.contentID == new.contentID,
      old.keyEpoch <= new.keyEpoch
    else { return false }
    // The entries in it are sealed here.
    return wanted.type != .directory || key == item.state.key
  }

  /// Adds a new copy to an edit.
  private mutating func create(
    _ item: Item, in edit: inout Edit, of target: InodeState
  ) async throws(FilesystemError) -> Outcome {
    let file = try await self.filesystem.numbers.next(in: self.filesystem.sectors)
    let type = item.entry.type
    var content = item.record.content.part
    var outcome = Outcome(file: file)
    var blocks: Commit.Blocks?
    if type == .file || type == .symbolicLink {
      if self.isSmall(content) {
        var copy = try await ContentCopy(of: item.record, to: file, from: nil, in: self.filesystem)
        try await copy.advance(byteCountMax: .max)
        (content, blocks) = (copy.change.content, copy.change.blocks)
        outcome.byteCount = copy.change.blocks.runs.reduce(0) { $0 + $1.bytes.count }
      } else {
        content = Self.empty(content)
        outcome.isLarge = true
      }
    } else if type == .directory {
      content = Self.empty(content)
      content.earlierKeys = []
    }
    content.fileID = file
    content.version = 1
    content.actingFor = nil
    let attributes = await self.attributes(of: item, for: file, version: 1, content: 1)
    let links = LinksPart(fileID: file, version: 1, count: 1, parents: [target.fileID])
    var draft = Edit.Draft(new: file, content: content, attributes: attributes, links: links)
    draft.blocks = blocks
    if type == .credential { draft.credential = item.record.credential }
    edit.put(draft)
    try edit.insert(item.entry(of: file), in: target)
    self.note(file, of: item)
    let size = item.record.content.part.size
    if outcome.isLarge { self.remaining[file] = size }
    self.progress.done(inodes: 1, bytes: outcome.isLarge ? 0 : size)
    return outcome
  }

  private func isSmall(_ content: ContentPart) -> Bool {
    content.sectorCount <= UInt64(Self.smallByteCountMax / content.sectorSize)
  }

  private static func empty(_ content: ContentPart) -> ContentPart {
    var content = content
    content.size = 0
    content.leaves = []
    content.integrityRoot = .zero
    content.treeLevels = 0
    content.inlineContent = []
    return content
  }

  /// Makes a copy that is there the same as its source.
  private mutating func update(
    _ copy: FileID, _ item: Item, in edit: inout Edit, of target: InodeState
  ) async throws(FilesystemError) -> Outcome {
    var outcome = Outcome(file: copy)
    var draft = try await edit.draft(copy)
    let isNew = draft.old == nil
    if !isNew, let content = draft.currentContent, let attributes = draft.currentAttributes {
      var isChanged = false
      var contentVersion = content.version
      let isFile = item.entry.type == .file || item.entry.type == .symbolicLink
      if isFile, !Self.isSame(content, item.record.content.part) {
        if self.isSmall(item.record.content.part), self.isSmall(content) {
          var new = try await ContentCopy(of: item.record, to: copy, from: draft.old, in: self.filesystem)
          try await new.advance(byteCountMax: .max)
          draft.setContent(new.change.content)
          draft.blocks = new.change.blocks
          contentVersion = draft.version
          outcome.byteCount = new.change.blocks.runs.reduce(0) { $0 + $1.bytes.count }
          isChanged = true
        } else {
          outcome.isLarge = true
        }
      }
      // Those of a directory are set when all is in it.
      if !outcome.isLarge, item.entry.type != .directory {
        let wanted = await self.attributes(of: item, for: copy, version: draft.version, content: contentVersion)
        if isChanged || Facts(attributes, content) != Facts(wanted, item.record.content.part, at: contentVersion) {
          draft.attributes = wanted
          isChanged = true
        }
      }
      if item.entry.type == .credential, draft.old?.credential != item.record.credential {
        draft.credential = item.record.credential
        isChanged = true
      }
      if isChanged { edit.put(draft) }
    }
    let entry = item.entry(of: copy)
    if let present = edit.entry(entry.name, in: target) {
      if present != entry {
        edit.update(entry, in: target)
        self.changeCount += 1
      }
    } else {
      try await edit.link(copy, in: target.fileID)
      try edit.insert(entry, in: target)
    }
    return outcome
  }

  /// Copies a content in commits of its own.
  private mutating func copyContent(of item: Item, to file: FileID) async throws(FilesystemError) {
    guard var stored = try await self.filesystem.storedRecord(file) else { throw .contended }
    var copy = try await ContentCopy(of: item.record, to: file, from: stored, in: self.filesystem)
    repeat {
      try await copy.advance(byteCountMax: Self.pieceByteCountMax)
      var edit = try await self.begin()
      var draft = Edit.Draft(stored)
      draft.setContent(copy.change.content)
      draft.blocks = copy.change.blocks
      if copy.isDone {
        draft.attributes = await self.attributes(of: item, for: file, version: draft.version, content: draft.version)
      }
      edit.put(draft)
      let byteCount = copy.change.blocks.runs.reduce(0) { $0 + $1.bytes.count }
      try self.filesystem.drains.noteCommit()
      guard let record = try await self.filesystem.commit(&edit)?[file] else { throw .contended }
      stored = record
      copy.committed(record.version)
      self.changeCount += 1
      self.byteCount += byteCount
      self.noteProgress(of: file, byteCount: copy.isDone ? .max : UInt64(byteCount))
      try await self.pause(bytes: byteCount)
    } while !copy.isDone
  }

  /// Counts the first time that something is copied.
  private mutating func noteProgress(of file: FileID, byteCount: UInt64) {
    guard let remaining = self.remaining[file] else { return }
    let done = min(remaining, byteCount)
    self.progress.done(inodes: 0, bytes: done)
    self.remaining[file] = done < remaining ? remaining - done : nil
  }

  /// Gives the copy of a directory its attributes and times, which have changed with what was put into it.
  private mutating func finish(_ item: Item, _ copy: InodeState) async throws(FilesystemError) {
    guard let record = try await self.filesystem.storedRecord(copy.fileID) else { throw .contended }
    let source = item.record.content.part
    var draft = Edit.Draft(record)
    var contentVersion = record.content.part.version
    if record.content.part.modified != source.modified {
      var content = record.content.part
      content.modified = source.modified
      content.actingFor = nil
      draft.setContent(content)
      contentVersion = draft.version
    }
    let wanted = await self.attributes(of: item, for: copy.fileID, version: draft.version, content: contentVersion)
    let isSame = Facts(record.attributes.part, record.content.part) == Facts(wanted, source, at: contentVersion)
    if isSame, draft.content == nil { return }
    draft.attributes = wanted
    var edit = try await self.begin()
    edit.put(draft)
    try await self.commit(&edit, 0)
  }

  // MARK: Names

  /// Moves the copy of a directory that was renamed.
  ///
  /// - Returns: false when it can not be moved, and has to be made anew.
  private mutating func move(
    _ item: Item, _ copy: FileID, to target: InodeState
  ) async throws(FilesystemError) -> Bool {
    guard !self.way.contains(copy), let parent = try await self.filesystem.storedRecord(copy)?.links.part.parents.first,
      let from = self.directories[parent]
    else {
      self.copies[item.record.fileID] = nil
      self.sources[copy] = nil
      return false
    }
    var edit = try await self.begin(target)
    try await edit.open(from)
    for entry in edit.entries(of: copy, in: from) { edit.removeEntry(entry.name, in: from) }
    try edit.insert(item.entry(of: copy), in: target)
    if parent != target.fileID { try await edit.move(copy, from: parent, to: target.fileID) }
    try await self.commit(&edit, 0)
    self.changeCount += 1
    return true
  }

  /// Removes a name, and what it leads to if that has no other one.
  private mutating func remove(_ entry: DirectoryEntry, from directory: InodeState) async throws(FilesystemError) {
    // It may have been moved since.
    guard try await self.filesystem.directory(directory)?.directory?.entry(entry.name)?.fileID == entry.fileID else {
      return
    }
    if entry.type == .directory {
      try await self.staging.empty(try await self.filesystem.state(of: entry), whileUnused: self.target)
    }
    guard try await self.staging.remove([entry], from: directory, whileUnused: self.target) else { throw .contended }
    self.changeCount += 1
  }

  // MARK: What is the same

  private static func isSame(_ copy: ContentPart, _ source: ContentPart) -> Bool {
    var copy = copy
    copy.fileID = source.fileID
    copy.version = source.version
    copy.actingFor = source.actingFor
    return copy == source
  }

  /// What is the same of an inode and its copy, apart from the content.
  private struct Facts: Equatable {
    struct Holder: Hashable {
      let principal: TreePath
      let keyID: Digest32
      let epoch: UInt32
    }

    let rules: AccessRules
    let readcaps: Set<Holder>
    let times: [Int64]
    let isCutOff: Bool
    let extendedAttributes: [UInt8]

    /// - Parameter version: that of the content which counts for times that were set by hand; nil for its own.
    init(_ attributes: AttributesPart, _ content: ContentPart, at version: Version? = nil) {
      self.rules = attributes.rules
      self.readcaps = Set(
        attributes.readcaps.map { Holder(principal: $0.principal, keyID: $0.keyID, epoch: $0.epoch) })
      let isSetByHand = attributes.modifiedAtVersion == version ?? content.version
      self.times = [
        attributes.changed, attributes.accessed, attributes.created,
        isSetByHand ? attributes.modified : content.modified,
      ]
      self.isCutOff = attributes.isCutOff
      self.extendedAttributes = attributes.extendedAttributes
    }
  }

  /// The attributes that a copy is to have.
  ///
  /// - Parameters:
  ///   - version: of the copy.
  ///   - content: of its content.
  private mutating func attributes(
    of item: Item, for copy: FileID, version: Version, content: Version
  ) async -> AttributesPart {
    let source = item.record.attributes.part
    var attributes = source
    attributes.fileID = copy
    attributes.version = version
    attributes.actingFor = nil
    let isSetByHand = source.modifiedAtVersion == item.record.content.part.version
    attributes.modified = isSetByHand ? source.modified : 0
    attributes.modifiedAtVersion = isSetByHand ? content : .absent
    guard !source.readcaps.isEmpty else { return attributes }
    // A readcap says which inode it is for.
    attributes.readcaps = []
    if let key = item.state.key {
      let present = source.readcaps.filter { $0.epoch == key.epoch }
      attributes.readcaps = await self.filesystem.readcaps(present, of: copy, sealing: key)
      if attributes.readcaps.count < present.count { self.lost.insert(copy) }
    }
    return attributes
  }
}

extension Edit.Draft {
  /// Takes a content as that of the version that the commit makes.
  fileprivate mutating func setContent(_ content: ContentPart) {
    var content = content
    content.version = self.version
    self.content = content
  }
}
