// SPDX-License-Identifier: Apache-2.0

/// Bounds of what a session sends; the schema's, and what makes streams fast.
package enum SessionLimits {
  package static let operationsInFlight = 256
  package static let bytesInFlight = 4 << 20
  package static let operationsPerMessage = 256
  /// Larger messages make streams slow. One operation may be larger and goes alone then.
  package static let bytesPerMessage = 128 << 10
}

/// What becomes of the operations of one session stream: which wait to be sent, which wait for their answers. Decides
/// and performs nothing.
///
/// Operations are sent in the order in which they came, as many in one message as are waiting when the stream takes the
/// next. When the stream breaks, those that may be repeated wait again, before all others.
package struct SessionMachine<Operation: Sendable, Waiter: Sendable> {
  package typealias Instant = ContinuousClock.Instant

  package struct Entry: Sendable {
    package let operation: Operation
    /// What it costs to have it in flight.
    package let byteCount: Int
    /// What it takes in a message.
    package let messageByteCount: Int
    /// Whether it may be sent again when its answer was lost.
    package let isRepeatable: Bool
    package let deadline: Instant?
    /// Nil when nobody waits any more.
    package var waiter: Waiter?
    /// How often it has been sent.
    package var sentCount = 0

    package init(
      operation: Operation, byteCount: Int, messageByteCount: Int, isRepeatable: Bool, deadline: Instant?,
      waiter: Waiter?
    ) {
      self.operation = operation
      self.byteCount = byteCount
      self.messageByteCount = messageByteCount
      self.isRepeatable = isRepeatable
      self.deadline = deadline
      self.waiter = waiter
    }
  }

  private var queue: [UInt64] = []
  /// What stands before this has been taken from the queue.
  private var head = 0
  private var entries: [UInt64: Entry] = [:]
  private var lastID: UInt64 = 0
  private var inFlight: Set<UInt64> = []
  private var bytesInFlight = 0
  package private(set) var isClosed = false

  package init() {}

  package var isIdle: Bool { self.entries.isEmpty }

  /// Whether something may have been carried out that nobody has answered.
  package var hasUnsettled: Bool { self.entries.contains { $0.value.sentCount > 0 } }

  /// The next operation's id.
  package mutating func nextID() -> UInt64 {
    self.lastID += 1
    return self.lastID
  }

  /// Takes an operation; false when the session is closed.
  package mutating func add(_ entry: Entry, id: UInt64) -> Bool {
    guard !self.isClosed else { return false }
    self.entries[id] = entry
    self.queue.append(id)
    return true
  }

  /// Whether there would be a next message.
  package var canSend: Bool {
    guard let entry = self.queue[self.head...].lazy.compactMap({ self.entries[$0] }).first else { return false }
    return self.hasRoom(for: entry)
  }

  private func hasRoom(for entry: Entry) -> Bool {
    if self.inFlight.isEmpty { return true }
    return self.inFlight.count < SessionLimits.operationsInFlight
      && self.bytesInFlight + entry.byteCount <= SessionLimits.bytesInFlight
  }

  /// The operations of the next message; none when nothing waits or enough is in flight.
  package mutating func takeBatch() -> [(id: UInt64, operation: Operation)] {
    var batch: [(id: UInt64, operation: Operation)] = []
    var messageByteCount = 0
    while self.head < self.queue.count, batch.count < SessionLimits.operationsPerMessage {
      let id = self.queue[self.head]
      guard let entry = self.entries[id] else {
        self.head += 1
        continue
      }
      guard self.hasRoom(for: entry) else { break }
      guard batch.isEmpty || messageByteCount + entry.messageByteCount <= SessionLimits.bytesPerMessage else { break }
      self.head += 1
      self.inFlight.insert(id)
      self.bytesInFlight += entry.byteCount
      messageByteCount += entry.messageByteCount
      self.entries[id]?.sentCount += 1
      batch.append((id, entry.operation))
    }
    if self.head > 1024 || self.head == self.queue.count {
      self.queue.removeFirst(self.head)
      self.head = 0
    }
    return batch
  }

  /// An answer came. Returns who waits for it, and whether it was to an operation of ours at all.
  package mutating func finish(_ id: UInt64) -> (isKnown: Bool, waiter: Waiter?, sentCount: Int) {
    guard self.inFlight.remove(id) != nil, let entry = self.entries.removeValue(forKey: id) else {
      return (false, nil, 0)
    }
    self.bytesInFlight -= entry.byteCount
    return (true, entry.waiter, entry.sentCount)
  }

  /// The process said that it has not done this, and that another one should: the operation waits again, before all
  /// others. Returns whether it was one of ours.
  package mutating func putBack(_ id: UInt64) -> Bool {
    guard self.inFlight.remove(id) != nil, let entry = self.entries[id] else { return false }
    self.bytesInFlight -= entry.byteCount
    guard entry.waiter != nil else {
      self.entries[id] = nil
      return true
    }
    // As if it had never been sent.
    self.entries[id]?.sentCount -= 1
    // Those that were put back before keep their order.
    let index = self.queue[self.head...].firstIndex { $0 > id } ?? self.queue.endIndex
    self.queue.insert(id, at: index)
    return true
  }

  /// The same for all that is in flight.
  package mutating func putBackAll() {
    for id in self.inFlight.sorted() { _ = self.putBack(id) }
  }

  /// Somebody does not wait any more. What has been sent keeps its place until it is answered.
  package mutating func abandon(_ id: UInt64) -> Waiter? {
    guard let waiter = self.entries[id]?.waiter else { return nil }
    if self.inFlight.contains(id) {
      self.entries[id]?.waiter = nil
    } else {
      self.entries[id] = nil
    }
    return waiter
  }

  /// Those for whom it is too late.
  package mutating func expire(_ now: Instant) -> [Waiter] {
    let late = self.entries.filter { $0.value.deadline.map { $0 <= now } ?? false }.keys.sorted()
    return late.compactMap { self.abandon($0) }
  }

  /// The stream broke. What may be repeated waits again; returns those whose operations are lost.
  package mutating func streamBroke() -> [Waiter] {
    var lost: [Waiter] = []
    var again: [UInt64] = []
    for id in self.inFlight.sorted() {
      guard let entry = self.entries[id] else { continue }
      if entry.isRepeatable, entry.waiter != nil {
        again.append(id)
      } else {
        self.entries[id] = nil
        if let waiter = entry.waiter { lost.append(waiter) }
      }
    }
    self.inFlight = []
    self.bytesInFlight = 0
    self.queue.replaceSubrange(..<self.head, with: again)
    self.head = 0
    return lost
  }

  /// No more operations; returns all who wait, and how often theirs have been sent.
  package mutating func close() -> [(waiter: Waiter, sentCount: Int)] {
    self.isClosed = true
    let waiters = self.entries.sorted { $0.key < $1.key }.compactMap { _, entry in
      entry.waiter.map { (waiter: $0, sentCount: entry.sentCount) }
    }
    self.entries = [:]
    self.queue = []
    self.head = 0
    self.inFlight = []
    self.bytesInFlight = 0
    return waiters
  }
}
