// SPDX-License-Identifier: Apache-2.0

/// Knows which part of the state is on the disk, which is on its way there, and which has yet to be handed over.
///
/// The log of a leader goes out to others while its own write is in flight (dissertation, 10.2.1), so these differ.
package struct WriteLedger: Hashable, Sendable {
  private struct Pending: Hashable, Sendable {
    var id: WriteID
    var through: LogIndex  // The log is durable through here when the write is; a truncation lowers it.
    var carriesHardState: Bool
    var handedOver: Instant
  }

  /// The entries through here are durable, and are those of the present log.
  package private(set) var persisted: LogIndex
  /// The first entry that no write has carried.
  package private(set) var unwritten: LogIndex
  private var truncation: LogIndex?
  private var hardStateIsDirty = false
  private var pending: [Pending] = []
  private var lastID: UInt64 = 0

  package init(persisted: LogIndex) {
    self.persisted = persisted
    self.unwritten = persisted.next
  }

  package mutating func hardStateChanged() { self.hardStateIsDirty = true }

  /// The entries at `index` and beyond are gone from the log; what follows are others.
  package mutating func truncated(from index: LogIndex) {
    guard index < self.unwritten else { return }
    self.truncation = min(self.truncation ?? index, index)
    self.unwritten = index
    self.persisted = min(self.persisted, index.previous)
    for number in self.pending.indices {
      self.pending[number].through = min(self.pending[number].through, index.previous)
    }
  }

  /// A snapshot stands for the log through `index`. Maybe all of the log on the disk is void with it.
  package mutating func snapshotInstalled(through index: LogIndex, discardsLog: Bool) {
    if discardsLog {
      self.truncated(from: LogIndex(1))
      self.truncation = LogIndex(1)
      self.unwritten = index.next
    }
    self.persisted = max(self.persisted, index)
    self.unwritten = max(self.unwritten, index.next)
  }

  /// The write whose end makes term and vote durable; nil if they are.
  package var hardStateGate: WriteID? {
    if self.hardStateIsDirty { return WriteID(self.lastID + 1) }
    return self.pending.last { $0.carriesHardState }?.id
  }

  /// When the oldest write was handed over that is not done.
  package var waitingSince: Instant? { self.pending.first?.handedOver }

  package func hasWork(through last: LogIndex) -> Bool {
    self.hardStateIsDirty || self.truncation != nil || self.unwritten <= last
  }

  /// The next write, if there is something to write.
  package mutating func nextWrite(_ log: LogHeaders, _ hardState: HardState, at now: Instant) -> Write? {
    guard self.hasWork(through: log.lastIndex) else { return nil }
    self.lastID += 1
    let write = Write(
      id: WriteID(self.lastID), hardState: self.hardStateIsDirty ? hardState : nil, truncation: self.truncation,
      firstIndex: self.unwritten, entries: log.headers(from: self.unwritten, countMax: .max, byteCountMax: .max))
    self.pending.append(
      Pending(
        id: write.id, through: log.lastIndex, carriesHardState: self.hardStateIsDirty, handedOver: now))
    self.hardStateIsDirty = false
    self.truncation = nil
    self.unwritten = log.lastIndex.next
    return write
  }

  /// False if there is no such write.
  package mutating func completed(_ id: WriteID) -> Bool {
    guard id.rawValue <= self.lastID else { return false }
    while let first = self.pending.first, first.id <= id {
      self.persisted = max(self.persisted, first.through)
      self.pending.removeFirst()
    }
    return true
  }
}
