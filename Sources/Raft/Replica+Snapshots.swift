// SPDX-License-Identifier: Apache-2.0

// Snapshots, by reference: dissertation, 5.1 to 5.3. Their bytes are the driver's business alone.
extension Replica {
  /// What a snapshot of the state machine after that entry has to say; nil before the compaction point and after what
  /// is committed.
  public func snapshotMetadata(at index: LogIndex) -> SnapshotMetadata? {
    guard index <= self.commit, let term = self.log.term(at: index) else { return nil }
    let record = self.log.memberships.last { $0.index <= index } ?? self.log.memberships[0]
    return SnapshotMetadata(
      position: LogPosition(index: index, term: term), membership: record.membership, membershipIndex: record.index)
  }

  mutating func snapshotEnded(for member: MemberID, through index: LogIndex?) {
    guard self.role == .leader, let number = self.peerNumber(member) else { return }
    self.peers[number].endSnapshot(through: index.map { min($0, self.log.lastIndex) }, at: self.now)
  }

  mutating func installed(_ metadata: SnapshotMetadata, into effects: inout [Effect]) {
    let position = metadata.position
    // Appends were faster than the snapshot.
    guard position.index > self.commit else { return }
    guard position.index <= Limits.indexMax, position.term <= Limits.termMax,
      metadata.membershipIndex <= position.index
    else { return self.violated(.snapshotOutOfPlace, by: nil, into: &effects) }
    // It may be ahead of all messages.
    if position.term > self.term { self.becomeFollower(in: position.term, leader: nil, into: &effects) }
    guard self.role != .leader || self.log.term(at: position.index) == position.term else {
      return self.violated(.snapshotOutOfPlace, by: nil, into: &effects)
    }

    let record = LogHeaders.MembershipRecord(
      index: metadata.membershipIndex,
      membership: self.mutation == .snapshotForgetsMembership ? self.membership : metadata.membership)
    if self.log.term(at: position.index) == position.term || self.mutation == .snapshotKeepsConflictingSuffix,
      self.log.lastIndex >= position.index
    {
      // Figure 5.3: what follows the snapshot's last entry stays.
      self.advanceCommit(to: position.index)
      self.log.compact(through: position.index)
      // What the snapshot made superfluous before it was ever written would be a gap in the log on the disk.
      self.ledger.snapshotInstalled(
        through: position.index, discardsLog: self.ledger.unwritten <= position.index)
    } else {
      self.log = LogHeaders(base: position, membership: metadata.membership)
      self.ledger.snapshotInstalled(through: position.index, discardsLog: true)
      self.matched = .zero
    }
    self.log.rebase(on: record)
    self.commit = position.index
    self.applying = max(self.applying, position.index)
    if self.role == .leader { return self.continueMembershipChange(into: &effects) }
    // What is committed is in the leader's log.
    self.matched = max(self.matched, position.index)
    self.owesAcknowledgement = true
  }

  mutating func compacted(through index: LogIndex, into effects: inout [Effect]) {
    guard index > self.log.base.index else { return }
    guard index <= self.commit else { return self.violated(.snapshotOutOfPlace, by: nil, into: &effects) }
    // A snapshot from the leader may be ahead of the own log; the headers stay until that has caught up.
    if index <= self.applying { self.log.compact(through: index) }
  }
}
