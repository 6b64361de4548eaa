// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import FoundationEssentials
internal import Inodes
internal import Sectors
internal import Trust

/// Where a process of a delegated directory stands in the tree, as it was told when it was certified. None of it ever
/// changes, since nothing above a credential is renamed.
struct NodeHome: Sendable {
  /// The directory that the credential lies in.
  let path: TreePath
  let directory: FileID
  /// From the root's cluster to the one that stores the directory; at least one.
  let above: [FilesystemHome.Cluster]

  var group: GroupHome { GroupHome(directory: self.directory, path: self.path) }

  /// - Returns: nil for a process of the root directory.
  /// - Throws: `inconsistent` when the process was certified by a release that did not say where it stands.
  init?(_ description: NodeDescription, of process: TreePath) throws(NodeError) {
    guard let parent = process.parent, !parent.isRoot else { return nil }
    var above: [FilesystemHome.Cluster] = []
    for served in (description.above ?? [:]).values {
      guard let path = try? TreePath(parsing: served.path), let file = FileID(text: served.file),
        path.isSameOrAncestor(of: parent)
      else { throw .inconsistent("the clusters above are malformed") }
      above.append(.init(generation: Generation(served.generation), path: path, fileID: file))
    }
    above.sort { $0.path.depth < $1.path.depth }
    guard let directory = description.directory.flatMap({ FileID(text: $0) }), above.first?.path == .root,
      above.last?.generation == directory.generation
    else { throw .inconsistent("it is not known where \(parent) is stored: certify the process anew") }
    self.path = parent
    self.directory = directory
    self.above = above
  }

  /// What the filesystem service begins with; nil when this process was not given the directory's key.
  func filesystem(
    _ description: NodeDescription, _ identity: NodeDirectory.Identity
  ) -> FilesystemHome? {
    guard let sealed = description.readcaps?["\(self.directory)"] else { return nil }
    let context = ReadcapContext(
      domain: identity.root.domain, generation: self.directory.generation.rawValue,
      inode: self.directory.inode.rawValue, epoch: sealed.epoch, recipient: identity.credential.path)
    return FilesystemHome(
      path: self.path, fileID: self.directory, sealedKey: Array(sealed.sealedKey), context,
      agreementKey: identity.keys.agreement, above: self.above)
  }
}
