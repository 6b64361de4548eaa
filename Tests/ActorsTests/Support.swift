// SPDX-License-Identifier: Apache-2.0

import Actors
import Foundation
import Synchronization
import Testing

/// SplitMix64: the same seed gives the same test.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) {
    self.state = seed
  }

  mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var z = self.state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// Seeds for a test: the one in the environment variable `BLOCKTREE_SEED`, if there is one, else those given.
func seeds(_ usual: ClosedRange<UInt64>) -> [UInt64] {
  let named = ProcessInfo.processInfo.environment["BLOCKTREE_SEED"].flatMap { UInt64($0) }
  return named.map { [$0] } ?? Array(usual)
}

/// What a failure of a random test says: how to see it again.
func again(_ seed: UInt64) -> Comment { "Again: this test with BLOCKTREE_SEED=\(seed)" }

/// Runs jobs when the test says so, on its thread: nothing happens at the same time.
final class ManualExecutor: TaskExecutor {
  private let jobs = Mutex<[UnownedJob]>([])
  private let total = Mutex(0)

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    self.jobs.withLock { $0.append(job) }
    self.total.withLock { $0 += 1 }
  }

  var waitingCount: Int { self.jobs.withLock { $0.count } }
  /// How many jobs there have been.
  var count: Int { self.total.withLock { $0 } }

  /// Runs one of those that wait.
  ///
  /// - Parameter choose: which, of so many.
  /// - Returns: false if none waits.
  @discardableResult
  func runOne(choose: (Int) -> Int = { _ in 0 }) -> Bool {
    let job = self.jobs.withLock { jobs in jobs.isEmpty ? nil : jobs.remove(at: choose(jobs.count)) }
    job?.runSynchronously(on: self.asUnownedTaskExecutor())
    return job != nil
  }

  /// Runs all, and what they begin.
  func runAll() {
    while self.runOne() {}
  }
}

/// Time that passes when the test says so.
final class ManualClock: ActorClock {
  private struct Sleeper {
    let time: ActorTime
    let id: Int
    let continuation: CheckedContinuation<Void, any Error>
  }

  private struct State {
    var now: Int64 = 0
    var lastID = 0
    var sleepers: [Sleeper] = []
    var cancelled: Set<Int> = []
  }

  private let state = Mutex(State())

  var now: ActorTime { ActorTime(nanoseconds: self.state.withLock { $0.now }) }

  func sleep(until time: ActorTime) async throws {
    let id = self.state.withLock { state in
      state.lastID += 1
      return state.lastID
    }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
        let outcome = self.state.withLock { state -> Result<Void, any Error>? in
          if state.cancelled.remove(id) != nil { return .failure(CancellationError()) }
          if time.nanoseconds <= state.now { return .success(()) }
          state.sleepers.append(Sleeper(time: time, id: id, continuation: continuation))
          return nil
        }
        if let outcome { continuation.resume(with: outcome) }
      }
    } onCancel: {
      let sleeper = self.state.withLock { state -> Sleeper? in
        guard let index = state.sleepers.firstIndex(where: { $0.id == id }) else {
          state.cancelled.insert(id)
          return nil
        }
        return state.sleepers.remove(at: index)
      }
      sleeper?.continuation.resume(throwing: CancellationError())
    }
  }

  func advance(by duration: Duration) {
    let nanoseconds = duration.components.seconds * 1_000_000_000 + duration.components.attoseconds / 1_000_000_000
    let due = self.state.withLock { state in
      state.now += nanoseconds
      let due = state.sleepers.filter { $0.time.nanoseconds <= state.now }
      state.sleepers.removeAll { $0.time.nanoseconds <= state.now }
      return due
    }
    for sleeper in due { sleeper.continuation.resume() }
  }
}

/// A runtime whose tasks and time the test moves on.
struct World {
  let executor = ManualExecutor()
  let clock = ManualClock()
  let runtime: ActorRuntime

  init(limits: ActorLimits = ActorLimits(), seed: UInt64 = 1) {
    self.runtime = ActorRuntime(
      process: "/node1", incarnation: 7, limits: limits, clock: self.clock, executor: self.executor, seed: seed)
  }

  /// Lets all happen that can without time passing.
  func settle() { self.executor.runAll() }

  /// Lets time pass, and all happen that comes of it.
  func advance(by duration: Duration) {
    self.settle()
    // In steps, as something that happens may arm a timer.
    let step = Duration.milliseconds(4)
    var left = duration
    while left > .zero {
      self.clock.advance(by: min(step, left))
      self.settle()
      left -= step
    }
  }

  /// Begins something that may wait.
  func start<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) -> Begun<Value> {
    let begun = Begun<Value>()
    begun.task = Task(executorPreference: self.executor) {
      do { begun.result = .success(try await body()) } catch { begun.result = .failure(error) }
    }
    self.settle()
    return begun
  }

  /// Ends the runtime. True if it has ended all.
  func shutdown() -> Bool {
    let runtime = self.runtime
    let end = self.start { await runtime.shutdown() }
    return end.result != nil && runtime.actorCount == 0 && self.executor.waitingCount == 0
  }
}

/// Something that was begun, and its result when there is one.
final class Begun<Value: Sendable>: Sendable {
  private let state = Mutex<(result: Result<Value, any Error>?, task: Task<Void, Never>?)>((nil, nil))

  var result: Result<Value, any Error>? {
    get { self.state.withLock { $0.result } }
    set { self.state.withLock { $0.result = newValue } }
  }

  var task: Task<Void, Never>? {
    get { self.state.withLock { $0.task } }
    set { self.state.withLock { $0.task = newValue } }
  }

  func cancel() { self.task?.cancel() }

  var value: Value? { try? self.result?.get() }

  var error: (any Error)? {
    if case .failure(let error) = self.result { error } else { nil }
  }
}

/// What happened, in order.
final class Log<Entry: Sendable>: Sendable {
  private let state = Mutex<[Entry]>([])

  func add(_ entry: Entry) { self.state.withLock { $0.append(entry) } }
  var entries: [Entry] { self.state.withLock { $0 } }
}

/// Holds handlers up until the test lets them go on.
final class Gate: Sendable {
  private struct State {
    var passes = 0
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  private let state = Mutex(State())

  func pass() async {
    await withCheckedContinuation { continuation in
      let isOpen = self.state.withLock { state in
        if state.passes > 0 {
          state.passes -= 1
          return true
        }
        state.waiting.append(continuation)
        return false
      }
      if isOpen { continuation.resume() }
    }
  }

  func open(_ count: Int = 1) {
    for _ in 0..<count {
      let continuation = self.state.withLock { state -> CheckedContinuation<Void, Never>? in
        guard state.waiting.isEmpty else { return state.waiting.removeFirst() }
        state.passes += 1
        return nil
      }
      continuation?.resume()
    }
  }
}

struct Failure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String = "failed on purpose") { self.description = description }
}

/// An actor made of closures.
struct Script<Message: Sendable>: ActorBehaviour {
  var onEnd: (EndReason) -> Void = { _ in }
  let body: (Message, ActorContext<Message>) throws -> Void

  mutating func receive(_ message: Message, in context: ActorContext<Message>) throws {
    try self.body(message, context)
  }

  mutating func end(_ reason: EndReason) { self.onEnd(reason) }
}

/// The same, with an async handler.
struct AsyncScript<Message: Sendable>: AsyncActorBehaviour {
  var onEnd: (EndReason) -> Void = { _ in }
  let body: (Message, ActorContext<Message>) async throws -> Void

  mutating func receive(_ message: Message, in context: ActorContext<Message>) async throws {
    try await self.body(message, context)
  }

  mutating func end(_ reason: EndReason) { self.onEnd(reason) }
}

/// A counter: the usual actor of these tests.
struct Counter: ActorBehaviour {
  enum Message: Sendable {
    case add(Int)
    case sum(Ask<Int, Int>)
    case keep(Ask<Int, Int>)
    case fail
    case failAt(Ask<Int, Int>)
    case stop
  }

  private var sum = 0
  private var kept: [Ask<Int, Int>] = []

  init() {}

  mutating func receive(_ message: Message, in context: ActorContext<Message>) throws {
    switch message {
    case .add(let number): self.sum += number
    case .sum(let ask): ask.reply(self.sum + ask.request)
    case .keep(let ask): self.kept.append(ask)
    case .fail, .failAt: throw Failure()
    case .stop: context.stop()
    }
  }
}

/// One that waits at a gate with each message, then writes it down.
func gated(_ world: World, _ gate: Gate, _ log: Log<Int>, _ options: ActorOptions = .standard) throws -> ActorRef<Int> {
  try world.runtime.spawn(options) { _ in
    AsyncScript<Int> { number, _ in
      await gate.pass()
      log.add(number)
    }
  }
}

func restarting(
  _ delay: Duration = .milliseconds(100), countMax: Int = 3, window: Duration = .seconds(60),
  then: RestartPolicy.Surrender = .stop
) -> ActorOptions {
  ActorOptions(
    supervision: .restart(
      RestartPolicy(delay: delay, delayMax: .seconds(1), countMax: countMax, window: window, then: then)))
}
