// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import GRDB

/// A read transaction that stays open, on a connection of its own.
///
/// SQLite goes on taking transactions meanwhile, but can not begin its write-ahead log anew: the file grows by what
/// checkpoints write until the snapshot ends.
final class SQLiteIndexSnapshot: StoreIndexSnapshot {
  /// Nil when closed. Locked while it is read, so that whoever has closed it knows that nothing is read any more.
  private let snapshot: Monitor<DatabaseSnapshot?>

  init(_ snapshot: DatabaseSnapshot) { self.snapshot = Monitor(snapshot) }

  func close() { self.snapshot.withLock { $0 = nil } }

  func applied() throws(StoreError) -> (index: LogIndex, term: UInt64) {
    try self.read { try SQLiteIndex.applied($0) }
  }

  func counts() throws(StoreError) -> SnapshotCounts {
    try self.read { database in
      func count(_ rows: String) throws -> UInt64 {
        UInt64(try Int64.fetchOne(database, sql: "SELECT count(*) FROM " + rows) ?? 0)
      }
      var counts = SnapshotCounts()
      counts.records = try count("records")
      counts.groups = try count("block_groups")
      counts.sessions = try count("sessions")
      counts.results = try count(Self.resultRows)
      counts.certificates = try count("certificates")
      counts.facts = try count("facts")
      return counts
    }
  }

  func forEachRow(
    after cursor: SnapshotCursor?, _ body: (IndexRow) throws(StoreError) -> Bool
  ) throws(StoreError) {
    try self.read { database in
      var rest = cursor
      for kind in [SnapshotKind.record, .blocks, .session, .result, .certificate, .fact] {
        if let cursor, kind.rawValue < cursor.kind.rawValue { continue }
        guard try Self.forEachRow(kind, after: rest, in: database, body) else { return }
        rest = nil
      }
    }
  }

  func read<Value>(_ body: (Database) throws -> Value) throws(StoreError) -> Value {
    try self.snapshot.withLock { snapshot throws(StoreError) in
      guard let snapshot else { throw .closed }
      return try translatingErrors { try snapshot.unsafeRead(body) }
    }
  }

  // MARK: Rows

  /// Unsigned comparison of numbers that are stored with their bit pattern.
  private static let resultRows = """
    results AS r CROSS JOIN sessions AS s ON s.session = r.session AND
      CASE WHEN (r.sequence < 0) = (s.highest < 0) THEN r.sequence <= s.highest ELSE s.highest < 0 END
    """

  /// Returns false where `body` did. The cursor is one of this kind, or nil.
  private static func forEachRow(
    _ kind: SnapshotKind, after cursor: SnapshotCursor?, in database: Database,
    _ body: (IndexRow) throws(StoreError) -> Bool
  ) throws -> Bool {
    guard let rows = try Self.rows(kind, after: cursor, in: database) else { return true }
    while let row = try rows.next() {
      guard try body(Self.row(kind, row)) else { return false }
    }
    return true
  }

  /// The rows of a kind behind a cursor of this kind, in order.
  ///
  /// - Parameter all: also results that no open session has.
  static func rows(
    _ kind: SnapshotKind, after cursor: SnapshotCursor?, all: Bool = false, in database: Database
  ) throws -> RowCursor? {
    let sql: String
    var arguments: StatementArguments = []
    // From the very first where there is no cursor, whatever its key.
    let isBehind = cursor == nil ? ">=" : ">"
    switch kind {
    case .record:
      sql = """
        SELECT inode, version, flags, parents, bytes, checksum FROM records WHERE inode \(isBehind) ? ORDER BY inode
        """
      var inode = Int64.min
      if case .record(let last) = cursor { inode = Int64(bitPattern: last) }
      arguments = [inode]
    case .blocks:
      sql = """
        SELECT inode, level, number, version, pointers, checksum FROM block_groups
        WHERE (inode, level, number) >= (?, ?, ?) ORDER BY inode, level, number
        """
      arguments = [Int64.min, Int64.min, Int64.min]
      if case .blocks(let key, _) = cursor {
        arguments = [Int64(bitPattern: key.inode), Int64(key.level), Int64(bitPattern: key.group)]
      }
    case .session:
      sql = """
        SELECT session, owner, opened_at, highest, last_used, checksum FROM sessions
        WHERE session \(isBehind) ? ORDER BY session
        """
      var session: [UInt8] = []
      if case .session(let last) = cursor { session = last.bytes }
      arguments = [Data(session)]
    case .result:
      sql = """
        SELECT r.session, r.sequence, r.result, r.checksum FROM \(all ? "results AS r" : Self.resultRows)
        WHERE (r.session, r.sequence) \(isBehind) (?, ?) ORDER BY r.session, r.sequence
        """
      arguments = [Data(), Int64.min]
      if case .result(let session, let sequence) = cursor {
        arguments = [Data(session.bytes), Int64(bitPattern: sequence)]
      }
    case .certificate:
      sql = "SELECT digest, bytes, checksum FROM certificates WHERE digest \(isBehind) ? ORDER BY digest"
      var digest: [UInt8] = []
      if case .certificate(let last) = cursor { digest = last.bytes }
      arguments = [Data(digest)]
    case .fact:
      sql = "SELECT key, value, checksum FROM facts WHERE key \(isBehind) ? ORDER BY key"
      var key = ""
      if case .fact(let last) = cursor { key = last }
      arguments = [Data(key.utf8)]
    case .end: return nil
    }
    return try Row.fetchCursor(database.cachedStatement(sql: sql), arguments: arguments)
  }

  static func row(_ kind: SnapshotKind, _ row: Row) throws(StoreError) -> IndexRow {
    switch kind {
    case .record: return .record(try SQLiteIndex.record(row.unsigned(0), row, from: 1))
    case .blocks:
      let level = UInt8(truncatingIfNeeded: row.unsigned(1))
      let key = GroupKey(inode: row.unsigned(0), level: level, group: row.unsigned(2))
      return .group(key, try SQLiteIndex.group(key, row, from: 3))
    case .session:
      let (bytes, header) = SQLiteIndex.session(row)
      guard let session = SessionID(bytes) else { throw .damaged(.index("session")) }
      guard RowChecksum.session(session, header) == row.unsigned(5) else { throw .damaged(.session(session)) }
      return .session(session, header)
    case .result:
      let (sequence, result) = (row.unsigned(1), row.bytes(2))
      guard let session = SessionID(row.bytes(0)) else { throw .damaged(.index("result")) }
      guard RowChecksum.result(session, sequence, result) == row.unsigned(3) else { throw .damaged(.session(session)) }
      return .result(session, sequence: sequence, bytes: result)
    case .certificate:
      let bytes = row.bytes(1)
      guard let digest = Digest(row.bytes(0)) else { throw .damaged(.index("certificate")) }
      guard RowChecksum.certificate(digest, bytes) == row.unsigned(2) else { throw .damaged(.certificate(digest)) }
      return .certificate(digest, bytes: bytes)
    case .fact, .end:
      let (key, value) = (String(decoding: row.bytes(0), as: UTF8.self), row.bytes(1))
      guard RowChecksum.fact(key, value) == row.unsigned(2) else { throw .damaged(.fact(key)) }
      return .fact(key: key, value: value)
    }
  }
}
