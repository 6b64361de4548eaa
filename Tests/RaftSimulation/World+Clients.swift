// SPDX-License-Identifier: Apache-2.0

import Linearizability
import Raft

/// An operation that a client waits for.
struct ClientOperation {
  var client: Int
  var key: Int
  var isRead: Bool
  /// What others had seen when it began: it must not see less.
  var floor: LogIndex
}

// Clients: each does one thing at a time, at any member.
extension World {
  private static let patience: UInt64 = 600_000_000

  mutating func scheduleClient(_ client: Int) {
    self.schedule(after: self.number(0...(2 * self.scenario.thinkTime))) { $0.act(client) }
  }

  private mutating func act(_ client: Int) {
    let key = Int.random(in: 0..<self.scenario.keys, using: &self.random)
    let isRead =
      Double.random(in: 0..<1, using: &self.random) < self.scenario.readPart || self.time < self.writesRestUntil
    let value = Int(self.nextNumber())
    var input = RegisterModel<Int>.Input.read
    if !isRead {
      if self.happens(perThousand: 300), let node = self.nodes.randomElement(using: &self.random) {
        input = .compareAndSet(expected: node.machine[key], new: value)
      } else {
        input = .write(value)
      }
    }
    // Mostly writes go to whoever believes to lead; often there is more than one.
    var target = Int.random(in: 0..<self.nodes.count, using: &self.random)
    if !isRead || self.happens(perThousand: 500) {
      let leaders = self.nodes.indices.filter { self.nodes[$0].replica?.role == .leader }
      target = leaders.randomElement(using: &self.random) ?? target
    }
    let operation = self.history.invoke(input, on: "\(key)", by: client, at: self.time)
    self.operations[operation] = ClientOperation(
      client: client, key: key, isRead: isRead, floor: self.judge.seen)
    let life = self.nodes[target].life
    self.schedule(after: self.number(10_000...500_000)) { world in
      world.inLife(life, of: target) { $0.ask(target, operation, input) }
    }
    self.schedule(after: Self.patience) { world in
      guard world.operations[operation] != nil else { return }
      world.answer(operation, nil, at: nil)
    }
  }

  private mutating func ask(_ target: Int, _ operation: OperationID, _ input: RegisterModel<Int>.Input) {
    guard let asked = self.operations[operation] else { return }
    let number = self.nextNumber()
    let change: Command.Action
    switch input {
    case .read:
      self.nodes[target].reads[ReadID(number)] = operation
      return self.step(target, .read(ReadID(number)))
    case .write(let value): change = .write(value)
    case .compareAndSet(let expected, let new): change = .compareAndSet(from: expected ?? 0, to: new)
    }
    self.nodes[target].proposals[ProposalID(number)] = operation
    self.proposed[ProposalID(number)] = Command(key: asked.key, action: change, number: number)
    self.step(target, .propose(ProposalID(number), byteCount: Int(self.number(1...200))))
  }

  mutating func accepted(_ id: ProposalID, _ position: LogPosition, _ number: Int) {
    guard let command = self.proposed.removeValue(forKey: id) else { return }
    self.nodes[number].commands[position] = command
    if let operation = self.nodes[number].proposals.removeValue(forKey: id) {
      self.nodes[number].waiting[position] = operation
    }
  }

  mutating func rejected(_ id: ProposalID, _ rejection: ProposalRejection, _ number: Int) {
    self.proposed[id] = nil
    self.coverage.rejections += 1
    if let operation = self.nodes[number].proposals.removeValue(forKey: id) {
      self.refuse(operation)
    }
  }

  /// `index`: the state that the answer rests on. Without an output, nobody knows what became of it.
  mutating func answer(_ id: OperationID, _ output: RegisterModel<Int>.Output?, at index: LogIndex?) {
    guard let operation = self.operations.removeValue(forKey: id) else { return }
    if let output { self.history.complete(id, with: output, at: self.time) } else { self.coverage.unknownOutcomes += 1 }
    if let index {
      // All that a client has seen is before all that begins later: linearizability, told by the indexes.
      if index < operation.floor, self.scenario.judgesRecency {
        self.fail(.recency, "\(id) sees \(index.rawValue), after somebody saw \(operation.floor.rawValue)")
      }
      self.judge.clientSaw(index)
      if !operation.isRead { self.coverage.writesAnswered += 1 }
    }
    self.scheduleClient(operation.client)
  }

  /// It did not happen, and never will.
  mutating func refuse(_ id: OperationID) {
    guard let operation = self.operations.removeValue(forKey: id) else { return }
    self.history.discard(id)
    self.scheduleClient(operation.client)
  }

  /// Whether all that clients saw can have come from registers that do one thing after another.
  mutating func checkHistory() {
    switch check(self.history, against: RegisterModel(initially: 0), stepsMax: 1_000_000) {
    case .linearizable: break
    case .violated(let explanation): self.fail(.linearizability, explanation.text)
    // Much overlap with much that is unknown: the indexes, which are known here, were judged all the same.
    case .undecided: self.coverage.undecidedHistories += 1
    }
  }
}
