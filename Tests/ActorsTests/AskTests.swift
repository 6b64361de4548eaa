// SPDX-License-Identifier: Apache-2.0

import Actors
import Testing

@Suite("A question")
struct AskTests {
  let world = World()

  @Test("to an idle actor is answered on the asker's own thread")
  func inline() throws {
    let actor = try self.world.runtime.spawn { _ in Counter() }
    actor.tell(.add(40))
    self.world.settle()
    let before = self.world.executor.count
    let asked = self.world.start { try await actor.ask(2, as: Counter.Message.sum) }
    #expect(asked.value == 42)
    #expect(self.world.executor.count == before + 1, "the asker's own job, and no other")
    #expect(self.world.shutdown())
  }

  @Test("comes after what was told before")
  func order() throws {
    let actor = try self.world.runtime.spawn { _ in Counter() }
    let asked = self.world.start {
      for _ in 0..<3 { actor.tell(.add(1)) }
      return try await actor.ask(0, as: Counter.Message.sum)
    }
    #expect(asked.value == 3)
    #expect(self.world.shutdown())
  }

  @Test("can be answered later, once")
  func later() throws {
    let kept = Log<Ask<Int, Int>>()
    let actor = try self.world.runtime.spawn { _ in Script<Ask<Int, Int>> { ask, _ in kept.add(ask) } }
    let asked = self.world.start { try await actor.ask(1) }
    #expect(asked.result == nil)
    let ask = try #require(kept.entries.first)
    #expect(!ask.isAbandoned)
    #expect(ask.reply(5))
    #expect(!ask.reply(6))
    #expect(ask.isAbandoned)
    self.world.settle()
    #expect(asked.value == 5)
    #expect(self.world.shutdown())
  }

  @Test("answered twice at once has the first answer")
  func twice() throws {
    let actor = try self.world.runtime.spawn { _ in
      Script<Ask<Int, Int>> { ask, _ in
        #expect(ask.reply(1))
        #expect(!ask.reply(2))
      }
    }
    #expect(self.world.start { try await actor.ask(0) }.value == 1)
    #expect(self.world.shutdown())
  }

  @Test("can be handed on to another actor")
  func forwarded() throws {
    let last = try self.world.runtime.spawn { _ in Script<Ask<Int, Int>> { ask, _ in ask.reply(ask.request * 2) } }
    let first = try self.world.runtime.spawn { _ in Script<Ask<Int, Int>> { ask, _ in last.tell(ask) } }
    #expect(self.world.start { try await first.ask(21) }.value == 42)
    // Where it is lost on the way, the asker hears that.
    last.stop()
    self.world.settle()
    #expect(self.world.start { try await first.ask(21) }.error as? AskError == .unanswered)
    #expect(self.world.shutdown())
  }

  @Test("whose time is over is expired, and not handled any more")
  func expired() throws {
    let (gate, log) = (Gate(), Log<Int>())
    let actor = try self.world.runtime.spawn { _ in
      AsyncScript<Ask<Int, Int>> { ask, _ in
        await gate.pass()
        log.add(ask.request)
        ask.reply(ask.request)
      }
    }
    let first = self.world.start { try await actor.ask(1, within: .seconds(30)) }
    let second = self.world.start { try await actor.ask(2, within: .seconds(1)) }
    self.world.advance(by: .milliseconds(996))
    #expect(second.result == nil)
    self.world.advance(by: .milliseconds(8))
    #expect(second.error as? AskError == .expired)
    #expect(first.result == nil)
    gate.open(9)
    self.world.settle()
    #expect(first.value == 1)
    #expect(log.entries == [1])
    #expect(self.world.runtime.deadLetters.count == 0)
    #expect(self.world.shutdown())
  }

  @Test("with no time at all is not sent")
  func noTime() throws {
    let log = Log<Int>()
    let actor = try self.world.runtime.spawn { _ in Script<Ask<Int, Int>> { ask, _ in log.add(ask.request) } }
    #expect(self.world.start { try await actor.ask(1, within: .zero) }.error as? AskError == .expired)
    #expect(log.entries.isEmpty)
    #expect(self.world.shutdown())
  }

  @Test("of a task that is cancelled is not handled any more")
  func cancelled() throws {
    let (gate, log) = (Gate(), Log<Int>())
    let actor = try self.world.runtime.spawn { _ in
      AsyncScript<Ask<Int, Int>> { ask, _ in
        await gate.pass()
        log.add(ask.request)
        ask.reply(ask.request)
      }
    }
    let first = self.world.start { try await actor.ask(1) }
    let second = self.world.start { try await actor.ask(2) }
    second.cancel()
    self.world.settle()
    #expect(second.error as? AskError == .cancelled)
    gate.open(9)
    self.world.settle()
    #expect(first.value == 1)
    #expect(log.entries == [1])
    #expect(self.world.shutdown())
  }

  @Test("that the actor fails at is failed, one that it drops unanswered, one that it refuses refused")
  func noAnswer() throws {
    let actor = try self.world.runtime.spawn(restarting()) { _ in Counter() }
    #expect(self.world.start { try await actor.ask(1, as: Counter.Message.failAt) }.error as? AskError == .failed)
    self.world.advance(by: .milliseconds(200))
    // Behind another message, so not on the asker's thread.
    let queued = self.world.start {
      actor.tell(.add(1))
      return try await actor.ask(1, as: Counter.Message.failAt)
    }
    #expect(queued.error as? AskError == .failed)
    let dropping = try self.world.runtime.spawn { _ in Script<Ask<Int, Int>> { _, _ in } }
    #expect(self.world.start { try await dropping.ask(1) }.error as? AskError == .unanswered)
    let refusing = try self.world.runtime.spawn { _ in Script<Ask<Int, Int>> { ask, _ in ask.refuse() } }
    #expect(self.world.start { try await refusing.ask(1) }.error as? AskError == .refused)
    #expect(self.world.shutdown())
  }

  @Test("that an actor kept is unanswered when the actor ends or begins again")
  func keptToTheEnd() throws {
    let actor = try self.world.runtime.spawn(restarting()) { _ in Counter() }
    let first = self.world.start { try await actor.ask(1, as: Counter.Message.keep) }
    actor.tell(.fail)
    self.world.settle()
    #expect(first.error as? AskError == .unanswered)
    self.world.advance(by: .milliseconds(200))
    let second = self.world.start { try await actor.ask(1, as: Counter.Message.keep) }
    #expect(second.result == nil)
    actor.stop()
    self.world.settle()
    #expect(second.error as? AskError == .unanswered)
    #expect(self.world.shutdown())
  }

  @Test("in the mailbox of an actor that ends is told so; it is no dead letter")
  func stopped() throws {
    let gate = Gate()
    let actor = try self.world.runtime.spawn(ActorOptions(mailboxCountMax: 1)) { _ in
      AsyncScript<Ask<Int, Int>> { ask, _ in
        await gate.pass()
        ask.reply(ask.request)
      }
    }
    // The first is handled, the second waits in the mailbox, the third outside.
    let asked = (1...3).map { number in self.world.start { try await actor.ask(number) } }
    actor.stop()
    gate.open(9)
    self.world.settle()
    #expect(asked[0].value == 1)
    #expect(asked[1].error as? AskError == .stopped)
    #expect(asked[2].error as? AskError == .stopped)
    #expect(self.world.start { try await actor.ask(4) }.error as? AskError == .stopped)
    #expect(self.world.runtime.deadLetters.count == 0)
    #expect(self.world.shutdown())
  }

  @Test("waits for room in a full mailbox, and is refused when too many do")
  func full() throws {
    let gate = Gate()
    let actor = try self.world.runtime.spawn(ActorOptions(mailboxCountMax: 1, waitingSenderCountMax: 1)) { _ in
      AsyncScript<Ask<Int, Int>> { ask, _ in
        await gate.pass()
        ask.reply(ask.request)
      }
    }
    let asked = (1...4).map { number in self.world.start { try await actor.ask(number) } }
    #expect(asked[3].error as? AskError == .mailboxFull)
    gate.open(9)
    self.world.settle()
    #expect(asked[0...2].map(\.value) == [1, 2, 3])
    #expect(self.world.shutdown())
  }

  @Test("asked by an actor of itself while it handles a message waits for its turn")
  func ofItself() throws {
    // A handler that waits for itself would wait for ever: its time ends that.
    let log = Log<AskError?>()
    let actor = try self.world.runtime.spawn { _ in
      AsyncScript<Ask<Int, Int>> { ask, context in
        if ask.request > 0 {
          do throws(AskError) {
            _ = try await context.ref.ask(ask.request - 1, within: .seconds(1))
          } catch {
            log.add(error)
          }
        }
        ask.reply(ask.request)
      }
    }
    let asked = self.world.start { try await actor.ask(1) }
    #expect(asked.result == nil)
    self.world.advance(by: .milliseconds(1_010))
    #expect(asked.value == 1)
    #expect(log.entries == [.expired])
    #expect(self.world.shutdown())
  }

  @Test("to an actor whose handler is async does not end with its asker")
  func asyncHandlerIsItsOwn() throws {
    let (gate, log) = (Gate(), Log<Bool>())
    let actor = try self.world.runtime.spawn { _ in
      AsyncScript<Ask<Int, Int>> { ask, _ in
        await gate.pass()
        log.add(Task.isCancelled)
      }
    }
    let asked = self.world.start { try await actor.ask(1) }
    asked.cancel()
    self.world.settle()
    gate.open()
    self.world.settle()
    #expect(asked.error as? AskError == .cancelled)
    #expect(log.entries == [false])
    #expect(self.world.shutdown())
  }
}
