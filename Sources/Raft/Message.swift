// SPDX-License-Identifier: Apache-2.0

/// What members say to one another. The driver carries it; the sender's name comes from the authenticated connection.
///
/// Messages may be lost, repeated, delayed and reordered. All but ``Body/append(after:entries:commit:)`` are a few
/// bytes.
public struct Message: Hashable, Sendable {
  public var incarnation: GroupIncarnation
  /// The sender's term. It is on the sender's disk before the message leaves.
  public var term: Term
  public var body: Body

  public init(incarnation: GroupIncarnation, term: Term, body: Body) {
    self.incarnation = incarnation
    self.term = term
    self.body = body
  }

  public enum Body: Hashable, Sendable {
    /// "Would you vote for me in my next term?" Promises nothing (dissertation, 9.6).
    case preVoteRequest(last: LogPosition)
    /// The answer, for that next term.
    case preVoteReply(for: Term, granted: Bool)
    /// "Vote for me" (3.4). By order of the leader if it hands its leadership over (3.10).
    case voteRequest(last: LogPosition, isTransfer: Bool)
    case voteReply(granted: Bool)

    /// Keeps followers from campaigning, and asks who still follows. Meant to overtake bulk data: see ``isUrgent``.
    case heartbeat(round: HeartbeatRound, commit: LogIndex)
    case heartbeatReply(round: HeartbeatRound, isWritable: Bool)

    /// The entries after a position (3.5). The driver adds the payloads of the commands among them.
    case append(after: LogPosition, entries: [EntryHeader], commit: LogIndex)
    case appendReply(AppendResult)

    /// Campaign now, without asking whether you may (3.10).
    case timeoutNow

    /// A follower's question: which index must I have applied, to answer a reader now? (6.4)
    case readRequest(ReadNonce)
    /// The answer; nil if this leader cannot tell.
    case readReply(ReadNonce, index: LogIndex?)

    /// To a leader of an earlier term: the term is over. Says nothing but its term.
    case termNotice
  }

  public enum AppendResult: Hashable, Sendable {
    /// All entries through here are the leader's, and durable.
    case matched(LogIndex)
    /// There is another entry, or none, at `after`. The logs can agree no later than at `hint`.
    case mismatched(after: LogIndex, hint: LogPosition)
    /// The member cannot write at present.
    case unwritable
  }

  /// True for what a driver should send ahead of bulk data, on a stream of its own: all but entries and their answers.
  public var isUrgent: Bool {
    switch self.body {
    case .append, .appendReply: false
    default: true
    }
  }
}

/// Limits that no setting changes: what is beyond them is a violation, whoever says it.
public enum Limits {
  /// 2^60: a million entries per second for thirty thousand years.
  public static let indexMax = LogIndex(1 << 60)
  public static let termMax = Term(1 << 60)
  public static let entriesPerAppendMax = 1 << 16
  /// 1 TiB
  public static let entryByteCountMax = 1 << 40
}

/// Something a correct member would not have said, or a correct driver not have done. Nothing was changed by it; an
/// operator should hear of it.
public struct Violation: Hashable, Sendable {
  public enum Kind: Hashable, Sendable {
    case termBeyondLimit
    case indexBeyondLimit
    case tooManyEntries
    case entryTooLarge
    /// An entry's term is zero, after the sender's, or before that of the entry in front of it.
    case termOutOfOrder
    /// Another entry stands where one is committed already.
    case committedEntryContradicted
    /// A leader says that more is committed than it ever sent.
    case commitBeyondLog
    /// A member says it has more than the leader.
    case matchBeyondLog
    /// An answer to a heartbeat that was not sent.
    case unknownRound
    /// Two leaders in one term.
    case secondLeader
    /// A snapshot or compaction point that does not fit the log.
    case snapshotOutOfPlace
  }
  public var kind: Kind
  /// Who said it; nil for this member's own driver.
  public var member: MemberID?

  public init(kind: Kind, member: MemberID?) {
    self.kind = kind
    self.member = member
  }
}
