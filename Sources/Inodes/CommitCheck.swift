// SPDX-License-Identifier: Apache-2.0

package import Trust

/// Checks that the sectors and tree nodes of a commit are exactly what leads from the stored tree to the signed one:
/// each changed leaf has its sector, each changed node stands in its parent, and nothing is sent that nothing refers
/// to. Whoever stores sectors can so vouch for them without being able to read them.
///
/// The work is bounded by what was sent: a stored node is read only where a sent one takes its place.
package struct CommitCheck {
  private let old: ContentPart?
  private let new: ContentPart
  private let storedNode: (NodeKey) throws -> [UInt8]?
  private var nodes: [NodeKey: [UInt8]]
  private var sectors: [UInt64: Digest32]
  private var oldNodes: [NodeKey: [UInt8]?] = [:]

  /// Checks one inode's blocks.
  ///
  /// - Parameters:
  ///   - old: the stored content part, nil for a new inode.
  ///   - new: the content part of the commit.
  ///   - sectors: the digests of the sealed sectors sent.
  ///   - nodes: the tree nodes sent.
  ///   - storedNode: reads a node of the stored tree.
  /// - Throws: `IntegrityError`, or what `storedNode` throws.
  package static func check(
    from old: ContentPart?, to new: ContentPart, sectors: [UInt64: Digest32], nodes: [NodeKey: [UInt8]],
    storedNode: (NodeKey) throws -> [UInt8]?
  ) throws {
    try withoutActuallyEscaping(storedNode) { storedNode in
      var check = CommitCheck(old: old, new: new, storedNode: storedNode, nodes: nodes, sectors: sectors)
      try check.run()
    }
  }

  /// The stored nodes that a check may ask for: those that sent ones take the place of, and all above them.
  package static func storedNodesNeeded(
    from old: ContentPart, to new: ContentPart, nodes: some Sequence<NodeKey>
  ) -> [NodeKey] {
    var seeds = Array(nodes)
    if new.treeLevels > 0 {
      seeds.append(NodeKey(level: new.treeLevels, index: 0))
    } else if new.sectorCount > 0 {
      seeds.append(NodeKey(level: 1, index: 0))
    }
    var needed: Set<NodeKey> = []
    for seed in seeds {
      var key = seed
      while key.level <= old.treeLevels {
        if key.index < TreeShape.nodeCount(level: key.level, sectorCount: old.sectorCount),
          !needed.insert(key).inserted
        {
          break
        }
        key = key.parent.key
      }
    }
    return needed.sorted()
  }

  private init(
    old: ContentPart?, new: ContentPart, storedNode: @escaping (NodeKey) throws -> [UInt8]?,
    nodes: [NodeKey: [UInt8]], sectors: [UInt64: Digest32]
  ) {
    self.old = old
    self.new = new
    self.storedNode = storedNode
    self.nodes = nodes
    self.sectors = sectors
  }

  private mutating func run() throws {
    if self.new.treeLevels == 0 {
      for (index, leaf) in self.new.leaves.enumerated() { try self.accept(leaf, at: UInt64(index)) }
    } else {
      let top = NodeKey(level: self.new.treeLevels, index: 0)
      try self.accept(self.new.integrityRoot, of: top)
    }
    if let key = self.nodes.keys.min() { throw IntegrityError.unreferenced(level: key.level, index: key.index) }
    if let sector = self.sectors.keys.min() { throw IntegrityError.unreferenced(level: 0, index: sector) }
  }

  /// A node of the new tree with this digest: it was sent, or is stored unchanged, or stands for holes.
  private mutating func accept(_ digest: Digest32, of key: NodeKey) throws {
    guard let bytes = self.nodes.removeValue(forKey: key) else {
      if digest.isZero { return }
      if digest == (try self.oldDigest(of: key)) { return }
      throw IntegrityError.nodeMissing(level: key.level, index: key.index)
    }
    guard bytes.count == TreeShape.nodeByteCount, Digest32(sha256: bytes) == digest else {
      throw IntegrityError.nodeMismatch(level: key.level, index: key.index)
    }
    let fanOut = TreeShape.fanOut(level: key.level)
    let entryByteCount = key.level == 1 ? Leaf.byteCount : 32
    let childCount =
      key.level == 1
      ? self.new.sectorCount : TreeShape.nodeCount(level: key.level - 1, sectorCount: self.new.sectorCount)
    let old = try self.oldNode(key)
    for slot in 0..<Int(fanOut) {
      let range = slot * entryByteCount..<(slot + 1) * entryByteCount
      let child = key.index * fanOut + UInt64(slot)
      if child >= childCount {
        guard bytes[range].allSatisfy({ $0 == 0 }) else { throw IntegrityError.shapeMismatch }
        continue
      }
      // An entry that is as it was needs no more: its sector or node is stored already. But one that was sent all
      // the same has to be looked at, or it would be refused as unreferenced.
      let isUnchanged = old.map { $0[range].elementsEqual(bytes[range]) } ?? false
      if key.level == 1 {
        if isUnchanged, self.sectors[child] == nil { continue }
        try self.accept(Leaf(encoded: bytes[range]), at: child)
      } else {
        let childKey = NodeKey(level: key.level - 1, index: child)
        if isUnchanged, self.nodes[childKey] == nil { continue }
        try self.accept(Digest32(copying: bytes[range]), of: childKey)
      }
    }
  }

  private mutating func accept(_ leaf: Leaf, at sector: UInt64) throws {
    if let digest = self.sectors.removeValue(forKey: sector) {
      guard !leaf.isHole, digest == leaf.digest else { throw IntegrityError.sectorMismatch(index: sector) }
      return
    }
    if leaf.isHole { return }
    guard try self.oldLeaf(at: sector) == leaf else { throw IntegrityError.sectorMismatch(index: sector) }
  }

  // MARK: The stored tree

  private mutating func oldNode(_ key: NodeKey) throws -> [UInt8]? {
    guard let old = self.old, key.level <= old.treeLevels,
      key.index < TreeShape.nodeCount(level: key.level, sectorCount: old.sectorCount)
    else { return nil }
    if let known = self.oldNodes[key] { return known }
    // A digest of zero means that there is no node now; an older one may still lie on the disk.
    let bytes = try self.oldDigest(of: key).isZero ? nil : self.storedNode(key)
    self.oldNodes[key] = .some(bytes)
    return bytes
  }

  private mutating func oldDigest(of key: NodeKey) throws -> Digest32 {
    guard let old = self.old, key.level <= old.treeLevels else { return .zero }
    if key.level == old.treeLevels { return key.index == 0 ? old.integrityRoot : .zero }
    let (parent, slot) = key.parent
    guard let node = try self.oldNode(parent) else { return .zero }
    return IntegrityTree.digest(in: node, slot: slot)
  }

  private mutating func oldLeaf(at sector: UInt64) throws -> Leaf {
    guard let old = self.old, sector < old.sectorCount else { return .hole }
    if old.treeLevels == 0 { return old.leaves[Int(sector)] }
    let key = NodeKey(level: 1, index: sector / UInt64(TreeShape.leavesPerNode))
    guard let node = try self.oldNode(key) else { return .hole }
    return try IntegrityTree.leaf(in: node, slot: Int(sector % UInt64(TreeShape.leavesPerNode)))
  }
}
