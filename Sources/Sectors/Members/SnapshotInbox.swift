// SPDX-License-Identifier: Apache-2.0

internal import Raft
package import SectorStore
private import Synchronization

/// Where a member takes in snapshots: one directory, one import at a time.
///
/// What was taken in before an interruption stays in the directory, also when the process ends, and is gone on with when
/// the same snapshot comes again. When one is whole, the directory is a store, and nothing more is taken; the process
/// has to let it take the place of the member's own, and to make another inbox.
///
/// The imports block, so they have threads of their own.
package final class SnapshotInbox: Sendable {
  package struct Configuration: Sendable {
    /// The directory to import into, on the filesystem of the store that it will replace. No store yet.
    package var directory: String
    /// Generation and sector size must be the donor's. The member id is that of the header, which is the process's own.
    package var store: StoreConfiguration
    package var files: any FileLayer
    /// Whether there is no store yet that the sector size would have to fit.
    package var takesAnySectorSize = false
    /// Whether a snapshot through this entry of this term has something that the member lacks. Must be false when its
    /// log has that very entry or it has applied as much, since what it has acknowledged behind it would be lost. Asked
    /// at the beginning and at the end, before and after `hardState`, on event loops.
    package var wants: @Sendable (_ index: StoreLogIndex, _ term: UInt64) -> Bool
    /// What the member has promised, asked when all items have come. What it promises later is not in the new store, so
    /// it must promise nothing more from then on, until `abandoned` or the start from the new store.
    package var hardState: @Sendable () async -> LogHardState
    /// What came of it after the member was asked what it has promised: nothing. It may go on with the store that it has.
    package var abandoned: @Sendable () -> Void = {}
    /// The directory is a whole store, durably, and the sender knows it. Called once.
    package var installed: @Sendable (_ index: StoreLogIndex, _ term: UInt64) -> Void

    package init(
      directory: String, store: StoreConfiguration, files: any FileLayer = HostFiles(),
      wants: @escaping @Sendable (_ index: StoreLogIndex, _ term: UInt64) -> Bool,
      hardState: @escaping @Sendable () async -> LogHardState,
      installed: @escaping @Sendable (_ index: StoreLogIndex, _ term: UInt64) -> Void
    ) {
      self.directory = directory
      self.store = store
      self.files = files
      self.wants = wants
      self.hardState = hardState
      self.installed = installed
    }
  }

  /// How an inbox is at a moment.
  package struct Status: Hashable, Sendable {
    /// What is being taken in.
    package var header: SnapshotHeader?
    /// Bytes of items that its stream has brought so far.
    package var receivedByteCount: UInt64 = 0
    package var isInstalled = false
    /// What went wrong last, here or with what was sent.
    package var failure: SnapshotImportError?

    package init() {}
  }

  /// Who may import.
  private struct Admission {
    var count: UInt64 = 0
    var current: Import?
    var isInstalled = false
    var failure: SnapshotImportError?
  }

  private struct Import {
    let number: UInt64
    let header: SnapshotHeader
    var lastHeard = ContinuousClock.now
    var receivedByteCount: UInt64 = 0
    /// Whether it is not the sender that we wait for.
    var isWorking = true
    var isFinishing = false

    /// Whether another import may take its place.
    func givesWay(to header: SnapshotHeader, at now: ContinuousClock.Instant) -> Bool {
      if self.isFinishing { return false }
      return header.index > self.header.index || header.sender == self.header.sender
        || !self.isWorking && self.lastHeard.duration(to: now) > SnapshotLimits.idleTime
    }
  }

  /// What has the directory open. Locked by threads that block.
  private struct Work {
    /// The import that it belongs to; only grows.
    var number: UInt64 = 0
    var importing: SnapshotImport?
  }

  package let configuration: Configuration
  private let admission = Mutex(Admission())
  private let work = Mutex(Work())

  package init(_ configuration: Configuration) { self.configuration = configuration }

  package var status: Status {
    self.admission.withLock { admission in
      var status = Status()
      status.header = admission.current?.header
      status.receivedByteCount = admission.current?.receivedByteCount ?? 0
      status.isInstalled = admission.isInstalled
      status.failure = admission.failure
      return status
    }
  }

  /// Begins to take in a snapshot, or goes on with it. Whatever gives way to it takes nothing more.
  ///
  /// - Parameter header: from an admitted sender, and meant for this member.
  /// - Throws: `MemberError` with `wrongGeneration`, `invalid`, `busy` and `notServing`; `SnapshotError`.
  func begin(_ header: SnapshotHeader) async throws -> SnapshotIntake {
    let store = self.configuration.store
    guard header.generation == store.generation else { throw MemberError.wrongGeneration(store.generation) }
    guard self.configuration.takesAnySectorSize || header.sectorSize == store.sectorSize else {
      throw MemberError.invalid(field: "sector_size")
    }
    guard self.configuration.wants(header.index, header.term) else { throw SnapshotError.notNeeded }
    let number = try self.admission.withLock { admission throws(MemberError) in
      guard !admission.isInstalled else { throw .notServing }
      if let current = admission.current, !current.givesWay(to: header, at: .now) { throw .busy }
      admission.count += 1
      admission.current = Import(number: admission.count, header: header)
      return admission.count
    }
    do {
      let cursor = try await self.perform(number) { work throws(SnapshotImportError) in
        work.importing?.close()
        work.importing = nil
        var store = store
        store.memberID = header.receiver.rawValue
        store.sectorSize = header.sectorSize
        let importing = try SnapshotImport.begin(
          at: self.configuration.directory, store, index: header.index, term: header.term,
          files: self.configuration.files)
        work.importing = importing
        return importing.cursor
      }
      return SnapshotIntake(self, number: number, header: header, start: cursor)
    } catch {
      await self.end(number)
      throw error
    }
  }

  /// Takes encoded items, in order. Returns the cursor that is durable, and whether the last item has come.
  func add(_ items: [[UInt8]], _ number: UInt64) async throws -> (durable: SnapshotCursor?, isWhole: Bool) {
    let (durable, isWhole, isRight) = try await self.perform(number) { work throws(SnapshotImportError) in
      guard let importing = work.importing else { throw .store(.closed) }
      var decoded: [SnapshotItem] = []
      decoded.reserveCapacity(items.count)
      for item in items {
        guard let item = SnapshotItem(encoded: item) else { break }
        decoded.append(item)
      }
      try importing.add(decoded)
      return (importing.cursor, decoded.last?.cursor == .end, decoded.count == items.count)
    }
    guard isRight else { throw SnapshotError.damagedItem }
    return (durable, isWhole)
  }

  /// Makes the store.
  func finish(_ number: UInt64, _ header: SnapshotHeader) async throws {
    try self.admission.withLock { admission throws(MemberError) in
      guard admission.current?.number == number else { throw .busy }
      admission.current?.isFinishing = true
    }
    let hardState = await self.configuration.hardState()
    do {
      // Only now, as it acknowledges nothing more.
      guard self.configuration.wants(header.index, header.term) else { throw SnapshotError.notNeeded }
      // Again, now that the member stands still: meanwhile it may have been told what it lacked.
      guard self.configuration.wants(header.index, header.term) else { throw SnapshotError.notNeeded }
      try await self.perform(number) { work throws(SnapshotImportError) in
        guard let importing = work.importing else { throw .store(.closed) }
        try importing.finish(hardState: hardState)
        work.importing = nil
        self.admission.withLock { $0.isInstalled = true }
      }
    } catch {
      self.configuration.abandoned()
      throw error
    }
  }

  /// Lets the directory go, unless another import has it.
  func end(_ number: UInt64) async {
    await Self.onThread {
      self.work.withLock { work in
        guard work.number == number else { return }
        work.importing?.close()
        work.importing = nil
      }
    }
    self.admission.withLock { admission in
      if admission.current?.number == number { admission.current = nil }
    }
  }

  /// The sender has sent something.
  func heard(_ byteCount: Int, _ number: UInt64) {
    self.admission.withLock { admission in
      guard admission.current?.number == number else { return }
      admission.current?.lastHeard = .now
      admission.current?.receivedByteCount += UInt64(byteCount)
    }
  }

  // MARK: Blocking

  /// Does something with the directory, if it still is this import's turn.
  private func perform<Value: Sendable>(
    _ number: UInt64, _ body: @escaping @Sendable (inout Work) throws(SnapshotImportError) -> Value
  ) async throws -> Value {
    self.setWorking(true, number)
    defer { self.setWorking(false, number) }
    let result = await Self.onThread { () -> Result<Value, any Error> in
      self.work.withLock { work in
        let mayWork = self.admission.withLock { $0.current?.number == number }
        guard mayWork, number >= work.number else { return .failure(MemberError.busy) }
        work.number = number
        do throws(SnapshotImportError) { return .success(try body(&work)) } catch {
          self.failed(error, &work)
          return .failure(Self.translated(error))
        }
      }
    }
    return try result.get()
  }

  private func setWorking(_ isWorking: Bool, _ number: UInt64) {
    self.admission.withLock { admission in
      guard admission.current?.number == number else { return }
      admission.current?.isWorking = isWorking
      admission.current?.lastHeard = .now
    }
  }

  /// On the thread that works. Where what has been taken in may be wrong already, it is thrown away: to go on from there
  /// would fail again and again.
  private func failed(_ error: SnapshotImportError, _ work: inout Work) {
    self.admission.withLock { $0.failure = error }
    switch error {
    // These are about an item that was not taken.
    case .invalid(.blockDamaged), .invalid(.itemOutOfRange), .invalid(.blockSizeWrong), .store: return
    case .invalid: break
    }
    work.importing?.close()
    work.importing = nil
    // An import of something else clears the directory.
    let cleared = try? SnapshotImport.begin(
      at: self.configuration.directory, self.configuration.store, index: .zero, term: .max,
      files: self.configuration.files)
    cleared?.close()
  }

  private static func translated(_ error: SnapshotImportError) -> any Error {
    switch error {
    case .invalid(let fault): SnapshotError.fault(fault)
    case .store(.noSpace): SnapshotError.noSpace
    case .store(.invalidChange): MemberError.invalid(field: "sector_size")
    case .store: MemberError.notServing
    }
  }

  /// A thread for each call: there are about a hundred in a second at most, and each of them waits for the disk.
  private static func onThread<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
    await withCheckedContinuation { continuation in
      let isStarted = WorkerThread.start { continuation.resume(returning: body()) }
      // Better late than never.
      if !isStarted { continuation.resume(returning: body()) }
    }
  }
}

/// A snapshot that an inbox takes in.
struct SnapshotIntake: Sendable {
  private let inbox: SnapshotInbox
  private let number: UInt64
  private let header: SnapshotHeader
  /// Where the sender has to begin.
  let start: SnapshotCursor?

  fileprivate init(_ inbox: SnapshotInbox, number: UInt64, header: SnapshotHeader, start: SnapshotCursor?) {
    self.inbox = inbox
    self.number = number
    self.header = header
    self.start = start
  }

  func heard(_ byteCount: Int) { self.inbox.heard(byteCount, self.number) }

  func add(_ items: [[UInt8]]) async throws -> (durable: SnapshotCursor?, isWhole: Bool) {
    try await self.inbox.add(items, self.number)
  }

  func finish() async throws { try await self.inbox.finish(self.number, self.header) }

  /// Tells the process.
  func installed() { self.inbox.configuration.installed(self.header.index, self.header.term) }

  func end() async { await self.inbox.end(self.number) }
}
