// SPDX-License-Identifier: Apache-2.0

public import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// What is to be known before one member of a cluster is made the only one, after the majority was lost.
public struct RecoverySurvey: Sendable {
  /// What the process says of itself that would go on.
  public let survivor: Blocktree_V1_ClusterServiceGetStatusResponse
  /// All members as it knows them, itself included, and what each says; at most 64.
  public let members: [ClusterOverview.Member]
  /// The highest incarnation that anybody here has heard of.
  public let incarnation: UInt64

  package init(
    survivor: Blocktree_V1_ClusterServiceGetStatusResponse, members: [ClusterOverview.Member], known: UInt64
  ) {
    self.survivor = survivor
    self.members = members
    let said = members.compactMap { try? $0.own.get().incarnation }
    self.incarnation = max(survivor.incarnation, known, said.max() ?? 0, 1)
  }

  /// What speaks against it.
  public enum Objection: Hashable, Sendable {
    /// This process knows who leads: the cluster works, or part of it does.
    case leaderKnown(by: String, leader: String)
    /// So many of the voters answer, a majority: they can go on by themselves, once they reach each other.
    case majorityAnswers(Int, of: Int)
    /// This process has entries that the survivor lacks, and that would be lost: it is the one to go on.
    case longerLog(String)
    /// This process belongs to a later life of the cluster than the survivor.
    case laterLife(String, incarnation: UInt64)
  }

  public var objections: [Objection] {
    var objections: [Objection] = []
    let answers = self.members.compactMap { member in (try? member.own.get()).map { (member, $0) } }
    for (_, own) in answers where own.hasLeader {
      objections.append(.leaderKnown(by: own.process, leader: own.leader.process))
    }
    let voters = self.members.filter { $0.member.vote != .learner }
    let living = answers.count { $0.0.member.vote != .learner && $0.1.incarnation == self.survivor.incarnation }
    if living > voters.count / 2 { objections.append(.majorityAnswers(living, of: voters.count)) }
    for (_, own) in answers where own.member != self.survivor.member {
      if own.incarnation > self.survivor.incarnation {
        objections.append(.laterLife(own.process, incarnation: own.incarnation))
      } else if own.incarnation == self.survivor.incarnation, Self.hasMore(own, than: self.survivor) {
        objections.append(.longerLog(own.process))
      }
    }
    return objections
  }

  /// The process whose log has most, of those that answer in the latest life: the survivor, if none has more.
  public var best: String {
    // The first of those that are alike.
    let answers = [self.survivor] + self.members.compactMap { try? $0.own.get() }
    let best = answers.max { left, right in
      left.incarnation != right.incarnation
        ? left.incarnation < right.incarnation : Self.hasMore(right, than: left)
    }
    return best?.process ?? self.survivor.process
  }

  // Raft, 3.6.1: the later term in the last entry has more, and with the same term the longer log.
  private static func hasMore(
    _ left: Blocktree_V1_ClusterServiceGetStatusResponse, than right: Blocktree_V1_ClusterServiceGetStatusResponse
  ) -> Bool {
    (left.lastLogTerm, left.lastLogIndex) > (right.lastLogTerm, right.lastLogIndex)
  }
}

extension ClusterClient {
  /// Asks the process that is reached first, which would be the one to go on, and all members that it knows.
  public func recoverySurvey() async throws -> RecoverySurvey {
    let survivor = try await self.status()
    let answers = await self.ask(survivor.members, knowing: survivor)
    let unreachable = BlocktreeError(code: .unavailable, reason: .peerUnreachable, message: "It was not asked.")
    return RecoverySurvey(
      survivor: survivor,
      members: survivor.members.map { .init($0, own: answers[$0.member] ?? .failure(unreachable)) },
      known: self.core.lives.incarnation(of: survivor.generation))
  }

  /// Makes the survivor of a survey the only member of its cluster's next life, and returns when it leads that.
  ///
  /// Nothing is asked of the other members, and no objection is raised: see ``RecoverySurvey/objections``. What the
  /// survivor has in its log stays, whether or not it was acknowledged. Members of the life that ends give up their
  /// stores as soon as they hear of it, and join again.
  ///
  /// - Parameter rootKey: the root principal's key file. It does not leave this machine.
  /// - Throws: with the reason ``BlocktreeError/Reason/recoveryRefused`` when the survivor does not agree; metadata:
  ///   `cause`, which is `LEADER_KNOWN`, `WRONG_MEMBER` or `NOT_NEWER`.
  public func recover(
    _ survey: RecoverySurvey, rootKey path: String
  ) async throws -> Blocktree_V1_ClusterServiceGetStatusResponse {
    let warrant = try self.warrant(survey, rootKey: path)
    let request = Blocktree_V1_RecoverRequest.with { $0.warrant = Data(warrant.bytes) }
    _ = try await self.cluster.call(timeout: self.timeout) { connection, options in
      try await connection.cluster.recover(request, options: options)
    }
    let deadline = self.timeout.map { ContinuousClock.now + $0 }
    while true {
      do {
        let status = try await self.status()
        if status.member == survey.survivor.member, status.incarnation == warrant.incarnation, status.role == .leader {
          return status
        }
      } catch let error as BlocktreeError where error.isTransient {
        // It begins again.
      }
      if let deadline, ContinuousClock.now >= deadline { throw BlocktreeError.deadlineExceeded }
      try await Task.sleep(for: .milliseconds(50))
    }
  }

  private func warrant(
    _ survey: RecoverySurvey, rootKey path: String
  ) throws(BlocktreeError) -> RecoveryWarrant {
    let keys: PrincipalKeys
    do { keys = try KeyFile.load(from: path) } catch {
      throw BlocktreeError(
        code: .failedPrecondition, reason: .profile, message: "\(ProfileError(path, keyFile: error))")
    }
    guard let process = try? TreePath(parsing: survey.survivor.process) else { throw .malformedAnswer("process") }
    do {
      return try RecoveryWarrant(
        signedBy: keys.signing, root: self.core.profile.root, generation: survey.survivor.generation,
        incarnation: survey.incarnation + 1, process: process, member: survey.survivor.member,
        issuedAtMilliseconds: UInt64(clamping: Timestamp.now.nanoseconds / 1_000_000))
    } catch {
      throw BlocktreeError(error, "\(path) can not be used")
    }
  }
}

extension BlocktreeError.Reason {
  /// A cluster was not recovered. Metadata: `cause`.
  public static let recoveryRefused = BlocktreeError.Reason(rawValue: "RECOVERY_REFUSED")
  /// The credential is that of the only process that stores the domain.
  public static let lastProcess = BlocktreeError.Reason(rawValue: "LAST_PROCESS")
  /// Without the process, no majority of the cluster would be there. Metadata: `process`.
  public static let processNeeded = BlocktreeError.Reason(rawValue: "PROCESS_NEEDED")
}
