// SPDX-License-Identifier: Apache-2.0

internal import Inodes
private import Synchronization
package import Trust

/// Copies of the records of the home and of all directories above it, for their permissions. What is changed there counts
/// here within two seconds; a site that is cut off goes on with what it has, also after it was started again (see
/// ``AncestorCopies``).
final class Ancestors: Sendable {
  /// The home's record, and its content as it is stored.
  struct Copy: Sendable {
    let home: InodeRecord
    let content: AncestorCopies.SealedContent
  }

  /// The versions of links parts that names hold for, by what was known then.
  struct Links: Sendable {
    let changeCount: UInt64
    let version: Version
    let links: [InodeNumber: Version]
  }

  private struct State {
    /// The home's, and those from its parent to the root directory; nil before they were read.
    var records: (home: InodeRecord, above: [InodeRecord])?
    /// Nil before it was read, and when it is too large.
    var copy: Copy?
    /// What was found out about names the last time.
    var links: Links?
    /// Nil for what was read by an earlier run of this process.
    var read: ContinuousClock.Instant?
    var used: ContinuousClock.Instant?
    /// When they could not be read, the last time.
    var failed: ContinuousClock.Instant?
  }

  /// How old they may be when they are used.
  private static let ageMax = Duration.seconds(2)
  /// For how long nobody waits for them after they could not be read, when there are none.
  private static let failurePause = Duration.seconds(5)
  /// The same when there are some. They are read in the background meanwhile, more often than that.
  private static let stalePause = Duration.seconds(30)
  /// For how long they are kept fresh after they were used.
  private static let useMax = Duration.seconds(5)

  private let state = Mutex(State())
  fileprivate let turns = CombiningQueue<Never, Never>(batchCountMax: 1)

  /// The home's own.
  var home: InodeRecord? { self.state.withLock { $0.records?.home } }
  /// Of all above it.
  var above: [InodeRecord]? { self.state.withLock { $0.records?.above } }

  var records: (home: InodeRecord, above: [InodeRecord])? { self.state.withLock { $0.records } }

  var copy: Copy? {
    get { self.state.withLock { $0.copy } }
    set { self.state.withLock { $0.copy = newValue } }
  }

  var links: Links? {
    get { self.state.withLock { $0.links } }
    set { self.state.withLock { $0.links = newValue } }
  }

  func note(home: InodeRecord, above: [InodeRecord]) {
    self.state.withLock { state in
      state.records = (home, above)
      state.read = .now
      state.failed = nil
    }
  }

  /// Begins with what an earlier run of this process has read, unless something was read since.
  func restore(home: InodeRecord, above: [InodeRecord]) {
    self.state.withLock { state in
      if state.records == nil { state.records = (home, above) }
    }
  }

  func forget() {
    self.state.withLock { state in
      state.records = nil
      state.copy = nil
    }
  }

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
      guard state.records != nil else {
        return state.failed.map { $0 + Self.failurePause > now } ?? false ? .missing : .stale
      }
      if let failed = state.failed { return failed + Self.stalePause > now ? .fresh : .stale }
      return state.read.map { $0 + Self.ageMax >= now } ?? false ? .fresh : .stale
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
    guard let above = self.ancestors.above else { return false }
    // From the root down: whoever has the key of one of them by a readcap gets to all that is below.
    return above.reversed().reduce(true) { mayPass, record in
      mayPass && self.permits(wanted, record, caller) || self.holdsReadcap(caller, record)
    }
  }
}
