// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import Inodes
internal import SwiftProtobuf
internal import Trust

/// The content of one inode as a cluster stores it, of one version whose record was verified: fetched sealed, verified
/// against the signed integrity tree, and opened here. Whoever hands it out needs no key.
struct SealedContent: Sendable {
  let record: InodeRecord
  private let sectors: SectorClient
  private let cipher: SectorCipher
  private var tree: IntegrityTree

  /// The most that one call reads.
  static let rangeByteCountMax: UInt64 = 1 << 20
  /// Tree nodes are fetched for so many sectors ahead, so that few calls wait for them.
  private static let sectorsAhead: UInt64 = 4_096
  /// Tree nodes that are held, of 4 KiB each.
  private static let nodeCountMax = 512

  /// - Parameter key: of the record's own epoch.
  init(_ record: InodeRecord, key: FileKey, _ sectors: SectorClient) throws(BlocktreeError) {
    self.record = record
    self.sectors = sectors
    let content = record.content.part
    do {
      self.cipher = SectorCipher(keys: try FileKeys(key, content: content), contentID: content.contentID)
    } catch {
      throw .damaged(FileID(record.fileID), "The keys of earlier epochs can not be opened")
    }
    self.tree = IntegrityTree(content)
  }

  var file: FileID { FileID(self.record.fileID) }
  var type: Inodes.FileType { self.record.attributes.part.type }
  var size: UInt64 { self.record.content.part.size }

  /// Reads a range of bytes, at most ``rangeByteCountMax``; what lies beyond the end is left out.
  ///
  /// - Throws: with the reason ``BlocktreeError/Reason/versionGone`` or `notFound` when the inode was changed or
  ///   removed.
  mutating func read(_ range: Range<UInt64>) async throws -> [UInt8] {
    let content = self.record.content.part
    let range = range.clamped(to: 0..<content.size)
    guard !range.isEmpty else { return [] }
    guard UInt64(range.count) <= Self.rangeByteCountMax else {
      throw BlocktreeError.invalid("One read takes at most 1 MiB.", field: "length")
    }
    if !content.inlineContent.isEmpty { return try self.readInline(range) }
    let size = UInt64(content.sectorSize)
    let indexes = range.lowerBound / size..<(range.upperBound - 1) / size + 1
    try await self.loadTree(for: indexes)
    var leaves: [Leaf] = []
    leaves.reserveCapacity(indexes.count)
    do {
      for index in indexes { leaves.append(try self.tree.leaf(at: index)) }
    } catch {
      throw BlocktreeError.damaged(self.file, "A leaf of the integrity tree is malformed", part: "node")
    }
    let stored = zip(indexes, leaves).filter { !$0.1.isHole }.map(\.0)
    let blocks = try await self.sectors.blocks(
      of: self.file, version: self.record.version.rawValue, level: 0, indexes: stored, byteCount: content.sectorSize)
    var plain: [UInt8] = []
    plain.reserveCapacity(range.count)
    for (index, leaf) in zip(indexes, leaves) {
      let start = index * size
      let part = Int(max(range.lowerBound, start) - start)..<Int(min(range.upperBound, start + size) - start)
      if leaf.isHole {
        plain.append(contentsOf: repeatElement(0, count: part.count))
        continue
      }
      guard let sealed = blocks[index] else {
        throw BlocktreeError.damaged(self.file, "A sector is missing", part: "sector \(index)")
      }
      // The tag alone does not do: whoever has the key could make other bytes with the same one.
      guard Digest32(sha256: sealed) == leaf.digest else {
        throw BlocktreeError.damaged(
          self.file, "A sector's bytes are not those that were signed", part: "sector \(index)")
      }
      do { try self.cipher.open(sealed, leaf: leaf, at: index, range: part, into: &plain) } catch {
        throw BlocktreeError.damaged(self.file, "A sector can not be opened", part: "sector \(index)")
      }
    }
    return plain
  }

  private func readInline(_ range: Range<UInt64>) throws(BlocktreeError) -> [UInt8] {
    let content = self.record.content.part
    guard let plain = try? self.cipher.open(content.inlineContent, as: .inlineContent),
      UInt64(plain.count) == content.size
    else { throw .damaged(self.file, "The content can not be opened", part: "content") }
    return Array(plain[Int(range.lowerBound)..<Int(range.upperBound)])
  }

  /// Loads the tree nodes above some sectors, and above those that will come next.
  private mutating func loadTree(for indexes: Range<UInt64>) async throws {
    if self.tree.missing(for: indexes).isEmpty { return }
    if self.tree.loadedNodeCount > Self.nodeCountMax { self.tree.forgetUnchangedNodes() }
    let ahead = indexes.lowerBound..<max(indexes.upperBound, indexes.lowerBound + Self.sectorsAhead)
    while true {
      let missing = self.tree.missing(for: ahead)
      guard let level = missing.first?.level else { return }
      let blocks = try await self.sectors.blocks(
        of: self.file, version: self.record.version.rawValue, level: level, indexes: missing.map(\.index),
        byteCount: TreeShape.nodeByteCount)
      for key in missing {
        do { try self.tree.insert(blocks[key.index].map { Array($0) } ?? [], at: key) } catch {
          throw BlocktreeError.damaged(
            self.file, "A node of the integrity tree is not the one that was signed",
            part: "node \(key.level):\(key.index)")
        }
      }
    }
  }

  // MARK: Directories

  /// The entry of a name; nil when there is none. All sectors are looked at until it is found.
  mutating func entry(_ name: PathComponent) async throws -> Inodes.DirectoryEntry? {
    let content = self.record.content.part
    guard content.directoryFormat == DirectorySector.format else {
      throw BlocktreeError(
        code: .failedPrecondition, reason: BlocktreeError.Reason(rawValue: "UNSUPPORTED_VERSION"),
        message: "A newer release wrote this directory.",
        metadata: ["file": "\(self.file)", "format": "\(content.directoryFormat)"])
    }
    let size = content.sectorSize
    var offset: UInt64 = 0
    while offset < content.size {
      let bytes = try await self.read(offset..<offset + Self.rangeByteCountMax)
      for start in stride(from: 0, to: bytes.count, by: size) {
        let entries: [Inodes.DirectoryEntry]
        do { entries = try DirectorySector.decode(bytes[start..<min(start + size, bytes.count)]) } catch {
          throw BlocktreeError.damaged(self.file, "The entries of the directory are malformed", part: "content")
        }
        if let entry = entries.first(where: { $0.name == name }) { return entry }
      }
      offset += UInt64(bytes.count)
    }
    return nil
  }
}

extension SectorClient {
  private static let runsPerRequest = 64

  /// Fetches sealed sectors or tree nodes of one version into memory. One that does not come is left out. It is done
  /// again at another process where one fails half-way.
  ///
  /// - Parameter byteCount: of each.
  func blocks(
    of file: FileID, version: UInt64, level: Int, indexes: [UInt64], byteCount: Int
  ) async throws -> [UInt64: Data] {
    var found: [UInt64: Data] = [:]
    var runs = SectorRuns.of(indexes, level: level)[...]
    while !runs.isEmpty {
      let some = Array(runs.prefix(Self.runsPerRequest))
      runs = runs.dropFirst(some.count)
      let request = Blocktree_V1_ReadSectorsRequest.with {
        $0.fileID = file.message
        $0.version = version
        $0.runs = some
      }
      let wanted = Set(some.flatMap { $0.start..<$0.start + UInt64($0.count) })
      let part = try await self.cluster.call(timeout: self.timeout) { connection, options in
        try await connection.sectors.readSectors(request, options: options) { response in
          var part: [UInt64: Data] = [:]
          for try await message in response.messages {
            for block in message.blocks where !block.bytes.isEmpty {
              guard block.level == UInt32(level), wanted.contains(block.index), block.bytes.count == byteCount else {
                throw BlocktreeError.malformedAnswer("blocks")
              }
              part[block.index] = block.bytes
            }
          }
          return part
        }
      }
      found.merge(part) { _, new in new }
    }
    return found
  }
}

extension FileInfo {
  /// Describes a verified record.
  init(_ record: InodeRecord) {
    let (content, attributes) = (record.content.part, record.attributes.part)
    // A time set by hand counts until the content changes.
    let modified = attributes.modifiedAtVersion == content.version ? attributes.modified : content.modified
    self.init(
      id: FileID(record.fileID), type: FileType(rawValue: Int(attributes.type.rawValue)), size: content.size,
      version: record.version.rawValue, linkCount: record.links.part.count,
      mode: FileMode(rawValue: attributes.rules.mode.rawValue), owner: "\(attributes.rules.owner)",
      group: "\(attributes.rules.group)", access: attributes.rules.entries.map { AccessEntry($0) },
      modified: Timestamp(nanoseconds: modified),
      changed: Timestamp(nanoseconds: max(attributes.changed, content.modified)),
      accessed: Timestamp(nanoseconds: attributes.accessed == 0 ? modified : attributes.accessed),
      created: Timestamp(nanoseconds: attributes.created),
      storedByteCount: content.sectorCount * UInt64(content.sectorSize),
      servedByGeneration: attributes.servedByGeneration?.rawValue, keyEpoch: content.keyEpoch,
      readcaps: attributes.readcaps.map { "\($0.principal)" }, isCutOff: attributes.isCutOff)
  }
}

extension AccessEntry {
  fileprivate init(_ entry: Trust.AccessEntry) {
    switch entry.subject {
    case .principal(let path): self.init(path: "\(path)", isGroup: false, permission: entry.permission.rawValue)
    case .group(let path): self.init(path: "\(path)", isGroup: true, permission: entry.permission.rawValue)
    }
  }
}
