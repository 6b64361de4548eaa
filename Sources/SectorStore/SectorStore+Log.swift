// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What is known of an entry that is in the log and not applied yet.
package struct LogHeader: Hashable, Sendable {
  package enum Kind: Hashable, Sendable {
    case change
    case noop
    /// In the encoding of the layer above.
    case membership([UInt8])
  }

  package let term: UInt64
  package let kind: Kind
  /// What it takes in the log and, its blocks, in the data files.
  package let byteCount: Int
}

/// The log as it was found when the store was opened.
package struct RecoveredLog: Hashable, Sendable {
  package let hardState: LogHardState
  /// The last entry that the state contains.
  package let applied: LogIndex
  package let appliedTerm: UInt64
  /// The entries after `applied`, without gaps.
  package let entries: [LogHeader]

  package init(hardState: LogHardState, applied: LogIndex, appliedTerm: UInt64, entries: [LogHeader]) {
    self.hardState = hardState
    self.applied = applied
    self.appliedTerm = appliedTerm
    self.entries = entries
  }
}

/// The log as the consensus of a group uses it. See ``LogOwner``.
extension SectorStore {
  /// What the log had when the store was opened.
  package var recoveredLog: RecoveredLog { self.recovered }

  /// From now on somebody else decides what stands in the log, and ``enqueue(_:)`` must not be used any more.
  package func setOwner(_ owner: any LogOwner) { self.owner.withLock { $0 = owner } }

  /// Whether other members may ask for entries: they are kept, with their blocks, for one checkpoint longer then.
  package func setRetainsEntries(_ retains: Bool) { self.live.state.withLock { $0.retainsEntries = retains } }

  /// Puts a write in the queue: the owner hears of its end. The order of calls is the order on the disk.
  package func write(_ write: LogWrite) throws(StoreError) {
    let pieces = QueuedWork.pieces(of: write, self.configuration)
    let wakes = try self.queue.withLock { queue throws(StoreError) in
      var wakes = false
      for piece in pieces where try queue.append(piece) { wakes = true }
      return wakes
    }
    if wakes { self.queue.wakeAll() }
  }

  /// Has entries applied, which are durable already; the owner hears of it: before this returns, where nothing has to be
  /// waited for. To be called without a lock that the owner takes then.
  package func apply(through index: LogIndex) {
    if self.apply(through: index, mayWait: false) { return }
    if self.queue.withLock({ $0.apply(through: index) }) { self.queue.wakeAll() }
  }

  /// Tries again to write what has found no room.
  package func retryWrites() {
    if self.queue.withLock({ $0.retry() }) { self.queue.wakeAll() }
  }

  /// Whether there is room for the blocks of changes together with those of others that are on their way: a guess that
  /// keeps a leader from putting into the log what the disk does not hold.
  package func hasRoom(for blockBytes: Int) -> Bool {
    let usage = self.checkpoints.withLock { $0.usage }
    let free =
      usage.sectorSlotsFree * self.configuration.sectorSize + usage.nodeSlotsFree * StoreConfiguration.nodeSize
    // Most of the time that is known without asking the system.
    if blockBytes <= free / 2 { return true }
    let disk = (try? self.files.freeBytes(self.directory)) ?? 0
    return blockBytes + self.configuration.reservedBytes + (1 << 20) <= Int(clamping: disk) + free / 2
  }

  /// The last entry that has been applied.
  package var appliedIndex: LogIndex { self.live.state.withLock { $0.appliedIndex } }

  /// Entries after this one can be read whole.
  package var retainedAfter: LogIndex { self.live.state.withLock { $0.retainedAfter } }

  /// Reads entries back, with the bytes of their blocks, for a member that lacks them.
  ///
  /// - Parameters:
  ///   - range: of entries that are durable. What is not in the log is left out.
  ///   - byteCountMax: where to stop; one entry is read whatever its size.
  /// - Throws: `entriesGone` where the first is no longer kept.
  package func entries(
    _ range: ClosedRange<LogIndex>, byteCountMax: Int
  ) async throws(StoreError) -> [(index: LogIndex, entry: LogWrite.Entry)] {
    guard range.lowerBound > self.retainedAfter else { throw .entriesGone }
    let result: Result<[SegmentedLog.Place], StoreError> = await { [queue] in
      var refusal: StoreError?
      let places = await withCheckedContinuation { (continuation: CheckedContinuation<[SegmentedLog.Place], Never>) in
        do throws(StoreError) {
          let lookup = LogLookup(range: range, continuation: continuation)
          if try queue.withLock({ queue throws(StoreError) in try queue.look(up: lookup) }) { queue.wakeAll() }
        } catch {
          refusal = error
          continuation.resume(returning: [])
        }
      }
      return refusal.map { .failure($0) } ?? .success(places)
    }()
    let places = try result.get()
    return try await self.perform { () throws(StoreError) in
      do throws(StoreError) { return try self.read(places, byteCountMax: byteCountMax) } catch {
        // What was read was being used again.
        if range.lowerBound <= self.retainedAfter { throw .entriesGone }
        self.live.note(error)
        throw error
      }
    }
  }

  private func read(
    _ places: [SegmentedLog.Place], byteCountMax: Int
  ) throws(StoreError) -> [(index: LogIndex, entry: LogWrite.Entry)] {
    var entries: [(index: LogIndex, entry: LogWrite.Entry)] = []
    var byteCount = 0
    for place in places {
      let entry = try SegmentedLog.entry(at: place)
      guard let content = LogContent(encoded: entry.payload), content.isWhole(self.configuration) else {
        throw .damaged(.logEntry(entry.index))
      }
      byteCount += entry.payload.count
      let payload: LogPayload
      switch content {
      case .noop: payload = .noop
      case .membership(let bytes): payload = .membership(bytes)
      case .change(let body):
        if body.inlined.isEmpty {
          byteCount += body.blocks.reduce(0) {
            $0 + $1.checksums.count * self.configuration.blockSize(level: $1.level)
          }
        }
        if !entries.isEmpty, byteCount > byteCountMax { return entries }
        payload = .change(try self.change(body))
      }
      entries.append((entry.index, .init(term: entry.term, payload: payload)))
      if byteCount >= byteCountMax { break }
    }
    return entries
  }

  /// A change as it was, with the bytes of its blocks.
  private func change(_ body: EntryBody) throws(StoreError) -> Change {
    var change = Change()
    change.conditions = body.conditions
    change.records = body.records
    change.truncations = body.truncations
    change.sessionsOpened = body.sessionsOpened
    change.operations = body.operations
    change.certificates = body.certificates
    change.facts = body.facts
    change.payloadExtra = body.extra
    for (number, placed) in body.blocks.enumerated() {
      let files = placed.level == 0 ? self.sectors : self.nodes
      if !body.inlined.isEmpty {
        let bytes = body.inlined[number]
        change.blocks.append(
          BlockWrite(
            inode: placed.inode, level: placed.level, index: placed.index, bytes: bytes, blockSize: files.slotBytes))
        continue
      }
      var bytes: [UInt8] = []
      bytes.reserveCapacity(placed.checksums.count * files.slotBytes)
      for run in placed.runs {
        var slot = run.first
        let end = run.first + UInt64(run.count)
        while slot < end {
          guard let place = files.place(of: slot) else {
            throw .damaged(.block(inode: placed.inode, level: placed.level, index: placed.index))
          }
          let count = min(Int(end - slot), place.slotCount)
          do throws(FileError) {
            bytes += try place.file.readAll(count: count * files.slotBytes, at: place.offset)
          } catch {
            throw StoreError(error)
          }
          slot += UInt64(count)
        }
      }
      let block = BlockWrite(
        inode: placed.inode, level: placed.level, index: placed.index, bytes: bytes, blockSize: files.slotBytes)
      if let wrong = zip(block.checksums, placed.checksums).enumerated().first(where: { $1.0 != $1.1 })?.offset {
        throw .damaged(.block(inode: placed.inode, level: placed.level, index: placed.index + UInt64(wrong)))
      }
      change.blocks.append(block)
    }
    return change
  }

  // MARK: The group's membership

  static let membershipFact = "group.membership"
  /// Facts whose names begin so say what members are called. Like memberships and credential records, they are moved to
  /// the index as soon as they are applied.
  package static let memberFactPrefix = "member."

  /// The membership that was in force at the last applied entry, in the encoding of the layer above, and the entry that
  /// it stands in, zero for the first one.
  package func membership() throws(StoreError) -> (index: LogIndex, bytes: [UInt8])? {
    guard let value = try self.fact(Self.membershipFact) else { return nil }
    guard value.count >= 8 else { throw .damaged(.fact(Self.membershipFact)) }
    return (LogIndex(value.prefix(8).reduce(0) { $0 << 8 | UInt64($1) }), Array(value.dropFirst(8)))
  }

  /// The fact that keeps a membership: what the first change of a new group holds.
  package static func membershipFact(_ bytes: [UInt8]) -> Change.Fact {
    .init(key: self.membershipFact, value: self.membershipFactValue(bytes, at: .zero))
  }

  static func membershipFactValue(_ bytes: [UInt8], at index: LogIndex) -> [UInt8] {
    withUnsafeBytes(of: index.rawValue.bigEndian, Array.init) + bytes
  }
}
