// SPDX-License-Identifier: Apache-2.0

import Actors
import Synchronization
import Testing

@Suite("A runtime")
struct RuntimeTests {
  let world = World()

  @Test("finds actors by name and address while they live")
  func finds() throws {
    let runtime = self.world.runtime
    let actor = try runtime.spawn(named: "counter") { _ in Counter() }
    #expect(runtime.actor(named: "counter") == actor.any)
    #expect(runtime.actor(at: actor.address) == actor.any)
    let earlier = try ActorAddress(process: "/node1", incarnation: 6, number: actor.address.number)
    let elsewhere = try ActorAddress(process: "/node2", incarnation: 7, number: actor.address.number)
    #expect(runtime.actor(at: earlier) == nil)
    #expect(runtime.actor(at: elsewhere) == nil)
    actor.stop()
    self.world.settle()
    #expect(runtime.actor(named: "counter") == nil)
    #expect(runtime.actor(at: actor.address) == nil)
    #expect(self.world.shutdown())
  }

  @Test("uses no number twice, and draws another incarnation at each start")
  func numbers() throws {
    let first = try self.world.runtime.spawn { _ in Counter() }
    first.stop()
    self.world.settle()
    #expect(try self.world.runtime.spawn { _ in Counter() }.address.number > first.address.number)
    let incarnations = Set((0..<8).map { _ in ActorRuntime(process: "/node1").incarnation })
    #expect(incarnations.count == 8)
    #expect(!incarnations.contains(0))
    #expect(self.world.shutdown())
  }

  @Test("refuses names that could not stand in a path")
  func names() throws {
    for name in ["", "a/b", "a\0", String(repeating: "x", count: 256)] {
      #expect(throws: SpawnError.nameInvalid) { try self.world.runtime.spawn(named: name) { _ in Counter() } }
    }
    #expect(self.world.runtime.actorCount == 0)
    #expect(self.world.shutdown())
  }

  @Test("has only so many actors")
  func bound() throws {
    var limits = ActorLimits()
    limits.actorCountMax = 2
    let world = World(limits: limits)
    let actors = try (0..<2).map { _ in try world.runtime.spawn { _ in Counter() } }
    #expect(throws: SpawnError.tooManyActors) { try world.runtime.spawn { _ in Counter() } }
    actors[0].stop()
    world.settle()
    _ = try world.runtime.spawn { _ in Counter() }
    #expect(world.shutdown())
  }

  @Test("ends all actors, and returns when they have ended")
  func shutdown() throws {
    let (gate, log) = (Gate(), Log<String>())
    let runtime = self.world.runtime
    let parent = try runtime.spawn { context -> Script<Int> in
      let child = try context.spawn { _ in
        AsyncScript<Int>(onEnd: { log.add("child \($0)") }) { _, _ in await gate.pass() }
      }
      child.tell(0)
      return Script<Int>(onEnd: { log.add("parent \($0)") }) { _, _ in }
    }
    self.world.settle()
    let ends = (0..<2).map { _ in self.world.start { await runtime.shutdown() } }
    #expect(ends.allSatisfy { $0.result == nil }, "a handler has not returned")
    #expect(throws: SpawnError.shutDown) { try runtime.spawn { _ in Counter() } }
    gate.open()
    self.world.settle()
    #expect(ends.allSatisfy { $0.result != nil })
    #expect(log.entries == ["child \(EndReason.parentEnded)", "parent \(EndReason.shutDown)"])
    #expect(self.world.start { try await parent.ended() }.value == .shutDown)
    #expect(self.world.shutdown(), "once more does no harm")
  }

  @Test("leaves no pause and no deadline behind when it ends")
  func shutdownWithTimers() throws {
    let actor = try self.world.runtime.spawn(restarting()) { _ in Counter() }
    actor.tell(.fail)
    let asked = self.world.start { try await actor.ask(1, as: Counter.Message.sum) }
    #expect(self.world.shutdown())
    #expect(asked.error as? AskError == .stopped)
  }

  @Test("cancels the handler of an actor that is stopped")
  func cancelsHandler() throws {
    let log = Log<String>()
    let clock = self.world.clock
    let actor = try self.world.runtime.spawn { _ in
      AsyncScript<Int>(onEnd: { log.add("\($0)") }) { _, _ in
        do {
          try await clock.sleep(until: clock.now.advanced(by: .seconds(3_600)))
        } catch {
          log.add("cancelled")
          throw error
        }
      }
    }
    actor.tell(0)
    self.world.settle()
    #expect(log.entries.isEmpty)
    actor.stop()
    self.world.settle()
    // That it threw because it was cancelled is no failure.
    #expect(log.entries == ["cancelled", "\(EndReason.stopped)"])
    #expect(self.world.shutdown())
  }

  @Test("serves many senders on all threads at once")
  func threads() async throws {
    let runtime = ActorRuntime(process: "/node1")
    let options = ActorOptions(mailboxCountMax: 16, waitingSenderCountMax: 64)
    let counter = try runtime.spawn(options) { _ in Counter() }
    let waiting = try runtime.spawn(options) { _ in
      AsyncScript<Ask<Int, Int>> { ask, _ in
        await Task.yield()
        ask.reply(ask.request)
      }
    }
    let sums = try await withThrowingTaskGroup(of: Int.self) { group in
      for sender in 0..<16 {
        group.addTask {
          var last = 0
          for number in 0..<1_000 {
            if number % 3 == sender % 3 {
              let sum = try await counter.ask(0, within: Self.patience, as: Counter.Message.sum)
              #expect(sum >= last, "what it saw before has been added already")
              last = sum
            } else {
              try await counter.send(.add(1))
            }
            if number % 10 == 0 { #expect(try await waiting.ask(number, within: Self.patience) == number) }
          }
          return (0..<1_000).count { $0 % 3 != sender % 3 }
        }
      }
      return try await group.reduce(0, +)
    }
    #expect(try await counter.ask(0, within: Self.patience, as: Counter.Message.sum) == sums)
    await runtime.shutdown()
    #expect(runtime.actorCount == 0)
  }

  /// On a machine that does much else at the same time.
  private static let patience = Duration.seconds(120)
}
