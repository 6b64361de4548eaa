// SPDX-License-Identifier: Apache-2.0

internal import GRPCProtobuf
internal import Inodes
internal import Sectors
internal import Trust

// Giving everything below a place new keys, in the background. First the keys, which is fast: from then on nobody writes
// under one that somebody may know who should not. Then the sectors that are still sealed under former keys. Nothing is
// remembered between runs: entries say which keys are exposed, and records which epochs are still needed.
extension Filesystem {
  /// - Returns: what was left undone, for people.
  func rekey(_ task: TaskRecord, _ progress: TaskProgress) async throws(FilesystemError) -> String {
    var run = RekeyRun(filesystem: self, progress: progress)
    // Has the clusters on the way known.
    _ = try? await self.place(of: task.path, for: .principal(self.identity.path), follow: false, entersLast: true)
    if let holder = task.holder {
      let present = self.member?.credentials.entry(holder.principal)?.credential.marks.agreementKey
      if let present, holder.keyID.map({ $0 == Digest32(sha256: present.x963Representation) }) ?? true {
        // It is about to be removed, or is not removed after all.
        guard self.now() - task.started > Self.removalTimeMax else { throw .contended }
        return ""
      }
      for _ in 0..<Self.rekeyRunsMax {
        run.begin()
        progress.set(step: "withdrawing the keys of \(holder.principal)")
        try await run.withdraw(holder, from: task.file)
        if run.isComplete { break }
      }
      guard run.isComplete else { throw .contended }
    }
    let withdrawn = run.problem
    // What others changed while it was looked at is met again.
    for _ in 0..<Self.rekeyRunsMax {
      run.begin()
      progress.set(step: "drawing new keys")
      try await run.drawKeys(at: task.file)
      progress.set(step: "sealing anew")
      try await run.reseal(at: task.file)
      if run.isComplete {
        try run.requireReached()
        return [withdrawn, run.problem].filter { !$0.isEmpty }.joined(separator: "; ")
      }
    }
    throw .contended
  }

  private static let rekeyRunsMax = 4
  /// How long a credential may take to be removed; nanoseconds.
  private static let removalTimeMax: Int64 = 600_000_000_000

  /// An inode with its newest key, and the directory with one of its names; nil when it is gone, or does not lie below
  /// this process's home.
  func locate(
    _ file: FileID
  ) async throws(FilesystemError) -> (state: InodeState, directory: InodeState?, entry: DirectoryEntry?)? {
    if file == self.home.fileID { return (self.root, nil, nil) }
    guard let record = try await self.storedRecord(file), let parent = record.links.part.parents.first else {
      return nil
    }
    guard let directory = try await self.directory(at: parent),
      let entry = try await self.directory(directory)?.directory?.all.first(where: { $0.fileID == file })
    else {
      // It is just being moved, or removed.
      guard let now = try await self.storedRecord(file), now.version == record.version else { throw .contended }
      guard try await self.isBelowHome(parent) else { return nil }
      throw .contended
    }
    return (try await self.state(of: entry), directory, entry)
  }
}

extension Filesystem {
  /// Whether a directory lies at or below this process's home, as far as its records say.
  private func isBelowHome(_ directory: FileID) async throws(FilesystemError) -> Bool {
    var next = directory
    for _ in 0..<TreePath.byteCountMax / 2 {
      if next == self.home.fileID { return true }
      guard let parent = try await self.storedRecord(next)?.links.part.parents.first else { return false }
      next = parent
    }
    return false
  }
}

/// One run through all that a task is about.
private struct RekeyRun {
  let filesystem: Filesystem
  let progress: TaskProgress
  /// What could not be done, for people: the first of it, and how much.
  private var firstProblem = ""
  private var problemCount = 0
  /// Whether nothing was passed over because others changed it.
  private(set) var isComplete = true
  /// What could not be reached.
  private var blocked: FilesystemError?

  init(filesystem: Filesystem, progress: TaskProgress) {
    self.filesystem = filesystem
    self.progress = progress
  }

  /// Directories deeper than this do not exist, as paths end before.
  private static let depthMax = TreePath.byteCountMax / 2
  /// Entries that are given new keys in one commit.
  private static let batchCount = 64
  /// Bytes that are sealed anew in one commit.
  private static let pieceByteCount = 1 << 20

  var problem: String {
    switch self.problemCount {
    case 0: ""
    case 1: self.firstProblem
    default: "\(self.firstProblem); and \(self.problemCount - 1) more"
    }
  }

  /// Another round begins, which meets all problems anew.
  mutating func begin() {
    self.progress.restart()
    self.isComplete = true
    self.problemCount = 0
  }

  /// Requires that everything could be reached.
  func requireReached() throws(FilesystemError) { if let blocked { throw blocked } }

  private mutating func note(_ error: FilesystemError, of file: FileID) throws(FilesystemError) {
    switch error {
    // These pass, or are for another process: the whole is tried again.
    case .taskStopped: throw error
    // What lies elsewhere is not kept waiting for it.
    case .parentUnreachable, .sector(.unreachable), .sector(.frozen), .sector(.busy), .sector(.notServing):
      self.blocked = self.blocked ?? error
      return
    case .sector(.dataLoss): break
    case .sector: throw error
    default: break
    }
    if self.problemCount == 0 { self.firstProblem = "\(file) keeps its former key: \(error.status.message)" }
    self.problemCount += 1
  }

  /// Whether others changed something, so that it is to be looked at once more.
  private static func isPassing(_ error: FilesystemError) -> Bool {
    if case .keyOutdated = error { return true }
    return error.isConflict
  }

  // MARK: Walking

  /// Has something done with an inode and all that is below, directories before what is in them. An inode with several
  /// names is met several times.
  private mutating func walk(
    from file: FileID, _ visit: (inout RekeyRun, InodeState) async throws(FilesystemError) -> Void
  ) async throws(FilesystemError) {
    guard let start = try await self.locate(file) else { return }
    try await self.walk(file, start, depth: 0, visit)
  }

  /// An inode with the key that it has now; nil when it is gone.
  private func locate(_ file: FileID) async throws(FilesystemError) -> InodeState? {
    try await self.filesystem.withPresentKeys { () throws(FilesystemError) in
      guard let state = try await self.filesystem.locate(file)?.state else { return nil }
      _ = try await self.filesystem.known(state)
      return state
    }
  }

  private mutating func walk(
    _ file: FileID, _ state: InodeState, depth: Int,
    _ visit: (inout RekeyRun, InodeState) async throws(FilesystemError) -> Void
  ) async throws(FilesystemError) {
    try await self.progress.pause(bytes: 0)
    do throws(FilesystemError) {
      try await self.filesystem.noteCluster(of: state)
      try await visit(&self, state)
    } catch {
      // Given a new key by somebody else, or removed: it is looked for once more.
      if Self.isPassing(error) { self.isComplete = false } else { try self.note(error, of: file) }
    }
    guard state.type == .directory, depth < Self.depthMax else { return }
    // With the key that it has now.
    // What was done may have given it another key.
    let present: InodeState
    do throws(FilesystemError) {
      let epoch = try await self.filesystem.storedRecord(file)?.content.part.keyEpoch
      guard let found = depth == 0 || epoch != state.key?.epoch ? try await self.locate(file) : state else { return }
      present = found
    } catch {
      if Self.isPassing(error) { self.isComplete = false } else { try self.note(error, of: file) }
      return
    }
    for entry in try await self.entries(of: present) where entry.type != .credential {
      let child: InodeState
      do throws(FilesystemError) { child = try await self.filesystem.state(of: entry) } catch {
        if Self.isPassing(error) { self.isComplete = false } else { try self.note(error, of: entry.fileID) }
        continue
      }
      // What is cut off is not known to whoever has the keys above it.
      if child.key == nil { continue }
      try await self.walk(entry.fileID, child, depth: depth + 1, visit)
    }
  }

  /// The entries of a directory as they are now; none when it is gone.
  private mutating func entries(of state: InodeState) async throws(FilesystemError) -> [DirectoryEntry] {
    do throws(FilesystemError) {
      return try await self.filesystem.directory(state)?.directory.map { Array($0.all) } ?? []
    } catch {
      if Self.isPassing(error) { self.isComplete = false } else { try self.note(error, of: state.fileID) }
      return []
    }
  }

  // MARK: Keys

  /// Draws new keys for everything below an inode whose key in its directory is exposed, and for the inode itself if its
  /// own is.
  mutating func drawKeys(at file: FileID) async throws(FilesystemError) {
    let located = try await self.filesystem.withPresentKeys { () throws(FilesystemError) in
      try await self.filesystem.locate(file)
    }
    if let start = located, let directory = start.directory, let entry = start.entry {
      try await self.filesystem.noteCluster(of: directory)
      try await self.filesystem.drawKey(ExposedEntry(directory: directory, name: entry.name))
    }
    try await self.walk(from: file) { run, state throws(FilesystemError) in
      guard let record = try await run.filesystem.storedRecord(state.fileID) else { return }
      run.progress.count(inodes: 1, bytes: record.content.part.sectorCount * UInt64(record.content.part.sectorSize))
      if state.type == .directory { try await run.drawKeys(in: state) }
    }
  }

  private mutating func drawKeys(in directory: InodeState) async throws(FilesystemError) {
    guard let known = try await self.filesystem.directory(directory), let entries = known.directory else { return }
    let epoch = known.record.content.part.keyEpoch
    let exposed = entries.all.filter { $0.isExposed(in: epoch) }
    let own = exposed.filter { $0.fileID.generation == directory.fileID.generation }
    var start = 0
    while start < own.count {
      let batchCount = max(1, min(Self.batchCount, Self.pieceByteCount / known.record.content.part.sectorSize))
      let batch = own[start..<min(start + batchCount, own.count)]
      try await self.progress.pause(bytes: batch.count * 4_096)
      if try await self.filesystem.drawKeys(batch.map(\.name), in: directory) < batch.count {
        for entry in batch { try await self.drawKey(of: entry, in: directory) }
      }
      start += batch.count
    }
    for entry in exposed where entry.fileID.generation != directory.fileID.generation {
      try await self.progress.pause(bytes: 4_096)
      try await self.drawKey(of: entry, in: directory)
    }
  }

  /// On its own, so that it shows what is wrong with it.
  private mutating func drawKey(
    of entry: DirectoryEntry, in directory: InodeState
  ) async throws(FilesystemError) {
    do throws(FilesystemError) {
      try await self.filesystem.drawKey(ExposedEntry(directory: directory, name: entry.name))
    } catch {
      if Self.isPassing(error) { self.isComplete = false } else { try self.note(error, of: entry.fileID) }
    }
  }

  // MARK: Readcaps

  /// Takes the readcaps of a principal from everything below an inode.
  mutating func withdraw(_ holder: TaskRecord.Holder, from file: FileID) async throws(FilesystemError) {
    try await self.walk(from: file) { run, state throws(FilesystemError) in
      guard let record = try await run.filesystem.storedRecord(state.fileID),
        record.attributes.part.readcaps.contains(where: holder.has)
      else { return }
      try await run.filesystem.withdraw(holder, from: state.fileID)
    }
  }

  // MARK: Sectors

  /// Seals everything below an inode anew that is still sealed under former keys.
  mutating func reseal(at file: FileID) async throws(FilesystemError) {
    try await self.walk(from: file) { run, state throws(FilesystemError) in try await run.reseal(state) }
  }

  private mutating func reseal(_ state: InodeState) async throws(FilesystemError) {
    guard let record = try await self.filesystem.storedRecord(state.fileID) else { return }
    let content = record.content.part
    let byteCount = content.sectorCount * UInt64(content.sectorSize)
    if !content.earlierKeys.isEmpty { try await self.resealSectors(of: state) }
    self.progress.done(inodes: 1, bytes: byteCount)
  }

  private func resealSectors(of state: InodeState) async throws(FilesystemError) {
    var index: UInt64 = 0
    while true {
      switch try await self.filesystem.resealPiece(of: state, from: index, byteCountMax: Self.pieceByteCount) {
      case .nothing(let next): index = next
      case .piece(let next, let byteCount):
        index = next
        try await self.progress.pause(bytes: byteCount)
      case .end: return
      }
      try await self.progress.pause(bytes: 0)
    }
  }
}

extension Filesystem {
  enum Resealed: Sendable {
    /// Nothing had to be done up to this sector.
    case nothing(next: UInt64)
    /// So much was sealed anew.
    case piece(next: UInt64, byteCount: Int)
    /// Nothing is left that is sealed under a former key.
    case end
  }

  /// Sectors of which the leaves are looked at together.
  private static let leafCount: UInt64 = 4_096

  /// Seals the next sectors anew that are sealed under a former key, in one commit. Their content stays what it was, and
  /// so does all that is said of it but for the version.
  func resealPiece(
    of state: InodeState, from index: UInt64, byteCountMax: Int
  ) async throws(FilesystemError) -> Resealed {
    let outcome = await state.changes.alone { () async -> Result<Resealed, FilesystemError> in
      do throws(FilesystemError) {
        for _ in 0..<Self.attemptsMax {
          do throws(FilesystemError) {
            if let done = try await self.attemptReseal(of: state, from: index, byteCountMax: byteCountMax) {
              return .success(done)
            }
          } catch {
            guard error.isConflict else { throw error }
          }
        }
        return .failure(.contended)
      } catch {
        return .failure(error)
      }
    }
    return try outcome.get()
  }

  /// Nil when a conflict was met.
  private func attemptReseal(
    of state: InodeState, from index: UInt64, byteCountMax: Int
  ) async throws(FilesystemError) -> Resealed? {
    guard let known = try await self.known(state), let key = state.key else { return .end }
    let content = known.record.content.part
    guard key.epoch == content.keyEpoch else { throw .keyOutdated(state.fileID) }
    if content.earlierKeys.isEmpty { return .end }
    let version = known.record.version
    var change = FileContent.Change(content: content, tree: known.tree)
    // It may have become shorter.
    let indexes = index..<max(index, min(index + Self.leafCount, content.sectorCount))
    var done: Resealed
    if indexes.isEmpty {
      // All were looked at. What was written meanwhile was sealed under the newest key.
      change.content.earlierKeys = []
      done = .end
    } else {
      try await self.content.load(&change.tree, for: indexes, of: state.fileID, version: version)
      guard let run = try Self.formerRun(in: indexes, of: change, byteCountMax: byteCountMax) else {
        return .nothing(next: indexes.upperBound)
      }
      let size = UInt64(content.sectorSize)
      let bytes = run.lowerBound * size..<min(run.upperBound * size, content.size)
      let plain = try await self.content.read(
        bytes, of: change.content, tree: &change.tree, key: key, version: version)
      try await self.content.write(plain[...], at: bytes.lowerBound, to: &change, key: key, version: version)
      change.sealTree()
      done = .piece(next: run.upperBound, byteCount: plain.count)
    }
    var edit = Edit(self, caller: .principal(self.identity.path))
    var draft = Edit.Draft(known.record)
    var new = change.content
    new.version = draft.version
    new.modified = FileInfo(known.record).modified
    new.actingFor = nil
    draft.content = new
    draft.blocks = change.blocks
    edit.put(draft)
    guard let record = try await self.commit(&edit)?[state.fileID] else { return nil }
    if change.tree.loadedNodeCount > 64 { change.tree.forgetUnchangedNodes() }
    self.inodes.remember(
      InodeState.Known(record: record, tree: change.tree, directory: known.directory), of: state)
    return done
  }

  /// The first neighbouring sectors, of these, that are sealed under a former key.
  private static func formerRun(
    in indexes: Range<UInt64>, of change: FileContent.Change, byteCountMax: Int
  ) throws(FilesystemError) -> Range<UInt64>? {
    var start: UInt64?
    do {
      for index in indexes {
        let leaf = try change.tree.leaf(at: index)
        let isFormer = !leaf.isHole && leaf.epoch != change.content.keyEpoch
        if let first = start {
          if !isFormer || Int(index - first) * change.content.sectorSize >= byteCountMax { return first..<index }
        } else if isFormer {
          start = index
        }
      }
    } catch {
      throw FilesystemError(error, file: change.content.fileID, sectorSize: change.content.sectorSize)
    }
    return start.map { $0..<indexes.upperBound }
  }

  /// Has the cluster known that serves a directory, if that has one of its own.
  func noteCluster(of state: InodeState) async throws(FilesystemError) {
    guard state.type == .directory,
      let generation = try await self.storedRecord(state.fileID)?.attributes.part.servedByGeneration,
      generation != self.sectors.generation, state.fileID != self.home.fileID,
      let path = try await self.pathFromHome(of: state.fileID)
    else { return }
    self.volumes.note(generation, serving: path, state.fileID)
  }

  /// The path of a directory that lies below this process's home; nil when it is gone.
  func pathFromHome(of directory: FileID) async throws(FilesystemError) -> TreePath? {
    var names: [PathComponent] = []
    var next = directory
    while next != self.home.fileID {
      guard names.count <= TreePath.byteCountMax / 2, let located = try await self.locate(next),
        let entry = located.entry, let parent = located.directory
      else { return nil }
      names.append(entry.name)
      next = parent.fileID
    }
    do { return try TreePath(self.home.path.components + names.reversed()) } catch { throw .invalidPath(error) }
  }
}
