// SPDX-License-Identifier: Apache-2.0

/// Who belongs to the group, and who of them decides. Arrays are sorted and without repetitions.
///
/// While it is *joint* (dissertation, 4.3), two majorities have to agree to everything: one of `voters`, the coming
/// set, and one of `outgoing`, the former set.
public struct Membership: Hashable, Sendable {
  /// Whose majority decides; while joint, the set that comes.
  public let voters: [MemberID]
  /// The set that goes; empty unless joint.
  public let outgoing: [MemberID]
  /// Who gets the log, and counts for nothing. While joint, also those that will be learners but vote until then.
  public let learners: [MemberID]

  public static let countMax = 64

  /// Nil unless there is a voter, nobody is both voter and learner, and there are at most ``countMax`` members.
  public init?(voters: [MemberID], learners: [MemberID] = []) {
    self.init(voters: voters, outgoing: [], learners: learners)
  }

  /// The same, for one that may be joint: for drivers that read it back from a disk or a message.
  public init?(voters: [MemberID], outgoing: [MemberID], learners: [MemberID]) {
    self.voters = Self.sorted(voters)
    self.outgoing = Self.sorted(outgoing)
    self.learners = Self.sorted(learners)
    guard !self.voters.isEmpty, !self.learners.contains(where: self.voters.contains),
      voters.count + outgoing.count + learners.count <= 3 * Self.countMax, self.members.count <= Self.countMax
    else { return nil }
  }

  private static func sorted(_ members: [MemberID]) -> [MemberID] {
    let sorted = members.sorted()
    return sorted.indices.filter { $0 == 0 || sorted[$0 - 1] != sorted[$0] }.map { sorted[$0] }
  }

  public var isJoint: Bool { !self.outgoing.isEmpty }

  /// Everybody, sorted.
  public var members: [MemberID] { Self.sorted(self.voters + self.outgoing + self.learners) }

  public func contains(_ member: MemberID) -> Bool {
    self.isVoter(member) || self.learners.contains(member)
  }

  /// True for the voters of either set.
  public func isVoter(_ member: MemberID) -> Bool {
    self.voters.contains(member) || self.outgoing.contains(member)
  }

  /// How to get from here to `target`: at once if the voters stay the same, else through a joint membership.
  func step(to target: Membership) -> Membership? {
    if self.voters == target.voters { return target }
    return Membership(voters: target.voters, outgoing: self.voters, learners: target.learners)
  }

  /// What follows a joint membership.
  var left: Membership? { Membership(voters: self.voters, outgoing: [], learners: self.learners) }
}

// MARK: - Quorums

extension Membership {
  /// The greatest value that a majority has reached; while joint, both majorities.
  package func quorumValue<Value: Comparable>(_ value: (MemberID) -> Value) -> Value? {
    guard let coming = Self.majorityValue(of: self.voters, value) else { return nil }
    guard self.isJoint else { return coming }
    guard let going = Self.majorityValue(of: self.outgoing, value) else { return nil }
    return min(coming, going)
  }

  /// True if a majority, while joint both majorities, are such.
  package func hasQuorum(_ isSuch: (MemberID) -> Bool) -> Bool {
    Self.hasMajority(of: self.voters, isSuch) && (!self.isJoint || Self.hasMajority(of: self.outgoing, isSuch))
  }

  // Quadratic, which beats sorting for as many members as a group has, and allocates nothing.
  private static func majorityValue<Value: Comparable>(of voters: [MemberID], _ value: (MemberID) -> Value) -> Value? {
    var best: Value?
    for voter in voters {
      let candidate = value(voter)
      if let best, candidate <= best { continue }
      if Self.hasMajority(of: voters, { value($0) >= candidate }) { best = candidate }
    }
    return best
  }

  private static func hasMajority(of voters: [MemberID], _ isSuch: (MemberID) -> Bool) -> Bool {
    var count = 0
    for voter in voters where isSuch(voter) { count += 1 }
    return count > voters.count / 2
  }
}
