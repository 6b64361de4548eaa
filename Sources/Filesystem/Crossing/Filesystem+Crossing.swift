// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import Trust

// Steps over two clusters: the names in a delegated directory are stored by the cluster above, what they lead to by the
// directory's own. There is no commit over both, so there are three:
//
//  1. In the generation of the inodes: each one that gains or loses a name is marked, with the directory and the operation.
//     New ones are stored then, without a name.
//  2. In the generation of the directory: its entries. This is the moment when all of it happens, for everybody.
//  3. In the generation of the inodes: marks are taken away, links counted, and inodes removed that have no name any more.
//
// Whatever a crash leaves, an entry leads to an inode that is there, since it is stored before and removed after. What
// is left are inodes with a mark: `settle` brings them to what the directory says.
//
// Whoever would use what it knows of the names in a directory can tell by the inode whether that still holds: no name is
// taken away or moved without another links part.
extension Filesystem {
  /// Commits an edit of a directory and of inodes of another generation; nil when a conflict was met. Then the names are
  /// as they were.
  func commitCrossing(_ edit: inout Edit) async throws(FilesystemError) -> [FileID: InodeRecord]? {
    let parted = try edit.parted()
    var own = parted.own
    guard let directory = parted.directory else { throw .crossGeneration }
    guard !parted.others.isEmpty else { return try await self.commit(try await own.prepare(), of: own) }
    guard let marked = try await self.mark(parted.others, of: directory, for: edit) else { return nil }
    let sealed = try await own.sealDirectories()
    let prepared = Edit.Prepared(commit: try own.sign(), directories: sealed)
    guard var records = try await self.commit(prepared, of: own) else { return nil }
    // It has happened. What comes now may be done later, too, by whoever looks at the marks.
    for file in marked.keys { self.crossing.take(file) }
    let state = own.directories[directory]?.state
    let finished = await self.finish(parted.others, marked, in: state)
    records.merge(marked) { first, _ in first }
    records.merge(finished) { _, second in second }
    return records
  }

  /// The first commit: marks inodes, and stores new ones.
  ///
  /// - Returns: the records with the marks; nil when a conflict was met.
  func mark(
    _ drafts: [Edit.Draft], of directory: FileID, for edit: Edit
  ) async throws(FilesystemError) -> [FileID: InodeRecord]? {
    var marked: [FileID: InodeRecord] = [:]
    var changed: [Edit.Draft] = []
    for draft in drafts {
      // It was stored by an attempt before this one. Somebody may have taken it for an orphan since; whoever does so from
      // now on gives the directory another version than the one that was read.
      if let record = self.crossing.record(draft.fileID) {
        guard try await self.storedRecord(draft.fileID)?.version == record.version else {
          self.crossing.take(draft.fileID)
          return nil
        }
        // Nor may the directory be just being taken back from its cluster: of what is marked it is not known any more then.
        // Whoever takes it back gives the directory another version, too, once its cluster takes no more commits.
        marked[draft.fileID] = try await self.requireOpen(record)
        continue
      }
      var step = draft
      step.isRemoved = false
      var links =
        draft.old?.links.part ?? LinksPart(fileID: draft.fileID, version: draft.version, count: 0, parents: [])
      links.version = draft.version
      links.pending = PendingMark(
        directory: directory, operation: edit.operations.last?.id, since: edit.time)
      links.actingFor = draft.links?.actingFor
      step.links = links
      changed.append(step)
    }
    guard !changed.isEmpty else { return marked }
    let step = Edit(self, of: changed)
    let commit = try step.sign()
    guard let records = try await self.commit(Edit.Prepared(commit: commit, directories: []), of: step) else {
      return nil
    }
    marked.merge(records) { _, second in second }
    // Only of what has no name nobody else can take the mark away.
    for draft in changed where (draft.old?.links.part.count ?? 0) == 0 {
      if let record = records[draft.fileID] { self.crossing.note(record) }
    }
    return marked
  }

  /// The third commit: takes the marks away.
  ///
  /// - Returns: the records that are there then, of those that it has found as they were marked.
  private func finish(
    _ drafts: [Edit.Draft], _ marked: [FileID: InodeRecord], in directory: InodeState?
  ) async -> [FileID: InodeRecord] {
    var steps: [Edit.Draft] = []
    for draft in drafts {
      guard let record = marked[draft.fileID] else { continue }
      var step = Edit.Draft(record)
      if draft.isRemoved {
        step.isRemoved = true
      } else {
        guard var links = draft.currentLinks else { continue }
        links.version = step.version
        links.pending = nil
        step.links = links
        // What an upload has become under its name.
        if var attributes = draft.attributes, attributes.rules != record.attributes.part.rules {
          attributes.version = step.version
          step.attributes = attributes
        }
      }
      steps.append(step)
    }
    if let records = await self.attempt(steps) { return records }
    // Somebody else has come first with one of them.
    var records: [FileID: InodeRecord] = [:]
    for step in steps {
      if let done = await self.attempt([step]) {
        records.merge(done) { _, second in second }
      } else if let directory {
        await self.settleFirmly(step.fileID, in: directory, mayCondemn: false)
        if let record = try? await self.storedRecord(step.fileID) { records[step.fileID] = record }
      }
    }
    return records
  }

  private func attempt(_ steps: [Edit.Draft]) async -> [FileID: InodeRecord]? {
    let edit = Edit(self, of: steps)
    guard let commit = try? edit.sign() else { return nil }
    let records = try? await self.commit(Edit.Prepared(commit: commit, directories: []), of: edit)
    return records ?? nil
  }

  /// Removes a new inode that did not get its name after all. It may have got it all the same, if it was the answer that
  /// was lost: so it is settled, and not simply removed. What can not be settled now, is later.
  func abandonCrossing(_ file: FileID, in directory: InodeState) async {
    guard self.crossing.take(file) != nil else { return }
    await self.settleFirmly(file, in: directory, mayCondemn: true)
  }

  /// Settles an inode, as far as that can be done now.
  func settleFirmly(_ file: FileID, in directory: InodeState, mayCondemn: Bool) async {
    for _ in 0..<Self.attemptsMax {
      let settlement = try? await self.settle(file, in: directory, mayCondemn: mayCondemn)
      guard case .conflict = settlement else { return }
    }
  }

  /// Whether an inode is not marked. If it is, its mark is looked into: then everything is to be read again.
  func isFreeOfMark(_ record: InodeRecord) async throws(FilesystemError) -> Bool {
    guard let mark = record.links.part.pending, mark.directory.generation != record.fileID.generation else {
      return true
    }
    if let directory = self.crossing.directory(mark.directory, home: self.root) {
      _ = try await self.settle(record.fileID, in: directory, mayCondemn: false)
    }
    return false
  }

  // MARK: Settling

  /// What came of settling an inode.
  enum Settlement: Sendable {
    /// There is no mark any more.
    case done
    /// It may still get its name.
    case waits
    /// Others have changed it meanwhile.
    case conflict
  }

  /// Brings an inode with a mark to what the directory in the mark says.
  ///
  /// A new inode that has no name there may be just about to get it. So it is *condemned* first, which whoever would name
  /// it sees before; then the directory gets a new version, so that nobody who has looked before can still commit; and
  /// only then it is removed. Who finds it named all the same takes both marks away.
  ///
  /// In the same way, before the mark of an inode with a name is taken away, the directory gets a new version: whoever has
  /// made the mark can not go on from what it has read.
  ///
  /// - Parameters:
  ///   - directory: the one in the mark.
  ///   - mayCondemn: whether a new inode without a name is removed.
  func settle(
    _ file: FileID, in directory: InodeState, mayCondemn: Bool
  ) async throws(FilesystemError) -> Settlement {
    guard let record = try await self.storedRecord(file), let mark = record.links.part.pending,
      mark.directory == directory.fileID
    else { return .done }
    // Read after the mark.
    guard let known = try await self.directory(directory), let entries = known.directory else { return .waits }
    var links = record.links.part
    links.parents.removeAll { $0 == directory.fileID }
    links.parents += Array(repeating: directory.fileID, count: entries.count(of: file))
    links.count = UInt32(links.parents.count)
    links.pending = nil
    links.actingFor = nil
    if links.count > 0 {
      guard try await self.fence(directory, at: known.record.version) else { return .conflict }
      return await self.attempt([Edit.Draft(record).changing(links, actingFor: nil)]) == nil ? .conflict : .done
    }
    if record.links.part.count == 0 {
      guard mayCondemn else { return .waits }
      if !mark.isCondemned {
        links.pending = mark
        links.pending?.isCondemned = true
        let condemned = await self.attempt([Edit.Draft(record).changing(links, actingFor: nil)])
        return condemned == nil ? .conflict : try await self.settle(file, in: directory, mayCondemn: true)
      }
      guard try await self.fence(directory, at: known.record.version) else { return .conflict }
    }
    var removal = Edit.Draft(record)
    removal.isRemoved = true
    return await self.attempt([removal]) == nil ? .conflict : .done
  }

  /// Gives a directory another version, so that nobody can commit any more who has read it at this one; false when it has
  /// another one already.
  private func fence(_ directory: InodeState, at version: Version) async throws(FilesystemError) -> Bool {
    var touch = Edit(self, caller: .principal(self.identity.path))
    try await touch.open(directory)
    guard try touch.record(of: directory).version == version else { return false }
    try await touch.touch(directory.fileID)
    return try await self.commit(Edit.Prepared(commit: try touch.sign(), directories: []), of: touch) != nil
  }
}
