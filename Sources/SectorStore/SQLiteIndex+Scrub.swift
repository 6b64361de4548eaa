// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import GRDB
internal import Synchronization

extension SQLiteIndex {
  /// Lines that SQLite is asked for: more would say nothing new.
  private static let faultsMax = 32
  private static let faultBytesMax = 200

  package func checkStructure() throws(StoreError) -> IndexCheck {
    self.dropCached()
    var check = IndexCheck(damaged: [], byteCount: self.byteCount())
    do throws(StoreError) {
      // On a connection of its own, whose cache is empty.
      let snapshot = try translatingReadErrors { try self.database.makeSnapshot() }
      self.checking.withLock { $0 = snapshot }
      defer { self.checking.withLock { $0 = nil } }
      let lines = try translatingReadErrors {
        try snapshot.unsafeRead { database in
          if self.isClosed.withLock({ $0 }) { throw StoreError.closed }
          _ = try Self.applied(database)
          return try String.fetchAll(database, sql: "PRAGMA integrity_check(\(Self.faultsMax))")
        }
      }
      for line in lines where line != "ok" {
        let place = Self.place(of: line)
        if !check.damaged.contains(place) { check.damaged.append(place) }
      }
    } catch {
      guard case .damaged(let place) = error else { throw error }
      check.damaged.append(place)
    }
    return check
  }

  /// What SQLite says of parts that are made from records, leads to them.
  private static func place(of line: String) -> DamagePlace {
    for part in DerivedPart.allCases
    where line.hasSuffix("index " + part.rawValue) || line.hasSuffix("order for " + part.rawValue) {
      return part.place
    }
    return .index(String(line.prefix(self.faultBytesMax)))
  }

  package func damagedSessions() throws(StoreError) -> [DamagePlace] {
    let snapshot = try self.snapshot()
    defer { snapshot.close() }
    var damaged: [DamagePlace] = []
    try snapshot.scan(.session, after: nil) { row in
      if case .damaged(let place) = row { damaged.append(place) }
      return damaged.count < ScrubStep.damagedMax
    }
    return damaged
  }

  package func interruptCheck() { self.checking.withLock { $0 }?.interrupt() }

  package func dropCached() {
    self.file.dropCached(byteCount: 0, at: 0)
    // SQLite takes no locks on this one.
    (try? HostFiles().open(self.path + "-wal", create: false))?.dropCached(byteCount: 0, at: 0)
  }

  package func byteCount() -> Int {
    Int(clamping: (try? self.file.size()) ?? 0)
  }

  package func rebuild(_ part: DerivedPart) throws(StoreError) -> Bool {
    try translatingErrors {
      switch part {
      case .flags:
        try self.database.write { try $0.execute(sql: "REINDEX records_by_flags") }
        return true
      case .parents:
        do {
          try self.database.write { try Self.rebuildParents($0) }
          return true
        } catch StoreError.damaged(.record) {
          return false
        }
      }
    }
  }

  private static func rebuildParents(_ database: Database) throws {
    try database.execute(sql: "DELETE FROM parents")
    let add = try database.makeStatement(sql: "INSERT OR IGNORE INTO parents VALUES (?, ?)")
    let rows = try Row.fetchCursor(
      database, sql: "SELECT inode, version, flags, parents, bytes, checksum FROM records")
    while let row = try rows.next() {
      let record = try Self.record(row.unsigned(0), row, from: 1)
      for parent in record.parents {
        try add.execute(arguments: [Int64(bitPattern: parent), Int64(bitPattern: record.inode)])
      }
    }
  }
}

/// As `translatingErrors`; what the disk refuses to give back counts as damage, too.
private func translatingReadErrors<Value>(_ body: () throws -> Value) throws(StoreError) -> Value {
  try translatingErrors {
    do { return try body() } catch let error as DatabaseError {
      switch error.resultCode {
      case .SQLITE_IOERR: throw StoreError.damaged(.index(error.message ?? "can not be read"))
      case .SQLITE_INTERRUPT: throw StoreError.closed
      default: throw error
      }
    }
  }
}

extension SQLiteIndexSnapshot {
  func scan(
    _ kind: SnapshotKind, after cursor: SnapshotCursor?, _ body: (ScannedRow) -> Bool
  ) throws(StoreError) {
    try self.readVerifying { database in
      guard let rows = try Self.rows(kind, after: cursor, all: true, in: database) else { return }
      let isChild = try database.makeStatement(sql: "SELECT 1 FROM parents WHERE parent = ? AND inode = ?")
      while let row = try rows.next() {
        let goesOn: Bool
        do throws(StoreError) {
          let whole = try Self.row(kind, row)
          if case .record(let record) = whole, try !Self.hasParents(record, isChild),
            !body(.damaged(DerivedPart.parents.place))
          {
            return
          }
          goesOn = body(.whole(whole))
        } catch {
          guard case .damaged(let place) = error else { throw error }
          goesOn = body(.damaged(place))
        }
        guard goesOn else { return }
      }
    }
  }

  private func readVerifying<Value>(_ body: (Database) throws -> Value) throws(StoreError) -> Value {
    try self.read { database in try translatingReadErrors { try body(database) } }
  }

  private static func hasParents(_ record: StoredRecord, _ isChild: Statement) throws(StoreError) -> Bool {
    for parent in record.parents {
      let found = try translatingReadErrors {
        try isChild.firstRow([Int64(bitPattern: parent), Int64(bitPattern: record.inode)]) { _ in true }
      }
      if found == nil { return false }
    }
    return true
  }

  func scanChildren(after row: ParentRow?, countMax: Int) throws(StoreError) -> ChildrenScan {
    try self.readVerifying { database in
      var scan = ChildrenScan(next: nil, rowCount: 0, isWrong: false)
      let isBehind = row == nil ? ">=" : ">"
      let first = row.map { [Int64(bitPattern: $0.parent), Int64(bitPattern: $0.inode)] } ?? [.min, .min]
      let rows = try Row.fetchCursor(
        database,
        sql: """
          SELECT p.parent, p.inode, r.version, r.flags, r.parents, r.bytes, r.checksum
          FROM parents AS p LEFT JOIN records AS r ON r.inode = p.inode
          WHERE (p.parent, p.inode) \(isBehind) (?, ?) ORDER BY p.parent, p.inode LIMIT ?
          """, arguments: [first[0], first[1], countMax])
      while let row = try rows.next() {
        let child = ParentRow(parent: row.unsigned(0), inode: row.unsigned(1))
        scan.rowCount += 1
        scan.next = child
        if row.isNull(2) {
          scan.isWrong = true
        } else if let record = try? SQLiteIndex.record(child.inode, row, from: 2) {
          // A damaged record says nothing, and is found as what it is.
          if !record.parents.contains(child.parent) { scan.isWrong = true }
        }
      }
      if scan.rowCount < countMax { scan.next = nil }
      return scan
    }
  }
}

extension Row {
  fileprivate func isNull(_ column: Int) -> Bool { (self[column] as DatabaseValue).isNull }
}
