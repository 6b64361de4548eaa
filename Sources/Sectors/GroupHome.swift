// SPDX-License-Identifier: Apache-2.0

package import Inodes
package import SectorStore
package import Trust

/// The directory that a sector cluster serves: its members' credentials lie in it, and everything of its generation
/// descends from it.
///
/// The root directory is of generation 1 itself. Every other home is stored by the cluster above, and known here by
/// what never changes of it, as nothing above a credential is renamed.
package struct GroupHome: Hashable, Sendable {
  package let directory: FileID
  package let path: TreePath

  package init(directory: FileID, path: TreePath) {
    self.directory = directory
    self.path = path
  }

  /// Of generation 1.
  package static let root = GroupHome(directory: .rootDirectory, path: .root)

  // MARK: In a store

  /// What keeps the home of a generation other than 1: the directory's generation and inode (8 bytes each, big-endian)
  /// and its path.
  static let factKey = "group.home"

  /// The home of the group that a store belongs to; nil when nothing was written into the store yet.
  ///
  /// - Throws: `damaged`.
  package init?(of store: SectorStore) throws(StoreError) {
    if store.configuration.generation == Generation.root.rawValue {
      self = .root
      return
    }
    guard let bytes = try store.fact(Self.factKey) else { return nil }
    guard let directory = FileID(factBytes: bytes.prefix(16)),
      let path = try? TreePath(parsing: Array(bytes.dropFirst(16)))
    else { throw .damaged(.fact(Self.factKey)) }
    self.init(directory: directory, path: path)
  }

  /// The fact that keeps it.
  var fact: Change.Fact { .init(key: Self.factKey, value: self.directory.factBytes + self.path.bytes) }
}

/// What the first member of a new cluster of a delegated directory begins with.
package struct GroupBootstrap: Sendable {
  package var home: GroupHome
  /// The credential files that lie directly in the home, as ``SectorGroup/setMemberCredentials(_:)`` takes them. The
  /// first member's own is among them.
  package var members: [CredentialEntry]

  package init(home: GroupHome, members: [CredentialEntry]) {
    self.home = home
    self.members = members
  }
}

extension FileID {
  /// As facts keep it: 16 bytes.
  var factBytes: [UInt8] {
    withUnsafeBytes(of: self.generation.rawValue.bigEndian, Array.init)
      + withUnsafeBytes(of: self.inode.rawValue.bigEndian, Array.init)
  }

  /// Nil unless there are 16 bytes.
  init?(factBytes bytes: some Collection<UInt8>) {
    guard bytes.count == 16 else { return nil }
    self.init(
      generation: Generation(bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) }),
      inode: InodeNumber(bytes.dropFirst(8).reduce(0) { $0 << 8 | UInt64($1) }))
  }
}
