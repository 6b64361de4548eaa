// SPDX-License-Identifier: Apache-2.0

/// Looks for an order of one key's operations that the model allows.
///
/// Wing and Gong, "Testing and verifying concurrent objects" (1993), with the memory of Lowe, "Testing for
/// linearizability" (2017): the invocations and returns form a linked list in the order of time. An operation whose
/// invocation stands before the first return in the list may come next; placing it takes both its events out. If the
/// first return is reached, its operation can not wait any longer, so the last placement is taken back. A pair of (set
/// of placed operations, state) is looked at once only, however many orders lead to it.
///
/// Operations of unknown outcome never return and may stay unplaced; they are kept outside of the list. They are tried
/// last, and only as long as they can matter: see `advance`.
struct Search {
  struct Interval {
    var invoked: UInt64
    /// Nil for an unknown outcome.
    var returned: UInt64?
    /// Of an unknown outcome: the last one before it that asked the same, if there is one.
    var twin: Int?
  }

  struct Move {
    var operation: Int
    /// The state after it.
    var state: Int
  }

  /// Where the search stood: what it had placed, and which operations had to come next, one of them, but could not.
  struct Place {
    var path: [Move] = []
    var candidates: [Int] = []
  }

  enum Outcome {
    case placedAll
    case stuck(Place)
    case outOfSteps(Place)
  }

  private struct Frame {
    var operation: Int
    /// The event from which to go on if this placement is taken back.
    var event: Int
    var stateBefore: Int
    var shadowsBefore: [Int]
  }

  private struct Score: Comparable {
    var rank: Int
    var completed: Int
    var unknown: Int

    static func < (left: Self, right: Self) -> Bool {
      (left.rank, left.completed, right.unknown) < (right.rank, right.completed, left.unknown)
    }
  }

  private let intervals: [Interval]
  private let completedCount: Int
  private let stepsMax: Int
  private(set) var stepsTaken = 0

  // Events 2i and 2i + 1 are the invocation and the return of operation i; the last index is the list's head and end.
  private var next: [Int]
  private var previous: [Int]
  private let head: Int
  /// The place of each event in the order of time.
  private var rank: [Int]

  private var placedCompleted: Bits
  private var placedUnknown: Bits
  private var placedCount = 0  // Of those that returned.
  private var frames: [Frame] = []
  private var state = 0
  /// For each placed operation of unknown outcome that nothing needed yet: the state that would be without it.
  private var shadows: [Int] = []
  /// The configurations that were met, each with the sets of unknown outcomes that were placed in it.
  private var seen: [Configuration: [[UInt64]]] = [:]

  private var furthest = Place()
  private var furthestScore = Score(rank: -1, completed: 0, unknown: 0)
  /// So many of the first frames are the same as in `furthest`.
  private var sameDepth = 0

  /// The intervals of those that returned come first, and both groups are in the order of invocation.
  init(_ intervals: [Interval], stepsMax: Int) {
    self.intervals = intervals
    self.completedCount = intervals.count { $0.returned != nil }
    self.stepsMax = stepsMax
    let count = self.completedCount
    assert(intervals[count...].allSatisfy { $0.returned == nil })
    self.placedCompleted = Bits(count: count)
    self.placedUnknown = Bits(count: intervals.count - count)
    self.head = 2 * count
    self.next = Array(repeating: 0, count: 2 * count + 1)
    self.previous = self.next

    func time(_ event: Int) -> UInt64 {
      let interval = intervals[event / 2]
      return event % 2 == 0 ? interval.invoked : interval.returned ?? .max
    }
    // At the same tick invocations come before returns: such operations overlap.
    let events = (0..<2 * count).sorted { (time($0), $0 % 2, $0) < (time($1), $1 % 2, $1) }
    self.rank = self.next
    var last = self.head
    for (rank, event) in events.enumerated() {
      self.rank[event] = rank
      self.next[last] = event
      self.previous[event] = last
      last = event
    }
    self.next[last] = self.head
    self.previous[self.head] = last
  }

  /// Runs to the end. States are numbers that the caller chooses, 0 the initial one; equal states have equal numbers.
  /// `step` gives the state after an operation, or nil if it is not possible in this state.
  /// `isSpent` says whether an operation of unknown outcome can change nothing in a state and in all that follow.
  mutating func run(
    step: (_ state: Int, _ operation: Int) -> Int?, isSpent: (_ state: Int, _ operation: Int) -> Bool
  ) -> Outcome {
    var event = self.next[self.head]
    var unknown = 0  // The first operation of unknown outcome that was not tried here.
    while self.next[self.head] != self.head {
      guard self.stepsTaken < self.stepsMax else { return .outOfSteps(self.furthest) }
      if event % 2 == 0 {
        let isPlaced = self.place(event / 2, resumingAt: event, step, isSpent)
        event = isPlaced ? self.next[self.head] : self.next[event]
        unknown = 0
        continue
      }
      // The first return: all that had to come before it were tried. What is left are unknown outcomes.
      if self.placeUnknown(from: unknown, before: event, step, isSpent) {
        event = self.next[self.head]
        unknown = 0
        continue
      }
      self.noteFurthest(before: event)
      guard let frame = self.takeBack() else { return .stuck(self.furthest) }
      if frame.operation < self.completedCount {
        event = self.next[frame.event]
        unknown = 0
      } else {
        event = frame.event
        unknown = frame.operation - self.completedCount + 1
      }
    }
    return .placedAll
  }

  /// Places the next operation of unknown outcome, if any of those invoked before this return leads to something new.
  private mutating func placeUnknown(
    from first: Int, before event: Int, _ step: (Int, Int) -> Int?, _ isSpent: (Int, Int) -> Bool
  ) -> Bool {
    let limit = self.intervals[event / 2].returned ?? .max
    var operation = self.completedCount + first
    while operation < self.intervals.count, self.intervals[operation].invoked <= limit {
      let index = operation - self.completedCount
      // Of those that asked the same the first one will do: where a later one could be, it could be too.
      let isFirst = self.intervals[operation].twin.map { self.placedUnknown[$0 - self.completedCount] } ?? true
      if isFirst, !self.placedUnknown[index], self.place(operation, resumingAt: event, step, isSpent) { return true }
      operation += 1
    }
    return false
  }

  /// Places an operation next, unless the model does not allow it or nothing is gained by it.
  private mutating func place(
    _ operation: Int, resumingAt event: Int, _ step: (Int, Int) -> Int?, _ isSpent: (Int, Int) -> Bool
  ) -> Bool {
    guard let advanced = self.advance(operation, step) else { return false }
    self.lift(operation)
    // With nothing left in the list the search is over, and there is no first operation to count from.
    if self.next[self.head] != self.head {
      let configuration = Configuration(self.placedCompleted, from: self.next[self.head] / 2, state: advanced.state)
      guard self.isNew(configuration, isSpent: { isSpent(advanced.state, $0) }) else {
        self.putBack(operation)
        return false
      }
    }
    self.frames.append(
      Frame(operation: operation, event: event, stateBefore: self.state, shadowsBefore: self.shadows))
    self.state = advanced.state
    self.shadows = advanced.shadows
    return true
  }

  /// Remembers a configuration, unless one was met that has placed the same or fewer operations of unknown outcome, not
  /// counting those that are spent: all that can follow on this one can follow on that one too.
  private mutating func isNew(_ configuration: Configuration, isSpent: (Int) -> Bool) -> Bool {
    if let met = self.seen[configuration] {
      self.stepsTaken += met.count >> 4  // A long list costs time as well.
      let firstUnknown = self.completedCount
      let isCovered = met.contains { self.placedUnknown.contains($0) { isSpent(firstUnknown + $0) } }
      if isCovered { return false }
    }
    self.seen[configuration, default: []].append(Array(self.placedUnknown.words[..<self.placedUnknown.end]))
    return true
  }

  /// The state and the shadows after an operation, or nil if it is not possible or not worth a look.
  ///
  /// An operation of unknown outcome is redundant if without it, and with the same operations after it, the state would
  /// be the same: whatever can follow can follow without it too, and then it is still there to be used. So a write that
  /// nobody read is dropped when another one overwrites it. Without this, n such writes would mean 2^n sets of them.
  private mutating func advance(_ operation: Int, _ step: (Int, Int) -> Int?) -> (state: Int, shadows: [Int])? {
    self.stepsTaken += 1
    guard let state = step(self.state, operation) else { return nil }
    var shadows: [Int] = []
    for shadow in self.shadows {
      self.stepsTaken += 1
      // Where the operation is not possible without it, it was needed, and its shadow ends.
      guard let without = step(shadow, operation) else { continue }
      if without == state { return nil }
      shadows.append(without)
    }
    if operation >= self.completedCount {
      if state == self.state { return nil }
      shadows.append(self.state)
    }
    return (state, shadows)
  }

  private mutating func takeBack() -> Frame? {
    guard let frame = self.frames.popLast() else { return nil }
    self.putBack(frame.operation)
    self.state = frame.stateBefore
    self.shadows = frame.shadowsBefore
    self.sameDepth = min(self.sameDepth, self.frames.count)
    return frame
  }

  /// Takes an operation out of those that are left.
  private mutating func lift(_ operation: Int) {
    guard operation < self.completedCount else {
      self.placedUnknown[operation - self.completedCount] = true
      return
    }
    self.placedCompleted[operation] = true
    self.placedCount += 1
    for event in [2 * operation, 2 * operation + 1] {
      self.next[self.previous[event]] = self.next[event]
      self.previous[self.next[event]] = self.previous[event]
    }
  }

  /// Undoes the last `lift`: the events still know their neighbours.
  private mutating func putBack(_ operation: Int) {
    guard operation < self.completedCount else {
      self.placedUnknown[operation - self.completedCount] = false
      return
    }
    self.placedCompleted[operation] = false
    self.placedCount -= 1
    for event in [2 * operation + 1, 2 * operation] {
      self.next[self.previous[event]] = event
      self.previous[self.next[event]] = event
    }
  }

  /// Remembers this place if no other got to a later return, or to the same one with more operations placed; of those
  /// alike, the one with the fewest of unknown outcome.
  ///
  /// At the best place the model allows none of the candidates: with one more placed it would not have been the best.
  private mutating func noteFurthest(before event: Int) {
    let unknown = self.frames.count - self.placedCount
    let score = Score(rank: self.rank[event], completed: self.placedCount, unknown: unknown)
    guard self.furthestScore < score else { return }
    self.furthestScore = score
    // The beginning of the path is nearly always the same as last time.
    self.furthest.path.removeSubrange(self.sameDepth...)
    for depth in self.sameDepth..<self.frames.count {
      let after = depth + 1 < self.frames.count ? self.frames[depth + 1].stateBefore : self.state
      self.furthest.path.append(Move(operation: self.frames[depth].operation, state: after))
    }
    self.sameDepth = self.frames.count
    self.furthest.candidates = [event / 2]
    var call = self.next[self.head]
    while call != event {
      if call / 2 != event / 2 { self.furthest.candidates.append(call / 2) }
      call = self.next[call]
    }
  }
}
