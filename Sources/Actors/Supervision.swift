// SPDX-License-Identifier: Apache-2.0

/// What becomes of an actor that fails.
package enum Supervision: Hashable, Sendable {
  /// It ends.
  case stop
  /// It ends, and its parent fails with the same failure. One that has no parent just ends.
  case escalate
  /// It begins again with a new state, and keeps its address, its mailbox and its watchers.
  case restart(RestartPolicy)
}

/// How often an actor may begin again, and after which pause.
package struct RestartPolicy: Hashable, Sendable {
  /// What happens when it has failed too often.
  package enum Surrender: Hashable, Sendable { case stop, escalate }

  /// The pause before the first restart. Each further one within the window doubles it.
  package var delay: Duration
  /// The longest pause.
  package var delayMax: Duration
  /// How many restarts there may be within the window.
  package var countMax: Int
  /// The time in which restarts are counted.
  package var window: Duration
  /// When there would be one more.
  package var then: Surrender

  package init(
    delay: Duration = .milliseconds(100), delayMax: Duration = .seconds(10), countMax: Int = 5,
    window: Duration = .seconds(60), then: Surrender = .stop
  ) {
    self.delay = max(.zero, delay)
    self.delayMax = max(.zero, delayMax)
    self.countMax = max(0, countMax)
    self.window = max(.zero, window)
    self.then = then
  }
}

/// The restarts of one actor, as far as they count. Knows no clock.
package struct RestartRecord: Hashable, Sendable {
  /// Not more than `countMax`.
  package private(set) var times: [ActorTime] = []

  package init() {}

  /// Counts one more restart and says after which pause it may be; nil when there have been too many.
  package mutating func restart(at now: ActorTime, by policy: RestartPolicy) -> Duration? {
    self.times.removeAll { $0.advanced(by: policy.window) <= now }
    guard self.times.count < policy.countMax else { return nil }
    var delay = min(policy.delay, policy.delayMax)
    for _ in self.times {
      guard policy.delayMax > delay else { break }
      delay = min(delay * 2, policy.delayMax)
    }
    self.times.append(now)
    return delay
  }
}
