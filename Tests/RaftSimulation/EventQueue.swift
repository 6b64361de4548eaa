// SPDX-License-Identifier: Apache-2.0

/// What is to happen, by virtual time; what is due at the same time happens in the order in which it was scheduled.
struct EventQueue<Action> {
  private struct Item {
    var time: UInt64
    var number: UInt64
    var action: Action
    func isBefore(_ other: Item) -> Bool {
      self.time == other.time ? self.number < other.number : self.time < other.time
    }
  }

  private var heap: [Item] = []
  private var lastNumber: UInt64 = 0

  var nextTime: UInt64? { self.heap.first?.time }

  mutating func schedule(_ action: Action, at time: UInt64) {
    self.lastNumber += 1
    self.heap.append(Item(time: time, number: self.lastNumber, action: action))
    var child = self.heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard self.heap[child].isBefore(self.heap[parent]) else { return }
      self.heap.swapAt(child, parent)
      child = parent
    }
  }

  mutating func next() -> (time: UInt64, action: Action)? {
    guard let first = self.heap.first, let last = self.heap.popLast() else { return nil }
    guard !self.heap.isEmpty else { return (first.time, first.action) }
    self.heap[0] = last
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2]
      where child < self.heap.count && self.heap[child].isBefore(self.heap[least]) {
        least = child
      }
      guard least != parent else { return (first.time, first.action) }
      self.heap.swapAt(parent, least)
      parent = least
    }
  }
}
