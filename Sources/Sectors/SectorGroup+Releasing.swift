// SPDX-License-Identifier: Apache-2.0

package import Raft
internal import Replication
internal import SectorStore
internal import Synchronization
package import Trust

extension SectorGroup {
  /// Lets a member leave its store behind, which is damaged: nothing that was acknowledged is lost with it. This member
  /// has to lead. See ``ReleaseRule``.
  ///
  /// On return every other voter has everything that was committed before, and any later leader knows of the release.
  ///
  /// - Parameters:
  ///   - path: the process that asks.
  ///   - member: the store that it has; nil where it can not tell.
  /// - Throws: `ReleaseError`; `SectorError`, `notLeader` above all.
  package func release(_ path: TreePath, member: MemberID?) async throws {
    try await self.lead()
    // A store that is no member's is nobody's concern.
    guard let known = self.member(at: path), member == nil || member == known else { return }
    guard
      self.isReleasing.withLock({ flag in
        defer { flag = true }
        return !flag
      })
    else { throw ReleaseError.refused(.underWay) }
    defer { self.isReleasing.withLock { $0 = false } }
    let time = self.now() / 1_000_000_000
    let status = self.replica.status
    if let cause = ReleaseRule.refusal(
      of: known, status, last: self.lastReleased, at: MonotonicClock.now, time: time)
    {
      throw ReleaseError.refused(cause)
    }
    guard status.membership.voters.contains(known) else { return }
    let index = try await self.set(Change.Fact(key: Self.releaseFact, value: ReleasedMember(known, at: time).bytes))
    let others = Set(status.membership.voters).subtracting([known])
    let end = ContinuousClock.now + Self.releasePatience
    while !others.isSubset(of: self.replica.holders(of: index)) {
      guard ContinuousClock.now < end, self.replica.leader == self.replica.member, !Task.isCancelled else {
        // Nobody was released; the next one need not wait.
        _ = try? await self.set(Change.Fact(key: Self.releaseFact, value: []))
        throw ReleaseError.refused(.lagging)
      }
      try? await Task.sleep(for: .milliseconds(20))
    }
  }

  /// Who was released last, as far as this member has applied.
  package var lastReleased: ReleasedMember? {
    (try? self.store.fact(Self.releaseFact)).flatMap { $0 }.flatMap { ReleasedMember(bytes: $0) }
  }

  private static let releaseFact = "released-member"
  /// For the other voters to get what they lack: not much, by the rule.
  private static let releasePatience = Duration.seconds(3)

  /// Durable on a majority when it returns.
  func set(_ fact: Change.Fact) async throws(SectorError) -> StoreLogIndex {
    var change = Change()
    change.facts = [fact]
    do throws(StoreError) {
      let pending = try self.replica.propose(change)
      self.replica.flush()
      return try await pending.durable()
    } catch {
      throw self.error(error)
    }
  }
}
