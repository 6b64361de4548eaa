// SPDX-License-Identifier: Apache-2.0

import Actors
import Testing

@Suite("A mailbox")
struct MailboxTests {
  let world = World()

  @Test("hands messages on in order, each once")
  func order() throws {
    let log = Log<Int>()
    let actor = try self.world.runtime.spawn { _ in Script<Int> { number, _ in log.add(number) } }
    for number in 0..<200 { actor.tell(number) }
    #expect(log.entries.isEmpty, "telling runs no handler")
    self.world.settle()
    #expect(log.entries == Array(0..<200))
    #expect(self.world.shutdown())
  }

  @Test("hands on one message at a time, also while the handler waits")
  func oneAtATime() throws {
    let (gate, log) = (Gate(), Log<String>())
    let actor = try self.world.runtime.spawn { _ in
      AsyncScript<Int> { number, _ in
        log.add("begin \(number)")
        await gate.pass()
        log.add("end \(number)")
      }
    }
    actor.tell(1)
    actor.tell(2)
    self.world.settle()
    #expect(log.entries == ["begin 1"])
    gate.open(2)
    self.world.settle()
    #expect(log.entries == ["begin 1", "end 1", "begin 2", "end 2"])
    #expect(self.world.shutdown())
  }

  @Test("that is full says so at once to who offers")
  func full() throws {
    let (gate, log) = (Gate(), Log<Int>())
    let actor = try gated(self.world, gate, log, ActorOptions(mailboxCountMax: 2))
    actor.tell(0)
    self.world.settle()
    // The one that is being handled does not count.
    #expect(actor.offer(1) == .accepted)
    #expect(actor.offer(2) == .accepted)
    #expect(actor.offer(3) == .full)
    gate.open()
    self.world.settle()
    #expect(actor.offer(4) == .accepted)
    #expect(actor.offer(5) == .full)
    gate.open(9)
    self.world.settle()
    #expect(log.entries == [0, 1, 2, 4])
    #expect(self.world.runtime.deadLetters.count == 0)
    #expect(self.world.shutdown())
  }

  @Test("that is full lets senders wait, first come, first served")
  func waiting() throws {
    let (gate, log) = (Gate(), Log<Int>())
    let actor = try gated(self.world, gate, log, ActorOptions(mailboxCountMax: 1))
    actor.tell(0)
    self.world.settle()
    actor.tell(1)
    let senders = (2...4).map { number in self.world.start { try await actor.send(number) } }
    #expect(senders.allSatisfy { $0.result == nil })
    gate.open()
    self.world.settle()
    // One place, one sender; and who only offers does not get in before those who wait.
    #expect(senders.map { $0.result != nil } == [true, false, false])
    #expect(actor.offer(9) == .full)
    gate.open(9)
    self.world.settle()
    #expect(senders.allSatisfy { $0.value != nil })
    #expect(log.entries == [0, 1, 2, 3, 4])
    #expect(self.world.shutdown())
  }

  @Test("lets only so many senders wait")
  func waitingBound() throws {
    let gate = Gate()
    let actor = try gated(
      self.world, gate, Log(), ActorOptions(mailboxCountMax: 1, waitingSenderCountMax: 2))
    actor.tell(0)
    self.world.settle()
    actor.tell(1)
    let senders = (2...4).map { number in self.world.start { try await actor.send(number) } }
    #expect(senders[1].result == nil)
    #expect(senders[2].error as? SendError == .mailboxFull)
    gate.open(9)
    self.world.settle()
    #expect(self.world.shutdown())
  }

  @Test("forgets the message of a sender that was cancelled while it waited")
  func cancelledSender() throws {
    let (gate, log) = (Gate(), Log<Int>())
    let actor = try gated(self.world, gate, log, ActorOptions(mailboxCountMax: 1))
    actor.tell(0)
    self.world.settle()
    actor.tell(1)
    let (first, second) = (
      self.world.start { try await actor.send(2) }, self.world.start { try await actor.send(3) }
    )
    first.cancel()
    self.world.settle()
    #expect(first.error as? SendError == .cancelled)
    gate.open(9)
    self.world.settle()
    #expect(second.value != nil)
    #expect(log.entries == [0, 1, 3])
    #expect(self.world.runtime.deadLetters.count == 0)
    #expect(self.world.shutdown())
  }

  @Test("of an actor that ends makes dead letters of what was told, and tells who waits")
  func endOfMailbox() throws {
    let (gate, log) = (Gate(), Log<Int>())
    let actor = try gated(self.world, gate, log, ActorOptions(mailboxCountMax: 2))
    for number in 0...1 { actor.tell(number) }
    self.world.settle()
    actor.tell(2)
    let sender = self.world.start { try await actor.send(3) }
    #expect(sender.result == nil)
    actor.stop()
    #expect(actor.offer(4) == .stopped)
    #expect(sender.result == nil, "the handler has not returned")
    gate.open(9)
    self.world.settle()
    #expect(sender.error as? SendError == .stopped)
    #expect(log.entries == [0], "nothing is handled after the stop")
    let letters = self.world.runtime.deadLetters.all
    #expect(letters.map(\.reason) == [.stopped, .stopped])
    #expect(letters.allSatisfy { $0.to == actor.address && $0.typeName.hasSuffix("Int") })
    #expect(self.world.shutdown())
  }

  @Test("that waiting senders were let into keeps their messages as dead letters, too")
  func admittedSenderThenEnd() throws {
    let gate = Gate()
    let actor = try gated(self.world, gate, Log(), ActorOptions(mailboxCountMax: 1))
    actor.tell(0)
    self.world.settle()
    actor.tell(1)
    let sender = self.world.start { try await actor.send(2) }
    gate.open()
    self.world.settle()
    #expect(sender.value != nil)
    actor.stop()
    gate.open()
    self.world.settle()
    #expect(self.world.runtime.deadLetters.count == 1)
    #expect(self.world.shutdown())
  }

  @Test("that is full, or has ended, makes dead letters of what is told")
  func toldInVain() throws {
    let gate = Gate()
    let actor = try gated(self.world, gate, Log(), ActorOptions(mailboxCountMax: 1))
    actor.tell(0)
    self.world.settle()
    actor.tell(1)
    actor.tell(2)
    #expect(self.world.runtime.deadLetters.all.map(\.reason) == [.mailboxFull])
    gate.open(9)
    self.world.settle()
    actor.stop()
    self.world.settle()
    actor.tell(3)
    #expect(self.world.runtime.deadLetters.all.map(\.reason) == [.mailboxFull, .stopped])
    #expect(self.world.shutdown())
  }

  @Test("of dead letters keeps the last ones")
  func deadLetterRing() throws {
    var limits = ActorLimits()
    limits.deadLetterCountMax = 3
    let world = World(limits: limits)
    let actor = try world.runtime.spawn { _ in Counter() }
    actor.stop()
    world.settle()
    for number in 0..<8 {
      #expect(world.runtime.deadLetters.all.map(\.sequence) == Array(UInt64(max(1, number - 2))..<UInt64(number + 1)))
      actor.tell(.add(number))
    }
    #expect(world.runtime.deadLetters.count == 8)
    #expect(world.runtime.deadLetters.all.map(\.sequence) == [6, 7, 8])
    #expect(world.shutdown())
  }

  @Test("that is long does not keep other actors from theirs")
  func fairness() throws {
    let log = Log<String>()
    let long = try self.world.runtime.spawn { _ in Script<Int> { number, _ in log.add("long \(number)") } }
    let short = try self.world.runtime.spawn { _ in Script<Int> { number, _ in log.add("short \(number)") } }
    for number in 0..<1_000 { long.tell(number) }
    short.tell(0)
    self.world.settle()
    let place = log.entries.firstIndex(of: "short 0") ?? .max
    #expect(place <= self.world.runtime.limits.turnMessageCountMax)
    #expect(log.entries.count == 1_001)
    #expect(self.world.shutdown())
  }

  @Test("of an idle actor has no task")
  func noTask() throws {
    for _ in 0..<100 { _ = try self.world.runtime.spawn { _ in Counter() } }
    #expect(self.world.executor.count == 0)
    #expect(self.world.shutdown())
  }

  @Test("that is long is dropped without using up the stack")
  func longQueue() throws {
    let gate = Gate()
    let actor = try gated(self.world, gate, Log(), ActorOptions(mailboxCountMax: 300_000))
    for number in 0..<300_000 { actor.tell(number) }
    self.world.settle()
    actor.stop()
    gate.open()
    self.world.settle()
    #expect(self.world.runtime.deadLetters.count == 299_999)
    #expect(self.world.shutdown())
  }
}
