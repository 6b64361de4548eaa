// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Testing
import Trust

@Suite("The search for a leader")
struct LeaderSearchTests {
  typealias Place = ProcessDirectory.Place

  private static func place(_ number: Int, path: String? = nil, isNamed: Bool = true) throws -> Place {
    let address = try NetworkAddress(host: "10.0.0.\(number)", port: 7000)
    return Place(path: isNamed ? try TreePath(parsing: path ?? "/node\(number)") : nil, address: address)
  }

  private static func hint(_ number: Int, isKnownBy addressCount: Int = 1) throws -> ProcessHint {
    let place = try Self.place(number)
    return ProcessHint(
      path: try TreePath(parsing: "/node\(number)"), addresses: addressCount == 0 ? [] : [place.address])
  }

  let a: Place
  let b: Place
  let c: Place
  var directory: ProcessDirectory
  var search = LeaderSearch()

  init() throws {
    self.a = try Self.place(1)
    self.b = try Self.place(2)
    self.c = try Self.place(3)
    self.directory = ProcessDirectory([self.a, self.b, self.c])
  }

  private mutating func failed(_ place: Place) -> LeaderSearch.Pause {
    self.directory.failed(place)
    return self.search.failed(place, in: self.directory)
  }

  private mutating func declined(_ place: Place, leader: ProcessHint? = nil) -> LeaderSearch.Pause {
    self.directory.declined(place, leader: leader)
    return self.search.declined(place, leader: leader, in: self.directory)
  }

  private mutating func next() -> Place? { self.search.next(in: self.directory) }

  @Test("begins with the profile's first, and stays there as long as nothing is said against it")
  mutating func beginning() {
    #expect(self.next() == self.a)
    #expect(self.next() == self.a)
  }

  @Test("passes over those that can not be reached at once, and pauses when nobody can")
  mutating func outage() {
    #expect(self.next() == self.a)
    #expect(self.failed(self.a) == .none)
    #expect(self.next() == self.b)
    #expect(self.failed(self.b) == .none)
    #expect(self.next() == self.c)
    #expect(self.failed(self.c) == .outage)
    // And again from the beginning.
    #expect(self.next() == self.a)
  }

  @Test("goes at once to whom another one names")
  mutating func redirect() throws {
    #expect(self.next() == self.a)
    #expect(self.declined(self.a, leader: try Self.hint(3)) == .none)
    #expect(self.next() == self.c)
    self.directory.served(self.c)
    // Other calls begin there.
    var other = LeaderSearch()
    #expect(other.next(in: self.directory) == self.c)
  }

  @Test("pauses briefly after an answer that names nobody, longer with each round")
  mutating func election() {
    #expect(self.next() == self.a)
    #expect(self.declined(self.a) == .election(round: 0))
    #expect(self.next() == self.b)
    #expect(self.declined(self.b) == .election(round: 0))
    #expect(self.next() == self.c)
    #expect(self.failed(self.c) == .election(round: 0))
    #expect(self.next() == self.a)
    #expect(self.declined(self.a) == .election(round: 1))
  }

  @Test("does not go back to a dead leader whom the others still name")
  mutating func staleHint() throws {
    self.directory.served(self.a)
    #expect(self.next() == self.a)
    #expect(self.failed(self.a) == .none)
    #expect(self.next() == self.b)
    #expect(self.declined(self.b, leader: try Self.hint(1)) == .election(round: 0))
    #expect(self.next() == self.c)
    #expect(self.declined(self.c, leader: try Self.hint(1)) == .election(round: 0))
    // In the next round it may have come back.
    #expect(self.next() == self.a)
    #expect(self.failed(self.a) == .none)
  }

  @Test("asks a process once in a round, whatever number of addresses it has")
  mutating func addresses() throws {
    let second = try Self.place(9, path: "/node1")
    self.directory = ProcessDirectory([self.a, second, self.b])
    #expect(self.next() == self.a)
    #expect(self.declined(self.a) == .election(round: 0))
    #expect(self.next() == self.b)
    #expect(self.declined(self.b) == .election(round: 0))
    #expect(self.next() == self.a)
    // Unreachable at one address, it may be reached at the other.
    #expect(self.failed(self.a) == .none)
    #expect(self.next() == self.b)
    #expect(self.failed(self.b) == .none)
    #expect(self.next() == second)
  }

  @Test("knows a process at an address without a name once it has answered")
  mutating func identity() throws {
    let nameless = try Self.place(1, isNamed: false)
    self.directory = ProcessDirectory([nameless, self.b])
    self.directory.reached(nameless, process: try TreePath(parsing: "/node1"))
    #expect(self.next() == nameless)
    #expect(self.declined(nameless, leader: try Self.hint(2)) == .none)
    #expect(self.next() == self.b)
    #expect(self.declined(self.b, leader: try Self.hint(1)) == .election(round: 0))
    // No second connection to the same process.
    #expect(self.directory.order.count == 2)
  }

  @Test("passes over a hint that leads nowhere")
  mutating func emptyHint() throws {
    #expect(self.next() == self.a)
    #expect(self.declined(self.a, leader: try Self.hint(7, isKnownBy: 0)) == .election(round: 0))
    #expect(self.next() == self.b)
    // Nor does it go in a circle with one that names itself.
    #expect(self.declined(self.b, leader: try Self.hint(2)) == .election(round: 0))
    #expect(self.next() == self.c)
  }

  @Test("follows so many hints and no more without a pause")
  mutating func endlessHints() throws {
    var place = self.a
    var count = 0
    #expect(self.next() == place)
    for number in 10..<60 {
      guard self.declined(place, leader: try Self.hint(number)) == .none else { break }
      count += 1
      let next = self.next()
      place = try #require(next)
      let expected = try Self.place(number)
      #expect(place == expected)
    }
    #expect(count == LeaderSearch.redirectCountMax)
  }

  @Test("remembers so many learned places and no more, and never forgets the profile's or who serves")
  mutating func bounded() throws {
    let first = try Self.place(10)
    self.directory.declined(self.a, leader: try Self.hint(10))
    self.directory.served(first)
    for number in 11..<200 { self.directory.declined(self.b, leader: try Self.hint(number)) }
    let order = self.directory.order
    #expect(order.count == 3 + ProcessDirectory.learnedCountMax)
    #expect(order.first == first)
    #expect(Set([self.a, self.b, self.c]).isSubset(of: order))
  }

  @Test("asks nobody whom those above do not name any more, but for the profile's")
  mutating func renewal() throws {
    let (gone, stays) = (try Self.place(10), try Self.place(11))
    for number in 10...11 { self.directory.declined(self.a, leader: try Self.hint(number)) }
    self.directory.served(gone)
    #expect(self.directory.current == gone)
    self.directory.renew([try Self.hint(11), try Self.hint(12)])
    let expected = [self.a, self.b, self.c, stays, try Self.place(12)]
    #expect(Set(self.directory.order) == Set(expected) && self.directory.order.count == 5)
    #expect(self.directory.current != gone && self.directory.current != nil)
  }

  @Test("begins anew where another call has found the leader")
  mutating func finding() throws {
    #expect(self.next() == self.a)
    #expect(self.declined(self.a) == .election(round: 0))
    self.directory.served(self.c)
    #expect(self.next() == self.c)
    // Late news do not lead other calls away from there.
    self.directory.declined(self.b, leader: try Self.hint(1))
    #expect(self.directory.current == self.c)
  }

  @Test("does not wait long for a place that was silent, nor for any while there are others")
  mutating func patience() throws {
    #expect(self.directory.dialPatience(for: self.a) == ProcessDirectory.dialPatience)
    self.directory.failed(self.a, wasSilent: true)
    #expect(self.directory.dialPatience(for: self.a) == ProcessDirectory.silentDialPatience)
    self.directory.declined(self.b, leader: try Self.hint(1))
    #expect(self.directory.current != self.a)
    self.directory.reached(self.a, process: try TreePath(parsing: "/node1"))
    #expect(self.directory.dialPatience(for: self.a) == ProcessDirectory.dialPatience)
    let alone = ProcessDirectory([self.a])
    #expect(alone.dialPatience(for: self.a) == nil)
  }

  @Test("has nowhere to go without any place")
  func nobody() {
    var search = LeaderSearch()
    let place = search.next(in: ProcessDirectory([]))
    #expect(place == nil)
  }
}

@Suite("A hint to the leader")
struct ProcessHintTests {
  private func hint(_ metadata: [String: String], _ reason: BlocktreeError.Reason = .notLeader) -> ProcessHint? {
    ProcessHint(BlocktreeError(code: .unavailable, reason: reason, message: "", metadata: metadata))
  }

  @Test("is read from the error's metadata")
  func parsing() throws {
    let hint = try #require(self.hint(["leader": "/node2", "addresses": "10.0.0.2:7001, [::1]:7001"]))
    #expect(hint.path.description == "/node2")
    #expect(hint.addresses.map(\.description) == ["10.0.0.2:7001", "[::1]:7001"])
    #expect(self.hint(["leader": "/node2"])?.addresses == [])
  }

  @Test("is passed over where it is malformed, and is never long")
  func malformed() {
    #expect(self.hint([:]) == nil)
    #expect(self.hint(["leader": "node2"]) == nil)
    #expect(self.hint(["leader": "/node2"], .notServing) == nil)
    #expect(self.hint(["leader": "/node2", "addresses": "nonsense,,:0,10.0.0.2:7001"])?.addresses.count == 1)
    let many = (1...100).map { "10.0.0.\($0):7001" }.joined(separator: ",")
    #expect(self.hint(["leader": "/node2", "addresses": many])?.addresses.count == ProcessHint.addressCountMax)
  }
}

@Suite("The retry while there is no leader")
struct ElectionRetryTests {
  let now = ContinuousClock.now
  let declined = BlocktreeError(code: .unavailable, reason: .notLeader, message: "", retry: .elsewhere)

  private func delay(
    _ schedule: inout RetrySchedule, _ pause: LeaderSearch.Pause, after error: BlocktreeError? = nil,
    wasSent: Bool = true, isRepeatable: Bool = false, at time: Duration = .zero
  ) -> Duration? {
    var random = SystemRandomNumberGenerator()
    return schedule.delay(
      after: error ?? self.declined, wasSent: wasSent, isRepeatable: isRepeatable, pause: pause, now: self.now + time,
      using: &random)
  }

  @Test("is made even of what may not be repeated otherwise, since nothing was done")
  func undone() {
    var schedule = RetrySchedule(timeout: .seconds(10), patience: .zero, now: self.now)
    #expect(self.delay(&schedule, .none) == .zero)
    let broken = BlocktreeError(code: .unavailable, message: "", retry: .elsewhere)
    #expect(self.delay(&schedule, .none, after: broken) == nil)
    #expect(self.delay(&schedule, .none, after: broken, isRepeatable: true) == .zero)
  }

  @Test("goes to others when a process does not host the service, and is not made again when none does")
  func unknownCall() {
    var schedule = RetrySchedule(timeout: .seconds(10), patience: .zero, now: self.now)
    let unknown = BlocktreeError(code: .unimplemented, message: "")
    #expect(self.delay(&schedule, .none, after: unknown) == .zero)
    #expect(self.delay(&schedule, .election(round: 0), after: unknown) != nil)
    #expect(self.delay(&schedule, .outage, after: unknown, isRepeatable: true) == nil)
    #expect(unknown.isOfOneProcess)
  }

  @Test("waits shortly, and never long")
  func short() throws {
    var schedule = RetrySchedule(timeout: .seconds(10), patience: .zero, now: self.now)
    for round in 0..<100 {
      let delay = try #require(self.delay(&schedule, .election(round: round)))
      let step = min(RetrySchedule.initialElectionDelay * (1 << min(round, 10)), RetrySchedule.maxElectionDelay)
      #expect(delay >= step * 0.5 && delay <= step)
    }
    #expect(self.delay(&schedule, .election(round: 1000)) != nil)
  }

  @Test("ends with the call's time, or after a long one where a call has none")
  func bounded() {
    var timed = RetrySchedule(timeout: .seconds(10), patience: .zero, now: self.now)
    #expect(self.delay(&timed, .election(round: 9), at: .seconds(9)) != nil)
    #expect(self.delay(&timed, .election(round: 9), at: .seconds(10)) == nil)
    #expect(self.delay(&timed, .none, at: .seconds(10)) == nil)

    var endless = RetrySchedule(timeout: nil, patience: .zero, now: self.now)
    #expect(self.delay(&endless, .election(round: 0)) != nil)
    let almost = RetrySchedule.electionPatience - .milliseconds(1)
    #expect(self.delay(&endless, .election(round: 9), at: almost) != nil)
    #expect(self.delay(&endless, .election(round: 9), at: RetrySchedule.electionPatience) == nil)
    // A process that took the request in between begins the time anew.
    let broken = BlocktreeError(code: .unavailable, message: "", retry: .elsewhere)
    #expect(self.delay(&endless, .none, after: broken, isRepeatable: true, at: almost) == .zero)
    #expect(self.delay(&endless, .election(round: 9), at: RetrySchedule.electionPatience) != nil)
  }

  @Test("goes to another process with whatever is wrong with one, if the request has not been sent")
  func unsent() {
    var schedule = RetrySchedule(timeout: .seconds(10), patience: .zero, now: self.now)
    let refused = BlocktreeError(code: .unauthenticated, reason: .credentialRefused, message: "")
    #expect(self.delay(&schedule, .none, after: refused, wasSent: false) == .zero)
    #expect(self.delay(&schedule, .outage, after: refused, wasSent: false) == nil)
  }
}
