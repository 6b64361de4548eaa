// SPDX-License-Identifier: Apache-2.0

import Raft
import Testing

@Suite("A snapshot")
struct SnapshotTests {
  private func metadata(_ index: UInt64, _ term: UInt64, voters: [MemberID] = [1, 2, 3]) throws -> SnapshotMetadata {
    SnapshotMetadata(
      position: position(index, term), membership: try members(voters), membershipIndex: LogIndex(index / 2))
  }

  @Test("is asked for when a follower needs entries that are gone, and entries go on after it")  // Dissertation, 5.3
  func sending() throws {
    var subject = try Subject(log: commands(1, 2, 3))
    subject.lead()
    subject.step(.compacted(through: 3))
    let effects = subject.hear(3, 5, .appendReply(.mismatched(after: 3, hint: .zero)))
    #expect(effects == [.sendSnapshot(to: 3, atLeast: 3)])
    #expect(subject.step(.propose(1, byteCount: 1)).sent(to: 3).isEmpty)
    let metadata = try #require(subject.replica.snapshotMetadata(at: 4))
    let after = subject.step(.snapshotSent(to: 3, metadata)).sent(to: 3)
    #expect(
      after == [
        .append(after: position(4, 5), entries: [EntryHeader(term: 5, kind: .command, byteCount: 1)], commit: 4)
      ])
  }

  @Test("is tried again after a failure, but not at once")
  func failure() throws {
    var subject = try Subject(log: commands(1, 2, 3))
    subject.lead()
    subject.step(.compacted(through: 3))
    subject.hear(3, 5, .appendReply(.mismatched(after: 3, hint: .zero)))
    #expect(subject.step(.snapshotFailed(to: 3)).isEmpty)
    var effects: [Effect] = []
    for _ in 0..<3 { effects += subject.wake() }
    #expect(effects.contains(.sendSnapshot(to: 3, atLeast: 3)))
  }

  @Test("need not have come through the leader's own: an answer that the logs meet is enough")
  func overtaken() throws {
    var subject = try Subject(log: commands(1, 2, 3))
    subject.lead()
    subject.step(.compacted(through: 3))
    subject.hear(3, 5, .appendReply(.mismatched(after: 3, hint: .zero)))
    let effects = subject.hear(3, 5, .appendReply(.matched(3)))
    #expect(effects.sent(to: 3).count == 1)
    #expect(subject.replica.progress(of: 3)?.replication == .probing)
  }

  @Test("replaces a log that does not contain it, and brings its membership")
  func replaces() throws {
    var subject = try Subject(log: commands(1, 1, 1, 2, 2))
    subject.persistsAtOnce = false
    let metadata = try self.metadata(4, 3, voters: [1, 2])
    let effects = subject.step(.snapshotInstalled(metadata))
    #expect(effects.writes == [Write(id: 1, hardState: nil, truncation: 1, firstIndex: 5, entries: [])])
    #expect(effects.contains(.membershipChanged(metadata.membership, at: 2)))
    #expect(subject.replica.last == position(4, 3))
    #expect(subject.replica.commit == 4)
    #expect(subject.replica.snapshotMetadata(at: 4) == metadata)
  }

  @Test("leaves the rest of a log that contains it")  // Figure 5.3
  func keepsSuffix() throws {
    var subject = try Subject(log: commands(1, 1, 1, 2, 2))
    let effects = subject.step(.snapshotInstalled(try self.metadata(3, 1)))
    #expect(effects.writes.isEmpty)
    #expect(subject.replica.last == position(5, 2))
    #expect(subject.replica.status.compacted == position(3, 1))
  }

  @Test("leaves no gap in the log on the disk, if it overtakes entries that were not written yet")
  func overtakesWrite() throws {
    var subject = try Subject()
    subject.persistsAtOnce = false
    let append = subject.message(.append(after: .zero, entries: commands(1, 1, 1, 2, 2), commit: 0))
    let effects = subject.step(.received(append, from: 2), .snapshotInstalled(try self.metadata(3, 1)))
    #expect(
      effects.writes == [Write(id: 1, hardState: nil, truncation: 1, firstIndex: 4, entries: commands(2, 2))])
    #expect(effects.sent == [Sent(2, .appendReply(.matched(3)))])
  }

  @Test("may be ahead of the own disk: the headers stay until that has caught up")
  func compactionAhead() throws {
    var subject = try Subject()
    subject.persistsAtOnce = false
    subject.hear(2, 4, .append(after: .zero, entries: commands(1, 1, 1), commit: 3))
    #expect(subject.step(.compacted(through: 2)).isEmpty)
    #expect(subject.replica.status.compacted == .zero)
    subject.step(.persisted(1))
    subject.step(.compacted(through: 2))
    #expect(subject.replica.status.compacted == position(2, 1))
  }

  @Test("that comes late changes nothing")
  func late() throws {
    var subject = try Subject(log: commands(1, 1, 1))
    subject.hear(2, 4, .append(after: position(3, 1), entries: [], commit: 3))
    #expect(subject.step(.snapshotInstalled(try self.metadata(2, 1))).isEmpty)
    #expect(subject.replica.status.compacted == .zero)
  }

  @Test("races with appends: what it covers is skipped, what follows is taken, and the leader is told")
  func races() throws {
    var subject = try Subject()
    subject.hear(2, 4, .heartbeat(round: 1, commit: 0))
    #expect(subject.step(.snapshotInstalled(try self.metadata(4, 2))).sent == [Sent(2, .appendReply(.matched(4)))])
    // Sent before the snapshot was there.
    let early = subject.hear(2, 4, .append(after: position(1, 1), entries: commands(1, 2), commit: 3))
    #expect(early.sent == [Sent(2, .appendReply(.matched(4)))])
    let across = subject.hear(2, 4, .append(after: position(2, 1), entries: commands(2, 2, 3, 4), commit: 6))
    #expect(across.sent == [Sent(2, .appendReply(.matched(6)))])
    #expect(subject.replica.last == position(6, 4))
    #expect(subject.replica.commit == 6)
  }

  @Test("contradicts an append only if somebody is broken")
  func contradiction() throws {
    var subject = try Subject()
    subject.step(.snapshotInstalled(try self.metadata(4, 2)))
    let effects = subject.hear(2, 4, .append(after: position(2, 1), entries: commands(1, 1, 1), commit: 0))
    #expect(effects.contains(.violation(Violation(kind: .committedEntryContradicted, member: 2))))
  }

  @Test("may be of a later term than any message was")
  func laterTerm() throws {
    var subject = try Subject()
    subject.step(.snapshotInstalled(try self.metadata(4, 9)))
    #expect(subject.replica.hardState == HardState(term: 9, vote: nil))
  }

  @Test("of the own state machine allows dropping what it covers, and no more")
  func compaction() throws {
    var subject = try Subject(log: commands(1, 1, 1))
    subject.hear(2, 4, .append(after: position(3, 1), entries: [], commit: 2))
    subject.step(.compacted(through: 2))
    #expect(subject.replica.status.compacted == position(2, 1))
    #expect(
      subject.step(.compacted(through: 3)) == [.violation(Violation(kind: .snapshotOutOfPlace, member: nil))])
    #expect(subject.replica.snapshotMetadata(at: 1) == nil)
    #expect(subject.replica.snapshotMetadata(at: 3) == nil)
  }
}

@Suite("A restart")
struct RestartTests {
  private func snapshot(_ index: UInt64, _ term: UInt64) throws -> SnapshotMetadata {
    SnapshotMetadata(position: position(index, term), membership: try members([1, 2, 3]), membershipIndex: 0)
  }

  @Test("takes up the log after a snapshot")
  func afterSnapshot() throws {
    let subject = try Subject(log: commands(2, 3), snapshot: try self.snapshot(5, 2), firstIndex: 6, applied: 6)
    #expect(subject.replica.last == position(7, 3))
    #expect(subject.replica.commit == 6)
  }

  @Test("takes up a log that begins before the snapshot and agrees with it")
  func overlap() throws {
    let subject = try Subject(log: commands(1, 2, 2, 3), snapshot: try self.snapshot(5, 2), firstIndex: 4, applied: 5)
    #expect(subject.replica.last == position(7, 3))
  }

  @Test("discards a log that contradicts the snapshot, also on the disk", arguments: [4, 2])
  func contradiction(_ count: Int) throws {
    var subject = try Subject(
      log: Array(commands(1, 1, 1, 1).prefix(count)), snapshot: try self.snapshot(4, 2), firstIndex: 2, applied: 4)
    #expect(subject.replica.last == position(4, 2))
    subject.persistsAtOnce = false
    // The write went out with the first flush.
    #expect(subject.replica.status.persisted == 4)
    let effects = subject.hear(2, 4, .append(after: position(4, 2), entries: commands(4), commit: 4))
    #expect(effects.writes.map(\.id) == [2])
  }

  @Test("is refused where the disk makes no sense")
  func refused() throws {
    #expect(throws: RestoreError.gapAfterSnapshot(snapshot: 5, first: 7)) {
      try Subject(snapshot: try self.snapshot(5, 2), firstIndex: 7, applied: 5)
    }
    #expect(throws: RestoreError.appliedOutOfPlace(applied: 2, snapshot: 0, last: 1)) {
      try Subject(log: commands(1), applied: 2)
    }
    #expect(throws: RestoreError.termOutOfOrder(2)) { try Subject(log: commands(2, 1)) }
    #expect(throws: RestoreError.termOutOfOrder(1)) { try Subject(log: commands(5)) }
    #expect(throws: RestoreError.beyondLimits) { try Subject(firstIndex: 0) }
    #expect(throws: RestoreError.beyondLimits) { try Subject(firstIndex: LogIndex(.max)) }
  }
}
