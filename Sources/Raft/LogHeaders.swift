// SPDX-License-Identifier: Apache-2.0

/// The headers of the log after a compaction point, 16 bytes each, and the memberships that stand in them.
package struct LogHeaders: Hashable, Sendable {
  /// A membership, and the index of its entry.
  package struct MembershipRecord: Hashable, Sendable {
    package var index: LogIndex
    package var membership: Membership
  }

  private struct Slot: Hashable, Sendable {
    var term: Term
    var code: UInt64  // The byte count times four, plus the kind: 0 command, 1 noop, 2 membership.
  }

  /// The compaction point: the last entry whose header is gone.
  package private(set) var base: LogPosition
  /// The one in force at `base`, then those of the headers, in their order.
  package private(set) var memberships: [MembershipRecord]

  private var slots: [Slot] = []
  private var dropped = 0  // So many at the front of `slots` are void: dropping is amortised.

  package init(base: LogPosition, membership: Membership) {
    self.base = base
    self.memberships = [MembershipRecord(index: base.index, membership: membership)]
  }

  package var count: Int { self.slots.count - self.dropped }
  package var lastIndex: LogIndex { LogIndex(self.base.index.rawValue &+ UInt64(self.count)) }
  package var last: LogPosition {
    guard self.count > 0, let slot = self.slots.last else { return self.base }
    return LogPosition(index: self.lastIndex, term: slot.term)
  }
  /// The one in force.
  package var membership: MembershipRecord { self.memberships[self.memberships.count - 1] }

  /// The one in force at an index.
  package func membership(at index: LogIndex) -> Membership {
    (self.memberships.last { $0.index <= index } ?? self.memberships[0]).membership
  }

  /// True for a voter of the membership in force at an index, or of any after it.
  func mayBeVoter(_ member: MemberID, from index: LogIndex) -> Bool {
    let first = self.memberships.lastIndex { $0.index <= index } ?? 0
    return self.memberships[first...].contains { $0.membership.isVoter(member) }
  }

  private func slotNumber(_ index: LogIndex) -> Int? {
    guard index > self.base.index, index <= self.lastIndex else { return nil }
    return self.dropped + index.distance(after: self.base.index) - 1
  }

  /// Nil before the compaction point and after the end.
  package func term(at index: LogIndex) -> Term? {
    if index == self.base.index { return self.base.term }
    return self.slotNumber(index).map { self.slots[$0].term }
  }

  /// The payload's length; zero where there is no header.
  package func byteCount(at index: LogIndex) -> Int {
    self.slotNumber(index).map { Int(self.slots[$0].code >> 2) } ?? 0
  }

  func hasMembership(at index: LogIndex) -> Bool {
    self.slotNumber(index).map { self.slots[$0].code & 3 == 2 } ?? false
  }

  package func header(at index: LogIndex) -> EntryHeader? {
    guard let number = self.slotNumber(index) else { return nil }
    let slot = self.slots[number]
    return switch slot.code & 3 {
    case 0: EntryHeader(term: slot.term, kind: .command, byteCount: Int(slot.code >> 2))
    case 1: EntryHeader(term: slot.term, kind: .noop)
    default: EntryHeader(term: slot.term, kind: .membership(self.membership(at: index)))
    }
  }

  /// The headers from `first` on: at most `countMax`, and after the first no more than fit into `byteCountMax`.
  package func headers(from first: LogIndex, countMax: Int, byteCountMax: Int) -> [EntryHeader] {
    var result: [EntryHeader] = []
    result.reserveCapacity(min(countMax, self.lastIndex.next.distance(after: first)))
    var bytes = 0
    var index = first
    while result.count < countMax, let header = self.header(at: index) {
      bytes += header.byteCount
      if bytes > byteCountMax, !result.isEmpty { break }
      result.append(header)
      index = index.next
    }
    return result
  }

  package mutating func append(_ header: EntryHeader) {
    let code: UInt64
    switch header.kind {
    case .command: code = UInt64(clamping: header.byteCount) << 2
    case .noop: code = 1
    case .membership(let membership):
      code = 2
      self.memberships.append(MembershipRecord(index: self.lastIndex.next, membership: membership))
    }
    self.slots.append(Slot(term: header.term, code: code))
  }

  /// Drops the entries at `index` and beyond; with them, their memberships are not in force any more.
  package mutating func truncate(from index: LogIndex) {
    guard let number = self.slotNumber(index) else { return }
    self.slots.removeSubrange(number...)
    while self.memberships.count > 1, self.membership.index >= index { self.memberships.removeLast() }
  }

  /// Drops the headers up to `index`; without effect if there is none at `index`.
  package mutating func compact(through index: LogIndex) {
    guard let number = self.slotNumber(index) else { return }
    self.base = LogPosition(index: index, term: self.slots[number].term)
    while self.memberships.count > 1, self.memberships[1].index <= index { self.memberships.removeFirst() }
    self.dropped = number + 1
    if self.dropped > 1024, self.dropped > self.slots.count / 2 {
      self.slots.removeSubrange(..<self.dropped)
      self.dropped = 0
    }
  }

  /// Replaces what is known of the compaction point by a snapshot's word.
  mutating func rebase(on membership: MembershipRecord) {
    self.memberships[0] = membership
  }

  /// The last position up to `index` whose term is at most `term`: where two logs may agree (dissertation, 3.5).
  package func lastPosition(upTo index: LogIndex, termAtMost term: Term) -> LogPosition {
    var index = min(index, self.lastIndex)
    while let here = self.term(at: index) {
      if here <= term || index == self.base.index { return LogPosition(index: index, term: here) }
      index = index.previous
    }
    return self.base
  }
}
