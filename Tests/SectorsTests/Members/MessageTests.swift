// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import Raft
import SectorStore
import Sectors
import SwiftProtobuf
import Testing

@Suite("A message of consensus")
struct MessageTests {
  /// Takes messages apart into requests, as they go over the wire, and puts them together again.
  private static func carry(_ messages: [MemberMessage], _ note: Comment) throws -> [MemberMessage] {
    var requests = MemberRequests(messages)
    var assembly = MemberAssembly(MessageMaker.store, budget: AssemblyBudget())
    var arrived: [MemberMessage] = []
    while let request = requests.next() {
      #expect(request.payload.count <= MemberLimits.requestByteCount, note)
      let copy = try Blocktree_V1_DeliverRequest(serializedBytes: request.serializedBytes() as [UInt8])
      try assembly.receive(copy) { arrived.append(MemberMessage(message: $0, payloads: $1)) }
    }
    #expect(requests.refused.isEmpty, note)
    #expect(assembly.count == UInt64(arrived.count), note)
    return arrived
  }

  @Test("of every kind arrives as it was", arguments: Seeds.take(3))
  func roundTrip(seed: UInt64) throws {
    var maker = MessageMaker(seed: seed)
    let note: Comment = "seed \(seed)"
    for kind in 0..<MessageMaker.kindCount {
      for _ in 0..<10 {
        let message = maker.message(kind: kind)
        let arrived = try Self.carry([message], note)
        try #require(arrived.count == 1, note)
        expectSame(arrived[0], message, note)
      }
    }
  }

  @Test("arrives in its place among many", arguments: Seeds.take(3))
  func order(seed: UInt64) throws {
    var maker = MessageMaker(seed: seed)
    let note: Comment = "seed \(seed)"
    let messages = (0..<300).map { _ in maker.message(kind: maker.generator.chance(50) ? 6 : maker.number(0...14)) }
    let arrived = try Self.carry(messages, note)
    try #require(arrived.count == messages.count, note)
    for (left, right) in zip(arrived, messages) { expectSame(left, right, note) }
  }

  @Test("says of a membership all that there is to say in the entry's header")
  func membership() throws {
    let membership = try #require(Membership(voters: [MemberID(1)], outgoing: [MemberID(2)], learners: [MemberID(3)]))
    var message = MemberMessage(
      message: Raft.Message(
        incarnation: GroupIncarnation(1), term: Term(1),
        body: .append(
          after: .zero, entries: [EntryHeader(term: Term(1), kind: .membership(membership))], commit: .zero)),
      payloads: [.membership([1, 2, 3])])
    let arrived = try Self.carry([message], "membership")
    message.payloads = [nil]
    try #require(arrived.count == 1)
    expectSame(arrived[0], message)
  }

  @Test("may carry a change of MiB")
  func large() throws {
    var maker = MessageMaker(seed: 1)
    let messages = [1, 1_000, 2, 30, 31, 32, 33, 2_000].map { maker.append(blockCount: $0) }
    let arrived = try Self.carry(messages, "large")
    try #require(arrived.count == messages.count)
    for (left, right) in zip(arrived, messages) { expectSame(left, right) }
  }

  @Test("is not sent where its payloads do not fit")
  func refused() throws {
    var maker = MessageMaker(seed: 1)
    let good = maker.append(blockCount: 1)
    var missing = good
    missing.payloads = []
    var other = good
    other.payloads = [.noop]
    var absent = good
    absent.payloads = [nil]
    var extra = maker.message(kind: 4)
    extra.payloads = [.noop]
    let huge = maker.append(blockCount: 2_049)
    let largest = maker.append(blockCount: 2_000)
    for bad in [missing, other, absent, extra, huge] {
      var requests = MemberRequests([good, bad, largest])
      var count = 0
      while let request = requests.next() { count += request.messages.count }
      #expect(count == 2)
      #expect(requests.refused.count == 1)
    }
  }
}

@Suite("A malformed request of a member")
struct MalformedRequestTests {
  typealias Message = Blocktree_V1_RaftMessage
  typealias Request = Blocktree_V1_DeliverRequest

  /// What a receiver says of requests that come one after the other; nil: nothing against it.
  private static func refusal(_ requests: [Request], _ budget: AssemblyBudget = AssemblyBudget()) -> MemberError? {
    var assembly = MemberAssembly(MessageMaker.store, budget: budget)
    do throws(MemberError) {
      for request in requests { try assembly.receive(request) { _, _ in } }
      return nil
    } catch {
      return error
    }
  }

  private static func refusal(_ body: Message.OneOf_Body?) -> MemberError? {
    self.refusal([.with { $0.messages = [.with { $0.body = body }] }])
  }

  private static func refusal(entry: Blocktree_V1_RaftEntry, payload: [UInt8] = []) -> MemberError? {
    self.refusal([
      .with {
        $0.messages = [
          .with {
            $0.append = .with {
              $0.after = .init()
              $0.entries = [entry]
            }
          }
        ]
        $0.payload = Data(payload)
      }
    ])
  }

  @Test("lacks a part")
  func missing() {
    #expect(Self.refusal(nil) == .invalid(field: "body"))
    #expect(Self.refusal(.preVoteRequest(.init())) == .invalid(field: "last"))
    #expect(Self.refusal(.voteRequest(.init())) == .invalid(field: "last"))
    #expect(Self.refusal(.append(.init())) == .invalid(field: "after"))
    #expect(Self.refusal(.appendReply(.init())) == .invalid(field: "result"))
    #expect(Self.refusal(.appendReply(.with { $0.mismatched = .init() })) == .invalid(field: "hint"))
    #expect(Self.refusal(entry: .init()) == .invalid(field: "kind"))
    // These need nothing.
    #expect(Self.refusal(.heartbeat(.init())) == nil)
    #expect(Self.refusal(.append(.with { $0.after = .init() })) == nil)
  }

  @Test("has a membership that can not be")
  func membership() {
    func refusal(_ voters: [UInt64], _ outgoing: [UInt64] = [], _ learners: [UInt64] = []) -> MemberError? {
      Self.refusal(
        entry: .with {
          $0.membership = .with {
            $0.voters = voters
            $0.outgoing = outgoing
            $0.learners = learners
          }
        })
    }
    let many = (1...65).map { UInt64($0) }
    #expect(refusal([1, 2, 3]) == nil)
    #expect(refusal(Array(many.prefix(64))) == nil)
    #expect(refusal([]) == .invalid(field: "membership"))
    #expect(refusal([0]) == .invalid(field: "membership"))
    #expect(refusal([1], [], [1]) == .invalid(field: "membership"))
    #expect(refusal(many) == .tooLarge("membership", limit: 64, found: 65))
    #expect(refusal(Array(many.prefix(40)), Array(many.suffix(40))) == .invalid(field: "membership"))
  }

  @Test("has a command that is none")
  func command() {
    func entry(_ byteCount: UInt64, _ change: Int, _ blocks: Int = 0) -> Blocktree_V1_RaftEntry {
      .with {
        $0.command = .with {
          $0.byteCount = byteCount
          $0.changeByteCount = UInt32(change)
          $0.blockByteCount = UInt32(blocks)
        }
      }
    }
    let change = Change(term: 1).encoded()
    #expect(Self.refusal(entry: entry(1 << 40, change.count), payload: change) == nil)
    #expect(Self.refusal(entry: entry(1 << 40 + 1, change.count), payload: change) == .invalid(field: "byte_count"))
    #expect(Self.refusal(entry: entry(.max, change.count), payload: change) == .invalid(field: "byte_count"))
    #expect(Self.refusal(entry: entry(1, 0)) == .invalid(field: "change_byte_count"))
    #expect(Self.refusal(entry: entry(1, 3), payload: [1, 2, 3]) == .invalid(field: "payload"))
    #expect(
      Self.refusal(entry: entry(1, change.count, 4_096), payload: change + [UInt8](repeating: 0, count: 4_096))
        == .invalid(field: "payload"))
    #expect(Self.refusal(entry: entry(1, change.count), payload: change + [0]) == .invalid(field: "payload"))
    let limit = MemberLimits.appendByteCountMax
    #expect(Self.refusal(entry: entry(1, limit, 1)) == .tooLarge("payloads", limit: limit, found: limit + 1))
    #expect(
      Self.refusal(entry: entry(1, Int(UInt32.max), Int(UInt32.max)))
        == .tooLarge("payloads", limit: limit, found: 2 * Int(UInt32.max)))
  }

  @Test("has more than a limit allows")
  func tooMany() {
    let heartbeat = Message.with { $0.heartbeat = .init() }
    #expect(Self.refusal([.with { $0.messages = Array(repeating: heartbeat, count: 1_024) }]) == nil)
    #expect(
      Self.refusal([.with { $0.messages = Array(repeating: heartbeat, count: 1_025) }])
        == .tooLarge("messages", limit: 1_024, found: 1_025))
    let noop = Blocktree_V1_RaftEntry.with { $0.noop = .init() }
    func append(_ count: Int) -> Message.OneOf_Body {
      .append(
        .with {
          $0.after = .init()
          $0.entries = Array(repeating: noop, count: count)
        })
    }
    #expect(Self.refusal(append(4_096)) == nil)
    #expect(Self.refusal(append(4_097)) == .tooLarge("entries", limit: 4_096, found: 4_097))
  }

  @Test("begins a message before another is complete")
  func outOfPlace() {
    var maker = MessageMaker(seed: 1)
    var requests = MemberRequests([maker.append(blockCount: 100)])
    var parts: [Request] = []
    while let request = requests.next() { parts.append(request) }
    #expect(parts.count > 3)
    #expect(Self.refusal(parts) == nil)
    let heartbeat = Message.with { $0.heartbeat = .init() }
    var early = parts
    early[1].messages = [heartbeat]
    #expect(Self.refusal(early) == .invalid(field: "messages"))
    early = parts
    early[0].messages.append(heartbeat)
    #expect(Self.refusal(early) == .invalid(field: "messages"))
    // Bytes that belong to nothing.
    #expect(Self.refusal(parts + [.with { $0.payload = Data([1]) }]) == .invalid(field: "payload"))
    // What is in front of the next message completes the one before.
    parts[parts.count - 1].messages = [heartbeat]
    #expect(Self.refusal(parts) == nil)
  }

  @Test("would hold more than all streams may")
  func budget() throws {
    var maker = MessageMaker(seed: 1)
    var requests = MemberRequests([maker.append(blockCount: 100)])
    let budget = AssemblyBudget(500_000)
    let next = requests.next()
    let first = try #require(next)
    do {
      var holding = MemberAssembly(MessageMaker.store, budget: budget)
      try holding.receive(first) { _, _ in Issue.record("It is not complete.") }
      #expect(budget.freeByteCount < 100_000)
      #expect(Self.refusal([first], budget) == .busy)
      #expect(holding.count == 0)
    }
    // A stream that ended holds nothing.
    #expect(budget.freeByteCount == 500_000)
    #expect(Self.refusal([first], budget) == nil)
    #expect(budget.freeByteCount == 500_000)
  }

  @Test("may be damaged anywhere and harms nobody", arguments: Seeds.take(2))
  func damaged(seed: UInt64) throws {
    var maker = MessageMaker(seed: seed)
    var count = 0
    for _ in 0..<400 {
      let messages = (0..<4).map { _ in maker.message(kind: maker.generator.chance(40) ? 6 : maker.number(0...14)) }
      var requests = MemberRequests(messages)
      var parts: [Request] = []
      while let request = requests.next() {
        var bytes: [UInt8] = try request.serializedBytes()
        for _ in 0..<maker.number(1...4) where !bytes.isEmpty {
          // Most of the bytes are contents of blocks: look for the others.
          bytes[maker.number(0...min(bytes.count, 400) - 1)] = UInt8(maker.number(0...255))
        }
        if let part = try? Request(serializedBytes: bytes) { parts.append(part) }
      }
      if Self.refusal(parts) != nil { count += 1 }
    }
    #expect(count > 0, "seed \(seed)")
  }
}

@Suite("What waits for a stream to a member")
struct MemberQueueTests {
  @Test("is urgent: the oldest goes first when there is too much")
  func urgent() {
    var queue = MemberQueue(.urgent)
    for round in 0..<2_000 { queue.add(Self.heartbeat(round)) }
    #expect(queue.droppedCount == 976)
    let taken = queue.take()
    #expect(taken.count == MemberLimits.urgentCountMax)
    #expect(taken.first?.message == Self.heartbeat(976).message)
    #expect(taken.last?.message == Self.heartbeat(1_999).message)
    #expect(queue.isEmpty)
  }

  @Test("is bulk: the newest is dropped when there are too many")
  func bulkCount() {
    var queue = MemberQueue(.bulk)
    for number in 0..<70 { queue.add(Self.append(number, byteCount: 10)) }
    #expect(queue.droppedCount == 6)
    #expect(queue.take().map(\.message) == (0..<64).map { Self.append($0, byteCount: 10).message })
  }

  @Test("is bulk: the newest is dropped when there are too many bytes, but one always fits")
  func bulkBytes() {
    var queue = MemberQueue(.bulk)
    queue.add(Self.append(0, byteCount: 40 << 20))
    #expect(queue.droppedCount == 0)
    queue.add(Self.append(1, byteCount: 1))
    #expect(queue.droppedCount == 1)
    #expect(queue.take().count == 1)
    for number in 0..<40 { queue.add(Self.append(number, byteCount: 1 << 20)) }
    #expect(queue.droppedCount == 1 + 9)
    // As much as goes into one request, and at least one.
    #expect(queue.take().count == 1)
    queue.clear()
    #expect(queue.isEmpty)
    #expect(queue.droppedCount == 10 + 30)
    for number in 0..<40 { queue.add(Self.append(number, byteCount: 64 << 10)) }
    #expect(queue.take().count == 2)
  }

  private static func heartbeat(_ round: Int) -> MemberMessage {
    MemberMessage(
      message: Raft.Message(
        incarnation: GroupIncarnation(1), term: Term(1),
        body: .heartbeat(round: HeartbeatRound(UInt64(round)), commit: .zero)))
  }

  private static func append(_ number: Int, byteCount: Int) -> MemberMessage {
    MemberMessage(
      message: Raft.Message(
        incarnation: GroupIncarnation(1), term: Term(1),
        body: .append(
          after: LogPosition(index: Raft.LogIndex(UInt64(number)), term: Term(1)),
          entries: [EntryHeader(term: Term(1), kind: .command, byteCount: byteCount)], commit: .zero)))
  }
}
