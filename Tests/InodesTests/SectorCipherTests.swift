// SPDX-License-Identifier: Apache-2.0

import Inodes
import Testing
import Trust

@Suite("Sealed sectors")
struct SectorCipherTests {
  let key = FileKey.random()
  let contentID = [UInt8](repeating: 9, count: 16)

  var cipher: SectorCipher { SectorCipher(key: self.key, contentID: self.contentID) }

  private func open(_ cipher: SectorCipher, _ sealed: ArraySlice<UInt8>, _ leaf: Leaf, at index: UInt64) throws
    -> [UInt8]
  {
    var plain: [UInt8] = []
    try cipher.open(Array(sealed), leaf: leaf, at: index, range: 0..<4_096, into: &plain)
    return plain
  }

  @Test("open to what was sealed, filled with zeros to a whole sector")
  func roundTrip() throws {
    var generator = SeededGenerator(seed: 1)
    let plain = generator.bytes(3 * 4_096 + 17)
    let (leaves, run) = try self.cipher.seal(plain[...], from: 5, sectorSize: 4_096)
    #expect(leaves.count == 4)
    #expect(run.start == 5)
    #expect(run.bytes.count == 4 * 4_096)
    #expect(run.digests == leaves.map(\.digest))
    #expect(SealedRun(start: 5, bytes: run.bytes, sectorSize: 4_096).digests == run.digests)
    var opened: [UInt8] = []
    for (number, leaf) in leaves.enumerated() {
      opened += try self.open(
        self.cipher, run.bytes[number * 4_096..<(number + 1) * 4_096], leaf, at: 5 + UInt64(number))
    }
    #expect(opened == plain + [UInt8](repeating: 0, count: 4 * 4_096 - plain.count))
    var part: [UInt8] = []
    try self.cipher.open(run.bytes[0..<4_096], leaf: leaves[0], at: 5, range: 100..<200, into: &part)
    #expect(part == Array(plain[100..<200]))
    // The same bytes never look the same twice.
    #expect(try self.cipher.seal(plain[...], from: 5, sectorSize: 4_096).run.bytes != run.bytes)
  }

  @Test("are refused in another place, file, epoch, under another key, and with any bit flipped")
  func refusals() throws {
    var generator = SeededGenerator(seed: 2)
    let plain = generator.bytes(2 * 4_096)
    let (leaves, run) = try self.cipher.seal(plain[...], from: 0, sectorSize: 4_096)
    let first = run.bytes[0..<4_096]
    let second = run.bytes[4_096...]
    #expect(try self.open(self.cipher, first, leaves[0], at: 0) == Array(plain[0..<4_096]))
    func expectRefused(_ what: Comment, _ body: () throws -> [UInt8]) {
      #expect(throws: IntegrityError.self, what) { try body() }
    }
    expectRefused("swapped within the file") { try self.open(self.cipher, second, leaves[1], at: 0) }
    expectRefused("the leaf of another") { try self.open(self.cipher, first, leaves[1], at: 0) }
    expectRefused("another file") {
      try self.open(SectorCipher(key: self.key, contentID: generator.bytes(16)), first, leaves[0], at: 0)
    }
    let later = try #require(FileKey(bytes: self.key.bytes, epoch: 2))
    expectRefused("another epoch") {
      try self.open(SectorCipher(key: later, contentID: self.contentID), first, leaves[0], at: 0)
    }
    expectRefused("another key") {
      try self.open(SectorCipher(key: .random(), contentID: self.contentID), first, leaves[0], at: 0)
    }
    expectRefused("a hole") { try self.open(self.cipher, first, .hole, at: 0) }
    expectRefused("cut off") { try self.open(self.cipher, first.dropLast(), leaves[0], at: 0) }
    for _ in 0..<50 {
      var bytes = Array(first)
      bytes[Int.random(in: 0..<4_096, using: &generator)] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      expectRefused("a bit of the sector") { try self.open(self.cipher, bytes[...], leaves[0], at: 0) }
      var leaf = [UInt8](repeating: 0, count: Leaf.byteCount)
      leaves[0].encode(into: &leaf, at: 0)
      // Epoch, nonce or tag; the digest is the tree's business.
      leaf[Int.random(in: 0..<32, using: &generator)] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      if let changed = try? Leaf(encoded: leaf[...]) {
        expectRefused("a bit of the leaf") { try self.open(self.cipher, first, changed, at: 0) }
      }
    }
  }

  @Test("of a record's small values open as what they were sealed as, and as nothing else")
  func parts() throws {
    let sealed = try self.cipher.seal([1, 2, 3], as: .inlineContent)
    #expect(try self.cipher.open(sealed, as: .inlineContent) == [1, 2, 3])
    #expect(try self.cipher.open(self.cipher.seal([], as: .extendedAttributes), as: .extendedAttributes) == [])
    #expect(throws: IntegrityError.malformed) { try self.cipher.open(sealed, as: .extendedAttributes) }
    #expect(throws: IntegrityError.malformed) { try self.cipher.open(Array(sealed.dropLast()), as: .inlineContent) }
    #expect(throws: IntegrityError.malformed) { try self.cipher.open([], as: .inlineContent) }
    #expect(throws: IntegrityError.malformed) {
      try self.cipher.open([UInt8](repeating: 0, count: 28), as: .earlierKey)
    }
  }

  @Test("have keys that never show in what is printed")
  func secrecy() throws {
    let key = try #require(FileKey(bytes: [UInt8](repeating: 0xAB, count: 32), epoch: 3))
    var dumped = ""
    dump(key, to: &dumped)
    #expect(!"\(key) \(String(reflecting: key)) \(dumped)".lowercased().contains("ab, ab"))
    #expect("\(key)" == "FileKey(epoch: 3)")
    #expect(FileKey(bytes: [1], epoch: 1) == nil)
    #expect(FileKey(bytes: [UInt8](repeating: 1, count: 32), epoch: 0) == nil)
  }
}
