// SPDX-License-Identifier: Apache-2.0

package import Raft

/// One member's disk: what is durable, and the writes on their way, which a crash may lose in whole or in part.
package struct Disk: Sendable {
  package struct Entry: Hashable, Sendable {
    package var header: EntryHeader
    package var command: Command?
  }

  package struct Snapshot: Hashable, Sendable {
    package var metadata: SnapshotMetadata
    package var machine: StateMachine
  }

  package private(set) var hardState: HardState = .initial
  package private(set) var firstIndex = LogIndex(1)
  package private(set) var entries: [Entry] = []
  package private(set) var snapshot: Snapshot
  private var queue: [(write: Write, entries: [Entry])] = []

  init(_ initial: PersistentState) {
    self.snapshot = Snapshot(metadata: initial.snapshot, machine: StateMachine())
  }

  var state: PersistentState {
    PersistentState(
      hardState: self.hardState, snapshot: self.snapshot.metadata, firstIndex: self.firstIndex,
      entries: self.entries.map(\.header), applied: self.snapshot.machine.applied)
  }

  var isIdle: Bool { self.queue.isEmpty }
  var lastIndex: LogIndex { LogIndex(self.firstIndex.rawValue + UInt64(self.entries.count) - 1) }

  func entry(at index: LogIndex) -> Entry? {
    guard index >= self.firstIndex, index <= self.lastIndex else { return nil }
    return self.entries[Int(index.rawValue - self.firstIndex.rawValue)]
  }

  /// True if a crash would not lose that entry.
  func holds(_ position: LogPosition) -> Bool {
    if position.index <= self.snapshot.metadata.position.index { return true }
    return self.entry(at: position.index)?.header.term == position.term
  }

  mutating func begin(_ write: Write, _ entries: [Entry]) { self.queue.append((write, entries)) }

  /// The oldest write is durable.
  mutating func finishOldest() -> WriteID? {
    guard !self.queue.isEmpty else { return nil }
    let (write, entries) = self.queue.removeFirst()
    self.perform(write, entries[...])
    return write.id
  }

  /// Loses all that was not durable, apart from a beginning that chance decides on.
  mutating func crash(using random: inout SeededGenerator) {
    let whole = Int.random(in: 0...self.queue.count, using: &random)
    for _ in 0..<whole { _ = self.finishOldest() }
    if let (write, entries) = self.queue.first, Bool.random(using: &random) {
      var part = write
      let steps = Int.random(in: 0...2, using: &random)
      if steps < 2 { part.truncation = nil }
      if steps < 1 { part.hardState = nil }
      let count = steps < 2 && write.truncation != nil ? 0 : Int.random(in: 0...entries.count, using: &random)
      self.perform(part, steps == 0 ? [] : entries.prefix(count))
    }
    self.queue = []
  }

  private mutating func perform(_ write: Write, _ entries: ArraySlice<Entry>) {
    if let hardState = write.hardState { self.hardState = hardState }
    if let truncation = write.truncation {
      if truncation <= self.firstIndex {
        // All of the log goes: the next entry follows a snapshot.
        self.entries = []
        self.firstIndex = max(self.snapshot.metadata.position.index.next, truncation)
      } else {
        self.entries.removeLast(max(0, Int(self.lastIndex.rawValue) - Int(truncation.rawValue) + 1))
      }
    }
    if self.entries.isEmpty, !entries.isEmpty { self.firstIndex = write.firstIndex }
    for (offset, entry) in entries.enumerated() {
      // A gap is what a broken core asks for: such entries are lost, and the checks see it.
      guard write.firstIndex.rawValue + UInt64(offset) == self.lastIndex.rawValue + 1 else { return }
      self.entries.append(entry)
    }
  }

  mutating func install(_ snapshot: Snapshot) {
    guard snapshot.metadata.position.index > self.snapshot.metadata.position.index else { return }
    self.snapshot = snapshot
  }

  /// Gives up entries that a snapshot covers.
  mutating func compact(through index: LogIndex) {
    guard index >= self.firstIndex, index <= self.lastIndex, index <= self.snapshot.metadata.position.index else {
      return
    }
    self.entries.removeFirst(Int(index.rawValue - self.firstIndex.rawValue) + 1)
    self.firstIndex = index.next
  }
}
