// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Foundation
internal import SwiftProtobuf
package import Trust

/// A name in a directory and what it leads to.
package struct DirectoryEntry: Hashable, Sendable {
  package var name: PathComponent
  package var fileID: FileID
  package var type: FileType
  /// The key of what the name leads to; nil when that is cut off from the directory, or not encrypted.
  package var key: FileKey?
  /// The epoch of the directory's own key in which this key was drawn, or found to be known to nobody but those who hold
  /// the directory's key.
  package var drawnInEpoch: UInt32 = 1
  /// Whether the key may be known to others than those who hold the directory's, as after a move.
  package var isMarkedExposed = false
  /// The key of the next epoch, while what the name leads to, in another generation, is being given it.
  package var nextKey: FileKey?

  package init(name: PathComponent, fileID: FileID, type: FileType, key: FileKey?) {
    self.name = name
    self.fileID = fileID
    self.type = type
    self.key = key
  }

  /// Whether the key may be known to somebody who does not hold the directory's key of this epoch: then nothing more is
  /// to be sealed under it.
  package func isExposed(in directoryEpoch: UInt32) -> Bool {
    self.key != nil && (self.isMarkedExposed || self.nextKey != nil || self.drawnInEpoch < directoryEpoch)
  }

  package static func == (left: Self, right: Self) -> Bool {
    left.name == right.name && left.fileID == right.fileID && left.type == right.type && left.key == right.key
      && left.drawnInEpoch == right.drawnInEpoch && left.isMarkedExposed == right.isMarkedExposed
      && left.nextKey == right.nextKey
  }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(self.name)
    hasher.combine(self.fileID)
  }
}

/// One sector of a directory of format 1: the length of a message (4 bytes, big-endian), the message, zeros.
package enum DirectorySector {
  /// The number of this format, as it stands in the directory's content part.
  package static let format: UInt32 = 1
  /// The length of the message stands before it.
  package static let headerByteCount = 4

  /// An upper bound of what an entry takes: its message, a tag, and a length.
  package static func byteCount(of entry: DirectoryEntry) -> Int {
    // name (2 + 255), file id (2 + 22), type (2), key (34), epoch (6), entry tag and length (3).
    var byteCount = entry.name.bytes.count + 3 + 24 + 2 + (entry.key == nil ? 0 : 40) + 4
    if entry.drawnInEpoch > 1 { byteCount += 6 }
    if entry.isMarkedExposed { byteCount += 2 }
    // Its epoch is the one behind the present key's.
    if entry.nextKey != nil { byteCount += 34 }
    return byteCount
  }

  /// The bytes of a sector.
  ///
  /// - Throws: `shapeMismatch` when the entries do not fit.
  package static func encode(
    _ entries: some Sequence<DirectoryEntry>, sectorSize: Int
  ) throws(IntegrityError) -> [UInt8] {
    var message = Blocktree_V1_DirectorySector()
    message.entries = entries.map(Self.message)
    let body: [UInt8]
    do { body = try message.serializedBytes() } catch { throw .malformed }
    guard body.count + Self.headerByteCount <= sectorSize else { throw .shapeMismatch }
    var bytes = withUnsafeBytes(of: UInt32(body.count).bigEndian, Array.init)
    bytes.reserveCapacity(sectorSize)
    bytes += body
    bytes += [UInt8](repeating: 0, count: sectorSize - bytes.count)
    return bytes
  }

  /// The entries of an opened sector, in the order in which they were added.
  package static func decode(_ bytes: ArraySlice<UInt8>) throws(IntegrityError) -> [DirectoryEntry] {
    guard bytes.count >= Self.headerByteCount else { return [] }
    let length = bytes.prefix(4).reduce(0) { $0 << 8 | Int($1) }
    guard length <= bytes.count - Self.headerByteCount else { throw .malformed }
    let body = Array(bytes[bytes.startIndex + 4..<bytes.startIndex + 4 + length])
    let message: Blocktree_V1_DirectorySector
    do { message = try Blocktree_V1_DirectorySector(serializedBytes: body) } catch { throw .malformed }
    var entries: [DirectoryEntry] = []
    entries.reserveCapacity(message.entries.count)
    for stored in message.entries { entries.append(try Self.entry(stored)) }
    return entries
  }

  private static func message(_ entry: DirectoryEntry) -> Blocktree_V1_StoredEntry {
    .with {
      $0.name = Data(entry.name.bytes)
      $0.fileID = entry.fileID.message
      $0.type = entry.type.message
      guard let key = entry.key else { return }
      $0.key = Data(key.bytes)
      $0.keyEpoch = key.epoch
      if entry.drawnInEpoch > 1 { $0.drawnInEpoch = entry.drawnInEpoch }
      $0.isExposed = entry.isMarkedExposed
      if let next = entry.nextKey { $0.nextKey = Data(next.bytes) }
    }
  }

  private static func entry(_ stored: Blocktree_V1_StoredEntry) throws(IntegrityError) -> DirectoryEntry {
    var entry: DirectoryEntry
    do {
      entry = DirectoryEntry(
        name: try PathComponent(bytes: Array(stored.name)), fileID: try FileID(stored.fileID),
        type: try FileType(stored.type),
        key: stored.key.isEmpty ? nil : FileKey(bytes: stored.key, epoch: stored.keyEpoch))
    } catch {
      throw .malformed
    }
    guard stored.key.isEmpty == (entry.key == nil) else { throw .malformed }
    guard let key = entry.key else {
      guard stored.nextKey.isEmpty else { throw .malformed }
      return entry
    }
    entry.drawnInEpoch = max(1, stored.drawnInEpoch)
    entry.isMarkedExposed = stored.isExposed
    if !stored.nextKey.isEmpty {
      guard key.epoch < .max, let next = FileKey(bytes: stored.nextKey, epoch: key.epoch + 1) else { throw .malformed }
      entry.nextKey = next
    }
    return entry
  }
}
