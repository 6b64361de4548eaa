// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Crypto
import Foundation
import SwiftProtobuf
import Testing

@Suite("A backup file")
struct BackupFileTests {
  private let directory: String
  private var path: String { self.directory + "/backup" }

  init() throws {
    self.directory = NSTemporaryDirectory() + "BackupFileTests/" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
  }

  // MARK: What a process sends

  private typealias Response = Blocktree_V1_BackupResponse

  /// Items as the store encodes them, as far as anybody but a store looks at them.
  private enum Item {
    static func bytes(_ number: UInt64) -> [UInt8] { withUnsafeBytes(of: number.littleEndian, Array.init) }
    static func record(_ inode: UInt64, byteCount: Int = 40) -> [UInt8] {
      [1, 1] + self.bytes(inode) + [UInt8](repeating: UInt8(truncatingIfNeeded: inode), count: byteCount)
    }
    /// - Parameter mask: blocks of the group; `skipped` of these came before, `count` are here.
    static func blocks(_ inode: UInt64, group: UInt64, mask: UInt64, skipped: UInt8, count: UInt32) -> [UInt8] {
      [1, 2] + self.bytes(inode) + [0] + self.bytes(group) + self.bytes(1) + self.bytes(mask) + [skipped]
        + withUnsafeBytes(of: count.littleEndian, Array.init) + [UInt8](repeating: 7, count: Int(count) * 4_096)
    }
    static func session(_ byte: UInt8) -> [UInt8] { [1, 3] + [UInt8](repeating: byte, count: 16) + self.bytes(1) }
    static func result(_ byte: UInt8, sequence: UInt64) -> [UInt8] {
      [1, 4] + [UInt8](repeating: byte, count: 16) + self.bytes(sequence)
    }
    static func certificate(_ byte: UInt8) -> [UInt8] { [1, 5] + [UInt8](repeating: byte, count: 32) + [1] }
    static func fact(_ key: String) -> [UInt8] { [1, 6, UInt8(key.utf8.count), 0, 0, 0] + Array(key.utf8) + [1] }
    static func end(_ counts: [UInt64]) -> [UInt8] { [1, 7] + counts.flatMap(self.bytes) }

    static let all: [[UInt8]] =
      [
        record(1), record(2), record(300), blocks(1, group: 0, mask: 0b1111, skipped: 0, count: 3),
        blocks(1, group: 0, mask: 0b1111, skipped: 3, count: 1), blocks(2, group: 256, mask: 1, skipped: 0, count: 1),
        session(1), session(2), result(1, sequence: 1), result(1, sequence: 256), certificate(3), fact("a"),
        fact("b"),
      ] + [end([3, 2, 2, 2, 1, 2])]
  }

  private static let header = Response.with {
    $0.header = .with {
      $0.generation = 1
      $0.sectorSize = 4_096
      $0.index = 77
      $0.term = 3
      $0.domain = Data(repeating: 5, count: 32)
      $0.timeNs = 1_700_000_000_000_000_000
      $0.process = "/node1"
    }
  }

  /// - Parameter pieceByteCount: of items in one message.
  private static func messages(_ items: [[UInt8]], pieceByteCount: Int = 6_000) -> [Response] {
    var messages = [Self.header]
    for item in items {
      var rest = item[...]
      var isFirst = true
      while !rest.isEmpty {
        messages.append(
          .with {
            if isFirst { $0.itemByteCounts = [UInt32(item.count)] }
            $0.items = Data(rest.prefix(pieceByteCount))
          })
        rest = rest.dropFirst(pieceByteCount)
        isFirst = false
      }
    }
    return messages + [self.trailer(items)]
  }

  private static func trailer(_ items: [[UInt8]]) -> Response {
    .with {
      $0.trailer = .with {
        $0.itemCount = UInt64(items.count)
        $0.itemByteCount = UInt64(items.reduce(0) { $0 + $1.count })
        $0.sha256 = Data(SHA256.hash(data: items.flatMap { $0 }))
        ($0.recordCount, $0.groupCount, $0.sessionCount) = (3, 2, 2)
        ($0.resultCount, $0.certificateCount, $0.factCount) = (2, 1, 2)
      }
    }
  }

  private func write(_ messages: [Response]) throws {
    try? FileManager.default.removeItem(atPath: self.path)
    let writer = try BackupFileWriter(self.path)
    for message in messages { try writer.write(message) }
    _ = try writer.finish()
  }

  /// A file of the format with any messages, each with its checksum.
  private func forge(_ messages: [Response]) throws {
    var bytes = Array("btbackup".utf8) + [1, 0, 0, 0]
    var former = Array(SHA256.hash(data: bytes))
    for message in messages {
      let body: [UInt8] = try message.serializedBytes()
      let length = withUnsafeBytes(of: UInt32(body.count).littleEndian, Array.init)
      former = Array(SHA256.hash(data: former + length + body))
      bytes += length + body + former
    }
    try Data(bytes).write(to: URL(filePath: self.path))
  }

  /// What is wrong with the file; nil if nothing is.
  private func fault() async throws -> String? {
    do {
      _ = try await ClusterClient.verifyBackup(self.path)
      return nil
    } catch let error as BlocktreeError where error.reason == .backupDamaged {
      #expect(error.code == .dataLoss && error.metadata["path"] == self.path)
      return error.metadata["fault"]
    }
  }

  // MARK: Whole files

  @Test("has what was sent, for its owner alone, in the documented format")
  func whole() async throws {
    defer { try? FileManager.default.removeItem(atPath: self.directory) }
    try self.write(Self.messages(Item.all))
    let written = try Data(contentsOf: URL(filePath: self.path))
    try self.forge(Self.messages(Item.all))
    #expect(try Data(contentsOf: URL(filePath: self.path)) == written)

    let summary = try await ClusterClient.verifyBackup(self.path)
    #expect(summary.generation == 1 && summary.index == 77 && summary.term == 3 && summary.sectorSize == 4_096)
    #expect(summary.process == "/node1" && summary.nanoseconds == 1_700_000_000_000_000_000)
    #expect(summary.recordCount == 3 && summary.groupCount == 2 && summary.certificateCount == 1)
    #expect(summary.itemCount == UInt64(Item.all.count) && summary.domain.count == 52)

    let reader = try BackupFileReader(self.path)
    var items: [[UInt8]] = []
    while let next = try reader.next() { items += next }
    #expect(items == Item.all && reader.summary == summary)
  }

  @Test("gets its name only when it is whole, and replaces nothing")
  func atomic() async throws {
    defer { try? FileManager.default.removeItem(atPath: self.directory) }
    let files = FileManager.default
    let writer = try BackupFileWriter(self.path)
    #expect(try files.contentsOfDirectory(atPath: self.directory) == ["backup.partial"])
    #expect(try files.attributesOfItem(atPath: self.path + ".partial")[.posixPermissions] as? Int == 0o600)
    for message in Self.messages(Item.all) { try writer.write(message) }
    _ = try writer.finish()
    #expect(try files.contentsOfDirectory(atPath: self.directory) == ["backup"])
    #expect(try files.attributesOfItem(atPath: self.path)[.posixPermissions] as? Int == 0o600)
    #expect(throws: BlocktreeError.self) { _ = try BackupFileWriter(self.path) }

    try files.removeItem(atPath: self.path)
    let broken = try BackupFileWriter(self.path)
    for message in Self.messages(Item.all).dropLast() { try broken.write(message) }
    #expect(throws: BlocktreeError.self) { _ = try broken.finish() }
    broken.discard()
    #expect(try files.contentsOfDirectory(atPath: self.directory) == [])
  }

  // MARK: Damage

  @Test("is refused wherever it ends too early")
  func truncation() async throws {
    defer { try? FileManager.default.removeItem(atPath: self.directory) }
    try self.write(Self.messages(Item.all))
    let bytes = try Data(contentsOf: URL(filePath: self.path))
    // Every end in the first parts and in the last ones, and some of those between.
    let ends =
      Array(0..<400) + Array(stride(from: 400, to: bytes.count - 400, by: 997))
      + Array((bytes.count - 400)..<bytes.count)
    for end in ends {
      try bytes.prefix(end).write(to: URL(filePath: self.path))
      let fault = try await self.fault()
      #expect(fault == (end < 8 ? "notABackup" : "truncated"), "\(end)")
    }
    try (bytes + [0]).write(to: URL(filePath: self.path))
    #expect(try await self.fault() != nil)
    try (bytes + bytes).write(to: URL(filePath: self.path))
    #expect(try await self.fault() == "trailingBytes")
  }

  @Test("is refused with any bit that is wrong")
  func bitFlips() async throws {
    defer { try? FileManager.default.removeItem(atPath: self.directory) }
    try self.write(Self.messages(Item.all))
    let bytes = try Data(contentsOf: URL(filePath: self.path))
    let places =
      Array(0..<300) + Array(stride(from: 300, to: bytes.count - 300, by: 501))
      + Array((bytes.count - 300)..<bytes.count)
    for place in places {
      var damaged = bytes
      damaged[place] ^= 1 << UInt8(place % 8)
      try damaged.write(to: URL(filePath: self.path))
      #expect(try await self.fault() != nil, "\(place)")
    }
  }

  @Test("is refused when parts of it stand elsewhere, or come from another backup")
  func exchanged() async throws {
    defer { try? FileManager.default.removeItem(atPath: self.directory) }
    try self.write(Self.messages(Item.all))
    let bytes = Array(try Data(contentsOf: URL(filePath: self.path)))
    // The parts, each with length and checksum.
    var parts: [[UInt8]] = []
    var offset = 12
    while offset < bytes.count {
      let length = bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | Int($1) }
      parts.append(Array(bytes[offset..<offset + 4 + length + 32]))
      offset += 4 + length + 32
    }
    for number in 1..<parts.count - 2 {
      var changed = parts
      changed.swapAt(number, number + 1)
      try Data(bytes[..<12] + changed.flatMap { $0 }).write(to: URL(filePath: self.path))
      #expect(try await self.fault() == "checksumWrong", "\(number)")
      changed = parts
      changed.remove(at: number)
      try Data(bytes[..<12] + changed.flatMap { $0 }).write(to: URL(filePath: self.path))
      #expect(try await self.fault() == "checksumWrong", "\(number)")
    }
  }

  @Test("is refused when its items can not be those of a cluster, though all checksums are right")
  func rules() async throws {
    defer { try? FileManager.default.removeItem(atPath: self.directory) }
    func expect(
      _ fault: String, _ messages: [Response], sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
      try self.forge(messages)
      #expect(try await self.fault() == fault, sourceLocation: sourceLocation)
    }
    let all = Item.all
    // In another order, each pair of neighbours; the last one has to be last.
    for number in 0..<all.count - 1 {
      var items = all
      items.swapAt(number, number + 1)
      try await expect("orderWrong", Self.messages(items))
    }
    // Twice, or not at all.
    for number in 0..<all.count - 1 {
      var items = all
      items.insert(all[number], at: number)
      try await expect("orderWrong", Self.messages(items))
      // Blocks before the last of their group are not counted: that only a store can tell, and the digest.
      if number == 3 { continue }
      items = all
      items.remove(at: number)
      try await expect("countsDiffer", Self.messages(items))
    }
    try await expect("countsDiffer", Self.messages(all.dropLast()))
    try await expect("itemMalformed", Self.messages([[1, 8, 0, 0]] + all))
    try await expect("itemMalformed", Self.messages([[2, 1] + [UInt8](repeating: 0, count: 40)] + all))
    try await expect("itemMalformed", Self.messages([[1, 1, 0]] + all))

    let messages = Self.messages(all)
    try await expect("headerWrong", Array(messages.dropFirst()))
    try await expect("headerWrong", [messages[0]] + messages)
    try await expect("truncated", Array(messages.dropLast()))
    try await expect("trailingBytes", messages + [messages[1]])
    try await expect("itemMalformed", Array(messages.prefix(5)) + [messages[messages.count - 1]])
    var changed = messages
    changed[changed.count - 1].trailer.sha256[0] ^= 1
    try await expect("digestWrong", changed)
    changed = messages
    changed[changed.count - 1].trailer.recordCount += 1
    try await expect("countsDiffer", changed)
    changed = messages
    changed[0].header.domain = Data(repeating: 5, count: 31)
    try await expect("headerWrong", changed)
    changed = messages
    changed[0].header.sectorSize = 5_000
    try await expect("headerWrong", changed)
  }

  @Test("of a later format, or none at all, is told from a damaged one")
  func otherFormats() async throws {
    defer { try? FileManager.default.removeItem(atPath: self.directory) }
    try self.write(Self.messages(Item.all))
    var bytes = try Data(contentsOf: URL(filePath: self.path))
    bytes[8] = 2
    try bytes.write(to: URL(filePath: self.path))
    #expect(try await self.fault() == "newerFormat")
    try Data("something else\n".utf8).write(to: URL(filePath: self.path))
    #expect(try await self.fault() == "notABackup")
    try FileManager.default.removeItem(atPath: self.path)
    await #expect(throws: BlocktreeError.self) { _ = try await ClusterClient.verifyBackup(self.path) }
  }
}
