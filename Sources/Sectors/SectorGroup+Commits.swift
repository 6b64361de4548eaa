// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Inodes
internal import SectorStore
internal import Synchronization
package import Trust

extension SectorGroup {
  /// Performs commits, each as a whole or not at all, in this order where they touch the same inodes. One that
  /// builds on a version that an earlier one was to make and did not, is refused as well. All are accepted with one signature.
  ///
  /// - Parameter committer: the credential of who signed what is new, as the connection proved it.
  /// - Returns: for each commit what came of it, once that is durable.
  package func perform(
    _ commits: [Commit], by committer: Credential
  ) async -> [Result<CommitOutcome, SectorError>] {
    let committer = Committer(
      credential: committer, chainDigest: committer.chainDigest,
      directory: self.filesystemDirectory(of: committer))
    self.chains.add(committer.credential, digest: committer.chainDigest)
    var view = View()
    var staged: [Result<Staged, SectorError>] = []
    staged.reserveCapacity(commits.count)
    // The versions that refused commits were to make. Later ones above these were built on them, not on what somebody
    // else may have put there at that very version.
    var refused: [FileID: Version] = [:]
    for (number, commit) in commits.enumerated() {
      do throws(SectorError) {
        let judged = try await self.judgeFirmly(commit, by: committer, view)
        if case .accepted(let accepted) = judged {
          guard !commit.isBuilt(on: refused) else { throw Self.overtaken(commit) }
          view.add(accepted, number: number)
        }
        staged.append(.success(judged))
      } catch {
        // Its blocks do not fit what somebody else has put there.
        if case .integrity = error, commit.isBuilt(on: refused) {
          staged.append(.failure(Self.overtaken(commit)))
        } else {
          staged.append(.failure(error))
        }
        for record in commit.records {
          refused[record.fileID] = min(refused[record.fileID] ?? record.version, record.version)
        }
      }
    }
    return await self.finish(self.enter(staged, of: commits, by: committer))
  }

  /// Performs one commit.
  package func perform(_ commit: Commit, by committer: Credential) async throws(SectorError) -> CommitOutcome {
    guard let result = await self.perform([commit], by: committer).first else {
      throw .internalFault("no outcome")
    }
    return try result.get()
  }

  // MARK: What is known

  /// Who commits.
  struct Committer {
    let credential: Credential
    let chainDigest: Digest32
    /// The directory at or below which it is a filesystem service.
    let directory: FileID?

    var path: TreePath { self.credential.path }
  }

  /// What commits add to what is stored and in flight: those before in the same batch, and the new inodes of the one
  /// that is being judged.
  struct View {
    fileprivate(set) var batch = InFlight()
    /// By operation, the commit of the batch that completes it.
    fileprivate(set) var operations: [OperationID: Int] = [:]
    fileprivate(set) var created: [FileID: InodeRecord] = [:]
    /// Notes what is looked at and not durable yet.
    fileprivate var foundation = Foundation()

    fileprivate mutating func add(_ accepted: Accepted, number: Int) {
      for record in accepted.commit.records {
        let nodes = accepted.commit.blocks[record.fileID]?.nodes ?? [:]
        self.batch.add(
          .init(commit: UInt64(number), record: record, nodes: nodes, pending: nil), to: record.fileID.inode)
      }
      for file in accepted.commit.removals {
        self.batch.add(.init(commit: UInt64(number), record: nil, nodes: [:], pending: nil), to: file.inode)
      }
      for operation in accepted.commit.operations { self.operations[operation.id] = number }
    }
  }

  /// The commits that the judgement of another one rests on. It has to fail when one of them does, even where a third
  /// one has left an inode at the very version that was expected: versions that are not durable yet may be given out
  /// again.
  final class Foundation {
    private(set) var inFlight: [ObjectIdentifier: PendingChange] = [:]
    /// Those of the same batch, by their number in it.
    private(set) var inBatch: Set<Int> = []

    func add(_ entries: [InFlight.Entry]) {
      for entry in entries {
        if let pending = entry.pending {
          self.inFlight[ObjectIdentifier(pending)] = pending
        } else {
          self.inBatch.insert(Int(entry.commit))
        }
      }
    }
  }

  /// An inode as the next commit finds it.
  struct Newest {
    let record: InodeRecord?
    /// What of it is not durable yet, in the order of the log.
    let unfinished: [InFlight.Entry]
  }

  /// The newest state of an inode, commits in flight included.
  func newest(_ file: FileID, _ view: View) async throws(SectorError) -> Newest {
    let unfinished = self.state.withLock { $0.inFlight[file.inode] } + view.batch[file.inode]
    if let last = unfinished.last {
      view.foundation.add(unfinished)
      return Newest(record: last.record, unfinished: unfinished)
    }
    return Newest(record: try await self.record(file) ?? view.created[file], unfinished: [])
  }

  // MARK: Judging

  /// A commit that may enter the log.
  fileprivate struct Accepted {
    var commit: Commit
    /// The inodes whose stored blocks have to be cut to the new shape.
    var truncated: Set<FileID> = []
    /// Versions that removed inodes have.
    var removed: [FileID: Version] = [:]
    /// Those of them that are credential files.
    var removedCredentials: Set<FileID> = []
    /// How many more inodes there are with it.
    var inodeCountChange = 0
    /// The paths of credential files in it.
    var credentialPaths: [FileID: TreePath] = [:]
    /// What it was judged by and is not durable yet.
    let foundation: Foundation
  }

  fileprivate enum Staged {
    case accepted(Accepted)
    /// It had been applied before.
    case repeated([UInt8])
    /// A commit of the same batch, with this number, completes the same operation.
    case same(as: Int, [UInt8])
    /// A commit that is in flight does.
    case inFlight(PendingChange, OperationID)
  }

  /// Judges a commit. If it is refused for what others in flight would change, and one of these comes to nothing, it is
  /// judged again.
  private func judgeFirmly(
    _ commit: Commit, by committer: Committer, _ view: View
  ) async throws(SectorError) -> Staged {
    var attemptsLeft = Self.judgementsMax
    while true {
      var view = view
      view.foundation = Foundation()
      do throws(SectorError) { return try await self.judge(commit, by: committer, view) } catch {
        attemptsLeft -= 1
        guard attemptsLeft > 0, await Self.isAnyRefused(view.foundation.inFlight.values) else { throw error }
      }
    }
  }

  private static let judgementsMax = 8

  /// Waits for changes to end, and answers whether one of them was refused.
  private static func isAnyRefused(_ changes: some Collection<PendingChange>) async -> Bool {
    var isAnyRefused = false
    for change in changes {
      do throws(StoreError) { _ = try await change.durable() } catch { isAnyRefused = true }
    }
    return isAnyRefused
  }

  private func judge(_ commit: Commit, by committer: Committer, _ view: View) async throws(SectorError) -> Staged {
    try Self.checkLimits(commit)
    var view = view
    // What there is now of the inodes concerned.
    var olds: [FileID: Newest] = [:]
    for record in commit.records {
      try self.require(record.fileID)
      let old = try await self.newest(record.fileID, view)
      olds[record.fileID] = old
      if old.record == nil { view.created[record.fileID] = record }
    }
    for file in commit.removals {
      try self.require(file)
      olds[file] = try await self.newest(file, view)
    }
    let role = try await self.role(of: committer, over: commit, olds, view)
    if let known = try await self.knownOperation(of: commit, by: committer, role, view) { return known }
    let policy = try await self.policy(for: commit, by: committer, role, olds, view)
    try await self.checkConditions(of: commit, policy, olds, view)
    for chain in commit.chains where self.chains.key(chain.digest) == nil {
      guard self.chains.addSent(chain, at: self.date) else { throw .invalid(field: "chains") }
    }
    var accepted = Accepted(commit: commit, foundation: view.foundation)
    for record in commit.records {
      let old = olds[record.fileID] ?? Newest(record: nil, unfinished: [])
      try await self.judge(record, over: old, by: committer, policy, &accepted)
    }
    for file in commit.removals {
      guard let old = olds[file]?.record else { throw role == .filesystem ? .notFound(file) : .permissionDenied }
      try policy.authorizeRemoval(of: old)
      accepted.removed[file] = old.version
      if old.attributes.part.type == .credential { accepted.removedCredentials.insert(file) }
      accepted.inodeCountChange -= 1
    }
    return .accepted(accepted)
  }

  private static func checkLimits(_ commit: Commit) throws(SectorError) {
    let limits: [(String, Int, Int)] = [
      ("records", commit.records.count, SectorLimits.commitRecordsMax),
      ("conditions", commit.conditions.count, SectorLimits.commitRecordsMax),
      ("removals", commit.removals.count, SectorLimits.commitRecordsMax),
      ("chains", commit.chains.count, SectorLimits.chainsMax),
      ("blocks", commit.byteCount, SectorLimits.commitByteCountMax),
    ]
    for (what, found, limit) in limits where found > limit { throw .tooLarge(what, limit: limit, found: found) }
    guard !commit.records.isEmpty || !commit.removals.isEmpty else { throw .invalid(field: "records") }
    var changed: Set<FileID> = []
    for record in commit.records where !changed.insert(record.fileID).inserted { throw .invalid(field: "records") }
    guard commit.blocks.keys.allSatisfy(changed.contains) else { throw .invalid(field: "blocks") }
    for file in commit.removals where !changed.insert(file).inserted { throw .invalid(field: "removals") }
  }

  /// What is known of the operations that a commit completes; nil when they are new.
  private func knownOperation(
    of commit: Commit, by committer: Committer, _ role: CommitPolicy.Role, _ view: View
  ) async throws(SectorError) -> Staged? {
    for operation in commit.operations {
      guard let session = SessionID(operation.id.session) else { throw .sessionUnknown }
      if let number = view.operations[operation.id] { return .same(as: number, operation.result) }
      // In this order: what leaves the flight is in the store by then.
      let pending = self.state.withLock { $0.operations[operation.id] }
      // A filesystem service completes the operations of those that it acts for, in sessions that it has checked.
      let owner = role == .filesystem ? nil : committer.path
      if let result = try await self.result(of: operation.id, in: session, ownedBy: owner) { return .repeated(result) }
      if let pending { return .inFlight(pending, operation.id) }
    }
    return nil
  }

  /// Whether the committer is a filesystem service at or above everything that it commits.
  private func role(
    of committer: Committer, over commit: Commit, _ olds: [FileID: Newest], _ view: View
  ) async throws(SectorError) -> CommitPolicy.Role {
    guard let directory = committer.directory else { return .principal }
    if directory == .rootDirectory { return .filesystem }
    for record in commit.records {
      let places: [FileID]
      if let old = olds[record.fileID]?.record {
        // Where it is, and each directory that gains or loses it.
        guard try await self.isWhollyBelow(directory, old, view) else { return .principal }
        places = CommitPolicy.difference(old.links.part, record.links.part)
      } else {
        places = CommitPolicy.directories(of: record)
        if places.isEmpty { return .principal }
      }
      for place in places where !(try await self.isAtOrAbove(directory, [place], view)) { return .principal }
    }
    for file in commit.removals {
      guard let old = olds[file]?.record else { continue }
      guard try await self.isWhollyBelow(directory, old, view) else { return .principal }
    }
    return .filesystem
  }

  /// Whether an inode is a directory itself, or has all of its names at or below it. One name there is not enough:
  /// whoever can make one would have power over inodes of others.
  private func isWhollyBelow(
    _ directory: FileID, _ record: InodeRecord, _ view: View
  ) async throws(SectorError) -> Bool {
    if record.fileID == directory { return true }
    let places = CommitPolicy.directories(of: record)
    if places.isEmpty { return false }
    for place in places where !(try await self.isAtOrAbove(directory, [place], view)) { return false }
    return true
  }

  /// The policy, with the permissions of the directories that it asks about, read beforehand since it is a value.
  private func policy(
    for commit: Commit, by committer: Committer, _ role: CommitPolicy.Role, _ olds: [FileID: Newest], _ view: View
  ) async throws(SectorError) -> CommitPolicy {
    var writable: [FileID: CommitPolicy.WritableDirectory] = [:]
    if role == .principal {
      var directories: Set<FileID> = []
      for record in commit.records { directories.formUnion(CommitPolicy.directories(of: record)) }
      for old in olds.values { directories.formUnion(old.record.map(CommitPolicy.directories) ?? []) }
      for directory in directories where directory.generation == self.generation {
        // A directory of this very commit counts as it was before.
        guard let rules = try await self.newest(directory, view).record?.attributes.part.rules else { continue }
        let caller = CallerIdentity.principal(committer.path)
        if rules.permits([.write, .execute], caller: caller, memberOf: { _ in false }) {
          writable[directory] = .init(owner: rules.owner, isSticky: rules.mode.isSticky)
        }
      }
    }
    return CommitPolicy(committer: committer.path, role: role, sectorSize: self.sectorSize, writable: writable)
  }

  private func checkConditions(
    of commit: Commit, _ policy: CommitPolicy, _ olds: [FileID: Newest], _ view: View
  ) async throws(SectorError) {
    var before = view
    // Inodes that the commit itself creates are not there yet.
    before.created = [:]
    func check(_ file: FileID, _ version: Version, _ record: InodeRecord?) throws(SectorError) {
      let current = record?.version ?? .absent
      if current == version { return }
      // What somebody may not know of is not told by a condition either.
      guard policy.isFilesystem || record.map(policy.maySee) == true else { throw .permissionDenied }
      throw .conflict(file, current: current)
    }
    for condition in commit.conditions {
      try self.require(condition.fileID)
      let record = try await self.newest(condition.fileID, before).record
      if let record, !policy.maySee(record) { throw .permissionDenied }
      try check(condition.fileID, condition.version, record)
      if let digest = condition.acceptanceDigest, record?.acceptanceDigest != digest {
        throw .conflict(condition.fileID, current: record?.version ?? .absent)
      }
    }
    for record in commit.records {
      try check(record.fileID, Version(record.version.rawValue &- 1), olds[record.fileID]?.record)
    }
  }

  private func judge(
    _ record: InodeRecord, over old: Newest, by committer: Committer, _ policy: CommitPolicy,
    _ accepted: inout Accepted
  ) async throws(SectorError) {
    let changed = try policy.changedParts(from: old.record, to: record)
    try policy.authorize(changed, from: old.record, to: record)
    try self.verifySignatures(changed, of: record, by: committer)
    if changed.content {
      try await self.checkBlocks(accepted.commit.blocks[record.fileID], of: record, over: old)
      if let content = old.record?.content.part, Self.isCut(content, record.content.part) {
        accepted.truncated.insert(record.fileID)
      }
    } else if accepted.commit.blocks[record.fileID] != nil {
      throw .invalid(field: "blocks")
    }
    if old.record == nil {
      guard record.fileID.inode.rawValue < self.state.withLock({ $0.nextInode }) else {
        throw .invalidRecord(record.fileID, .malformed("file_id"))
      }
      accepted.inodeCountChange += 1
    }
    if record.attributes.part.type == .credential {
      accepted.credentialPaths[record.fileID] = try self.checkCredential(record, over: old.record, policy)
    }
  }

  /// Whether blocks that are stored for one content do not belong to the next.
  private static func isCut(_ old: ContentPart, _ new: ContentPart) -> Bool {
    old.sectorCount > new.sectorCount || old.treeLevels > new.treeLevels
  }

  private func verifySignatures(
    _ changed: CommitPolicy.ChangedParts, of record: InodeRecord, by committer: Committer
  ) throws(SectorError) {
    func check<Part>(_ part: Signed<Part>) throws(SectorError) {
      // What is new is signed by whoever commits it.
      guard part.signer == committer.chainDigest,
        part.signature.verify(
          digest: part.digest, purpose: Part.purpose, key: committer.credential.verifyingKey, cache: self.signatures)
      else { throw .badSignature(record.fileID) }
    }
    if changed.content { try check(record.content) }
    if changed.attributes { try check(record.attributes) }
    if changed.links { try check(record.links) }
  }

  /// Checks a credential file, and answers its path.
  private func checkCredential(
    _ record: InodeRecord, over old: InodeRecord?, _ policy: CommitPolicy
  ) throws(SectorError) -> TreePath {
    let file = record.fileID
    guard let credential = try? CredentialFile(bytes: record.credential) else {
      throw .invalidRecord(file, .malformed("credential"))
    }
    let path = credential.marks.place.path
    if let old, old.credential == record.credential { return path }
    guard (try? credential.verify(with: self.verifier, at: self.date)) != nil else { throw .badSignature(file) }
    if let present = self.credentials.entry(path), present.fileID != file {
      throw .invalidRecord(file, .contradiction("credential"))
    }
    try policy.checkCredential(file, from: old.flatMap { try? CredentialFile(bytes: $0.credential) }, to: credential)
    return path
  }

  private func checkBlocks(
    _ blocks: Commit.Blocks?, of record: InodeRecord, over old: Newest
  ) async throws(SectorError) {
    let blocks = blocks ?? Commit.Blocks()
    let new = record.content.part
    var sectors: [UInt64: Digest32] = [:]
    for run in blocks.runs {
      guard run.bytes.count == run.digests.count * self.sectorSize,
        run.start <= TreeShape.fileByteCountMax / UInt64(self.sectorSize)
      else { throw .invalid(field: "blocks") }
      for (offset, digest) in run.digests.enumerated() {
        guard sectors.updateValue(digest, forKey: run.start + UInt64(offset)) == nil else {
          throw .invalid(field: "blocks")
        }
      }
    }
    // Nodes that take the place of stored ones, and all above those, are read beforehand.
    var stored: [NodeKey: [UInt8]] = [:]
    if let content = old.record?.content.part, content.treeLevels > 0 {
      for key in CommitCheck.storedNodesNeeded(from: content, to: new, nodes: blocks.nodes.keys) {
        stored[key] = try await self.node(key, of: old, record.fileID)
      }
    }
    do {
      try CommitCheck.check(
        from: old.record?.content.part, to: new, sectors: sectors, nodes: blocks.nodes, storedNode: { stored[$0] })
    } catch {
      guard let error = error as? IntegrityError else { throw .internalFault("\(error)") }
      // Was what it was judged by still there?
      let current = try await self.newest(record.fileID, View()).record?.version ?? .absent
      let isJudgedByBatch = old.unfinished.last.map { $0.pending == nil } ?? false
      if !isJudgedByBatch, current != old.record?.version ?? .absent {
        throw .conflict(record.fileID, current: current)
      }
      throw .integrity(record.fileID, error)
    }
  }

  /// A tree node as the newest commit in flight leaves it.
  private func node(_ key: NodeKey, of old: Newest, _ file: FileID) async throws(SectorError) -> [UInt8]? {
    for entry in old.unfinished.reversed() {
      if let bytes = entry.nodes[key] { return bytes }
    }
    do {
      // Commits in flight may have become durable meanwhile: the newest stored node is the one that they left.
      let range = try await self.store.read(
        inode: file.inode.rawValue, level: UInt8(clamping: key.level), indexes: key.index..<key.index + 1,
        version: old.unfinished.isEmpty ? old.record?.version.rawValue : nil)
      return range[key.index].map(Array.init)
    } catch {
      switch error {
      case .versionGone, .unknownInode:
        throw .conflict(file, current: try await self.record(file)?.version ?? .absent)
      default: throw SectorError(error, generation: self.generation)
      }
    }
  }

  // MARK: Into the log

  private struct Waiting {
    let number: UInt64
    let commit: Commit
    let change: Entering
    let pending: PendingChange
  }

  /// What of a change is needed when its end is known.
  private struct Entering {
    var chains: [Digest32] = []
    var inodeCountChange = 0
    var credentialPaths: [FileID: TreePath] = [:]
    var removedCredentials: Set<FileID> = []
    /// The bytes of the records, in their order.
    var recordBytes: [[UInt8]] = []
  }

  private enum Entered {
    case waiting(Waiting)
    case repeated([UInt8])
    case same(as: Int, [UInt8])
    case inFlight(PendingChange, OperationID)
    case failed(SectorError)
    /// What it was judged by came to nothing, or was overtaken.
    case overtaken(Commit, SectorError)
  }

  /// Accepts what was judged, with one signature for all, and puts it into the log.
  private func enter(
    _ staged: [Result<Staged, SectorError>], of commits: [Commit], by committer: Committer
  ) -> [Entered] {
    var digests: [Digest32] = []
    for case .success(.accepted(let accepted)) in staged { digests += accepted.commit.records.map(\.acceptanceDigest) }
    var acceptances: [Acceptance] = []
    do throws(SectorError) {
      let time = self.now()
      acceptances = try self.sign(digests, purpose: .acceptance).map {
        Acceptance(signature: $0, signer: self.memberChainDigest, accepted: time)
      }
    } catch {
      return staged.map { _ in .failed(error) }
    }
    var next = 0
    var entered: [Entered] = []
    entered.reserveCapacity(staged.count)
    for (commit, result) in zip(commits, staged) {
      switch result {
      case .failure(let error):
        if case .conflict = error { entered.append(.overtaken(commit, error)) } else { entered.append(.failed(error)) }
      case .success(.repeated(let answer)): entered.append(.repeated(answer))
      case .success(.same(let number, let answer)): entered.append(.same(as: number, answer))
      case .success(.inFlight(let pending, let operation)): entered.append(.inFlight(pending, operation))
      case .success(.accepted(var accepted)):
        for index in accepted.commit.records.indices {
          accepted.commit.records[index].acceptance = acceptances[next]
          next += 1
        }
        entered.append(self.enter(accepted, after: entered, by: committer))
      }
    }
    return entered
  }

  /// - Parameter others: what came of those before it in the batch.
  private func enter(_ accepted: Accepted, after others: [Entered], by committer: Committer) -> Entered {
    var predecessors = Array(accepted.foundation.inFlight.values)
    for number in accepted.foundation.inBatch {
      guard case .waiting(let other) = others[number] else {
        return .overtaken(accepted.commit, Self.overtaken(accepted.commit))
      }
      predecessors.append(other.pending)
    }
    do throws(SectorError) { return try self.enter(accepted, predecessors, by: committer) } catch {
      if case .conflict = error { return .overtaken(accepted.commit, error) }
      return .failed(error)
    }
  }

  /// What a commit that was overtaken is answered with, before it is known which version there is now.
  private static func overtaken(_ commit: Commit) -> SectorError {
    if let record = commit.records.first {
      .conflict(record.fileID, current: Version(record.version.rawValue &- 1))
    } else {
      commit.removals.first.map { .conflict($0, current: .absent) } ?? .busy
    }
  }

  private func enter(
    _ accepted: Accepted, _ predecessors: [PendingChange], by committer: Committer
  ) throws(SectorError) -> Entered {
    let commit = accepted.commit
    var (change, entering) = try self.change(for: accepted, by: committer)
    change.predecessors = predecessors
    // Under one lock, so that the order in which later commits see this one is the order in the log.
    let result = self.state.withLock { state -> Result<(UInt64, PendingChange)?, SectorError> in
      // The same operation, judged at the same time: one of the two is enough.
      if commit.operations.contains(where: { state.operations[$0.id] != nil }) { return .success(nil) }
      // Others have entered since it was judged: it would fail, and take with it what is built on it.
      for file in commit.records.map(\.fileID) + commit.removals {
        guard let newest = state.inFlight[file.inode].last?.pending else { continue }
        guard predecessors.contains(where: { $0 === newest }) else { return .failure(Self.overtaken(commit)) }
      }
      for (file, path) in accepted.credentialPaths {
        if let other = state.credentialPaths[path], other != file {
          return .failure(.invalidRecord(file, .contradiction("credential")))
        }
      }
      if accepted.inodeCountChange != 0 {
        let count = UInt64(clamping: Int64(clamping: state.inodeCount) + Int64(accepted.inodeCountChange))
        change.facts.append(Self.fact(Self.inodeCountFact, count))
      }
      let pending: PendingChange
      do throws(StoreError) { pending = try self.store.enqueue(change) } catch {
        if error == .invalidChange(.entryTooLong) { return .failure(self.recordsTooLarge(commit)) }
        return .failure(SectorError(error, generation: self.generation))
      }
      state.lastCommit += 1
      state.inodeCount = UInt64(clamping: Int64(clamping: state.inodeCount) + Int64(accepted.inodeCountChange))
      for (file, path) in accepted.credentialPaths { state.credentialPaths[path] = file }
      for operation in commit.operations { state.operations[operation.id] = pending }
      for record in commit.records {
        let nodes = commit.blocks[record.fileID]?.nodes ?? [:]
        state.inFlight.add(
          .init(commit: state.lastCommit, record: record, nodes: nodes, pending: pending), to: record.fileID.inode)
      }
      for file in commit.removals {
        state.inFlight.add(
          .init(commit: state.lastCommit, record: nil, nodes: [:], pending: pending), to: file.inode)
      }
      return .success((state.lastCommit, pending))
    }
    guard let (number, pending) = try result.get() else {
      for operation in commit.operations {
        if let pending = self.state.withLock({ $0.operations[operation.id] }) {
          return .inFlight(pending, operation.id)
        }
      }
      // It has ended since: what came of it is in the store.
      return .overtaken(commit, Self.overtaken(commit))
    }
    entering.inodeCountChange = accepted.inodeCountChange
    entering.credentialPaths = accepted.credentialPaths
    entering.removedCredentials = accepted.removedCredentials
    // The sectors are on their way: only what the end of the commit needs is kept.
    var rest = commit
    rest.blocks = [:]
    return .waiting(Waiting(number: number, commit: rest, change: entering, pending: pending))
  }

  /// Many records that are each within their limits may still be more than one entry of the log takes.
  private func recordsTooLarge(_ commit: Commit) -> SectorError {
    let found = commit.records.reduce(0) { $0 + ((try? $1.serialized().count) ?? 0) }
    return .tooLarge("record bytes", limit: self.store.configuration.segmentBytes / 4, found: found)
  }

  private func change(
    for accepted: Accepted, by committer: Committer
  ) throws(SectorError) -> (Change, Entering) {
    let commit = accepted.commit
    var change = Change()
    var entering = Entering()
    var conditioned: Set<FileID> = []
    func require(_ file: FileID, _ version: UInt64) {
      guard conditioned.insert(file).inserted else { return }
      change.conditions.append(.init(inode: file.inode.rawValue, version: version == 0 ? nil : version))
    }
    for condition in commit.conditions { require(condition.fileID, condition.version.rawValue) }
    for record in commit.records {
      require(record.fileID, record.version.rawValue - 1)
      let bytes: [UInt8]
      do { bytes = try record.serialized() } catch { throw .invalidRecord(record.fileID, error) }
      entering.recordBytes.append(bytes)
      change.records.append(.put(self.stored(record, bytes)))
      if accepted.truncated.contains(record.fileID) {
        change.truncations.append(Self.truncation(to: record.content.part))
      }
      if let blocks = commit.blocks[record.fileID] { self.append(blocks, of: record.fileID, to: &change) }
    }
    for file in commit.removals {
      if let version = accepted.removed[file] { require(file, version.rawValue) }
      change.records.append(.remove(inode: file.inode.rawValue))
    }
    for operation in commit.operations {
      guard let session = SessionID(operation.id.session) else { throw .sessionUnknown }
      change.operations.append(.init(session: session, sequence: operation.id.sequence, result: operation.result))
    }
    let known = [
      (committer.chainDigest, committer.credential.chain), (self.memberChainDigest, self.member.credential.chain),
    ]
    for (digest, chain) in known + commit.chains.map({ ($0.digest, $0) }) where !self.chains.isStored(digest) {
      guard !entering.chains.contains(digest), let key = Digest(digest.bytes) else { continue }
      change.certificates.append(.init(digest: key, bytes: chain.bytes))
      entering.chains.append(digest)
    }
    return (change, entering)
  }

  private func stored(_ record: InodeRecord, _ bytes: [UInt8]) -> StoredRecord {
    var flags: RecordFlags = []
    if record.attributes.part.type == .credential { flags.insert(.credential) }
    if record.links.part.pending != nil { flags.insert(.pending) }
    let parents = CommitPolicy.directories(of: record).filter { $0.generation == self.generation }
    return StoredRecord(
      inode: record.fileID.inode.rawValue, version: record.version.rawValue, bytes: bytes,
      parents: parents.map(\.inode.rawValue), flags: flags)
  }

  private static func truncation(to content: ContentPart) -> Change.Truncation {
    let sectorCount = content.sectorCount
    var kept = [sectorCount]
    if content.treeLevels > 0 {
      for level in 1...content.treeLevels { kept.append(TreeShape.nodeCount(level: level, sectorCount: sectorCount)) }
    }
    return .init(inode: content.fileID.inode.rawValue, keptCounts: kept)
  }

  private func append(_ blocks: Commit.Blocks, of file: FileID, to change: inout Change) {
    let inode = file.inode.rawValue
    for run in blocks.runs {
      change.blocks.append(
        BlockWrite(inode: inode, level: 0, index: run.start, bytes: run.bytes, blockSize: self.sectorSize))
    }
    for (key, bytes) in blocks.nodes.sorted(by: { $0.key < $1.key }) {
      change.blocks.append(
        BlockWrite(
          inode: inode, level: UInt8(key.level), index: key.index, bytes: bytes, blockSize: TreeShape.nodeByteCount))
    }
  }

  // MARK: Out of the log

  /// Waits until what entered the log is durable.
  private func finish(_ entered: [Entered]) async -> [Result<CommitOutcome, SectorError>] {
    var outcomes: [Result<CommitOutcome, SectorError>] = []
    outcomes.reserveCapacity(entered.count)
    for item in entered {
      switch item {
      case .failed(let error): outcomes.append(.failure(await self.settle(error)))
      case .overtaken(let commit, let error):
        let answer = await self.answerInStore(to: commit)
        if let answer { outcomes.append(answer) } else { outcomes.append(.failure(await self.settle(error))) }
      case .repeated(let answer): outcomes.append(.success(.repeated(answer)))
      case .same(let number, let answer):
        // It stands earlier in the batch.
        outcomes.append(outcomes[number].map { _ in .repeated(answer) })
      case .inFlight(let pending, let operation): outcomes.append(await self.await(pending, operation))
      case .waiting(let waiting): outcomes.append(await self.finish(waiting))
      }
    }
    return outcomes
  }

  private func finish(_ waiting: Waiting) async -> Result<CommitOutcome, SectorError> {
    let records = waiting.commit.records
    let durable: Result<LogIndex, StoreError>
    do throws(StoreError) { durable = .success(try await waiting.pending.durable()) } catch {
      durable = .failure(error)
    }
    if case .success(let index) = durable {
      // Before it leaves the flight, so that nobody sees a gap.
      for record in records { self.credentials.note(record, at: index) }
      for file in waiting.change.removedCredentials { self.credentials.noteRemoval(of: file, at: index) }
      self.chains.noteStored(waiting.change.chains)
    }
    self.state.withLock { self.leave(waiting, durable, &$0) }
    switch durable {
    case .success(let index):
      var digests: [UInt8] = []
      for record in records { digests += record.acceptanceDigest.bytes }
      return .success(
        .applied(
          CommitReceipt(
            records: records, logIndex: index.rawValue, members: [self.member.credential.path],
            acceptancesDigest: Digest32(sha256: digests))))
    case .failure(let error):
      // Somebody with the same operation may have been faster.
      if Self.mayBeRepetition(error), let answer = await self.answerInStore(to: waiting.commit) { return answer }
      if case .predecessorRefused = error { return .failure(await self.settle(Self.overtaken(waiting.commit))) }
      return .failure(await self.settle(SectorError(error, generation: self.generation)))
    }
  }

  /// The commit is not in flight any more.
  private func leave(_ waiting: Waiting, _ durable: Result<LogIndex, StoreError>, _ state: inout State) {
    let commit = waiting.commit
    let inodes = commit.records.map(\.fileID.inode) + commit.removals.map(\.inode)
    for operation in commit.operations where state.operations[operation.id] === waiting.pending {
      state.operations[operation.id] = nil
    }
    for (file, path) in waiting.change.credentialPaths where state.credentialPaths[path] == file {
      state.credentialPaths[path] = nil
    }
    if case .success = durable {
      state.inFlight.succeed(waiting.number, inodes)
      for (record, bytes) in zip(commit.records, waiting.change.recordBytes) {
        state.records.insert(record, bytes: bytes)
      }
      for file in commit.removals { state.records.remove(file.inode) }
    } else {
      state.inFlight.fail(waiting.number, inodes)
      state.inodeCount = UInt64(clamping: Int64(clamping: state.inodeCount) - Int64(waiting.change.inodeCountChange))
    }
  }

  /// Whether the store refuses like this what another commit has done already.
  private static func mayBeRepetition(_ error: StoreError) -> Bool {
    switch error {
    case .conditionFailed, .predecessorRefused, .alreadyApplied, .invalidChange: true
    default: false
    }
  }

  /// What the operations of a commit were answered with, if they have been applied; nil when not.
  private func answerInStore(to commit: Commit) async -> Result<CommitOutcome, SectorError>? {
    for operation in commit.operations {
      guard let session = SessionID(operation.id.session) else { continue }
      do throws(SectorError) {
        if let result = try await self.result(of: operation.id, in: session, ownedBy: nil) {
          return .success(.repeated(result))
        }
      } catch {
        return .failure(error)
      }
    }
    return nil
  }

  /// Waits for a commit in flight that completes the same operation: what came of it came of this one too.
  private func `await`(
    _ pending: PendingChange, _ operation: OperationID
  ) async -> Result<CommitOutcome, SectorError> {
    guard let session = SessionID(operation.session) else { return .failure(.sessionUnknown) }
    let refusal: StoreError?
    do throws(StoreError) {
      _ = try await pending.durable()
      refusal = nil
    } catch {
      refusal = error
    }
    do throws(SectorError) {
      if let refusal, !Self.mayBeRepetition(refusal) { throw SectorError(refusal, generation: self.generation) }
      if let result = try await self.result(of: operation, in: session, ownedBy: nil) {
        return .success(.repeated(result))
      }
    } catch {
      return .failure(error)
    }
    guard let refusal else { return .failure(.operationTooOld) }
    if case .predecessorRefused = refusal { return .failure(.busy) }
    return .failure(await self.settle(SectorError(refusal, generation: self.generation)))
  }

  /// Whoever hears of a conflict will read again: what it conflicts with is made durable first, so that it is found.
  private func settle(_ error: SectorError) async -> SectorError {
    guard case .conflict(let file, let current) = error else { return error }
    if let pending = self.state.withLock({ $0.inFlight[file.inode].last?.pending }) {
      _ = try? await pending.durable()
    }
    guard let record = try? await self.record(file) else { return .conflict(file, current: current) }
    return .conflict(file, current: record.version)
  }
}
