// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Replication
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
      directory: self.filesystemDirectory(of: committer), hostDirectory: self.hostDirectory(of: committer))
    self.chains.add(committer.credential, digest: committer.chainDigest)
    let term: UInt64
    do throws(SectorError) { term = try await self.lead() } catch { return commits.map { _ in .failure(error) } }
    var view = View(term: term)
    var staged: [Result<Staged, SectorError>] = []
    staged.reserveCapacity(commits.count)
    // The versions that refused commits were to make. Later ones above these were built on them, not on what somebody
    // else may have put there at that very version.
    var refused: [FileID: Version] = [:]
    var departed: [TreePath] = []
    for (number, commit) in commits.enumerated() {
      do throws(SectorError) {
        let judged = try await self.judgeFirmly(commit, by: committer, view, departed: &departed)
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
    let entered = self.enter(staged, of: commits, by: committer)
    self.replica.flush()
    let outcomes = await self.confirm(self.finish(entered))
    self.endDeparture(of: departed)
    return outcomes
  }

  /// A refusal says what the newest state is, so it is a read: if this member may have been replaced as the leader
  /// meanwhile, it does not know that.
  private func confirm(
    _ outcomes: [Result<CommitOutcome, SectorError>]
  ) async -> [Result<CommitOutcome, SectorError>] {
    let isAnyRefused = outcomes.contains { outcome in
      switch outcome {
      case .success, .failure(.notLeader): false
      case .failure: true
      }
    }
    guard isAnyRefused else { return outcomes }
    do throws(SectorError) {
      try await self.confirmRead()
      return outcomes
    } catch {
      return outcomes.map { outcome in
        switch outcome {
        // Of these it is not known whether they were done.
        case .success, .failure(.leadershipLost), .failure(.notServing): outcome
        case .failure: .failure(error)
        }
      }
    }
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
    /// The directory that it lies in, if it is a process with the sector mark.
    let hostDirectory: FileID?

    var path: TreePath { self.credential.path }
  }

  /// What commits add to what is stored and in flight: those before in the same batch, and the new inodes of the one
  /// that is being judged.
  struct View {
    /// The term that it is judged in.
    let term: UInt64
    private(set) var batch = InFlight()
    /// By operation, the commit of the batch that completes it.
    private(set) var operations: [OperationID: Int] = [:]
    var created: [FileID: InodeRecord] = [:]
    /// Notes what is looked at and not durable yet.
    var foundation = Foundation()

    init(term: UInt64) { self.term = term }

    mutating func add(_ accepted: Accepted, number: Int) {
      for record in accepted.commit.records {
        let nodes = accepted.commit.blocks[record.fileID]?.nodes ?? [:]
        self.batch.add(
          .init(commit: UInt64(number), record: record, nodes: nodes, digest: nil, pending: nil),
          to: record.fileID.inode)
      }
      for file in accepted.commit.removals {
        self.batch.add(
          .init(commit: UInt64(number), record: nil, nodes: [:], digest: nil, pending: nil), to: file.inode)
      }
      for operation in accepted.commit.operations { self.operations[operation.id] = number }
    }
  }

  /// What the judgement of a commit rests on and is not durable yet. The commit has to fail when that comes to nothing,
  /// even where another one has left an inode at the very version that was expected: versions that are not durable yet
  /// may be given out again.
  final class Foundation {
    /// By inode, the newest entry that was looked at.
    private(set) var entries: [InodeNumber: InFlight.Entry] = [:]

    func add(_ entry: InFlight.Entry, of inode: InodeNumber) { self.entries[inode] = entry }

    /// The commits that are on their way already.
    var pending: [PendingChange] { self.entries.values.compactMap(\.pending) }
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
      view.foundation.add(last, of: file.inode)
      return Newest(record: last.record, unfinished: unfinished)
    }
    return Newest(record: try await self.storedRecord(file) ?? view.created[file], unfinished: [])
  }
}
