// SPDX-License-Identifier: Apache-2.0

import Linearizability
import Raft

// What a driver does: performs effects.
extension World {
  mutating func perform(_ effects: inout [Effect], _ number: Int) {
    for effect in effects where self.failure == nil {
      if self.trace != nil { self.note("\(number + 1): \(effect)") }
      switch effect {
      case .send(let message, let receiver): self.send(message, from: number, to: receiver)
      case .persist(let write): self.persist(write, number)
      case .apply(let index): self.applyLater(through: index, number)
      case .accepted(let id, let position): self.accepted(id, position, number)
      case .rejected(let id, let rejection): self.rejected(id, rejection, number)
      case .readReady(let id, let index):
        if let operation = self.nodes[number].reads.removeValue(forKey: id) {
          self.countRead(number)
          self.nodes[number].readyReads.append((index, operation))
          self.serveReads(number)
        }
      case .readFailed(let id, _):
        if let operation = self.nodes[number].reads.removeValue(forKey: id) { self.refuse(operation) }
      case .sendSnapshot(let member, let atLeast): self.sendSnapshot(from: number, to: member, atLeast: atLeast)
      case .violation(let violation): self.fail(.violation, "\(number + 1) sees \(violation)")
      case .membershipChanged(let membership, _): self.membershipChanged(to: membership, number)
      case .leadershipChanged(let leadership): if leadership.role == .leader { self.coverage.leaders += 1 }
      case .transferEnded(_, let result): if result == .handedOver { self.coverage.transfers += 1 }
      }
    }
    effects.removeAll(keepingCapacity: true)
  }

  private mutating func countRead(_ number: Int) {
    guard let status = self.nodes[number].replica?.status else { return }
    if status.leadership.role != .leader {
      self.coverage.readsOfFollowers += 1
    } else if status.holdsLease {
      self.coverage.readsByLease += 1
    } else {
      self.coverage.readsByRound += 1
    }
  }

  // MARK: - The network

  private mutating func send(_ message: Message, from sender: Int, to receiver: MemberID) {
    self.checkPromise(message, from: sender, to: receiver)
    var commands: [LogPosition: Command] = [:]
    if case .append(let after, let entries, _) = message.body {
      for (offset, entry) in entries.enumerated() where entry.kind == .command {
        let position = LogPosition(
          index: LogIndex(after.index.rawValue + UInt64(offset) + 1), term: entry.term)
        guard let command = self.nodes[sender].commands[position] else {
          return self.fail(.payload, "\(sender + 1) has no payload of \(position)")
        }
        commands[position] = command
      }
    }
    let copies = self.happens(perThousand: self.scenario.repetitionPerThousand) ? 2 : 1
    for _ in 0..<copies {
      if !self.isHealing, self.happens(perThousand: self.scenario.lossPerThousand) { continue }
      var delay = self.number(self.scenario.delay)
      if self.happens(perThousand: self.scenario.stragglersPerThousand) { delay *= self.number(1...100) }
      self.schedule(after: delay) { world in
        world.deliver(message, commands, from: sender, to: world.number(of: receiver))
      }
    }
  }

  private mutating func deliver(
    _ message: Message, _ commands: [LogPosition: Command], from sender: Int, to receiver: Int
  ) {
    guard self.cuts[sender][receiver] == 0 else {
      // Now and then a driver notices.
      if self.happens(perThousand: 200) {
        let member = self.nodes[receiver].id
        self.inLife(self.nodes[sender].life, of: sender) { $0.step(sender, .unreachable(member)) }
      }
      return
    }
    self.inLife(self.nodes[receiver].life, of: receiver) { world in
      world.nodes[receiver].commands.merge(commands) { $1 }
      if case .preVoteRequest(let last) = message.body {
        world.nodes[receiver].preVoteRequest = (message.term, last)
      }
      if world.trace != nil { world.note("\(receiver + 1) hears \(sender + 1): \(message)") }
      world.step(receiver, .received(message, from: world.nodes[sender].id))
      world.nodes[receiver].preVoteRequest = nil
    }
  }

  // MARK: - The disk

  private mutating func persist(_ write: Write, _ number: Int) {
    guard let replica = self.nodes[number].replica else { return }
    if write.truncation != nil { self.coverage.truncations += 1 }
    if write.truncation == LogIndex(1) { self.coverage.logsDiscarded += 1 }
    var entries: [Disk.Entry] = []
    var previous = replica.term(at: write.firstIndex.previous)
    var index = write.firstIndex
    for header in write.entries {
      let command = self.nodes[number].commands[LogPosition(index: index, term: header.term)]
      if header.kind == .command, command == nil {
        return self.fail(.payload, "\(number + 1) has no payload to write at \(index.rawValue)")
      }
      entries.append(Disk.Entry(header: header, command: command))
      if let previous { self.fail(self.judge.appended(header, command, at: index, after: previous)) }
      previous = header.term
      index = index.next
    }
    self.nodes[number].disk.begin(write, entries)
    self.runDisk(number)
  }

  mutating func runDisk(_ number: Int) {
    guard !self.nodes[number].diskIsBusy, !self.nodes[number].diskIsStalled, !self.nodes[number].disk.isIdle else {
      return
    }
    self.nodes[number].diskIsBusy = true
    let life = self.nodes[number].life
    let delay = self.number(self.scenario.diskDelay) * (self.nodes[number].diskIsSlow ? 20 : 1)
    self.schedule(after: delay) { world in
      guard world.nodes[number].life == life else { return }
      world.nodes[number].diskIsBusy = false
      guard !world.nodes[number].diskIsStalled, let id = world.nodes[number].disk.finishOldest() else { return }
      world.inLife(life, of: number) { $0.step(number, .persisted(id)) }
      world.runDisk(number)
    }
  }

  // MARK: - The state machine

  private mutating func applyLater(through index: LogIndex, _ number: Int) {
    let isWaiting = self.nodes[number].applyTarget > self.nodes[number].machine.applied
    self.nodes[number].applyTarget = max(index, self.nodes[number].applyTarget)
    let delay = self.number(self.scenario.applyDelay)
    guard delay > 0 else { return self.apply(through: index, number) }
    guard !isWaiting else { return }
    let life = self.nodes[number].life
    self.schedule(after: delay) { world in
      world.inLife(life, of: number) { $0.apply(through: $0.nodes[number].applyTarget, number) }
    }
  }

  private mutating func apply(through index: LogIndex, _ number: Int) {
    guard let replica = self.nodes[number].replica else { return }
    while self.nodes[number].machine.applied < index, self.failure == nil {
      let next = self.nodes[number].machine.applied.next
      guard let term = replica.term(at: next) else {
        return self.fail(.invariant, "\(number + 1) has no entry to apply at \(next.rawValue)")
      }
      let position = LogPosition(index: next, term: term)
      guard self.nodes[number].disk.holds(position) else {
        return self.fail(.commitIsDurable, "\(number + 1) applies \(next.rawValue), which it has not stored")
      }
      let isDone = self.nodes[number].machine.apply(self.nodes[number].commands[position], at: next)
      // An operation that waits at this index under another term can not have happened.
      let waiting = self.nodes[number].waiting.filter { $0.key.index == next }.sorted { $0.key < $1.key }
      for (place, operation) in waiting {
        self.nodes[number].waiting[place] = nil
        guard place.term == term else {
          self.refuse(operation)
          continue
        }
        let isComparison =
          if case .compareAndSet? = self.nodes[number].commands[position]?.action { true } else { false }
        self.answer(operation, isComparison ? .swapped(isDone) : .written, at: next)
      }
    }
    self.serveReads(number)
    self.considerSnapshot(number)
  }

  private mutating func serveReads(_ number: Int) {
    let machine = self.nodes[number].machine
    for read in self.nodes[number].readyReads where read.index <= machine.applied {
      guard let operation = self.operations[read.operation] else { continue }
      self.answer(read.operation, .value(machine[operation.key]), at: machine.applied)
    }
    self.nodes[number].readyReads.removeAll { $0.index <= machine.applied }
  }

  // MARK: - Snapshots

  private mutating func considerSnapshot(_ number: Int) {
    guard let interval = self.scenario.snapshotInterval, let replica = self.nodes[number].replica,
      self.nodes[number].machine.applied.rawValue
        >= self.nodes[number].disk.snapshot.metadata.position.index.rawValue + interval,
      let metadata = replica.snapshotMetadata(at: self.nodes[number].machine.applied)
    else { return }
    self.note("\(number + 1) takes a snapshot: \(metadata)")
    self.nodes[number].disk.install(Disk.Snapshot(metadata: metadata, machine: self.nodes[number].machine))
    let kept = self.number(0...(interval / 2))
    let index = LogIndex(metadata.position.index.rawValue - min(kept, metadata.position.index.rawValue))
    let life = self.nodes[number].life
    self.schedule(after: self.number(1000...20_000_000)) { world in
      world.inLife(life, of: number) { world in
        world.nodes[number].disk.compact(through: index)
        world.nodes[number].commands = world.nodes[number].commands.filter { $0.key.index > index }
        world.step(number, .compacted(through: index))
      }
    }
  }

  private mutating func sendSnapshot(from sender: Int, to member: MemberID, atLeast index: LogIndex) {
    let snapshot = self.nodes[sender].disk.snapshot
    let receiver = self.number(of: member)
    guard snapshot.metadata.position.index >= index else {
      return self.fail(.invariant, "\(sender + 1) is asked for a snapshot that it does not have")
    }
    let lives = (self.nodes[sender].life, self.nodes[receiver].life)
    let delay = self.number(1_000_000...100_000_000)
    self.schedule(after: delay) { world in
      let isThere =
        world.cuts[sender][receiver] == 0 && world.nodes[receiver].life == lives.1
        && world.nodes[receiver].replica != nil && !world.nodes[receiver].isPaused
        && !world.happens(perThousand: world.isHealing ? 0 : 100)
      if isThere {
        let isNews = snapshot.metadata.position.index > world.nodes[receiver].machine.applied
        if isNews {
          world.nodes[receiver].disk.install(snapshot)
          let before = world.nodes[receiver].replica?.commit ?? .zero
          if snapshot.metadata.position.index > before {
            world.coverage.snapshotsInstalled += 1
            world.nodes[receiver].machine = snapshot.machine
          }
          world.step(receiver, .snapshotInstalled(snapshot.metadata))
        }
      }
      world.inLife(lives.0, of: sender) { world in
        world.step(
          sender, isThere ? .snapshotSent(to: member, snapshot.metadata) : .snapshotFailed(to: member))
      }
    }
  }
}
