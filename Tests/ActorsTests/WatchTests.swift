// SPDX-License-Identifier: Apache-2.0

import Actors
import Testing

@Suite("A watcher")
struct WatchTests {
  let world = World()

  enum Message: Sendable {
    case watch(AnyActorRef)
    case watchAddress(ActorAddress)
    case cancel
    case ended(ActorEnd)
    case number(Int)
    case fail
  }

  struct Watcher: ActorBehaviour {
    let log: Log<String>
    var watch: Watch?

    mutating func receive(_ message: Message, in context: ActorContext<Message>) throws {
      switch message {
      case .watch(let other): self.watch = try context.watch(other, as: Message.ended)
      case .watchAddress(let address): self.watch = try context.watch(address, as: Message.ended)
      case .cancel: self.watch?.cancel()
      case .ended(let end): self.log.add("\(end.address.number) \(end.reason)")
      case .number(let number): self.log.add("number \(number)")
      case .fail: throw Failure()
      }
    }
  }

  func watcher(_ log: Log<String>, _ options: ActorOptions = .standard) throws -> ActorRef<Message> {
    try self.world.runtime.spawn(options) { _ in Watcher(log: log) }
  }

  @Test("hears of each end once, with its reason")
  func reasons() throws {
    let log = Log<String>()
    let watcher = try self.watcher(log)
    let actors = try (0..<3).map { _ in try self.world.runtime.spawn { _ in Counter() } }
    for actor in actors { watcher.tell(.watch(actor.any)) }
    self.world.settle()
    #expect(log.entries.isEmpty)
    actors[0].stop()
    self.world.settle()
    actors[1].tell(.fail)
    self.world.settle()
    actors[2].tell(.stop)
    self.world.settle()
    #expect(
      log.entries == [
        "\(actors[0].address.number) \(EndReason.stopped)",
        "\(actors[1].address.number) \(EndReason.failed(ActorFailure(Failure())))",
        "\(actors[2].address.number) \(EndReason.finished)",
      ])
    #expect(self.world.shutdown())
  }

  @Test("of an actor that has ended already hears of that")
  func endedBefore() throws {
    let log = Log<String>()
    let watcher = try self.watcher(log)
    let actor = try self.world.runtime.spawn { _ in Counter() }
    actor.tell(.fail)
    self.world.settle()
    watcher.tell(.watch(actor.any))
    // By address, nobody knows any more why.
    watcher.tell(.watchAddress(actor.address))
    watcher.tell(.watchAddress(try ActorAddress(process: "/node2", incarnation: 7, number: 1)))
    self.world.settle()
    let number = actor.address.number
    #expect(
      log.entries == [
        "\(number) \(EndReason.failed(ActorFailure(Failure())))", "\(number) \(EndReason.noSuchActor)",
        "1 \(EndReason.noSuchActor)",
      ])
    #expect(self.world.shutdown())
  }

  @Test("can watch by address, and twice")
  func byAddress() throws {
    let log = Log<String>()
    let watcher = try self.watcher(log)
    let actor = try self.world.runtime.spawn { _ in Counter() }
    watcher.tell(.watchAddress(actor.address))
    watcher.tell(.watch(actor.any))
    self.world.settle()
    actor.stop()
    self.world.settle()
    #expect(log.entries.count == 2)
    #expect(self.world.shutdown())
  }

  @Test("hears nothing when the watched actor begins again, and of its end after that")
  func watchedRestarts() throws {
    let log = Log<String>()
    let watcher = try self.watcher(log)
    let actor = try self.world.runtime.spawn(restarting(.zero)) { _ in Counter() }
    watcher.tell(.watch(actor.any))
    actor.tell(.fail)
    self.world.settle()
    #expect(log.entries.isEmpty)
    actor.stop()
    self.world.settle()
    #expect(log.entries.count == 1)
    #expect(self.world.shutdown())
  }

  @Test("that has cancelled hears nothing, not even what stands in its mailbox")
  func cancelled() throws {
    let log = Log<String>()
    let watcher = try self.watcher(log)
    let actor = try self.world.runtime.spawn { _ in Counter() }
    watcher.tell(.watch(actor.any))
    watcher.tell(.cancel)
    self.world.settle()
    actor.stop()
    self.world.settle()
    let second = try self.world.runtime.spawn { _ in Counter() }
    watcher.tell(.watch(second.any))
    self.world.settle()
    // First the end's job, then the watcher's, with the cancellation before the notice.
    watcher.tell(.cancel)
    second.stop()
    self.world.executor.runOne { $0 - 1 }
    self.world.settle()
    #expect(log.entries.isEmpty)
    #expect(self.world.shutdown())
  }

  @Test("hears of an end in a full mailbox, too")
  func fullMailbox() throws {
    let (gate, log) = (Gate(), Log<String>())
    let actor = try self.world.runtime.spawn { _ in Counter() }
    let watcher = try self.world.runtime.spawn(ActorOptions(mailboxCountMax: 1)) { context -> AsyncScript<Message> in
      _ = try context.watch(actor.any, as: Message.ended)
      return AsyncScript<Message> { message, _ in
        await gate.pass()
        if case .ended = message { log.add("ended") }
      }
    }
    watcher.tell(.number(0))
    self.world.settle()
    watcher.tell(.number(1))
    #expect(watcher.offer(.number(2)) == .full)
    actor.stop()
    self.world.settle()
    gate.open(9)
    self.world.settle()
    #expect(log.entries == ["ended"])
    #expect(self.world.shutdown())
  }

  @Test("hears of an end after all that the ended actor sent it")
  func afterMessages() throws {
    let log = Log<String>()
    let watcher = try self.watcher(log)
    let actor = try self.world.runtime.spawn { _ in
      Script<Int> { count, context in
        for number in 0..<count { watcher.tell(.number(number)) }
        context.stop()
      }
    }
    watcher.tell(.watch(actor.any))
    self.world.settle()
    actor.tell(3)
    self.world.settle()
    #expect(log.entries.prefix(3) == ["number 0", "number 1", "number 2"])
    #expect(log.entries.count == 4)
    #expect(self.world.shutdown())
  }

  @Test("that begins again has no watches")
  func watcherRestarts() throws {
    let log = Log<String>()
    let watcher = try self.watcher(log, restarting(.zero))
    let actor = try self.world.runtime.spawn { _ in Counter() }
    watcher.tell(.watch(actor.any))
    watcher.tell(.fail)
    self.world.settle()
    actor.stop()
    self.world.settle()
    #expect(log.entries.isEmpty)
    #expect(self.world.shutdown())
  }

  @Test("can give the ended actor's name to another")
  func nameIsFree() throws {
    let log = Log<String>()
    let actor = try self.world.runtime.spawn(named: "only") { _ in Counter() }
    let runtime = self.world.runtime
    _ = try self.world.runtime.spawn { context -> Script<Message> in
      _ = try context.watch(actor.any, as: Message.ended)
      return Script<Message> { _, _ in
        _ = try runtime.spawn(named: "only") { _ in Counter() }
        log.add("successor")
      }
    }
    #expect(throws: SpawnError.nameTaken) { try runtime.spawn(named: "only") { _ in Counter() } }
    actor.stop()
    self.world.settle()
    #expect(log.entries == ["successor"])
    #expect(runtime.actor(named: "only", taking: Counter.Message.self) != nil)
    #expect(runtime.actor(named: "only", taking: Int.self) == nil)
    #expect(self.world.shutdown())
  }

  @Test("can watch only so many at a time")
  func bound() throws {
    var limits = ActorLimits()
    limits.watchCountMax = 2
    let world = World(limits: limits)
    let log = Log<String>()
    let actors = try (0..<3).map { _ in try world.runtime.spawn { _ in Counter() } }
    let watcher = try world.runtime.spawn { _ in
      Script<Message> { message, context in
        switch message {
        case .watch(let other):
          do throws(WatchError) {
            try context.watch(other, as: Message.ended)
          } catch {
            log.add("\(error)")
          }
        default: log.add("ended")
        }
      }
    }
    for actor in actors { watcher.tell(.watch(actor.any)) }
    world.settle()
    #expect(log.entries == ["tooManyWatches"])
    // An end makes room.
    actors[0].stop()
    world.settle()
    watcher.tell(.watch(actors[2].any))
    world.settle()
    #expect(log.entries == ["tooManyWatches", "ended"])
    #expect(world.shutdown())
  }

  @Test("that is no actor waits for an end, or until it is cancelled")
  func outside() throws {
    let actor = try self.world.runtime.spawn { _ in Counter() }
    let (first, second) = (
      self.world.start { try await actor.ended() }, self.world.start { try await actor.any.ended() }
    )
    second.cancel()
    self.world.settle()
    #expect(second.error is CancellationError)
    #expect(first.result == nil)
    actor.stop()
    self.world.settle()
    #expect(first.value == .stopped)
    #expect(self.world.start { try await actor.ended() }.value == .stopped)
    #expect(self.world.shutdown())
  }
}
