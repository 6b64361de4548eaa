// SPDX-License-Identifier: Apache-2.0

package import Trust

/// A file's Merkle tree, as much of it as was loaded: whoever holds the verified digest of its top can verify each
/// sector that any replica hands out, and change leaves and size.
///
/// The tree itself reads nothing. The caller asks what is `missing` for a range of sectors, loads that, offers it by
/// `insert`, which verifies it, and repeats until nothing is missing. After changes, `seal` computes the new digests
/// from the bottom up and answers the nodes to be stored.
///
/// A node whose bytes are all zero stands for nothing but holes; it is stored nowhere and its digest is all zeros.
package struct IntegrityTree: Sendable {
  private struct Node {
    var bytes: [UInt8]
    var isChanged: Bool
  }

  /// A node that was changed and has to be stored.
  package struct ChangedNode: Sendable {
    package let key: NodeKey
    package let bytes: [UInt8]
    package let digest: Digest32
  }

  /// Sectors of the file, holes included.
  package private(set) var sectorCount: UInt64
  /// Levels of nodes; 0 when the leaves stand in the record.
  package private(set) var levels: Int
  /// The digest of the top node; zero while `levels` is 0, or when there is nothing but holes.
  package private(set) var root: Digest32
  /// The leaves, while `levels` is 0.
  package private(set) var recordLeaves: [Leaf]
  private var nodes: [NodeKey: Node] = [:]

  /// The tree of an empty file.
  package init() {
    self.sectorCount = 0
    self.levels = 0
    self.root = .zero
    self.recordLeaves = []
  }

  /// The tree that a verified record describes.
  package init(_ content: ContentPart) {
    self.sectorCount = content.sectorCount
    self.levels = content.treeLevels
    self.root = content.integrityRoot
    self.recordLeaves = content.leaves
  }

  /// Nodes held in memory.
  package var loadedNodeCount: Int { self.nodes.count }

  // MARK: Loading

  /// The nodes to be loaded next before the leaves of these sectors can be read or changed: empty when all are there.
  /// Nodes of a level are asked for only once those above are known.
  package func missing(for sectors: Range<UInt64>) -> [NodeKey] {
    let sectors = sectors.clamped(to: 0..<self.sectorCount)
    // A root of zero says something only while no node has been changed.
    guard self.levels > 0, !sectors.isEmpty, !self.root.isZero || !self.nodes.isEmpty else { return [] }
    var level = self.levels
    while level >= 1 {
      let span = Self.sectorsBelow(level: level)
      var absent: [NodeKey] = []
      for index in sectors.lowerBound / span...(sectors.upperBound - 1) / span {
        let key = NodeKey(level: level, index: index)
        if self.nodes[key] == nil, let digest = self.expectedDigest(of: key), !digest.isZero { absent.append(key) }
      }
      if !absent.isEmpty { return absent }
      level -= 1
    }
    return []
  }

  /// Takes a node that was asked for, if it has the right digest.
  package mutating func insert(_ bytes: [UInt8], at key: NodeKey) throws(IntegrityError) {
    guard bytes.count == TreeShape.nodeByteCount, let expected = self.expectedDigest(of: key),
      Digest32(sha256: bytes) == expected
    else { throw .nodeMismatch(level: key.level, index: key.index) }
    if self.nodes[key] == nil { self.nodes[key] = Node(bytes: bytes, isChanged: false) }
  }

  /// Forgets unchanged nodes, so that a long transfer holds few of them; but not those above the last sector, where it
  /// goes on.
  package mutating func forgetUnchangedNodes() {
    let last = self.sectorCount == 0 ? 0 : self.sectorCount - 1
    self.nodes = self.nodes.filter { key, node in
      node.isChanged || key.index == last / Self.sectorsBelow(level: key.level)
    }
  }

  /// The digest that a node must have; nil when the nodes above are not known.
  private func expectedDigest(of key: NodeKey) -> Digest32? {
    if key.level == self.levels { return key.index == 0 ? self.root : nil }
    if key.level > self.levels { return nil }
    let (parent, slot) = key.parent
    if let node = self.nodes[parent] { return Self.digest(in: node.bytes, slot: slot) }
    guard let above = self.expectedDigest(of: parent), above.isZero else { return nil }
    return .zero
  }

  // MARK: Leaves

  /// The leaf of a sector whose nodes are all loaded.
  package func leaf(at sector: UInt64) throws(IntegrityError) -> Leaf {
    guard sector < self.sectorCount else { throw .outOfRange }
    if self.levels == 0 { return self.recordLeaves[Int(sector)] }
    let key = NodeKey(level: 1, index: sector / UInt64(TreeShape.leavesPerNode))
    guard let node = self.nodes[key] else {
      guard let expected = self.expectedDigest(of: key), expected.isZero else {
        throw .nodeMissing(level: key.level, index: key.index)
      }
      return .hole
    }
    return try Self.leaf(in: node.bytes, slot: Int(sector % UInt64(TreeShape.leavesPerNode)))
  }

  /// Puts a leaf in the place of the present one. All nodes above the sector must be loaded.
  package mutating func set(_ leaf: Leaf, at sector: UInt64) throws(IntegrityError) {
    guard sector < self.sectorCount else { throw .outOfRange }
    if self.levels == 0 {
      self.recordLeaves[Int(sector)] = leaf
      return
    }
    let key = NodeKey(level: 1, index: sector / UInt64(TreeShape.leavesPerNode))
    try self.markChanged(key)
    leaf.encode(
      into: &self.nodes[key, default: Node(bytes: [], isChanged: true)].bytes,
      at: Int(sector % UInt64(TreeShape.leavesPerNode)) * Leaf.byteCount)
  }

  /// Marks a node and all above it as changed, and makes those that stood for holes.
  private mutating func markChanged(_ key: NodeKey) throws(IntegrityError) {
    var key = key
    while true {
      if let present = self.nodes[key] {
        // Whatever changed a node has marked all above it.
        if present.isChanged { return }
        self.nodes[key]?.isChanged = true
      } else {
        guard let expected = self.expectedDigest(of: key), expected.isZero else {
          throw .nodeMissing(level: key.level, index: key.index)
        }
        self.nodes[key] = Node(bytes: [UInt8](repeating: 0, count: TreeShape.nodeByteCount), isChanged: true)
      }
      if key.level >= self.levels { return }
      key = key.parent.key
    }
  }

  // MARK: Size

  /// What has to be loaded (by `missing`) before `resize` to so many sectors.
  package func sectorsToLoad(beforeResizingTo count: UInt64) -> Range<UInt64> {
    if count >= self.sectorCount || count == 0 { return 0..<0 }
    return TreeShape.levels(sectorCount: count) == 0 ? 0..<count : count - 1..<count
  }

  /// Changes the number of sectors: new ones are holes, and leaves beyond the new end are removed.
  package mutating func resize(to count: UInt64) throws(IntegrityError) {
    if count < self.sectorCount {
      try self.shrink(to: count)
    } else if count > self.sectorCount {
      try self.grow(to: count)
    }
  }

  private mutating func grow(to count: UInt64) throws(IntegrityError) {
    let newLevels = TreeShape.levels(sectorCount: count)
    if newLevels == 0 {
      self.recordLeaves += Array(repeating: .hole, count: Int(count) - self.recordLeaves.count)
    } else if self.levels == 0 {
      var bytes = [UInt8](repeating: 0, count: TreeShape.nodeByteCount)
      for (slot, leaf) in self.recordLeaves.enumerated() { leaf.encode(into: &bytes, at: slot * Leaf.byteCount) }
      let hasContent = self.recordLeaves.contains { !$0.isHole }
      self.recordLeaves = []
      self.levels = newLevels
      self.root = .zero
      self.sectorCount = count
      if hasContent {
        let key = NodeKey(level: 1, index: 0)
        try self.markChanged(key)
        self.nodes[key] = Node(bytes: bytes, isChanged: true)
      }
    } else if newLevels > self.levels {
      // The old top becomes the first child of the new levels.
      let oldTop = NodeKey(level: self.levels, index: 0)
      let oldRoot = self.root
      self.levels = newLevels
      if !oldRoot.isZero || self.nodes[oldTop]?.isChanged == true {
        self.root = .zero  // The new nodes come from nothing.
        try self.markChanged(oldTop.parent.key)
        self.setDigest(oldRoot, of: oldTop)
      }
    }
    self.sectorCount = count
  }

  private mutating func shrink(to count: UInt64) throws(IntegrityError) {
    let newLevels = TreeShape.levels(sectorCount: count)
    if newLevels == 0 {
      var leaves: [Leaf] = []
      for sector in 0..<count { leaves.append(try self.leaf(at: sector)) }
      self.recordLeaves = leaves
      self.nodes = [:]
      self.root = .zero
      self.levels = 0
      self.sectorCount = count
      return
    }
    // Along the path to the new last sector, clear what lies behind it.
    let last = count - 1
    for level in 1...newLevels {
      let childSpan = level == 1 ? 1 : Self.sectorsBelow(level: level - 1)
      let key = NodeKey(level: level, index: last / Self.sectorsBelow(level: level))
      let firstCleared = Int((last / childSpan) % TreeShape.fanOut(level: level)) + 1
      let entryByteCount = level == 1 ? Leaf.byteCount : 32
      let start = firstCleared * entryByteCount
      guard let node = self.nodes[key] else {
        guard let expected = self.expectedDigest(of: key), expected.isZero else {
          throw .nodeMissing(level: key.level, index: key.index)
        }
        continue
      }
      if start < TreeShape.nodeByteCount, node.bytes[start...].contains(where: { $0 != 0 }) {
        try self.markChanged(key)
        for offset in start..<TreeShape.nodeByteCount {
          self.nodes[key, default: Node(bytes: [], isChanged: true)].bytes[offset] = 0
        }
      }
    }
    // The part of the old tree that is left: its top is now lower.
    let newTop = NodeKey(level: newLevels, index: 0)
    guard let newRoot = self.expectedDigest(of: newTop) else {
      throw .nodeMissing(level: newTop.level, index: newTop.index)
    }
    self.root = newRoot
    self.levels = newLevels
    self.sectorCount = count
    self.nodes = self.nodes.filter { key, _ in
      key.level <= newLevels && key.index < TreeShape.nodeCount(level: key.level, sectorCount: count)
    }
  }

  // MARK: Sealing

  /// Computes the digests of what changed, and answers the changed nodes, lower levels first.
  package mutating func seal() -> [ChangedNode] {
    var changed: [ChangedNode] = []
    for key in self.nodes.filter({ $0.value.isChanged }).keys.sorted() {
      guard let bytes = self.nodes[key]?.bytes else { continue }
      self.nodes[key]?.isChanged = false
      let isEmpty = !bytes.contains { $0 != 0 }
      let digest = isEmpty ? Digest32.zero : Digest32(sha256: bytes)
      if isEmpty {
        self.nodes[key] = nil
      } else {
        changed.append(ChangedNode(key: key, bytes: bytes, digest: digest))
      }
      if key.level == self.levels {
        self.root = digest
      } else {
        self.setDigest(digest, of: key)
      }
    }
    return changed
  }

  private mutating func setDigest(_ digest: Digest32, of key: NodeKey) {
    let (parent, slot) = key.parent
    self.nodes[parent]?.bytes.replaceSubrange(slot * 32..<slot * 32 + 32, with: digest.bytes)
  }

  // MARK: Node bytes

  /// How many sectors lie below a node of a level.
  private static func sectorsBelow(level: Int) -> UInt64 {
    var span = UInt64(TreeShape.leavesPerNode)
    for _ in 1..<max(level, 1) { span *= UInt64(TreeShape.digestsPerNode) }
    return span
  }

  static func digest(in node: [UInt8], slot: Int) -> Digest32 {
    Digest32(copying: node[slot * 32..<slot * 32 + 32])
  }

  static func leaf(in node: [UInt8], slot: Int) throws(IntegrityError) -> Leaf {
    try Leaf(encoded: node[slot * Leaf.byteCount..<(slot + 1) * Leaf.byteCount])
  }
}
