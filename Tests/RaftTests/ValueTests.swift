// SPDX-License-Identifier: Apache-2.0

import Raft
import Testing

@Suite("Headers of a log")
struct LogHeadersTests {
  @Test("are as a plain array would have them, whatever is done")
  func model() throws {
    var random = SeededGenerator(seed: 3)
    let first = try members([1])
    for _ in 0..<50 {
      var log = LogHeaders(base: .zero, membership: first)
      var plain: [EntryHeader] = []
      var base = 0
      var term: UInt64 = 1
      for _ in 0..<300 {
        switch Int.random(in: 0..<20, using: &random) {
        case 0 where plain.count > base:
          let index = Int.random(in: base..<plain.count, using: &random)
          log.truncate(from: LogIndex(UInt64(index) + 1))
          plain.removeSubrange(index...)
        case 1 where plain.count > base:
          base = Int.random(in: base...plain.count, using: &random)
          log.compact(through: LogIndex(UInt64(base)))
        case 2: term += 1
        default:
          let kind: EntryHeader.Kind =
            switch Int.random(in: 0..<8, using: &random) {
            case 0: .noop
            case 1: .membership(try members([MemberID(UInt64.random(in: 1...9, using: &random))]))
            default: .command
            }
          let size = kind == .command ? Int.random(in: 0...100, using: &random) : 0
          plain.append(EntryHeader(term: Term(term), kind: kind, byteCount: size))
          log.append(plain[plain.count - 1])
        }
        #expect(log.count == plain.count - base)
        #expect(log.headers(from: log.base.index.next, countMax: .max, byteCountMax: .max) == Array(plain[base...]))
        #expect(log.last == LogPosition(index: LogIndex(UInt64(plain.count)), term: plain.last?.term ?? .zero))
        let memberships = plain.compactMap { if case .membership(let membership) = $0.kind { membership } else { nil } }
        #expect(log.membership.membership == memberships.last ?? first)
      }
      #expect(log.term(at: LogIndex(UInt64(plain.count) + 1)) == nil)
      #expect(log.header(at: log.base.index) == nil)
    }
  }

  @Test("are given out by count and by bytes, one at least")
  func cut() throws {
    var log = LogHeaders(base: .zero, membership: try members([1]))
    for size in [50, 60, 10] { log.append(EntryHeader(term: 1, kind: .command, byteCount: size)) }
    #expect(log.headers(from: 1, countMax: 9, byteCountMax: 1).map(\.byteCount) == [50])
    #expect(log.headers(from: 1, countMax: 9, byteCountMax: 110).map(\.byteCount) == [50, 60])
    #expect(log.headers(from: 1, countMax: 1, byteCountMax: 110).map(\.byteCount) == [50])
    #expect(log.headers(from: 4, countMax: 9, byteCountMax: 110).isEmpty)
  }

  @Test("tell where another log may agree")
  func agreement() throws {
    var log = LogHeaders(base: .zero, membership: try members([1]))
    for header in commands(1, 1, 3, 3, 5) { log.append(header) }
    #expect(log.lastPosition(upTo: 9, termAtMost: 9) == position(5, 5))
    #expect(log.lastPosition(upTo: 5, termAtMost: 4) == position(4, 3))
    #expect(log.lastPosition(upTo: 4, termAtMost: 2) == position(2, 1))
    #expect(log.lastPosition(upTo: 4, termAtMost: 0) == .zero)
    log.compact(through: 3)
    #expect(log.lastPosition(upTo: 2, termAtMost: 9) == position(3, 3))
  }
}

@Suite("Progress of a follower")
struct ProgressTests {
  @Test("lets one probe out at a time, and a window of appends once the logs have met")
  func window() {
    var progress = Progress(member: 2, next: 5, now: .zero)
    #expect(progress.maySend(appendsMax: 2, bytesMax: 100))
    progress.sent(through: 4, byteCount: 0, at: .zero)
    #expect(!progress.maySend(appendsMax: 2, bytesMax: 100))
    #expect(progress.matched(4, at: .zero) == true)
    progress.sent(through: 5, byteCount: 60, at: .zero)
    #expect(progress.maySend(appendsMax: 2, bytesMax: 100))
    progress.sent(through: 6, byteCount: 60, at: .zero)
    #expect(!progress.maySend(appendsMax: 3, bytesMax: 100))
    #expect(progress.matched(5, at: .zero) == true)
    #expect(progress.maySend(appendsMax: 2, bytesMax: 100))
    #expect(progress.next == 7)
  }

  @Test("does not listen to old refusals")
  func oldRefusals() {
    var progress = Progress(member: 2, next: 5, now: .zero)
    progress.mismatched(after: 9, hint: 1, at: .zero)
    #expect(progress.next == 5)
    progress.mismatched(after: 4, hint: 2, at: .zero)
    #expect(progress.next == 3)
    _ = progress.matched(2, at: .zero)
    progress.mismatched(after: 2, hint: 0, at: .zero)
    #expect(progress.state == .replicate)
    progress.mismatched(after: 3, hint: 0, at: .zero)
    #expect(progress.state == .probe)
    #expect(progress.next == 3)
  }

  @Test("begins again after a silence, from what is known")
  func silence() {
    var progress = Progress(member: 2, next: 1, now: .zero)
    _ = progress.matched(3, at: .zero)
    progress.sent(through: 9, byteCount: 1, at: .zero)
    #expect(!progress.isSilent(probeLimit: 1, limit: 100, at: Instant(nanoseconds: 99)))
    #expect(progress.isSilent(probeLimit: 1, limit: 100, at: Instant(nanoseconds: 100)))
    progress.lost(at: .zero)
    #expect(progress.state == .probe)
    #expect(progress.next == 4)
  }
}

@Suite("Heartbeat rounds")
struct RoundClockTests {
  @Test("remember when the last confirmed one began")
  func confirmed() {
    var rounds = RoundClock()
    for time: UInt64 in [10, 20, 30] { _ = rounds.begin(at: Instant(nanoseconds: time)) }
    #expect(rounds.confirm(2) == true)
    #expect(rounds.confirmedSince == Instant(nanoseconds: 20))
    #expect(rounds.confirm(1) == false)
    #expect(rounds.unconfirmedCount == 1)
  }

  @Test("are not collected without bound")
  func bounded() {
    var rounds = RoundClock()
    for time: UInt64 in 1...1000 { _ = rounds.begin(at: Instant(nanoseconds: time)) }
    #expect(rounds.unconfirmedCount <= 64)
  }
}

@Suite("An instant")
struct InstantTests {
  @Test("does not overflow, and a replica's does not go back")
  func arithmetic() throws {
    #expect(Instant(nanoseconds: .max - 1).advanced(by: 5) == .never)
    var subject = try Subject()
    subject.lead()
    subject.milliseconds = 0
    subject.step(.read(1))
    #expect(subject.replica.role == .leader)
    #expect(subject.replica.wakeAt > Instant(nanoseconds: 1_000_000_000))
  }
}
