// SPDX-License-Identifier: Apache-2.0

/// A term of leadership: at most one member leads in each (dissertation, 3.3). Zero is before the first.
public struct Term: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public static let zero = Term(0)
  public static func < (left: Term, right: Term) -> Bool { left.rawValue < right.rawValue }

  /// The following term. It cannot overflow: no term beyond `Limits.termMax` is ever accepted.
  package var next: Term { Term(self.rawValue &+ 1) }
}

/// The position of an entry in the log: 1 for the first, consecutive. Zero is before the first.
public struct LogIndex: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public static let zero = LogIndex(0)
  public static func < (left: LogIndex, right: LogIndex) -> Bool { left.rawValue < right.rawValue }

  /// The index after this one. It cannot overflow: no index beyond `Limits.indexMax` is ever accepted.
  public var next: LogIndex { LogIndex(self.rawValue &+ 1) }
  /// The index before this one; zero for zero.
  public var previous: LogIndex { LogIndex(self.rawValue == 0 ? 0 : self.rawValue &- 1) }

  /// How many indexes lie in `(other, self]`; zero if there are none.
  package func distance(after other: LogIndex) -> Int {
    self > other ? Int(clamping: self.rawValue &- other.rawValue) : 0
  }
}

/// A place in the log, and the term of the entry there. Greater means more up to date (dissertation, 3.6.1).
public struct LogPosition: Hashable, Comparable, Sendable {
  public var index: LogIndex
  public var term: Term
  public static let zero = LogPosition(index: .zero, term: .zero)

  public init(index: LogIndex, term: Term) {
    self.index = index
    self.term = term
  }

  public static func < (left: LogPosition, right: LogPosition) -> Bool {
    left.term == right.term ? left.index < right.index : left.term < right.term
  }
}

/// One member of a group. The number is the group's business; it must never be given to another member.
public struct MemberID: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public static func < (left: MemberID, right: MemberID) -> Bool { left.rawValue < right.rawValue }
}

/// Which life of a group a message belongs to. Recovery after the loss of a majority raises it, and whoever has another
/// one is not heard any more.
public struct GroupIncarnation: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// Names one ``Write``. They count up from 1 in each life of a replica, without gaps.
public struct WriteID: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public static func < (left: WriteID, right: WriteID) -> Bool { left.rawValue < right.rawValue }
}

/// Names a proposal towards the driver, which chooses it; never sent to anyone.
public struct ProposalID: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// Names a read towards the driver, which chooses it; never sent to anyone.
public struct ReadID: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// Counts the heartbeat rounds of one leader in one term.
public struct HeartbeatRound: RawRepresentable, Hashable, Comparable, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public static let zero = HeartbeatRound(0)
  public static func < (left: HeartbeatRound, right: HeartbeatRound) -> Bool { left.rawValue < right.rawValue }
}

/// A question of a follower to its leader: which index must it have applied to serve a read?
public struct ReadNonce: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}
