// SPDX-License-Identifier: Apache-2.0

/// Leadership on its way to another member.
struct Transfer: Sendable {
  var target: MemberID
  var deadline: Instant
  /// The target was told to campaign.
  var isSent = false
}

// Leadership transfer: dissertation, 3.10.
extension Replica {
  mutating func beginTransfer(to target: MemberID?, into effects: inout [Effect]) {
    guard self.role == .leader, self.transfer == nil, let target = target ?? self.bestSuccessor,
      self.membership.voters.contains(target), let peer = self.peer(target), peer.isWritable
    else {
      effects.append(.transferEnded(to: target, .impossible))
      return
    }
    self.transfer = Transfer(target: target, deadline: self.now.advanced(by: self.timing.electionTimeoutMax))
  }

  /// For a leader that can not write. It goes on leading, without proposals, if nobody else can: reads still work then.
  mutating func handOverIfPossible(into effects: inout [Effect]) {
    guard self.role == .leader, self.transfer == nil, let successor = self.bestSuccessor else { return }
    self.beginTransfer(to: successor, into: &effects)
  }

  /// Tells the target to campaign, when its log is complete.
  mutating func flushTransfer(into effects: inout [Effect]) {
    guard self.role == .leader, let transfer = self.transfer, !transfer.isSent else { return }
    guard let peer = self.peer(transfer.target) else { return self.abortTransfer(into: &effects) }
    guard peer.match >= self.log.lastIndex else { return }
    self.sendTimeoutNow(to: transfer.target, into: &effects)
    self.transfer?.isSent = true
  }

  private mutating func sendTimeoutNow(to member: MemberID, into effects: inout [Effect]) {
    // The order may arrive late, and frees everybody from standing by this leader. So there is no lease any more in
    // this term, not even after an aborted transfer.
    if self.mutation != .leaseKeptAcrossTransfer { self.leaseIsForfeited = true }
    self.send(.timeoutNow, to: member, into: &effects)
  }

  mutating func abortTransfer(into effects: inout [Effect]) {
    guard let transfer = self.transfer else { return }
    self.transfer = nil
    effects.append(.transferEnded(to: transfer.target, .timeout))
  }

  mutating func receiveTimeoutNow(from sender: MemberID, into effects: inout [Effect]) {
    guard self.hear(sender, into: &effects), self.mayCampaign else { return }
    self.campaign(isTransfer: true, into: &effects)
  }

  /// Steps down, and tells the best successor so that nobody has to wait for an election timeout.
  mutating func abdicate(into effects: inout [Effect]) {
    if let successor = self.bestSuccessor { self.sendTimeoutNow(to: successor, into: &effects) }
    self.becomeFollower(in: self.term, leader: nil, into: &effects)
  }

  /// The voter that is furthest, of those that were heard lately and can write.
  private var bestSuccessor: MemberID? {
    var best: Progress?
    for peer in self.peers where self.membership.voters.contains(peer.member) && peer.isWritable {
      guard peer.lastHeard.advanced(by: self.timing.electionTimeoutMax) > self.now else { continue }
      if let found = best, found.match >= peer.match { continue }
      best = peer
    }
    return best?.member
  }
}
