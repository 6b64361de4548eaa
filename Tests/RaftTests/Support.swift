// SPDX-License-Identifier: Apache-2.0

public import Raft
import Testing

extension Term: ExpressibleByIntegerLiteral {
  public init(integerLiteral value: UInt64) { self.init(value) }
}
extension LogIndex: ExpressibleByIntegerLiteral {
  public init(integerLiteral value: UInt64) { self.init(value) }
}
extension MemberID: ExpressibleByIntegerLiteral {
  public init(integerLiteral value: UInt64) { self.init(value) }
}
extension ProposalID: ExpressibleByIntegerLiteral {
  public init(integerLiteral value: UInt64) { self.init(rawValue: value) }
}
extension ReadID: ExpressibleByIntegerLiteral {
  public init(integerLiteral value: UInt64) { self.init(rawValue: value) }
}
extension WriteID: ExpressibleByIntegerLiteral {
  public init(integerLiteral value: UInt64) { self.init(rawValue: value) }
}
extension HeartbeatRound: ExpressibleByIntegerLiteral {
  public init(integerLiteral value: UInt64) { self.init(rawValue: value) }
}

func position(_ index: UInt64, _ term: UInt64) -> LogPosition {
  LogPosition(index: LogIndex(index), term: Term(term))
}

func commands(_ terms: UInt64...) -> [EntryHeader] {
  terms.map { EntryHeader(term: Term($0), kind: .command, byteCount: 10) }
}

func members(_ voters: [MemberID], outgoing: [MemberID] = [], learners: [MemberID] = []) throws -> Membership {
  try #require(Membership(voters: voters, outgoing: outgoing, learners: learners))
}

/// A replica, its clock, and what it asked for. Its disk is instant, unless a test wants it otherwise.
struct Subject {
  var replica: Replica
  var milliseconds: UInt64 = 1000
  var persistsAtOnce = true
  var effects: [Effect] = []

  /// Member 1 of three, in term 4 with that log, unless told otherwise.
  init(
    _ id: MemberID = 1, of voters: [MemberID] = [1, 2, 3], learners: [MemberID] = [], term: UInt64 = 4,
    vote: MemberID? = nil, log: [EntryHeader] = [], snapshot: SnapshotMetadata? = nil, firstIndex: LogIndex = 1,
    applied: LogIndex = 0, configure: (inout ReplicaConfiguration) -> Void = { _ in }
  ) throws {
    var configuration = ReplicaConfiguration(
      member: id, incarnation: GroupIncarnation(7), seed: id.rawValue)
    configure(&configuration)
    var state = PersistentState.initial(try members(voters, learners: learners))
    state.hardState = HardState(term: Term(term), vote: vote)
    state.entries = log
    state.firstIndex = firstIndex
    state.applied = applied
    if let snapshot { state.snapshot = snapshot }
    self.replica = try Replica(configuration, restoring: state, at: Instant(nanoseconds: 1_000_000_000))
    var effects: [Effect] = []
    self.replica.flush(at: self.now, into: &effects)
  }

  var now: Instant { Instant(nanoseconds: self.milliseconds * 1_000_000) }

  /// One event, and what came of it: writes that are done at once are not listed, but what they led to is.
  @discardableResult
  mutating func step(_ events: Event...) -> [Effect] { self.step(events) }

  @discardableResult
  mutating func step(_ events: [Event]) -> [Effect] {
    var effects: [Effect] = []
    for event in events { self.replica.step(event, at: self.now, into: &effects) }
    self.replica.flush(at: self.now, into: &effects)
    guard self.persistsAtOnce else { return effects }
    var result: [Effect] = []
    for effect in effects {
      if case .persist(let write) = effect { result += self.step(.persisted(write.id)) } else { result.append(effect) }
    }
    return result
  }

  @discardableResult
  mutating func hear(_ sender: MemberID, _ term: Term, _ body: Message.Body) -> [Effect] {
    self.step(.received(Message(incarnation: GroupIncarnation(7), term: term, body: body), from: sender))
  }

  /// Lets time go on to the next deadline.
  @discardableResult
  mutating func wake() -> [Effect] {
    self.milliseconds = max(self.milliseconds, self.replica.wakeAt.nanoseconds / 1_000_000 + 1)
    return self.step(.wake)
  }

  /// Makes it lead the next term by the votes of member 2 and, in greater groups, of more.
  @discardableResult
  mutating func elect(by voters: MemberID...) -> [Effect] {
    self.wake()
    let next = Term(self.replica.hardState.term.rawValue + 1)
    let voters = voters.isEmpty ? [2] : voters
    for voter in voters { self.hear(voter, self.replica.hardState.term, .preVoteReply(for: next, granted: true)) }
    var effects: [Effect] = []
    for voter in voters { effects += self.hear(voter, next, .voteReply(granted: true)) }
    return effects
  }

  /// As `elect`, and its first entry is committed by member 2.
  mutating func lead(by voters: MemberID...) {
    self.elect(by: 2)
    self.hear(2, self.replica.hardState.term, .appendReply(.matched(self.replica.last.index)))
  }

  func message(_ body: Message.Body, _ term: Term? = nil) -> Message {
    Message(incarnation: GroupIncarnation(7), term: term ?? self.replica.hardState.term, body: body)
  }
}

extension [Effect] {
  /// The messages, with their receivers.
  var sent: [Sent] {
    self.compactMap { if case .send(let message, let member) = $0 { Sent(member, message.body) } else { nil } }
  }

  var writes: [Write] { self.compactMap { if case .persist(let write) = $0 { write } else { nil } } }

  func sent(to member: MemberID) -> [Message.Body] { self.sent.filter { $0.member == member }.map(\.body) }
}

struct Sent: Hashable {
  var member: MemberID
  var body: Message.Body
  init(_ member: MemberID, _ body: Message.Body) {
    self.member = member
    self.body = body
  }
}
