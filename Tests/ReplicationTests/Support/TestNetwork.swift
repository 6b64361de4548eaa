// SPDX-License-Identifier: Apache-2.0

import Raft
import Replication
import SectorStore

/// A network between drivers of one process: two threads of its own deliver what is due, late, twice, out of order, or
/// not at all.
final class TestNetwork: Sendable {
  struct Weather: Sendable {
    var lossPercent = 0
    var repetitionPercent = 0
    /// In microseconds.
    var delay = 0...200
  }

  struct Route: Hashable, Sendable {
    var from: MemberID
    var to: MemberID
  }

  private struct Letter: Sendable {
    var due: UInt64
    var route: Route
    var message: Message
    var payloads: [LogPayload?]
  }

  private struct State: Sendable {
    /// The one that is due first comes last.
    var letters: [Letter] = []
    var drivers: [MemberID: (driver: ReplicaDriver, configuration: StoreConfiguration)] = [:]
    var cuts: Set<Route> = []
    var weather = Weather()
    var generator: SeededGenerator
    var isStopped = false
    var threadCount = 0
    /// Bytes of blocks in the largest append so far.
    var largestAppend = 0
    /// Appends with entries, by receiver, in the order in which they were sent.
    var appends: [MemberID: [(after: Raft.LogIndex, count: Int)]] = [:]
  }

  private let state: Monitor<State>

  init(seed: UInt64) { self.state = Monitor(State(generator: SeededGenerator(seed: seed))) }

  func start() -> Bool {
    for _ in 0..<2 {
      self.state.withLock { $0.threadCount += 1 }
      guard WorkerThread.start({ self.run() }) else {
        self.state.withLock { $0.threadCount -= 1 }
        return false
      }
    }
    return true
  }

  func stop() {
    self.state.withLock { $0.isStopped = true }
    self.state.wakeAll()
    self.state.wait { $0.threadCount > 0 ? nil : () }
  }

  // MARK: What happens to it

  func connect(_ driver: ReplicaDriver) {
    self.state.withLock { $0.drivers[driver.member] = (driver, driver.store.configuration) }
  }

  func disconnect(_ member: MemberID) { self.state.withLock { $0.drivers[member] = nil } }
  func setWeather(_ weather: Weather) { self.state.withLock { $0.weather = weather } }
  func heal() { self.state.withLock { $0.cuts = [] } }

  func cut(_ from: MemberID, _ to: MemberID) {
    self.state.withLock { _ = $0.cuts.insert(Route(from: from, to: to)) }
  }

  /// Cuts a member off from all others, in both directions.
  func isolate(_ member: MemberID, from others: [MemberID]) {
    for other in others where other != member {
      self.cut(member, other)
      self.cut(other, member)
    }
  }

  func appends(to member: MemberID) -> [(after: Raft.LogIndex, count: Int)] {
    self.state.withLock { $0.appends[member] ?? [] }
  }

  var largestAppend: Int { self.state.withLock { $0.largestAppend } }

  // MARK: Letters

  func link(from member: MemberID) -> some ReplicaTransport { Link(network: self, from: member) }

  private struct Link: ReplicaTransport {
    let network: TestNetwork
    let from: MemberID

    func send(_ message: Message, payloads: [LogPayload?], to member: MemberID) {
      self.network.post(message, payloads, Route(from: self.from, to: member))
    }
  }

  private func post(_ message: Message, _ payloads: [LogPayload?], _ route: Route) {
    let now = MonotonicClock.now.nanoseconds
    self.state.withLock { state in
      if case .append(let after, let entries, _) = message.body, !entries.isEmpty {
        state.appends[route.to, default: []].append((after.index, entries.count))
        let byteCount = payloads.reduce(0) { sum, payload in
          guard case .change(let change) = payload else { return sum }
          return sum + change.blocks.reduce(0) { $0 + $1.bytes.count }
        }
        state.largestAppend = max(state.largestAppend, byteCount)
      }
      let copies = state.generator.chance(state.weather.repetitionPercent) ? 2 : 1
      for _ in 0..<copies where !state.generator.chance(state.weather.lossPercent) {
        let delay = UInt64(state.generator.number(state.weather.delay)) * 1_000
        let letter = Letter(due: now + delay, route: route, message: message, payloads: payloads)
        let place = state.letters.lastIndex { $0.due > letter.due }.map { $0 + 1 } ?? 0
        state.letters.insert(letter, at: place)
      }
    }
    self.state.wakeAll()
  }

  private enum Next {
    case stop
    case wait(UInt64)
    case deliver(Letter, to: ReplicaDriver, StoreConfiguration)
    case unreachable(MemberID, by: ReplicaDriver)
    case nothing
  }

  private func run() {
    loop: while true {
      switch self.state.withLock({ Self.next(&$0) }) {
      case .stop: break loop
      case .wait(let nanoseconds):
        self.state.wait(nanoseconds: nanoseconds) {
          $0.isStopped || ($0.letters.last?.due ?? .max) <= MonotonicClock.now.nanoseconds
        }
      case .deliver(let letter, let driver, let configuration):
        driver.receive(
          letter.message, payloads: letter.payloads.map { Self.travelled($0, configuration) }, from: letter.route.from)
      case .unreachable(let member, let driver): driver.unreachable(member)
      case .nothing: break
      }
    }
    self.state.withLock { $0.threadCount -= 1 }
    self.state.wakeAll()
  }

  private static func next(_ state: inout State) -> Next {
    if state.isStopped { return .stop }
    guard let letter = state.letters.last else { return .wait(10_000_000) }
    let now = MonotonicClock.now.nanoseconds
    if letter.due > now { return .wait(letter.due - now) }
    state.letters.removeLast()
    let receiver = state.cuts.contains(letter.route) ? nil : state.drivers[letter.route.to]
    guard let receiver else {
      // Now and then somebody notices.
      guard state.generator.chance(20), let sender = state.drivers[letter.route.from] else { return .nothing }
      return .unreachable(letter.route.to, by: sender.driver)
    }
    return .deliver(letter, to: receiver.driver, receiver.configuration)
  }

  /// A payload as the receiver gets it: taken apart and put together again.
  private static func travelled(_ payload: LogPayload?, _ configuration: StoreConfiguration) -> LogPayload? {
    guard case .change(let change) = payload else { return payload }
    let blocks = change.blocks.reduce(into: [UInt8]()) { $0 += $1.bytes }
    return Change(encoded: change.encoded(), blocks: blocks[...], configuration: configuration).map { .change($0) }
  }
}
