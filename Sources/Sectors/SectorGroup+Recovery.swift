// SPDX-License-Identifier: Apache-2.0

package import GRPCProtobuf
internal import GRPCCore
internal import Inodes
internal import Raft
internal import Replication
internal import SectorStore
internal import Transport
package import Trust

/// Why a cluster was not recovered. Nothing was changed.
package enum RecoveryError: Error, Hashable, Sendable {
  /// The warrant is malformed.
  case malformed
  /// The root principal of this domain did not sign it.
  case badSignature
  /// It is for another generation than the one here.
  case wrongGeneration(UInt64)
  case refused(Cause)

  package enum Cause: String, Hashable, Sendable {
    /// Somebody leads: nothing is lost.
    case leaderKnown = "LEADER_KNOWN"
    /// It names another process, or another store of this one.
    case wrongMember = "WRONG_MEMBER"
    /// Its incarnation is not higher than the present one.
    case notNewer = "NOT_NEWER"
  }
}

extension RecoveryError: StatusConvertible {
  package var status: GoogleRPCStatus {
    switch self {
    case .malformed:
      .init(.invalidArgument, "The warrant is malformed.", reason: "INVALID_REQUEST", ["field": "warrant"])
    case .badSignature:
      .init(
        .unauthenticated, "The root principal of this domain did not sign the warrant.", reason: "BAD_SIGNATURE",
        ["field": "warrant"])
    case .wrongGeneration(let generation):
      .init(
        .failedPrecondition, "This cluster serves another generation.", reason: "WRONG_GENERATION",
        ["generation": "\(generation)"])
    case .refused(let cause):
      .init(
        .failedPrecondition, "The cluster was not recovered.", reason: "RECOVERY_REFUSED", ["cause": cause.rawValue])
    }
  }
}

extension SectorGroup {
  /// Judges a warrant that would make this member the only one.
  ///
  /// - Returns: the warrant when it is good for this member, now; nil when the life that it begins is the present one.
  package func acceptRecovery(_ bytes: [UInt8]) throws(RecoveryError) -> RecoveryWarrant? {
    let warrant: RecoveryWarrant
    do { warrant = try RecoveryWarrant(verifying: bytes, root: self.verifier.root) } catch {
      throw error == .badSignature || error == .foreignDomain ? .badSignature : .malformed
    }
    guard warrant.generation == self.generation.rawValue else { throw .wrongGeneration(self.generation.rawValue) }
    guard warrant.process == self.memberPath, warrant.member == self.replica.member.rawValue else {
      throw .refused(.wrongMember)
    }
    if warrant == self.life.warrant { return nil }
    guard warrant.incarnation > self.life.incarnation.rawValue else { throw .refused(.notNewer) }
    guard self.replica.leader == nil else { throw .refused(.leaderKnown) }
    return warrant
  }
}
