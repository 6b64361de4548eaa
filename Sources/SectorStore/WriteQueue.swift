// SPDX-License-Identifier: Apache-2.0

/// A change that waits for the writer.
struct QueuedChange: Sendable {
  var change: Change
  var pending: PendingChange
  let blockBytes: Int
  let logBytes: Int

  init(change: Change, pending: PendingChange) {
    self.change = change
    self.pending = pending
    self.blockBytes = change.blocks.reduce(0) { $0 + $1.bytes.count }
    self.logBytes = SegmentedLog.frameBytes(payload: EntryBody.byteCountMax(of: change))
  }

  var byteCount: Int { self.blockBytes + self.logBytes }
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
  private var changes: [QueuedChange] = []
  private var start = 0
  private(set) var byteCount = 0
  /// Whether the writer waits, and needs to be woken.
  private var isWriterIdle = false
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
  mutating func append(_ change: QueuedChange) throws(StoreError) -> Bool {
    switch self.phase {
    case .open: break
    case .closing: throw .closed
    case .stopped(let error): throw error
    }
    if self.isFull { throw .queueFull }
    self.changes.append(change)
    self.byteCount += change.byteCount
    defer { self.isWriterIdle = false }
    return self.isWriterIdle
  }

  enum Work {
    case batch([QueuedChange], room: [CheckedContinuation<Void, Never>])
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
    if self.count > 0 {
      let batch = self.takeBatch(batchBytes: batchBytes, logBytes: logBytes)
      defer { self.roomWaiters.removeAll() }
      return .batch(batch, room: self.roomWaiters)
    }
    if self.phase == .closing { return .stop }
    self.isWriterIdle = true
    return nil
  }

  private mutating func takeBatch(batchBytes: Int, logBytes: Int) -> [QueuedChange] {
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
    guard case .stopped = phase else { return [] }
    defer {
      self.changes.removeAll()
      self.start = 0
      self.byteCount = 0
    }
    return self.changes[self.start...].map(\.pending)
  }
}
