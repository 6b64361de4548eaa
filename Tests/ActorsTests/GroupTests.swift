// SPDX-License-Identifier: Apache-2.0

import Actors
import Testing

@Suite("A group")
struct GroupTests {
  let world = World()

  func members(_ count: Int, _ log: Log<Int>, _ options: ActorOptions = .standard) throws -> [ActorRef<Int>] {
    try (0..<count).map { index in
      try self.world.runtime.spawn(options) { _ in Script<Int> { _, _ in log.add(index) } }
    }
  }

  @Test("sends to one member after the other")
  func roundRobin() throws {
    let log = Log<Int>()
    let group = ActorGroup<Int>(in: self.world.runtime, balance: .roundRobin)
    for member in try self.members(3, log) { try group.join(member) }
    for _ in 0..<7 {
      #expect(group.offer(0) == .accepted)
      self.world.settle()
    }
    #expect(log.entries == [0, 1, 2, 0, 1, 2, 0])
    #expect(self.world.shutdown())
  }

  @Test("prefers, of two members, the one for which fewer messages wait")
  func fewestWaiting() throws {
    let log = Log<Int>()
    let group = ActorGroup<Int>(in: self.world.runtime)
    let members = try self.members(2, log)
    for member in members { try group.join(member) }
    for _ in 0..<10 { members[0].tell(0) }
    for _ in 0..<9 { #expect(group.offer(0) == .accepted) }
    // With two members both are always compared.
    #expect(members.map(\.load) == [11, 10])
    self.world.settle()
    #expect(self.world.shutdown())
  }

  @Test("of many spreads what comes over all of them")
  func spreads() throws {
    let log = Log<Int>()
    let group = ActorGroup<Int>(in: self.world.runtime)
    let members = try self.members(8, log)
    for member in members { try group.join(member) }
    for _ in 0..<800 { #expect(group.offer(0) == .accepted) }
    // Two choices keep the fullest within a few of the mean; one alone would leave it about twenty above.
    #expect(members.allSatisfy { (90...110).contains($0.load) })
    self.world.settle()
    #expect(self.world.shutdown())
  }

  @Test("forgets members that end or leave, and takes each once")
  func leaving() throws {
    let log = Log<Int>()
    let group = ActorGroup<Int>(in: self.world.runtime, balance: .roundRobin)
    let members = try self.members(3, log)
    for member in members + members { try group.join(member) }
    #expect(group.members == members)
    members[0].stop()
    self.world.settle()
    group.leave(members[1])
    #expect(group.members == [members[2]])
    #expect(group.offer(0) == .accepted)
    self.world.settle()
    #expect(log.entries == [2])
    try group.join(members[0])
    #expect(group.members == [members[2]], "it has ended")
    members[2].stop()
    self.world.settle()
    #expect(group.offer(0) == .stopped)
    #expect(self.world.start { try await group.send(0) }.error as? SendError == .noMember)
    #expect(self.world.shutdown())
  }

  @Test("goes past members that are full, and is full when all are")
  func full() throws {
    let log = Log<Int>()
    let group = ActorGroup<Int>(in: self.world.runtime)
    for member in try self.members(3, log, ActorOptions(mailboxCountMax: 2)) { try group.join(member) }
    for _ in 0..<6 { #expect(group.offer(0) == .accepted) }
    #expect(group.offer(0) == .full)
    // Who wants to wait does.
    let sender = self.world.start { try await group.send(0) }
    #expect(sender.value != nil)
    #expect(log.entries.count == 7)
    #expect(self.world.shutdown())
  }

  @Test("has only so many members")
  func bound() throws {
    var limits = ActorLimits()
    limits.memberCountMax = 1
    let world = World(limits: limits)
    let group = ActorGroup<Int>(in: world.runtime)
    let members = try (0..<2).map { _ in try world.runtime.spawn { _ in Script<Int> { _, _ in } } }
    try group.join(members[0])
    #expect(throws: GroupError.tooManyMembers) { try group.join(members[1]) }
    #expect(world.shutdown())
  }

  struct Remote: RemoteMembers {
    let log: Log<String>

    func send(_ message: Ask<Int, Int>) async throws(SendError) { self.log.add("sent") }

    func ask<Request: Sendable, Reply: Sendable>(
      _ request: Request, within patience: Duration, as message: (Ask<Request, Reply>) -> Ask<Int, Int>
    ) async throws(AskError) -> Reply {
      self.log.add("asked")
      throw .refused
    }
  }

  @Test("asks members here, and elsewhere when there are none")
  func remote() throws {
    let log = Log<String>()
    let group = ActorGroup<Ask<Int, Int>>(in: self.world.runtime, remote: Remote(log: log))
    let member = try self.world.runtime.spawn { _ in Script<Ask<Int, Int>> { ask, _ in ask.reply(ask.request + 1) } }
    try group.join(member)
    #expect(self.world.start { try await group.ask(1) { $0 } }.value == 2)
    #expect(log.entries.isEmpty)
    member.stop()
    self.world.settle()
    #expect(self.world.start { try await group.ask(1) { $0 } }.error as? AskError == .refused)
    #expect(log.entries == ["asked"])
    #expect(self.world.shutdown())
  }
}
