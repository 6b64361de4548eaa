// SPDX-License-Identifier: Apache-2.0

import Foundation
import Linearizability
import Testing

private func expectLinearizable<M: Model>(
  _ history: History<M>, _ model: M, sourceLocation: SourceLocation = #_sourceLocation
) {
  let verdict = check(history, against: model)
  #expect(verdict.isLinearizable, "\(verdict)", sourceLocation: sourceLocation)
}

@Suite("Accepted is")
struct GoodHistoryTests {
  typealias Registers = History<RegisterModel<Int>>
  typealias Files = History<VersionedModel<String>>

  @Test("a history of nothing")
  func nothing() { expectLinearizable(Registers(), RegisterModel()) }

  @Test("a read that overlaps with a write, whichever value it sees")
  func overlappingRead() {
    for seen in [1, 2] {
      var history = Registers()
      history.add(.write(1), .written, by: 1, from: 1, to: 2)
      history.add(.write(2), .written, by: 1, from: 3, to: 9)
      history.add(.read, .value(seen), by: 2, from: 4, to: 5)
      expectLinearizable(history, RegisterModel())
    }
  }

  @Test("a read that sees a later write first, if the earlier one is not over")
  func concurrentWrites() {
    var history = Registers()
    history.add(.write(1), .written, by: 1, from: 1, to: 20)
    history.add(.write(2), .written, by: 2, from: 2, to: 21)
    history.add(.read, .value(2), by: 3, from: 3, to: 4)
    history.add(.read, .value(1), by: 3, from: 5, to: 6)
    expectLinearizable(history, RegisterModel())
  }

  @Test("operations that meet in one tick, in any order")
  func sameTick() {
    var history = Registers()
    history.add(.write(1), .written, by: 1, from: 1, to: 5)
    history.add(.read, .value(nil), by: 2, from: 5, to: 6)
    expectLinearizable(history, RegisterModel())
  }

  @Test("an unknown write that never takes effect")
  func unknownNever() {
    var history = Registers()
    history.add(.write(1), .written, by: 1, from: 1, to: 2)
    history.addUnknown(.write(2), by: 2, from: 3)
    history.add(.read, .value(1), by: 1, from: 100, to: 101)
    expectLinearizable(history, RegisterModel())
  }

  @Test("an unknown write that takes effect long after")
  func unknownLate() {
    var history = Registers()
    history.addUnknown(.write(2), by: 2, from: 1)
    history.add(.write(1), .written, by: 1, from: 10, to: 11)
    history.add(.read, .value(1), by: 1, from: 12, to: 13)
    history.add(.read, .value(2), by: 3, from: 100, to: 101)
    expectLinearizable(history, RegisterModel())
  }

  @Test("an unknown write that is needed only to let a swap fail")
  func unknownUnseen() {
    var history = Registers()
    history.addUnknown(.write(7), by: 1, from: 1)
    history.add(.compareAndSet(expected: nil, new: 1), .swapped(false), by: 2, from: 2, to: 3)
    expectLinearizable(history, RegisterModel())
  }

  @Test("a chain of unknown operations of which only the last one is seen")
  func unknownChain() {
    var history = Registers()
    history.addUnknown(.compareAndSet(expected: 8, new: 9), by: 3, from: 1)
    history.addUnknown(.compareAndSet(expected: 7, new: 8), by: 2, from: 2)
    history.addUnknown(.write(7), by: 1, from: 3)
    history.add(.read, .value(9), by: 4, from: 4, to: 5)
    expectLinearizable(history, RegisterModel())
  }

  @Test("a version that only an unknown write can have made")
  func unknownVersion() {
    var history = Files()
    history.add(.write("a", ifVersion: 0), .written(version: 1), by: 1, from: 1, to: 2)
    history.addUnknown(.write("b", ifVersion: 1), by: 2, from: 3)
    history.addUnknown(.write("c", ifVersion: nil), by: 3, from: 3)
    history.add(.write("d", ifVersion: 1), .conflict(current: 3), by: 1, from: 4, to: 5)
    history.add(.write("d", ifVersion: 3), .written(version: 4), by: 1, from: 6, to: 7)
    expectLinearizable(history, VersionedModel())
  }

  @Test("an unknown write that explains a conflict whose version was not told")
  func untoldConflict() {
    var history = Files()
    history.addUnknown(.write("a", ifVersion: 0), by: 1, from: 1)
    history.add(.write("b", ifVersion: 0), .conflict(current: nil), by: 2, from: 2, to: 3)
    expectLinearizable(history, VersionedModel())
  }

  @Test("a history of two keys, each with an order of its own")
  func keys() {
    var history = Registers()
    history.add(.write(1), .written, on: "a", by: 1, from: 1, to: 2)
    history.add(.write(2), .written, on: "b", by: 1, from: 3, to: 4)
    history.add(.read, .value(1), on: "a", by: 2, from: 5, to: 6)
    history.add(.read, .value(2), on: "b", by: 2, from: 7, to: 8)
    expectLinearizable(history, RegisterModel())
  }

  @Test("a history put together from those of two recorders")
  func appended() {
    var writer = Registers()
    writer.add(.write(1), .written, by: 1, from: 1, to: 4)
    writer.addUnknown(.write(2), by: 1, from: 5)
    var reader = Registers()
    reader.add(.read, .value(2), by: 2, from: 6, to: 7)
    reader.append(writer)
    #expect(reader.operations.map(\.id.index) == [0, 1, 2])
    #expect(reader.operations.map(\.returned) == [7, 4, nil])
    expectLinearizable(reader, RegisterModel())
  }

  @Test("a history that was kept in a file, as it was before")
  func coded() throws {
    var history = Files()
    history.add(.write("a", ifVersion: nil), .written(version: 1), on: "f", by: 1, from: 1, to: 4)
    history.discard(history.invoke(.read, by: 2, at: 2))
    history.addUnknown(.write("b", ifVersion: 1), on: "f", by: 1, from: 5)
    history.add(.read, .value("b", version: 2), on: "f", by: 2, from: 6, to: 7)
    let decoded = try JSONDecoder().decode(Files.self, from: try JSONEncoder().encode(history))
    #expect(decoded.operations.map(\.id) == history.operations.map(\.id))
    #expect(decoded.operations.map(\.input) == history.operations.map(\.input))
    #expect(decoded.operations.map(\.output) == history.operations.map(\.output))
    expectLinearizable(decoded, VersionedModel())
  }

  @Test("a history of which nothing is read that was discarded")
  func discarded() {
    var history = Registers()
    let refused = history.invoke(.write(1), by: 1, at: 1)
    history.discard(refused)
    history.add(.read, .value(nil), by: 1, from: 2, to: 3)
    #expect(history.operations.count == 1)
    expectLinearizable(history, RegisterModel())
  }
}

@Suite("The budget")
struct BudgetTests {
  private static func history() -> History<RegisterModel<Int>> {
    var history = History<RegisterModel<Int>>()
    for value in 0..<10 { history.add(.write(value), .written, on: "a", by: value, from: 1, to: 99) }
    history.add(.read, .value(10), on: "a", by: 10, from: 100, to: 101)
    return history
  }

  @Test("that is used up gives no success, and says how far the search came")
  func undecided() throws {
    let verdict = check(Self.history(), against: RegisterModel(), stepsMax: 100)
    guard case .undecided(let explanation) = verdict else {
      Issue.record("\(verdict)")
      return
    }
    #expect(!verdict.isLinearizable && !verdict.isViolated)
    #expect(explanation.text.hasPrefix("Undecided for key \"a\": no answer after 100 steps."), "\(explanation.text)")
    #expect(check(Self.history(), against: RegisterModel()).isViolated)
  }

  @Test("is that of each key, and a violated key decides over an undecided one")
  func violatedDecides() {
    var history = Self.history()
    history.add(.read, .value(1), on: "b", by: 1, from: 1, to: 2)
    guard case .violated(let explanation) = check(history, against: RegisterModel(), stepsMax: 100) else {
      Issue.record("The violated key was not found.")
      return
    }
    #expect(explanation.key == "b")
  }
}
