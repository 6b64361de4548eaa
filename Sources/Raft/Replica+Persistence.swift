// SPDX-License-Identifier: Apache-2.0

// Writing while others work: dissertation, 10.2.1. And disks that do not take writes.
extension Replica {
  mutating func flushWrite(into effects: inout [Effect]) {
    if let write = self.ledger.nextWrite(self.log, self.hardState, at: self.now) { effects.append(.persist(write)) }
  }

  mutating func persisted(_ id: WriteID, into effects: inout [Effect]) {
    guard self.ledger.completed(id) else { return }
    if !self.deferred.isEmpty {
      for waiting in self.deferred where waiting.gate <= id && waiting.message.term == self.term {
        effects.append(.send(waiting.message, to: waiting.member))
      }
      self.deferred.removeAll { $0.gate <= id }
    }
    self.countVotes(into: &effects)
    self.advanceCommit(into: &effects)
  }

  /// True while the disk does not answer: the driver says so, or a write takes too long.
  var isStalled: Bool {
    if self.isDeclaredStalled { return true }
    guard let waitingSince = self.ledger.waitingSince else { return false }
    return self.now >= waitingSince.advanced(by: self.timing.storageStallLimit)
  }

  mutating func setStalled(_ isStalled: Bool, into effects: inout [Effect]) {
    self.isDeclaredStalled = isStalled
    // Heartbeats alone must not keep a leader that can store nothing.
    if self.role == .leader, self.isStalled { self.abdicate(into: &effects) }
  }

  mutating func setWritable(_ isWritable: Bool, into effects: inout [Effect]) {
    self.isWritable = isWritable
    if !isWritable, self.role == .candidate || self.role == .preCandidate {
      self.becomeFollower(in: self.term, leader: nil, into: &effects)
    }
    if isWritable {
      self.continueMembershipChange(into: &effects)
    } else {
      self.handOverIfPossible(into: &effects)
    }
  }
}
