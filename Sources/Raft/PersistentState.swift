// SPDX-License-Identifier: Apache-2.0

/// What a driver found on its disk at the start.
public struct PersistentState: Hashable, Sendable {
  public var hardState: HardState
  /// The newest durable snapshot; for a member that has none, position zero and the membership it begins with.
  public var snapshot: SnapshotMetadata
  /// The index of the first of `entries`: at most one after the snapshot's, and just that if there are none.
  public var firstIndex: LogIndex
  /// The log, without gaps. It may begin before the snapshot; entries before it were never dropped from it unless a
  /// write said so, or ``Event/compacted(through:)`` went before.
  public var entries: [EntryHeader]
  /// How far the state machine on the disk has come: not before the snapshot, not after the log.
  public var applied: LogIndex

  public init(
    hardState: HardState, snapshot: SnapshotMetadata, firstIndex: LogIndex, entries: [EntryHeader], applied: LogIndex
  ) {
    self.hardState = hardState
    self.snapshot = snapshot
    self.firstIndex = firstIndex
    self.entries = entries
    self.applied = applied
  }

  /// The state of a member that has never run.
  ///
  /// All first members of a group begin with the same membership, which holds them. A member that joins later begins
  /// with any membership that does not hold it as a voter.
  public static func initial(_ membership: Membership) -> PersistentState {
    PersistentState(
      hardState: .initial,
      snapshot: SnapshotMetadata(position: .zero, membership: membership, membershipIndex: .zero),
      firstIndex: LogIndex(1), entries: [], applied: .zero)
  }
}

/// Why a replica can not go on from what is on the disk.
public enum RestoreError: Error, Hashable, Sendable {
  /// Entries between the snapshot and the log are missing.
  case gapAfterSnapshot(snapshot: LogIndex, first: LogIndex)
  /// The state machine is beyond the log, or behind the snapshot.
  case appliedOutOfPlace(applied: LogIndex, snapshot: LogIndex, last: LogIndex)
  /// An entry's term is before that of the entry in front of it, or after the term of the hard state.
  case termOutOfOrder(LogIndex)
  /// A term or an index is beyond ``Limits``.
  case beyondLimits
}
