// SPDX-License-Identifier: Apache-2.0

package import Raft
package import Trust

/// Which members of a delegated cluster were revoked, by what a member that does not lead sees of the cluster above.
///
/// The one that leads makes the cluster's membership follow the credential files there. If it is the leader that was
/// revoked, it gets no answer from above any more, and may not want one: then it is for the others to see that. Decides,
/// and performs nothing.
package struct RevokedMembers: Sendable {
  private var suspected: Set<TreePath> = []
  /// Members whose credential files were gone, or for another key, in the last two looks.
  package private(set) var paths: Set<TreePath> = []

  package init() {}

  /// Compares once more. An answer may be a little older than what the leader saw, so that a process which was just
  /// added is missing: what counts is two in a row.
  ///
  /// - Parameters:
  ///   - members: the keys of the cluster's processes by its own copies, as these were before the question.
  ///   - found: the keys of those that the cluster above names.
  package mutating func compare(_ members: [TreePath: Digest32], with found: [TreePath: Digest32]) {
    let missing = Set(members.filter { found[$0.key] != $0.value }.keys)
    self.paths = missing.intersection(self.suspected)
    self.suspected = missing
  }
}

extension Raft.Message {
  /// Whether this asks to be followed or elected. A member that was revoked is not, whatever else it says: its answers
  /// still count, as its vote may be needed to let it go. To the consensus it looks as if the network had lost the
  /// message.
  package var asksToBeFollowed: Bool {
    switch self.body {
    case .preVoteRequest, .voteRequest, .heartbeat, .append, .timeoutNow, .readReply, .termNotice: true
    case .preVoteReply, .voteReply, .heartbeatReply, .appendReply, .readRequest: false
    }
  }
}
