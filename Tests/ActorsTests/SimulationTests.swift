// SPDX-License-Identifier: Apache-2.0

import Actors
import Synchronization
import Testing

/// Actors that come, send, ask, watch, fail and go in an order that a seed decides, one job at a time; afterwards, what
/// happened is compared with what was promised.
@Suite("Whatever happens to actors")
struct SimulationTests {
  /// One told message.
  struct Told: Hashable, Sendable {
    let sender: Int
    let to: UInt64
    let sequence: Int
  }

  enum Order: Sendable {
    case note(Told)
    case ask(Ask<Int, Int>)
    case askLater(Ask<Int, Int>)
    /// Answers one that was kept.
    case answerKept
    case child(name: String?)
    case watch(AnyActorRef, id: Int)
    case cancelWatch
    case ended(ActorEnd, id: Int)
    case fail
    case stop
  }

  /// What the world remembers.
  struct Record {
    var handled: [Told] = []
    var accepted: Set<Told> = []
    /// Of all messages but questions and notices: how many were sent, and how many were handled.
    var sentCount = 0
    var handledCount = 0
    var asks: [Int: [Result<Int, AskError>]] = [:]
    var handledAsks: [Int: Int] = [:]
    /// By watch: the watcher's state, and how many notices came.
    var watches: [Int: (watched: UInt64, state: Int, isCancelled: Bool)] = [:]
    var notices: [Int: Int] = [:]
    var parents: [UInt64: ActorAddress] = [:]
    /// Actors of which a state has ended.
    var ends: Set<UInt64> = []
    var endedStates: Set<Int> = []
    var states = 0
    var spawned: [UInt64: ActorRef<Order>] = [:]
    var busy: Set<UInt64> = []
    var violations: [String] = []
  }

  final class Book: Sendable {
    private let record = Mutex(Record())
    func update<Value: Sendable>(_ body: (inout Record) -> Value) -> Value { self.record.withLock { body(&$0) } }
    var copy: Record { self.record.withLock { $0 } }

    func accept(_ told: Told) {
      self.update { record in
        record.accepted.insert(told)
        record.sentCount += 1
      }
    }

    func tell(_ order: Order, _ actor: ActorRef<Order>?) {
      guard let actor else { return }
      self.update { $0.sentCount += 1 }
      actor.tell(order)
    }
  }

  struct Simulated {
    let number: UInt64
    let state: Int
    let runtime: ActorRuntime
    let book: Book
    let options: ActorOptions
    var kept: [Ask<Int, Int>] = []
    var watches: [(id: Int, watch: Watch)] = []

    init(_ context: ActorContext<Order>, _ book: Book, _ options: ActorOptions) {
      self.number = context.ref.address.number
      self.runtime = context.runtime
      self.book = book
      self.options = options
      self.state = book.update { record in
        record.states += 1
        return record.states
      }
    }

    mutating func handle(_ order: Order, _ context: ActorContext<Order>) throws {
      switch order {
      case .ask, .askLater, .ended: break
      default: self.book.update { $0.handledCount += 1 }
      }
      switch order {
      case .note(let told): self.book.update { $0.handled.append(told) }
      case .ask(let ask):
        self.book.update { $0.handledAsks[ask.request, default: 0] += 1 }
        ask.reply(ask.request * 2)
      case .askLater(let ask):
        self.book.update { $0.handledAsks[ask.request, default: 0] += 1 }
        self.kept.append(ask)
      case .answerKept:
        guard !self.kept.isEmpty else { return }
        let ask = self.kept.removeFirst()
        ask.reply(ask.request * 2)
      case .child(let name):
        guard let child = try? SimulationTests.spawn(context, name, self.book, self.options) else { return }
        self.book.update { record in
          record.parents[child.address.number] = context.ref.address
          record.spawned[child.address.number] = child
        }
      case .watch(let other, let id):
        // Written down before: the notice may come at once.
        let state = self.state
        self.book.update { $0.watches[id] = (other.address.number, state, false) }
        do {
          self.watches.append((id, try context.watch(other) { .ended($0, id: id) }))
        } catch {
          self.book.update { $0.watches[id] = nil }
        }
      case .cancelWatch:
        guard let (id, watch) = self.watches.popLast() else { return }
        watch.cancel()
        self.book.update { $0.watches[id]?.isCancelled = true }
      case .ended(let end, let id):
        let state = self.state
        self.book.update { record in
          record.notices[id, default: 0] += 1
          if record.watches[id]?.state != state { record.violations.append("a notice for another state") }
          if record.watches[id]?.isCancelled == true { record.violations.append("a notice after cancelling") }
          if record.watches[id]?.watched != end.address.number { record.violations.append("a notice of another") }
          if !record.ends.contains(end.address.number) { record.violations.append("a notice before the end") }
        }
        self.watches.removeAll { $0.id == id }
      case .fail: throw Failure()
      case .stop: context.stop()
      }
    }

    func end(_ reason: EndReason) {
      let (number, state, runtime) = (self.number, self.state, self.runtime)
      self.book.update { record in
        if !record.endedStates.insert(state).inserted { record.violations.append("a state ended twice") }
        record.ends.insert(number)
        if let parent = record.parents[number], runtime.actor(at: parent) == nil {
          record.violations.append("a child ended after its parent")
        }
      }
    }

    /// Two handlers at a time would see each other here.
    func enter() {
      let number = self.number
      self.book.update { record in
        if !record.busy.insert(number).inserted { record.violations.append("two messages at a time") }
      }
    }

    func leave() {
      let number = self.number
      _ = self.book.update { $0.busy.remove(number) }
    }
  }

  struct Sync: ActorBehaviour {
    var body: Simulated
    mutating func receive(_ order: Order, in context: ActorContext<Order>) throws {
      self.body.enter()
      defer { self.body.leave() }
      try self.body.handle(order, context)
    }
    mutating func end(_ reason: EndReason) { self.body.end(reason) }
  }

  struct Async: AsyncActorBehaviour {
    var body: Simulated
    mutating func receive(_ order: Order, in context: ActorContext<Order>) async throws {
      self.body.enter()
      defer { self.body.leave() }
      await Task.yield()
      try self.body.handle(order, context)
      await Task.yield()
    }
    mutating func end(_ reason: EndReason) { self.body.end(reason) }
  }

  static func spawn(_ context: ActorContext<Order>, _ name: String?, _ book: Book, _ options: ActorOptions) throws
    -> ActorRef<Order>
  {
    // Every second actor has an async handler.
    if context.ref.address.number % 2 == 0 {
      return try context.spawn(named: name, options) { Sync(body: Simulated($0, book, options)) }
    }
    return try context.spawn(named: name, options) { Async(body: Simulated($0, book, options)) }
  }

  static func options(_ random: inout SeededGenerator) -> ActorOptions {
    let policy = RestartPolicy(
      delay: .milliseconds(Int.random(in: 0...20, using: &random)), countMax: Int.random(in: 0...3, using: &random),
      then: Bool.random(using: &random) ? .stop : .escalate)
    let supervision: Supervision =
      switch Int.random(in: 0..<4, using: &random) {
      case 0: .stop
      case 1: .escalate
      default: .restart(policy)
      }
    return ActorOptions(
      mailboxCountMax: Int.random(in: 1...6, using: &random),
      waitingSenderCountMax: Int.random(in: 1...4, using: &random), supervision: supervision)
  }

  @Test("what was promised holds", arguments: seeds(1...150))
  func random(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var limits = ActorLimits()
    limits.turnMessageCountMax = 3
    let world = World(limits: limits, seed: seed)
    let (runtime, book) = (world.runtime, Book())
    var begun: [Begun<Void>] = []
    var sequences: [Int: Int] = [:]
    let names = ["a", "b", "c"]

    for step in 0..<400 {
      let living = book.update { record in record.spawned.values.sorted { $0.address.number < $1.address.number } }
      let actor = living.randomElement(using: &random)
      switch Int.random(in: 0..<20, using: &random) {
      case 0, 1:
        let options = Self.options(&random)
        let name = Bool.random(using: &random) ? names.randomElement(using: &random) : nil
        let ref: ActorRef<Order>?
        if step % 2 == 0 {
          ref = try? runtime.spawn(named: name, options) { Sync(body: Simulated($0, book, options)) }
        } else {
          ref = try? runtime.spawn(named: name, options) { Async(body: Simulated($0, book, options)) }
        }
        if let ref { book.update { $0.spawned[ref.address.number] = ref } }
      case 2..<6:
        guard let actor else { break }
        // A sender has a few receivers, and waits for room, offers or tells.
        let sender = Int.random(in: 0..<4, using: &random)
        sequences[sender, default: 0] += 1
        let told = Told(sender: sender, to: actor.address.number, sequence: sequences[sender] ?? 0)
        switch Int.random(in: 0..<3, using: &random) {
        case 0:
          if actor.offer(.note(told)) == .accepted { book.accept(told) }
        case 1:
          book.accept(told)
          actor.tell(.note(told))
        default:
          let sending = Begun<Void>()
          sending.task = Task(executorPreference: world.executor) {
            do throws(SendError) {
              // A sender of its own: others do not wait for it.
              let told = Told(sender: 1_000 + step, to: told.to, sequence: 0)
              try await actor.send(.note(told))
              book.accept(told)
            } catch {}
            sending.result = .success(())
          }
          begun.append(sending)
        }
      case 6..<11:
        guard let actor else { break }
        let isLater = Int.random(in: 0..<3, using: &random) == 0
        let patience = Duration.milliseconds(Int.random(in: 1...60, using: &random))
        let asking = Begun<Void>()
        asking.task = Task(executorPreference: world.executor) {
          let result: Result<Int, AskError>
          do throws(AskError) {
            result = .success(
              try await actor.ask(step, within: patience, as: isLater ? Order.askLater : Order.ask))
          } catch {
            result = .failure(error)
          }
          book.update { $0.asks[step, default: []].append(result) }
          asking.result = .success(())
        }
        begun.append(asking)
      case 11: book.tell(.answerKept, actor)
      case 12:
        book.tell(.child(name: Bool.random(using: &random) ? names.randomElement(using: &random) : nil), actor)
      case 13, 14:
        if let other = living.randomElement(using: &random) { book.tell(.watch(other.any, id: step), actor) }
      case 15: if Bool.random(using: &random) { book.tell(.cancelWatch, actor) }
      case 16: book.tell(.fail, actor)
      case 17: if Bool.random(using: &random) { book.tell(.stop, actor) }
      case 18: if Int.random(in: 0..<4, using: &random) == 0 { actor?.stop() }
      default: begun.randomElement(using: &random)?.cancel()
      }
      for _ in 0..<Int.random(in: 0...6, using: &random) {
        world.executor.runOne { Int.random(in: 0..<$0, using: &random) }
      }
      if Int.random(in: 0..<8, using: &random) == 0 { world.clock.advance(by: .milliseconds(5)) }
    }

    // All that is still under way comes to its end, and then the actors do.
    world.advance(by: .milliseconds(120))
    let before = book.copy
    for (id, watch) in before.watches where !watch.isCancelled && !before.endedStates.contains(watch.state) {
      // The watcher is there and has nothing to do.
      let hasEnded = before.spawned[watch.watched].map { runtime.actor(at: $0.address) == nil } ?? false
      #expect((before.notices[id] ?? 0) == (hasEnded ? 1 : 0), again(seed))
    }
    let ending = Begun<Void>()
    ending.task = Task(executorPreference: world.executor) {
      await runtime.shutdown()
      ending.result = .success(())
    }
    while world.executor.runOne(choose: { Int.random(in: 0..<$0, using: &random) }) {}
    #expect(ending.result != nil, again(seed))
    #expect(begun.allSatisfy { $0.result != nil }, again(seed))
    #expect(runtime.actorCount == 0, again(seed))

    let record = book.copy
    #expect(before.asks.count == record.asks.count, "each question came to its end within its time; \(again(seed))")
    let deadCount = Int(runtime.deadLetters.count)
    #expect(record.sentCount == record.handledCount + deadCount, "nothing is lost without a word; \(again(seed))")
    Self.check(record, seed)
  }

  static func check(_ record: Record, _ seed: UInt64) {
    #expect(record.violations.isEmpty, again(seed))
    // At most once, only what was sent, and in order between each two.
    #expect(Set(record.handled).count == record.handled.count, again(seed))
    #expect(Set(record.handled).isSubset(of: record.accepted), again(seed))
    for (pair, told) in Dictionary(grouping: record.handled, by: { [UInt64($0.sender), $0.to] }) {
      #expect(told.map(\.sequence) == told.map(\.sequence).sorted(), "\(pair): \(again(seed))")
    }
    // Each question has exactly one end, and was handled at most once; whoever has an answer has the right one.
    for (id, results) in record.asks {
      #expect(results.count == 1, again(seed))
      let handled = record.handledAsks[id] ?? 0
      #expect(handled <= 1, again(seed))
      for result in results {
        switch result {
        case .success(let reply): #expect(reply == id * 2 && handled == 1, again(seed))
        case .failure(.stopped), .failure(.mailboxFull): #expect(handled == 0, again(seed))
        case .failure(.unanswered): #expect(handled == 1, again(seed))
        case .failure(.failed), .failure(.noMember), .failure(.refused): Issue.record("\(result): \(again(seed))")
        case .failure(.expired), .failure(.cancelled): break
        }
      }
    }
    // One notice for each watch at most.
    for count in record.notices.values { #expect(count == 1, again(seed)) }
    // Every state has ended.
    #expect(record.endedStates.count == record.states, again(seed))
  }
}
