// SPDX-License-Identifier: Apache-2.0

/// A piece of a ``StoreSnapshot``. All of them in order of their cursors, with ``end(_:)`` last, are a whole store.
package enum SnapshotItem: Hashable, Sendable {
  case record(StoredRecord)
  case blocks(SnapshotBlocks)
  case session(SessionID, SessionHeader)
  case result(SessionID, sequence: UInt64, bytes: [UInt8])
  case certificate(Digest, bytes: [UInt8])
  case fact(key: String, value: [UInt8])
  /// Nothing follows, and this is how much there was.
  case end(SnapshotCounts)

  /// No item takes more when encoded.
  package static let encodedBytesMax = Self.blockBytesMax + 4_096
  /// Bytes of blocks in one item. A sector is at most this large.
  static let blockBytesMax = 1 << 20

  /// The place of the item among all of its snapshot: reading goes on after it.
  package var cursor: SnapshotCursor {
    switch self {
    case .record(let record): .record(record.inode)
    case .blocks(let blocks): .blocks(blocks.key, covered: blocks.skipped + blocks.checksums.count)
    case .session(let session, _): .session(session)
    case .result(let session, let sequence, _): .result(session, sequence: sequence)
    case .certificate(let digest, _): .certificate(digest)
    case .fact(let key, _): .fact(key)
    case .end: .end
    }
  }
}

/// Blocks of one group that are not holes: all of them, or the next ones where they are too large for one item.
package struct SnapshotBlocks: Hashable, Sendable {
  package var key: GroupKey
  /// The version of the whole group.
  package var version: UInt64
  /// A bit for each block of the group that is not a hole, the lowest for the first; also those of other items.
  package var mask: UInt64
  /// How many of the blocks in `mask` the items before had.
  package var skipped: Int
  /// Of each block here, as the donor had stored it.
  package var checksums: [UInt32]
  /// The blocks one after the other.
  package var bytes: [UInt8]

  package init(
    key: GroupKey, version: UInt64, mask: UInt64, skipped: Int, checksums: [UInt32], bytes: [UInt8]
  ) {
    self.key = key
    self.version = version
    self.mask = mask
    self.skipped = skipped
    self.checksums = checksums
    self.bytes = bytes
  }

  var isLast: Bool { self.skipped + self.checksums.count == self.mask.nonzeroBitCount }
}

/// How many rows of each kind a snapshot has.
package struct SnapshotCounts: Hashable, Sendable {
  package var records: UInt64 = 0
  package var groups: UInt64 = 0
  package var sessions: UInt64 = 0
  package var results: UInt64 = 0
  package var certificates: UInt64 = 0
  package var facts: UInt64 = 0

  package init() {}

  mutating func count(_ item: SnapshotItem) {
    switch item {
    case .record: self.records += 1
    case .blocks(let blocks): if blocks.isLast { self.groups += 1 }
    case .session: self.sessions += 1
    case .result: self.results += 1
    case .certificate: self.certificates += 1
    case .fact: self.facts += 1
    case .end: break
    }
  }
}

/// A place in a snapshot, behind one of its items. The same in each snapshot of the same log index, whoever made it.
package enum SnapshotCursor: Hashable, Comparable, Sendable {
  case record(UInt64)
  /// Behind so many blocks of the group, holes not counted.
  case blocks(GroupKey, covered: Int)
  case session(SessionID)
  case result(SessionID, sequence: UInt64)
  case certificate(Digest)
  case fact(String)
  case end

  package var kind: SnapshotKind {
    switch self {
    case .record: .record
    case .blocks: .blocks
    case .session: .session
    case .result: .result
    case .certificate: .certificate
    case .fact: .fact
    case .end: .end
    }
  }

  /// Big-endian, and so that bytes are in the order of cursors: that of the rows in SQLite, where sequence numbers are
  /// signed.
  package func encoded() -> [UInt8] {
    var writer = ByteWriter()
    writer.append(self.kind.rawValue)
    switch self {
    case .record(let inode): writer.append(inode.byteSwapped)
    case .blocks(let key, let covered):
      writer.append(key.inode.byteSwapped)
      writer.append(key.level)
      writer.append(key.group.byteSwapped)
      writer.append(UInt8(clamping: covered))
    case .session(let session): writer.append(raw: session.bytes)
    case .result(let session, let sequence):
      writer.append(raw: session.bytes)
      writer.append((sequence ^ 1 << 63).byteSwapped)
    case .certificate(let digest): writer.append(raw: digest.bytes)
    case .fact(let key): writer.append(raw: key.utf8)
    case .end: break
    }
    return writer.bytes
  }

  /// Nil for what no cursor is encoded to.
  package init?(encoded: [UInt8]) {
    var reader = ByteReader(encoded)
    do throws(ByteReader.Malformed) {
      guard let kind = SnapshotKind(rawValue: try reader.read()) else { return nil }
      switch kind {
      case .record: self = .record((try reader.read(UInt64.self)).byteSwapped)
      case .blocks:
        let key = GroupKey(
          inode: (try reader.read(UInt64.self)).byteSwapped, level: try reader.read(),
          group: (try reader.read(UInt64.self)).byteSwapped)
        let covered: UInt8 = try reader.read()
        guard covered > 0, covered <= BlockGroup.size else { return nil }
        self = .blocks(key, covered: Int(covered))
      case .session: self = .session(try reader.readSession())
      case .result:
        self = .result(try reader.readSession(), sequence: (try reader.read(UInt64.self)).byteSwapped ^ 1 << 63)
      case .certificate:
        guard let digest = Digest(try reader.readRaw(32)) else { return nil }
        self = .certificate(digest)
      case .fact:
        guard let key = String(validating: try reader.readRaw(reader.remaining), as: UTF8.self),
          key.utf8.count <= StoreConfiguration.factKeyBytesMax
        else { return nil }
        self = .fact(key)
      case .end: self = .end
      }
      guard reader.isAtEnd else { return nil }
    } catch {
      return nil
    }
  }

  package static func < (left: SnapshotCursor, right: SnapshotCursor) -> Bool {
    left.encoded().lexicographicallyPrecedes(right.encoded())
  }
}

/// The kinds of items, in their order.
package enum SnapshotKind: UInt8, Sendable {
  case record = 1
  case blocks, session, result, certificate, fact, end
}

// MARK: Encoding

extension SnapshotItem {
  private static let formatVersion: UInt8 = 1

  /// Version, kind, fields, a checksum over these, and last the bytes of blocks, which have checksums of their own.
  package func encoded() -> [UInt8] {
    var writer = ByteWriter()
    writer.append(Self.formatVersion)
    writer.append(self.cursor.kind.rawValue)
    var blockBytes: [UInt8] = []
    switch self {
    case .record(let record):
      writer.append(record.inode)
      writer.append(record.version)
      writer.append(record.flags.rawValue)
      writer.append(UInt32(record.parents.count))
      for parent in record.parents { writer.append(parent) }
      writer.append(counted: record.bytes)
    case .blocks(let blocks):
      writer.bytes.reserveCapacity(blocks.bytes.count + 512)
      writer.append(blocks.key.inode)
      writer.append(blocks.key.level)
      writer.append(blocks.key.group)
      writer.append(blocks.version)
      writer.append(blocks.mask)
      writer.append(UInt8(clamping: blocks.skipped))
      writer.append(UInt32(blocks.checksums.count))
      for checksum in blocks.checksums { writer.append(checksum) }
      blockBytes = blocks.bytes
    case .session(let session, let header):
      writer.append(raw: session.bytes)
      writer.append(header.openedAt)
      writer.append(header.highest)
      writer.append(header.lastUsed.rawValue)
      writer.append(counted: header.owner)
    case .result(let session, let sequence, let bytes):
      writer.append(raw: session.bytes)
      writer.append(sequence)
      writer.append(counted: bytes)
    case .certificate(let digest, let bytes):
      writer.append(raw: digest.bytes)
      writer.append(counted: bytes)
    case .fact(let key, let value):
      writer.append(counted: key.utf8)
      writer.append(counted: value)
    case .end(let counts):
      writer.append(counts)
    }
    writer.append(Checksum.of(writer.bytes))
    writer.append(raw: blockBytes)
    return writer.bytes
  }

  /// Nil where the bytes are no item of this format in every respect, their length and checksum included. The blocks'
  /// own checksums are not compared here; ``SnapshotImport`` does, which knows how large a block is.
  package init?(encoded: [UInt8]) {
    guard encoded.count <= Self.encodedBytesMax else { return nil }
    var reader = ByteReader(encoded)
    do throws(ByteReader.Malformed) {
      guard try reader.read(UInt8.self) == Self.formatVersion,
        let kind = SnapshotKind(rawValue: try reader.read()), var item = try Self.fields(kind, &reader)
      else { return nil }
      let fieldsCount = encoded.count - reader.remaining
      let checksum = encoded.withUnsafeBytes { Checksum.of(UnsafeRawBufferPointer(rebasing: $0[..<fieldsCount])) }
      guard try reader.read(UInt64.self) == checksum else { return nil }
      if case .blocks(var blocks) = item {
        blocks.bytes = try reader.readRaw(reader.remaining)
        item = .blocks(blocks)
      }
      guard reader.isAtEnd, item.isWithinLimits else { return nil }
      self = item
    } catch {
      return nil
    }
  }

  private static func fields(
    _ kind: SnapshotKind, _ reader: inout ByteReader
  ) throws(ByteReader.Malformed) -> SnapshotItem? {
    switch kind {
    case .record:
      var record = StoredRecord(inode: try reader.read(), version: try reader.read(), bytes: [])
      record.flags = RecordFlags(rawValue: try reader.read())
      for _ in 0..<(try reader.readCount(itemSize: 8)) { record.parents.append(try reader.read()) }
      record.bytes = try reader.readCounted()
      return .record(record)
    case .blocks:
      let key = GroupKey(inode: try reader.read(), level: try reader.read(), group: try reader.read())
      var blocks = SnapshotBlocks(
        key: key, version: try reader.read(), mask: try reader.read(), skipped: Int(try reader.read(UInt8.self)),
        checksums: [], bytes: [])
      for _ in 0..<(try reader.readCount(itemSize: 4)) { blocks.checksums.append(try reader.read()) }
      return .blocks(blocks)
    case .session:
      let session = try reader.readSession()
      var header = SessionHeader(
        owner: [], openedAt: try reader.read(), highest: try reader.read(), lastUsed: LogIndex(try reader.read()))
      header.owner = try reader.readCounted()
      return .session(session, header)
    case .result:
      return .result(try reader.readSession(), sequence: try reader.read(), bytes: try reader.readCounted())
    case .certificate:
      guard let digest = Digest(try reader.readRaw(32)) else { return nil }
      return .certificate(digest, bytes: try reader.readCounted())
    case .fact:
      guard let key = String(validating: try reader.readCounted(), as: UTF8.self) else { return nil }
      return .fact(key: key, value: try reader.readCounted())
    case .end:
      return .end(try reader.readCounts())
    }
  }

  /// Whether the item keeps the rules that hold for all stores, as ``Change`` has to.
  var isWithinLimits: Bool {
    func isInode(_ inode: UInt64) -> Bool { inode > 0 && inode <= UInt64(Int64.max) }
    switch self {
    case .record(let record):
      return isInode(record.inode) && record.version <= UInt64(Int64.max)
        && record.bytes.count <= StoreConfiguration.recordBytesMax
        && record.parents.count <= StoreConfiguration.parentCountMax
    case .blocks(let blocks):
      return isInode(blocks.key.inode) && blocks.key.group < StoreConfiguration.blockIndexMax >> 6
        && blocks.version <= UInt64(Int64.max) && !blocks.checksums.isEmpty && blocks.skipped >= 0
        && blocks.skipped + blocks.checksums.count <= blocks.mask.nonzeroBitCount
        && blocks.bytes.count <= Self.blockBytesMax && blocks.bytes.count % blocks.checksums.count == 0
    case .session(_, let header): return header.owner.count <= StoreConfiguration.ownerBytesMax
    case .result(_, let sequence, let bytes): return sequence > 0 && bytes.count <= StoreConfiguration.resultBytesMax
    case .certificate(_, let bytes): return bytes.count <= StoreConfiguration.recordBytesMax
    case .fact(let key, let value):
      return key.utf8.count <= StoreConfiguration.factKeyBytesMax && value.count <= StoreConfiguration.recordBytesMax
    case .end: return true
    }
  }

  /// What the item takes when encoded, within a few bytes.
  var byteCount: Int {
    switch self {
    case .record(let record): record.bytes.count + record.parents.count * 8 + 48
    case .blocks(let blocks): blocks.bytes.count + blocks.checksums.count * 4 + 56
    case .session(_, let header): header.owner.count + 64
    case .result(_, _, let bytes): bytes.count + 48
    case .certificate(_, let bytes): bytes.count + 48
    case .fact(let key, let value): key.utf8.count + value.count + 24
    case .end: 64
    }
  }
}

extension ByteWriter {
  mutating func append(_ counts: SnapshotCounts) {
    for count in [
      counts.records, counts.groups, counts.sessions, counts.results, counts.certificates, counts.facts,
    ] {
      self.append(count)
    }
  }
}

extension ByteReader {
  mutating func readCounts() throws(Malformed) -> SnapshotCounts {
    var counts = SnapshotCounts()
    counts.records = try self.read()
    counts.groups = try self.read()
    counts.sessions = try self.read()
    counts.results = try self.read()
    counts.certificates = try self.read()
    counts.facts = try self.read()
    return counts
  }

  fileprivate mutating func readSession() throws(Malformed) -> SessionID {
    guard let session = SessionID(try self.readRaw(16)) else { throw Malformed() }
    return session
  }
}
