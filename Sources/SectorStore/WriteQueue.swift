// SPDX-License-Identifier: Apache-2.0

/// What waits for the writer.
struct QueuedWork: Sendable {
  enum Work: Sendable {
    /// A change that the store numbers itself, and applies as soon as it is durable.
    case change(Change, PendingChange)
    /// What the owner of the log numbered, and will say when to apply.
    case write(LogWrite)
  }

  let work: Work
  let blockBytes: Int
  let logBytes: Int

  init(change: Change, pending: PendingChange, _ configuration: StoreConfiguration) {
    self.work = .change(change, pending)
    (self.blockBytes, self.logBytes) = Self.byteCounts(.change(change), configuration)
  }

  private init(write: LogWrite, blockBytes: Int, logBytes: Int) {
    self.work = .write(write)
    self.blockBytes = blockBytes
    self.logBytes = logBytes
  }

  /// A write in pieces, in their order, that each fit into a segment together with another one. Only the last says that
  /// the write is durable.
  static func pieces(of write: LogWrite, _ configuration: StoreConfiguration) -> [QueuedWork] {
    let logBytesMax = configuration.segmentBytes / 4
    var pieces: [QueuedWork] = []
    var rest = write
    rest.entries = []
    var (blockBytes, logBytes) = (0, SegmentedLog.hardStateBytes)
    for entry in write.entries {
      let bytes = Self.byteCounts(entry.payload, configuration)
      if !rest.entries.isEmpty, logBytes + bytes.log > logBytesMax {
        let next = LogIndex(rest.firstIndex.rawValue + UInt64(rest.entries.count))
        rest.id = nil
        pieces.append(QueuedWork(write: rest, blockBytes: blockBytes, logBytes: logBytes))
        rest = LogWrite(id: write.id, hardState: nil, truncation: nil, firstIndex: next, entries: [])
        (blockBytes, logBytes) = (0, SegmentedLog.hardStateBytes)
      }
      rest.entries.append(entry)
      blockBytes += bytes.blocks
      logBytes += bytes.log
    }
    pieces.append(QueuedWork(write: rest, blockBytes: blockBytes, logBytes: logBytes))
    return pieces
  }

  /// What an entry takes, at most: bytes that go to slots before it is in the log, and bytes of its frame.
  private static func byteCounts(
    _ payload: LogPayload, _ configuration: StoreConfiguration
  ) -> (blocks: Int, log: Int) {
    switch payload {
    case .change(let change):
      let (body, blocks) = (EntryBody.byteCountMax(of: change), Self.blockBytes(change))
      if EntryBody.isInlined(change, configuration) {
        return (0, SegmentedLog.frameBytes(payload: body + blocks + change.blocks.count * 4))
      }
      return (blocks, SegmentedLog.frameBytes(payload: body))
    case .noop: return (0, SegmentedLog.frameBytes(payload: 1))
    case .membership(let bytes): return (0, SegmentedLog.frameBytes(payload: bytes.count + 1))
    }
  }

  static func blockBytes(_ change: Change) -> Int { change.blocks.reduce(0) { $0 + $1.bytes.count } }

  var byteCount: Int { self.blockBytes + self.logBytes }

  var pending: PendingChange? {
    if case .change(_, let pending) = self.work { pending } else { nil }
  }
}

/// A question of where entries are in the log; the answer is empty where they are not.
struct LogLookup: Sendable {
  var range: ClosedRange<LogIndex>
  var continuation: CheckedContinuation<[SegmentedLog.Place], Never>
}

/// Something that is done on the writing thread between batches, for repairs. One of the two is called.
struct WriterJob: Sendable {
  var body: @Sendable (inout Writer) -> Void
  /// The store is closing or closed.
  var refuse: @Sendable () -> Void
}

/// What waits for the writer, bounded in number and bytes.
struct WriteQueue: Sendable {
  enum Phase: Hashable, Sendable {
    case open
    /// What is in the queue is still done.
    case closing
    case stopped(StoreError)
  }

  private let countMax: Int
  private let bytesMax: Int
  private(set) var phase = Phase.open
  private var changes: [QueuedWork] = []
  private var start = 0
  private(set) var byteCount = 0
  /// Whether the writer waits, and needs to be woken.
  private var isWriterIdle = false
  /// Entries through here are to be applied.
  private var applyThrough: LogIndex?
  /// A write of the log's owner found no room. Until somebody says that there may be some, none is tried.
  private(set) var isOutOfSpace = false
  /// Who wants to know where entries are.
  var lookups: [LogLookup] = []
  /// At most one for each scrub or repair, of which one runs at a time.
  private var jobs: [WriterJob] = []
  /// Log segments up to this entry may be used again.
  var recycleThrough: LogIndex?
  var roomWaiters: [CheckedContinuation<Void, Never>] = []
  var isWriterRunning = true

  init(countMax: Int, bytesMax: Int) {
    self.countMax = max(countMax, 1)
    self.bytesMax = bytesMax
  }

  var count: Int { self.changes.count - self.start }
  var isFull: Bool {
    self.phase == .open && self.count > 0 && (self.count >= self.countMax || self.byteCount >= self.bytesMax)
  }

  /// Returns whether the writer has to be woken.
  mutating func append(_ change: QueuedWork) throws(StoreError) -> Bool {
    switch self.phase {
    case .open: break
    case .closing: throw .closed
    case .stopped(let error): throw error
    }
    // The owner of the log bounds by itself what is on its way.
    if self.isFull, change.pending != nil { throw .queueFull }
    self.changes.append(change)
    self.byteCount += change.byteCount
    defer { self.isWriterIdle = false }
    return self.isWriterIdle
  }

  /// Returns whether the writer has to be woken.
  mutating func apply(through index: LogIndex) -> Bool {
    self.applyThrough = max(self.applyThrough ?? index, index)
    defer { self.isWriterIdle = false }
    return self.isWriterIdle
  }

  /// Takes back what found no room; it comes first again.
  mutating func putBack(_ work: [QueuedWork]) {
    self.changes.replaceSubrange(..<self.start, with: work)
    self.start = 0
    self.byteCount += work.reduce(0) { $0 + $1.byteCount }
    self.isOutOfSpace = true
  }

  /// There may be room again. Returns whether the writer has to be woken.
  mutating func retry() -> Bool {
    guard self.isOutOfSpace else { return false }
    self.isOutOfSpace = false
    defer { self.isWriterIdle = false }
    return self.isWriterIdle
  }

  /// Returns whether the writer has to be woken.
  mutating func look(up lookup: LogLookup) throws(StoreError) -> Bool {
    switch self.phase {
    case .open: break
    case .closing: throw .closed
    case .stopped(let error): throw error
    }
    self.lookups.append(lookup)
    defer { self.isWriterIdle = false }
    return self.isWriterIdle
  }

  /// Returns whether the writer has to be woken.
  mutating func append(_ job: WriterJob) throws(StoreError) -> Bool {
    switch self.phase {
    case .open: break
    case .closing: throw .closed
    case .stopped(let error): throw error
    }
    self.jobs.append(job)
    defer { self.isWriterIdle = false }
    return self.isWriterIdle
  }

  enum Work {
    case lookups([LogLookup])
    case jobs([WriterJob])
    case batch([QueuedWork], room: [CheckedContinuation<Void, Never>])
    case apply(through: LogIndex)
    case recycle(LogIndex)
    case stop
  }

  /// What the writer does next, nil while it waits.
  mutating func next(batchBytes: Int, logBytes: Int) -> Work? {
    if case .stopped = self.phase { return .stop }
    // First, since there may never be a moment without changes that wait, and the log would grow until the disk is full.
    if let index = self.recycleThrough {
      self.recycleThrough = nil
      return .recycle(index)
    }
    if !self.lookups.isEmpty {
      defer { self.lookups.removeAll() }
      return .lookups(self.lookups)
    }
    if !self.jobs.isEmpty {
      defer { self.jobs.removeAll() }
      return .jobs(self.jobs)
    }
    if let index = self.applyThrough {
      self.applyThrough = nil
      return .apply(through: index)
    }
    if self.count > 0, !self.isOutOfSpace {
      let batch = self.takeBatch(batchBytes: batchBytes, logBytes: logBytes)
      defer { self.roomWaiters.removeAll() }
      return .batch(batch, room: self.roomWaiters)
    }
    if self.phase == .closing { return .stop }
    self.isWriterIdle = true
    return nil
  }

  private mutating func takeBatch(batchBytes: Int, logBytes: Int) -> [QueuedWork] {
    var end = self.start
    var (blocks, log) = (0, 0)
    while end < self.changes.count {
      blocks += self.changes[end].blockBytes
      log += self.changes[end].logBytes
      if end > self.start, blocks > batchBytes || log > logBytes { break }
      self.byteCount -= self.changes[end].byteCount
      end += 1
    }
    let batch = Array(self.changes[self.start..<end])
    if end == self.changes.count {
      self.changes.removeAll(keepingCapacity: true)
      self.start = 0
    } else {
      // Moved down only now and then, so that a long queue costs no more than a short one.
      self.start = end
      if self.start > self.changes.count / 2 {
        self.changes.removeSubrange(..<self.start)
        self.start = 0
      }
    }
    return batch
  }

  /// Goes to a later phase, and returns what is refused by it.
  mutating func end(_ phase: Phase) -> [PendingChange] {
    if case .stopped = self.phase { return [] }
    self.phase = phase
    let waiters = self.roomWaiters
    self.roomWaiters.removeAll()
    for waiter in waiters { waiter.resume() }
    for lookup in self.lookups { lookup.continuation.resume(returning: []) }
    self.lookups.removeAll()
    for job in self.jobs { job.refuse() }
    self.jobs.removeAll()
    guard case .stopped = phase else { return [] }
    defer {
      self.changes.removeAll()
      self.start = 0
      self.byteCount = 0
    }
    return self.changes[self.start...].compactMap(\.pending)
  }
}
