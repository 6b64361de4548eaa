// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
package import Trust

extension Filesystem {
  /// Gives a principal or a group permission for a file, and a principal its key, if asked for.
  ///
  /// - Throws: `noKey` when this process has none itself; `notFound` when the principal's credential file is not found.
  package func grant(
    _ path: TreePath, to subject: AccessEntry.Subject, _ permission: Permission, withKey: Bool, _ request: Request
  ) async throws(FilesystemError) -> FileInfo {
    let writer = try request.writer()
    _ = try await self.requireMember()
    guard !permission.isEmpty else { throw .invalid(field: "permission") }
    var recipient: (path: TreePath, key: AgreementPublicKey)?
    if withKey {
      guard case .principal(let principal) = subject else { throw .invalid(field: "with_key") }
      guard permission.contains(.read) else { throw .invalid(field: "permission") }
      guard let key = await self.agreementKey(of: principal) else { throw .notFound }
      recipient = (principal, key)
    }
    return try await self.lookingUp { () throws(FilesystemError) -> FileInfo? in
      let (place, state, known, _) = try await self.existing(
        path, for: request.caller, follow: true, needsMember: true)
      try await self.requireOwner(of: known.record, at: place, writer, request.caller)
      guard state.type != .credential else { throw .wrongType }
      // In a directory may lie what others own: who gives its key away gives theirs.
      if withKey, state.type == .directory, try await !self.ownsRootDirectory(writer) { throw .permissionDenied }
      if let info = try await self.repeated(request, state.fileID) { return info }
      var readcap: Readcap?
      if let recipient {
        let key = try await self.requireKey(state, known.record, at: place, path)
        readcap = try self.seal(key, of: state.fileID, to: recipient.key, at: recipient.path)
      }
      var edit = Edit(self, caller: request.caller)
      if let identified = request.identified {
        edit.complete(identified.id, of: identified.principal, about: state.fileID)
      }
      try await edit.setAccess(of: state.fileID, for: subject, permission)
      if let readcap { try await edit.add(readcap, to: state.fileID) }
      return try await self.commit(&edit)?[state.fileID].map { FileInfo($0) }
    }
  }

  /// Takes permission, and the key, from a principal or a group.
  ///
  /// - Returns: and what gives everything below new keys, if the principal had the key.
  package func revoke(
    _ path: TreePath, from subject: AccessEntry.Subject, _ request: Request
  ) async throws(FilesystemError) -> (info: FileInfo, task: TaskProgress?) {
    let writer = try request.writer()
    _ = try await self.requireMember()
    let (place, state, known, _) = try await self.existing(
      path, for: request.caller, follow: true, needsMember: true)
    try await self.requireOwner(of: known.record, at: place, writer, request.caller)
    guard state.type != .credential else { throw .wrongType }
    if let info = try await self.repeated(request, state.fileID) {
      return (info, self.tasks.open.first { $0.record.file == state.fileID && $0.record.kind == .rekey })
    }
    if case .principal(let principal) = subject,
      known.record.attributes.part.readcaps.contains(where: { $0.principal == principal })
    {
      try self.requireOtherReaders(than: principal, known.record)
      _ = try await self.requireKey(state, known.record, at: place, path)
      // Written down first, as what is exposed from then on is not to be forgotten.
      let task = try await self.begin(.rekey, place.path, state.fileID)
      let info = try await self.drawKey(at: path, request) {
        $0.principal != principal
      } changing: {
        edit, record throws(FilesystemError) in
        try await edit.setAccess(of: record.fileID, for: subject, [])
      }
      return (info, try await self.goOn(with: task))
    }
    let info = try await self.lookingUp { () throws(FilesystemError) -> FileInfo? in
      guard let record = try await self.storedRecord(state.fileID) else { throw .notFound }
      let attributes = record.attributes.part
      if case .principal(let principal) = subject, attributes.readcaps.contains(where: { $0.principal == principal }) {
        // It was given the key meanwhile.
        throw .contended
      }
      guard attributes.rules.entries.contains(where: { $0.subject == subject }) else { return FileInfo(record) }
      var edit = Edit(self, caller: request.caller)
      if let identified = request.identified {
        edit.complete(identified.id, of: identified.principal, about: state.fileID)
      }
      try await edit.setAccess(of: state.fileID, for: subject, [])
      return try await self.commit(&edit)?[state.fileID].map { FileInfo($0) }
    }
    return (info, nil)
  }

  /// Draws a new key for a file or directory; what is below follows.
  package func rekey(
    _ path: TreePath, _ request: Request
  ) async throws(FilesystemError) -> (info: FileInfo, task: TaskProgress) {
    let writer = try request.writer()
    _ = try await self.requireMember()
    let (place, state, known, _) = try await self.existing(
      path, for: request.caller, follow: true, needsMember: true)
    try await self.requireOwner(of: known.record, at: place, writer, request.caller)
    guard state.type != .credential else { throw .wrongType }
    _ = try await self.requireKey(state, known.record, at: place, path)
    if let info = try await self.repeated(request, state.fileID) {
      return (info, try await self.begin(.rekey, place.path, state.fileID))
    }
    let task = try await self.begin(.rekey, place.path, state.fileID)
    let info = try await self.drawKey(at: path, request) { _ in true }
    return (info, try await self.goOn(with: task))
  }

  /// The task may have been looked into before there was anything to do for it.
  private func goOn(with task: TaskProgress) async throws(FilesystemError) -> TaskProgress {
    if task.requestAnotherRun() { return task }
    return try await self.begin(.rekey, task.record.path, task.record.file)
  }

  /// Takes a directory's key out of the directory above, or puts it back, under a new one.
  package func cutOff(
    _ path: TreePath, _ isCutOff: Bool, _ request: Request
  ) async throws(FilesystemError) -> FileInfo {
    let writer = try request.writer()
    _ = try await self.requireMember()
    let (place, state, known, _) = try await self.existing(
      path, for: request.caller, follow: true, needsMember: true)
    try await self.requireOwner(of: known.record, at: place, writer, request.caller)
    guard state.type == .directory else { throw .notDirectory }
    // The root directory lies in none.
    guard place.parent != nil else {
      throw self.home.path.isRoot ? .invalid(field: "path") : self.redirection(upTo: nil)
    }
    guard known.record.attributes.part.isCutOff != isCutOff else { return FileInfo(known.record) }
    if isCutOff { try self.requireOtherReaders(than: nil, known.record) }
    let info = try await self.drawKey(at: path, request, entry: isCutOff ? .without : .with) { _ in
      true
    } changing: {
      edit, record throws(FilesystemError) in
      // Its copies would be where others have their keys; and once it is retired, nobody could read it any more.
      if isCutOff, try self.isDraining(below: place.path) { throw .drainRefused(.underWay) }
      try await edit.setCutOff(record.fileID, isCutOff)
    }
    if !isCutOff { _ = try await self.begin(.rekey, place.path, state.fileID) }
    return info
  }

  /// Takes a principal's readcap of a file or directory, which gets a new key.
  func withdraw(_ holder: TaskRecord.Holder, from file: FileID) async throws(FilesystemError) {
    guard let located = try await self.locate(file) else { return }
    let isKept: @Sendable (Readcap) -> Bool = { !holder.has($0) }
    try await self.drawKey(of: located.state, in: located.directory, located.entry?.name, keeping: isKept)
  }

  /// Removes a credential file, and has all that its principal could read by readcaps given new keys: its directory at once,
  /// the rest in the background.
  func withdrawing(
    _ principal: TreePath, in directory: InodeState, _ remove: () async throws(FilesystemError) -> Void
  ) async throws(FilesystemError) {
    // Written down first, so that it is not forgotten. As long as the credential is there the task waits, and in the end
    // it does nothing.
    let member = try await self.requireMember()
    let key = member.credentials.entry(principal)?.credential.marks.agreementKey
    let keyID = key.map { Digest32(sha256: $0.x963Representation) }
    let holder = TaskRecord.Holder(principal: principal, keyID: keyID)
    let task = try await self.begin(.rekey, self.home.path, self.home.fileID, withdrawing: holder)
    do throws(FilesystemError) { try await remove() } catch {
      switch error {
      // Nothing was removed, for sure.
      case .permissionDenied, .notFound, .isDirectory, .notDirectory:
        if member.credentials.entry(principal) != nil { try? await self.cancel(task) }
      default: break
      }
      throw error
    }
    guard let record = try? await self.storedRecord(directory.fileID),
      record.attributes.part.readcaps.contains(where: holder.has)
    else { return }
    // What fails now is done by the task.
    try? await self.withPresentKeys { () throws(FilesystemError) in
      try await self.withdraw(holder, from: directory.fileID)
    }
  }

  // MARK: -

  /// The key-agreement key of a principal; nil when it has no credential file.
  func agreementKey(of principal: TreePath) async -> AgreementPublicKey? {
    if let entry = self.member?.credentials.entry(principal) { return entry.credential.marks.agreementKey }
    return await self.neighbours.agreementKey(principal)
  }

  /// The key of what is to be shared. Of a directory that is cut off its own processes have it.
  private func requireKey(
    _ state: InodeState, _ record: InodeRecord, at place: Place, _ asked: TreePath
  ) async throws(FilesystemError) -> FileKey {
    if let key = state.key { return key }
    try await self.checkServed(
      record, at: place.path, then: place.path == asked ? nil : place.path, needsMember: true)
    throw .noKey(state.fileID)
  }

  private func requireOwner(
    of record: InodeRecord, at place: Place, _ writer: TreePath, _ caller: CallerIdentity
  ) async throws(FilesystemError) {
    try self.require([], of: record, at: place, for: caller)
    if record.attributes.part.rules.owner == writer { return }
    guard try await self.ownsRootDirectory(writer) else { throw .permissionDenied }
  }

  /// What is cut off, and read by nobody else, would be lost.
  private func requireOtherReaders(than principal: TreePath?, _ record: InodeRecord) throws(FilesystemError) {
    let attributes = record.attributes.part
    guard attributes.isCutOff || principal == nil else { return }
    guard attributes.readcaps.contains(where: { $0.principal != principal && !$0.agreementKey.isEmpty }) else {
      throw .invalid(field: principal == nil ? "is_cut_off" : "principal")
    }
  }

  private func repeated(_ request: Request, _ file: FileID) async throws(FilesystemError) -> FileInfo? {
    guard let identified = request.identified,
      try await self.result(of: identified.id, by: identified.principal, in: file.generation) != nil
    else { return nil }
    return try await self.storedRecord(file).map { FileInfo($0) }
  }

  /// What becomes of the key in the entry.
  private enum EntryKey: Sendable {
    /// It is changed.
    case present
    /// It is taken out, or put in.
    case without, with
  }

  /// Draws a new key for what a path leads to, and changes more of it in the same commit.
  private func drawKey(
    at path: TreePath, _ request: Request, entry: EntryKey = .present,
    keeping isKept: @escaping @Sendable (Readcap) -> Bool,
    changing: @escaping @Sendable (inout Edit, InodeRecord) async throws(FilesystemError) -> Void = {
      _, _ throws(FilesystemError) in
    }
  ) async throws(FilesystemError) -> FileInfo {
    try await self.lookingUp { () throws(FilesystemError) -> FileInfo? in
      let (place, state, _, _) = try await self.existing(
        path, for: request.caller, follow: true, needsMember: true, drawing: .ofDirectories)
      try await self.drawKey(
        of: state, in: place.parent, place.found?.entry?.name, request.identified, entry: entry, keeping: isKept,
        changing: changing)
      return try await self.storedRecord(state.fileID).map { FileInfo($0) }
    }
  }

  /// Draws a new key for an inode: in its record, its readcaps and its entry.
  ///
  /// - Parameters:
  ///   - directory: where it has its name; nil for the home.
  ///   - operation: what is completed with it.
  private func drawKey(
    of state: InodeState, in directory: InodeState?, _ name: PathComponent?,
    _ operation: (id: OperationID, principal: TreePath)? = nil, entry entryKey: EntryKey = .present,
    keeping isKept: @escaping @Sendable (Readcap) -> Bool,
    changing: @escaping @Sendable (inout Edit, InodeRecord) async throws(FilesystemError) -> Void = {
      _, _ throws(FilesystemError) in
    }
  ) async throws(FilesystemError) {
    guard let key = state.key, key.epoch < .max else { throw .noKey(state.fileID) }
    let file = state.fileID
    guard let directory, let name else {
      // The home. Its key stands in readcaps alone if it is the root directory, or cut off; otherwise in a directory that
      // only others read.
      let isCutOff = try await self.isCutOff(file)
      guard self.home.path.isRoot || isCutOff else { throw self.redirection(upTo: nil) }
      return try await self.drawKey(of: file, from: key, operation, keeping: isKept, changing: changing)
    }
    let parents = try await self.storedRecord(file)?.links.part.parents ?? []
    if let foreign = parents.first(where: { $0.generation != file.generation }), foreign != directory.fileID {
      // One of its names stands in the home, and there the key is replaced.
      guard let state = try await self.directory(at: foreign),
        let entry = try await self.directory(state)?.directory?.all.first(where: { $0.fileID == file })
      else { throw .contended }
      return try await self.drawKey(
        of: try await self.state(of: entry), in: state, entry.name, operation, entry: entryKey, keeping: isKept,
        changing: changing)
    }
    if directory.fileID.generation != file.generation {
      guard entryKey == .present else { throw .crossGeneration }
      // Two clusters. First of all the key is marked, so that it is not forgotten; and again behind the change, as somebody
      // may have drawn a new one in between, for those who are to have it no more.
      try await self.expose(name, of: file, in: directory)
      let epoch = try await self.changeAlone(file, operation, keeping: isKept, changing: changing)
      for _ in 0..<Self.attemptsMax {
        try await self.expose(name, of: file, in: directory)
        // Somebody may be just about to give it a key that was drawn before the change.
        try await self.drawKey(ExposedEntry(directory: directory, name: name))
        guard let record = try await self.storedRecord(file), record.content.part.keyEpoch <= epoch else { return }
      }
      throw .contended
    }
    let request = DirectoryRequest(operation: operation, byteCount: self.sectors.sectorSize) {
      edit throws(FilesystemError) in
      edit.caller = operation.map { .principal($0.principal) } ?? .principal(self.identity.path)
      guard var entry = edit.entry(name, in: directory), entry.fileID == file else { throw .keyOutdated(file) }
      guard entry.key == nil || entry.key == key else { throw .keyOutdated(file) }
      guard let record = try await edit.record(file) else { throw .contended }
      try await changing(&edit, record)
      if entry.key != nil, entryKey == .present {
        try await edit.drawKey(of: entry, in: directory, keeping: isKept)
        return file
      }
      let next = FileKey.random(epoch: key.epoch + 1)
      try await edit.beginEpoch(of: file, from: key, to: next, keeping: isKept)
      if entryKey != .with { try await edit.requireReader(of: file) }
      if entryKey == .present { return file }
      entry.key = entryKey == .with ? next : nil
      entry.nextKey = nil
      entry.isMarkedExposed = false
      entry.drawnInEpoch = try edit.record(of: directory).content.part.keyEpoch
      edit.update(entry, in: directory)
      return file
    }
    _ = try await self.change(directory, request)
  }

  /// Of an inode whose key is in no entry.
  private func drawKey(
    of file: FileID, from key: FileKey, _ operation: (id: OperationID, principal: TreePath)?,
    keeping isKept: @Sendable (Readcap) -> Bool,
    changing: @Sendable (inout Edit, InodeRecord) async throws(FilesystemError) -> Void
  ) async throws(FilesystemError) {
    for _ in 0..<Self.attemptsMax {
      var edit = Edit(self, caller: operation.map { .principal($0.principal) } ?? .principal(self.identity.path))
      if let operation { edit.complete(operation.id, of: operation.principal, about: file) }
      do throws(FilesystemError) {
        guard let record = try await edit.record(file) else { throw FilesystemError.notFound }
        guard record.content.part.keyEpoch == key.epoch else { throw FilesystemError.keyOutdated(file) }
        try await changing(&edit, record)
        let next = FileKey.random(epoch: key.epoch + 1)
        try await edit.beginEpoch(of: file, from: key, to: next, keeping: isKept)
        try await edit.requireReader(of: file)
        if try await self.commit(&edit) != nil {
          self.readcapKeys.note(next, of: file)
          return
        }
        if try await self.isDone(operation, in: file.generation) { return }
      } catch {
        guard error.isConflict else { throw error }
      }
    }
    throw .contended
  }

  private func isDone(
    _ operation: (id: OperationID, principal: TreePath)?, in generation: Generation
  ) async throws(FilesystemError) -> Bool {
    guard let operation else { return false }
    return try await self.result(of: operation.id, by: operation.principal, in: generation) != nil
  }

  /// Changes attributes, and takes readcaps, before the key of the next epoch is drawn.
  ///
  /// - Returns: the epoch of the key that it has then.
  private func changeAlone(
    _ file: FileID, _ operation: (id: OperationID, principal: TreePath)?,
    keeping isKept: @Sendable (Readcap) -> Bool,
    changing: @Sendable (inout Edit, InodeRecord) async throws(FilesystemError) -> Void
  ) async throws(FilesystemError) -> UInt32 {
    for _ in 0..<Self.attemptsMax {
      var edit = Edit(self, caller: operation.map { .principal($0.principal) } ?? .principal(self.identity.path))
      if let operation { edit.complete(operation.id, of: operation.principal, about: file) }
      do throws(FilesystemError) {
        guard let record = try await edit.record(file) else { throw FilesystemError.notFound }
        try await changing(&edit, record)
        try await edit.setReadcaps(of: file, keeping: isKept)
        if let committed = try await self.commit(&edit)?[file] { return committed.content.part.keyEpoch }
        if try await self.isDone(operation, in: file.generation) { return record.content.part.keyEpoch }
      } catch {
        guard error.isConflict else { throw error }
      }
    }
    throw .contended
  }

  /// Marks the key in an entry as exposed.
  private func expose(
    _ name: PathComponent, of file: FileID, in directory: InodeState
  ) async throws(FilesystemError) {
    let request = DirectoryRequest(operation: nil, byteCount: self.sectors.sectorSize) { edit throws(FilesystemError) in
      edit.caller = .principal(self.identity.path)
      guard var entry = edit.entry(name, in: directory), entry.fileID == file else { throw .keyOutdated(file) }
      guard !entry.isMarkedExposed else { return nil }
      entry.isMarkedExposed = true
      edit.update(entry, in: directory)
      return nil
    }
    _ = try await self.change(directory, request)
  }
}

extension Edit {
  /// Changes what the access list gives somebody; nothing takes it away.
  fileprivate mutating func setAccess(
    of file: FileID, for subject: AccessEntry.Subject, _ permission: Permission
  ) async throws(FilesystemError) {
    try await self.setAttributes(of: file) { attributes in
      attributes.rules.entries.removeAll { $0.subject == subject }
      if !permission.isEmpty { attributes.rules.entries.append(AccessEntry(subject, permission)) }
    }
    let count = try await self.draft(file).currentAttributes?.rules.entries.count ?? 0
    guard count <= RecordLimits.accessEntriesMax else { throw .limitReached("access") }
  }

  fileprivate mutating func setCutOff(_ file: FileID, _ isCutOff: Bool) async throws(FilesystemError) {
    try await self.setAttributes(of: file) { $0.isCutOff = isCutOff }
  }

  fileprivate mutating func setReadcaps(
    of file: FileID, keeping isKept: (Readcap) -> Bool
  ) async throws(FilesystemError) {
    try await self.setAttributes(of: file) { $0.readcaps.removeAll { !isKept($0) } }
  }

  private mutating func setAttributes(
    of file: FileID, _ change: (inout AttributesPart) -> Void
  ) async throws(FilesystemError) {
    var draft = try await self.draft(file)
    guard var attributes = draft.currentAttributes else { throw .dataLoss(file, .record) }
    change(&attributes)
    attributes.version = draft.version
    attributes.changed = self.time
    attributes.actingFor = Self.actingFor(self.caller, self.filesystem.identity.path)
    draft.attributes = attributes
    self.put(draft)
  }
}
