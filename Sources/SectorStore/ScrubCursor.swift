// SPDX-License-Identifier: Apache-2.0

/// How far a scrub has come: behind something that was verified. A value that means the same after a restart.
///
/// A pass goes through the header and SQLite's structure at once, the segments of the log, the rows of the index with the
/// blocks that they refer to, and last the table that is made from the records.
package struct ScrubCursor: Hashable, Sendable {
  enum Position: Hashable, Sendable {
    /// Behind this segment; the pass ends its part of the log with the segment `last`, which was the newest when it came
    /// there. Nil: it comes there now.
    case log(done: UInt64, last: UInt64?)
    /// In the rows of one kind, from the first where there is no cursor.
    case rows(SnapshotKind, after: SnapshotCursor?)
    /// In the children of a parent, from the first of all where nothing is said.
    case children(after: ParentRow?)
  }

  let position: Position

  init(_ position: Position) { self.position = position }

  private static let formatVersion: UInt8 = 1

  /// At most 300 bytes.
  package func encoded() -> [UInt8] {
    var writer = ByteWriter()
    writer.append(Self.formatVersion)
    switch self.position {
    case .log(let done, let last):
      writer.append(UInt8(1))
      writer.append(done)
      writer.append(UInt8(last == nil ? 0 : 1))
      writer.append(last ?? 0)
    case .rows(let kind, let cursor):
      writer.append(UInt8(2))
      writer.append(kind.rawValue)
      writer.append(raw: cursor?.encoded() ?? [])
    case .children(let row):
      writer.append(UInt8(3))
      if let row {
        writer.append(row.parent)
        writer.append(row.inode)
      }
    }
    return writer.bytes
  }

  /// Nil for what no cursor is encoded to.
  package init?(encoded: [UInt8]) {
    var reader = ByteReader(encoded)
    do throws(ByteReader.Malformed) {
      guard try reader.read(UInt8.self) == Self.formatVersion else { return nil }
      switch try reader.read(UInt8.self) {
      case 1:
        let done: UInt64 = try reader.read()
        let hasLast: UInt8 = try reader.read()
        let last: UInt64 = try reader.read()
        guard hasLast <= 1 else { return nil }
        self.init(.log(done: done, last: hasLast == 1 ? last : nil))
      case 2:
        guard let kind = SnapshotKind(rawValue: try reader.read()), kind != .end else { return nil }
        var cursor: SnapshotCursor?
        if !reader.isAtEnd {
          guard let read = SnapshotCursor(encoded: try reader.readRaw(reader.remaining)), read.kind == kind else {
            return nil
          }
          cursor = read
        }
        self.init(.rows(kind, after: cursor))
      case 3:
        var row: ParentRow?
        if !reader.isAtEnd { row = ParentRow(parent: try reader.read(), inode: try reader.read()) }
        self.init(.children(after: row))
      default: return nil
      }
      guard reader.isAtEnd else { return nil }
    } catch {
      return nil
    }
  }
}

/// A row of the table that leads from parents to their children.
package struct ParentRow: Hashable, Sendable {
  package var parent: UInt64
  package var inode: UInt64

  package init(parent: UInt64, inode: UInt64) {
    self.parent = parent
    self.inode = inode
  }
}

/// What one step of a scrub has verified, and found.
package struct ScrubStep: Hashable, Sendable {
  /// Where to go on; nil when the pass is over.
  package let next: ScrubCursor?
  /// Bytes that were read from the disk and verified.
  package let byteCount: Int
  /// Blocks among them.
  package let blockCount: Int
  /// What is not as it was written. Each was looked at twice. What does not fit is in `omittedCount`.
  package let damaged: [DamagePlace]
  /// How many more places there were in this step.
  package let omittedCount: Int

  /// Places that one step lists.
  package static let damagedMax = 64
}
