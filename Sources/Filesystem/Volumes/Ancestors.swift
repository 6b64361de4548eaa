// SPDX-License-Identifier: Apache-2.0

internal import Inodes
private import Synchronization
package import Trust

/// Copies of the records of the home and of all directories above it, for their permissions. What is changed there counts
/// here within two seconds; a site that is cut off goes on with what it has. Nobody is asked while nobody calls.
final class Ancestors: Sendable {
  private struct State {
    /// The home's, and those from its parent to the root directory; nil before they were read.
    var records: (home: InodeRecord, above: [InodeRecord])?
    var read: ContinuousClock.Instant?
    var used: ContinuousClock.Instant?
    /// When they could not be read, the last time.
    var failed: ContinuousClock.Instant?
  }

  /// How old they may be when they are used.
  private static let ageMax = Duration.seconds(2)
  /// For how long nobody waits for them after they could not be read.
  private static let failurePause = Duration.seconds(5)
  /// For how long they are kept fresh after they were used.
  private static let useMax = Duration.seconds(5)

  private let state = Mutex(State())
  fileprivate let turns = CombiningQueue<Never, Never>(batchCountMax: 1)

  /// The home's own.
  var home: InodeRecord? { self.state.withLock { $0.records?.home } }
  /// Of all above it.
  var above: [InodeRecord]? { self.state.withLock { $0.records?.above } }

  func note(home: InodeRecord, above: [InodeRecord]) {
    self.state.withLock { state in
      state.records = (home, above)
      state.read = .now
      state.failed = nil
    }
  }

  func forget() { self.state.withLock { $0.records = nil } }

  func noteFailure() { self.state.withLock { $0.failed = .now } }

  /// What is to be done before they are used.
  enum Use: Sendable {
    /// Nothing.
    case fresh
    /// They are to be read anew.
    case stale
    /// There are none, and they could not be read a moment ago.
    case missing
  }

  /// Takes note that they are used.
  func use() -> Use {
    self.state.withLock { state in
      let now = ContinuousClock.now
      state.used = now
      let hasFailed = state.failed.map { $0 + Self.failurePause > now } ?? false
      guard state.records != nil, let read = state.read else { return hasFailed ? .missing : .stale }
      return hasFailed || read + Self.ageMax >= now ? .fresh : .stale
    }
  }

  /// Whether somebody has used them lately.
  var isInUse: Bool { self.state.withLock { state in state.used.map { $0 + Self.useMax > .now } ?? false } }
}

extension Filesystem {
  /// Keeps the records of the home and of the directories above it fresh while they are used. To be called once a second.
  package func keepAncestors() async {
    guard !self.home.path.isRoot, self.ancestors.isInUse else { return }
    // What can not be had stays as it was.
    try? await self.refreshAncestors()
  }

  /// Reads the records of the home and of the directories above it anew.
  package func refreshAncestors() async throws(FilesystemError) {
    do throws(FilesystemError) { try await self.readAncestors() } catch {
      // What was closed is closed, whatever the copies say.
      if case .permissionDenied = error { self.ancestors.forget() }
      self.ancestors.noteFailure()
      throw error
    }
  }

  /// Reads them anew.
  ///
  /// - Throws: `permissionDenied`, too, when one of them may not be known here: then nobody is let pass, see below.
  private func readAncestors() async throws(FilesystemError) {
    var records: [InodeRecord] = []
    var next = self.home.fileID
    while next != .rootDirectory {
      guard records.count <= TreePath.byteCountMax / 2 else { throw .loop }
      guard let record = try await self.storedRecord(next) else { throw .dataLoss(next, .missing) }
      try await self.verify(record)
      records.append(record)
      guard let parent = record.links.part.parents.first else { throw .dataLoss(next, .record) }
      next = parent
    }
    guard let root = try await self.storedRecord(.rootDirectory) else { throw .dataLoss(.rootDirectory, .missing) }
    try await self.verify(root)
    guard let home = records.first else { return }
    self.ancestors.note(home: home, above: records.dropFirst() + [root])
  }

  /// Whether every directory above the home permits something, by the copies that this process has of their records.
  ///
  /// - Throws: `parentUnreachable` and the like when there are none yet.
  package func ancestorsPermit(
    _ wanted: Permission, for caller: CallerIdentity
  ) async throws(FilesystemError) -> Bool {
    if self.home.path.isRoot { return true }
    if self.ancestors.use() != .fresh {
      // Who comes while somebody reads them waits for that.
      let outcome = await self.ancestors.turns.alone { () async -> Result<Void, FilesystemError> in
        switch self.ancestors.use() {
        case .fresh: return .success(())
        case .missing: return .failure(.parentUnreachable)
        case .stale: break
        }
        do throws(FilesystemError) { return .success(try await self.refreshAncestors()) } catch {
          return .failure(error)
        }
      }
      if self.ancestors.above == nil { try outcome.get() }
    }
    return self.ancestors.above?.allSatisfy { self.permits(wanted, $0, caller) } ?? false
  }
}
