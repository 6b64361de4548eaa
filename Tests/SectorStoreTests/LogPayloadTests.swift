// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Testing

@Suite("A change on its way to another member")
struct LogPayloadTests {
  private static let configuration = StoreConfiguration(generation: 1)

  /// A valid change and the bytes of its blocks, as they travel.
  private static func random(_ maker: inout ChangeMaker) -> (change: Change, blocks: [UInt8]) {
    var change = maker.next()
    change.term = maker.generator.next()
    if maker.generator.chance(30) { change.conditions.append(.init(inode: maker.generator.next(), version: nil)) }
    if maker.generator.chance(30) { change.payloadExtra = pattern(maker.generator.next(), 100) }
    return (change, change.blocks.flatMap(\.bytes))
  }

  @Test("arrives as it was", arguments: Seeds.take(4))
  func roundTrip(seed: UInt64) throws {
    var maker = ChangeMaker(seed: seed)
    var blockCount = 0
    for _ in 0..<100 {
      let (change, blocks) = Self.random(&maker)
      // As a part of something longer, whose indexes do not begin at zero.
      let surrounded = [1, 2, 3] + blocks + [4]
      let copy = try #require(
        Change(
          encoded: change.encoded(), blocks: surrounded[3..<surrounded.count - 1], configuration: Self.configuration),
        "seed \(seed)")
      #expect(copy.term == change.term)
      #expect(copy.conditions == change.conditions)
      #expect(copy.records == change.records)
      #expect(copy.truncations == change.truncations)
      #expect(copy.sessionsOpened == change.sessionsOpened)
      #expect(copy.operations == change.operations)
      #expect(copy.certificates == change.certificates)
      #expect(copy.facts == change.facts)
      #expect(copy.payloadExtra == change.payloadExtra)
      #expect(copy.encoded() == change.encoded(), "seed \(seed)")
      try #require(copy.blocks.count == change.blocks.count)
      for (left, right) in zip(copy.blocks, change.blocks) {
        blockCount += 1
        #expect(left.inode == right.inode && left.level == right.level && left.index == right.index)
        #expect(left.count == right.count && left.blockSize == right.blockSize)
        #expect(Array(left.bytes) == Array(right.bytes))
      }
    }
    #expect(blockCount > 0)
  }

  @Test("is refused where anything is missing or left over", arguments: Seeds.take(2))
  func cutShort(seed: UInt64) throws {
    var maker = ChangeMaker(seed: seed)
    for _ in 0..<10 {
      let (change, blocks) = Self.random(&maker)
      let bytes = change.encoded()
      func isRefused(_ bytes: [UInt8], _ blocks: [UInt8]) -> Bool {
        Change(encoded: bytes, blocks: blocks[...], configuration: Self.configuration) == nil
      }
      #expect(!isRefused(bytes, blocks))
      for count in bytes.indices { #expect(isRefused(Array(bytes[..<count]), blocks), "seed \(seed), \(count)") }
      #expect(isRefused(bytes + [0], blocks))
      #expect(isRefused(bytes, blocks + [0]))
      #expect(isRefused(bytes, blocks + [UInt8](repeating: 0, count: 4_096)))
      if !blocks.isEmpty { #expect(isRefused(bytes, Array(blocks.dropLast()))) }
    }
  }

  @Test("may be damaged anywhere and harms nobody", arguments: Seeds.take(2))
  func damaged(seed: UInt64) throws {
    var maker = ChangeMaker(seed: seed)
    var refusedCount = 0
    for _ in 0..<20 {
      let (change, blocks) = Self.random(&maker)
      let bytes = change.encoded()
      for _ in 0..<200 {
        var damaged = bytes
        damaged[maker.generator.number(0...bytes.count - 1)] ^= UInt8(maker.generator.number(1...255))
        guard let other = Change(encoded: damaged, blocks: blocks[...], configuration: Self.configuration) else {
          refusedCount += 1
          continue
        }
        // Whatever it says now, it says nothing that was not read. (Text that is no text is replaced.)
        if !other.facts.contains(where: { $0.key.contains("\u{FFFD}") }) {
          #expect(other.encoded() == damaged, "seed \(seed)")
        }
      }
    }
    #expect(refusedCount > 0)
  }

  @Test("is refused with a version, or a part of a condition, that is not known")
  func unknown() throws {
    var change = Change(term: 7)
    change.conditions = [.init(inode: 1, version: 2)]
    let bytes = change.encoded()
    func decoded(_ place: Int, _ value: UInt8) -> Change? {
      var bytes = bytes
      bytes[place] = value
      return Change(encoded: bytes, blocks: [], configuration: Self.configuration)
    }
    // Version (1 byte), term (8), blocks (4), version of the body (1), count (4), inode (8), flags.
    #expect(decoded(0, 1)?.conditions == change.conditions)
    #expect(decoded(0, 2) == nil)
    #expect(decoded(13, 2)?.conditions == change.conditions)
    // That of an entry with the bytes of its blocks: there are none.
    #expect(decoded(13, 3) == nil)
    #expect(decoded(26, 1)?.conditions == change.conditions)
    for bit in 1..<8 { #expect(decoded(26, 1 | 1 << UInt8(bit)) == nil) }
  }

  @Test("is refused where it breaks a rule of the store")
  func invalid() throws {
    var change = Change()
    change.records = [.put(StoredRecord(inode: 1, version: 1, bytes: []))]
    let blocks = [UInt8](repeating: 1, count: 8_192)
    change.blocks = [
      BlockWrite(inode: 1, level: 0, index: 0, bytes: blocks, blockSize: 4_096)
    ]
    #expect(Change(encoded: change.encoded(), blocks: blocks[...], configuration: Self.configuration) != nil)
    // For a store with larger sectors these are not whole blocks.
    let larger = StoreConfiguration(generation: 1, sectorSize: 8_192)
    #expect(Change(encoded: change.encoded(), blocks: blocks[...], configuration: larger) == nil)
    // Blocks without a record.
    change.records = []
    #expect(Change(encoded: change.encoded(), blocks: blocks[...], configuration: Self.configuration) == nil)
    change.blocks = []
    change.records = [.put(StoredRecord(inode: 0, version: 1, bytes: []))]
    #expect(Change(encoded: change.encoded(), blocks: [], configuration: Self.configuration) == nil)
  }
}
