// SPDX-License-Identifier: Apache-2.0

package import Raft

extension Scenario {
  /// The worlds in which a broken core shows soonest.
  package static func aimed(at mutation: Mutation) -> Scenario {
    var scenario = Scenario(name: mutation.rawValue)
    scenario.voters = 5
    scenario.members = 5
    scenario.duration = 6_000_000_000
    scenario.faultInterval = 150_000_000
    let milliseconds: (ClosedRange<UInt64>) -> ClosedRange<UInt64> = {
      ($0.lowerBound * 1_000_000)...($0.upperBound * 1_000_000)
    }
    switch mutation {
    case .campaignWithoutPreVote:
      scenario.leaderMustStay = true
      scenario.faults = [.isolateFollower]
    case .ignoreStickiness:
      scenario.leaderMustStay = true
      scenario.faults = [.deafen]
      scenario.thinkTime = 300_000_000
    case .preVoteWithoutTermCheck, .preVoteWithoutLogCheck:
      scenario.faults = [.crashLeader, .isolateFollower, .partition]
    case .voteWithoutLogCheck:
      scenario.judgesPreVotes = false
      scenario.faults = [.crashLeader, .isolateFollower]
    case .voteTwice, .voteBeforePersisted, .leaderCountsUnpersisted, .acknowledgeBeforePersisted:
      scenario.faults = [.crashLeader, .crash]
    case .forgetVote:
      scenario.faults = [.crashLeader, .crash, .crash, .crash]
      scenario.faultInterval = 20_000_000
      scenario.crashDuration = milliseconds(1...5)
      scenario.delay = milliseconds(1...40)
      scenario.diskDelay = 10_000...200_000
      scenario.electionTimeout = .milliseconds(150)...(.milliseconds(170))
    case .restartWithoutGrace:
      scenario.lease = ClockDriftBound(perThousand: 10)
      scenario.electionTimeout = .milliseconds(150)...(.milliseconds(180))
      scenario.faults = [.forgetfulFollower]
      scenario.faultInterval = 600_000_000
      scenario.faultDuration = milliseconds(400...600)
      scenario.crashDuration = milliseconds(1...5)
      // Those that write to the old leader wait for long.
      scenario.readPart = 0.85
      scenario.clients = 16
      scenario.thinkTime = 5_000_000
    case .acceptOlderTerm:
      scenario.faults = [.isolateLeader, .pauseLeader]
      scenario.faultDuration = milliseconds(180...350)
      scenario.faultInterval = 300_000_000
      scenario.thinkTime = 40_000_000
      scenario.stragglersPerThousand = 30
    case .keepConflictingSuffix, .appendWithoutPreviousCheck, .commitBeyondMatch:
      scenario.faults = [.isolateLeader, .crashLeader, .partition]
      scenario.faultDuration = milliseconds(200...800)
    case .commitOlderTerm:
      scenario.faults = [.crashNewLeader]
      scenario.faultDuration = milliseconds(10...400)
      scenario.duration = 20_000_000_000
      scenario.entriesPerAppendMax = 1
      scenario.delay = milliseconds(1...30)
    case .readWithoutQuorum:
      scenario.faults = [.isolateLeader, .pauseLeader, .crashLeader]
      scenario.faultInterval = 400_000_000
      scenario.clients = 10
      scenario.thinkTime = 5_000_000
      scenario.readPart = 0.8
    case .readBeforeTermCommit:
      scenario.faults = [.crashLeader, .transfer]
      scenario.faultInterval = 300_000_000
      scenario.faultDuration = milliseconds(10...100)
      scenario.delay = milliseconds(1...10)
      scenario.clients = 10
      scenario.thinkTime = 5_000_000
    case .leaseWithoutDriftBound:
      scenario.lease = ClockDriftBound(perThousand: 300)
      scenario.drift = 300
      scenario.clocksAreExtreme = true
      scenario.electionTimeout = .milliseconds(150)...(.milliseconds(180))
      scenario.faults = [.isolateLeader]
      scenario.faultInterval = 400_000_000
      scenario.faultDuration = milliseconds(300...600)
      scenario.clients = 10
      scenario.thinkTime = 5_000_000
    case .leaseKeptAcrossTransfer:
      scenario.lease = ClockDriftBound(perThousand: 10)
      scenario.electionTimeout = .milliseconds(150)...(.milliseconds(180))
      scenario.faults = [.loneTransfer]
      scenario.faultInterval = 500_000_000
      scenario.faultDuration = milliseconds(200...400)
      scenario.clients = 10
      scenario.thinkTime = 5_000_000
    case .singleQuorumInJoint, .learnerCountsAsVoter, .removedLeaderCountsItself, .leaveJointBeforeCommit:
      scenario.voters = 3
      scenario.members = 6
      scenario.faults = [.membership, .membership, .isolateLeader, .partition, .slowDisk]
    case .changesOverlap:
      scenario.members = 6
      scenario.faults = Array(repeating: .membership, count: 12) + [.partition]
      scenario.faultInterval = 15_000_000
      scenario.faultDuration = milliseconds(100...300)
    case .removedNeverCampaigns:
      scenario.voters = 2
      scenario.members = 2
      scenario.faults = [.halfHeardMembership]
      scenario.faultInterval = 300_000_000
      scenario.faultDuration = milliseconds(300...600)
    case .membershipKeptOnTruncation:
      scenario.voters = 3
      scenario.members = 6
      scenario.faults = [.loneMembership]
      scenario.faultInterval = 500_000_000
      scenario.faultDuration = milliseconds(300...500)
    case .snapshotForgetsMembership:
      scenario.voters = 3
      scenario.members = 6
      scenario.snapshotInterval = 3
      scenario.faults = [.membership, .membership, .isolateFollower, .isolateFollower, .crashLeader, .partition]
      scenario.faultInterval = 60_000_000
      scenario.faultDuration = milliseconds(100...600)
    case .snapshotKeepsConflictingSuffix:
      scenario.snapshotInterval = 4
      scenario.faults = [.isolateLeader]
      scenario.faultInterval = 600_000_000
      scenario.faultDuration = milliseconds(300...700)
      scenario.clients = 12
      scenario.thinkTime = 30_000_000
      scenario.readPart = 0.1
    }
    scenario.mutation = mutation
    return scenario
  }
}
