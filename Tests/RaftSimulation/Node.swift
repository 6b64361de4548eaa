// SPDX-License-Identifier: Apache-2.0

import Linearizability
import Raft

/// One simulated process: a replica, what its driver keeps, its clock and its disk. Only the disk outlives a crash.
struct Node {
  struct Clock {
    var perThousand: UInt64 = 1000  // Local milliseconds in a real second.
    var offset: UInt64 = 0
    func local(_ time: UInt64) -> Instant { Instant(nanoseconds: self.offset + time / 1000 * self.perThousand) }
    /// When the clock shows that, or a little later.
    func global(_ instant: Instant) -> UInt64 {
      guard instant.nanoseconds > self.offset else { return 0 }
      return (instant.nanoseconds - self.offset) / self.perThousand * 1000 + 2000
    }
  }

  let id: MemberID
  var disk: Disk
  var clock = Clock()
  /// Rises with each start: what was meant for a former life is void.
  var life = 0
  var replica: Replica?
  var machine = StateMachine()
  var commands: [LogPosition: Command] = [:]
  var isPaused = false
  /// What came while it was paused.
  var backlog: [(inout World) -> Void] = []
  var effects: [Effect] = []
  var flushIsDue = false
  var scheduledWake: UInt64 = .max

  var diskIsBusy = false
  var diskIsStalled = false
  var diskIsSlow = false
  var diskIsFull = false
  /// How far it may apply, where that takes time.
  var applyTarget: LogIndex = .zero

  // Operations of clients, by their number in the history.
  var proposals: [ProposalID: OperationID] = [:]
  var waiting: [LogPosition: OperationID] = [:]
  var reads: [ReadID: OperationID] = [:]
  var readyReads: [(index: LogIndex, operation: OperationID)] = []

  // For the checks.
  var checkedCommit: LogIndex = .zero
  var lastTerm: Term = .zero
  var spokenTerm: Term = .zero
  /// The one that is being answered.
  var preVoteRequest: (term: Term, last: LogPosition)?

  init(_ id: MemberID, _ initial: PersistentState) {
    self.id = id
    self.disk = Disk(initial)
  }
}
