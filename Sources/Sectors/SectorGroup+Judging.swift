// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Inodes
internal import SectorStore
internal import Synchronization
internal import Trust

extension SectorGroup {
  /// A commit that may enter the log.
  struct Accepted {
    var commit: Commit
    /// The term that it was judged in.
    let term: UInt64
    /// The inodes whose stored blocks have to be cut to the new shape.
    var truncated: Set<FileID> = []
    /// Versions that removed inodes have.
    var removed: [FileID: Version] = [:]
    /// Those of them that are credential files.
    var removedCredentials: Set<FileID> = []
    /// The versions that it needs other inodes to have, beyond what its conditions say.
    var grounds: [FileID: Version] = [:]
    /// Generations whose directories it takes back.
    var retired: Set<Generation> = []
    /// How many more inodes there are with it.
    var inodeCountChange = 0
    /// The paths of credential files in it.
    var credentialPaths: [FileID: TreePath] = [:]
    /// What it was judged by and is not durable yet.
    let foundation: Foundation
  }

  enum Staged {
    case accepted(Accepted)
    /// It had been applied before.
    case repeated([UInt8])
    /// A commit of the same batch, with this number, completes the same operation.
    case same(as: Int, [UInt8])
    /// A commit that is in flight does.
    case inFlight(PendingChange, OperationID)
  }

  /// Judges a commit. If it is refused for what others in flight would change, and one of these comes to nothing, it is
  /// judged again. If it takes the credential of a member, that one leaves the group first.
  ///
  /// - Parameter departed: gains the processes that have left for the commit, also when it is refused.
  func judgeFirmly(
    _ commit: Commit, by committer: Committer, _ view: View, departed: inout [TreePath]
  ) async throws(SectorError) -> Staged {
    var attemptsLeft = Self.judgementsMax
    while true {
      var view = view
      view.foundation = Foundation()
      do throws(SectorError) { return try await self.judge(commit, by: committer, view) } catch {
        attemptsLeft -= 1
        if attemptsLeft > 0, case .processNeeded(let path) = error {
          departed.append(path)
          try await self.depart(path)
          continue
        }
        guard attemptsLeft > 0, await Self.isAnyRefused(view.foundation.pending) else { throw error }
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
    if commit.isForOthers, role != .filesystem { throw .permissionDenied }
    if let known = try await self.knownOperation(of: commit, by: committer, role, view) { return known }
    try self.requireOpen()
    let policy = try await self.policy(for: commit, by: committer, role, olds, view)
    try await self.checkConditions(of: commit, policy, olds, view)
    for chain in commit.chains where self.chains.key(chain.digest) == nil {
      guard self.chains.addSent(chain, at: self.date) else { throw .invalid(field: "chains") }
    }
    var accepted = Accepted(commit: commit, term: view.term, foundation: view.foundation)
    for record in commit.records {
      let old = olds[record.fileID] ?? Newest(record: nil, unfinished: [])
      try await self.judge(record, over: old, by: committer, policy, view, &accepted)
    }
    for file in commit.removals {
      guard let old = olds[file]?.record else { throw role == .filesystem ? .notFound(file) : .permissionDenied }
      try policy.authorizeRemoval(of: old)
      accepted.removed[file] = old.version
      if old.attributes.part.type == .credential { accepted.removedCredentials.insert(file) }
      accepted.inodeCountChange -= 1
    }
    let grounds = try await self.requireProcesses(after: commit, removing: accepted.removedCredentials, view)
    accepted.grounds.merge(grounds) { first, _ in first }
    try self.requireDeparture(removing: accepted.removedCredentials)
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
      if role == .filesystem, committer.directory != self.home.directory {
        try self.requireSession(session, actedForBy: committer.path)
      }
      if let number = view.operations[operation.id] { return .same(as: number, operation.result) }
      // In this order: what leaves the flight is in the store by then.
      let pending = self.state.withLock { $0.operations[operation.id] }
      // A filesystem service completes the operations of those that it acts for, in sessions that it has checked.
      let owner = role == .filesystem ? nil : SessionOwner(committer.path)
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
    if directory == self.home.directory { return .filesystem }
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
    return CommitPolicy(
      committer: committer.path, role: role, home: self.home.directory, hostDirectory: committer.hostDirectory,
      sectorSize: self.sectorSize, writable: writable, directory: committer.directory)
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
    _ record: InodeRecord, over old: Newest, by committer: Committer, _ policy: CommitPolicy, _ view: View,
    _ accepted: inout Accepted
  ) async throws(SectorError) {
    let changed = try policy.changedParts(from: old.record, to: record)
    try policy.authorize(changed, from: old.record, to: record)
    if let generation = CommitPolicy.delegation(from: old.record, to: record) {
      try self.requireAllocated(generation, for: committer.path)
      try self.requireNotRetired(generation)
      let ground = try await self.requireHost(committer.path, in: record.fileID, view)
      accepted.grounds[ground.file] = ground.version
    }
    if let generation = CommitPolicy.retirement(from: old.record, to: record) { accepted.retired.insert(generation) }
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
    // One that has expired stays what it is when it is moved here with its directory. It admits nobody: who connects is
    // judged anew.
    guard
      (try? credential.verify(with: self.verifier, at: self.date)) != nil
        || policy.isFilesystem && (try? credential.verifyAtIssue(with: self.verifier)) != nil
    else { throw .badSignature(file) }
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
      let current = try await self.newest(record.fileID, View(term: 0)).record?.version ?? .absent
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
      let range = try await self.readHealing(
        inode: file.inode.rawValue, level: UInt8(clamping: key.level), indexes: key.index..<key.index + 1,
        version: old.unfinished.isEmpty ? old.record?.version.rawValue : nil)
      return range[key.index].map(Array.init)
    } catch {
      switch error {
      case .versionGone, .unknownInode:
        throw .conflict(file, current: try await self.storedRecord(file)?.version ?? .absent)
      default: throw SectorError(error, generation: self.generation)
      }
    }
  }
}
