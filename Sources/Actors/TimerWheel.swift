// SPDX-License-Identifier: Apache-2.0

/// Something that is to happen at a moment. In one wheel at most.
@usableFromInline package class TimerEntry: @unchecked Sendable {
  // Unchecked: the fields are touched by the wheel alone, which is always under its driver's lock.
  fileprivate var tick: Int64 = 0
  fileprivate var next: TimerEntry?
  fileprivate unowned(unsafe) var previous: TimerEntry?
  fileprivate var isArmed = false

  @usableFromInline package init() {}

  /// Its moment has come. Called once, outside of all locks, by the timers' own task.
  func fire() {}
}

/// Timers in slots by the tick of their moment: arming and disarming cost the same whatever their number. Knows no
/// clock.
///
/// Hashed wheel: what is further away than one round stands in its slot until its round comes.
package struct TimerWheel {
  /// Timers fire so much late at most, besides what the scheduler adds, and never early.
  package static let tickNanoseconds: Int64 = 4_000_000
  private static let slotCount: Int64 = 1_024

  private var slots: [TimerEntry?] = Array(repeating: nil, count: Int(Self.slotCount))
  /// All timers of this tick and those before have fired.
  private var current: Int64
  package private(set) var count = 0
  /// No timer has an earlier tick.
  private var earliest = Int64.max

  package init(now: ActorTime) { self.current = now.nanoseconds / Self.tickNanoseconds }

  /// Rounded up, so that nothing fires early.
  private static func tick(of time: ActorTime) -> Int64 {
    let (whole, rest) = time.nanoseconds.quotientAndRemainder(dividingBy: self.tickNanoseconds)
    return rest > 0 ? whole + 1 : whole
  }

  private static func slot(of tick: Int64) -> Int { Int((tick % self.slotCount + self.slotCount) % self.slotCount) }

  /// Before `next`, nothing has to be done. nil without timers.
  package var next: ActorTime? {
    guard self.count > 0 else { return nil }
    return ActorTime(nanoseconds: min(self.earliest, .max / Self.tickNanoseconds) * Self.tickNanoseconds)
  }

  /// Does nothing if it is armed already.
  package mutating func arm(_ entry: TimerEntry, at time: ActorTime) {
    guard !entry.isArmed else { return }
    // What is due already comes with the next tick.
    entry.tick = max(Self.tick(of: time), self.current + 1)
    entry.isArmed = true
    let slot = Self.slot(of: entry.tick)
    entry.previous = nil
    entry.next = self.slots[slot]
    entry.next?.previous = entry
    self.slots[slot] = entry
    self.count += 1
    self.earliest = min(self.earliest, entry.tick)
  }

  /// Does nothing if it is not armed.
  package mutating func disarm(_ entry: TimerEntry) {
    guard entry.isArmed else { return }
    entry.isArmed = false
    let next = entry.next
    entry.next = nil
    next?.previous = entry.previous
    if let previous = entry.previous {
      previous.next = next
      entry.previous = nil
    } else {
      self.slots[Self.slot(of: entry.tick)] = next
    }
    self.count -= 1
  }

  /// Takes out all whose moment has come, those of earlier ticks first.
  package mutating func advance(to now: ActorTime) -> [TimerEntry] {
    let target = now.nanoseconds / Self.tickNanoseconds
    guard target > self.current else { return [] }
    var due: [TimerEntry] = []
    if self.count > 0, self.earliest <= target {
      // Each slot once at most, however long nobody looked.
      let first = max(self.current + 1, min(self.earliest, target))
      for tick in first...min(target, first + Self.slotCount - 1) {
        var entry = self.slots[Self.slot(of: tick)]
        while let present = entry {
          entry = present.next
          guard present.tick <= target else { continue }
          self.disarm(present)
          due.append(present)
        }
      }
      due.sort { $0.tick < $1.tick }
    }
    self.current = target
    self.findEarliest()
    return due
  }

  /// The first tick of this round with a timer in its slot, whichever round that is for: it is looked at again then.
  private mutating func findEarliest() {
    self.earliest = .max
    guard self.count > 0 else { return }
    for tick in (self.current + 1)...(self.current + Self.slotCount) where self.slots[Self.slot(of: tick)] != nil {
      self.earliest = tick
      return
    }
  }
}
