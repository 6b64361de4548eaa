// SPDX-License-Identifier: Apache-2.0

package import GRPCProtobuf
internal import GRPCCore
package import Raft
internal import Transport

/// Why a member may not leave its store behind at present. It keeps it.
package enum ReleaseError: Error, Hashable, Sendable {
  case refused(Cause)

  package enum Cause: String, Hashable, Sendable {
    /// It leads; another member has to take over first.
    case leads = "LEADS"
    /// Another member was released, and is not replaced yet.
    case underWay = "UNDER_WAY"
    /// The membership changes.
    case changing = "CHANGING"
    /// Without it, no majority would be left.
    case needed = "NEEDED"
    /// Another voter is not heard, or has not all that there is.
    case lagging = "LAGGING"
  }
}

extension ReleaseError: StatusConvertible {
  package var status: GoogleRPCStatus {
    switch self {
    case .refused(let cause):
      .init(
        .failedPrecondition, "The cluster can not do without this member now.", reason: "RELEASE_REFUSED",
        ["cause": cause.rawValue])
    }
  }
}

/// A member that was released, and when. One at a time: two that left their stores behind at once could be a majority.
package struct ReleasedMember: Hashable, Sendable {
  package var member: MemberID
  /// Seconds since 1970, by the clock of the leader that released it.
  package var time: Int64

  package init(_ member: MemberID, at time: Int64) {
    self.member = member
    self.time = time
  }

  /// Nil for anything else than what ``bytes`` made.
  package init?(bytes: [UInt8]) {
    guard bytes.count == 16 else { return nil }
    func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
    self.init(MemberID(number(bytes[..<8])), at: Int64(bitPattern: number(bytes[8...])))
  }

  package var bytes: [UInt8] {
    withUnsafeBytes(of: self.member.rawValue.bigEndian, Array.init)
      + withUnsafeBytes(of: self.time.bigEndian, Array.init)
  }
}

/// When a cluster can do without a member that is damaged. Decides, and performs nothing.
package enum ReleaseRule {
  /// Others may lack so many entries when the question comes: they will have them before it is answered.
  static let lagMax: UInt64 = 128
  /// Nanoseconds. Whoever was not heard for longer is not there.
  static let silenceMax: UInt64 = 5_000_000_000
  /// Seconds. A release that came to nothing stands in the way of another for so long.
  static let releaseTime: Int64 = 600
  /// Seconds. Between two releases, even when the first member is gone already.
  static let pause: Int64 = 30

  /// Why not; nil if the member may go.
  ///
  /// - Parameters:
  ///   - status: of the leader.
  ///   - last: who was released last.
  ///   - now: by the monotonic clock.
  ///   - time: seconds since 1970.
  package static func refusal(
    of member: MemberID, _ status: ReplicaStatus, last: ReleasedMember?, at now: Raft.Instant, time: Int64
  ) -> ReleaseError.Cause? {
    if member == status.member { return .leads }
    let membership = status.membership
    // It decides nothing, and nobody relies on what it has.
    guard membership.voters.contains(member) || membership.outgoing.contains(member) else { return nil }
    if status.membershipIsPending { return .changing }
    if let last, last.member != member {
      let age = abs(time - last.time)
      if age < self.pause || age < self.releaseTime && membership.contains(last.member) { return .underWay }
    }
    let others = membership.voters.filter { $0 != member }
    // They have to agree that it goes, as a majority of those that there are before.
    guard others.count >= membership.voters.count / 2 + 1 else { return .needed }
    return others.allSatisfy { self.isThere($0, status, at: now) } ? nil : .lagging
  }

  private static func isThere(_ member: MemberID, _ status: ReplicaStatus, at now: Raft.Instant) -> Bool {
    if member == status.member { return status.isWritable }
    guard let other = status.members.first(where: { $0.member == member }) else { return false }
    return other.replication == .replicating && other.isWritable
      && other.lastHeard.nanoseconds + self.silenceMax >= now.nanoseconds
      && other.match.rawValue + self.lagMax >= status.last.index.rawValue
  }
}
