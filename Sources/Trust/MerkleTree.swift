// SPDX-License-Identifier: Apache-2.0

internal import Crypto

/// The Merkle tree of RFC 6962, 2.1, with SHA-256, over digests as leaves.
///
/// It is built level by level: neighbours are joined, and an odd one at the end moves up unchanged. That gives the tree
/// of the RFC, which splits at the largest power of two.
struct MerkleTree {
  // The leaf hashes first, the root alone last.
  private let levels: [[Digest32]]

  /// Of at least one leaf.
  init(_ leaves: some Collection<Digest32>) {
    assert(!leaves.isEmpty)
    var level = leaves.map(Self.leafHash)
    var levels = [level]
    while level.count > 1 {
      var above: [Digest32] = []
      above.reserveCapacity((level.count + 1) / 2)
      for index in stride(from: 0, to: level.count, by: 2) {
        above.append(index + 1 < level.count ? Self.nodeHash(level[index], level[index + 1]) : level[index])
      }
      levels.append(above)
      level = above
    }
    self.levels = levels
  }

  var root: Digest32 { self.levels[self.levels.count - 1][0] }

  /// The sibling hashes from the leaf up.
  func auditPath(to leaf: Int) -> [Digest32] {
    var path: [Digest32] = []
    var index = leaf
    for level in self.levels.dropLast() {
      let sibling = index ^ 1
      if sibling < level.count { path.append(level[sibling]) }
      index >>= 1
    }
    return path
  }

  /// How many hashes the audit path of a leaf has in a tree of `size` leaves.
  static func auditPathCount(leaf: Int, size: Int) -> Int {
    var (index, width, count) = (leaf, size, 0)
    while width > 1 {
      if index ^ 1 < width { count += 1 }
      index >>= 1
      width = (width + 1) >> 1
    }
    return count
  }

  /// The root that an audit path leads to; nil when it has another length than the position asks for.
  static func root(leaf: Digest32, at leafIndex: Int, size: Int, path: [Digest32]) -> Digest32? {
    guard leafIndex >= 0, leafIndex < size else { return nil }
    var (index, width, hash) = (leafIndex, size, self.leafHash(leaf))
    var rest = path[...]
    while width > 1 {
      if index ^ 1 < width {
        guard let sibling = rest.popFirst() else { return nil }
        hash = index & 1 == 0 ? self.nodeHash(hash, sibling) : self.nodeHash(sibling, hash)
      }
      index >>= 1
      width = (width + 1) >> 1
    }
    return rest.isEmpty ? hash : nil
  }

  // Leaves and nodes are hashed apart, so that no node can be passed off as a leaf.
  static func leafHash(_ leaf: Digest32) -> Digest32 {
    var hasher = SHA256()
    hasher.update(data: [0 as UInt8])
    hasher.update(leaf)
    return Digest32(hasher.finalize())
  }

  static func nodeHash(_ left: Digest32, _ right: Digest32) -> Digest32 {
    var hasher = SHA256()
    hasher.update(data: [1 as UInt8])
    hasher.update(left)
    hasher.update(right)
    return Digest32(hasher.finalize())
  }
}
