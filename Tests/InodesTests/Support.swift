// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import Trust

/// SplitMix64: small, and the same on every machine.
struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  init(seed: UInt64) { self.state = seed }

  mutating func next() -> UInt64 {
    self.state &+= 0x9E37_79B9_7F4A_7C15
    var value = self.state
    value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
    return value ^ (value >> 31)
  }

  mutating func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &self) }
  }
  mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }

  /// A leaf that is no hole.
  mutating func leaf() throws -> Leaf {
    var bytes = self.bytes(Leaf.byteCount)
    bytes.replaceSubrange(0..<4, with: [0, 0, 0, UInt8.random(in: 1...9, using: &self)])
    return try Leaf(encoded: bytes[...])
  }
}

enum Seeds {
  /// The seeds to run: the one of INODES_SEED if set, else `count` from a start that differs from run to run.
  static func take(_ count: Int) -> [UInt64] {
    if let text = ProcessInfo.processInfo.environment["INODES_SEED"], let seed = UInt64(text) { return [seed] }
    let start = UInt64.random(in: 0..<1 << 32)
    return (0..<UInt64(count)).map { start + $0 }
  }
}

/// The leaves of a file and nothing else: what an integrity tree says, without a tree.
struct Model: Equatable {
  private(set) var count: UInt64 = 0
  /// Those that are no holes.
  private(set) var leaves: [UInt64: Leaf] = [:]

  subscript(index: UInt64) -> Leaf {
    get { self.leaves[index] ?? .hole }
    set { self.leaves[index] = newValue.isHole ? nil : newValue }
  }

  mutating func resize(to count: UInt64) {
    self.count = count
    self.leaves = self.leaves.filter { $0.key < count }
  }

  var levels: Int { TreeShape.levels(sectorCount: self.count) }
  var recordLeaves: [Leaf] { self.levels > 0 ? [] : (0..<self.count).map { self[$0] } }

  /// The nodes of the tree above these leaves, made from the bottom up; those of nothing but holes are left out.
  var nodes: [NodeKey: [UInt8]] {
    var nodes: [NodeKey: [UInt8]] = [:]
    guard self.levels > 0 else { return nodes }
    for (index, leaf) in self.leaves {
      let key = NodeKey(level: 1, index: index / 64)
      leaf.encode(into: &nodes[key, default: Self.emptyNode], at: Int(index % 64) * Leaf.byteCount)
    }
    for level in 1..<self.levels {
      for (key, bytes) in nodes where key.level == level {
        let parent = NodeKey(level: level + 1, index: key.index / 128)
        let start = Int(key.index % 128) * 32
        nodes[parent, default: Self.emptyNode].replaceSubrange(
          start..<start + 32, with: Digest32(sha256: bytes).bytes)
      }
    }
    return nodes
  }

  private static let emptyNode = [UInt8](repeating: 0, count: TreeShape.nodeByteCount)

  var root: Digest32 {
    self.nodes[NodeKey(level: max(self.levels, 1), index: 0)].map { Digest32(sha256: $0) } ?? .zero
  }

  func content(version: Version) -> ContentPart {
    var content = ContentPart(
      fileID: .rootDirectory, version: version, size: self.count * 4_096, sectorSize: 4_096,
      contentID: [UInt8](repeating: 7, count: 16), modified: 0)
    content.treeLevels = self.levels
    content.leaves = self.recordLeaves
    content.integrityRoot = self.root
    return content
  }
}

/// A tree that is worked on together with its model, and the nodes that were stored of it, older ones among them.
struct TreeUnderTest {
  var tree = IntegrityTree()
  var model = Model()
  var stored: [NodeKey: [UInt8]] = [:]

  /// Loads what is needed for these sectors, as a reader would.
  mutating func load(_ range: Range<UInt64>) throws {
    while true {
      let missing = self.tree.missing(for: range)
      if missing.isEmpty { return }
      for key in missing {
        guard let bytes = self.stored[key] else { throw IntegrityError.nodeMissing(level: key.level, index: key.index) }
        try self.tree.insert(bytes, at: key)
      }
    }
  }

  mutating func resize(to count: UInt64) throws {
    try self.load(self.tree.sectorsToLoad(beforeResizingTo: count))
    try self.tree.resize(to: count)
    self.model.resize(to: count)
  }

  mutating func set(_ leaf: Leaf, at index: UInt64) throws {
    try self.load(index..<index + 1)
    try self.tree.set(leaf, at: index)
    self.model[index] = leaf
  }

  mutating func seal() -> [NodeKey: [UInt8]] {
    var changed: [NodeKey: [UInt8]] = [:]
    for node in self.tree.seal() { changed[node.key] = node.bytes }
    self.stored.merge(changed) { $1 }
    return changed
  }

  mutating func reload(version: Version = 1) { self.tree = IntegrityTree(self.model.content(version: version)) }

  /// Changes something at random.
  mutating func change(using generator: inout SeededGenerator) throws {
    switch Int.random(in: 0..<10, using: &generator) {
    case 0..<3:
      // Around the counts at which a tree gets another level.
      let around: [UInt64] = [0, 1, 4, 5, 63, 64, 65, 300, 8_191, 8_192, 8_193, 8_256, 8_257, 20_000]
      try self.resize(to: around.randomElement(using: &generator) ?? 0)
    case 3:
      let limit = self.model.count + 100
      try self.resize(to: UInt64.random(in: 0...limit, using: &generator))
    case 4 where self.model.count > 0:
      // A row, as writing does it.
      let start = UInt64.random(in: 0..<self.model.count, using: &generator)
      for index in start..<min(start + 100, self.model.count) { try self.set(generator.leaf(), at: index) }
    case 5 where !self.model.leaves.isEmpty:
      let index = self.model.leaves.keys.sorted().randomElement(using: &generator) ?? 0
      try self.set(.hole, at: index)
    default:
      guard self.model.count > 0 else { return }
      let isNearEnd = generator.chance(30)
      let start = isNearEnd ? self.model.count - min(self.model.count, 3) : 0
      let index = UInt64.random(in: start..<self.model.count, using: &generator)
      try self.set(generator.leaf(), at: index)
    }
  }
}
