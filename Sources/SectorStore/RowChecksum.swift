// SPDX-License-Identifier: Apache-2.0

/// The checksums of the index's rows: over the kind of row, its key and its contents, so that a row that is right but
/// stands in another's place is found too.
enum RowChecksum {
  private enum Kind: UInt64 {
    case applied = 1
    case record, group, session, result, certificate, fact, importMark
  }

  static func applied(_ index: LogIndex, _ term: UInt64) -> UInt64 {
    self.of(.applied, [index.rawValue, term])
  }

  static func record(_ record: StoredRecord, parents: [UInt8]) -> UInt64 {
    self.of(
      .record, [record.inode, record.version, UInt64(record.flags.rawValue), UInt64(parents.count)], parents,
      record.bytes)
  }

  static func group(_ key: GroupKey, _ version: UInt64, _ pointers: [UInt8]) -> UInt64 {
    self.of(.group, [key.inode, UInt64(key.level), key.group, version], pointers)
  }

  static func session(_ session: SessionID, _ header: SessionHeader) -> UInt64 {
    self.of(
      .session,
      [session.high, session.low, UInt64(bitPattern: header.openedAt), header.highest, header.lastUsed.rawValue],
      header.owner)
  }

  static func result(_ session: SessionID, _ sequence: UInt64, _ result: [UInt8]) -> UInt64 {
    self.of(.result, [session.high, session.low, sequence], result)
  }

  static func certificate(_ digest: Digest, _ bytes: [UInt8]) -> UInt64 {
    self.of(.certificate, [], digest.bytes, bytes)
  }

  static func fact(_ key: String, _ value: [UInt8]) -> UInt64 {
    self.of(.fact, [UInt64(key.utf8.count)], Array(key.utf8), value)
  }

  static func importMark(_ bytes: [UInt8]) -> UInt64 {
    self.of(.importMark, [], bytes)
  }

  private static func of(_ kind: Kind, _ numbers: [UInt64], _ contents: [UInt8]...) -> UInt64 {
    var hash = kind.rawValue
    hash = numbers.withUnsafeBytes { Checksum.of($0, seed: hash) }
    for bytes in contents { hash = Checksum.of(bytes, seed: hash) }
    return hash
  }
}
