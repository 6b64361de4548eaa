// SPDX-License-Identifier: Apache-2.0

package import Inodes
internal import Sectors
package import Trust

// A directory that has a cluster of its own is taken back by the processes that store the directory itself: what its
// cluster stores is moved to theirs, while it is in use.
//
//  1. All of it is copied to a staging directory, sealed as it is, in several passes: each finds less that has changed.
//  2. Its cluster is *frozen*: it takes no more commits. One more pass copies what was changed since the last one.
//  3. Its cluster is *retired*, for good: it answers no more from what it stores. Whoever asks repeats that for a
//     moment.
//  4. The entries of the directory are switched over to the copies, and the directory loses the mark that another
//     generation serves it. With the first of these commits the copies are what counts, and nothing is copied any more.
//
// Up to 3, everything can be given up. From 3 on, everything can only be finished, by whoever comes after a crash. No
// entry ever leads nowhere, and none leads to a copy before its cluster is retired.
extension Filesystem {
  private var own: CallerIdentity { .principal(self.identity.path) }

  /// Passes while others may change everything.
  private static let passCountMax = 8
  /// Passes that it takes at most to copy what has changed, when nobody can change anything any more.
  private static let lastPassCountMax = 6
  /// A pass that has copied no more than this will not be followed by one that copies much less.
  private static let passByteCountMin = 4 << 20
  private static let passChangeCountMin = 64
  /// How long it is looked for directories below that have clusters of their own before a drain begins.
  private static let checkTime = Duration.seconds(2)
  /// Names that are switched over in one commit.
  private static let switchCountMax = 200
  /// Bytes of records, after which no further one is put into the same commit. A record has up to 64 KiB.
  private static let switchByteCountMax = 1 << 20

  // MARK: What others call

  /// Checks that a directory can be taken back, for somebody who owns it or the root directory.
  ///
  /// - Returns: its path, without symbolic links, its file id, and the generation that serves it.
  package func checkDrain(
    _ path: TreePath, for caller: CallerIdentity
  ) async throws(FilesystemError) -> (path: TreePath, file: FileID, generation: Generation) {
    let (place, state, known, _) = try await self.existing(path, for: caller, follow: false)
    // Whoever stores the directory itself does it.
    guard self.home.path.isRoot || place.path != self.home.path else {
      throw self.redirection(upTo: place.path == path ? nil : place.path)
    }
    guard case .principal(let principal) = caller else { throw .permissionDenied }
    if known.record.attributes.part.rules.owner != principal, try await !self.ownsRootDirectory(principal) {
      throw .permissionDenied
    }
    guard state.type == .directory else { throw .notDirectory }
    guard let generation = try await self.generationToDrain(state, at: place.path) else {
      throw .drainRefused(.notDelegated)
    }
    try await self.requireJoined(place.path)
    try await self.requireNoneNested(in: state, generation)
    return (place.path, state.fileID, generation)
  }

  /// Takes a directory back: one run, until it is done. To be called again later, by whichever process leads, when it
  /// throws.
  ///
  /// - Parameter generation: the one that it is taken back from; nil for whichever it is.
  /// - Returns: what was left undone, for people; empty when nothing was.
  func drain(
    _ path: TreePath, _ file: FileID, from generation: Generation?, _ progress: TaskProgress
  ) async throws(FilesystemError) -> String {
    let outcome = await self.drains.alone(file) { () async -> Result<String, FilesystemError> in
      do throws(FilesystemError) {
        return .success(
          try await self.withPresentKeys { () throws(FilesystemError) in
            try await self.performDrain(path, file, from: generation, progress)
          })
      } catch {
        // Whatever it was, also of a run before: nobody waits for what may take long.
        if let volume = try? await self.volumeToDrain(path, file), (try? await volume.freezeState()) == .frozen {
          try? await volume.setFreeze(.open, by: self.identity)
        }
        return .failure(error)
      }
    }
    return try outcome.get()
  }

  /// Gives a drain up: its cluster takes commits again, and what was copied is removed. A run that goes on has to be
  /// told to stop before.
  ///
  /// - Throws: `drainRefused` (`finishing`) when it can only be finished, or is.
  func cancelDrain(_ path: TreePath, _ file: FileID) async throws(FilesystemError) {
    let outcome = await self.drains.alone(file) { () async -> Result<Void, FilesystemError> in
      do throws(FilesystemError) { return .success(try await self.performCancel(path, file)) } catch {
        return .failure(error)
      }
    }
    try outcome.get()
  }

  private func performCancel(_ path: TreePath, _ file: FileID) async throws(FilesystemError) {
    // That takes no key.
    guard let volume = try await self.volumeToDrain(path, file) else { throw .drainRefused(.finishing) }
    do { try await volume.setFreeze(.open, by: self.identity) } catch {
      if case .invalid = error { throw FilesystemError.drainRefused(.finishing) }
      throw FilesystemError(error, sectorSize: volume.sectorSize)
    }
    try await DrainStaging(filesystem: self, directory: file).remove()
  }

  // MARK: What there is

  /// The volume of the generation that serves a directory; nil when none does.
  private func volumeToDrain(_ path: TreePath, _ file: FileID) async throws(FilesystemError) -> (any Volume)? {
    guard let record = try await self.storedRecord(file) else { return nil }
    try await self.verify(record)
    guard let generation = record.attributes.part.servedByGeneration else { return nil }
    self.volumes.note(generation, serving: path, file)
    return try await self.volumes.volume(of: generation)
  }

  /// The generation that serves a directory, if it takes no commits for the time being; nil otherwise.
  func frozenGeneration(_ path: TreePath, _ file: FileID) async throws(FilesystemError) -> Generation? {
    guard let volume = try await self.volumeToDrain(path, file) else { return nil }
    do { return try await volume.freezeState() == .frozen ? volume.generation : nil } catch {
      throw FilesystemError(error, sectorSize: volume.sectorSize)
    }
  }

  /// Whether a directory is being taken back, at a path or below it.
  func isDraining(below path: TreePath) throws(FilesystemError) -> Bool {
    guard let member else { return false }
    let tasks: [String: [UInt8]]
    do { tasks = try member.tasks() } catch {
      throw FilesystemError(error, sectorSize: self.sectors.sectorSize)
    }
    return tasks.contains { id, bytes in
      guard let task = try? TaskRecord(id: id, bytes: bytes) else { return false }
      return task.kind == .drain && path.isSameOrAncestor(of: task.path)
    }
  }

  /// The directory at a path, if it is still this one; nil when it is gone.
  private func directoryToDrain(_ path: TreePath, _ file: FileID) async throws(FilesystemError) -> InodeState? {
    let place: Place
    do throws(FilesystemError) { place = try await self.place(of: path, for: self.own, follow: false) } catch {
      switch error {
      case .notFound, .permissionDenied, .notDirectory: return nil
      default: throw error
      }
    }
    guard let found = place.found?.state, found.fileID == file, found.type == .directory else { return nil }
    return found
  }

  /// The generation that serves a directory; nil when none does.
  private func generationToDrain(
    _ directory: InodeState, at path: TreePath
  ) async throws(FilesystemError) -> Generation? {
    guard let record = try await self.storedRecord(directory.fileID) else { return nil }
    try await self.verify(record)
    guard let generation = record.attributes.part.servedByGeneration, directory.fileID != self.home.fileID else {
      return nil
    }
    guard directory.fileID.generation == self.sectors.generation, directory.key != nil else {
      throw .drainRefused(.noKey)
    }
    self.volumes.note(generation, serving: path, directory.fileID)
    let volume = try await self.volumes.volume(of: generation)
    guard volume.sectorSize == self.sectors.sectorSize else { throw .drainRefused(.sectorSize) }
    return generation
  }

  /// Refuses a directory that is cut off, or lies in one that is: where the copies lie, whoever has the key of the home has
  /// theirs, too.
  private func requireJoined(_ path: TreePath) async throws(FilesystemError) {
    let place = try await self.place(of: path, for: self.own, follow: false)
    guard let found = place.found else { throw .notFound }
    for directory in place.directories + [found.state.fileID] where directory != self.home.fileID {
      if try await self.isCutOff(directory) { throw .drainRefused(.noKey) }
    }
  }

  /// Looks for directories below that have clusters of their own, for a while: a drain that meets one later does not go
  /// on either.
  private func requireNoneNested(in directory: InodeState, _ generation: Generation) async throws(FilesystemError) {
    let end = ContinuousClock.now + Self.checkTime
    var queue = [directory]
    while let next = queue.popLast(), ContinuousClock.now < end {
      let isTop = next.fileID == directory.fileID
      guard next.key != nil else { throw .drainRefused(.noKey) }
      guard let known = try await self.directory(next) else { continue }
      if !isTop, known.record.attributes.part.servedByGeneration != nil { throw .drainRefused(.nested) }
      for entry in known.directory?.all.sorted(by: { $0.name < $1.name }) ?? [] {
        guard entry.fileID.generation == generation else {
          if isTop { continue }
          throw .drainRefused(.nested)
        }
        switch entry.type {
        case .directory: queue.append(try await self.state(of: entry))
        case .credential:
          guard let record = try await self.storedRecord(entry.fileID),
            let credential = try? CredentialFile(bytes: record.credential)
          else { continue }
          let services = credential.marks.services
          guard !services.contains(.sector), !services.contains(.filesystem) else { throw .drainRefused(.nested) }
        default: break
        }
      }
    }
  }

  // MARK: A run

  private func performDrain(
    _ path: TreePath, _ file: FileID, from wanted: Generation?, _ progress: TaskProgress
  ) async throws(FilesystemError) -> String {
    let staging = DrainStaging(filesystem: self, directory: file)
    guard let directory = try await self.directoryToDrain(path, file),
      let generation = try await self.generationToDrain(directory, at: path), wanted ?? generation == generation
    else {
      // What can not be found at its path may be there nevertheless: then the copies may be all that there is.
      if let present = try await self.storedRecord(file)?.attributes.part.servedByGeneration,
        wanted ?? present == present
      {
        throw .drainRefused(.noKey)
      }
      // It was done, but for this.
      progress.set(step: "removing what is left")
      try await staging.remove()
      return ""
    }
    let volume = try await self.volumes.volume(of: generation)
    func translate(_ error: SectorError) -> FilesystemError { FilesystemError(error, sectorSize: volume.sectorSize) }
    var state: FreezeState
    do { state = try await volume.freezeState() } catch { throw translate(error) }
    let target = try await staging.make()
    var pass = DrainPass(self, of: directory, generation: generation, to: target, progress)
    if state != .retired {
      for number in 1...Self.passCountMax {
        progress.set(step: "copying (pass \(number))")
        try await self.requireJoined(path)
        try await pass.run(.contents)
        if pass.changeCount <= Self.passChangeCountMin, pass.byteCount <= Self.passByteCountMin { break }
      }
      progress.set(step: "copying the last changes")
      do throws(SectorError) { try await volume.setFreeze(.frozen, by: self.identity) } catch {
        guard case .invalid = error else { throw translate(error) }
        // The member that was asked did not know that yet.
        state = .retired
      }
    }
    if state != .retired {
      do throws(FilesystemError) {
        try await self.fence(directory)
        try await self.requireJoined(path)
        try await self.finishCopies(&pass, .contents)
        try await self.requireJoined(path)
        do { try await volume.setFreeze(.retired, by: self.identity) } catch { throw translate(error) }
      } catch {
        // Nobody waits for what may take long. It is refused if it is retired after all.
        try? await volume.setFreeze(.open, by: self.identity)
        throw error
      }
      progress.set(step: "copying credentials")
      try await self.finishCopies(&pass, .credentials)
    } else if try await !staging.isInUse(target) {
      // Somebody else has got so far.
      progress.set(step: "comparing copies")
      try await self.finishCopies(&pass, .all)
    }
    progress.set(step: "switching over")
    try await self.switchOver(directory, generation, from: target)
    progress.set(step: "removing what is left")
    try await staging.remove()
    if pass.lost.isEmpty { return "" }
    return "readcaps of \(pass.lost.count) files or directories were not kept, as their holders' keys are not known"
  }

  /// Runs passes until one finds nothing to be done.
  private func finishCopies(_ pass: inout DrainPass, _ kind: DrainPass.Kind) async throws(FilesystemError) {
    for _ in 0..<Self.lastPassCountMax {
      try await pass.run(kind)
      if pass.isClean { return }
    }
    throw .contended
  }

  /// Gives a directory another version, so that no step over two clusters is completed that has read it before.
  private func fence(_ directory: InodeState) async throws(FilesystemError) {
    for _ in 0..<Self.attemptsMax {
      do throws(FilesystemError) {
        try self.drains.noteCommit()
        var touch = Edit(self, caller: self.own)
        try await touch.open(directory)
        try await touch.touch(directory.fileID)
        if try await self.commit(Edit.Prepared(commit: try touch.sign(), directories: []), of: touch) != nil { return }
      } catch {
        guard error.isConflict else { throw error }
      }
    }
    throw .contended
  }

  // MARK: Switching over

  /// Has the directory's entries lead to the copies, as many at a time as one commit takes, and then has the directory
  /// be served by nobody else. Nothing of what they led to before can change any more.
  private func switchOver(
    _ directory: InodeState, _ generation: Generation, from staging: InodeState
  ) async throws(FilesystemError) {
    var conflictCount = 0
    while conflictCount < Self.attemptsMax {
      do throws(FilesystemError) {
        try self.drains.noteCommit()
        var edit = Edit(self, caller: self.own)
        try await edit.open(directory)
        try await edit.open(staging)
        let names = edit.names(of: generation, in: directory)
        var (count, byteCount) = (0, 0)
        for name in names.prefix(Self.switchCountMax) where byteCount < Self.switchByteCountMax {
          byteCount += try await edit.switchOver(name, in: directory, from: staging)
          count += 1
        }
        let isLast = count == names.count
        try await DrainStaging.setInUse(staging, in: &edit)
        if isLast { try await edit.takeBack(directory.fileID, from: generation) }
        if try await self.commit(&edit) == nil {
          conflictCount += 1
        } else if isLast {
          return
        }
      } catch {
        guard error.isConflict else { throw error }
        conflictCount += 1
      }
    }
    throw .contended
  }
}

extension Edit {
  /// The names in a directory that lead to inodes of a generation, in order.
  fileprivate func names(of generation: Generation, in directory: InodeState) -> [PathComponent] {
    let entries = self.directories[directory.fileID]?.entries.all.filter { $0.fileID.generation == generation } ?? []
    return entries.map(\.name).sorted()
  }

  /// Has a name lead to the copy.
  ///
  /// - Returns: the bytes of the copy's record.
  fileprivate mutating func switchOver(
    _ name: PathComponent, in directory: InodeState, from staging: InodeState
  ) async throws(FilesystemError) -> Int {
    guard let old = self.entry(name, in: directory) else { return 0 }
    guard var new = self.entry(name, in: staging), new.type == old.type else { throw .dataLoss(old.fileID, .missing) }
    // What became known of the key since it was copied.
    if old.isMarkedExposed || old.nextKey.map({ $0 != new.key }) ?? false { new.isMarkedExposed = true }
    self.update(new, in: directory)
    self.removeEntry(name, in: staging)
    try await self.move(new.fileID, from: staging.fileID, to: directory.fileID)
    return (try? await self.record(new.fileID)?.serialized().count) ?? 0
  }

  /// Has a directory be served by no other generation than its own.
  fileprivate mutating func takeBack(_ directory: FileID, from generation: Generation) async throws(FilesystemError) {
    var draft = try await self.draft(directory)
    guard var attributes = draft.currentAttributes, attributes.servedByGeneration == generation else { return }
    attributes.servedByGeneration = nil
    attributes.version = draft.version
    attributes.changed = self.time
    attributes.actingFor = nil
    draft.attributes = attributes
    self.put(draft)
  }
}
