// SPDX-License-Identifier: Apache-2.0

/// A change as it stands in the log: the entry says in which slots the blocks are.
///
/// Where a change has few bytes of blocks, they stand in the entry too: it is then durable with the log's sync alone, and
/// the slots are written when it is applied and synced before the next checkpoint. Many bytes go to the slots at once,
/// and are there before the entry is in the log, so that they are written only once.
struct EntryBody: Sendable {
  var conditions: [Change.Condition] = []
  var records: [RecordChange] = []
  var blocks: [PlacedBlocks] = []
  var truncations: [Change.Truncation] = []
  var sessionsOpened: [Change.SessionOpening] = []
  var operations: [Change.Operation] = []
  var certificates: [Change.Certificate] = []
  var facts: [Change.Fact] = []
  var extra: [UInt8] = []
  /// The bytes of each of `blocks`, where they stand in the entry; empty where they are in the slots already.
  var inlined: [ArraySlice<UInt8>] = []

  /// Consecutive blocks and their slots.
  struct PlacedBlocks: Sendable {
    var inode: UInt64
    var level: UInt8
    var index: UInt64
    var runs: [SlotRun]
    var checksums: [UInt32]
  }

  /// 1 had no conditions: they had been checked before.
  private static let version: UInt8 = 2
  /// The same, with the bytes of the blocks at the end.
  private static let versionInlined: UInt8 = 3

  /// The bytes of blocks that a change may have for them to stand in the entry: what costs less than another sync.
  static let inlinedBytesMax = 64 << 10

  /// Whether the bytes of a change's blocks stand in its entry.
  static func isInlined(_ change: Change, _ configuration: StoreConfiguration) -> Bool {
    let blockBytes = QueuedWork.blockBytes(change)
    guard blockBytes > 0, blockBytes <= self.inlinedBytesMax else { return false }
    let payloadMax = SegmentedLog.payloadBytesMax(segmentBytes: configuration.segmentBytes)
    return self.byteCountMax(of: change) + blockBytes + change.blocks.count * 4 <= payloadMax
  }

  init(_ change: Change, blocks: [PlacedBlocks]) {
    self.conditions = change.conditions
    self.records = change.records
    self.blocks = blocks
    self.truncations = change.truncations
    self.sessionsOpened = change.sessionsOpened
    self.operations = change.operations
    self.certificates = change.certificates
    self.facts = change.facts
    self.extra = change.payloadExtra
  }

  /// At least the number of bytes that the change takes in the log.
  static func byteCountMax(of change: Change) -> Int {
    var count = 64 + change.payloadExtra.count + change.conditions.count * 49
    for record in change.records {
      count += 48
      if case .put(let record) = record { count += record.bytes.count + record.parents.count * 8 }
    }
    // The worst case: each block in a run of its own.
    for block in change.blocks { count += 32 + block.count * 16 }
    for truncation in change.truncations { count += 16 + truncation.keptCounts.count * 8 }
    for opening in change.sessionsOpened { count += 32 + opening.owner.count }
    for operation in change.operations { count += 32 + operation.result.count }
    for certificate in change.certificates { count += 40 + certificate.bytes.count }
    for fact in change.facts { count += 16 + fact.key.utf8.count + fact.value.count }
    return count
  }

  func encoded() -> [UInt8] {
    var writer = ByteWriter()
    writer.bytes.reserveCapacity(1_024 + self.inlined.reduce(0) { $0 + $1.count })
    writer.append(self.inlined.isEmpty ? Self.version : Self.versionInlined)
    writer.append(UInt32(self.conditions.count))
    for condition in self.conditions { Self.append(condition, to: &writer) }
    writer.append(UInt32(self.records.count))
    for record in self.records { Self.append(record, to: &writer) }
    writer.append(UInt32(self.blocks.count))
    for block in self.blocks { Self.append(block, to: &writer) }
    writer.append(UInt32(self.truncations.count))
    for truncation in self.truncations {
      writer.append(truncation.inode)
      writer.append(UInt32(truncation.keptCounts.count))
      for count in truncation.keptCounts { writer.append(count) }
    }
    writer.append(UInt32(self.sessionsOpened.count))
    for opening in self.sessionsOpened {
      writer.append(raw: opening.session.bytes)
      writer.append(opening.openedAt)
      writer.append(counted: opening.owner)
    }
    writer.append(UInt32(self.operations.count))
    for operation in self.operations {
      writer.append(raw: operation.session.bytes)
      writer.append(operation.sequence)
      writer.append(counted: operation.result)
    }
    writer.append(UInt32(self.certificates.count))
    for certificate in self.certificates {
      writer.append(raw: certificate.digest.bytes)
      writer.append(counted: certificate.bytes)
    }
    writer.append(UInt32(self.facts.count))
    for fact in self.facts {
      writer.append(counted: fact.key.utf8)
      writer.append(counted: fact.value)
    }
    writer.append(counted: self.extra)
    for bytes in self.inlined { writer.append(counted: bytes) }
    return writer.bytes
  }

  /// Nil where the bytes are not what `encoded` gives.
  init?(encoded bytes: [UInt8]) {
    var reader = ByteReader(bytes)
    do throws(ByteReader.Malformed) {
      let version: UInt8 = try reader.read()
      guard version >= 1, version <= Self.versionInlined else { return nil }
      if version > 1 {
        for _ in 0..<(try reader.readCount(itemSize: 9)) { self.conditions.append(try Self.condition(&reader)) }
      }
      for _ in 0..<(try reader.readCount(itemSize: 9)) { self.records.append(try Self.record(&reader)) }
      for _ in 0..<(try reader.readCount(itemSize: 25)) { self.blocks.append(try Self.placedBlocks(&reader)) }
      for _ in 0..<(try reader.readCount(itemSize: 12)) {
        let inode: UInt64 = try reader.read()
        var counts: [UInt64] = []
        for _ in 0..<(try reader.readCount(itemSize: 8)) { counts.append(try reader.read()) }
        self.truncations.append(.init(inode: inode, keptCounts: counts))
      }
      for _ in 0..<(try reader.readCount(itemSize: 28)) {
        let session = try Self.session(&reader)
        let openedAt: Int64 = try reader.read()
        self.sessionsOpened.append(.init(session: session, owner: try reader.readCounted(), openedAt: openedAt))
      }
      for _ in 0..<(try reader.readCount(itemSize: 28)) {
        let session = try Self.session(&reader)
        let sequence: UInt64 = try reader.read()
        self.operations.append(.init(session: session, sequence: sequence, result: try reader.readCounted()))
      }
      for _ in 0..<(try reader.readCount(itemSize: 36)) {
        guard let digest = Digest(try reader.readRaw(32)) else { return nil }
        self.certificates.append(.init(digest: digest, bytes: try reader.readCounted()))
      }
      for _ in 0..<(try reader.readCount(itemSize: 8)) {
        let key = String(decoding: try reader.readCounted(), as: UTF8.self)
        self.facts.append(.init(key: key, value: try reader.readCounted()))
      }
      self.extra = try reader.readCounted()
      if version == Self.versionInlined {
        // Without blocks it is written as the version before.
        guard !self.blocks.isEmpty else { return nil }
        for _ in self.blocks { self.inlined.append(try reader.readCounted()[...]) }
      }
      guard reader.isAtEnd else { return nil }
    } catch {
      return nil
    }
  }

  private static func append(_ condition: Change.Condition, to writer: inout ByteWriter) {
    writer.append(condition.inode)
    writer.append(UInt8(condition.version == nil ? 0 : 1) | UInt8(condition.digest == nil ? 0 : 2))
    if let version = condition.version { writer.append(version) }
    if let digest = condition.digest { writer.append(raw: digest.bytes) }
  }

  private static func condition(_ reader: inout ByteReader) throws(ByteReader.Malformed) -> Change.Condition {
    let inode: UInt64 = try reader.read()
    let flags: UInt8 = try reader.read()
    guard flags <= 3 else { throw ByteReader.Malformed() }
    let version: UInt64? = flags & 1 == 0 ? nil : try reader.read()
    var digest: Digest?
    if flags & 2 != 0 {
      guard let read = Digest(try reader.readRaw(32)) else { throw ByteReader.Malformed() }
      digest = read
    }
    return .init(inode: inode, version: version, digest: digest)
  }

  private static func append(_ change: RecordChange, to writer: inout ByteWriter) {
    switch change {
    case .put(let record):
      writer.append(UInt8(1))
      writer.append(record.inode)
      writer.append(record.version)
      writer.append(record.flags.rawValue)
      writer.append(UInt32(record.parents.count))
      for parent in record.parents { writer.append(parent) }
      writer.append(counted: record.bytes)
    case .remove(let inode):
      writer.append(UInt8(2))
      writer.append(inode)
    }
  }

  private static func record(_ reader: inout ByteReader) throws(ByteReader.Malformed) -> RecordChange {
    switch try reader.read(UInt8.self) {
    case 1:
      let inode: UInt64 = try reader.read()
      let version: UInt64 = try reader.read()
      let flags = RecordFlags(rawValue: try reader.read())
      var parents: [UInt64] = []
      for _ in 0..<(try reader.readCount(itemSize: 8)) { parents.append(try reader.read()) }
      let bytes = try reader.readCounted()
      return .put(StoredRecord(inode: inode, version: version, bytes: bytes, parents: parents, flags: flags))
    case 2: return .remove(inode: try reader.read())
    default: throw ByteReader.Malformed()
    }
  }

  private static func append(_ blocks: PlacedBlocks, to writer: inout ByteWriter) {
    writer.append(blocks.inode)
    writer.append(blocks.level)
    writer.append(blocks.index)
    writer.append(UInt32(blocks.runs.count))
    for run in blocks.runs {
      writer.append(run.first)
      writer.append(UInt32(run.count))
    }
    writer.append(UInt32(blocks.checksums.count))
    for checksum in blocks.checksums { writer.append(checksum) }
  }

  private static func placedBlocks(_ reader: inout ByteReader) throws(ByteReader.Malformed) -> PlacedBlocks {
    let inode: UInt64 = try reader.read()
    let level: UInt8 = try reader.read()
    let index: UInt64 = try reader.read()
    var runs: [SlotRun] = []
    var slotCount = 0
    for _ in 0..<(try reader.readCount(itemSize: 12)) {
      let first: UInt64 = try reader.read()
      let run = SlotRun(first: first, count: Int(try reader.read(UInt32.self)))
      runs.append(run)
      slotCount += run.count
    }
    var checksums: [UInt32] = []
    for _ in 0..<(try reader.readCount(itemSize: 4)) { checksums.append(try reader.read()) }
    guard slotCount == checksums.count else { throw ByteReader.Malformed() }
    return PlacedBlocks(inode: inode, level: level, index: index, runs: runs, checksums: checksums)
  }

  private static func session(_ reader: inout ByteReader) throws(ByteReader.Malformed) -> SessionID {
    guard let session = SessionID(try reader.readRaw(16)) else { throw ByteReader.Malformed() }
    return session
  }
}
