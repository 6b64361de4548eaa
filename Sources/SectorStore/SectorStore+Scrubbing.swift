// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What waits for the thread that scrubs and repairs, of which there is one while there is something to do.
struct ScrubGate: Sendable {
  struct Job: Sendable {
    var body: @Sendable () -> Void
    /// The store is closing or closed.
    var refuse: @Sendable () -> Void
  }

  static let jobCountMax = 1_024
  var jobs: [Job] = []
  var isRunning = false
  var isStopped = false
}

/// Verifying all that the store holds, from the disk, while it goes on.
///
/// Nothing that is written, moved or freed meanwhile is taken for damage: rows are read in a transaction, blocks while
/// their inode's version is pinned, and of the log what was durable before. Whatever looks damaged is read once more.
extension SectorStore {
  /// Verifies the next part of the store. With nil a pass begins; all that was applied by then is verified in it. The
  /// caller bounds the rate by waiting between steps.
  ///
  /// Damage does not end a pass. It is returned, and kept in ``damageReport``. Runs on a thread of its own, one step or
  /// repair at a time; others wait.
  ///
  /// - Parameter byteCountMax: where to stop. At least one thing is verified: a segment of the log, a block, a row; the
  ///   structure of the index is one thing.
  /// - Throws: `closed`, `failed`, and `queueFull` when too many wait.
  package func scrubStep(after cursor: ScrubCursor?, byteCountMax: Int) async throws(StoreError) -> ScrubStep {
    try await self.performScrub { () throws(StoreError) in
      try self.live.check()
      var scrub = ScrubState(byteCountMax: max(byteCountMax, 1))
      switch cursor?.position {
      case nil: try self.beginPass(&scrub)
      case .log(let done, let last): try self.scrubLog(after: done, last: last, &scrub)
      case .rows(let kind, let cursor): try self.scrubRows(kind, after: cursor, &scrub)
      case .children(let row): try self.scrubChildren(after: row, &scrub)
      }
      // Files may have been let go meanwhile: nothing that was found counts.
      try self.live.check()
      let step = scrub.step
      if !step.damaged.isEmpty {
        self.live.damage.withLock { report in for place in step.damaged { report.note(place) } }
      }
      return step
    }
  }

  /// About how many bytes a pass reads from the disk.
  package var scrubByteCount: Int {
    let usage = self.checkpoints.withLock { $0.usage }
    return usage.logBytes + usage.sectorSlotsUsed * self.configuration.sectorSize
      + usage.nodeSlotsUsed * StoreConfiguration.nodeSize + 2 * self.live.index.byteCount()
  }

  /// What one step gathers.
  private struct ScrubState {
    let byteCountMax: Int
    var next: ScrubCursor.Position?
    var byteCount = 0
    var blockCount = 0
    private var damaged: [DamagePlace] = []
    private var omittedCount = 0

    init(byteCountMax: Int) { self.byteCountMax = byteCountMax }

    var isFull: Bool { self.byteCount >= self.byteCountMax }

    mutating func note(_ places: [DamagePlace]) {
      for place in places where !self.damaged.contains(place) {
        if self.damaged.count < ScrubStep.damagedMax { self.damaged.append(place) } else { self.omittedCount += 1 }
      }
    }

    var step: ScrubStep {
      ScrubStep(
        next: self.next.map { ScrubCursor($0) }, byteCount: self.byteCount, blockCount: self.blockCount,
        damaged: self.damaged, omittedCount: self.omittedCount)
    }
  }

  // MARK: Header, structure, log

  private func beginPass(_ scrub: inout ScrubState) throws(StoreError) {
    let known = self.live.damage.withLock { report in
      report.forgetOmitted()
      return report.places
    }
    // What was superseded or repaired since.
    for place in known where try self.isWhole(place) { self.live.damage.withLock { $0.remove(place) } }
    // What only the log and the memory have is verified as rows, too. Where that finds no room, it is the next pass's.
    Self.requestCheckpoint(self.checkpoints, waits: true)
    if self.isHeaderDamaged { scrub.note([.header]) }
    let check = try self.live.index.checkStructure()
    scrub.byteCount += check.byteCount
    if !check.damaged.isEmpty {
      let again = try self.live.index.checkStructure()
      scrub.note(check.damaged.filter { again.damaged.contains($0) })
    }
    scrub.next = .log(done: 0, last: nil)
  }

  var isHeaderDamaged: Bool {
    let expected = self.header.encoded()
    guard let file = try? self.files.open(self.directory + "/" + StoreHeader.fileName, create: false) else {
      return true
    }
    file.dropCached(byteCount: expected.count, at: 0)
    return (try? file.readAll(count: 4_096, at: 0)) != expected
  }

  /// The header as it was written.
  var header: StoreHeader {
    var header = StoreHeader(self.configuration)
    header.created = self.created
    return header
  }

  private func scrubLog(after done: UInt64, last: UInt64?, _ scrub: inout ScrubState) throws(StoreError) {
    let extents = try self.logExtents()
    // Without an end, a store that is written to faster than this reads would never be done with it.
    let last = last ?? extents.last?.sequence ?? 0
    guard let extent = extents.first(where: { $0.sequence > done && $0.sequence <= last }) else {
      scrub.next = .rows(.record, after: nil)
      return
    }
    scrub.byteCount += extent.end
    scrub.note(try self.damage(in: extent))
    scrub.next = .log(done: extent.sequence, last: last)
  }

  func logExtents() throws(StoreError) -> [SegmentedLog.Extent] {
    try self.onWriter { (writer) throws(StoreError) in writer.log.extents }
  }

  /// Damaged places of a segment, looked at twice; none where it has been given back meanwhile.
  func damage(in extent: SegmentedLog.Extent) throws(StoreError) -> [DamagePlace] {
    var offsets = extent.damagedOffsets()
    if offsets.isEmpty { return [] }
    let again = extent.damagedOffsets()
    offsets = offsets.filter { again.contains($0) }
    guard !offsets.isEmpty,
      try self.logExtents().contains(where: {
        $0.sequence == extent.sequence && $0.incarnation == extent.incarnation
      })
    else { return [] }
    return offsets.map { .log(segment: extent.sequence, offset: UInt64($0)) }
  }

  // MARK: Rows and blocks

  /// What a look at some rows has found.
  struct RowScan {
    /// Behind the last whole row; nil where there was none.
    var last: SnapshotCursor?
    var damaged: [DamagePlace] = []
    var groups: [GroupKey] = []
    var byteCount = 0
    var isAtEnd = true
  }

  /// Groups whose rows are read before their blocks are.
  private static let groupCountMax = 64

  private func scrubRows(
    _ kind: SnapshotKind, after cursor: SnapshotCursor?, _ scrub: inout ScrubState
  ) throws(StoreError) {
    let scan = try self.scanTwice(kind, after: cursor, byteCountMax: scrub.byteCountMax)
    scrub.byteCount += scan.byteCount
    scrub.note(scan.damaged)
    var number = 0
    for key in scan.groups {
      var position = 0
      if case .blocks(key, let covered) = cursor { position = covered }
      number += 1
      repeat {
        position = try self.scrubBlocks(of: key, from: position, &scrub)
      } while position < BlockGroup.size && !scrub.isFull
      guard scrub.isFull else { continue }
      if position < BlockGroup.size || number < scan.groups.count {
        scrub.next = .rows(.blocks, after: .blocks(key, covered: max(position, 1)))
        return
      }
    }
    if scan.isAtEnd {
      let following = SnapshotKind(rawValue: kind.rawValue + 1)
      scrub.next = following == .end ? .children(after: nil) : following.map { .rows($0, after: nil) }
    } else {
      scrub.next = .rows(kind, after: scan.last ?? cursor)
    }
  }

  /// Reads rows behind a cursor until they take `byteCountMax` bytes, or are behind `through`. Ends only behind whole
  /// rows, so that the cursor to go on with is a right one.
  ///
  /// What keeps SQLite from reading on counts as damage, and as the end.
  private func scan(
    _ kind: SnapshotKind, after cursor: SnapshotCursor?, byteCountMax: Int, through: SnapshotCursor? = nil
  ) throws(StoreError) -> RowScan {
    var scan = RowScan()
    do throws(StoreError) {
      let snapshot = try self.live.index.snapshot()
      defer { snapshot.close() }
      try snapshot.scan(kind, after: cursor) { row in
        switch row {
        case .damaged(let place):
          // Some of very many are enough.
          if scan.damaged.count < 4 * ScrubStep.damagedMax, !scan.damaged.contains(place) { scan.damaged.append(place) }
          return true
        case .whole(let row):
          let rowCursor = row.cursor
          // A group whose blocks are all passed.
          if rowCursor == cursor { return true }
          if let through, through < rowCursor {
            scan.isAtEnd = false
            return false
          }
          scan.last = rowCursor
          scan.byteCount += row.byteCount
          if case .group(let key, _) = row { scan.groups.append(key) }
          if scan.byteCount < byteCountMax, scan.groups.count < Self.groupCountMax { return true }
          scan.isAtEnd = false
          return false
        }
      }
    } catch {
      try self.live.check()
      guard case .damaged(let place) = error else { throw error }
      scan.damaged.append(place)
      scan.isAtEnd = true
    }
    return scan
  }

  /// The same, with each damaged place looked at once more, from the disk.
  func scanTwice(
    _ kind: SnapshotKind, after cursor: SnapshotCursor?, byteCountMax: Int, through: SnapshotCursor? = nil
  ) throws(StoreError) -> RowScan {
    var scan = try self.scan(kind, after: cursor, byteCountMax: byteCountMax, through: through)
    guard !scan.damaged.isEmpty else { return scan }
    self.live.index.dropCached()
    let again = try self.scan(
      kind, after: cursor, byteCountMax: .max, through: scan.isAtEnd ? through : scan.last)
    scan.damaged.removeAll { !again.damaged.contains($0) }
    return scan
  }

  /// Verifies blocks of a group from a position on, as they are now. Returns the position behind the last one that was
  /// passed.
  private func scrubBlocks(
    of key: GroupKey, from position: Int, _ scrub: inout ScrubState
  ) throws(StoreError) -> Int {
    let found = try self.withPinned(key) { (group) -> (damaged: [Int], count: Int, next: Int) in
      let files = key.level == 0 ? self.sectors : self.nodes
      // At least one, however large it is.
      let countMax = max((scrub.byteCountMax - scrub.byteCount) / files.slotBytes, 1)
      let positions = group.pointers.indices.filter { $0 >= position && group.pointers[$0].slot != nil }
      let checked = Array(positions.prefix(countMax))
      var damaged: [Int] = []
      let bufferCount = max((1 << 20) / files.slotBytes, 1)
      for start in stride(from: 0, to: checked.count, by: bufferCount) {
        let part = checked[start..<min(start + bufferCount, checked.count)]
        damaged += files.damaged(part.map { group.pointers[$0] }).map { part[part.startIndex + $0] }
      }
      let isDone = checked.count == positions.count
      return (damaged, checked.count, isDone ? BlockGroup.size : (checked.last ?? 0) + 1)
    }
    guard let found else { return BlockGroup.size }
    let blockSize = self.configuration.blockSize(level: key.level)
    scrub.byteCount += found.count * blockSize
    scrub.blockCount += found.count
    scrub.note(
      found.damaged.map { .block(inode: key.inode, level: key.level, index: key.firstIndex + UInt64($0)) })
    return found.next
  }

  /// Calls `body` with the newest version of a group. Its slots are not used for anything else meanwhile. Nil where there
  /// is none, and where it can not be told for damage, which is a row's.
  func withPinned<Value>(_ key: GroupKey, _ body: (BlockGroup) throws(StoreError) -> Value) throws(StoreError)
    -> Value?
  {
    let group: BlockGroup?
    do throws(StoreError) {
      guard let pin = try self.takePin(key.inode, version: nil, isStrict: false, mayWait: true) else { return nil }
      defer { self.live.state.withLock { $0.unpin(key.inode, version: pin.version) } }
      group = try self.group(key, pin, mayWait: true)
      guard let group else { return nil }
      return try body(group)
    } catch {
      switch error {
      case .unknownInode, .versionGone, .damaged: return nil
      default: throw error
      }
    }
  }

  // MARK: Children

  private static let childCountMax = 4_096

  private func scrubChildren(after row: ParentRow?, _ scrub: inout ScrubState) throws(StoreError) {
    func scan() throws(StoreError) -> ChildrenScan? {
      do throws(StoreError) {
        let snapshot = try self.live.index.snapshot()
        defer { snapshot.close() }
        return try snapshot.scanChildren(after: row, countMax: Self.childCountMax)
      } catch {
        try self.live.check()
        guard case .damaged = error else { throw error }
        return nil
      }
    }
    let found = try scan()
    scrub.byteCount += (found?.rowCount ?? 0) * 24
    if found?.isWrong ?? true {
      self.live.index.dropCached()
      if try scan()?.isWrong ?? true { scrub.note([DerivedPart.parents.place]) }
    }
    scrub.next = found?.next.map { .children(after: $0) }
  }

  // MARK: Threads

  /// Does something on the scrubbing thread.
  func performScrub<Value: Sendable>(
    _ body: @escaping @Sendable () throws(StoreError) -> Value
  ) async throws(StoreError) -> Value {
    let result: Result<Value, StoreError> = await withCheckedContinuation { continuation in
      let job = ScrubGate.Job {
        continuation.resume(returning: Result(catching: body))
      } refuse: {
        continuation.resume(returning: .failure(.closed))
      }
      let refusal = self.scrubs.withLock { gate -> StoreError? in
        if gate.isStopped { return .closed }
        guard gate.jobs.count < ScrubGate.jobCountMax else { return .queueFull }
        gate.jobs.append(job)
        return nil
      }
      if let refusal {
        continuation.resume(returning: .failure(refusal))
        return
      }
      self.startScrubs()
    }
    return try result.get()
  }

  private func startScrubs() {
    let starts = self.scrubs.withLock { gate in
      guard !gate.isRunning, !gate.jobs.isEmpty else { return false }
      gate.isRunning = true
      return true
    }
    guard starts, !WorkerThread.start({ self.runScrubs() }) else { return }
    let refused = self.scrubs.withLock { gate in
      defer { gate.jobs.removeAll() }
      gate.isRunning = false
      return gate.jobs
    }
    self.scrubs.wakeAll()
    for job in refused { job.refuse() }
  }

  private func runScrubs() {
    while true {
      let job = self.scrubs.withLock { gate -> ScrubGate.Job? in
        if gate.jobs.isEmpty {
          gate.isRunning = false
          return nil
        }
        return gate.jobs.removeFirst()
      }
      guard let job else { break }
      job.body()
    }
    self.scrubs.wakeAll()
  }

  /// Lets no more begin, and waits for the one that runs. Nothing waits for the writer any more by then.
  func stopScrubs() {
    let refused = self.scrubs.withLock { gate in
      defer { gate.jobs.removeAll() }
      gate.isStopped = true
      return gate.jobs
    }
    for job in refused { job.refuse() }
    while self.scrubs.withLock({ $0.isRunning }) {
      // Again and again, as it may only be about to begin.
      self.live.index.interruptCheck()
      self.scrubs.wait(nanoseconds: 20_000_000) { !$0.isRunning }
    }
  }

  /// Does something on the writing thread, between two batches, and waits for it.
  func onWriter<Value: Sendable>(
    _ body: @escaping @Sendable (inout Writer) throws(StoreError) -> Value
  ) throws(StoreError) -> Value {
    let answer = Monitor<Result<Value, StoreError>?>(nil)
    let job = WriterJob { writer in
      let result: Result<Value, StoreError>
      do throws(StoreError) { result = .success(try body(&writer)) } catch { result = .failure(error) }
      answer.withLock { $0 = result }
      answer.wakeAll()
    } refuse: {
      answer.withLock { $0 = .failure(.closed) }
      answer.wakeAll()
    }
    if try self.queue.withLock({ queue throws(StoreError) in try queue.append(job) }) { self.queue.wakeAll() }
    return try answer.wait { $0 }.get()
  }
}

extension DataFiles {
  /// The positions of blocks, none of them a hole, that are not on the disk as they were written. Each of these was
  /// looked at twice.
  func damaged(_ pointers: [BlockPointer]) -> [Int] {
    let byteCount = pointers.count * self.slotBytes
    return withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 16) { buffer in
      self.dropCached(pointers)
      guard self.read(pointers[...], into: buffer) != nil else { return [] }
      // Alone, as one that can not be read at all takes its neighbours with it.
      return pointers.indices.filter { position in
        let pointer = [pointers[position]]
        self.dropCached(pointer)
        return self.read(pointer[...], into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<self.slotBytes])) != nil
      }
    }
  }

  private func dropCached(_ pointers: [BlockPointer]) {
    var next = 0
    while next < pointers.count {
      let start = next
      next += 1
      guard let slot = pointers[start].slot, let place = self.place(of: slot) else { continue }
      // Neighbours at once.
      while next < pointers.count, next - start < place.slotCount, pointers[next].slot == slot + UInt64(next - start) {
        next += 1
      }
      place.file.dropCached(byteCount: (next - start) * self.slotBytes, at: place.offset)
    }
  }
}
