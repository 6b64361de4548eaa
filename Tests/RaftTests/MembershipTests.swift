// SPDX-License-Identifier: Apache-2.0

import Raft
import Testing

@Suite("A membership")
struct MembershipTests {
  @Test("has a voter, nobody twice, and nobody in two places")
  func validity() throws {
    #expect(Membership(voters: []) == nil)
    #expect(Membership(voters: [1, 2], learners: [2]) == nil)
    #expect(Membership(voters: (1...65).map { MemberID($0) }) == nil)
    let membership = try members([3, 1, 2, 3], learners: [5, 4])
    #expect(membership.voters == [1, 2, 3])
    #expect(membership.members == [1, 2, 3, 4, 5])
    #expect(!membership.isJoint)
  }

  @Test("decides by majorities, of both sets while it is joint: as counted by hand")  // Dissertation, 4.3
  func quorums() throws {
    var random = SeededGenerator(seed: 5)
    for _ in 0..<500 {
      func some() -> [MemberID] {
        (1...7).filter { _ in Bool.random(using: &random) }.map { MemberID($0) }
      }
      guard let membership = Membership(voters: some(), outgoing: some(), learners: []) else { continue }
      let values = Dictionary(
        uniqueKeysWithValues: (1...7).map { (MemberID($0), Int.random(in: 0...5, using: &random)) })
      let sets = [membership.voters, membership.outgoing].filter { !$0.isEmpty }
      func reached(_ value: Int) -> Bool {
        sets.allSatisfy { set in set.filter { values[$0, default: 0] >= value }.count * 2 > set.count }
      }
      #expect(membership.quorumValue { values[$0, default: 0] } == (0...5).last(where: reached))
      #expect(membership.hasQuorum { values[$0, default: 0] >= 3 } == reached(3))
    }
  }
}

@Suite("A change of the membership")
struct MembershipChangeTests {
  private func change(_ target: Membership, _ expecting: LogIndex = 0) -> Event {
    .changeMembership(1, to: target, expecting: expecting)
  }

  @Test("is joint first, and leaves that by itself once it is committed by both majorities")  // 4.3
  func joint() throws {
    var subject = try Subject()
    subject.lead()
    subject.hear(3, 5, .appendReply(.matched(1)))
    let target = try members([1, 4, 5])
    let joint = try members([1, 4, 5], outgoing: [1, 2, 3])
    let effects = subject.step(self.change(target))
    #expect(effects.contains(.membershipChanged(joint, at: 2)))
    #expect(effects.contains(.accepted(1, at: position(2, 5))))
    #expect(
      effects.sent(to: 4) == [.append(after: position(2, 5), entries: [], commit: 1)] || effects.sent(to: 4).count == 1)
    // The old majority alone does not commit it, nor does the new one.
    subject.hear(2, 5, .appendReply(.matched(2)))
    subject.hear(3, 5, .appendReply(.matched(2)))
    #expect(subject.replica.commit == 1)
    let left = subject.hear(4, 5, .appendReply(.matched(2)))
    #expect(left.contains(.membershipChanged(target, at: 3)))
    #expect(subject.replica.commit == 2)
    #expect(subject.replica.status.membershipIsPending)
    subject.hear(5, 5, .appendReply(.matched(3)))
    #expect(subject.replica.commit == 3)
    #expect(subject.replica.status.members.map(\.member) == [4, 5])
    #expect(!subject.replica.status.membershipIsPending)
  }

  @Test("needs no joint step for learners, who get the log and count for nothing")  // 4.2.1
  func learners() throws {
    var subject = try Subject()
    subject.lead()
    let target = try members([1, 2, 3], learners: [4, 5])
    #expect(subject.step(self.change(target)).contains(.membershipChanged(target, at: 2)))
    subject.hear(4, 5, .appendReply(.matched(2)))
    subject.hear(5, 5, .appendReply(.matched(2)))
    #expect(subject.replica.commit == 1)
    subject.hear(3, 5, .appendReply(.matched(2)))
    #expect(subject.replica.commit == 2)
  }

  @Test("fails clearly when another one came first, or is under way")
  func conflicts() throws {
    var subject = try Subject()
    subject.elect()
    let target = try members([1, 2, 3], learners: [4])
    #expect(subject.step(self.change(target)).contains(.rejected(1, .membershipPending)))  // Nothing of its term yet.
    subject.hear(2, 5, .appendReply(.matched(1)))
    #expect(subject.step(self.change(target, 9)) == [.rejected(1, .membershipConflict(current: 0))])
    subject.step(self.change(target))
    #expect(subject.step(self.change(target, 2)) == [.rejected(1, .membershipPending)])
    subject.hear(2, 5, .appendReply(.matched(2)))
    #expect(subject.step(self.change(target, 0)) == [.rejected(1, .membershipConflict(current: 2))])
    var follower = try Subject()
    #expect(follower.step(self.change(target)) == [.rejected(1, .notLeader(leader: nil))])
  }

  @Test("is undone on a follower whose log gives way")  // 4.1
  func undone() throws {
    var subject = try Subject()
    let membership = try members([1, 2])
    let entry = EntryHeader(term: 4, kind: .membership(membership))
    #expect(
      subject.hear(2, 4, .append(after: .zero, entries: [entry], commit: 0)).contains(
        .membershipChanged(membership, at: 1)))
    let effects = subject.hear(3, 5, .append(after: .zero, entries: commands(5), commit: 0))
    #expect(effects.contains(.membershipChanged(try members([1, 2, 3]), at: 0)))
  }

  @Test("that removes the leader: it does not count itself, and goes when that is committed")  // 4.2.2
  func leaderRemoved() throws {
    var subject = try Subject(of: [1, 2, 3])
    subject.lead()
    subject.hear(3, 5, .appendReply(.matched(1)))
    subject.step(self.change(try members([2, 3])))
    subject.hear(2, 5, .appendReply(.matched(2)))
    #expect(subject.replica.commit == 1)  // Two of three, but one of the two that stay.
    subject.hear(3, 5, .appendReply(.matched(2)))
    #expect(subject.replica.commit == 2)
    subject.hear(2, 5, .appendReply(.matched(3)))
    #expect(subject.replica.role == .leader)
    let effects = subject.hear(3, 5, .appendReply(.matched(3)))
    #expect(effects.contains { if case .send(let message, _) = $0 { message.body == .timeoutNow } else { false } })
    #expect(subject.replica.role == .follower)
    #expect(subject.wake().isEmpty || subject.replica.role == .follower)
  }

  @Test("that its leader did not finish is finished by the next one")
  func leaderChange() throws {
    let joint = EntryHeader(term: 4, kind: .membership(try members([1, 4], outgoing: [1, 2, 3])))
    var subject = try Subject(log: commands(4) + [joint])
    subject.wake()
    // A majority of the former voters only; then one of the coming as well.
    subject.hear(2, 4, .preVoteReply(for: 5, granted: true))
    #expect(subject.replica.role == .preCandidate)
    subject.hear(4, 4, .preVoteReply(for: 5, granted: true))
    subject.hear(2, 5, .voteReply(granted: true))
    #expect(subject.replica.role == .candidate)
    subject.hear(4, 5, .voteReply(granted: true))
    #expect(subject.replica.role == .leader)
    subject.hear(2, 5, .appendReply(.matched(3)))
    let effects = subject.hear(4, 5, .appendReply(.matched(3)))
    #expect(effects.contains(.membershipChanged(try members([1, 4]), at: 4)))
  }

  @Test("makes a voter a learner, and back")
  func demotion() throws {
    var subject = try Subject()
    subject.lead()
    subject.step(self.change(try members([1, 2], learners: [3])))
    #expect(subject.replica.status.membership == (try members([1, 2], outgoing: [1, 2, 3], learners: [3])))
    subject.hear(2, 5, .appendReply(.matched(2)))
    subject.hear(2, 5, .appendReply(.matched(3)))
    #expect(subject.replica.status.membership == (try members([1, 2], learners: [3])))
    subject.step(self.change(try members([1, 2, 3]), 3))
    subject.hear(2, 5, .appendReply(.matched(4)))
    subject.hear(2, 5, .appendReply(.matched(5)))
    #expect(subject.replica.status.membership == (try members([1, 2, 3])))
  }
}

@Suite("A transfer of leadership")
struct TransferTests {
  @Test("stops proposals, brings the target up to date, and tells it to campaign")  // 3.10
  func transfer() throws {
    var subject = try Subject()
    subject.lead()
    subject.step(.propose(1, byteCount: 1))
    #expect(subject.step(.transferLeadership(to: 2)).isEmpty)
    #expect(subject.step(.propose(2, byteCount: 1)) == [.rejected(2, .transferring(to: 2))])
    #expect(subject.hear(2, 5, .appendReply(.matched(2))).sent(to: 2) == [.timeoutNow])
    let effects = subject.hear(2, 6, .voteRequest(last: position(2, 5), isTransfer: true))
    #expect(effects.contains(.transferEnded(to: 2, .handedOver)))
    #expect(effects.sent(to: 2) == [.voteReply(granted: true)])
  }

  @Test("is given up after an election timeout")
  func timeout() throws {
    var subject = try Subject()
    subject.lead()
    subject.step(.propose(1, byteCount: 1), .transferLeadership(to: 3))
    var effects: [Effect] = []
    for round: UInt64 in 2..<14 {
      effects += subject.wake()
      effects += subject.hear(2, 5, .heartbeatReply(round: HeartbeatRound(round), isWritable: true))
    }
    #expect(effects.contains(.transferEnded(to: 3, .timeout)))
    #expect(subject.step(.propose(2, byteCount: 1)).contains(.accepted(2, at: position(3, 5))))
  }

  @Test("goes to the voter that is furthest, if none is named, and to nobody that is unfit")
  func choice() throws {
    var subject = try Subject(of: [1, 2, 3], learners: [4])
    subject.lead()
    subject.step(.transferLeadership(to: nil))
    #expect(subject.replica.status.transferTarget == 2)
    for target: MemberID in [1, 4, 9] {
      var other = try Subject(of: [1, 2, 3], learners: [4])
      other.lead()
      #expect(other.step(.transferLeadership(to: target)) == [.transferEnded(to: target, .impossible)])
    }
    var follower = try Subject()
    #expect(follower.step(.transferLeadership(to: 2)) == [.transferEnded(to: 2, .impossible)])
  }

  @Test("makes the target campaign at once, without asking, if it can")
  func target() throws {
    var subject = try Subject()
    let effects = subject.hear(2, 4, .timeoutNow)
    #expect(effects.sent == [2, 3].map { Sent($0, .voteRequest(last: .zero, isTransfer: true)) })
    var learner = try Subject(3, of: [1, 2], learners: [3])
    #expect(learner.hear(2, 4, .timeoutNow).sent.isEmpty)
  }
}
