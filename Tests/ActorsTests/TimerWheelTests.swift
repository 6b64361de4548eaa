// SPDX-License-Identifier: Apache-2.0

import Actors
import Testing

@Suite("A timer wheel")
struct TimerWheelTests {
  @Test("fires each timer once, never early, and at most a tick late", arguments: seeds(1...20))
  func random(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    var now: Int64 = 1_000_000_007
    var wheel = TimerWheel(now: ActorTime(nanoseconds: now))
    /// The obvious one.
    var armed: [ObjectIdentifier: (entry: TimerEntry, time: Int64)] = [:]
    for _ in 0..<2_000 {
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<5:
        let entry = TimerEntry()
        // In the past, soon, and rounds away.
        let distances: [Int64] = [-1_000_000, 3_000_000, 900_000_000, 60_000_000_000]
        let distance = distances[Int.random(in: 0..<4, using: &random)]
        let time = now + Int64.random(in: 0...abs(distance), using: &random) * distance.signum()
        wheel.arm(entry, at: ActorTime(nanoseconds: time))
        wheel.arm(entry, at: ActorTime(nanoseconds: 0))
        armed[ObjectIdentifier(entry)] = (entry, time)
      case 5..<7:
        guard let victim = armed.values.min(by: { $0.time < $1.time }) else { break }
        armed[ObjectIdentifier(victim.entry)] = nil
        wheel.disarm(victim.entry)
        wheel.disarm(victim.entry)
      default:
        // Mostly to when it wants to be looked at, as its driver does.
        let wanted = wheel.next?.nanoseconds ?? now
        let later = now + Int64.random(in: 0...20_000_000_000, using: &random)
        now = Bool.random(using: &random) ? max(now, wanted) : later
        for entry in wheel.advance(to: ActorTime(nanoseconds: now)) {
          let present = armed.removeValue(forKey: ObjectIdentifier(entry))
          let time = try #require(present?.time, again(seed))
          #expect(time <= now, again(seed))
        }
        // Not later than a tick: whoever is due for longer has fired.
        let late = armed.values.filter { $0.time + 2 * TimerWheel.tickNanoseconds <= now }
        #expect(late.isEmpty, again(seed))
      }
      #expect(wheel.count == armed.count, again(seed))
      #expect((wheel.next == nil) == armed.isEmpty, again(seed))
      if let next = wheel.next, let first = armed.values.map(\.time).min() {
        #expect(next.nanoseconds <= max(first, now) + 2 * TimerWheel.tickNanoseconds, again(seed))
      }
    }
  }

  @Test("takes the end of time")
  func extremes() {
    var wheel = TimerWheel(now: ActorTime(nanoseconds: 0))
    let entry = TimerEntry()
    wheel.arm(entry, at: ActorTime(nanoseconds: 0).advanced(by: .seconds(Int64.max)))
    #expect(wheel.advance(to: ActorTime(nanoseconds: 1 << 60)).isEmpty)
    #expect(wheel.count == 1)
    wheel.disarm(entry)
    #expect(wheel.next == nil)
  }
}
