// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import SwiftProtobuf
internal import Trust

/// The rule that a backup breaks.
public enum BackupFault: String, Error, Hashable, Sendable {
  /// It does not begin as a backup does.
  case notABackup
  /// It is of a format that this release does not know.
  case newerFormat
  /// A part is not what was written, or is not where it was written.
  case checksumWrong
  /// It ends before its trailer.
  case truncated
  /// Something follows its trailer.
  case trailingBytes
  /// The header is missing, comes again, or says what can not be.
  case headerWrong
  /// What should be items is not.
  case itemMalformed
  /// An item does not come after the one before.
  case orderWrong
  /// There were more or fewer items, or of another kind, than its maker counted.
  case countsDiffer
  /// The items are not those that its maker had.
  case digestWrong
}

/// Takes the responses of a backup in their order, puts items together again, and finds what is missing, twice, in
/// another order or changed. Decides only: no file and no connection is reached from here.
///
/// The checksums inside of items are not compared here: those of the whole backup stand for them.
struct BackupAssembly: Sendable {
  private(set) var header: Blocktree_V1_BackupHeader?
  /// Present when the backup is whole.
  private(set) var trailer: Blocktree_V1_BackupTrailer?
  private(set) var itemByteCount: UInt64 = 0
  private var itemCount: UInt64 = 0
  private var counts = BackupCounts()
  private var digest = RunningDigest()
  /// The item that has not arrived wholly, and what it lacks.
  private var incomplete: [UInt8] = []
  private var missing = 0
  private var lastPlace: [UInt8] = []
  /// What the last item says of all.
  private var claimed: BackupCounts?

  static let itemByteCountMax: UInt32 = 1_052_672
  static let itemsPerResponseMax = 4_096
  static let responseByteCountMax = 128 << 10

  /// The encoded items that are complete with this response, in order.
  mutating func receive(_ response: Blocktree_V1_BackupResponse) throws(BackupFault) -> [[UInt8]] {
    guard self.trailer == nil else { throw .trailingBytes }
    let hasItems = !response.items.isEmpty || !response.itemByteCounts.isEmpty
    guard self.header != nil else {
      guard response.hasHeader, !response.hasTrailer, !hasItems else { throw .headerWrong }
      try self.begin(response.header)
      return []
    }
    guard !response.hasHeader else { throw .headerWrong }
    if response.hasTrailer {
      guard !hasItems else { throw .itemMalformed }
      try self.end(response.trailer)
      return []
    }
    return try self.items(response)
  }

  private mutating func begin(_ header: Blocktree_V1_BackupHeader) throws(BackupFault) {
    let sectorSize = header.sectorSize
    guard header.generation > 0, header.domain.count == Digest32.byteCount, header.index <= 1 << 60,
      header.term <= 1 << 60, sectorSize >= 4_096, sectorSize <= 1 << 20, sectorSize.nonzeroBitCount == 1
    else { throw .headerWrong }
    self.header = header
  }

  private mutating func items(_ response: Blocktree_V1_BackupResponse) throws(BackupFault) -> [[UInt8]] {
    guard response.itemByteCounts.count <= Self.itemsPerResponseMax,
      response.items.count <= Self.responseByteCountMax, !response.items.isEmpty
    else { throw .itemMalformed }
    var bytes = response.items[...]
    var items: [[UInt8]] = []
    if self.missing > 0 { try self.complete(from: &bytes, &items) }
    for byteCount in response.itemByteCounts {
      guard self.missing == 0, byteCount > 0, byteCount <= Self.itemByteCountMax else { throw .itemMalformed }
      self.missing = Int(byteCount)
      try self.complete(from: &bytes, &items)
    }
    guard bytes.isEmpty else { throw .itemMalformed }
    return items
  }

  private mutating func complete(from bytes: inout Data, _ items: inout [[UInt8]]) throws(BackupFault) {
    let piece = bytes.prefix(self.missing)
    bytes = bytes.dropFirst(piece.count)
    self.missing -= piece.count
    self.incomplete.append(contentsOf: piece)
    guard self.missing == 0 else { return }
    try self.note(self.incomplete)
    items.append(self.incomplete)
    self.incomplete = []
  }

  private mutating func note(_ bytes: [UInt8]) throws(BackupFault) {
    guard self.claimed == nil else { throw .orderWrong }
    guard let item = BackupItem(bytes) else { throw .itemMalformed }
    guard self.lastPlace.lexicographicallyPrecedes(item.place) else { throw .orderWrong }
    self.lastPlace = item.place
    self.counts.count(item)
    if item.kind == .end { self.claimed = item.counts }
    self.digest.update(bytes)
    self.itemCount += 1
    self.itemByteCount += UInt64(bytes.count)
  }

  private mutating func end(_ trailer: Blocktree_V1_BackupTrailer) throws(BackupFault) {
    guard self.missing == 0 else { throw .itemMalformed }
    guard let claimed = self.claimed, claimed == self.counts, BackupCounts(trailer) == self.counts,
      trailer.itemCount == self.itemCount, trailer.itemByteCount == self.itemByteCount
    else { throw .countsDiffer }
    guard Digest32(bytes: trailer.sha256) == self.digest.digest else { throw .digestWrong }
    self.trailer = trailer
  }
}

/// How much of each kind there is.
private struct BackupCounts: Hashable, Sendable {
  var records: UInt64 = 0
  var groups: UInt64 = 0
  var sessions: UInt64 = 0
  var results: UInt64 = 0
  var certificates: UInt64 = 0
  var facts: UInt64 = 0

  init() {}

  init(_ trailer: Blocktree_V1_BackupTrailer) {
    self.records = trailer.recordCount
    self.groups = trailer.groupCount
    self.sessions = trailer.sessionCount
    self.results = trailer.resultCount
    self.certificates = trailer.certificateCount
    self.facts = trailer.factCount
  }

  mutating func count(_ item: BackupItem) {
    switch item.kind {
    case .record: self.records += 1
    case .blocks: if item.completesGroup { self.groups += 1 }
    case .session: self.sessions += 1
    case .result: self.results += 1
    case .certificate: self.certificates += 1
    case .fact: self.facts += 1
    case .end: break
    }
  }
}

/// What can be told of an encoded item without a store: of which kind it is, and where it belongs. The format is that of
/// the store's snapshots.
private struct BackupItem {
  enum Kind: UInt8 {
    case record = 1
    case blocks, session, result, certificate, fact, end
  }

  let kind: Kind
  /// Bytes whose order is that of items.
  let place: [UInt8]
  /// Of blocks: whether these are the last of their group.
  private(set) var completesGroup = false
  /// Of the last item.
  private(set) var counts = BackupCounts()

  private static let formatVersion: UInt8 = 1

  /// Nil for what is no item.
  init?(_ bytes: [UInt8]) {
    guard bytes.count >= 2, bytes[0] == Self.formatVersion, let kind = Kind(rawValue: bytes[1]) else { return nil }
    self.kind = kind
    var fields = Fields(bytes: bytes[2...])
    var place = [kind.rawValue]
    switch kind {
    case .record:
      guard let inode = fields.take(8) else { return nil }
      place += inode.reversed()
    case .blocks:
      guard let inode = fields.take(8), let level = fields.take(1), let group = fields.take(8), fields.take(8) != nil,
        let mask = fields.number(8), let skipped = fields.number(1), let count = fields.number(4), count > 0,
        skipped + count <= UInt64(mask.nonzeroBitCount)
      else { return nil }
      place += inode.reversed() + level + group.reversed() + [UInt8(clamping: skipped + count)]
      self.completesGroup = skipped + count == UInt64(mask.nonzeroBitCount)
    case .session:
      guard let session = fields.take(16) else { return nil }
      place += session
    case .result:
      guard let session = fields.take(16), let sequence = fields.number(8) else { return nil }
      // Sequence numbers are in the order of signed ones.
      place += session + withUnsafeBytes(of: (sequence ^ 1 << 63).bigEndian, Array.init)
    case .certificate:
      guard let digest = fields.take(32) else { return nil }
      place += digest
    case .fact:
      guard let count = fields.number(4), let key = fields.take(Int(count)) else { return nil }
      place += key
    case .end:
      for field in [
        \BackupCounts.records, \.groups, \.sessions, \.results, \.certificates, \.facts,
      ] {
        guard let number = fields.number(8) else { return nil }
        self.counts[keyPath: field] = number
      }
    }
    self.place = place
  }

  private struct Fields {
    var bytes: ArraySlice<UInt8>

    mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
      guard self.bytes.count >= count else { return nil }
      defer { self.bytes = self.bytes.dropFirst(count) }
      return self.bytes.prefix(count)
    }

    /// Of at most 8 bytes, the lowest first.
    mutating func number(_ byteCount: Int) -> UInt64? {
      self.take(byteCount)?.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
  }
}
