// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import GRDB
internal import Synchronization

/// The index in SQLite: write-ahead logging, `synchronous=FULL`, one transaction for each checkpoint. See Format.md
/// for the tables.
///
/// Unsigned numbers are stored with their bit pattern as SQLite's signed integers; each row has a checksum over key
/// and contents.
package final class SQLiteIndex: StoreIndex {
  let database: DatabasePool
  /// SQLite's main file, for ``dropCached()``. Open for as long as SQLite has it open: closing any descriptor of a file
  /// ends all locks that the process has on it.
  let file: any StoreFile
  let path: String
  /// A check of the structure that is under way.
  let checking = Mutex<DatabaseSnapshot?>(nil)
  let isClosed = Mutex(false)
  /// Those given out, so that closing ends them. Ones that were let go are passed over.
  private let snapshots = Mutex<[WeakSnapshot]>([])

  private struct WeakSnapshot: Sendable {
    weak let snapshot: SQLiteIndexSnapshot?
  }

  /// Opens the index at this path, and makes an empty one where there is none.
  package init(path: String) throws(StoreError) {
    do throws(FileError) {
      // SQLite would make it readable for others; its other files take the mode of this one.
      self.file = try HostFiles().open(path, create: true)
    } catch {
      throw StoreError(error)
    }
    self.path = path
    var configuration = Configuration()
    configuration.maximumReaderCount = 4
    self.database = try translatingErrors {
      let pool = try DatabasePool(path: path, configuration: configuration)
      // Here and not while the connection is prepared: the pool chooses NORMAL when it turns on write-ahead logging,
      // and then a transaction is not on the disk when it ends, while the log it came from is used again.
      try pool.writeWithoutTransaction { database in
        try database.execute(sql: "PRAGMA synchronous = FULL")
        // While a snapshot is read SQLite's log only grows. Give the room back when it begins anew.
        try database.execute(sql: "PRAGMA journal_size_limit = \(64 << 20)")
        // What SQLite's own log holds may never have reached the disk, if a sync failed before the process ended. Only
        // the kernel still has it then. Once it is in the main file, and that is synced, it is there.
        try database.checkpoint(.truncate)
      }
      try pool.write { try Self.makeTables($0) }
      return pool
    }
  }

  private static func makeTables(_ database: Database) throws {
    try database.execute(
      sql: """
        CREATE TABLE IF NOT EXISTS applied(
          id INTEGER PRIMARY KEY CHECK (id = 1), log_index INTEGER NOT NULL, term INTEGER NOT NULL,
          checksum INTEGER NOT NULL);
        CREATE TABLE IF NOT EXISTS records(
          inode INTEGER PRIMARY KEY, version INTEGER NOT NULL, flags INTEGER NOT NULL, parents BLOB NOT NULL,
          bytes BLOB NOT NULL, checksum INTEGER NOT NULL);
        CREATE INDEX IF NOT EXISTS records_by_flags ON records(flags) WHERE flags <> 0;
        CREATE TABLE IF NOT EXISTS parents(
          parent INTEGER NOT NULL, inode INTEGER NOT NULL, PRIMARY KEY (parent, inode)) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS block_groups(
          inode INTEGER NOT NULL, level INTEGER NOT NULL, number INTEGER NOT NULL, version INTEGER NOT NULL,
          pointers BLOB NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (inode, level, number)) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS sessions(
          session BLOB PRIMARY KEY, owner BLOB NOT NULL, opened_at INTEGER NOT NULL, highest INTEGER NOT NULL,
          last_used INTEGER NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS results(
          session BLOB NOT NULL, sequence INTEGER NOT NULL, result BLOB NOT NULL, checksum INTEGER NOT NULL,
          PRIMARY KEY (session, sequence)) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS certificates(
          digest BLOB PRIMARY KEY, bytes BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS facts(
          key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
        """)
  }

  /// The level of SQLite's `synchronous` that transactions are written with: 2 is FULL.
  package var synchronousLevel: Int {
    get throws {
      try self.database.writeWithoutTransaction { try Int.fetchOne($0, sql: "PRAGMA synchronous") } ?? 0
    }
  }

  // MARK: Reading

  package func applied() throws(StoreError) -> (index: LogIndex, term: UInt64) {
    try self.read { try Self.applied($0) }
  }

  static func applied(_ database: Database) throws -> (index: LogIndex, term: UInt64) {
    guard let row = try Row.fetchOne(database, sql: "SELECT log_index, term, checksum FROM applied") else {
      return (.zero, 0)
    }
    let (index, term) = (LogIndex(row.unsigned(0)), row.unsigned(1))
    guard RowChecksum.applied(index, term) == row.unsigned(2) else { throw StoreError.damaged(.index("applied")) }
    return (index, term)
  }

  package func record(_ inode: UInt64) throws(StoreError) -> StoredRecord? {
    try self.read { database in
      try database.cachedStatement(sql: "SELECT version, flags, parents, bytes, checksum FROM records WHERE inode = ?")
        .firstRow([Int64(bitPattern: inode)]) { try Self.record(inode, $0, from: 0) }
    }
  }

  /// The record in a row whose columns from `first` on are version, flags, parents, bytes and checksum.
  static func record(_ inode: UInt64, _ row: Row, from first: Int) throws(StoreError) -> StoredRecord {
    let parentBytes = row.bytes(first + 2)
    guard let parents = Self.parents(parentBytes), let flags = UInt32(exactly: row.unsigned(first + 1)) else {
      throw .damaged(.record(inode))
    }
    let record = StoredRecord(
      inode: inode, version: row.unsigned(first), bytes: row.bytes(first + 3), parents: parents,
      flags: RecordFlags(rawValue: flags))
    guard RowChecksum.record(record, parents: parentBytes) == row.unsigned(first + 4) else {
      throw .damaged(.record(inode))
    }
    return record
  }

  package func group(_ key: GroupKey) throws(StoreError) -> BlockGroup? {
    try self.read { database in
      try database.cachedStatement(
        sql: "SELECT version, pointers, checksum FROM block_groups WHERE inode = ? AND level = ? AND number = ?"
      )
      .firstRow([Int64(bitPattern: key.inode), Int64(key.level), Int64(bitPattern: key.group)]) {
        try Self.group(key, $0, from: 0)
      }
    }
  }

  /// The group in a row whose columns from `first` on are version, pointers and checksum.
  static func group(_ key: GroupKey, _ row: Row, from first: Int) throws(StoreError) -> BlockGroup {
    let (version, pointers) = (row.unsigned(first), row.bytes(first + 1))
    guard RowChecksum.group(key, version, pointers) == row.unsigned(first + 2),
      let group = BlockGroup(version: version, encoded: pointers)
    else { throw .damaged(.blockMap(inode: key.inode, level: key.level, group: key.group)) }
    return group
  }

  package func groupKeys(inode: UInt64) throws(StoreError) -> [GroupKey] {
    try self.read { database in
      try database.cachedStatement(sql: "SELECT level, number FROM block_groups WHERE inode = ?")
        .rows([Int64(bitPattern: inode)]) {
          GroupKey(inode: inode, level: UInt8(truncatingIfNeeded: $0.unsigned(0)), group: $0.unsigned(1))
        }
    }
  }

  package func forEachGroup(_ body: (GroupKey, BlockGroup) -> Void) throws(StoreError) {
    try self.read { database in
      let rows = try Row.fetchCursor(
        database, sql: "SELECT inode, level, number, version, pointers, checksum FROM block_groups")
      while let row = try rows.next() {
        let level = UInt8(truncatingIfNeeded: row.unsigned(1))
        let key = GroupKey(inode: row.unsigned(0), level: level, group: row.unsigned(2))
        let pointers = row.bytes(4)
        guard RowChecksum.group(key, row.unsigned(3), pointers) == row.unsigned(5),
          let group = BlockGroup(version: row.unsigned(3), encoded: pointers)
        else { continue }
        body(key, group)
      }
    }
  }

  package func inodes(parent: UInt64) throws(StoreError) -> [UInt64] {
    try self.read { database in
      try database.cachedStatement(sql: "SELECT inode FROM parents WHERE parent = ?")
        .rows([Int64(bitPattern: parent)]) { $0.unsigned(0) }
    }
  }

  package func inodes(flag: RecordFlags) throws(StoreError) -> [UInt64] {
    try self.read { database in
      try database.cachedStatement(sql: "SELECT inode FROM records WHERE flags <> 0 AND flags & ? = ?")
        .rows([Int64(flag.rawValue), Int64(flag.rawValue)]) { $0.unsigned(0) }
    }
  }

  package func inodeMax() throws(StoreError) -> UInt64 {
    try self.read { database in
      let record = try Int64.fetchOne(database, sql: "SELECT max(inode) FROM records") ?? 0
      let group = try Int64.fetchOne(database, sql: "SELECT max(inode) FROM block_groups") ?? 0
      return UInt64(bitPattern: max(record, group))
    }
  }

  package func sessions() throws(StoreError) -> [SessionID: SessionHeader] {
    let rows = try self.read { database in
      try database.cachedStatement(
        sql: "SELECT session, owner, opened_at, highest, last_used, checksum FROM sessions"
      )
      .rows([]) { (Self.session($0), $0.unsigned(5)) }
    }
    var sessions: [SessionID: SessionHeader] = [:]
    for ((bytes, header), checksum) in rows {
      // A damaged session is an unknown one: what it has done is not done again, and nothing else is lost with it.
      guard let session = SessionID(bytes), RowChecksum.session(session, header) == checksum else { continue }
      sessions[session] = header
    }
    return sessions
  }

  /// Of a row with session, owner, opened_at, highest and last_used.
  static func session(_ row: Row) -> (bytes: [UInt8], header: SessionHeader) {
    let header = SessionHeader(
      owner: row.bytes(1), openedAt: Int64(bitPattern: row.unsigned(2)), highest: row.unsigned(3),
      lastUsed: LogIndex(row.unsigned(4)))
    return (row.bytes(0), header)
  }

  package func result(_ session: SessionID, sequence: UInt64) throws(StoreError) -> [UInt8]? {
    let row = try self.read { database in
      try database.cachedStatement(sql: "SELECT result, checksum FROM results WHERE session = ? AND sequence = ?")
        .firstRow([Data(session.bytes), Int64(bitPattern: sequence)]) { ($0.bytes(0), $0.unsigned(1)) }
    }
    guard let (result, checksum) = row else { return nil }
    guard RowChecksum.result(session, sequence, result) == checksum else { throw .damaged(.session(session)) }
    return result
  }

  package func certificate(_ digest: Digest) throws(StoreError) -> [UInt8]? {
    let row = try self.read { database in
      try database.cachedStatement(sql: "SELECT bytes, checksum FROM certificates WHERE digest = ?")
        .firstRow([Data(digest.bytes)]) { ($0.bytes(0), $0.unsigned(1)) }
    }
    guard let (bytes, checksum) = row else { return nil }
    guard RowChecksum.certificate(digest, bytes) == checksum else { throw .damaged(.certificate(digest)) }
    return bytes
  }

  package func facts() throws(StoreError) -> [String: [UInt8]] {
    let rows = try self.read { database in
      try database.cachedStatement(sql: "SELECT key, value, checksum FROM facts")
        .rows([]) { (String(decoding: $0.bytes(0), as: UTF8.self), $0.bytes(1), $0.unsigned(2)) }
    }
    var facts: [String: [UInt8]] = [:]
    for (key, value, checksum) in rows {
      guard RowChecksum.fact(key, value) == checksum else { throw .damaged(.fact(key)) }
      facts[key] = value
    }
    return facts
  }

  package func close() {
    guard
      !self.isClosed.withLock({ isClosed in
        defer { isClosed = true }
        return isClosed
      })
    else { return }
    // An open one would keep the next opening from emptying SQLite's log.
    for item in self.snapshots.withLock({ $0 }) { item.snapshot?.close() }
    // So that everything is in one file. Where it fails, the next opening finds it in SQLite's own log.
    _ = try? self.database.writeWithoutTransaction { try $0.checkpoint(.truncate) }
    try? self.database.close()
  }

  package func importMark() throws(StoreError) -> [UInt8]? {
    let row = try self.read { database in
      guard try database.tableExists("import") else { return ([UInt8], UInt64)?.none }
      return try Row.fetchOne(database, sql: "SELECT mark, checksum FROM import").map { ($0.bytes(0), $0.unsigned(1)) }
    }
    guard let (mark, checksum) = row else { return nil }
    guard RowChecksum.importMark(mark) == checksum else { throw .damaged(.index("import")) }
    return mark
  }

  package func snapshot() throws(StoreError) -> any StoreIndexSnapshot {
    let snapshot = SQLiteIndexSnapshot(try translatingErrors { try self.database.makeSnapshot() })
    self.snapshots.withLock { snapshots in
      snapshots.removeAll { $0.snapshot == nil }
      snapshots.append(WeakSnapshot(snapshot: snapshot))
    }
    guard !self.isClosed.withLock({ $0 }) else {
      // Closing may have looked for snapshots before.
      snapshot.close()
      throw .closed
    }
    return snapshot
  }

  private func read<Value>(_ body: (Database) throws -> Value) throws(StoreError) -> Value {
    try translatingErrors { try self.database.unsafeRead(body) }
  }

  static func parents(_ bytes: [UInt8]) -> [UInt64]? {
    guard bytes.count % 8 == 0 else { return nil }
    return stride(from: 0, to: bytes.count, by: 8).map { start in
      bytes.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: start, as: UInt64.self)) }
    }
  }

  // MARK: Writing

  package func write(_ layer: Layer) throws(StoreError) {
    try self.write(layer) { _ in }
  }

  package func write(_ layer: Layer, importMark mark: [UInt8]) throws(StoreError) {
    try self.write(layer) { database in
      // Only here, so that stores that were not imported have no such table.
      try database.execute(
        sql: """
          CREATE TABLE IF NOT EXISTS import(
            id INTEGER PRIMARY KEY CHECK (id = 1), mark BLOB NOT NULL, checksum INTEGER NOT NULL)
          """)
      try database.execute(
        sql: "INSERT OR REPLACE INTO import VALUES (1, ?, ?)",
        arguments: [Data(mark), Int64(bitPattern: RowChecksum.importMark(mark))])
    }
  }

  private func write(_ layer: Layer, and others: (Database) throws -> Void) throws(StoreError) {
    try translatingErrors {
      try self.database.write { database in
        try Self.writeRecords(layer, to: database)
        try Self.writeGroups(layer, to: database)
        try Self.writeSessions(layer, to: database)
        let certificate = try database.cachedStatement(sql: "INSERT OR REPLACE INTO certificates VALUES (?, ?, ?)")
        for (digest, bytes) in layer.certificates {
          try certificate.execute(
            arguments: [
              Data(digest.bytes), Data(bytes), Int64(bitPattern: RowChecksum.certificate(digest, bytes)),
            ])
        }
        let fact = try database.cachedStatement(sql: "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)")
        for (key, value) in layer.facts {
          try fact.execute(arguments: [Data(key.utf8), Data(value), Int64(bitPattern: RowChecksum.fact(key, value))])
        }
        try database.execute(
          sql: "INSERT OR REPLACE INTO applied VALUES (1, ?, ?, ?)",
          arguments: [
            Int64(bitPattern: layer.lastIndex.rawValue), Int64(bitPattern: layer.lastTerm),
            Int64(bitPattern: RowChecksum.applied(layer.lastIndex, layer.lastTerm)),
          ])
        try others(database)
      }
    }
  }

  private static func writeRecords(_ layer: Layer, to database: Database) throws {
    let inodeMax = try Int64.fetchOne(database, sql: "SELECT max(inode) FROM records") ?? 0
    let put = try database.cachedStatement(sql: "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)")
    let remove = try database.cachedStatement(sql: "DELETE FROM records WHERE inode = ?")
    let oldParents = try database.cachedStatement(sql: "SELECT parents FROM records WHERE inode = ?")
    let addParent = try database.cachedStatement(sql: "INSERT OR IGNORE INTO parents VALUES (?, ?)")
    let removeParent = try database.cachedStatement(sql: "DELETE FROM parents WHERE parent = ? AND inode = ?")
    // In order of keys, which lets SQLite stay on a page while it can.
    for inode in layer.records.keys.sorted() {
      guard let state = layer.records[inode] else { continue }
      let key = Int64(bitPattern: inode)
      var newParents: [UInt8] = []
      for parent in state.record?.parents ?? [] {
        withUnsafeBytes(of: parent.littleEndian) { newParents.append(contentsOf: $0) }
      }
      let before = key > inodeMax ? [] : try oldParents.firstRow([key]) { $0.bytes(0) } ?? []
      if before != newParents {
        for parent in Self.parents(before) ?? [] {
          try removeParent.execute(arguments: [Int64(bitPattern: parent), key])
        }
        for parent in state.record?.parents ?? [] {
          try addParent.execute(arguments: [Int64(bitPattern: parent), key])
        }
      }
      if let record = state.record {
        try put.execute(
          arguments: [
            key, Int64(bitPattern: record.version), Int64(record.flags.rawValue), Data(newParents), Data(record.bytes),
            Int64(bitPattern: RowChecksum.record(record, parents: newParents)),
          ])
      } else {
        try remove.execute(arguments: [key])
      }
    }
  }

  private static func writeGroups(_ layer: Layer, to database: Database) throws {
    let put = try database.cachedStatement(sql: "INSERT OR REPLACE INTO block_groups VALUES (?, ?, ?, ?, ?, ?)")
    let remove = try database.cachedStatement(
      sql: "DELETE FROM block_groups WHERE inode = ? AND level = ? AND number = ?")
    let keys = layer.groups.keys.sorted { ($0.inode, $0.level, $0.group) < ($1.inode, $1.level, $1.group) }
    for key in keys {
      guard let group = layer.groups[key] else { continue }
      let (inode, number) = (Int64(bitPattern: key.inode), Int64(bitPattern: key.group))
      if group.isEmpty {
        try remove.execute(arguments: [inode, Int64(key.level), number])
      } else {
        let pointers = group.encoded()
        try put.execute(
          arguments: [
            inode, Int64(key.level), number, Int64(bitPattern: group.version), Data(pointers),
            Int64(bitPattern: RowChecksum.group(key, group.version, pointers)),
          ])
      }
    }
  }

  private static func writeSessions(_ layer: Layer, to database: Database) throws {
    let forget = try database.cachedStatement(sql: "DELETE FROM results WHERE session = ?")
    let drop = try database.cachedStatement(sql: "DELETE FROM sessions WHERE session = ?")
    for session in layer.evicted {
      try forget.execute(arguments: [Data(session.bytes)])
      try drop.execute(arguments: [Data(session.bytes)])
    }
    let result = try database.cachedStatement(sql: "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)")
    for (session, results) in layer.results {
      let key = Data(session.bytes)
      for (sequence, bytes) in results {
        try result.execute(
          arguments: [
            key, Int64(bitPattern: sequence), Data(bytes),
            Int64(bitPattern: RowChecksum.result(session, sequence, bytes)),
          ])
      }
    }
    let put = try database.cachedStatement(sql: "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?)")
    // Numbers from 2^63 on are negative in SQLite, and above all others.
    let trim = try database.cachedStatement(
      sql: "DELETE FROM results WHERE session = ? AND sequence BETWEEN 0 AND ?")
    let trimHigh = try database.cachedStatement(
      sql: "DELETE FROM results WHERE session = ? AND (sequence >= 0 OR sequence <= ?)")
    for (session, header) in layer.sessions {
      let key = Data(session.bytes)
      try put.execute(
        arguments: [
          key, Data(header.owner), header.openedAt, Int64(bitPattern: header.highest),
          Int64(bitPattern: header.lastUsed.rawValue), Int64(bitPattern: RowChecksum.session(session, header)),
        ])
      if header.highest > StoreConfiguration.sessionWindow {
        let last = Int64(bitPattern: header.highest - StoreConfiguration.sessionWindow)
        try (last < 0 ? trimHigh : trim).execute(arguments: [key, last])
      }
    }
  }
}

extension Statement {
  func firstRow<Value>(_ arguments: StatementArguments, _ body: (Row) throws -> Value) throws -> Value? {
    let rows = try Row.fetchCursor(self, arguments: arguments)
    return try rows.next().map(body)
  }

  func rows<Value>(_ arguments: StatementArguments, _ body: (Row) -> Value) throws -> [Value] {
    let rows = try Row.fetchCursor(self, arguments: arguments)
    var values: [Value] = []
    while let row = try rows.next() { values.append(body(row)) }
    return values
  }
}

extension Row {
  // Never traps: a column of another type than expected is damage, which the checksum finds.
  func unsigned(_ column: Int) -> UInt64 {
    if case .int64(let number) = (self[column] as DatabaseValue).storage { UInt64(bitPattern: number) } else { .max }
  }

  func bytes(_ column: Int) -> [UInt8] {
    switch (self[column] as DatabaseValue).storage {
    case .blob(let data): [UInt8](data)
    case .string(let string): Array(string.utf8)
    default: []
    }
  }
}

func translatingErrors<Value>(_ body: () throws -> Value) throws(StoreError) -> Value {
  do {
    return try body()
  } catch let error as DatabaseError {
    switch error.resultCode {
    case .SQLITE_FULL: throw .noSpace
    case .SQLITE_CORRUPT, .SQLITE_NOTADB: throw .damaged(.index(error.message ?? "corrupt"))
    default: throw .failed("index: \(error)")
    }
  } catch let error as StoreError {
    throw error
  } catch {
    throw .failed("index: \(error)")
  }
}
