// SPDX-License-Identifier: Apache-2.0

import Raft
import Testing

@Suite("A read")
struct ReadTests {
  @Test("on a leader waits for a round that began after it")  // Dissertation, 6.4
  func round() throws {
    var subject = try Subject()
    subject.lead()
    let effects = subject.step(.read(1), .read(2))
    #expect(effects.sent == [2, 3].map { Sent($0, .heartbeat(round: 2, commit: $0 == 2 ? 1 : 0)) })
    #expect(subject.hear(2, 5, .heartbeatReply(round: 1, isWritable: true)).isEmpty)
    #expect(
      subject.hear(3, 5, .heartbeatReply(round: 2, isWritable: true)) == [
        .readReady(1, at: 1), .readReady(2, at: 1),
      ])
  }

  @Test("waits until the leader has committed an entry of its term")
  func termCommit() throws {
    var subject = try Subject(log: commands(4))
    subject.elect()
    subject.step(.read(1))
    #expect(subject.hear(2, 5, .heartbeatReply(round: 1, isWritable: true)).isEmpty)
    let committed = subject.hear(2, 5, .appendReply(.matched(2)))
    #expect(committed.sent(to: 2) == [.heartbeat(round: 2, commit: 2)])
    #expect(subject.hear(2, 5, .heartbeatReply(round: 2, isWritable: true)) == [.readReady(1, at: 2)])
  }

  @Test("fails when leadership ends before")
  func lost() throws {
    var subject = try Subject()
    subject.lead()
    subject.step(.read(1))
    #expect(subject.hear(3, 6, .termNotice).contains(.readFailed(1, .leadershipLost)))
  }

  @Test("needs nobody where there is nobody else")
  func alone() throws {
    var subject = try Subject(of: [1])
    subject.step(.wake)
    #expect(subject.step(.read(1)) == [.readReady(1, at: 1)])
  }

  @Test("on a follower asks the leader, once for all that came in a turn")
  func follower() throws {
    var subject = try Subject()
    #expect(subject.step(.read(1)) == [.readFailed(1, .noLeader)])
    subject.hear(2, 4, .heartbeat(round: 1, commit: 0))
    let bodies = subject.step(.read(2), .read(3)).sent(to: 2)
    guard case .readRequest(let nonce) = try #require(bodies.first), bodies.count == 1 else {
      Issue.record("\(bodies)")
      return
    }
    #expect(subject.hear(2, 4, .readReply(nonce, index: 7)) == [.readReady(2, at: 7), .readReady(3, at: 7)])
    #expect(subject.hear(2, 4, .readReply(nonce, index: 8)).isEmpty)
  }

  @Test("on a follower fails with the leader, or when it does not answer")
  func followerFails() throws {
    var subject = try Subject()
    subject.hear(2, 4, .heartbeat(round: 1, commit: 0))
    subject.step(.read(1))
    #expect(subject.hear(3, 5, .heartbeat(round: 1, commit: 0)).contains(.readFailed(1, .leadershipLost)))
    subject.step(.read(2))
    for round: UInt64 in 2...12 {
      subject.milliseconds += 30
      subject.hear(3, 5, .heartbeat(round: HeartbeatRound(round), commit: 0))
    }
    #expect(subject.step(.wake).contains(.readFailed(2, .timeout)))
  }

  @Test("of a follower is answered by the leader as one of its own")
  func remote() throws {
    var subject = try Subject()
    subject.lead()
    let nonce = ReadNonce(rawValue: 99)
    subject.hear(3, 5, .readRequest(nonce))
    #expect(
      subject.hear(2, 5, .heartbeatReply(round: 2, isWritable: true)).sent == [Sent(3, .readReply(nonce, index: 1))])
    var follower = try Subject(2)
    #expect(follower.hear(3, 4, .readRequest(nonce)).sent == [Sent(3, .readReply(nonce, index: nil))])
  }

  @Test("does not let more wait than a limit")
  func limit() throws {
    var subject = try Subject { $0.pendingReadsMax = 1 }
    subject.lead()
    #expect(subject.step(.read(1), .read(2)).contains(.readFailed(2, .tooManyReads)))
  }
}

@Suite("A lease")
struct LeaseTests {
  private func leader(perThousand: UInt64 = 100) throws -> Subject {
    var subject = try Subject { $0.clockDriftBound = ClockDriftBound(perThousand: perThousand) }
    subject.lead()
    subject.hear(2, 5, .heartbeatReply(round: 1, isWritable: true))
    return subject
  }

  @Test("is the promise, shortened by the worst that two clocks can do")
  func bound() {
    #expect(ClockDriftBound(perThousand: 0).lease(of: 150) == 150)
    #expect(ClockDriftBound(perThousand: 100).lease(of: 150_000) == 122_727)
    #expect(ClockDriftBound(perThousand: 5000).lease(of: 150_000) == 75)
    #expect(ClockDriftBound(perThousand: 999).lease(of: .max) == UInt64.max / 1999)
  }

  @Test("serves reads without a message, from when the round began until it ends")  // Dissertation, 6.4.1
  func serves() throws {
    var subject = try self.leader()
    #expect(subject.step(.read(1)) == [.readReady(1, at: 1)])
    subject.milliseconds += 122
    #expect(subject.step(.read(2)) == [.readReady(2, at: 1)])
    subject.milliseconds += 1
    #expect(!subject.step(.read(3)).contains(.readReady(3, at: 1)))
  }

  @Test("counts from when the round was sent, not from when it was answered")
  func sent() throws {
    var subject = try Subject { $0.clockDriftBound = ClockDriftBound(perThousand: 100) }
    subject.lead()
    subject.milliseconds += 100
    subject.hear(2, 5, .heartbeatReply(round: 1, isWritable: true))
    #expect(subject.replica.status.holdsLease)
    subject.milliseconds += 23
    #expect(!subject.step(.read(1)).contains(.readReady(1, at: 1)))
  }

  @Test("is over after the process was stopped for a while, whatever comes first")
  func stopped() throws {
    var subject = try self.leader()
    subject.milliseconds += 60_000
    #expect(!subject.step(.read(1)).contains(.readReady(1, at: 1)))
  }

  @Test("is given up before leadership is handed over, for the rest of the term")  // 3.10, 6.4.1
  func transfer() throws {
    var subject = try self.leader()
    subject.step(.transferLeadership(to: 2))
    #expect(!subject.step(.read(1)).contains(.readReady(1, at: 1)))
    for round: UInt64 in 2..<20 {
      subject.wake()
      subject.hear(2, 5, .heartbeatReply(round: HeartbeatRound(round), isWritable: true))
    }
    #expect(subject.replica.status.transferTarget == nil)
    #expect(subject.replica.role == .leader)
    #expect(!subject.replica.status.holdsLease)
  }

  @Test("is not there without a bound on clocks")
  func unbounded() throws {
    var subject = try Subject()
    subject.lead()
    subject.hear(2, 5, .heartbeatReply(round: 1, isWritable: true))
    #expect(!subject.replica.status.holdsLease)
  }
}
