// SPDX-License-Identifier: Apache-2.0

import Raft
import RaftSimulation

/// Three members in memory: every message and write is delivered at once, one after the other.
struct Bench {
  private var replicas: [Replica] = []
  private var effects: [Effect] = []
  private var inbox: [(Int, Event)] = []
  private(set) var applied = 0
  private(set) var reads = 0
  private var now: UInt64 = 0
  private var nextID: UInt64 = 0

  init(bound: ClockDriftBound?) throws {
    let members = (1...3).map { MemberID(UInt64($0)) }
    guard let membership = Membership(voters: members) else { return }
    for member in members {
      var configuration = ReplicaConfiguration(
        member: member, incarnation: GroupIncarnation(1), seed: member.rawValue)
      configuration.clockDriftBound = bound
      self.replicas.append(try Replica(configuration, restoring: .initial(membership), at: .zero))
    }
    self.now = 400_000_000
    self.inbox.append((0, .wake))
    self.settle()
  }

  /// Has so many commands committed by one turn of the leader, and applied.
  mutating func propose(_ count: Int) {
    self.now += 1000
    for _ in 0..<count {
      self.nextID += 1
      self.replicas[0].step(
        .propose(ProposalID(self.nextID), byteCount: 4096), at: Instant(nanoseconds: self.now), into: &self.effects)
    }
    self.flush(0)
    self.settle()
    if self.nextID % 4096 == 0 { self.compact() }
  }

  mutating func read(_ count: Int) {
    self.now += 1000
    for _ in 0..<count {
      self.nextID += 1
      self.replicas[0].step(.read(ReadID(self.nextID)), at: Instant(nanoseconds: self.now), into: &self.effects)
    }
    self.flush(0)
    self.settle()
  }

  mutating func wake() {
    self.now += 30_000_000
    self.inbox.append((0, .wake))
    self.settle()
  }

  private mutating func compact() {
    for number in self.replicas.indices {
      self.inbox.append((number, .compacted(through: self.replicas[number].status.applying)))
    }
    self.settle()
  }

  private mutating func settle() {
    var next = 0
    while next < self.inbox.count {
      let (number, event) = self.inbox[next]
      next += 1
      self.replicas[number].step(event, at: Instant(nanoseconds: self.now), into: &self.effects)
      self.flush(number)
    }
    self.inbox.removeAll(keepingCapacity: true)
  }

  private mutating func flush(_ number: Int) {
    self.replicas[number].flush(at: Instant(nanoseconds: self.now), into: &self.effects)
    let member = MemberID(UInt64(number) + 1)
    for effect in self.effects {
      switch effect {
      case .send(let message, let receiver):
        self.inbox.append((Int(receiver.rawValue) - 1, .received(message, from: member)))
      case .persist(let write): self.inbox.append((number, .persisted(write.id)))
      case .apply: if number == 0 { self.applied += 1 }
      case .readReady: self.reads += 1
      default: break
      }
    }
    self.effects.removeAll(keepingCapacity: true)
  }
}

func measure() {
  let clock = ContinuousClock()
  do {
    for batch in [1, 16, 256] {
      var bench = try Bench(bound: nil)
      let count = 262_144
      let time = clock.measure { for _ in 0..<(count / batch) { bench.propose(batch) } }
      print("commit, \(batch) a turn: \(time / count) each, for all three members together")
    }
    for bound in [nil, ClockDriftBound(perThousand: 10)] {
      for batch in [1, 64] {
        var bench = try Bench(bound: bound)
        bench.wake()
        let count = 65_536
        let time = clock.measure { for _ in 0..<(count / batch) { bench.read(batch) } }
        print("read by \(bound == nil ? "round" : "lease"), \(batch) a turn: \(time / bench.reads) each")
      }
    }
  } catch {
    print("\(error)")
  }
}

/// In virtual time, with the default settings and small delays of network and disk.
func measureFailover() {
  let times = (1...1000).compactMap { seed in
    var scenario = Scenario(name: "failover")
    scenario.duration = 2_000_000_000
    var world = World(scenario, seed: UInt64(seed))
    return world.failoverTime()
  }.sorted()
  guard times.count == 1000 else { return print("failover: failed") }
  let parts = [500, 900, 990, 999].map { "\(times[$0] / 1_000_000)" }
  print("failover, 3 members: \(parts.joined(separator: ", ")) ms in 500, 900, 990 and 999 of 1,000 trials")
}
