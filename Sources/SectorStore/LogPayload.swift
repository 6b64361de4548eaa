// SPDX-License-Identifier: Apache-2.0

/// What an entry of the log carries.
package enum LogPayload: Sendable {
  /// A change of the store.
  case change(Change)
  /// Nothing for the store.
  case noop
  /// The group's membership, in an encoding of the layer above; up to 64 KiB.
  case membership([UInt8])
}

extension Change {
  // Version 1: version (UInt8), term (UInt64), blocks with their count (UInt32) in front, and then the rest as an
  // entry's body without blocks.
  private static let version: UInt8 = 1

  /// The change as it goes to other members: all but the bytes of the blocks, which go beside it.
  /// Checksums of blocks do not travel: the receiver computes its own.
  package func encoded() -> [UInt8] {
    var writer = ByteWriter()
    let body = EntryBody(self, blocks: []).encoded()
    writer.bytes.reserveCapacity(32 + self.blocks.count * 21 + body.count)
    writer.append(Self.version)
    writer.append(self.term)
    writer.append(UInt32(self.blocks.count))
    for block in self.blocks {
      writer.append(block.inode)
      writer.append(block.level)
      writer.append(block.index)
      writer.append(UInt32(block.count))
    }
    writer.append(raw: body)
    return writer.bytes
  }

  /// Takes apart what `encoded` gives. Nil where it is anything else, where the bytes of the blocks are not exactly
  /// those that it names, and where the change breaks a rule that holds whatever the store contains. Takes no more
  /// memory than a small multiple of what it is given.
  ///
  /// - Parameters:
  ///   - blocks: The bytes of all blocks, in the order in which the change names them.
  ///   - configuration: Of the store that the change is meant for.
  package init?(encoded bytes: [UInt8], blocks: ArraySlice<UInt8>, configuration: StoreConfiguration) {
    var reader = ByteReader(bytes)
    do throws(ByteReader.Malformed) {
      guard try reader.read(UInt8.self) == Self.version else { return nil }
      self.init(term: try reader.read())
      var rest = blocks
      for _ in 0..<(try reader.readCount(itemSize: 21)) {
        self.blocks.append(try Self.blockWrite(&reader, from: &rest, configuration))
      }
      guard rest.isEmpty, let body = EntryBody(encoded: try reader.readRaw(reader.remaining)), body.blocks.isEmpty
      else { return nil }
      self.conditions = body.conditions
      self.records = body.records
      self.truncations = body.truncations
      self.sessionsOpened = body.sessionsOpened
      self.operations = body.operations
      self.certificates = body.certificates
      self.facts = body.facts
      self.payloadExtra = body.extra
    } catch {
      return nil
    }
    // The leader has checked this before it proposed the change: whoever sends something else is broken.
    guard self.fault(configuration) == nil else { return nil }
  }

  private static func blockWrite(
    _ reader: inout ByteReader, from rest: inout ArraySlice<UInt8>, _ configuration: StoreConfiguration
  ) throws(ByteReader.Malformed) -> BlockWrite {
    let inode: UInt64 = try reader.read()
    let level: UInt8 = try reader.read()
    let index: UInt64 = try reader.read()
    let blockSize = configuration.blockSize(level: level)
    let byteCount = Int(try reader.read(UInt32.self)) * blockSize
    guard byteCount > 0, byteCount <= rest.count else { throw ByteReader.Malformed() }
    defer { rest = rest.dropFirst(byteCount) }
    return BlockWrite(inode: inode, level: level, index: index, bytes: rest.prefix(byteCount), blockSize: blockSize)
  }
}
