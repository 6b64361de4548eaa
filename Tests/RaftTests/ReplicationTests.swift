// SPDX-License-Identifier: Apache-2.0

import Raft
import Testing

@Suite("A leader's log")
struct LeaderLogTests {
  private let noop = EntryHeader(term: 5, kind: .noop)
  private let command = EntryHeader(term: 5, kind: .command, byteCount: 10)

  @Test("begins with an entry of its own term, sent to everybody")  // Dissertation, 3.6.2
  func noopFirst() throws {
    var subject = try Subject(log: commands(3))
    let effects = subject.elect()
    for member: MemberID in [2, 3] {
      #expect(
        effects.sent(to: member) == [
          .heartbeat(round: 1, commit: 0), .append(after: position(1, 3), entries: [self.noop], commit: 0),
        ])
    }
  }

  @Test("goes out as one message for each follower and one write, however much was proposed in a turn")
  func batching() throws {
    var subject = try Subject()
    subject.lead()
    subject.hear(3, 5, .appendReply(.matched(1)))
    subject.persistsAtOnce = false
    let effects = subject.step((1...10).map { .propose(ProposalID(rawValue: $0), byteCount: 10) })
    let entries = Array(repeating: self.command, count: 10)
    #expect(effects.sent == [2, 3].map { Sent($0, .append(after: position(1, 5), entries: entries, commit: 1)) })
    #expect(effects.writes.map(\.entries) == [entries])
    #expect(effects.contains(.accepted(10, at: position(11, 5))))
  }

  @Test("is sent before it is on the own disk, and commits without it if a majority has it; it is applied later")
  func asynchronous() throws {
    // 10.2.1
    var subject = try Subject()
    subject.lead()
    subject.hear(3, 5, .appendReply(.matched(1)))
    subject.persistsAtOnce = false
    subject.step(.propose(1, byteCount: 10))
    subject.hear(2, 5, .appendReply(.matched(2)))
    #expect(subject.replica.commit == 1)
    #expect(!subject.hear(3, 5, .appendReply(.matched(2))).contains(.apply(through: 2)))
    #expect(subject.replica.commit == 2)
    #expect(subject.step(.persisted(3)).contains(.apply(through: 2)))
  }

  @Test("does not count on its own disk before that has answered")
  func ownDisk() throws {
    var subject = try Subject()
    subject.lead()
    subject.persistsAtOnce = false
    subject.step(.propose(1, byteCount: 10))
    subject.hear(2, 5, .appendReply(.matched(2)))
    #expect(subject.replica.commit == 1)
    subject.step(.persisted(3))
    #expect(subject.replica.commit == 2)
  }

  @Test("commits an entry of an earlier term only with one of its own")  // Figure 3.7
  func figure8() throws {
    var subject = try Subject(of: [1, 2, 3, 4, 5], log: commands(2, 4))
    subject.elect(by: 2, 3)
    subject.hear(2, 5, .appendReply(.matched(2)))
    subject.hear(3, 5, .appendReply(.matched(2)))
    #expect(subject.replica.commit == 0)
    subject.hear(2, 5, .appendReply(.matched(3)))
    #expect(subject.hear(3, 5, .appendReply(.matched(3))).contains(.apply(through: 3)))
  }

  @Test("is sent without waiting for answers, as far as the window goes")
  func window() throws {
    var subject = try Subject { $0.appendsInFlightMax = 2 }
    subject.lead()
    for number: UInt64 in 1...5 { subject.step(.propose(ProposalID(rawValue: number), byteCount: 10)) }
    // Two messages are out; the other three entries go together when one is answered.
    let effects = subject.hear(2, 5, .appendReply(.matched(2)))
    #expect(
      effects.sent(to: 2) == [
        .append(after: position(3, 5), entries: [self.command, self.command, self.command], commit: 2)
      ])
  }

  @Test("is cut into messages by bytes and by entries")
  func sizes() throws {
    var subject = try Subject {
      $0.bytesPerAppendMax = 100
      $0.entriesPerAppendMax = 3
    }
    subject.lead()
    let sizes = [60, 60, 500, 1, 1, 1, 1]
    let events = sizes.enumerated().map { Event.propose(ProposalID(rawValue: UInt64($0)), byteCount: $1) }
    let bodies = subject.step(events).sent(to: 2)
    let counts: [[Int]] = bodies.map {
      if case .append(_, let entries, _) = $0 { entries.map(\.byteCount) } else { [] }
    }
    #expect(counts == [[60], [60], [500], [1, 1, 1], [1]])
  }

  @Test("is probed with one message at a time until the logs meet, then streamed")
  func probing() throws {
    var subject = try Subject(log: commands(1, 2, 3, 4))
    subject.elect()
    subject.step(.propose(1, byteCount: 10))
    #expect(subject.replica.progress(of: 3)?.replication == .probing)
    // The follower has only 1 and 2, of terms 1 and 1.
    let hint = position(2, 1)
    let effects = subject.hear(3, 5, .appendReply(.mismatched(after: 4, hint: hint)))
    #expect(
      effects.sent(to: 3).first
        == .append(
          after: position(1, 1), entries: commands(2, 3, 4) + [self.noop, self.command], commit: 0))
    subject.hear(3, 5, .appendReply(.matched(6)))
    #expect(subject.replica.progress(of: 3)?.replication == .replicating)
  }

  @Test("is sent again when nothing was answered for long, first without entries")
  func silence() throws {
    var subject = try Subject()
    subject.lead()
    var bodies: [Message.Body] = []
    for round: UInt64 in 2..<8 {
      bodies += subject.wake().sent(to: 3)
      subject.hear(2, 5, .heartbeatReply(round: HeartbeatRound(round), isWritable: true))
    }
    #expect(bodies.contains(.append(after: .zero, entries: [], commit: 1)))
    #expect(!bodies.contains(.append(after: .zero, entries: [self.noop], commit: 1)))
  }

  @Test("is probed anew when the connection broke")
  func unreachable() throws {
    var subject = try Subject()
    subject.lead()
    subject.step(.propose(1, byteCount: 10))
    let effects = subject.step(.unreachable(2))
    #expect(effects.sent(to: 2) == [.append(after: position(1, 5), entries: [], commit: 1)])
    let again = subject.hear(2, 5, .appendReply(.matched(1)))
    #expect(again.sent(to: 2) == [.append(after: position(1, 5), entries: [self.command], commit: 1)])
  }

  @Test("takes no more than a limit that is not committed, and one entry of any size")
  func tooMuch() throws {
    var subject = try Subject {
      $0.uncommittedBytesMax = 100
      $0.uncommittedEntriesMax = 4
    }
    subject.lead()
    #expect(subject.step(.propose(1, byteCount: 1000)).contains(.accepted(1, at: position(2, 5))))
    #expect(subject.step(.propose(2, byteCount: 1)) == [.rejected(2, .tooMuchInFlight)])
    subject.hear(2, 5, .appendReply(.matched(2)))
    for id: ProposalID in [3, 4, 5, 6] { subject.step(.propose(id, byteCount: 1)) }
    #expect(subject.step(.propose(7, byteCount: 1)) == [.rejected(7, .tooMuchInFlight)])
    #expect(subject.step(.propose(8, byteCount: -1)) == [.rejected(8, .tooLarge)])
  }

  @Test("is the leader's alone: others refuse, and name it")
  func notLeader() throws {
    var subject = try Subject()
    #expect(subject.step(.propose(1, byteCount: 1)) == [.rejected(1, .notLeader(leader: nil))])
    subject.hear(2, 4, .heartbeat(round: 1, commit: 0))
    #expect(subject.step(.propose(1, byteCount: 1)) == [.rejected(1, .notLeader(leader: 2))])
  }

  @Test("is not sent to a member that can not write, until that says otherwise")
  func unwritableFollower() throws {
    var subject = try Subject()
    subject.lead()
    subject.hear(3, 5, .appendReply(.unwritable))
    #expect(subject.step(.propose(1, byteCount: 1)).sent(to: 3).isEmpty)
    let effects = subject.hear(3, 5, .heartbeatReply(round: 1, isWritable: true))
    #expect(effects.sent(to: 3) == [.append(after: .zero, entries: [], commit: 1)])
  }
}

@Suite("A follower's log")
struct FollowerLogTests {
  @Test("is acknowledged as far as it is durable")
  func acknowledgement() throws {
    var subject = try Subject()
    subject.persistsAtOnce = false
    #expect(subject.hear(2, 4, .append(after: .zero, entries: commands(3, 4), commit: 0)).sent.isEmpty)
    #expect(subject.hear(2, 4, .append(after: position(2, 4), entries: commands(4), commit: 0)).sent.isEmpty)
    #expect(subject.step(.persisted(1)).sent == [Sent(2, .appendReply(.matched(2)))])
    #expect(subject.step(.persisted(2)).sent == [Sent(2, .appendReply(.matched(3)))])
  }

  @Test("commits no further than it is known to be the leader's")  // Figure 3.1
  func commitIsBounded() throws {
    var subject = try Subject(log: commands(1, 2, 2, 2))
    let effects = subject.hear(2, 4, .append(after: position(1, 1), entries: commands(2), commit: 4))
    #expect(effects.contains(.apply(through: 2)))
    #expect(subject.replica.commit == 2)
  }

  @Test("gives way where the leader's is another")  // 3.5
  func truncation() throws {
    var subject = try Subject(log: commands(1, 2, 2, 2))
    subject.persistsAtOnce = false
    let effects = subject.hear(3, 4, .append(after: position(1, 1), entries: commands(2, 3), commit: 0))
    #expect(
      effects.writes == [
        Write(id: 1, hardState: nil, truncation: 3, firstIndex: 3, entries: commands(3))
      ])
    #expect(effects.sent == [Sent(3, .appendReply(.matched(2)))])
    #expect(subject.step(.persisted(1)).sent == [Sent(3, .appendReply(.matched(3)))])
  }

  @Test("does not acknowledge by a write whose entries were replaced meanwhile")
  func truncationInFlight() throws {
    var subject = try Subject()
    subject.persistsAtOnce = false
    subject.hear(2, 4, .append(after: .zero, entries: commands(3, 3, 3), commit: 0))
    subject.hear(3, 5, .append(after: position(1, 3), entries: commands(5, 5), commit: 0))
    #expect(subject.step(.persisted(1)).sent.isEmpty)
    #expect(subject.step(.persisted(2)).sent == [Sent(3, .appendReply(.matched(3)))])
  }

  @Test("keeps what a late message does not know of")
  func lateMessage() throws {
    var subject = try Subject()
    subject.hear(2, 4, .append(after: .zero, entries: commands(4, 4, 4), commit: 0))
    #expect(
      subject.hear(2, 4, .append(after: .zero, entries: commands(4), commit: 0)).sent
        == [Sent(2, .appendReply(.matched(3)))])
    #expect(subject.replica.last == position(3, 4))
  }

  @Test("says where it may agree with the leader's, a term at a time")  // 3.5, end
  func hints() throws {
    var subject = try Subject(log: commands(1, 1, 2, 2, 2))
    let behind = subject.hear(2, 4, .append(after: position(9, 4), entries: [], commit: 0))
    #expect(behind.sent == [Sent(2, .appendReply(.mismatched(after: 9, hint: position(5, 2))))])
    let other = subject.hear(2, 4, .append(after: position(5, 1), entries: [], commit: 0))
    #expect(other.sent == [Sent(2, .appendReply(.mismatched(after: 5, hint: position(2, 1))))])
  }

  @Test("meets a leader's with few messages, whatever both have")
  func backtracking() throws {
    var random = SeededGenerator(seed: 1)
    for _ in 0..<200 {
      let common = Int.random(in: 0...30, using: &random)
      func tail(_ terms: ClosedRange<UInt64>) -> [UInt64] {
        (0..<Int.random(in: 0...40, using: &random)).map { _ in UInt64.random(in: terms, using: &random) }.sorted()
      }
      let start = (0..<common).map { _ in UInt64.random(in: 1...3, using: &random) }.sorted()
      // Entries of the same term and index are the same entry, so the tails have terms of their own.
      let own = (start + tail(4...9).map { $0 * 2 }).map { EntryHeader(term: Term($0), kind: .command) }
      let theirs = (start + tail(4...9).map { $0 * 2 + 1 }).map { EntryHeader(term: Term($0), kind: .command) }
      var leader = try Subject(1, of: [1, 2, 3], term: 30, log: own)
      var follower = try Subject(2, of: [1, 2, 3], term: 30, log: theirs)
      var toFollower = leader.elect(by: 3).sent(to: 2)
      var count = 0
      while let body = toFollower.popLast(), count < 50 {
        count += 1
        for answer in follower.hear(1, 31, body).sent(to: 1) { toFollower += leader.hear(2, 31, answer).sent(to: 2) }
      }
      #expect(follower.replica.last == leader.replica.last)
      #expect(count <= 20)
    }
  }

  @Test("takes nothing while the disk is full, but still votes and answers heartbeats")
  func fullDisk() throws {
    var subject = try Subject()
    subject.step(.setWritable(false))
    #expect(
      subject.hear(2, 4, .append(after: .zero, entries: commands(4), commit: 0)).sent
        == [Sent(2, .appendReply(.unwritable))])
    #expect(
      subject.hear(2, 4, .heartbeat(round: 3, commit: 0)).sent
        == [Sent(2, .heartbeatReply(round: 3, isWritable: false))])
    subject.milliseconds += 200
    #expect(
      subject.hear(3, 5, .voteRequest(last: .zero, isTransfer: false)).sent == [Sent(3, .voteReply(granted: true))])
  }
}
