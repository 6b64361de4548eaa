// SPDX-License-Identifier: Apache-2.0

package import Raft
package import SectorStore
package import Trust

/// A life of a sector cluster: the first one, or one that began with a recovery after the loss of the majority, which
/// the root principal has allowed by a warrant.
package struct GroupLife: Hashable, Sendable {
  /// Nil in the first life.
  package let warrant: RecoveryWarrant?

  package init(_ warrant: RecoveryWarrant?) { self.warrant = warrant }

  package static let first = GroupLife(nil)

  package var incarnation: GroupIncarnation { GroupIncarnation(self.warrant?.incarnation ?? 1) }

  /// Whether this life came after the other one, which is over then.
  package func supersedes(_ other: GroupLife) -> Bool { self.warrant?.supersedes(other.warrant) ?? false }

  // MARK: In a store

  /// What keeps the warrant. It goes wherever the store goes: into snapshots and backups.
  private static let factKey = "group.incarnation"

  /// The life that a store belongs to.
  ///
  /// - Throws: `damaged` when the warrant is not one that the root principal signed for this generation.
  package init(of store: SectorStore, root: RootCertificate) throws(StoreError) {
    guard let bytes = try store.fact(Self.factKey) else {
      self = .first
      return
    }
    guard let warrant = try? RecoveryWarrant(verifying: bytes, root: root),
      warrant.generation == store.configuration.generation
    else { throw .damaged(.fact(Self.factKey)) }
    self.init(warrant)
  }

  /// The fact that keeps a warrant.
  static func fact(_ warrant: RecoveryWarrant) -> Change.Fact { .init(key: self.factKey, value: warrant.bytes) }
}
