// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Raft
internal import Replication
internal import Synchronization
internal import Trust

/// Processes whose credentials are about to be removed: how many commits wait for each to leave the group.
struct Departures: Sendable {
  private var counts: [TreePath: Int] = [:]

  var paths: some Collection<TreePath> { self.counts.keys }

  mutating func begin(_ path: TreePath) { self.counts[path, default: 0] += 1 }

  mutating func end(_ path: TreePath) {
    let count = self.counts[path, default: 0] - 1
    self.counts[path] = count > 0 ? count : nil
  }
}

// A member can not be reached any more once its credential is gone: nobody believes it, and nobody knows its addresses.
// But its vote may be needed to let it go, in a group of two for one. So it leaves the group first.
extension SectorGroup {
  /// Refuses a commit that takes the credentials of processes which still belong to the group.
  ///
  /// - Parameter removed: credential files that the commit removes.
  /// - Throws: `processNeeded`.
  func requireDeparture(removing removed: Set<FileID>) throws(SectorError) {
    guard !removed.isEmpty, self.credentials.damaged.isEmpty else { return }
    for entry in self.credentials.all where removed.contains(entry.fileID) {
      let path = entry.credential.marks.place.path
      // Copies are never among them: whoever changes those has seen to that.
      if entry.directory == self.home.directory, self.isInGroup(path) { throw .processNeeded(path) }
    }
  }

  /// Whether a process is a member, or was one until a change that is not committed yet.
  func isInGroup(_ path: TreePath) -> Bool {
    let status = self.replica.status
    if status.membership.members.contains(where: { self.path(of: $0) == path }) { return true }
    return status.membershipIsPending && self.departures.withLock { $0.paths.contains(path) }
  }

  /// Has the membership go on without a process, which this member has to lead for, and waits for that.
  /// ``endDeparture(of:)`` has to be said afterwards, when the credential is gone or stays for good.
  ///
  /// - Throws: `processNeeded` when that can not be done now; `notLeader`, also when it is this very member that has
  ///   left.
  func depart(_ path: TreePath) async throws(SectorError) {
    self.departures.withLock { $0.begin(path) }
    let end = ContinuousClock.now + Self.departurePatience
    while self.isInGroup(path) {
      guard self.replica.leader == self.replica.member else { throw .notLeader(self.leader) }
      guard ContinuousClock.now < end, !Task.isCancelled else { throw .processNeeded(path) }
      try? await Task.sleep(for: .milliseconds(10))
    }
  }

  func endDeparture(of paths: [TreePath]) {
    guard !paths.isEmpty else { return }
    self.departures.withLock { departures in
      for path in paths { departures.end(path) }
    }
  }

  /// Shorter than callers wait for an answer.
  private static let departurePatience = Duration.seconds(10)
}
