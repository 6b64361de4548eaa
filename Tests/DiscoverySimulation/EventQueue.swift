// SPDX-License-Identifier: Apache-2.0

internal import Routes

/// What is to happen, by when; of what happens at the same moment, first what was said first.
struct EventQueue<Event: Sendable>: Sendable {
  private struct Item: Sendable {
    let time: RouteTime
    let number: UInt64
    let event: Event

    func comes(before other: Item) -> Bool {
      self.time == other.time ? self.number < other.number : self.time < other.time
    }
  }

  private var heap: [Item] = []
  private var number: UInt64 = 0

  mutating func add(_ event: Event, at time: RouteTime) {
    self.heap.append(Item(time: time, number: self.number, event: event))
    self.number += 1
    var child = self.heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard self.heap[child].comes(before: self.heap[parent]) else { break }
      self.heap.swapAt(child, parent)
      child = parent
    }
  }

  mutating func next() -> (time: RouteTime, event: Event)? {
    guard let first = self.heap.first, let last = self.heap.popLast() else { return nil }
    guard !self.heap.isEmpty else { return (first.time, first.event) }
    self.heap[0] = last
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < self.heap.count {
        if self.heap[child].comes(before: self.heap[least]) { least = child }
      }
      guard least != parent else { break }
      self.heap.swapAt(parent, least)
      parent = least
    }
    return (first.time, first.event)
  }
}
