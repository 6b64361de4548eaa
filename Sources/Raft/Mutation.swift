// SPDX-License-Identifier: Apache-2.0

/// Ways to break the core on purpose, one at a time: the simulation must find each. Only this package can reach them.
package enum Mutation: String, CaseIterable, Hashable, Sendable {
  // Elections
  case campaignWithoutPreVote, ignoreStickiness, preVoteWithoutTermCheck, preVoteWithoutLogCheck
  case voteWithoutLogCheck, voteTwice, forgetVote, voteBeforePersisted, restartWithoutGrace
  // Replication
  case acceptOlderTerm, keepConflictingSuffix, appendWithoutPreviousCheck, acknowledgeBeforePersisted
  case commitBeyondMatch, commitOlderTerm, leaderCountsUnpersisted
  // Reads
  case readWithoutQuorum, readBeforeTermCommit, leaseWithoutDriftBound, leaseKeptAcrossTransfer
  // Membership
  case singleQuorumInJoint, learnerCountsAsVoter, removedLeaderCountsItself, membershipKeptOnTruncation
  case leaveJointBeforeCommit, changesOverlap, removedNeverCampaigns
  // Snapshots
  case snapshotForgetsMembership, snapshotKeepsConflictingSuffix
}
