// SPDX-License-Identifier: Apache-2.0

import Discovery
import Testing
import Trust

@Suite("Confirming callers from elsewhere")
struct ConfirmationMachineTests {
  /// The machine behind a reference, since an expectation changes no value.
  private final class Machine {
    typealias Value = ConfirmationMachine<String>

    private var value: Value

    init(_ limits: ConfirmationLimits = .init()) { self.value = Value(limits) }

    var count: Int { self.value.count }

    func request(_ path: TreePath, _ keyID: Digest32, _ id: UInt64, _ waiter: String, now: Int64) -> Value.Answer {
      self.value.request(path, keyID, id, waiter, now: now)
    }

    func touch(_ path: TreePath, _ keyID: Digest32, now: Int64) -> Bool { self.value.touch(path, keyID, now: now) }

    func standing(_ path: TreePath, _ keyID: Digest32, now: Int64) -> Standing? {
      self.value.standing(path, keyID, now: now)
    }

    func hasLapsed(_ path: TreePath, _ keyID: Digest32, now: Int64) -> Bool {
      self.value.hasLapsed(path, keyID, now: now)
    }

    @discardableResult
    func settle(
      _ path: TreePath, _ outcome: ConfirmationOutcome, now: Int64
    ) -> [(waiter: String, standing: Standing)] {
      self.value.settle(path, outcome, now: now)
    }

    func cancel(_ path: TreePath, _ id: UInt64) -> String? { self.value.cancel(path, id) }

    func stop() -> [String] { self.value.stop() }
  }

  private let ann: TreePath
  private let key = Digest32(sha256: [1])
  private let otherKey = Digest32(sha256: [2])
  private static let second: Int64 = 1_000_000_000

  init() throws { self.ann = try TreePath(parsing: "/people/ann") }

  /// A machine to which somebody was confirmed at the moment 0.
  private func confirmed() -> Machine {
    let machine = Machine()
    #expect(machine.request(self.ann, self.key, 1, "first", now: 0) == .wait(asks: true))
    machine.settle(self.ann, .found(keyID: self.key, lifetime: 30 * Self.second), now: 0)
    return machine
  }

  @Test("asks once for all who want to know at the same time")
  func coalesces() {
    let machine = Machine()
    #expect(machine.request(self.ann, self.key, 1, "first", now: 0) == .wait(asks: true))
    #expect(machine.request(self.ann, self.key, 2, "second", now: 0) == .wait(asks: false))
    let told = machine.settle(self.ann, .found(keyID: self.key, lifetime: 30 * Self.second), now: 5)
    #expect(Set(told.map(\.waiter)) == ["first", "second"])
    #expect(told.allSatisfy { $0.standing == .confirmed })
    #expect(machine.request(self.ann, self.key, 3, "third", now: 6) == .now(.confirmed))
  }

  @Test("holds for the lifetime, and is asked for again in the second half of it by whoever is in use")
  func refreshes() {
    let machine = self.confirmed()
    #expect(machine.request(self.ann, self.key, 2, "a", now: 15 * Self.second - 1) == .now(.confirmed))
    #expect(machine.request(self.ann, self.key, 3, "b", now: 15 * Self.second) == .refresh)
    // One question at a time, and nobody waits for it.
    #expect(machine.request(self.ann, self.key, 4, "c", now: 16 * Self.second) == .now(.confirmed))
    #expect(
      machine.settle(self.ann, .found(keyID: self.key, lifetime: 30 * Self.second), now: 17 * Self.second).isEmpty)
    #expect(machine.standing(self.ann, self.key, now: 46 * Self.second) == .confirmed)
    #expect(machine.standing(self.ann, self.key, now: 47 * Self.second) == nil)
  }

  @Test("is asked for anew when nobody was in use for a lifetime")
  func expires() {
    let machine = self.confirmed()
    #expect(machine.request(self.ann, self.key, 2, "late", now: 30 * Self.second) == .wait(asks: true))
  }

  @Test("takes a shorter lifetime from whoever answers, and no longer one")
  func lifetimes() {
    let machine = Machine()
    _ = machine.request(self.ann, self.key, 1, "first", now: 0)
    machine.settle(self.ann, .found(keyID: self.key, lifetime: Self.second), now: 0)
    #expect(machine.standing(self.ann, self.key, now: Self.second - 1) == .confirmed)
    #expect(machine.standing(self.ann, self.key, now: Self.second) == nil)
    _ = machine.request(self.ann, self.key, 2, "second", now: Self.second)
    machine.settle(self.ann, .found(keyID: self.key, lifetime: .max), now: Self.second)
    #expect(machine.standing(self.ann, self.key, now: 31 * Self.second - 1) == .confirmed)
    #expect(machine.standing(self.ann, self.key, now: 31 * Self.second) == nil)
  }

  @Test("refuses a removed credential from the moment of the next answer, and asks again after the negative lifetime")
  func revoked() {
    let machine = self.confirmed()
    #expect(machine.request(self.ann, self.key, 2, "a", now: 20 * Self.second) == .refresh)
    #expect(!machine.hasLapsed(self.ann, self.key, now: 20 * Self.second))
    machine.settle(self.ann, .absent, now: 20 * Self.second)
    #expect(machine.hasLapsed(self.ann, self.key, now: 20 * Self.second))
    #expect(machine.request(self.ann, self.key, 3, "b", now: 21 * Self.second) == .now(.refused))
    #expect(machine.request(self.ann, self.key, 4, "c", now: 22 * Self.second) == .wait(asks: true))
  }

  @Test("refuses another key than that of the file, and asks again when what it knows of the file is not from just now")
  func otherKeys() {
    let machine = self.confirmed()
    #expect(machine.request(self.ann, self.otherKey, 2, "a", now: Self.second) == .now(.refused))
    #expect(machine.request(self.ann, self.otherKey, 3, "b", now: 2 * Self.second) == .wait(asks: true))
    let told = machine.settle(
      self.ann, .found(keyID: self.otherKey, lifetime: 30 * Self.second), now: 2 * Self.second)
    #expect(told.map(\.standing) == [.confirmed])
    #expect(machine.hasLapsed(self.ann, self.key, now: 2 * Self.second))
  }

  @Test("keeps what is confirmed to the end of its lifetime, and not longer, when nobody can be asked")
  func cutOff() {
    let machine = self.confirmed()
    #expect(machine.touch(self.ann, self.key, now: 15 * Self.second))
    machine.settle(self.ann, .unreachable, now: 16 * Self.second)
    #expect(machine.request(self.ann, self.key, 2, "a", now: 17 * Self.second) == .now(.confirmed))
    // Tried again, though not at once.
    #expect(!machine.touch(self.ann, self.key, now: 17 * Self.second))
    #expect(machine.touch(self.ann, self.key, now: 18 * Self.second))
    machine.settle(self.ann, .unreachable, now: 29 * Self.second)
    #expect(!machine.hasLapsed(self.ann, self.key, now: 30 * Self.second - 1))
    #expect(machine.hasLapsed(self.ann, self.key, now: 30 * Self.second))
    #expect(machine.request(self.ann, self.key, 3, "b", now: 30 * Self.second) == .now(.unreachable))
    #expect(machine.request(self.ann, self.key, 4, "c", now: 31 * Self.second) == .wait(asks: true))
    machine.settle(self.ann, .found(keyID: self.key, lifetime: 30 * Self.second), now: 32 * Self.second)
    #expect(machine.standing(self.ann, self.key, now: 33 * Self.second) == .confirmed)
  }

  @Test("does not close connections of newcomers about whom nobody could be asked yet")
  func newcomer() {
    let machine = Machine()
    #expect(machine.touch(self.ann, self.key, now: 0))
    #expect(!machine.hasLapsed(self.ann, self.key, now: 1))
    machine.settle(self.ann, .unreachable, now: 1)
    #expect(!machine.hasLapsed(self.ann, self.key, now: 2))
  }

  @Test("does not tell whoever has gone away")
  func cancelled() {
    let machine = Machine()
    _ = machine.request(self.ann, self.key, 1, "gone", now: 0)
    _ = machine.request(self.ann, self.key, 2, "there", now: 0)
    #expect(machine.cancel(self.ann, 1) == "gone")
    #expect(machine.cancel(self.ann, 1) == nil)
    #expect(machine.settle(self.ann, .absent, now: 0).map(\.waiter) == ["there"])
  }

  @Test("remembers no more than its limit: those that were not in use for longest go first, open questions never do")
  func bounded() throws {
    var limits = ConfirmationLimits()
    limits.countMax = 16
    limits.questionsMax = 8
    let machine = Machine(limits)
    for number in 0..<16 {
      let path = try TreePath(parsing: "/p\(number)")
      #expect(machine.request(path, self.key, UInt64(number), "w", now: Int64(number)) == .wait(asks: true))
      machine.settle(path, .found(keyID: self.key, lifetime: 30 * Self.second), now: Int64(number))
    }
    // In use again, so the second is the oldest now.
    _ = machine.request(try TreePath(parsing: "/p0"), self.key, 100, "w", now: 100)
    _ = machine.request(self.ann, self.key, 101, "w", now: 101)
    #expect(machine.count <= 16)
    #expect(machine.standing(try TreePath(parsing: "/p0"), self.key, now: 102) == .confirmed)
    #expect(machine.standing(try TreePath(parsing: "/p1"), self.key, now: 102) == nil)
    // Seven more can be asked at once, and then no more.
    for number in 0..<7 {
      let path = try TreePath(parsing: "/q\(number)")
      #expect(machine.request(path, self.key, UInt64(200 + number), "w", now: 200) == .wait(asks: true))
    }
    #expect(machine.request(try TreePath(parsing: "/more"), self.key, 300, "w", now: 300) == .now(.busy))
    #expect(machine.count <= 16)
    #expect(machine.settle(self.ann, .absent, now: 301).map(\.waiter) == ["w"])
    #expect(machine.request(try TreePath(parsing: "/more"), self.key, 302, "w", now: 302) == .wait(asks: true))
  }

  @Test("leaves half of all room to others, whoever certifies principals below one directory")
  func parts() throws {
    var limits = ConfirmationLimits()
    limits.questionsMax = 4
    limits.countMax = 8
    let machine = Machine(limits)
    func path(_ text: String) throws -> TreePath { try TreePath(parsing: text) }
    func site(_ number: Int) throws -> TreePath { try path("/site/people/p\(number)") }
    // Nobody there answers.
    for number in 0..<2 {
      #expect(machine.request(try site(number), self.key, UInt64(number), "", now: 0) == .wait(asks: true))
    }
    #expect(machine.request(try site(2), self.key, 2, "", now: 0) == .now(.busy))
    #expect(!machine.touch(try site(3), self.key, now: 0))
    for (number, other) in ["/other/ann", "/bob"].enumerated() {
      #expect(machine.request(try path(other), self.key, UInt64(10 + number), "", now: 0) == .wait(asks: true))
      machine.settle(try path(other), .found(keyID: self.key, lifetime: limits.lifetime), now: 0)
    }
    // They answer, for ever more.
    for number in 0..<2 { machine.settle(try site(number), .found(keyID: self.key, lifetime: limits.lifetime), now: 0) }
    for number in 2..<50 {
      _ = machine.request(try site(number), self.key, UInt64(100 + number), "", now: Int64(number))
      machine.settle(try site(number), .found(keyID: self.key, lifetime: limits.lifetime), now: Int64(number))
    }
    #expect(machine.count <= 6)
    for other in ["/other/ann", "/bob"] { #expect(machine.standing(try path(other), self.key, now: 50) == .confirmed) }
  }

  @Test("hands all waiters back when it stops")
  func stops() {
    let machine = Machine()
    _ = machine.request(self.ann, self.key, 1, "first", now: 0)
    #expect(machine.stop() == ["first"])
    #expect(machine.settle(self.ann, .absent, now: 0).isEmpty)
  }
}
