// SPDX-License-Identifier: Apache-2.0

package import Linearizability
import Raft

/// A group of members in virtual time, with all that can happen to it. The same seed gives the same world.
package struct World {
  typealias Action = (inout World) -> Void

  package let scenario: Scenario
  package let seed: UInt64
  package private(set) var time: UInt64 = 0
  package private(set) var stepCount = 0
  package var failure: Failure?
  package var history = History<RegisterModel<Int>>()
  package internal(set) var coverage = Coverage()
  /// Gets a line for each thing that happens, if set.
  package var trace: ((String) -> Void)?

  var random: SeededGenerator
  var queue = EventQueue<Action>()
  var nodes: [Node]
  var judge = Judge()
  /// Directions in which nothing passes, counted: faults overlap.
  var cuts: [[Int]]
  var isHealing = false
  /// Clients only read until then.
  var writesRestUntil: UInt64 = 0
  var operations: [OperationID: ClientOperation] = [:]
  var lastNumber: UInt64 = 0
  var proposed: [ProposalID: Command] = [:]

  package init(_ scenario: Scenario, seed: UInt64) {
    self.scenario = scenario
    self.seed = seed
    self.random = SeededGenerator(seed: seed)
    let voters = (1...scenario.voters).map { MemberID(UInt64($0)) }
    let membership = Membership(voters: voters)
    self.nodes = (1...scenario.members).compactMap { number in
      membership.map { Node(MemberID(UInt64(number)), .initial($0)) }
    }
    self.cuts = Array(repeating: Array(repeating: 0, count: scenario.members), count: scenario.members)
  }

  /// Runs to the end, or to the first failure.
  package mutating func run() -> Failure? {
    for number in self.nodes.indices { self.start(number) }
    for client in 0..<self.scenario.clients { self.scheduleClient(client) }
    if !self.scenario.faults.isEmpty { self.scheduleFault() }
    self.advance(to: self.scenario.duration)
    if self.failure == nil { self.healAndCheckLiveness() }
    if self.failure == nil { self.checkHistory() }
    return self.failure
  }

  /// Runs without faults, then kills the leader: how long until another one's first entry is committed. Nil if the
  /// world failed, or nobody took over.
  package mutating func failoverTime() -> UInt64? {
    for number in self.nodes.indices { self.start(number) }
    self.advance(to: self.scenario.duration)
    guard let leader = self.leaderNumber else { return nil }
    let commit = self.nodes[leader].replica?.commit ?? .zero
    self.crash(leader)
    let begin = self.time
    while self.failure == nil, self.time < begin + 10_000_000_000 {
      self.advance(to: self.time + 1_000_000)
      if self.nodes.contains(where: { ($0.replica?.commit ?? .zero) > commit }) { return self.time - begin }
    }
    return nil
  }

  mutating func advance(to end: UInt64) {
    while self.failure == nil, let next = self.queue.nextTime, next <= end, let (time, action) = self.queue.next() {
      self.time = time
      action(&self)
    }
    self.time = max(self.time, end)
  }

  mutating func schedule(after delay: UInt64, _ action: @escaping Action) {
    self.queue.schedule(action, at: self.time + delay)
  }

  mutating func number(_ range: ClosedRange<UInt64>) -> UInt64 { UInt64.random(in: range, using: &self.random) }
  mutating func happens(perThousand: Int) -> Bool { Int.random(in: 0..<1000, using: &self.random) < perThousand }
  mutating func nextNumber() -> UInt64 {
    self.lastNumber += 1
    return self.lastNumber
  }

  func number(of member: MemberID) -> Int { Int(member.rawValue) - 1 }

  mutating func fail(_ rule: Failure.Rule, _ detail: @autoclosure () -> String) {
    guard self.failure == nil else { return }
    self.failure = Failure(rule: rule, detail: detail(), time: self.time)
  }

  mutating func fail(_ finding: (Failure.Rule, String)?) {
    if let finding { self.fail(finding.0, finding.1) }
  }

  func note(_ text: @autoclosure () -> String) {
    guard let trace = self.trace else { return }
    trace("\(self.time / 1000) \(text())")
  }

  // MARK: - Lives

  mutating func start(_ number: Int) {
    guard self.nodes[number].replica == nil else { return }
    let drift = self.scenario.drift
    // The extremes are where leases break.
    let extremes = [1000 - drift, 1000 + drift]
    let others = self.scenario.clocksAreExtreme ? [] : [self.number((1000 - drift)...(1000 + drift))]
    let rate = (extremes + others).randomElement(using: &self.random) ?? 1000
    self.nodes[number].clock = Node.Clock(perThousand: rate, offset: self.number(0...1_000_000_000))
    var configuration = ReplicaConfiguration(
      member: self.nodes[number].id, incarnation: GroupIncarnation(1), seed: self.random.next())
    configuration.clockDriftBound = self.scenario.lease
    configuration.storageStallLimit = .milliseconds(400)
    configuration.electionTimeout = self.scenario.electionTimeout
    configuration.entriesPerAppendMax = self.scenario.entriesPerAppendMax
    configuration.bytesPerAppendMax = 400
    configuration.appendsInFlightMax = 4
    configuration.uncommittedEntriesMax = 200
    configuration.mutation = self.scenario.mutation
    do throws(RestoreError) {
      let now = self.nodes[number].clock.local(self.time)
      let replica = try Replica(configuration, restoring: self.nodes[number].disk.state, at: now)
      self.nodes[number].replica = replica
    } catch {
      return self.fail(.invariant, "member \(number + 1) can not restart: \(error)")
    }
    let disk = self.nodes[number].disk
    if disk.hardState.term < self.nodes[number].spokenTerm {
      self.fail(.termIsDurable, "\(number + 1) has forgotten a term that it spoke of")
    }
    self.nodes[number].life += 1
    self.nodes[number].lastTerm = disk.hardState.term
    self.nodes[number].machine = disk.snapshot.machine
    self.nodes[number].checkedCommit = disk.snapshot.metadata.position.index
    self.nodes[number].commands = [:]
    for (offset, entry) in disk.entries.enumerated() {
      let position = LogPosition(
        index: LogIndex(disk.firstIndex.rawValue + UInt64(offset)), term: entry.header.term)
      self.nodes[number].commands[position] = entry.command
    }
    self.note("\(number + 1) starts, log through \(disk.lastIndex.rawValue), term \(disk.hardState.term.rawValue)")
    self.flush(number)
    if self.nodes[number].diskIsFull { self.step(number, .setWritable(false)) }
  }

  mutating func crash(_ number: Int) {
    guard self.nodes[number].replica != nil else { return }
    self.note("\(number + 1) crashes")
    self.coverage.crashes += 1
    self.nodes[number].disk.crash(using: &self.random)
    self.nodes[number].replica = nil
    self.nodes[number].life += 1
    self.nodes[number].isPaused = false
    self.nodes[number].backlog = []
    self.nodes[number].effects = []
    self.nodes[number].flushIsDue = false
    self.nodes[number].scheduledWake = .max
    self.nodes[number].diskIsBusy = false
    self.nodes[number].diskIsStalled = false
    self.nodes[number].applyTarget = .zero
    self.nodes[number].proposals = [:]
    self.nodes[number].waiting = [:]
    self.nodes[number].reads = [:]
    self.nodes[number].readyReads = []
    self.nodes[number].preVoteRequest = nil
  }

  mutating func pause(_ number: Int) { self.nodes[number].isPaused = true }

  mutating func resume(_ number: Int) {
    guard self.nodes[number].isPaused else { return }
    self.nodes[number].isPaused = false
    let backlog = self.nodes[number].backlog
    self.nodes[number].backlog = []
    for action in backlog where self.failure == nil { action(&self) }
  }

  /// Does something in that life of the member: when it goes on, if it is paused; not at all, if it is over.
  mutating func inLife(_ life: Int, of number: Int, _ action: @escaping Action) {
    guard self.nodes[number].life == life, self.nodes[number].replica != nil else { return }
    if self.nodes[number].isPaused {
      self.nodes[number].backlog.append { $0.inLife(life, of: number, action) }
    } else {
      action(&self)
    }
  }

  // MARK: - Steps

  mutating func step(_ number: Int, _ event: Event) {
    guard self.failure == nil, self.nodes[number].replica != nil else { return }
    self.stepCount += 1
    let now = self.nodes[number].clock.local(self.time)
    var effects = self.nodes[number].effects
    self.nodes[number].effects = []
    self.nodes[number].replica?.step(event, at: now, into: &effects)
    self.perform(&effects, number)
    self.nodes[number].effects = effects
    self.inspect(number)
    // Mostly at once; now and then more is collected.
    if self.happens(perThousand: 700) {
      self.flush(number)
    } else if !self.nodes[number].flushIsDue {
      self.nodes[number].flushIsDue = true
      let life = self.nodes[number].life
      self.schedule(after: self.number(1000...500_000)) { world in
        world.inLife(life, of: number) { $0.flush(number) }
      }
    }
  }

  mutating func flush(_ number: Int) {
    guard self.failure == nil, self.nodes[number].replica != nil else { return }
    self.nodes[number].flushIsDue = false
    var effects = self.nodes[number].effects
    self.nodes[number].effects = []
    let now = self.nodes[number].clock.local(self.time)
    self.nodes[number].replica?.flush(at: now, into: &effects)
    self.perform(&effects, number)
    self.nodes[number].effects = effects
    self.inspect(number)
    self.scheduleWake(number)
  }

  private mutating func scheduleWake(_ number: Int) {
    guard let replica = self.nodes[number].replica, replica.wakeAt != .never else { return }
    let at = max(self.nodes[number].clock.global(replica.wakeAt), self.time)
    guard at < self.nodes[number].scheduledWake || self.nodes[number].scheduledWake <= self.time else { return }
    self.nodes[number].scheduledWake = at
    let life = self.nodes[number].life
    self.schedule(after: at - self.time) { world in
      guard world.nodes[number].scheduledWake == at else { return }
      world.inLife(life, of: number) { world in
        world.nodes[number].scheduledWake = .max
        world.step(number, .wake)
        world.scheduleWake(number)
      }
    }
  }
}
