// SPDX-License-Identifier: Apache-2.0

import Linearizability
import Testing

@Suite("Random histories")
struct RandomHistoryTests {
  /// Two hundred histories from each seed, of one to ten clients.
  private func accepts<A: Machine>(_ machine: A.Type, _ model: A.M, seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    for round in 0..<200 {
      let shape = Shape(
        operations: Int.random(in: 1...60, using: &random), clients: Int.random(in: 1...10, using: &random),
        keys: Int.random(in: 1...3, using: &random), unknownPercent: [0, 5, 20].randomElement(using: &random) ?? 0)
      let history = randomHistory(of: machine, shape, &random)
      let verdict = check(history, against: model)
      #expect(verdict.isLinearizable, "BLOCKTREE_SEED=\(seed), history \(round): \(verdict)")
    }
  }

  @Test("of a correct register are accepted", arguments: SeededGenerator.seeds(5))
  func registers(seed: UInt64) { self.accepts(RegisterMachine.self, RegisterModel(), seed: seed) }

  @Test("of a correct file with versions are accepted", arguments: SeededGenerator.seeds(5))
  func files(seed: UInt64) { self.accepts(VersionedMachine.self, VersionedModel(), seed: seed) }

  @Test("of a correct list are accepted", arguments: SeededGenerator.seeds(5))
  func lists(seed: UInt64) { self.accepts(ListMachine.self, ListModel(), seed: seed) }

  @Test("of a correct set are accepted", arguments: SeededGenerator.seeds(5))
  func sets(seed: UInt64) { self.accepts(SetMachine.self, SetModel(), seed: seed) }

  /// Five hundred small histories from each seed, most of them changed, judged by both.
  private func agrees<A: Machine>(_ machine: A.Type, _ model: A.M, seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var violated = 0
    for round in 0..<500 {
      let shape = Shape(
        operations: Int.random(in: 2...8, using: &random), clients: Int.random(in: 1...4, using: &random),
        keys: Int.random(in: 1...2, using: &random), unknownPercent: 25)
      var history = randomHistory(of: machine, shape, &random)
      for _ in 0..<Int.random(in: 0...3, using: &random) where history.operations.count > 1 {
        history = mutated(history, &random)
      }
      let expected = isLinearizableByBruteForce(history, model)
      let verdict = check(history, against: model)
      let context: Comment = "BLOCKTREE_SEED=\(seed), history \(round), \(history.operations): \(verdict)"
      #expect(verdict.isLinearizable == expected, context)
      #expect(verdict.isViolated == !expected, context)
      guard case .violated(let explanation) = verdict else { continue }
      violated += 1

      // What the explanation says is true as well.
      let operations = history.operations.filter { $0.key == explanation.key }
      let prefix = explanation.prefix.compactMap { id in operations.first { $0.id == id } }
      guard let state = explains(prefix, of: operations, model) else {
        Issue.record("The prefix is not linearizable. \(context)")
        continue
      }
      #expect(!explanation.unplaced.isEmpty, context)
      for id in explanation.unplaced {
        guard let operation = operations.first(where: { $0.id == id }) else { continue }
        #expect(!explanation.prefix.contains(id) && operation.returned != nil, context)
        #expect(model.step(state, operation.input, operation.output) == nil, context)
      }
    }
    #expect((50...450).contains(violated), "BLOCKTREE_SEED=\(seed): \(violated) of 500 are not linearizable.")
  }

  @Test("of registers are judged as by brute force", arguments: SeededGenerator.seeds(4))
  func registersByBruteForce(seed: UInt64) { self.agrees(RegisterMachine.self, RegisterModel(), seed: seed) }

  @Test("of files with versions are judged as by brute force", arguments: SeededGenerator.seeds(4))
  func filesByBruteForce(seed: UInt64) { self.agrees(VersionedMachine.self, VersionedModel(), seed: seed) }

  @Test("of lists are judged as by brute force", arguments: SeededGenerator.seeds(4))
  func listsByBruteForce(seed: UInt64) { self.agrees(ListMachine.self, ListModel(), seed: seed) }

  @Test("of sets are judged as by brute force", arguments: SeededGenerator.seeds(4))
  func setsByBruteForce(seed: UInt64) { self.agrees(SetMachine.self, SetModel(), seed: seed) }
}

@Suite("Long histories", .serialized)
struct LongHistoryTests {
  private static let shape = Shape(operations: 5000, clients: 10, keys: 5)
  private static let oneKey = Shape(operations: 1000, clients: 10, keys: 1)

  /// Judges a correct history, and the same with one more read that sees what nobody wrote.
  private func isQuick<A: Machine>(
    _ machine: A.Type, _ model: A.M, _ shape: Shape, wrong: (A.M.Input, A.M.Output)? = nil, seed: UInt64
  ) {
    var random = SeededGenerator(seed: seed)
    var history = randomHistory(of: machine, shape, &random)
    let clock = ContinuousClock()
    var start = clock.now
    let verdict = check(history, against: model)
    print("\(A.self), keys: \(shape.keys), operations: \(shape.operations): \(clock.now - start)")
    #expect(verdict.isLinearizable, "BLOCKTREE_SEED=\(seed): \(verdict)")

    guard let (input, output) = wrong else { return }
    let end = history.operations.compactMap(\.returned).max() ?? 0
    let culprit = history.add(input, output, on: "key 0", by: 1, from: end + 1, to: end + 2)
    start = clock.now
    let wrongVerdict = check(history, against: model)
    print("\(A.self), keys: \(shape.keys), operations: \(shape.operations), one wrong: \(clock.now - start)")
    guard case .violated(let explanation) = wrongVerdict else {
      Issue.record("BLOCKTREE_SEED=\(seed): \(wrongVerdict)")
      return
    }
    #expect(explanation.unplaced == [culprit], "BLOCKTREE_SEED=\(seed): \(wrongVerdict)")
  }

  @Test("of registers with few values are judged within the budget", arguments: SeededGenerator.seeds(2))
  func fewValues(seed: UInt64) { self.isQuick(RegisterMachine.self, RegisterModel(), Self.shape, seed: seed) }

  @Test("of registers are judged within the budget", arguments: SeededGenerator.seeds(2), [shape, oneKey])
  func registers(seed: UInt64, shape: Shape) {
    self.isQuick(
      DistinctRegisterMachine.self, RegisterModel(), shape, wrong: (.read, .value(-1)), seed: seed)
  }

  @Test("of files with versions are judged within the budget", arguments: SeededGenerator.seeds(2), [shape, oneKey])
  func files(seed: UInt64, shape: Shape) {
    self.isQuick(
      VersionedMachine.self, VersionedModel(), shape, wrong: (.read, .value(-1, version: 7)), seed: seed)
  }

  @Test("of lists are judged within the budget", arguments: SeededGenerator.seeds(2))
  func lists(seed: UInt64) {
    self.isQuick(ListMachine.self, ListModel(), Self.shape, wrong: (.read, .values([-1])), seed: seed)
  }

  @Test("of sets are judged within the budget", arguments: SeededGenerator.seeds(2))
  func sets(seed: UInt64) {
    self.isQuick(SetMachine.self, SetModel(), Self.shape, seed: seed)
  }
}
