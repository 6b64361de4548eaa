// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Testing

@Suite("The operations of a session")
struct SessionMachineTests {
  typealias Machine = SessionMachine<String, Int>

  let now = ContinuousClock.now

  private func add(
    _ name: String, to machine: inout Machine, byteCount: Int = 100, isRepeatable: Bool = true,
    deadline: ContinuousClock.Instant? = nil
  ) -> UInt64 {
    let id = machine.nextID()
    let entry = Machine.Entry(
      operation: name, byteCount: byteCount, messageByteCount: byteCount, isRepeatable: isRepeatable,
      deadline: deadline, waiter: Int(id))
    let isTaken = machine.add(entry, id: id)
    #expect(isTaken)
    return id
  }

  private func batch(_ machine: inout Machine) -> [String] { machine.takeBatch().map(\.operation) }

  @Test("travel in one message when they wait together, in order")
  func batching() {
    var machine = Machine()
    for name in ["a", "b", "c"] { _ = self.add(name, to: &machine) }
    #expect(machine.canSend)
    #expect(self.batch(&machine) == ["a", "b", "c"])
    #expect(!machine.canSend)
    #expect(self.batch(&machine) == [])
    _ = self.add("d", to: &machine)
    #expect(self.batch(&machine) == ["d"])
  }

  @Test("do not fill a message beyond its best size, but a larger one goes alone")
  func messageSize() {
    var machine = Machine()
    _ = self.add("small", to: &machine)
    _ = self.add("huge", to: &machine, byteCount: SessionLimits.bytesPerMessage * 4)
    _ = self.add("small again", to: &machine)
    #expect(self.batch(&machine) == ["small"])
    #expect(self.batch(&machine) == ["huge"])
    #expect(self.batch(&machine) == ["small again"])
  }

  @Test("are not more in flight than the process takes")
  func limits() {
    var machine = Machine()
    var ids: [UInt64] = []
    for number in 0..<(SessionLimits.operationsInFlight + 5) { ids.append(self.add("\(number)", to: &machine)) }
    #expect(self.batch(&machine).count == SessionLimits.operationsInFlight)
    #expect(!machine.canSend)
    #expect(machine.finish(ids[3]).waiter == Int(ids[3]))
    #expect(machine.canSend)
    #expect(self.batch(&machine) == ["\(SessionLimits.operationsInFlight)"])

    var wide = Machine()
    let half = SessionLimits.bytesInFlight / 2 + 1
    let first = self.add("first", to: &wide, byteCount: half)
    _ = self.add("second", to: &wide, byteCount: half)
    #expect(self.batch(&wide) == ["first"])
    #expect(self.batch(&wide) == [])
    _ = wide.finish(first)
    #expect(self.batch(&wide) == ["second"])
  }

  @Test("wait again when the stream breaks, before later ones, if they may be repeated")
  func breaking() {
    var machine = Machine()
    _ = self.add("read", to: &machine)
    let append = self.add("append", to: &machine, isRepeatable: false)
    _ = self.add("write", to: &machine)
    #expect(self.batch(&machine) == ["read", "append", "write"])
    _ = self.add("later", to: &machine)
    #expect(machine.streamBroke() == [Int(append)])
    #expect(self.batch(&machine) == ["read", "write", "later"])
    #expect(machine.finish(1).sentCount == 2)
    #expect(machine.finish(4).sentCount == 1)
  }

  @Test("wait again when the process declines them, in their order and as if they had not been sent")
  func declined() {
    var machine = Machine()
    let append = self.add("append", to: &machine, isRepeatable: false)
    let write = self.add("write", to: &machine)
    let abandoned = self.add("abandoned", to: &machine)
    #expect(self.batch(&machine) == ["append", "write", "abandoned"])
    _ = self.add("later", to: &machine)
    #expect(machine.abandon(abandoned) == Int(abandoned))
    for id in [append, write, abandoned] {
      let isKnown = machine.putBack(id)
      #expect(isKnown)
    }
    let isKnown = machine.putBack(append)
    #expect(!isKnown)
    #expect(machine.streamBroke() == [])
    #expect(self.batch(&machine) == ["append", "write", "later"])
    #expect(machine.finish(append).sentCount == 1)
    machine.putBackAll()
    #expect(self.batch(&machine) == ["write", "later"])
  }

  @Test("that were not sent yet survive a break, repeatable or not")
  func unsent() {
    var machine = Machine()
    _ = self.add("append", to: &machine, isRepeatable: false)
    #expect(machine.streamBroke() == [])
    #expect(self.batch(&machine) == ["append"])
  }

  @Test("end at their deadlines, and keep their place in flight until the answer comes")
  func deadlines() {
    var machine = Machine()
    let sent = self.add("sent", to: &machine, deadline: self.now + .seconds(1))
    #expect(self.batch(&machine) == ["sent"])
    let waiting = self.add("waiting", to: &machine, deadline: self.now + .seconds(1))
    _ = self.add("patient", to: &machine)
    #expect(machine.expire(self.now) == [])
    #expect(machine.expire(self.now + .seconds(1)) == [Int(sent), Int(waiting)])
    #expect(machine.expire(self.now + .seconds(2)) == [])
    #expect(self.batch(&machine) == ["patient"])
    let answer = machine.finish(sent)
    #expect(answer.isKnown && answer.waiter == nil)
    #expect(!machine.finish(sent).isKnown)
    // Nobody would hear of it, so it is not sent again.
    let abandoned = self.add("abandoned", to: &machine)
    #expect(self.batch(&machine) == ["abandoned"])
    #expect(machine.abandon(abandoned) == Int(abandoned))
    #expect(machine.streamBroke() == [])
    #expect(self.batch(&machine) == ["patient"])
  }

  @Test("all end when the session is closed")
  func closing() {
    var machine = Machine()
    _ = self.add("a", to: &machine)
    _ = self.batch(&machine)
    _ = self.add("b", to: &machine)
    #expect(machine.close().map(\.waiter) == [1, 2])
    #expect(machine.isIdle && machine.isClosed)
    let entry = Machine.Entry(
      operation: "c", byteCount: 1, messageByteCount: 1, isRepeatable: true, deadline: nil, waiter: 3)
    let isTaken = machine.add(entry, id: machine.nextID())
    #expect(!isTaken)
  }

  @Test("each end exactly once, whatever happens")
  func exactlyOnce() {
    var random = SeededGenerator()
    let seed = random.seed
    var machine = Machine()
    var open: Set<Int> = []
    var inFlight: [UInt64] = []
    func end(_ waiters: [Int]) {
      for waiter in waiters { #expect(open.remove(waiter) != nil, "seed \(seed)") }
    }
    for _ in 0..<20_000 {
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<45:
        let id = self.add(
          "x", to: &machine, byteCount: Int.random(in: 1...100_000, using: &random),
          isRepeatable: Bool.random(using: &random),
          deadline: Bool.random(using: &random) ? self.now + .seconds(Int.random(in: 0...100, using: &random)) : nil)
        open.insert(Int(id))
      case 45..<60: inFlight += machine.takeBatch().map(\.id)
      case 60..<90:
        guard let index = inFlight.indices.randomElement(using: &random) else { continue }
        let answer = machine.finish(inFlight.remove(at: index))
        #expect(answer.isKnown, "seed \(seed)")
        end(answer.waiter.map { [$0] } ?? [])
      case 90..<96:
        guard let id = open.sorted().randomElement(using: &random) else { continue }
        end(machine.abandon(UInt64(id)).map { [$0] } ?? [])
      case 96..<98: end(machine.expire(self.now + .seconds(Int.random(in: 0...50, using: &random))))
      default:
        end(machine.streamBroke())
        inFlight = []
      }
    }
    end(machine.close().map(\.waiter))
    #expect(open.isEmpty, "seed \(seed)")
  }
}

@Suite("The retry of a call")
struct RetryScheduleTests {
  let now = ContinuousClock.now
  let broken = BlocktreeError(code: .unavailable, message: "", retry: .elsewhere)
  let busy = BlocktreeError(
    code: .resourceExhausted, reason: .busy, message: "", retry: .later, retryDelay: .milliseconds(700))

  @Test("comes ever later, but not too late")
  func backoff() {
    var random = SeededGenerator()
    var schedule = RetrySchedule(timeout: .seconds(60), patience: .zero, now: self.now)
    var last: Duration = .zero
    for attempt in 0..<12 {
      guard
        let delay = schedule.delay(
          after: self.broken, wasSent: true, isRepeatable: true, now: self.now, using: &random)
      else {
        Issue.record("seed \(random.seed)")
        return
      }
      let step = min(RetrySchedule.initialDelay * (1 << attempt), RetrySchedule.maxDelay)
      #expect(delay >= step * 0.5 && delay <= step, "seed \(random.seed)")
      last = delay
    }
    #expect(last >= RetrySchedule.maxDelay * 0.5)
    let end = self.now + .seconds(60) - .milliseconds(1)
    #expect(schedule.delay(after: self.broken, wasSent: true, isRepeatable: true, now: end, using: &random) == nil)
    #expect(schedule.remaining(end) == .milliseconds(1))
  }

  @Test("is not made where it could do something twice")
  func unsafe() {
    var random = SystemRandomNumberGenerator()
    var schedule = RetrySchedule(timeout: nil, patience: .seconds(1), now: self.now)
    #expect(
      schedule.delay(after: self.broken, wasSent: true, isRepeatable: false, now: self.now, using: &random) == nil)
    #expect(
      schedule.delay(after: self.broken, wasSent: false, isRepeatable: false, now: self.now, using: &random) != nil)
    // Who is busy has done nothing.
    #expect(
      schedule.delay(after: self.busy, wasSent: true, isRepeatable: false, now: self.now, using: &random) != nil)
  }

  @Test("is not made when it can not help")
  func final() {
    var random = SystemRandomNumberGenerator()
    var schedule = RetrySchedule(timeout: .seconds(60), patience: .seconds(60), now: self.now)
    for error in [
      BlocktreeError(code: .notFound, reason: .notFound, message: ""),
      BlocktreeError(code: .deadlineExceeded, message: ""),
      BlocktreeError(code: .resourceExhausted, reason: .noSpace, message: "", retry: .later),
    ] {
      #expect(schedule.delay(after: error, wasSent: true, isRepeatable: true, now: self.now, using: &random) == nil)
    }
  }

  @Test("waits as long as the process asks for")
  func asked() {
    var random = SystemRandomNumberGenerator()
    var schedule = RetrySchedule(timeout: .seconds(60), patience: .zero, now: self.now)
    #expect(
      schedule.delay(after: self.busy, wasSent: true, isRepeatable: true, now: self.now, using: &random)
        == .milliseconds(700))
  }

  @Test("is patient with a process that had answered, and not with one that never did")
  func patience() {
    var random = SystemRandomNumberGenerator()
    var schedule = RetrySchedule(timeout: .seconds(60), patience: .zero, now: self.now)
    #expect(
      schedule.delay(after: self.broken, wasSent: false, isRepeatable: true, now: self.now, using: &random) == nil)
    schedule.reached(self.now, patience: .seconds(10))
    let later = self.now + .seconds(9)
    #expect(schedule.delay(after: self.broken, wasSent: false, isRepeatable: true, now: later, using: &random) != nil)
  }

  @Test("ends after some attempts when there is no deadline")
  func bounded() {
    var random = SystemRandomNumberGenerator()
    var schedule = RetrySchedule(timeout: nil, patience: .zero, now: self.now)
    var count = 1
    while schedule.delay(after: self.broken, wasSent: true, isRepeatable: true, now: self.now, using: &random) != nil {
      count += 1
    }
    #expect(count == RetrySchedule.attemptsMax)
  }
}
