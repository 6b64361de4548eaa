// SPDX-License-Identifier: Apache-2.0

/// Consecutive slots.
package struct SlotRun: Hashable, Sendable {
  package var first: UInt64
  package var count: Int

  package init(first: UInt64, count: Int) {
    self.first = first
    self.count = count
  }
}

/// Which slots of one size are taken: a bitmap. Knows nothing of files.
package struct SlotPool: Sendable {
  /// A bit for each slot, 1 where it is taken. Bits beyond the capacity are 1.
  private var words: [UInt64] = []
  package private(set) var capacity = 0
  package private(set) var usedCount = 0
  /// Where the search for free slots goes on: by going round, freed slots gather into long runs.
  private var cursor = 0

  package init() {}

  package var freeCount: Int { self.capacity - self.usedCount }

  package mutating func grow(to capacity: Int) {
    assert(capacity >= self.capacity)
    let wordCount = (capacity + 63) / 64
    self.words.append(contentsOf: repeatElement(.max, count: wordCount - self.words.count))
    var slot = self.capacity
    while slot < capacity {
      if slot & 63 == 0, slot + 64 <= capacity {
        self.words[slot >> 6] = 0
        slot += 64
      } else {
        self.words[slot >> 6] &= ~(1 << UInt64(slot & 63))
        slot += 1
      }
    }
    self.capacity = capacity
  }

  /// Takes `count` slots in few runs, appended to `runs`; false where there are not so many.
  package mutating func allocate(_ count: Int, into runs: inout [SlotRun]) -> Bool {
    guard count <= self.freeCount else { return false }
    var missing = count
    // First only runs worth a write of their own, then whatever there is.
    for shortest in [min(count, 32), 1] {
      var scanned = 0
      while missing > 0, scanned < self.capacity {
        if self.cursor >= self.capacity { self.cursor = 0 }
        let (start, length, skipped) = self.nextFreeRun(from: self.cursor, atMost: missing)
        scanned += skipped + length
        self.cursor = start + length
        guard length > 0, length >= min(shortest, missing) else { continue }
        self.setUsed(start, length)
        runs.append(SlotRun(first: UInt64(start), count: length))
        missing -= length
      }
      if missing == 0 { break }
    }
    assert(missing == 0)
    return true
  }

  /// Marks a slot as taken; false where it is taken already or does not exist.
  package mutating func take(_ slot: UInt64) -> Bool {
    guard slot < UInt64(self.capacity) else { return false }
    let mask: UInt64 = 1 << (slot & 63)
    guard self.words[Int(slot >> 6)] & mask == 0 else { return false }
    self.words[Int(slot >> 6)] |= mask
    self.usedCount += 1
    return true
  }

  package mutating func release(_ slot: UInt64) {
    let mask: UInt64 = 1 << (slot & 63)
    assert(self.words[Int(slot >> 6)] & mask != 0)
    self.words[Int(slot >> 6)] &= ~mask
    self.usedCount -= 1
  }

  package mutating func release(_ runs: [SlotRun]) {
    for run in runs {
      for slot in run.first..<run.first + UInt64(run.count) { self.release(slot) }
    }
  }

  /// The first run of free slots from `start` on, cut at `atMost`, and how many taken slots lie before it. Its length
  /// is 0 where there is none up to the end.
  private func nextFreeRun(from start: Int, atMost: Int) -> (start: Int, length: Int, skipped: Int) {
    var slot = start
    while slot < self.capacity {
      let free = ~self.words[slot >> 6] >> UInt64(slot & 63)
      if free != 0 {
        slot += free.trailingZeroBitCount
        break
      }
      slot = (slot | 63) + 1
    }
    guard slot < self.capacity else { return (self.capacity, 0, self.capacity - start) }
    var end = slot
    while end < self.capacity, end - slot < atMost {
      let taken = self.words[end >> 6] >> UInt64(end & 63)
      if taken != 0 {
        end += taken.trailingZeroBitCount
        break
      }
      end = (end | 63) + 1
    }
    end = min(end, self.capacity, slot + atMost)
    return (slot, end - slot, slot - start)
  }

  private mutating func setUsed(_ start: Int, _ length: Int) {
    var slot = start
    let end = start + length
    while slot < end {
      if slot & 63 == 0, slot + 64 <= end {
        self.words[slot >> 6] = .max
        slot += 64
      } else {
        self.words[slot >> 6] |= 1 << UInt64(slot & 63)
        slot += 1
      }
    }
    self.usedCount += length
  }
}
