// SPDX-License-Identifier: Apache-2.0

import Foundation
import Linearizability

/// SplitMix64: all random choices of a test follow from its seed.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  init(seed: UInt64) { self.state = seed }

  mutating func next() -> UInt64 {
    self.state &+= 0x9E37_79B9_7F4A_7C15
    var word = self.state
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
  }

  mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }

  /// The seeds of a run. A failed test names its seed; set `BLOCKTREE_SEED` to it to run the same again.
  static func seeds(_ count: Int) -> [UInt64] {
    if let seed = ProcessInfo.processInfo.environment["BLOCKTREE_SEED"].flatMap(UInt64.init) { return [seed] }
    return (0..<count).map { _ in UInt64.random(in: 0 ... .max) }
  }
}

/// A correct implementation of one object, written without the models.
protocol Machine: Sendable {
  associatedtype M: Model
  init()
  /// Chooses what to ask. `fresh` was never given before.
  func question(fresh: Int, _ random: inout SeededGenerator) -> M.Input
  mutating func perform(_ input: M.Input) -> M.Output
}

struct RegisterMachine: Machine {
  typealias M = RegisterModel<Int>

  var value: Int?

  // Few values, so that the same is written often and many orders have to be tried.
  func question(fresh: Int, _ random: inout SeededGenerator) -> M.Input {
    switch Int.random(in: 0..<10, using: &random) {
    case 0..<5: .read
    case 5..<8: .write(Int.random(in: 0..<4, using: &random))
    default: .compareAndSet(expected: random.chance(60) ? self.value : 1, new: Int.random(in: 0..<4, using: &random))
    }
  }

  mutating func perform(_ input: M.Input) -> M.Output {
    switch input {
    case .read: return .value(self.value)
    case .write(let value):
      self.value = value
      return .written
    case .compareAndSet(let expected, let new):
      let isSwapped = expected == self.value
      if isSwapped { self.value = new }
      return .swapped(isSwapped)
    }
  }
}

/// A register to which each value is written once, as a test of real processes should do it.
struct DistinctRegisterMachine: Machine {
  typealias M = RegisterModel<Int>

  private var register = RegisterMachine()

  func question(fresh: Int, _ random: inout SeededGenerator) -> M.Input {
    switch self.register.question(fresh: fresh, &random) {
    case .read: .read
    case .write: .write(fresh)
    case .compareAndSet(let expected, _): .compareAndSet(expected: expected, new: fresh)
    }
  }

  mutating func perform(_ input: M.Input) -> M.Output { self.register.perform(input) }
}

struct VersionedMachine: Machine {
  typealias M = VersionedModel<Int>

  var value: Int?
  var version: UInt64 = 0

  func question(fresh: Int, _ random: inout SeededGenerator) -> M.Input {
    switch Int.random(in: 0..<10, using: &random) {
    case 0..<4: .read
    case 4..<6: .write(fresh, ifVersion: nil)
    case 6..<9: .write(fresh, ifVersion: self.version)
    default: .write(fresh, ifVersion: self.version &- UInt64.random(in: 0...self.version, using: &random))
    }
  }

  mutating func perform(_ input: M.Input) -> M.Output {
    guard case .write(let value, let condition) = input else { return .value(self.value, version: self.version) }
    if let condition, condition != self.version { return .conflict(current: self.version) }
    self.value = value
    self.version += 1
    return .written(version: self.version)
  }
}

struct ListMachine: Machine {
  typealias M = ListModel<Int>

  var values: [Int] = []

  func question(fresh: Int, _ random: inout SeededGenerator) -> M.Input {
    random.chance(50) ? .read : .append(fresh)
  }

  mutating func perform(_ input: M.Input) -> M.Output {
    guard case .append(let value) = input else { return .values(self.values) }
    self.values.append(value)
    return .appended
  }
}

struct SetMachine: Machine {
  typealias M = SetModel<Int>

  var elements: Set<Int> = []

  func question(fresh: Int, _ random: inout SeededGenerator) -> M.Input {
    let element = Int.random(in: 0..<4, using: &random)
    return switch Int.random(in: 0..<4, using: &random) {
    case 0: .add(element)
    case 1: .remove(element)
    case 2: .contains(element)
    default: .list
    }
  }

  mutating func perform(_ input: M.Input) -> M.Output {
    switch input {
    case .add(let element): return .answer(self.elements.insert(element).inserted)
    case .remove(let element): return .answer(self.elements.remove(element) != nil)
    case .contains(let element): return .answer(self.elements.contains(element))
    case .list: return .elements(self.elements)
    }
  }
}

/// How a random history is to be.
struct Shape {
  var operations: Int
  var clients: Int
  var keys = 1
  var unknownPercent = 5
  var durationMax: UInt64 = 20
  var pauseMax: UInt64 = 10
}

/// One operation, before it is known what is asked.
private struct Visit {
  var client: Int
  var key: Int
  var invoked: UInt64
  /// Nil for one that never arrives.
  var arrives: UInt64?
  var returned: UInt64?
  var order: UInt64 { self.arrives ?? self.invoked }
}

/// What correct machines and clients with random delays would have recorded: linearizable by construction.
func randomHistory<A: Machine>(
  of machine: A.Type, _ shape: Shape, _ random: inout SeededGenerator
) -> History<A.M> {
  var visits: [Visit] = []
  var free = Array(repeating: UInt64(0), count: shape.clients)
  for index in 0..<shape.operations {
    let client = index % shape.clients
    let invoked = free[client] + UInt64.random(in: 0...shape.pauseMax, using: &random)
    let returned = invoked + UInt64.random(in: 0...shape.durationMax, using: &random)
    free[client] = returned
    var visit = Visit(
      client: client, key: Int.random(in: 0..<shape.keys, using: &random), invoked: invoked,
      arrives: UInt64.random(in: invoked...returned, using: &random), returned: returned)
    if random.chance(shape.unknownPercent) {
      visit.returned = nil
      let latest = invoked + 5 * shape.durationMax
      visit.arrives = random.chance(50) ? UInt64.random(in: invoked...latest, using: &random) : nil
    }
    visits.append(visit)
  }
  // Those that arrive in the same tick overlap, so any order of them is right.
  visits.sort { ($0.order, $0.client) < ($1.order, $1.client) }

  var machines = Array(repeating: A(), count: shape.keys)
  var recorded: [(visit: Visit, input: A.M.Input, output: A.M.Output?)] = []
  for (fresh, visit) in visits.enumerated() {
    let input = machines[visit.key].question(fresh: fresh, &random)
    let output = visit.arrives == nil ? nil : machines[visit.key].perform(input)
    recorded.append((visit, input, output))
  }
  recorded.shuffle(using: &random)  // The order of recording carries no meaning.
  var history = History<A.M>()
  for (visit, input, output) in recorded {
    let id = history.invoke(input, on: "key \(visit.key)", by: visit.client, at: visit.invoked)
    if let output, let returned = visit.returned { history.complete(id, with: output, at: returned) }
  }
  return history
}

/// The same history with one thing changed: often, but not always, it is then not linearizable.
func mutated<M: Model>(_ history: History<M>, _ random: inout SeededGenerator) -> History<M> {
  let operations = history.operations
  let chosen = Int.random(in: 0..<operations.count, using: &random)
  let kind = Int.random(in: 0..<5, using: &random)
  let outputs = operations.compactMap(\.output)
  var mutated = History<M>()
  for (index, operation) in operations.enumerated() {
    var output = operation.output
    var invoked = operation.invoked
    var returned = operation.returned
    if index == chosen {
      switch kind {
      case 0...1: output = output == nil ? nil : outputs.randomElement(using: &random)  // Another's answer.
      case 2: continue  // It was never asked.
      case 3:  // It was asked and answered later.
        let delay = UInt64.random(in: 0...60, using: &random)
        invoked += delay
        returned = returned.map { $0 + delay }
      default:  // It took no time at all.
        invoked = returned ?? invoked
      }
    }
    let id = mutated.invoke(operation.input, on: operation.key, by: operation.client, at: invoked)
    if let output, let returned { mutated.complete(id, with: output, at: returned) }
  }
  return mutated
}
