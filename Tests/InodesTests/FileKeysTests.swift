// SPDX-License-Identifier: Apache-2.0

import Inodes
import Testing
import Trust

@Suite("Keys of several epochs")
struct FileKeysTests {
  private let contentID = [UInt8](repeating: 9, count: 16)

  private func content(size: UInt64) -> ContentPart {
    var content = ContentPart(
      fileID: FileID(generation: .root, inode: InodeNumber(7)), version: 1, size: size, sectorSize: 4_096,
      contentID: self.contentID, modified: 0)
    content.leaves = (0..<Int(content.sectorCount)).map { _ in .hole }
    return content
  }

  @Test("the newest opens what was sealed under every earlier one, and nothing else does")
  func chain() throws {
    var generator = SeededGenerator(seed: 3)
    let plain = generator.bytes(4_096)
    var content = self.content(size: 4_096)
    var keys = [FileKey.random()]
    var sealed: [(leaf: Leaf, bytes: [UInt8])] = []
    for epoch in UInt32(1)...5 {
      let cipher = SectorCipher(keys: try FileKeys(keys[keys.count - 1], content: content), contentID: self.contentID)
      let (leaves, run) = try cipher.seal(plain[...], from: 0, sectorSize: 4_096)
      #expect(leaves[0].epoch == epoch)
      sealed.append((leaves[0], run.bytes))
      if epoch == 5 { break }
      let next = FileKey.random(epoch: epoch + 1)
      try content.beginEpoch(from: keys[keys.count - 1], to: next)
      keys.append(next)
    }
    let newest = SectorCipher(keys: try FileKeys(keys[4], content: content), contentID: self.contentID)
    for (leaf, bytes) in sealed {
      var opened: [UInt8] = []
      try newest.open(bytes, leaf: leaf, at: 0, range: 0..<4_096, into: &opened)
      #expect(opened == plain)
    }
    // Whoever has an earlier key does not get further.
    for key in keys.dropLast() {
      #expect(throws: IntegrityError.self) { try FileKeys(key, content: content) }
      let forged = try #require(FileKey(bytes: key.bytes, epoch: 5))
      #expect(throws: IntegrityError.self) { try FileKeys(forged, content: content) }
      let old = SectorCipher(key: key, contentID: self.contentID)
      var opened: [UInt8] = []
      #expect(throws: IntegrityError.self) {
        try old.open(sealed[4].bytes, leaf: sealed[4].leaf, at: 0, range: 0..<4_096, into: &opened)
      }
    }
  }

  @Test("a tiny content is sealed anew at once, and an empty one needs no earlier key")
  func tiny() throws {
    let first = FileKey.random()
    let second = FileKey.random(epoch: 2)
    var content = self.content(size: 0)
    content.size = 3
    content.inlineContent = try SectorCipher(key: first, contentID: self.contentID).seal([1, 2, 3], as: .inlineContent)
    let before = content.inlineContent
    try content.beginEpoch(from: first, to: second)
    #expect(content.earlierKeys.isEmpty)
    #expect(content.inlineContent != before)
    let cipher = SectorCipher(keys: try FileKeys(second, content: content), contentID: self.contentID)
    #expect(try cipher.open(content.inlineContent, as: .inlineContent) == [1, 2, 3])
    var empty = self.content(size: 0)
    try empty.beginEpoch(from: first, to: second)
    #expect(empty.earlierKeys.isEmpty)
    #expect(empty.keyEpoch == 2)
  }

  @Test("an epoch that does not follow the present one is refused, and so are too many")
  func refusals() throws {
    var content = self.content(size: 4_096)
    let first = FileKey.random()
    #expect(throws: IntegrityError.malformed) { try content.beginEpoch(from: first, to: .random(epoch: 3)) }
    #expect(throws: IntegrityError.malformed) {
      try content.beginEpoch(from: .random(epoch: 2), to: .random(epoch: 3))
    }
    var key = first
    for _ in 0..<RecordLimits.earlierKeysMax {
      let next = FileKey.random(epoch: key.epoch + 1)
      try content.beginEpoch(from: key, to: next)
      key = next
    }
    #expect(throws: IntegrityError.outOfRange) { try content.beginEpoch(from: key, to: .random(epoch: key.epoch + 1)) }
    #expect(content.keyEpoch == key.epoch)
    #expect(try FileKeys(key, content: content)[1] == first)
  }
}

@Suite("Sectors of a directory")
struct DirectorySectorTests {
  private func entry(_ name: String, key: FileKey?) throws -> DirectoryEntry {
    DirectoryEntry(
      name: try PathComponent(name), fileID: FileID(generation: .root, inode: InodeNumber(9)), type: .file, key: key)
  }

  @Test("entries come back as they were, with all that is said of their keys")
  func roundTrip() throws {
    var moved = try self.entry("moved", key: .random(epoch: 3))
    moved.isMarkedExposed = true
    moved.drawnInEpoch = 7
    var coming = try self.entry("coming", key: .random(epoch: 2))
    coming.nextKey = .random(epoch: 3)
    let entries = [try self.entry("plain", key: .random()), moved, coming, try self.entry("open", key: nil)]
    let bytes = try DirectorySector.encode(entries, sectorSize: 4_096)
    #expect(bytes.count == 4_096)
    #expect(try DirectorySector.decode(bytes[...]) == entries)
    let used = DirectorySector.headerByteCount + bytes.prefix(4).reduce(0) { $0 << 8 | Int($1) }
    #expect(used <= DirectorySector.headerByteCount + entries.reduce(0) { $0 + DirectorySector.byteCount(of: $1) })
  }

  @Test("a key is exposed when it is marked so, is being replaced, or was drawn before the directory's present epoch")
  func exposure() throws {
    var entry = try self.entry("a", key: .random())
    #expect(!entry.isExposed(in: 1))
    #expect(entry.isExposed(in: 2))
    entry.drawnInEpoch = 2
    #expect(!entry.isExposed(in: 2))
    entry.isMarkedExposed = true
    #expect(entry.isExposed(in: 2))
    entry.isMarkedExposed = false
    entry.nextKey = .random(epoch: 2)
    #expect(entry.isExposed(in: 2))
    // What has no key has none that could be known.
    #expect(try !self.entry("b", key: nil).isExposed(in: 9))
  }

  @Test("bytes that are no sector of a directory are refused")
  func malformed() throws {
    #expect(throws: IntegrityError.self) { try DirectorySector.decode([0, 0, 255, 255, 1, 2, 3][...]) }
    #expect(throws: IntegrityError.self) { try DirectorySector.decode([0, 0, 0, 3, 255, 255, 255][...]) }
    let long = try (0..<200).map { try self.entry("name-\($0)", key: .random()) }
    #expect(throws: IntegrityError.shapeMismatch) { try DirectorySector.encode(long, sectorSize: 4_096) }
  }
}
