// SPDX-License-Identifier: Apache-2.0

package import Raft

/// What may go wrong in a world.
package enum Fault: String, CaseIterable, Hashable, Sendable {
  case crash, crashAll, crashLeader
  /// Two halves; the leader alone; one link; one direction of one link; one direction of all links of a member.
  case partition, isolateLeader, isolateFollower, cutLink, cutDirection, deafen, mute
  case pause, pauseLeader
  case slowDisk, stallDisk, fullDisk
  case transfer, membership
  /// The leader begins a change that nobody else hears of.
  case loneMembership
  /// The leader is cut off when it is about to send what ends a change.
  case halfHeardMembership
  /// The leader orders an election, and hears nothing of it.
  case loneTransfer
  /// Whoever becomes leader crashes soon after (dissertation, figure 3.7).
  case crashNewLeader
  /// A follower that its leader relies on restarts, while the leader is alone and another member campaigns.
  case forgetfulFollower
}

/// One world's rules: how many members and clients, and what goes wrong how often. Times are virtual nanoseconds.
package struct Scenario: Sendable {
  package var name: String
  /// Members 1 to this vote from the beginning.
  package var voters = 3
  /// Members 1 to this exist.
  package var members = 3
  package var clients = 4
  package var keys = 2
  package var duration: UInt64 = 8_000_000_000
  /// Mean pause of a client between two operations.
  package var thinkTime: UInt64 = 15_000_000
  package var readPart = 0.5
  /// Out of a thousand messages.
  package var lossPerThousand = 0
  package var repetitionPerThousand = 0
  package var delay: ClosedRange<UInt64> = 100_000...2_000_000
  /// Out of a thousand messages, those that take up to a hundred times as long.
  package var stragglersPerThousand = 0
  package var diskDelay: ClosedRange<UInt64> = 100_000...3_000_000
  /// Mean time between two faults.
  package var faultInterval: UInt64 = 400_000_000
  package var faultDuration: ClosedRange<UInt64> = 50_000_000...1_500_000_000
  /// How long a crashed member stays down; as other faults if nil.
  package var crashDuration: ClosedRange<UInt64>?
  package var faults: [Fault] = []
  package var electionTimeout: ClosedRange<Duration> = .milliseconds(150)...(.milliseconds(300))
  package var entriesPerAppendMax = 8
  /// The first and last thing that an honest pre-vote shows is tested by itself where this is off.
  package var judgesPreVotes = true
  /// Off to leave it to the history alone whether clients saw what they should.
  package var judgesRecency = true
  package var lease: ClockDriftBound?
  /// How wrong clocks really are.
  package var drift: UInt64 = 0
  /// Clocks are as wrong as they may be, one way or the other.
  package var clocksAreExtreme = false
  /// Every so many entries; nil for no snapshots.
  package var snapshotInterval: UInt64?
  /// How long the state machine is behind what it may apply.
  package var applyDelay: ClosedRange<UInt64> = 0...0
  /// Faults are such that the first leader must stay.
  package var leaderMustStay = false
  package var mutation: Mutation?

  package init(name: String) { self.name = name }

  /// Chosen by the seed: any size, any mix of faults.
  package static func random(seed: UInt64) -> Scenario {
    var random = SeededGenerator(seed: seed ^ 0x5CE1_A210)
    var scenario = Scenario(name: "random")
    scenario.voters = [1, 2, 3, 3, 3, 4, 5, 5, 7].randomElement(using: &random) ?? 3
    scenario.members = min(7, scenario.voters + Int.random(in: 0...2, using: &random))
    scenario.clients = Int.random(in: 2...5, using: &random)
    scenario.keys = Int.random(in: 1...3, using: &random)
    scenario.lossPerThousand = [0, 0, 10, 100].randomElement(using: &random) ?? 0
    scenario.repetitionPerThousand = [0, 10, 50].randomElement(using: &random) ?? 0
    scenario.stragglersPerThousand = [0, 5, 30].randomElement(using: &random) ?? 0
    scenario.diskDelay = 100_000...([1_000_000, 5_000_000, 40_000_000].randomElement(using: &random) ?? 1_000_000)
    scenario.faultInterval = [150_000_000, 400_000_000, 1_500_000_000].randomElement(using: &random) ?? 1
    // In most worlds leaders may live.
    let isHarsh = Int.random(in: 0..<8, using: &random) == 0
    scenario.faults = Fault.allCases.filter { fault in
      Int.random(in: 0..<3, using: &random) > 0 && (isHarsh || fault != .crashNewLeader)
    }
    scenario.entriesPerAppendMax = [1, 8, 8].randomElement(using: &random) ?? 8
    scenario.snapshotInterval = [nil, 10, 40, 150].randomElement(using: &random) ?? nil
    if Bool.random(using: &random) { scenario.applyDelay = 0...30_000_000 }
    if Bool.random(using: &random) {
      scenario.lease = ClockDriftBound(perThousand: 100)
      scenario.drift = UInt64.random(in: 0...100, using: &random)
    } else {
      scenario.drift = [0, 50, 300].randomElement(using: &random) ?? 0
    }
    return scenario
  }
}
