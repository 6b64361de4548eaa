// SPDX-License-Identifier: Apache-2.0

/// What can happen to a replica.
public enum Event: Hashable, Sendable {
  /// The time that ``Replica/wakeAt`` named has come.
  case wake
  /// A member's message has arrived, and the payloads that came with it are at hand.
  case received(Message, from: MemberID)
  /// This write and all before it are durable.
  case persisted(WriteID)

  /// A command of so many bytes. Answered at once by ``Effect/accepted(_:at:)`` or ``Effect/rejected(_:_:)``.
  case propose(ProposalID, byteCount: Int)
  /// A linearizable read. Answered, maybe later, by ``Effect/readReady(_:at:)`` or ``Effect/readFailed(_:_:)``.
  case read(ReadID)
  /// Another membership, provided that the present one is that of index `expecting`. Answered as a proposal is.
  case changeMembership(ProposalID, to: Membership, expecting: LogIndex)
  /// Hand leadership over, to the member that is furthest if none is named. Ends with ``Effect/transferEnded(to:_:)``.
  case transferLeadership(to: MemberID?)

  /// A snapshot that ``Effect/sendSnapshot(to:atLeast:)`` asked for has been sent and is durable over there.
  case snapshotSent(to: MemberID, SnapshotMetadata)
  case snapshotFailed(to: MemberID)
  /// The driver holds this snapshot, from the leader, durably. The log on the disk is as it was.
  case snapshotInstalled(SnapshotMetadata)
  /// The driver does not need the headers up to here any more: a snapshot of its own, durable, covers them.
  case compacted(through: LogIndex)

  /// Whether the disk has room. False: this member appends nothing and does not campaign; it still votes.
  case setWritable(Bool)
  /// Whether the disk has stopped answering, where the driver knows better than by the age of a write.
  case storageStalled(Bool)
  /// The connection to a member broke: what was on its way may be lost.
  case unreachable(MemberID)
}

/// What the world must do now. See the module's page for the order.
public enum Effect: Hashable, Sendable {
  case send(Message, to: MemberID)
  case persist(Write)
  /// Everything through here is committed, and durable on this member.
  case apply(through: LogIndex)

  /// The proposal stands in the log, uncommitted. It is committed when an entry of this very position is applied, and
  /// it never will be once an entry of another term is applied at its index.
  case accepted(ProposalID, at: LogPosition)
  /// The proposal was not put into the log.
  case rejected(ProposalID, ProposalRejection)
  /// Serve the read as soon as this index is applied.
  case readReady(ReadID, at: LogIndex)
  case readFailed(ReadID, ReadFailure)

  /// The member needs entries that are gone here. Send it a snapshot of at least this index, then say
  /// ``Event/snapshotSent(to:_:)`` or ``Event/snapshotFailed(to:)``.
  case sendSnapshot(to: MemberID, atLeast: LogIndex)
  /// Another membership is in force. It may yet give way to the former one, while its entry is not committed.
  case membershipChanged(Membership, at: LogIndex)
  case leadershipChanged(Leadership)
  case transferEnded(to: MemberID?, TransferResult)
  case violation(Violation)
}

/// What must become durable. Writes are done in the order of their numbers, and the parts of one in the order of its
/// fields: a crash may keep any beginning of that, and nothing else.
public struct Write: Hashable, Sendable {
  public var id: WriteID
  /// Replaces the former one.
  public var hardState: HardState?
  /// Entries of the log at this index and beyond go away.
  public var truncation: LogIndex?
  /// The index of the first of `entries`.
  public var firstIndex: LogIndex
  /// Appended to the log, with their payloads.
  public var entries: [EntryHeader]

  public init(
    id: WriteID, hardState: HardState?, truncation: LogIndex?, firstIndex: LogIndex, entries: [EntryHeader]
  ) {
    self.id = id
    self.hardState = hardState
    self.truncation = truncation
    self.firstIndex = firstIndex
    self.entries = entries
  }
}

/// What a member must never forget (dissertation, figure 3.1).
public struct HardState: Hashable, Sendable {
  public var term: Term
  /// Whom it voted for in that term.
  public var vote: MemberID?
  public static let initial = HardState(term: .zero, vote: nil)

  public init(term: Term, vote: MemberID?) {
    self.term = term
    self.vote = vote
  }
}

/// Who leads, as far as this member knows.
public struct Leadership: Hashable, Sendable {
  public var term: Term
  public var role: Role
  public var leader: MemberID?

  public init(term: Term, role: Role, leader: MemberID?) {
    self.term = term
    self.role = role
    self.leader = leader
  }
}

public enum Role: Hashable, Sendable {
  case follower
  /// Asks whether a campaign has a chance (dissertation, 9.6).
  case preCandidate
  case candidate
  case leader
}

public enum ProposalRejection: Hashable, Sendable {
  case notLeader(leader: MemberID?)
  /// Leadership is being handed over.
  case transferring(to: MemberID)
  /// The limits on what is not yet committed are reached. Later it may go.
  case tooMuchInFlight
  /// The payload is beyond ``Limits/entryByteCountMax``, or its length negative; or the membership that joins the
  /// present one and the coming has too many members.
  case tooLarge
  /// This member's disk is full or does not answer.
  case unwritable
  /// The present membership is another than the expected one: here is the index it stands at.
  case membershipConflict(current: LogIndex)
  /// The change before is not finished, or this leader has not committed an entry yet. Later it may go.
  case membershipPending
}

public enum ReadFailure: Hashable, Sendable {
  /// Nobody is known to lead.
  case noLeader
  /// Leadership ended before it was confirmed for this read.
  case leadershipLost
  /// The leader did not answer in an election timeout.
  case timeout
  /// Too many reads wait.
  case tooManyReads
}

public enum TransferResult: Hashable, Sendable {
  /// The target has been told to campaign; whether it wins is in ``Effect/leadershipChanged(_:)``.
  case handedOver
  /// The target was not ready in an election timeout, or did not take over. This member goes on leading.
  case timeout
  /// There is no such voter, or none that is fit, or this member does not lead.
  case impossible
  /// Leadership ended otherwise.
  case leadershipLost
}
