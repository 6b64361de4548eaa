// SPDX-License-Identifier: Apache-2.0

import Inodes
import Testing
import Trust

@Suite("The check of a commit's blocks")
struct CommitCheckTests {
  /// What a commit carries from one content to the next, and what is stored before.
  struct Transition {
    var old: ContentPart?
    var new: ContentPart
    var sectors: [UInt64: Digest32]
    var nodes: [NodeKey: [UInt8]]
    let stored: [NodeKey: [UInt8]]
    let oldNodes: [NodeKey: [UInt8]]

    /// Checks it, and that nothing is read but what was announced.
    func check() throws {
      let needed = self.old.map {
        Set(CommitCheck.storedNodesNeeded(from: $0, to: self.new, nodes: self.nodes.keys))
      }
      try CommitCheck.check(from: self.old, to: self.new, sectors: self.sectors, nodes: self.nodes) { key in
        #expect(needed?.contains(key) == true, "\(key) was not announced")
        return self.stored[key]
      }
    }
  }

  private func transition(_ test: inout TreeUnderTest, from old: Model?, using generator: inout SeededGenerator) throws
    -> Transition
  {
    let storedBefore = test.stored
    let nodes = test.seal()
    var sectors: [UInt64: Digest32] = [:]
    for (index, leaf) in test.model.leaves where old?[index] != leaf { sectors[index] = leaf.digest }
    return Transition(
      old: old?.content(version: 1), new: test.model.content(version: 2), sectors: sectors, nodes: nodes,
      stored: storedBefore, oldNodes: old?.nodes ?? [:])
  }

  @Test(
    "accepts whatever a tree makes of any changes, and refuses it with any error planted", arguments: Seeds.take(12))
  func transitions(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    var test = TreeUnderTest()
    var old: Model?
    for _ in 0..<50 {
      for _ in 0..<Int.random(in: 1...5, using: &generator) { try test.change(using: &generator) }
      let transition = try self.transition(&test, from: old, using: &generator)
      do { try transition.check() } catch { Issue.record("seed \(seed): \(error)") }
      try self.plantErrors(transition, seed: seed, &generator)
      old = test.model
      if generator.chance(40) { test.reload() }
    }
  }

  private func plantErrors(_ good: Transition, seed: UInt64, _ generator: inout SeededGenerator) throws {
    func expectRefused(_ what: String, _ plant: (inout Transition) -> Void) {
      var bad = good
      plant(&bad)
      #expect(throws: IntegrityError.self, "seed \(seed): \(what)") { try bad.check() }
    }
    if let sector = good.sectors.keys.sorted().randomElement(using: &generator) {
      expectRefused("a sector is missing") { $0.sectors[sector] = nil }
      expectRefused("a sector has other bytes") { $0.sectors[sector] = Digest32(sha256: [1]) }
    }
    expectRefused("a sector beyond the end") { $0.sectors[good.new.sectorCount] = .zero }
    expectRefused("a sector of another") { $0.sectors[good.new.sectorCount / 2] = Digest32(sha256: [2]) }
    // A node that is as it was need not be sent.
    let changed = good.nodes.keys.filter { good.oldNodes[$0] != good.nodes[$0] }.sorted()
    if let node = changed.randomElement(using: &generator) {
      expectRefused("a node is missing") { $0.nodes[node] = nil }
      if let stale = good.stored[node], stale != good.nodes[node] {
        expectRefused("a node is an older one") { $0.nodes[node] = stale }
      }
      let byte = Int.random(in: 0..<TreeShape.nodeByteCount, using: &generator)
      expectRefused("a node has another byte") { $0.nodes[node]?[byte] ^= 0x10 }
      expectRefused("a node is short") { $0.nodes[node]?.removeLast() }
    }
    let beyond = NodeKey(level: max(good.new.treeLevels, 1), index: 1 << 20)
    expectRefused("a node that nothing refers to") { $0.nodes[beyond] = [UInt8](repeating: 0, count: 4_096) }
    if good.new.treeLevels > 0, !good.new.integrityRoot.description.allSatisfy({ $0 == "0" }) {
      let root = Digest32(sha256: [3])
      expectRefused("the root is another") { $0.new.integrityRoot = root }
    }
  }

  @Test("refuses a leaf that changed without its sector, though the node is right")
  func leafWithoutSector() throws {
    var generator = SeededGenerator(seed: 3)
    var test = TreeUnderTest()
    try test.resize(to: 200)
    for index: UInt64 in 0..<200 { try test.set(generator.leaf(), at: index) }
    var good = try self.transition(&test, from: nil, using: &generator)
    try good.check()
    let before = test.model
    try test.set(generator.leaf(), at: 130)
    good = try self.transition(&test, from: before, using: &generator)
    #expect(good.sectors.count == 1)
    #expect(good.nodes.count == 2)
    try good.check()
    var bad = good
    bad.sectors = [:]
    #expect(throws: IntegrityError.sectorMismatch(index: 130)) { try bad.check() }
    // A hole has no sector.
    try test.set(.hole, at: 130)
    let hole = try self.transition(&test, from: before, using: &generator)
    try hole.check()
    bad = hole
    bad.sectors[130] = Digest32(sha256: [1])
    #expect(throws: IntegrityError.self) { try bad.check() }
  }

  @Test("refuses entries beyond the end of the file")
  func entriesBeyondTheEnd() throws {
    var generator = SeededGenerator(seed: 4)
    var long = Model()
    long.resize(to: 40)
    for index: UInt64 in 0..<40 { long[index] = try generator.leaf() }
    // The same tree, said to be of a file that is shorter.
    var content = long.content(version: 1)
    content.size = 39 * 4_096
    let sectors = long.leaves.mapValues(\.digest)
    let nodes = long.nodes
    #expect(throws: IntegrityError.shapeMismatch) {
      try CommitCheck.check(from: nil, to: content, sectors: sectors, nodes: nodes) { _ in nil }
    }
  }
}
