// SPDX-License-Identifier: Apache-2.0

import Raft
import Testing

@Suite("A voter")
struct VoterTests {
  /// Long enough that no leader is remembered.
  private func lonely(_ id: MemberID = 1, term: UInt64 = 4, vote: MemberID? = nil, log: [EntryHeader] = []) throws
    -> Subject
  {
    var subject = try Subject(id, term: term, vote: vote, log: log)
    subject.milliseconds += 150
    return subject
  }

  @Test("grants one vote in a term")  // Dissertation, 3.4
  func oneVote() throws {
    var subject = try self.lonely()
    #expect(
      subject.hear(2, 5, .voteRequest(last: .zero, isTransfer: false)).sent == [Sent(2, .voteReply(granted: true))])
    #expect(
      subject.hear(3, 5, .voteRequest(last: .zero, isTransfer: false)).sent == [Sent(3, .voteReply(granted: false))])
    #expect(
      subject.hear(2, 5, .voteRequest(last: .zero, isTransfer: false)).sent == [Sent(2, .voteReply(granted: true))])
  }

  @Test("sends a vote only after it is durable")
  func voteIsDurable() throws {
    var subject = try self.lonely()
    subject.persistsAtOnce = false
    let effects = subject.hear(2, 5, .voteRequest(last: .zero, isTransfer: false))
    #expect(effects.sent.isEmpty)
    #expect(effects.writes.map(\.hardState) == [HardState(term: 5, vote: 2)])
    #expect(subject.step(.persisted(1)).sent == [Sent(2, .voteReply(granted: true))])
  }

  @Test("does not send a vote any more when it has moved on to another term")
  func voteIsOutdated() throws {
    var subject = try self.lonely()
    subject.persistsAtOnce = false
    subject.hear(2, 5, .voteRequest(last: .zero, isTransfer: false))
    subject.hear(3, 6, .voteRequest(last: .zero, isTransfer: false))
    #expect(subject.step(.persisted(2)).sent == [Sent(3, .voteReply(granted: true))])
  }

  @Test("remembers its vote after a restart")
  func voteIsRemembered() throws {
    var subject = try self.lonely(term: 5, vote: 2)
    #expect(
      subject.hear(3, 5, .voteRequest(last: .zero, isTransfer: false)).sent == [Sent(3, .voteReply(granted: false))])
  }

  @Test("refuses a candidate whose log is behind, by term and then by length", arguments: [(2, 2), (9, 1)])  // 3.6.1
  func logCheck(_ last: (UInt64, UInt64)) throws {
    var subject = try self.lonely(log: commands(1, 2, 2))
    let behind = position(last.0, last.1)
    #expect(
      subject.hear(2, 5, .voteRequest(last: behind, isTransfer: false)).sent == [Sent(2, .voteReply(granted: false))])
    #expect(
      subject.hear(2, 4, .preVoteRequest(last: behind)).sent.map(\.body) == [.preVoteReply(for: 5, granted: false)])
    #expect(
      subject.hear(2, 6, .voteRequest(last: position(3, 2), isTransfer: false)).sent
        == [Sent(2, .voteReply(granted: true))])
  }

  @Test("promises nothing to a pre-candidate, and encourages more than one")  // 9.6
  func preVote() throws {
    var subject = try self.lonely()
    for member: MemberID in [2, 3] {
      let effects = subject.hear(member, 4, .preVoteRequest(last: .zero))
      #expect(effects == [.send(subject.message(.preVoteReply(for: 5, granted: true)), to: member)])
    }
    #expect(subject.replica.hardState == HardState(term: 4, vote: nil))
  }

  @Test("discourages a pre-candidate whose next term is over")
  func preVoteTerm() throws {
    var subject = try self.lonely()
    #expect(
      subject.hear(2, 3, .preVoteRequest(last: position(9, 3))).sent == [Sent(2, .preVoteReply(for: 4, granted: false))]
    )
  }

  @Test("stands by a leader that it heard lately: it does not even take over a later term")  // 4.2.3
  func loyalty() throws {
    var subject = try self.lonely()
    subject.hear(3, 4, .heartbeat(round: 1, commit: 0))
    subject.milliseconds += 149
    #expect(subject.hear(2, 4, .preVoteRequest(last: .zero)).sent == [Sent(2, .preVoteReply(for: 5, granted: false))])
    #expect(subject.hear(2, 9, .voteRequest(last: .zero, isTransfer: false)).isEmpty)
    #expect(subject.replica.hardState.term == 4)
    subject.milliseconds += 1
    #expect(
      subject.hear(2, 9, .voteRequest(last: .zero, isTransfer: false)).sent == [Sent(2, .voteReply(granted: true))])
  }

  @Test("votes at once if the leader itself hands over")  // 3.10
  func transfer() throws {
    var subject = try self.lonely()
    subject.hear(3, 4, .heartbeat(round: 1, commit: 0))
    #expect(
      subject.hear(2, 5, .voteRequest(last: .zero, isTransfer: true)).sent == [Sent(2, .voteReply(granted: true))])
  }

  @Test("may have promised something to a leader before it restarted, and waits")
  func grace() throws {
    var subject = try Subject()
    subject.milliseconds += 149
    #expect(subject.hear(2, 5, .voteRequest(last: .zero, isTransfer: false)).isEmpty)
  }

  @Test("votes also for members that it does not know, and as a learner")  // 4.1, 4.2.1
  func strangers() throws {
    var subject = try Subject(9, of: [1, 2, 3])
    subject.milliseconds += 150
    #expect(
      subject.hear(8, 5, .voteRequest(last: .zero, isTransfer: false)).sent == [Sent(8, .voteReply(granted: true))])
  }

  @Test("does not hear another incarnation of the group")
  func incarnation() throws {
    var subject = try self.lonely()
    let message = Message(
      incarnation: GroupIncarnation(6), term: 9, body: .voteRequest(last: .zero, isTransfer: false))
    #expect(subject.step(.received(message, from: 2)).isEmpty)
    #expect(subject.replica.hardState.term == 4)
  }
}

@Suite("A candidate")
struct CandidateTests {
  @Test("asks first, with its term as it is, and campaigns when a majority encourages it")  // 9.6
  func preVoteFirst() throws {
    var subject = try Subject(log: commands(2, 3))
    let asked = subject.wake()
    #expect(asked.sent == [2, 3].map { Sent($0, .preVoteRequest(last: position(2, 3))) })
    #expect(subject.replica.hardState.term == 4)
    #expect(subject.replica.role == .preCandidate)
    let campaign = subject.hear(3, 4, .preVoteReply(for: 5, granted: true))
    #expect(campaign.sent == [2, 3].map { Sent($0, .voteRequest(last: position(2, 3), isTransfer: false)) })
    #expect(subject.replica.hardState == HardState(term: 5, vote: 1))
  }

  @Test("takes encouragement from a member whose term is behind")
  func preVoteFromBehind() throws {
    var subject = try Subject()
    subject.wake()
    subject.hear(3, 2, .preVoteReply(for: 5, granted: true))
    #expect(subject.replica.role == .candidate)
  }

  @Test("follows whoever refuses in a later term into that term")
  func laterTerm() throws {
    var subject = try Subject()
    subject.wake()
    subject.hear(3, 8, .preVoteReply(for: 5, granted: false))
    #expect(subject.replica.role == .follower)
    #expect(subject.replica.hardState == HardState(term: 8, vote: nil))
  }

  @Test("counts its own vote only when it is durable, and so sends its requests")
  func ownVote() throws {
    var subject = try Subject()
    subject.wake()
    subject.persistsAtOnce = false
    let campaign = subject.hear(3, 4, .preVoteReply(for: 5, granted: true))
    #expect(campaign.sent.isEmpty)
    subject.hear(3, 5, .voteReply(granted: true))
    #expect(subject.replica.role == .candidate)
    #expect(subject.step(.persisted(1)).sent.contains(Sent(2, .voteRequest(last: .zero, isTransfer: false))))
    #expect(subject.replica.role == .leader)
  }

  @Test("counts each voter once, and refusals not at all")
  func countsOnce() throws {
    var subject = try Subject(of: [1, 2, 3, 4, 5])
    subject.wake()
    subject.hear(2, 4, .preVoteReply(for: 5, granted: true))
    subject.hear(2, 4, .preVoteReply(for: 5, granted: true))
    #expect(subject.replica.role == .preCandidate)
    subject.hear(3, 4, .preVoteReply(for: 5, granted: true))
    subject.hear(2, 5, .voteReply(granted: true))
    subject.hear(2, 5, .voteReply(granted: true))
    subject.hear(3, 5, .voteReply(granted: false))
    #expect(subject.replica.role == .candidate)
    subject.hear(4, 5, .voteReply(granted: true))
    #expect(subject.replica.role == .leader)
  }

  @Test("gives up for a leader of its term")
  func leaderAppears() throws {
    var subject = try Subject()
    subject.wake()
    subject.hear(3, 4, .preVoteReply(for: 5, granted: true))
    subject.hear(2, 5, .heartbeat(round: 1, commit: 0))
    #expect(subject.replica.role == .follower)
    #expect(subject.replica.leader == 2)
  }

  @Test("tries again after another timeout, each drawn anew within the range")
  func retries() throws {
    var subject = try Subject()
    var waits: Set<UInt64> = []
    for _ in 0..<20 {
      let wait = subject.replica.wakeAt.nanoseconds - subject.now.nanoseconds
      #expect((149_000_000...300_000_000).contains(wait))
      waits.insert(wait)
      subject.wake()
    }
    #expect(waits.count > 10)
  }

  @Test("is not what a learner, a stranger, a full disk or a stalled one becomes")
  func unfit() throws {
    var learner = try Subject(3, of: [1, 2], learners: [3])
    var stranger = try Subject(3, of: [1, 2])
    var full = try Subject()
    full.step(.setWritable(false))
    var stalled = try Subject()
    stalled.step(.storageStalled(true))
    #expect(learner.wake().isEmpty)
    #expect(stranger.wake().isEmpty)
    #expect(full.wake().isEmpty)
    #expect(stalled.wake().isEmpty)
    full.step(.setWritable(true))
    #expect(!full.wake().isEmpty)
  }

  @Test("leads at once if it is alone")
  func alone() throws {
    var subject = try Subject(of: [1])
    let effects = subject.step(.wake)
    #expect(subject.replica.role == .leader)
    #expect(effects.contains(.apply(through: 1)))
    #expect(subject.replica.wakeAt == .never)
  }

  @Test("is what a member becomes whose removal may not be committed")  // 4.2.2
  func removedButNeeded() throws {
    // Only this member has the entry that removes it, and member 2 can not win without it.
    let removal = EntryHeader(term: 4, kind: .membership(try members([2])))
    var subject = try Subject(of: [1, 2], log: commands(4) + [removal])
    #expect(subject.wake().sent == [Sent(2, .preVoteRequest(last: position(2, 4)))])
    subject.hear(2, 4, .preVoteReply(for: 5, granted: true))
    subject.hear(2, 5, .voteReply(granted: true))
    #expect(subject.replica.role == .leader)
    let effects = subject.hear(2, 5, .appendReply(.matched(3)))
    #expect(effects.contains(.send(subject.message(.timeoutNow), to: 2)))
    #expect(subject.replica.role == .follower)
  }

  @Test("is what such a member becomes also after a restart, when it does not know what is committed")
  func removedAndRestarted() throws {
    let changes = [try members([3], outgoing: [4], learners: [4]), try members([3], learners: [4])]
    let log = commands(4) + changes.map { EntryHeader(term: 4, kind: .membership($0)) }
    var subject = try Subject(4, of: [1, 2, 3], log: log)
    #expect(subject.wake().sent == [Sent(3, .preVoteRequest(last: position(3, 4)))])
    var other = try Subject(5, of: [1, 2, 3], log: log)
    #expect(other.wake().isEmpty)
  }
}

@Suite("A leader's hold")
struct LeadershipTests {
  @Test("ends when it hears no majority for an election timeout")  // 6.2
  func checkQuorum() throws {
    var subject = try Subject()
    subject.lead()
    while subject.milliseconds < 3000, subject.replica.role == .leader { subject.wake() }
    #expect(subject.replica.role == .follower)
    #expect(subject.replica.hardState.term == 5)
  }

  @Test("lasts while half of the others answer")
  func answered() throws {
    var subject = try Subject()
    subject.lead()
    for round: UInt64 in 2..<40 {
      subject.wake()
      subject.hear(3, 5, .heartbeatReply(round: HeartbeatRound(round), isWritable: true))
    }
    #expect(subject.replica.role == .leader)
  }

  @Test("is not shaken by candidates, as long as a majority follows")
  func candidates() throws {
    var subject = try Subject()
    subject.lead()
    #expect(subject.hear(3, 9, .voteRequest(last: position(9, 9), isTransfer: false)).isEmpty)
    #expect(subject.replica.role == .leader)
  }

  @Test("ends by the word of a member that is in a later term")
  func laterTerm() throws {
    var subject = try Subject()
    subject.lead()
    subject.hear(3, 6, .termNotice)
    #expect(subject.replica.role == .follower)
    #expect(subject.replica.hardState.term == 6)
  }

  @Test("of an earlier term is over, and it is told so")
  func staleLeader() throws {
    var subject = try Subject()
    let stale = [
      Message.Body.heartbeat(round: 1, commit: 0), .append(after: .zero, entries: [], commit: 0), .timeoutNow,
    ]
    for body in stale { #expect(subject.hear(2, 3, body).sent == [Sent(2, .termNotice)]) }
  }

  @Test("is announced once, when it changes")
  func announced() throws {
    var subject = try Subject()
    let leadership = Leadership(term: 5, role: .leader, leader: 1)
    #expect(subject.elect().contains(.leadershipChanged(leadership)))
    subject.persistsAtOnce = true
    #expect(!subject.wake().contains(.leadershipChanged(leadership)))
  }
}
