// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Raft
private import Synchronization
internal import Transport
package import Trust

/// Keeps the lives of a cluster apart: members of different lives refuse each other, and whoever belongs to the earlier
/// one hears of the later one with the warrant that began it.
///
/// A claim to a later life is believed only with a warrant that the root principal signed for this very generation. With
/// it, the life here is over: that is told once, and nothing that other members say is heard any more.
package final class LifeGuard: Sendable {
  private struct State {
    var life: GroupLife
    var isOver = false
  }

  package let generation: UInt64
  private let root: RootCertificate
  private let hasStore: Bool
  private let heard: @Sendable (RecoveryWarrant) -> Void
  private let state: Mutex<State>

  /// - Parameters:
  ///   - life: the one that this process belongs to, or, without a store, the latest that it knows of.
  ///   - hasStore: whether this process is a member. One that is none yet has nothing to give up: it belongs to whichever
  ///     life is the latest.
  ///   - heard: told of a later life: once by a member, each time by a process without a store. Called from event loops;
  ///     must not block.
  package init(
    generation: UInt64, life: GroupLife, root: RootCertificate, hasStore: Bool = true,
    heard: @escaping @Sendable (RecoveryWarrant) -> Void
  ) {
    self.generation = generation
    self.root = root
    self.hasStore = hasStore
    self.heard = heard
    self.state = Mutex(State(life: life))
  }

  /// The life that this process belongs to.
  package var life: GroupLife { self.state.withLock { $0.life } }

  /// Judges what another process says of the life that it belongs to. Returns when both belong to the same.
  ///
  /// - Parameter incarnation: 0 counts as 1.
  /// - Throws: `staleIncarnation` when the other one's is over; `notServing` when the one here is; `invalid` for a claim
  ///   that nobody has allowed.
  package func check(incarnation: UInt64, warrant: [UInt8]) throws(MemberError) {
    let (life, isOver) = self.state.withLock { ($0.life, $0.isOver) }
    guard !isOver else { throw .notServing }
    let claimed: GroupLife
    if warrant.isEmpty {
      guard incarnation <= 1 else { throw .invalid(field: "warrant") }
      claimed = .first
    } else if let known = life.warrant, known.bytes == warrant {
      // Most of the time, and without verifying a signature.
      claimed = life
    } else {
      claimed = GroupLife(try self.verify(warrant))
    }
    guard claimed.incarnation.rawValue == max(incarnation, 1) else { throw .invalid(field: "incarnation") }
    if claimed.supersedes(life), let warrant = claimed.warrant { return try self.give(way: warrant) }
    if life.supersedes(claimed) { throw .staleIncarnation(life) }
  }

  private func verify(_ bytes: [UInt8]) throws(MemberError) -> RecoveryWarrant {
    guard let warrant = try? RecoveryWarrant(verifying: bytes, root: self.root),
      warrant.generation == self.generation
    else { throw .invalid(field: "warrant") }
    return warrant
  }

  /// There is a later life.
  private func give(way warrant: RecoveryWarrant) throws(MemberError) {
    let isNews = self.state.withLock { state in
      guard !state.isOver, GroupLife(warrant).supersedes(state.life) else { return false }
      if self.hasStore { state.isOver = true } else { state.life = GroupLife(warrant) }
      return true
    }
    if isNews { self.heard(warrant) }
    if self.hasStore { throw .notServing }
  }

  /// Takes note of why another process refused this one.
  package func note(_ refusal: any Error) {
    let details = StatusDetails(describing: refusal)
    guard details.reason == MemberError.staleIncarnationReason, let text = details.metadata["warrant"],
      let bytes = Data(base64Encoded: text), let warrant = try? self.verify(Array(bytes))
    else { return }
    try? self.give(way: warrant)
  }
}
