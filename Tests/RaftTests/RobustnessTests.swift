// SPDX-License-Identifier: Apache-2.0

import Raft
import Testing

@Suite("A replica that hears nonsense")
struct RobustnessTests {
  private func violation(_ body: Message.Body, _ term: Term = 4, log: [EntryHeader] = []) throws -> Violation.Kind? {
    var subject = try Subject(log: log)
    let effects = subject.hear(2, term, body)
    return effects.lazy.compactMap { if case .violation(let violation) = $0 { violation.kind } else { nil } }.first
  }

  @Test("says what is wrong, and does nothing")
  func violations() throws {
    let huge = LogIndex(.max)
    #expect(try self.violation(.heartbeat(round: 1, commit: 0), Term(.max)) == .termBeyondLimit)
    #expect(try self.violation(.heartbeat(round: 1, commit: 9)) == .commitBeyondLog)
    #expect(
      try self.violation(.append(after: LogPosition(index: huge, term: 1), entries: [], commit: 0))
        == .indexBeyondLimit)
    #expect(try self.violation(.append(after: .zero, entries: [], commit: huge)) == .indexBeyondLimit)
    #expect(try self.violation(.append(after: .zero, entries: commands(5), commit: 0)) == .termOutOfOrder)
    #expect(try self.violation(.append(after: .zero, entries: commands(0), commit: 0)) == .termOutOfOrder)
    #expect(try self.violation(.append(after: position(1, 3), entries: commands(2), commit: 0)) == .termOutOfOrder)
    let large = EntryHeader(term: 1, kind: .command, byteCount: .max)
    #expect(try self.violation(.append(after: .zero, entries: [large], commit: 0)) == .entryTooLarge)
    let many = Array(repeating: EntryHeader(term: 1, kind: .noop), count: 1 << 16 + 1)
    #expect(try self.violation(.append(after: .zero, entries: many, commit: 0)) == .tooManyEntries)
  }

  @Test("keeps what is committed, whoever contradicts it")
  func committed() throws {
    var subject = try Subject(log: commands(1, 2), applied: 2)
    let contradicting: [Message.Body] = [
      .append(after: .zero, entries: commands(3), commit: 0),
      .append(after: position(2, 1), entries: [], commit: 0),
    ]
    for body in contradicting {
      #expect(
        subject.hear(2, 4, body).contains(.violation(Violation(kind: .committedEntryContradicted, member: 2))))
    }
    #expect(subject.replica.last == position(2, 2))
  }

  @Test("knows one leader in a term")
  func secondLeader() throws {
    var subject = try Subject()
    subject.hear(2, 4, .heartbeat(round: 1, commit: 0))
    #expect(
      subject.hear(3, 4, .heartbeat(round: 1, commit: 0)) == [
        .violation(Violation(kind: .secondLeader, member: 3))
      ])
  }

  @Test("as a leader believes no answer that can not be")
  func leader() throws {
    var subject = try Subject()
    subject.lead()
    #expect(
      subject.hear(2, 5, .appendReply(.matched(LogIndex(.max)))) == [
        .violation(Violation(kind: .matchBeyondLog, member: 2))
      ])
    #expect(
      subject.hear(2, 5, .heartbeatReply(round: 99, isWritable: true)) == [
        .violation(Violation(kind: .unknownRound, member: 2))
      ])
    subject.hear(3, 5, .appendReply(.mismatched(after: LogIndex(.max), hint: position(.max, .max))))
    subject.hear(9, 5, .appendReply(.matched(1)))
    #expect(subject.replica.role == .leader)
  }

  @Test("never stops, whatever comes in whatever order")
  func anything() throws {
    var random = SeededGenerator(seed: 11)
    func number() -> UInt64 {
      [0, 1, 2, 3, 4, 5, 6, 7, 1 << 60, 1 << 60 + 1, .max].randomElement(using: &random) ?? 0
    }
    func index() -> LogIndex { LogIndex(number()) }
    func place() -> LogPosition { LogPosition(index: index(), term: Term(number())) }
    func member() -> MemberID { MemberID(UInt64.random(in: 0...5, using: &random)) }
    func headers() -> [EntryHeader] {
      (0..<Int.random(in: 0...3, using: &random)).map { _ in
        let membership = Membership(voters: [member(), member()], learners: [member()])
        return EntryHeader(
          term: Term(number()), kind: membership.map { .membership($0) } ?? .command,
          byteCount: [0, -1, 5, .max].randomElement(using: &random) ?? 0)
      }
    }
    func message() -> Message.Body {
      let round = HeartbeatRound(number())
      let nonce = ReadNonce(rawValue: number())
      let bodies: [Message.Body] = [
        .preVoteRequest(last: place()), .preVoteReply(for: Term(number()), granted: true),
        .voteRequest(last: place(), isTransfer: .random(using: &random)), .voteReply(granted: true),
        .heartbeat(round: round, commit: index()), .heartbeatReply(round: round, isWritable: .random(using: &random)),
        .append(after: place(), entries: headers(), commit: index()), .appendReply(.matched(index())),
        .appendReply(.mismatched(after: index(), hint: place())), .appendReply(.unwritable), .timeoutNow,
        .readRequest(nonce), .readReply(nonce, index: index()), .termNotice,
      ]
      return bodies.randomElement(using: &random) ?? .termNotice
    }
    func event(_ term: Term) throws -> Event {
      let membership = try members([1, 2, member()])
      let metadata = SnapshotMetadata(position: place(), membership: membership, membershipIndex: index())
      let events: [Event] = [
        .wake, .persisted(WriteID(rawValue: number())), .propose(1, byteCount: 5), .propose(1, byteCount: .max),
        .read(1), .changeMembership(1, to: membership, expecting: index()), .transferLeadership(to: member()),
        .snapshotSent(to: member(), metadata), .snapshotFailed(to: member()), .snapshotInstalled(metadata),
        .compacted(through: index()), .setWritable(.random(using: &random)), .storageStalled(.random(using: &random)),
        .unreachable(member()),
      ]
      let heard = Message(
        incarnation: GroupIncarnation(7), term: Bool.random(using: &random) ? term : Term(number()), body: message())
      return Int.random(in: 0..<3, using: &random) == 0
        ? events.randomElement(using: &random) ?? .wake : .received(heard, from: member())
    }
    for _ in 0..<300 {
      var subject = try Subject(of: [1, 2, 3], log: commands(1, 2, 3))
      if Bool.random(using: &random) { subject.lead() }
      for _ in 0..<100 {
        subject.milliseconds += UInt64.random(in: 0...100, using: &random)
        subject.step(try event(subject.replica.hardState.term))
        #expect(subject.replica.brokenInvariant == nil)
      }
    }
  }
}
