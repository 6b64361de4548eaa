// SPDX-License-Identifier: Apache-2.0

internal import Inodes

/// Parsed records by inode, with the bytes that they were parsed from. Bounded: what has not been asked for in a while
/// is forgotten.
struct RecordCache: Sendable {
  private struct Parsed {
    let bytes: [UInt8]
    let record: InodeRecord
  }

  private let generationCountMax: Int
  private var young: [InodeNumber: Parsed] = [:]
  private var old: [InodeNumber: Parsed] = [:]

  init(countMax: Int) { self.generationCountMax = max(1, countMax / 2) }

  /// The record that these bytes are, if they have been parsed. It costs next to nothing where they are the very array
  /// that was parsed, which they are as long as the store has them in memory.
  mutating func record(_ inode: InodeNumber, bytes: [UInt8]) -> InodeRecord? {
    if let parsed = self.young[inode] { return parsed.bytes == bytes ? parsed.record : nil }
    guard let parsed = self.old.removeValue(forKey: inode), parsed.bytes == bytes else { return nil }
    self.insert(parsed, for: inode)
    return parsed.record
  }

  mutating func insert(_ record: InodeRecord, bytes: [UInt8]) {
    self.insert(Parsed(bytes: bytes, record: record), for: record.fileID.inode)
  }

  mutating func remove(_ inode: InodeNumber) {
    self.young[inode] = nil
    self.old[inode] = nil
  }

  private mutating func insert(_ parsed: Parsed, for inode: InodeNumber) {
    if self.young.count >= self.generationCountMax, self.young[inode] == nil {
      self.old = self.young
      self.young = [:]
    }
    self.young[inode] = parsed
  }
}
