// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Raft
internal import Replication
internal import SectorStore
internal import Synchronization
internal import Trust

extension SectorGroup {
  /// Waits until what entered the log is durable.
  func finish(_ entered: [Entered]) async -> [Result<CommitOutcome, SectorError>] {
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
    let durable: Result<StoreLogIndex, StoreError>
    do throws(StoreError) { durable = .success(try await waiting.pending.durable()) } catch {
      durable = .failure(error)
    }
    if case .success = durable {
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
            records: records, logIndex: index.rawValue, members: self.holders(of: index),
            acceptancesDigest: Digest32(sha256: digests))))
    case .failure(let error):
      // Somebody with the same operation may have been faster.
      if Self.mayBeRepetition(error), let answer = await self.answerInStore(to: waiting.commit) { return answer }
      if case .conditionFailed(let inode, _) = error, !waiting.commit.concerns(InodeNumber(inode)) {
        // Something else that it was judged by came to nothing.
        return .failure(await self.settle(Self.overtaken(waiting.commit)))
      }
      return .failure(await self.settle(self.error(error)))
    }
  }

  /// The processes that are known to have an entry on their disks.
  private func holders(of index: StoreLogIndex) -> [TreePath] {
    let members = self.replica.holders(of: index)
    // Most of the time, or for a cluster of one, nothing has to be looked up.
    if members == [self.replica.member] { return [self.memberPath] }
    return members.compactMap { $0 == self.replica.member ? self.memberPath : self.path(of: $0) }
  }

  /// The commit is not in flight any more.
  private func leave(_ waiting: Waiting, _ durable: Result<StoreLogIndex, StoreError>, _ state: inout State) {
    let commit = waiting.commit
    // What was in flight in an earlier term is forgotten already.
    guard state.term == waiting.term else { return }
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
    case .conditionFailed, .alreadyApplied, .invalidChange: true
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
    return .failure(await self.settle(SectorError(refusal, generation: self.generation)))
  }

  /// Whoever hears of a conflict will read again: what it conflicts with is made durable first, so that it is found.
  private func settle(_ error: SectorError) async -> SectorError {
    guard case .conflict(let file, let current) = error else { return error }
    if let pending = self.state.withLock({ $0.inFlight[file.inode].last?.pending }) {
      _ = try? await pending.durable()
    }
    guard let record = try? await self.storedRecord(file) else { return .conflict(file, current: current) }
    return .conflict(file, current: record.version)
  }
}

extension Commit {
  /// Whether the commit changes an inode, or has a condition on it.
  fileprivate func concerns(_ inode: InodeNumber) -> Bool {
    self.records.contains { $0.fileID.inode == inode } || self.removals.contains { $0.inode == inode }
      || self.conditions.contains { $0.fileID.inode == inode }
  }
}
