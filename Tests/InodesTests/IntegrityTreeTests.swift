// SPDX-License-Identifier: Apache-2.0

import Inodes
import Testing
import Trust

@Suite("An integrity tree")
struct IntegrityTreeTests {
  @Test(
    "has the digests of a tree that is made anew from its leaves, whatever happened to it", arguments: Seeds.take(12))
  func model(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    var test = TreeUnderTest()
    for _ in 0..<60 {
      for _ in 0..<Int.random(in: 1...6, using: &generator) { try test.change(using: &generator) }
      if generator.chance(20) { test.tree.forgetUnchangedNodes() }
      let changed = test.seal()
      #expect(test.tree.root == test.model.root, "seed \(seed)")
      #expect(test.tree.levels == test.model.levels, "seed \(seed)")
      #expect(test.tree.recordLeaves == test.model.recordLeaves, "seed \(seed)")
      let nodes = test.model.nodes
      for (key, bytes) in changed { #expect(nodes[key] == bytes, "seed \(seed)") }
      for key in nodes.keys { #expect(test.stored[key] == nodes[key], "seed \(seed)") }
      if generator.chance(50) { test.reload() }
      for _ in 0..<5 where test.model.count > 0 {
        let index = UInt64.random(in: 0..<test.model.count, using: &generator)
        try test.load(index..<index + 1)
        #expect(try test.tree.leaf(at: index) == test.model[index], "seed \(seed)")
      }
    }
  }

  @Test("has three levels for a file of many sectors, and reads holes without any node")
  func large() throws {
    var generator = SeededGenerator(seed: 1)
    var test = TreeUnderTest()
    try test.resize(to: 1_048_577)
    #expect(test.tree.levels == 4)
    #expect(test.tree.missing(for: 0..<1_048_577).isEmpty)
    #expect(try test.tree.leaf(at: 77) == .hole)
    for index: UInt64 in [0, 8_192, 1_048_575, 1_048_576] { try test.set(generator.leaf(), at: index) }
    let changed = test.seal()
    #expect(test.tree.root == test.model.root)
    // The four paths meet at the top, the first three below its first entry.
    #expect(changed.count == 4 + 4 + 2 + 1)
    test.reload()
    try test.resize(to: 8_193)
    #expect(test.tree.levels == 3)
    _ = test.seal()
    #expect(test.tree.root == test.model.root)
    try test.resize(to: 0)
    _ = test.seal()
    #expect(test.tree.root == .zero)
  }

  @Test("takes no node with another digest")
  func wrongNode() throws {
    var generator = SeededGenerator(seed: 2)
    var test = TreeUnderTest()
    try test.resize(to: 300)
    try test.set(generator.leaf(), at: 10)
    try test.set(generator.leaf(), at: 290)
    _ = test.seal()
    test.reload()
    let top = NodeKey(level: 2, index: 0)
    #expect(test.tree.missing(for: 0..<300) == [top])
    var bytes = try #require(test.stored[top])
    bytes[0] ^= 1
    #expect(throws: IntegrityError.nodeMismatch(level: 2, index: 0)) { try test.tree.insert(bytes, at: top) }
    // Of a node below an unknown one nothing can be said.
    let below = NodeKey(level: 1, index: 0)
    let stored = try #require(test.stored[below])
    #expect(throws: IntegrityError.nodeMismatch(level: 1, index: 0)) { try test.tree.insert(stored, at: below) }
    #expect(throws: IntegrityError.nodeMissing(level: 1, index: 0)) { try test.tree.leaf(at: 10) }
    #expect(throws: IntegrityError.self) { try test.tree.set(.hole, at: 10) }
    try test.load(0..<300)
    #expect(try test.tree.leaf(at: 10) == test.model[10])
  }

  @Test("has one encoding for a hole")
  func holes() throws {
    var bytes = [UInt8](repeating: 0, count: Leaf.byteCount)
    #expect(try Leaf(encoded: bytes[...]) == .hole)
    bytes[40] = 1
    #expect(throws: IntegrityError.malformed) { try Leaf(encoded: bytes[...]) }
    #expect(throws: IntegrityError.malformed) { try Leaf(encoded: bytes[..<63]) }
  }
}
