// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Raft
internal import Replication
package import SectorStore
package import Trust

extension SectorGroup {
  /// Whether a principal stands in the tree that a store holds, with this very key and as a process that hosts the
  /// sector service. Blocks. Records that can not be parsed confirm nobody.
  package static func hosts(_ store: SectorStore, _ credential: Credential) throws(StoreError) -> Bool {
    let index = CredentialIndex(home: try GroupHome(of: store)?.directory ?? .rootDirectory)
    try self.noteCopies(of: store, in: index)
    for inode in try store.inodes(flag: .credential) {
      guard let stored = try store.record(inode), let record = try? InodeRecord(serialized: stored.bytes) else {
        continue
      }
      index.note(record, at: .zero)
    }
    return index.directory(of: credential, hosting: .sector) != nil
  }

  /// Makes a store the only member of its group, which nobody else belongs to any more, and says which process that is
  /// and by what it was allowed. All of that is one entry of the log, and moved to the index when this returns; after a
  /// crash, the log alone does not tell that it holds. So whoever calls this does it again at the next start, which does
  /// no harm.
  ///
  /// - Parameters:
  ///   - store: open by itself, with its log applied. No group may use it yet.
  ///   - warrant: begins the group's next life; nil stays in the one that the store belongs to.
  ///   - term: higher than any that the members had which are left behind, or their entries and those that follow could
  ///     not be told apart.
  package static func refound(
    _ store: SectorStore, as process: TreePath, term: UInt64, warrant: RecoveryWarrant?
  ) async throws(StoreError) {
    guard let id = store.configuration.memberID, let membership = Membership(voters: [MemberID(id)]) else {
      throw .damaged(.header)
    }
    var change = Change(term: term)
    change.facts = [SectorStore.membershipFact(membership.bytes), self.memberFact(MemberID(id), path: process)]
    if let warrant { change.facts.append(GroupLife.fact(warrant)) }
    _ = try await store.commit(change)
    try await store.checkpoint()
  }
}
