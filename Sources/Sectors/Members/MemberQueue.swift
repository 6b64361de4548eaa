// SPDX-License-Identifier: Apache-2.0

/// Which of the two streams to a member.
package enum MemberLane: Hashable, Sendable, CaseIterable {
  /// For what must not wait: all but entries and their answers.
  case urgent
  case bulk
}

/// What waits for one stream. Bounded; says in ``droppedCount`` what did not fit.
package struct MemberQueue: Sendable {
  private let lane: MemberLane
  private var messages: [MemberMessage] = []
  private var byteCount = 0
  /// Messages that were dropped since the queue was made.
  package private(set) var droppedCount: UInt64 = 0

  package init(_ lane: MemberLane) { self.lane = lane }

  package var isEmpty: Bool { self.messages.isEmpty }

  package mutating func add(_ message: MemberMessage) {
    switch self.lane {
    case .urgent:
      if self.messages.count >= MemberLimits.urgentCountMax {
        let oldest = self.messages.removeFirst()
        self.byteCount -= oldest.byteCount
        self.droppedCount += 1
      }
    case .bulk:
      // A single message is taken whatever its size.
      let isFull =
        self.messages.count >= MemberLimits.bulkCountMax
        || !self.messages.isEmpty && self.byteCount + message.byteCount > MemberLimits.bulkByteCountMax
      if isFull {
        self.droppedCount += 1
        return
      }
    }
    self.byteCount += message.byteCount
    self.messages.append(message)
  }

  /// Counts a message that was not even added.
  package mutating func drop(_ count: Int = 1) { self.droppedCount += UInt64(count) }

  /// What goes out next, together: all urgent messages, or bulk messages up to the size of a request.
  package mutating func take() -> [MemberMessage] {
    var count = 0
    var byteCount = 0
    while count < self.messages.count, self.lane == .urgent || byteCount < MemberLimits.requestByteCount {
      byteCount += self.messages[count].byteCount
      count += 1
    }
    defer {
      self.messages.removeFirst(count)
      self.byteCount -= byteCount
    }
    return count == self.messages.count ? self.messages : Array(self.messages[..<count])
  }

  /// Drops everything.
  package mutating func clear() {
    self.droppedCount += UInt64(self.messages.count)
    self.messages = []
    self.byteCount = 0
  }
}
