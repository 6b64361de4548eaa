// SPDX-License-Identifier: Apache-2.0

import Raft

extension World {
  mutating func scheduleFault() {
    self.schedule(after: self.number(0...(2 * self.scenario.faultInterval))) { world in
      guard !world.isHealing else { return }
      if let fault = world.scenario.faults.randomElement(using: &world.random) { world.inject(fault) }
      world.scheduleFault()
    }
  }

  var leaderNumber: Int? {
    self.nodes.indices.filter { self.nodes[$0].replica?.role == .leader }.max {
      (self.nodes[$0].replica?.hardState.term ?? .zero) < (self.nodes[$1].replica?.hardState.term ?? .zero)
    }
  }

  private mutating func inject(_ fault: Fault) {
    let victim = Int.random(in: 0..<self.nodes.count, using: &self.random)
    let other = Int.random(in: 0..<self.nodes.count, using: &self.random)
    let duration = self.number(self.scenario.faultDuration)
    // One thing at a time, so that the leader always has its majority.
    if self.scenario.leaderMustStay, self.leaderNumber == nil || self.cuts.contains(where: { $0.contains { $0 > 0 } }) {
      return
    }
    self.note("fault: \(fault) \(victim + 1) \(other + 1) for \(duration / 1_000_000) ms")
    switch fault {
    case .crash: self.crash(victim, for: duration)
    case .crashAll: for number in self.nodes.indices { self.crash(number, for: self.number(1_000...duration)) }
    case .crashLeader: self.crash(self.leaderNumber ?? victim, for: duration)
    case .partition:
      let side = self.nodes.indices.map { _ in Bool.random(using: &self.random) }
      self.cut(for: duration) { side[$0] != side[$1] }
    case .isolateLeader:
      let leader = self.leaderNumber ?? victim
      self.cut(for: duration) { $0 == leader || $1 == leader }
    case .isolateFollower:
      guard victim != self.leaderNumber else { return }
      self.cut(for: duration) { $0 == victim || $1 == victim }
    case .cutLink: self.cut(for: duration) { ($0, $1) == (victim, other) || ($1, $0) == (victim, other) }
    case .cutDirection: self.cut(for: duration) { ($0, $1) == (victim, other) }
    case .deafen:
      guard !self.scenario.leaderMustStay || victim != self.leaderNumber else { return }
      let onlyFrom = self.scenario.leaderMustStay ? self.leaderNumber : nil
      self.cut(for: duration) { $1 == victim && $0 == onlyFrom ?? $0 }
    case .mute: self.cut(for: duration) { from, _ in from == victim }
    case .pause: self.pause(victim, for: duration)
    case .pauseLeader: self.pause(self.leaderNumber ?? victim, for: duration)
    case .slowDisk:
      self.nodes[victim].diskIsSlow = true
      self.schedule(after: duration) { $0.nodes[victim].diskIsSlow = false }
    case .stallDisk:
      self.nodes[victim].diskIsStalled = true
      // Some drivers notice before the core does.
      let isNoticed = Bool.random(using: &self.random)
      if isNoticed { self.stepLater(victim, .storageStalled(true)) }
      self.schedule(after: duration) { world in
        if isNoticed { world.stepLater(victim, .storageStalled(false)) }
        world.nodes[victim].diskIsStalled = false
        world.runDisk(victim)
      }
    case .fullDisk: self.fillDisk(victim, for: duration)
    case .transfer:
      let target = self.happens(perThousand: 500) ? self.nodes[other].id : nil
      self.stepLater(self.leaderNumber ?? victim, .transferLeadership(to: target))
    case .membership: self.changeMembership(at: self.leaderNumber ?? victim)
    case .loneMembership:
      let leader = self.leaderNumber ?? victim
      self.cut(for: duration) { $0 == leader || $1 == leader }
      self.changeMembership(at: leader)
    case .halfHeardMembership: self.changeMembership(at: self.leaderNumber ?? victim)  // See `membershipChanged`.
    case .loneTransfer:
      let leader = self.leaderNumber ?? victim
      self.stepLater(leader, .transferLeadership(to: nil))
      self.schedule(after: self.number(0...8_000_000)) { world in
        guard !world.isHealing else { return }
        world.cut(for: duration) { $0 == leader || $1 == leader }
      }
    case .crashNewLeader: break  // See `inspect`.
    case .forgetfulFollower:
      guard let leader = self.leaderNumber, victim != leader else { return }
      // Some miss the leader first, and ask around; with the victim they would be a majority, which then forgets. So
      // that it could vote for them, nothing is written meanwhile.
      let others = self.nodes.indices.filter { $0 != leader && $0 != victim }.shuffled(using: &self.random)
      let missing = others.prefix((self.nodes.count - 1) / 2)
      let crashTime = self.number(200_000_000...350_000_000)
      self.writesRestUntil = self.time + crashTime + 60_000_000
      self.schedule(after: 30_000_000) { world in
        guard !world.isHealing else { return }
        world.cut(for: duration) { $0 == leader && missing.contains($1) || $1 == leader && missing.contains($0) }
      }
      self.schedule(after: crashTime) { world in
        guard !world.isHealing else { return }
        world.crash(victim, for: duration)
        world.cut(for: duration) { ($0 == leader) != ($1 == leader) }
      }
    }
  }

  private mutating func stepLater(_ number: Int, _ event: Event) {
    self.inLife(self.nodes[number].life, of: number) { $0.step(number, event) }
  }

  mutating func crashSoon(_ number: Int) {
    let life = self.nodes[number].life
    let duration = self.number(self.scenario.faultDuration)
    self.schedule(after: self.number(0...60_000_000)) { world in
      if world.nodes[number].life == life { world.crash(number, for: duration) }
    }
  }

  private mutating func crash(_ number: Int, for duration: UInt64) {
    self.crash(number)
    let duration = self.scenario.crashDuration.map { self.number($0) } ?? duration
    self.schedule(after: duration) { $0.start(number) }
  }

  private mutating func pause(_ number: Int, for duration: UInt64) {
    guard self.nodes[number].replica != nil else { return }
    self.pause(number)
    let life = self.nodes[number].life
    self.schedule(after: duration) { world in
      if world.nodes[number].life == life { world.resume(number) }
    }
  }

  private mutating func cut(for duration: UInt64, _ isCut: (Int, Int) -> Bool) {
    var pairs: [(Int, Int)] = []
    for from in self.nodes.indices {
      for to in self.nodes.indices where from != to && isCut(from, to) { pairs.append((from, to)) }
    }
    for (from, to) in pairs { self.cuts[from][to] += 1 }
    self.schedule(after: duration) { world in
      guard !world.isHealing else { return }
      for (from, to) in pairs { world.cuts[from][to] -= 1 }
    }
  }

  private mutating func fillDisk(_ number: Int, for duration: UInt64) {
    guard !self.nodes[number].diskIsFull else { return }
    self.nodes[number].diskIsFull = true
    self.stepLater(number, .setWritable(false))
    self.schedule(after: duration) { world in
      guard world.nodes[number].diskIsFull else { return }
      world.nodes[number].diskIsFull = false
      world.stepLater(number, .setWritable(true))
    }
  }

  /// A member has another membership in its log.
  mutating func membershipChanged(to membership: Membership, _ number: Int) {
    if membership.isJoint { self.coverage.jointMemberships += 1 } else { self.coverage.membershipsLeft += 1 }
    guard self.scenario.faults.contains(.halfHeardMembership), !self.isHealing, !membership.isJoint,
      self.nodes[number].replica?.role == .leader, Bool.random(using: &self.random)
    else { return }
    self.cut(for: self.number(self.scenario.faultDuration)) { $0 == number || $1 == number }
  }

  private mutating func changeMembership(at number: Int) {
    guard let status = self.nodes[number].replica?.status else { return }
    var voters: [MemberID] = []
    var learners: [MemberID] = []
    for node in self.nodes {
      switch Int.random(in: 0..<6, using: &self.random) {
      case 0...3: voters.append(node.id)
      case 4: learners.append(node.id)
      default: break
      }
    }
    guard let target = Membership(voters: voters, learners: learners) else { return }
    let id = ProposalID(self.nextNumber())
    self.stepLater(number, .changeMembership(id, to: target, expecting: status.membershipIndex))
  }
}
