// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Replication
internal import SectorStore
internal import Synchronization
internal import Trust

extension SectorGroup {
  struct Waiting {
    /// The term that it was entered in.
    let term: UInt64
    let number: UInt64
    let commit: Commit
    let change: Entering
    let pending: PendingChange
  }

  /// What of a change is needed when its end is known.
  struct Entering {
    var chains: [Digest32] = []
    var inodeCountChange = 0
    var credentialPaths: [FileID: TreePath] = [:]
    var removedCredentials: Set<FileID> = []
    /// The bytes of the records, in their order.
    var recordBytes: [[UInt8]] = []
  }

  enum Entered {
    case waiting(Waiting)
    case repeated([UInt8])
    case same(as: Int, [UInt8])
    case inFlight(PendingChange, OperationID)
    case failed(SectorError)
    /// What it was judged by came to nothing, or was overtaken.
    case overtaken(Commit, SectorError)
  }

  /// Accepts what was judged, with one signature for all, and puts it into the log.
  func enter(
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
    for entry in accepted.foundation.entries.values where entry.pending == nil {
      guard case .waiting = others[Int(entry.commit)] else {
        return .overtaken(accepted.commit, Self.overtaken(accepted.commit))
      }
    }
    do throws(SectorError) { return try self.enter(accepted, others, by: committer) } catch {
      if case .conflict = error { return .overtaken(accepted.commit, error) }
      return .failed(error)
    }
  }

  /// What a commit that was overtaken is answered with, before it is known which version there is now.
  static func overtaken(_ commit: Commit) -> SectorError {
    if let record = commit.records.first {
      .conflict(record.fileID, current: Version(record.version.rawValue &- 1))
    } else {
      commit.removals.first.map { .conflict($0, current: .absent) } ?? .busy
    }
  }

  private func enter(
    _ accepted: Accepted, _ others: [Entered], by committer: Committer
  ) throws(SectorError) -> Entered {
    let commit = accepted.commit
    var (change, entering) = try self.change(for: accepted, by: committer)
    let digests = entering.recordBytes.map { Digest(Digest32(sha256: $0).bytes) }
    // Under one lock, so that the order in which later commits see this one is the order in the log.
    let result = self.state.withLock { state -> Result<(UInt64, PendingChange)?, SectorError> in
      // Judged as the leader of an earlier term.
      guard state.term == accepted.term else { return .failure(.leadershipLost) }
      // The same operation, judged at the same time: one of the two is enough.
      if commit.operations.contains(where: { state.operations[$0.id] != nil }) { return .success(nil) }
      // Where others have entered since it was judged, it would fail, and take with it what is built on it.
      for file in commit.records.map(\.fileID) + commit.removals
      where accepted.foundation.entries[file.inode] == nil && !state.inFlight[file.inode].isEmpty {
        return .failure(Self.overtaken(commit))
      }
      for (inode, entry) in accepted.foundation.entries {
        guard let basis = Self.basis(entry, of: inode, others, state), change.require(basis) else {
          return .failure(Self.overtaken(commit))
        }
      }
      for (file, path) in accepted.credentialPaths {
        if let other = state.credentialPaths[path], other != file {
          return .failure(.invalidRecord(file, .contradiction("credential")))
        }
      }
      guard state.freeze.state == .open else { return .failure(.frozen(self.generation)) }
      state.retired.formUnion(accepted.retired)
      if accepted.inodeCountChange != 0 {
        let count = UInt64(clamping: Int64(clamping: state.inodeCount) + Int64(accepted.inodeCountChange))
        change.facts.append(Self.fact(Self.inodeCountFact, count))
      }
      let pending: PendingChange
      do throws(StoreError) { pending = try self.replica.propose(change) } catch {
        if error == .invalidChange(.entryTooLong) { return .failure(self.recordsTooLarge(commit)) }
        return .failure(self.error(error))
      }
      state.lastCommit += 1
      state.inodeCount = UInt64(clamping: Int64(clamping: state.inodeCount) + Int64(accepted.inodeCountChange))
      for (file, path) in accepted.credentialPaths { state.credentialPaths[path] = file }
      for operation in commit.operations { state.operations[operation.id] = pending }
      for (record, digest) in zip(commit.records, digests) {
        let nodes = commit.blocks[record.fileID]?.nodes ?? [:]
        state.inFlight.add(
          .init(commit: state.lastCommit, record: record, nodes: nodes, digest: digest, pending: pending),
          to: record.fileID.inode)
      }
      for file in commit.removals {
        state.inFlight.add(
          .init(commit: state.lastCommit, record: nil, nodes: [:], digest: nil, pending: pending), to: file.inode)
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
    return .waiting(Waiting(term: accepted.term, number: number, commit: rest, change: entering, pending: pending))
  }

  /// The condition that an inode is as this commit in flight leaves it; nil when another one has entered since.
  private static func basis(
    _ entry: InFlight.Entry, of inode: InodeNumber, _ others: [Entered], _ state: State
  ) -> Change.Condition? {
    let newest = state.inFlight[inode].last
    if let pending = entry.pending {
      // When it has ended meanwhile, what came of it is in the store.
      if let newest, newest.pending !== pending { return nil }
      return .init(inode: inode.rawValue, version: entry.record?.version.rawValue, digest: entry.digest)
    }
    // It has just entered, with the acceptance that it lacked when this one was judged by it.
    guard case .waiting(let other) = others[Int(entry.commit)], let newest, newest.pending === other.pending else {
      return nil
    }
    return .init(inode: inode.rawValue, version: newest.record?.version.rawValue, digest: newest.digest)
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
    for (file, version) in accepted.grounds.sorted(by: { $0.key < $1.key }) { require(file, version.rawValue) }
    change.facts += accepted.retired.sorted().map(Self.retiredFact)
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
}

extension Change {
  /// Adds a condition; false when there is one that contradicts it.
  fileprivate mutating func require(_ condition: Condition) -> Bool {
    guard let place = self.conditions.firstIndex(where: { $0.inode == condition.inode }) else {
      self.conditions.append(condition)
      return true
    }
    guard self.conditions[place].version == condition.version else { return false }
    self.conditions[place].digest = condition.digest
    return true
  }
}
