// SPDX-License-Identifier: Apache-2.0

import Raft

/// What was seen to be wrong.
package struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
  package var rule: Rule
  package var detail: String
  package var time: UInt64

  package enum Rule: String, Hashable, Sendable {
    case electionSafety, logMatching, leaderCompleteness, stateMachineSafety, commitIsDurable
    case monotony, voteIsDurable, acknowledgedIsDurable, termIsDurable, preVoteIsHonest
    case recency, linearizability, invariant, violation, payload, leaderStays, liveness
  }

  package var description: String { "\(self.rule.rawValue) at \(Double(self.time / 1000) / 1e6) s: \(self.detail)" }
}

/// Knows all that ever was, and compares.
struct Judge {
  struct Committed {
    var term: Term
    var command: Command?
    var committedIn: Term
  }
  struct Created: Hashable {
    var previous: Term
    var header: EntryHeader
    var command: Command?
  }

  private(set) var leaders: [Term: MemberID] = [:]
  private(set) var committed: [Committed] = []
  private var created: [LogPosition: Created] = [:]
  private var votes: [MemberID: [Term: MemberID]] = [:]
  /// The greatest index whose effect a client has seen.
  private(set) var seen: LogIndex = .zero

  // Dissertation, 3.2: election safety and leader completeness.
  mutating func leads(_ member: MemberID, _ replica: Replica) -> (Failure.Rule, String)? {
    let term = replica.hardState.term
    if let other = self.leaders[term] {
      return other == member
        ? nil : (.electionSafety, "\(other.rawValue) and \(member.rawValue) lead in term \(term.rawValue)")
    }
    self.leaders[term] = member
    for (offset, entry) in self.committed.enumerated() where entry.committedIn < term {
      let index = LogIndex(UInt64(offset) + 1)
      if let own = replica.term(at: index) {
        if own != entry.term {
          return (.leaderCompleteness, "\(member.rawValue) has another entry at \(index.rawValue)")
        }
      } else if index > replica.last.index {
        return (.leaderCompleteness, "\(member.rawValue) lacks \(index.rawValue), term \(term.rawValue)")
      }
    }
    return nil
  }

  // 3.2: log matching, by induction: whoever has an entry has the same one before it.
  mutating func appended(
    _ header: EntryHeader, _ command: Command?, at index: LogIndex, after previous: Term
  ) -> (Failure.Rule, String)? {
    let entry = Created(previous: previous, header: header, command: command)
    let known = self.created.updateValue(entry, forKey: LogPosition(index: index, term: header.term))
    guard let known, known != entry else { return nil }
    return (.logMatching, "index \(index.rawValue), term \(header.term.rawValue): \(known) and \(entry)")
  }

  // 3.2: state machine safety.
  mutating func commits(
    _ term: Term, _ command: Command?, at index: LogIndex, in current: Term
  ) -> (Failure.Rule, String)? {
    let offset = Int(index.rawValue) - 1
    if offset == self.committed.count {
      self.committed.append(Committed(term: term, command: command, committedIn: current))
    } else if offset > self.committed.count {
      return (.stateMachineSafety, "\(index.rawValue) is committed before what precedes it")
    } else if self.committed[offset].term != term || self.committed[offset].command != command {
      return (.stateMachineSafety, "another entry is committed at \(index.rawValue)")
    }
    self.committed[offset].committedIn = min(self.committed[offset].committedIn, current)
    return nil
  }

  /// What stands in the log is in force.
  func hasMembership(_ membership: Membership, at index: LogIndex) -> Bool {
    let offset = Int(clamping: index.rawValue) - 1
    guard offset >= 0, offset < self.committed.count else { return true }
    let position = LogPosition(index: index, term: self.committed[offset].term)
    return self.created[position].map { $0.header.kind == .membership(membership) } ?? true
  }

  func agrees(_ position: LogPosition) -> Bool {
    let offset = Int(clamping: position.index.rawValue) - 1
    return offset < 0 || offset < self.committed.count && self.committed[offset].term == position.term
  }

  mutating func votes(_ member: MemberID, for candidate: MemberID, in term: Term) -> (Failure.Rule, String)? {
    if let other = self.votes[member]?[term], other != candidate {
      return (.voteIsDurable, "\(member.rawValue) votes twice in term \(term.rawValue)")
    }
    self.votes[member, default: [:]][term] = candidate
    return nil
  }

  mutating func clientSaw(_ index: LogIndex) { self.seen = max(self.seen, index) }
}
