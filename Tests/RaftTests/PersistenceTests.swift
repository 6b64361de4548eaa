// SPDX-License-Identifier: Apache-2.0

import Raft
import Testing

@Suite("A ledger of writes")
struct WriteLedgerTests {
  private func log(_ terms: UInt64...) throws -> LogHeaders {
    var log = LogHeaders(base: .zero, membership: try members([1]))
    for term in terms { log.append(EntryHeader(term: Term(term), kind: .command)) }
    return log
  }

  private let hardState = HardState(term: 9, vote: 1)

  @Test("hands over each entry once, and term and vote when they changed")
  func handsOver() throws {
    var ledger = WriteLedger(persisted: 0)
    var log = try self.log(1, 1)
    #expect(
      ledger.nextWrite(log, self.hardState, at: .zero)?.entries
        == commands(1, 1).map { header in
          EntryHeader(term: header.term, kind: .command)
        })
    #expect(ledger.nextWrite(log, self.hardState, at: .zero) == nil)
    log.append(EntryHeader(term: 2, kind: .noop))
    ledger.hardStateChanged()
    let write = ledger.nextWrite(log, self.hardState, at: .zero)
    #expect(write?.firstIndex == 3)
    #expect(write?.hardState == self.hardState)
    #expect(ledger.hardStateGate == 2)
    #expect(ledger.persisted == 0)
    #expect(ledger.completed(2) == true)
    #expect(ledger.persisted == 3)
    #expect(ledger.hardStateGate == nil)
    #expect(ledger.completed(3) == false)
  }

  @Test("lets no write make durable what was truncated after it was handed over")
  func truncation() throws {
    var ledger = WriteLedger(persisted: 0)
    _ = ledger.nextWrite(try self.log(1, 1, 1), self.hardState, at: .zero)
    ledger.truncated(from: 2)
    let write = ledger.nextWrite(try self.log(1, 2), self.hardState, at: .zero)
    #expect(write?.truncation == 2)
    #expect(write?.firstIndex == 2)
    #expect(ledger.completed(1) == true)
    #expect(ledger.persisted == 1)
    #expect(ledger.completed(2) == true)
    #expect(ledger.persisted == 2)
  }

  @Test("needs no truncation of what was never handed over")
  func nothingToTruncate() throws {
    var ledger = WriteLedger(persisted: 1)
    ledger.truncated(from: 2)
    #expect(ledger.nextWrite(try self.log(1, 2), self.hardState, at: .zero)?.truncation == nil)
  }
}

@Suite("A disk")
struct DiskTests {
  @Test("that stops answering ends leadership, in favour of whoever is furthest")
  func stall() throws {
    var subject = try Subject { $0.storageStallLimit = .milliseconds(100) }
    subject.lead()
    subject.hear(3, 5, .appendReply(.matched(1)))
    subject.persistsAtOnce = false
    subject.step(.propose(1, byteCount: 1))
    subject.hear(3, 5, .appendReply(.matched(2)))
    var effects: [Effect] = []
    for round: UInt64 in 2..<7 where subject.replica.role == .leader {
      subject.hear(2, 5, .heartbeatReply(round: HeartbeatRound(round - 1), isWritable: true))
      effects += subject.wake()
    }
    #expect(subject.replica.role == .follower)
    #expect(effects.sent(to: 3).contains(.timeoutNow))
    #expect(subject.now <= Instant(nanoseconds: 2_000_000_000))
    // It does not try again before its disk answers.
    #expect(subject.wake().sent.isEmpty)
    subject.step(.persisted(3))
    #expect(!subject.wake().sent.isEmpty)
  }

  @Test("that the driver declares stalled does the same at once")
  func declared() throws {
    var subject = try Subject()
    subject.lead()
    #expect(subject.step(.storageStalled(true)).sent(to: 2) == [.timeoutNow])
    #expect(subject.replica.role == .follower)
  }

  @Test("that is full takes no proposals, and hands leadership over; reads go on where nobody can take it")
  func full() throws {
    var subject = try Subject()
    subject.lead()
    subject.step(.setWritable(false))
    #expect(subject.replica.status.transferTarget == 2)
    #expect(subject.step(.propose(1, byteCount: 1)) == [.rejected(1, .transferring(to: 2))])
    var alone = try Subject(of: [1])
    alone.step(.wake)
    #expect(alone.step(.setWritable(false)).isEmpty)
    #expect(alone.step(.propose(1, byteCount: 1)) == [.rejected(1, .unwritable)])
    #expect(alone.step(.read(1)) == [.readReady(1, at: 1)])
  }

  @Test("does not fill the memory with messages that wait for it")
  func deferred() throws {
    var subject = try Subject()
    subject.milliseconds += 200
    subject.persistsAtOnce = false
    for term: UInt64 in 5..<3000 { subject.hear(2, Term(term), .voteRequest(last: .zero, isTransfer: true)) }
    #expect(subject.step(.persisted(WriteID(rawValue: 2995))).sent.count == 1)
  }
}
