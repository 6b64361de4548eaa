// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import SectorStore

/// Inodes as commits that are not durable yet leave them. Later commits are judged against these, so that they can
/// follow without waiting for the disk.
///
/// The store decides in the order of the log: a commit that was built on one that fails fails as well, since its
/// conditions name the very record that this one was to make. So what is known of an inode's commits at the moment when one of them has failed is of no use
/// any more.
struct InFlight: Sendable {
  /// What one commit makes of one inode.
  struct Entry: Sendable {
    /// Grows in the order of the log.
    let commit: UInt64
    /// Nil when the commit removes the inode.
    let record: InodeRecord?
    /// Tree nodes that the commit changes.
    let nodes: [NodeKey: [UInt8]]
    /// Of the record's bytes; nil without a record, and while the commit is only about to enter the log.
    let digest: Digest?
    /// Nil while the commit is only about to enter the log.
    let pending: PendingChange?
  }

  /// By inode, in the order of the log.
  private var entries: [InodeNumber: [Entry]] = [:]

  var isEmpty: Bool { self.entries.isEmpty }

  subscript(inode: InodeNumber) -> [Entry] { self.entries[inode] ?? [] }

  mutating func add(_ entry: Entry, to inode: InodeNumber) { self.entries[inode, default: []].append(entry) }

  /// The commit is durable, and so are those before it.
  mutating func succeed(_ commit: UInt64, _ inodes: [InodeNumber]) {
    for inode in inodes { self.keep(inode) { $0.commit > commit } }
  }

  /// The commit has failed, and so will those that were built on it. Later ones, which may succeed, were entered when it
  /// was not here any more.
  mutating func fail(_ commit: UInt64, _ inodes: [InodeNumber]) {
    for inode in inodes where self[inode].contains(where: { $0.commit == commit }) {
      self.keep(inode) { $0.commit < commit }
    }
  }

  private mutating func keep(_ inode: InodeNumber, where isKept: (Entry) -> Bool) {
    guard var list = self.entries.removeValue(forKey: inode) else { return }
    list.removeAll { !isKept($0) }
    if !list.isEmpty { self.entries[inode] = list }
  }
}
