// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Inodes
internal import Raft
internal import SectorStore
internal import SwiftProtobuf
internal import Trust

extension Blocktree_V1_ClusterServiceGetStatusResponse {
  package init(_ status: ClusterStatus) {
    self.init()
    let replica = status.replica
    self.generation = status.generation.rawValue
    self.member = replica.member.rawValue
    self.process = status.process.description
    self.role = .init(replica.leadership.role)
    self.term = replica.leadership.term.rawValue
    if let leader = status.leader { self.leader = .init(leader) }
    self.commitIndex = replica.commit.rawValue
    self.appliedIndex = status.applied
    self.lastLogIndex = replica.last.index.rawValue
    self.persistedIndex = replica.persisted.rawValue
    self.members = status.members.map(Blocktree_V1_ClusterMember.init)
    self.membershipIndex = replica.membershipIndex.rawValue
    self.membershipIsChanging = replica.membershipIsPending
    self.disk = .with {
      $0.usedBytes = status.disk.usedBytes
      $0.allocatedBytes = status.disk.allocatedBytes
      $0.freeBytes = status.disk.diskFreeBytes
      $0.logBytes = status.disk.logBytes
    }
    self.isWritable = replica.isWritable && !replica.isStalled && status.failure == nil
    self.storeFailure = status.failure?.sentence ?? ""
    self.transferTarget = replica.transferTarget?.rawValue ?? 0
    self.incarnation = status.life.incarnation.rawValue
    self.lastLogTerm = replica.last.term.rawValue
  }
}

extension Blocktree_V1_ClusterRole {
  init(_ role: Role) {
    switch role {
    case .follower: self = .follower
    case .preCandidate, .candidate: self = .candidate
    case .leader: self = .leader
    }
  }
}

extension Blocktree_V1_ClusterLeader {
  init(_ member: ClusterStatus.Member) {
    self.init()
    self.member = member.id.rawValue
    self.process = member.process?.description ?? ""
    self.addresses = member.addresses.map(\.description)
  }
}

extension Blocktree_V1_ClusterMember {
  init(_ member: ClusterStatus.Member) {
    self.init()
    self.member = member.id.rawValue
    self.process = member.process?.description ?? ""
    self.addresses = member.addresses.map(\.description)
    switch member.vote {
    case .voter: self.vote = .voter
    case .coming: self.vote = .coming
    case .going: self.vote = .going
    case .learner: self.vote = .learner
    }
    if let progress = member.progress { self.progress = .init(progress) }
  }
}

extension Blocktree_V1_ClusterProgress {
  init(_ progress: ClusterStatus.Progress) {
    self.init()
    self.matchIndex = progress.match.rawValue
    self.nextIndex = progress.next.rawValue
    self.lag = progress.lag
    self.silenceMs = UInt64(clamping: Int64(progress.silence / .milliseconds(1)))
    switch progress.replication {
    case .probing: self.replication = .probing
    case .replicating: self.replication = .replicating
    case .snapshot: self.replication = .snapshot
    }
    self.isWritable = progress.isWritable
  }
}

extension StoreError {
  /// For people: why a store refuses every call. Names no path, and nothing that is stored; at most 200 bytes.
  fileprivate var sentence: String {
    switch self {
    case .damaged: "what is on the disk is damaged"
    case .noSpace: "there is no room on the disk"
    case .closed: "it was closed"
    default: "a write or sync failed"
    }
  }
}
