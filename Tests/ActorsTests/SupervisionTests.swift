// SPDX-License-Identifier: Apache-2.0

import Actors
import Testing

@Suite("An actor that fails")
struct SupervisionTests {
  let world = World()
  let failure = ActorFailure(Failure())

  @Test("is stopped if nobody says otherwise")
  func stops() throws {
    let actor = try self.world.runtime.spawn { _ in Counter() }
    actor.tell(.fail)
    actor.tell(.add(1))
    let end = self.world.start { try await actor.ended() }
    #expect(end.value == .failed(self.failure))
    #expect(self.world.runtime.deadLetters.count == 1)
    #expect(self.world.shutdown())
  }

  @Test("begins again with a new state after a pause, and keeps address, name and mailbox")
  func restarts() throws {
    let states = Log<Int>()
    let actor = try self.world.runtime.spawn(named: "counter", restarting()) { _ in
      states.add(0)
      return Counter()
    }
    let address = actor.address
    actor.tell(.add(5))
    actor.tell(.fail)
    actor.tell(.add(1))
    let asked = self.world.start { try await actor.ask(0, as: Counter.Message.sum) }
    self.world.advance(by: .milliseconds(96))
    #expect(asked.result == nil, "it pauses")
    #expect(actor.offer(.add(2)) == .accepted, "and takes messages meanwhile")
    self.world.advance(by: .milliseconds(12))
    #expect(asked.value == 1, "the old state is gone, the messages are not, the failed one is not repeated")
    #expect(states.entries.count == 2)
    #expect(actor.address == address)
    #expect(self.world.runtime.actor(named: "counter")?.address == address)
    #expect(self.world.start { try await actor.ask(0, as: Counter.Message.sum) }.value == 3)
    #expect(self.world.shutdown())
  }

  @Test("on the asker's own thread begins again, too")
  func restartsInline() throws {
    let actor = try self.world.runtime.spawn(restarting()) { _ in Counter() }
    #expect(self.world.start { try await actor.ask(0, as: Counter.Message.failAt) }.error as? AskError == .failed)
    let asked = self.world.start { try await actor.ask(7, as: Counter.Message.sum) }
    #expect(asked.result == nil)
    self.world.advance(by: .milliseconds(110))
    #expect(asked.value == 7)
    #expect(self.world.shutdown())
  }

  @Test("too often within the window ends")
  func tooOften() throws {
    let actor = try self.world.runtime.spawn(restarting(.zero, countMax: 2)) { _ in Counter() }
    for _ in 0..<2 {
      actor.tell(.fail)
      self.world.settle()
      #expect(self.world.runtime.actorCount == 1)
    }
    actor.tell(.fail)
    self.world.settle()
    #expect(self.world.runtime.actorCount == 0)
    #expect(self.world.start { try await actor.ended() }.value == .failed(self.failure))
    #expect(self.world.shutdown())
  }

  @Test("now and then goes on for ever")
  func windowPasses() throws {
    let actor = try self.world.runtime.spawn(restarting(.zero, countMax: 1, window: .seconds(1))) { _ in Counter() }
    for _ in 0..<5 {
      actor.tell(.fail)
      self.world.advance(by: .milliseconds(1_004))
      #expect(self.world.runtime.actorCount == 1)
    }
    #expect(self.world.shutdown())
  }

  @Test("pauses twice as long each time, up to a limit")
  func pauses() {
    let policy = RestartPolicy(
      delay: .milliseconds(100), delayMax: .milliseconds(350), countMax: 4, window: .seconds(10))
    var record = RestartRecord()
    let now = ActorTime(nanoseconds: 0)
    #expect(record.restart(at: now, by: policy) == .milliseconds(100))
    #expect(record.restart(at: now, by: policy) == .milliseconds(200))
    #expect(record.restart(at: now, by: policy) == .milliseconds(350))
    #expect(record.restart(at: now, by: policy) == .milliseconds(350))
    #expect(record.restart(at: now.advanced(by: .milliseconds(9_999)), by: policy) == nil)
    // What lies a window back does not count any more.
    #expect(record.restart(at: now.advanced(by: .seconds(10)), by: policy) == .milliseconds(100))
    #expect(record.times.count == 1)
  }

  @Test("while it makes its new state has failed once more")
  func factoryFails() throws {
    let attempts = Log<Int>()
    let actor = try self.world.runtime.spawn(restarting(.milliseconds(100), countMax: 3)) { _ in
      attempts.add(0)
      // The first works, the second and third do not, the fourth does.
      if (2...3).contains(attempts.entries.count) { throw Failure("no state") }
      return Counter()
    }
    actor.tell(.fail)
    self.world.advance(by: .milliseconds(104))
    #expect(attempts.entries.count == 2)
    self.world.advance(by: .milliseconds(204))
    #expect(attempts.entries.count == 3)
    self.world.advance(by: .milliseconds(404))
    #expect(attempts.entries.count == 4)
    #expect(self.world.start { try await actor.ask(3, as: Counter.Message.sum) }.value == 3)
    #expect(self.world.shutdown())
  }

  @Test("at its first state is not made, and its name is free")
  func firstStateFails() throws {
    #expect(throws: SpawnError.failed(ActorFailure(Failure("no state")))) {
      try self.world.runtime.spawn(named: "broken") { _ -> Counter in throw Failure("no state") }
    }
    #expect(self.world.runtime.actorCount == 0)
    _ = try self.world.runtime.spawn(named: "broken") { _ in Counter() }
    #expect(self.world.shutdown())
  }

  @Test("ends when it is stopped in its pause")
  func stoppedInPause() throws {
    let actor = try self.world.runtime.spawn(restarting()) { _ in Counter() }
    actor.tell(.fail)
    self.world.settle()
    let asked = self.world.start { try await actor.ask(0, as: Counter.Message.sum) }
    actor.stop()
    self.world.settle()
    #expect(asked.error as? AskError == .stopped)
    #expect(self.world.start { try await actor.ended() }.value == .stopped)
    self.world.advance(by: .seconds(1))
    #expect(self.world.runtime.actorCount == 0)
    #expect(self.world.shutdown())
  }

  // MARK: Parents and children

  enum Order: Sendable { case child(ActorOptions, name: String), fail, ask(Ask<Int, Int>) }

  /// A parent that makes children on demand; each end of a state is written down.
  func parent(_ log: Log<String>, _ options: ActorOptions, name: String = "parent") throws -> ActorRef<Order> {
    try self.world.runtime.spawn(named: name, options) { _ in
      Script<Order>(onEnd: { log.add("\(name) \($0)") }) { order, context in
        switch order {
        case .child(let options, let child):
          _ = try context.spawn(named: child, options) { _ in
            Script<Counter.Message>(onEnd: { log.add("\(child) \($0)") }) { _, _ in throw Failure() }
          }
        case .fail: throw Failure()
        case .ask(let ask): ask.reply(ask.request)
        }
      }
    }
  }

  @Test("takes its children with it, before it ends itself")
  func childrenEndFirst() throws {
    let log = Log<String>()
    let parent = try self.parent(log, .standard)
    parent.tell(.child(.standard, name: "child"))
    parent.tell(.fail)
    self.world.settle()
    #expect(log.entries == ["child \(EndReason.parentEnded)", "parent \(EndReason.failed(self.failure))"])
    #expect(self.world.runtime.actorCount == 0)
    #expect(self.world.shutdown())
  }

  @Test("begins again only when its children have ended")
  func childrenEndBeforeRestart() throws {
    let (gate, log) = (Gate(), Log<String>())
    let parent = try self.world.runtime.spawn(restarting(.zero)) { context -> Counter in
      log.add("parent begins")
      let child = try context.spawn(named: "slow") { _ in
        AsyncScript<Int>(onEnd: { _ in log.add("child ends") }) { _, _ in await gate.pass() }
      }
      child.tell(0)
      return Counter()
    }
    self.world.settle()
    parent.tell(.fail)
    self.world.advance(by: .seconds(1))
    #expect(log.entries == ["parent begins"])
    gate.open()
    self.world.advance(by: .milliseconds(100))
    #expect(log.entries == ["parent begins", "child ends", "parent begins"])
    gate.open(9)
    #expect(self.world.shutdown())
  }

  @Test("and escalates makes its parent fail with the same failure")
  func escalates() throws {
    let log = Log<String>()
    let parent = try self.parent(log, restarting(.zero))
    parent.tell(.child(ActorOptions(supervision: .escalate), name: "child"))
    self.world.settle()
    self.world.runtime.actor(named: "child", taking: Counter.Message.self)?.tell(.add(1))
    self.world.settle()
    let failed = "\(EndReason.failed(self.failure))"
    #expect(log.entries == ["child \(failed)", "parent \(failed)"])
    // The parent has begun again.
    #expect(self.world.start { try await parent.ask(3, as: Order.ask) }.value == 3)
    #expect(self.world.shutdown())
  }

  @Test("too often can escalate, through several generations")
  func escalatesFurther() throws {
    let log = Log<String>()
    let top = try self.world.runtime.spawn(named: "top") { context -> Script<Int> in
      _ = try context.spawn(named: "middle", ActorOptions(supervision: .escalate)) { context -> Script<Int> in
        _ = try context.spawn(named: "bottom", restarting(.zero, countMax: 1, then: .escalate)) { _ in
          Script<Int>(onEnd: { _ in log.add("bottom") }) { _, _ in throw Failure() }
        }
        return Script<Int>(onEnd: { _ in log.add("middle") }) { _, _ in }
      }
      return Script<Int>(onEnd: { _ in log.add("top") }) { _, _ in }
    }
    let bottom = try #require(self.world.runtime.actor(named: "bottom", taking: Int.self))
    bottom.tell(1)
    self.world.settle()
    #expect(log.entries == ["bottom"])
    bottom.tell(2)
    self.world.settle()
    #expect(log.entries == ["bottom", "bottom", "middle", "top"])
    #expect(self.world.start { try await top.ended() }.value == .failed(self.failure))
    #expect(self.world.shutdown())
  }

  @Test("that has ended can have no children")
  func noChildrenAfterEnd() throws {
    let contexts = Log<ActorContext<Counter.Message>>()
    let actor = try self.world.runtime.spawn { context -> Counter in
      contexts.add(context)
      return Counter()
    }
    actor.stop()
    #expect(throws: SpawnError.parentEnded) { try contexts.entries.first?.spawn { _ -> Counter in Counter() } }
    self.world.settle()
    #expect(throws: SpawnError.parentEnded) { try contexts.entries.first?.spawn(named: "x") { _ in Counter() } }
    #expect(self.world.runtime.actorCount == 0)
    #expect(self.world.runtime.actor(named: "x") == nil)
    #expect(self.world.shutdown())
  }
}
