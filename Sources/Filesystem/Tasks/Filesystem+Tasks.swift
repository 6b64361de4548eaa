// SPDX-License-Identifier: Apache-2.0

internal import GRPCProtobuf
internal import Inodes
internal import Sectors
internal import Transport
package import Trust

// What takes longer than a call is done in the background, by the leader of the cluster: a task. It is written down in
// the cluster first, so that the next leader goes on with it after a crash. Each kind of task can be begun again from the
// start at any time, and finds by itself what there is left to do.
extension Filesystem {
  /// Writes a task down. It begins soon.
  ///
  /// - Throws: `limitReached` when there are very many.
  func begin(
    _ kind: TaskRecord.Kind, _ path: TreePath, _ file: FileID, withdrawing holder: TaskRecord.Holder? = nil,
    from generation: Generation? = nil
  ) async throws(FilesystemError) -> TaskProgress {
    let member = try await self.requireMember()
    self.noteTasks()
    if let open = self.tasks.open.first(where: {
      ($0.record.kind, $0.record.file, $0.record.holder, $0.record.generation) == (kind, file, holder, generation)
    }), open.requestAnotherRun() {
      return open
    }
    let record = TaskRecord(
      kind: kind, path: path, file: file, holder: holder, generation: generation, started: self.now())
    do throws(SectorError) {
      // A credential can always be removed.
      let count = try member.tasks().count
      guard holder != nil || count < TaskTable.countMax else {
        throw SectorError.limitReached("tasks", limit: TaskTable.countMax)
      }
      try await member.setTask(record.id, record.bytes)
    } catch {
      throw FilesystemError(error, sectorSize: self.sectors.sectorSize)
    }
    return self.tasks.note(record)
  }

  /// Gives a task up. What it has done stays.
  func cancel(_ progress: TaskProgress) async throws(FilesystemError) {
    progress.stop()
    try await self.end(progress, .cancelled, "")
  }

  private func end(
    _ progress: TaskProgress, _ end: TaskProgress.State, _ problem: String
  ) async throws(FilesystemError) {
    let member = try await self.requireMember()
    do { try await member.setTask(progress.record.id, []) } catch {
      throw FilesystemError(error, sectorSize: member.sectorSize)
    }
    self.tasks.end(progress, end, problem)
  }

  /// Works on the tasks of this process's cluster while it leads it, until it is cancelled.
  package func runTasks() async {
    await withDiscardingTaskGroup { group in
      while !Task.isCancelled {
        for progress in self.dueTasks() { group.addTask { await self.run(progress) } }
        try? await Task.sleep(for: .milliseconds(500))
      }
      self.tasks.forgetOpen()
    }
  }

  private func dueTasks() -> [TaskProgress] {
    guard self.member?.isLeading ?? false else {
      self.tasks.forgetOpen()
      return []
    }
    self.noteTasks()
    return self.tasks.open.filter { $0.start() }
  }

  /// Takes note of all that is written down. What can not be read now is read the next time.
  private func noteTasks() {
    for (id, bytes) in (try? self.member?.tasks()) ?? [:] {
      if let record = try? TaskRecord(id: id, bytes: bytes) { _ = self.tasks.note(record) }
    }
  }

  private func run(_ progress: TaskProgress) async {
    do throws(FilesystemError) {
      let problem = try await self.perform(progress)
      if progress.beginsAgain() { return }
      try await self.end(progress, .finished, problem)
    } catch {
      progress.wait(error.status.message)
    }
  }

  /// - Returns: what was left undone, for people.
  private func perform(_ progress: TaskProgress) async throws(FilesystemError) -> String {
    let record = progress.record
    return switch record.kind {
    case .rekey: try await self.rekey(record, progress)
    case .drain: try await self.takeBack(record, progress)
    }
  }

  private func takeBack(_ record: TaskRecord, _ progress: TaskProgress) async throws(FilesystemError) -> String {
    let problem = try await self.drain(record.path, record.file, from: record.generation, progress)
    // What the cluster that is gone had still to seal anew, or to take from somebody, was written down there.
    _ = try await self.begin(.rekey, record.path, record.file)
    return problem
  }

  /// Requires that this process leads its cluster.
  private func requireLead() async throws(FilesystemError) {
    let member = try await self.requireMember()
    do { try await member.requireLead() } catch {
      throw FilesystemError(error, sectorSize: member.sectorSize)
    }
  }

  // MARK: For callers

  /// The tasks for what lies at or below a path: those that are to be done, oldest first, then those that were finished
  /// lately. For its owner, and for the owner of the root directory.
  package func tasks(at path: TreePath, for caller: CallerIdentity) async throws(FilesystemError) -> [TaskProgress] {
    try await self.requireLead()
    try await self.requireOwner(of: path, caller)
    self.noteTasks()
    let open = self.tasks.open.sorted { ($0.record.started, $0.record.id) < ($1.record.started, $1.record.id) }
    return Array((open + self.tasks.ended).filter { path.isSameOrAncestor(of: $0.record.path) }.prefix(1_000))
  }

  /// Takes a directory back from its cluster, in the background.
  package func beginDrain(_ path: TreePath, for caller: CallerIdentity) async throws(FilesystemError) -> TaskProgress {
    try await self.requireLead()
    let (place, file, generation) = try await self.checkDrain(path, for: caller)
    self.noteTasks()
    if let present = self.drainTask(file), present.record.generation ?? generation == generation { return present }
    return try await self.begin(.drain, place, file, from: generation)
  }

  /// Gives up what `beginDrain` has begun.
  package func cancelDrain(_ path: TreePath, for caller: CallerIdentity) async throws(FilesystemError) -> TaskProgress {
    try await self.requireLead()
    try await self.requireOwner(of: path, caller)
    let file = try await self.existing(path, for: caller, follow: false, needsMember: true).state.fileID
    self.noteTasks()
    var task = self.drainTask(file)
    // What nobody has written down any more may still be frozen.
    if task == nil, let generation = try await self.frozenGeneration(path, file) {
      task = try await self.begin(.drain, path, file, from: generation)
    }
    guard let task else { throw .notFound }
    task.stop()
    do throws(FilesystemError) { try await self.cancelDrain(path, file) } catch {
      // It can only be finished.
      task.resume()
      throw error
    }
    try await self.cancel(task)
    return task
  }

  private func drainTask(_ file: FileID) -> TaskProgress? {
    self.tasks.open.first { $0.record.kind == .drain && $0.record.file == file }
  }

  /// Requires that somebody owns a file, or the root directory.
  func requireOwner(of path: TreePath, _ caller: CallerIdentity) async throws(FilesystemError) {
    guard case .principal(let principal) = caller else { throw .permissionDenied }
    if try await self.ownsRootDirectory(principal) { return }
    let known = try await self.existing(path, for: caller, follow: true, needsMember: true).known
    guard known.record.attributes.part.rules.owner == principal else { throw .permissionDenied }
  }
}
