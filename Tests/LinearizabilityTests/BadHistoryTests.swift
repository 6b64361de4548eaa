// SPDX-License-Identifier: Apache-2.0

import Linearizability
import Testing

/// Expects that the history is violated, that this operation is the one that can not be placed, and that the report
/// says so. Checks the verdict against brute force as well.
private func expectViolated<M: Model>(
  _ history: History<M>, _ model: M, at culprit: OperationID, sourceLocation: SourceLocation = #_sourceLocation
) {
  let verdict = check(history, against: model)
  #expect(!isLinearizableByBruteForce(history, model), sourceLocation: sourceLocation)
  guard case .violated(let explanation) = verdict else {
    Issue.record("The verdict is: \(verdict)", sourceLocation: sourceLocation)
    return
  }
  #expect(explanation.unplaced.first == culprit, "\(verdict)", sourceLocation: sourceLocation)
  #expect(explanation.text.contains("\n  \(culprit) client "), "\(verdict)", sourceLocation: sourceLocation)
}

@Suite("Of a register, rejected is")
struct BadRegisterTests {
  private let model = RegisterModel<Int>()
  private var history = History<RegisterModel<Int>>()

  @Test("a stale read")
  func staleRead() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 2)
    history.add(.write(2), .written, by: 1, from: 3, to: 4)
    let stale = history.add(.read, .value(1), by: 2, from: 5, to: 6)
    expectViolated(history, self.model, at: stale)
  }

  @Test("a lost write")
  func lostWrite() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 2)
    let empty = history.add(.read, .value(nil), by: 2, from: 3, to: 4)
    expectViolated(history, self.model, at: empty)
  }

  @Test("a write that is lost after it was read")
  func lostAfterRead() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 2)
    history.add(.write(2), .written, by: 1, from: 3, to: 20)
    history.add(.read, .value(2), by: 2, from: 4, to: 5)
    history.add(.read, .value(2), by: 3, from: 6, to: 7)
    let old = history.add(.read, .value(1), by: 2, from: 8, to: 9)
    expectViolated(history, self.model, at: old)
  }

  @Test("a write applied twice")
  func writeTwice() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 10)
    history.add(.read, .value(1), by: 3, from: 2, to: 3)
    history.add(.write(2), .written, by: 2, from: 4, to: 5)
    history.add(.read, .value(2), by: 3, from: 6, to: 7)
    let again = history.add(.read, .value(1), by: 3, from: 8, to: 9)
    expectViolated(history, self.model, at: again)
  }

  @Test("a read from the future")
  func future() {
    var history = self.history
    let early = history.add(.read, .value(1), by: 2, from: 1, to: 2)
    history.add(.write(1), .written, by: 1, from: 3, to: 4)
    expectViolated(history, self.model, at: early)
  }

  @Test("a read of a value that nobody wrote")
  func invented() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 9)
    let invented = history.add(.read, .value(3), by: 2, from: 2, to: 8)
    expectViolated(history, self.model, at: invented)
  }

  @Test("a read of a write that was refused")
  func refused() {
    var history = self.history
    let write = history.invoke(.write(1), by: 1, at: 1)
    history.discard(write)
    let read = history.add(.read, .value(1), by: 2, from: 2, to: 3)
    expectViolated(history, self.model, at: read)
  }

  @Test("reads reordered across clients: the new value, then the old one")
  func reorderedReads() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 20)
    history.add(.read, .value(1), by: 2, from: 2, to: 3)
    let old = history.add(.read, .value(nil), by: 3, from: 4, to: 5)
    expectViolated(history, self.model, at: old)
  }

  @Test("two orders of the same writes, as seen by two clients")
  func twoOrders() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 30)
    history.add(.write(2), .written, by: 2, from: 1, to: 30)
    history.add(.read, .value(1), by: 3, from: 2, to: 5)
    history.add(.read, .value(2), by: 4, from: 2, to: 5)
    history.add(.read, .value(2), by: 3, from: 6, to: 8)
    let other = history.add(.read, .value(1), by: 4, from: 6, to: 9)
    expectViolated(history, self.model, at: other)
  }

  @Test("a compare-and-set that succeeded twice")
  func swapTwice() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 2)
    history.add(.compareAndSet(expected: 1, new: 2), .swapped(true), by: 1, from: 3, to: 9)
    let second = history.add(.compareAndSet(expected: 1, new: 3), .swapped(true), by: 2, from: 3, to: 10)
    expectViolated(history, self.model, at: second)
  }

  @Test("a compare-and-set that failed though nothing else was there")
  func swapFailed() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 2)
    let failed = history.add(.compareAndSet(expected: 1, new: 2), .swapped(false), by: 2, from: 3, to: 4)
    expectViolated(history, self.model, at: failed)
  }

  @Test("a compare-and-set that failed and was applied")
  func failedButApplied() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 2)
    history.add(.compareAndSet(expected: 5, new: 2), .swapped(false), by: 2, from: 3, to: 4)
    let read = history.add(.read, .value(2), by: 1, from: 5, to: 6)
    expectViolated(history, self.model, at: read)
  }

  @Test("an unknown write that takes effect, then vanishes, then comes back")
  func flickering() {
    var history = self.history
    history.add(.write(1), .written, by: 1, from: 1, to: 2)
    history.addUnknown(.write(2), by: 2, from: 3)
    history.add(.read, .value(2), by: 3, from: 4, to: 5)
    let vanished = history.add(.read, .value(1), by: 3, from: 6, to: 7)
    history.add(.read, .value(2), by: 3, from: 8, to: 9)
    expectViolated(history, self.model, at: vanished)
  }

  @Test("an unknown write that is overwritten and comes back")
  func unknownTwice() {
    var history = self.history
    history.addUnknown(.write(2), by: 2, from: 1)
    history.add(.read, .value(2), by: 3, from: 2, to: 3)
    history.add(.write(1), .written, by: 1, from: 4, to: 5)
    history.add(.read, .value(1), by: 3, from: 6, to: 7)
    let back = history.add(.read, .value(2), by: 3, from: 8, to: 9)
    expectViolated(history, self.model, at: back)
  }

  @Test("an unknown write that is seen before it was asked for")
  func unknownTooEarly() {
    var history = self.history
    let early = history.add(.read, .value(2), by: 3, from: 1, to: 2)
    history.addUnknown(.write(2), by: 2, from: 3)
    expectViolated(history, self.model, at: early)
  }

  @Test("one bad key among good ones")
  func oneKey() {
    var history = self.history
    for key in ["a", "b", "c"] { history.add(.write(1), .written, on: key, by: 1, from: 1, to: 2) }
    let stale = history.add(.read, .value(nil), on: "b", by: 2, from: 3, to: 4)
    for key in ["a", "c"] { history.add(.read, .value(1), on: key, by: 2, from: 3, to: 4) }
    expectViolated(history, self.model, at: stale)
  }
}

@Suite("Of a file with versions, rejected is")
struct BadFileTests {
  private let model = VersionedModel<String>()
  /// One write that made version 1.
  private let history: History<VersionedModel<String>> = {
    var history = History<VersionedModel<String>>()
    history.add(.write("a", ifVersion: 0), .written(version: 1), by: 1, from: 1, to: 2)
    return history
  }()

  @Test("a version that goes backwards")
  func backwards() {
    var history = self.history
    history.add(.write("b", ifVersion: 1), .written(version: 2), by: 1, from: 3, to: 20)
    history.add(.read, .value("b", version: 2), by: 2, from: 4, to: 5)
    let older = history.add(.read, .value("a", version: 1), by: 3, from: 6, to: 7)
    expectViolated(history, self.model, at: older)
  }

  @Test("one version given to two writes")
  func sameVersion() {
    var history = self.history
    history.add(.write("b", ifVersion: nil), .written(version: 2), by: 1, from: 3, to: 8)
    let second = history.add(.write("c", ifVersion: nil), .written(version: 2), by: 2, from: 3, to: 9)
    expectViolated(history, self.model, at: second)
  }

  @Test("one version with two contents")
  func twoContents() {
    var history = self.history
    history.addUnknown(.write("b", ifVersion: 1), by: 1, from: 3)
    history.addUnknown(.write("c", ifVersion: 1), by: 2, from: 3)
    history.add(.read, .value("b", version: 2), by: 3, from: 4, to: 8)
    let other = history.add(.read, .value("c", version: 2), by: 4, from: 4, to: 9)
    expectViolated(history, self.model, at: other)
  }

  @Test("a version that was left out")
  func leftOut() {
    var history = self.history
    let third = history.add(.write("b", ifVersion: nil), .written(version: 3), by: 1, from: 3, to: 4)
    expectViolated(history, self.model, at: third)
  }

  @Test("a conditional write on a version that is gone")
  func oldCondition() {
    var history = self.history
    history.add(.write("b", ifVersion: 1), .written(version: 2), by: 1, from: 3, to: 4)
    let late = history.add(.write("c", ifVersion: 1), .written(version: 3), by: 2, from: 5, to: 6)
    expectViolated(history, self.model, at: late)
  }

  @Test("a conflict where there was none")
  func noConflict() {
    var history = self.history
    let conflict = history.add(.write("b", ifVersion: 1), .conflict(current: nil), by: 2, from: 3, to: 4)
    expectViolated(history, self.model, at: conflict)
  }

  @Test("a conflict with a version that the file got only later")
  func laterConflict() {
    var history = self.history
    let conflict = history.add(.write("c", ifVersion: 0), .conflict(current: 2), by: 2, from: 3, to: 4)
    history.add(.write("b", ifVersion: 1), .written(version: 2), by: 1, from: 5, to: 6)
    expectViolated(history, self.model, at: conflict)
  }

  @Test("a write that was refused for a conflict and applied all the same")
  func conflictApplied() {
    var history = self.history
    history.add(.write("b", ifVersion: 0), .conflict(current: 1), by: 2, from: 3, to: 4)
    let read = history.add(.read, .value("b", version: 2), by: 1, from: 5, to: 6)
    expectViolated(history, self.model, at: read)
  }

  @Test("an unknown write that was applied twice")
  func unknownTwice() {
    var history = self.history
    history.addUnknown(.write("b", ifVersion: nil), by: 2, from: 3)
    history.add(.read, .value("b", version: 2), by: 1, from: 4, to: 5)
    let again = history.add(.read, .value("b", version: 3), by: 1, from: 6, to: 7)
    expectViolated(history, self.model, at: again)
  }

  @Test("a write whose version is gone after the file came back as it was")
  func rolledBack() {
    var history = self.history
    history.add(.write("b", ifVersion: 1), .written(version: 2), by: 1, from: 3, to: 4)
    let repeated = history.add(.write("c", ifVersion: 1), .written(version: 2), by: 2, from: 5, to: 6)
    history.add(.read, .value("c", version: 2), by: 2, from: 7, to: 8)
    expectViolated(history, self.model, at: repeated)
  }

  @Test("old content under a new version")
  func oldContent() {
    var history = self.history
    history.add(.write("b", ifVersion: 1), .written(version: 2), by: 1, from: 3, to: 4)
    let torn = history.add(.read, .value("a", version: 2), by: 2, from: 5, to: 6)
    expectViolated(history, self.model, at: torn)
  }

  @Test("an answer to another question")
  func otherAnswer() {
    var history = self.history
    let strange = history.add(.read, .written(version: 2), by: 1, from: 3, to: 4)
    expectViolated(history, self.model, at: strange)
  }
}

@Suite("Of a list or set, rejected is")
struct BadCollectionTests {
  private let list = ListModel<Int>()
  private let set = SetModel<String>()
  private let lists = History<ListModel<Int>>()
  private let sets = History<SetModel<String>>()

  @Test("an append that is lost")
  func lostAppend() {
    var history = self.lists
    history.add(.append(1), .appended, by: 1, from: 1, to: 2)
    history.add(.append(2), .appended, by: 2, from: 1, to: 2)
    let read = history.add(.read, .values([2]), by: 1, from: 3, to: 4)
    expectViolated(history, self.list, at: read)
  }

  @Test("an append that was done twice")
  func appendTwice() {
    var history = self.lists
    history.addUnknown(.append(1), by: 1, from: 1)
    let read = history.add(.read, .values([1, 1]), by: 2, from: 3, to: 4)
    expectViolated(history, self.list, at: read)
  }

  @Test("an order that changes between reads")
  func changedOrder() {
    var history = self.lists
    history.add(.append(1), .appended, by: 1, from: 1, to: 9)
    history.add(.append(2), .appended, by: 2, from: 1, to: 9)
    history.add(.read, .values([1, 2]), by: 3, from: 2, to: 3)
    let read = history.add(.read, .values([2, 1]), by: 3, from: 4, to: 5)
    expectViolated(history, self.list, at: read)
  }

  @Test("an unknown append that is seen and then gone")
  func vanishedAppend() {
    var history = self.lists
    history.addUnknown(.append(1), by: 1, from: 1)
    history.add(.read, .values([1]), by: 2, from: 2, to: 3)
    let read = history.add(.read, .values([]), by: 3, from: 4, to: 5)
    expectViolated(history, self.list, at: read)
  }

  @Test("appends in another order than that of time")
  func wrongOrder() {
    var history = self.lists
    history.add(.append(1), .appended, by: 1, from: 1, to: 2)
    history.add(.append(2), .appended, by: 2, from: 3, to: 4)
    let read = history.add(.read, .values([2, 1]), by: 1, from: 5, to: 6)
    expectViolated(history, self.list, at: read)
  }

  @Test("a name that two clients made")
  func madeTwice() {
    var history = self.sets
    history.add(.add("x"), .answer(true), by: 1, from: 1, to: 8)
    let second = history.add(.add("x"), .answer(true), by: 2, from: 1, to: 9)
    expectViolated(history, self.set, at: second)
  }

  @Test("a removed name that comes back")
  func comesBack() {
    var history = self.sets
    history.add(.add("x"), .answer(true), by: 1, from: 1, to: 2)
    history.add(.remove("x"), .answer(true), by: 2, from: 3, to: 4)
    let listed = history.add(.list, .elements(["x"]), by: 1, from: 5, to: 6)
    expectViolated(history, self.set, at: listed)
  }

  @Test("a list of names as it was at no time")
  func tornList() {
    var history = self.sets
    history.add(.add("x"), .answer(true), by: 1, from: 1, to: 2)
    history.add(.add("y"), .answer(true), by: 1, from: 3, to: 20)
    let listed = history.add(.list, .elements(["y"]), by: 2, from: 4, to: 5)
    expectViolated(history, self.set, at: listed)
  }
}

@Suite("An explanation")
struct ExplanationTests {
  @Test("can be read")
  func text() {
    var history = History<VersionedModel<String>>()
    history.add(.write("a", ifVersion: 0), .written(version: 1), on: "/f", by: 1, from: 1, to: 2)
    history.add(.write("b", ifVersion: 1), .written(version: 2), on: "/f", by: 1, from: 3, to: 4)
    history.addUnknown(.write("c", ifVersion: 2), on: "/f", by: 2, from: 5)
    history.add(.read, .value("a", version: 1), on: "/f", by: 3, from: 6, to: 9)
    history.add(.write("d", ifVersion: 0), .conflict(current: 1), on: "/f", by: 4, from: 7, to: 11)
    let verdict = check(history, against: VersionedModel())
    #expect(
      verdict.description == """
        Not linearizable for key "/f".
        2 of 4 operations with a known outcome can be put in order:
          #0 client 1 [1, 2] write(a) if at version 0 → written as version 1  then: a at version 1
          #1 client 1 [3, 4] write(b) if at version 1 → written as version 2  then: b at version 2
        The state is then b at version 2, and this operation fits neither here nor anywhere earlier:
          #3 client 3 [6, 9] read → a at version 1
        Nor can one of these come before it, which overlap with it:
          #4 client 4 [7, 11] write(d) if at version 0 → conflict with version 1
        Of unknown outcome, and of no help if they take effect here:
          #2 client 2 [5, ?) write(c) if at version 2 → ?
        """)
  }
}
