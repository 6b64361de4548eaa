// SPDX-License-Identifier: Apache-2.0

/// The fixed part in front of each payload in a log segment. See Format.md for the layout.
struct LogFrame {
  enum Kind: UInt32 {
    case entry = 0
    /// The entries from `index` on are void.
    case truncation = 1
    /// The payload is what the owner of the log must never forget; the last one counts.
    case hardState = 2
  }

  var kind: Kind
  var index: LogIndex
  var term: UInt64
  var incarnation: UInt64
  /// Where in the segment the batch of this frame began.
  var batchOffset: UInt32
  /// The checksum of the frame before, or of the segment's header.
  var previous: UInt64
  var payloadLength: Int
  var checksum: UInt64 = 0

  static let headerBytes = 56
  private static let magic: UInt32 = 0x3146_5442  // "BTF1"

  init(
    kind: Kind, index: LogIndex, term: UInt64, incarnation: UInt64, batchOffset: UInt32, previous: UInt64,
    payloadLength: Int
  ) {
    self.kind = kind
    self.index = index
    self.term = term
    self.incarnation = incarnation
    self.batchOffset = batchOffset
    self.previous = previous
    self.payloadLength = payloadLength
  }

  /// Appends the frame, padded to 8 bytes, and returns its checksum.
  func append(to writer: inout ByteWriter, payload: [UInt8]) -> UInt64 {
    let start = writer.bytes.count
    writer.append(Self.magic)
    writer.append(UInt32(payload.count))
    writer.append(self.index.rawValue)
    writer.append(self.term)
    writer.append(self.incarnation)
    writer.append(self.batchOffset)
    writer.append(self.kind.rawValue)
    writer.append(self.previous)
    let checksum = writer.bytes.withUnsafeBytes { bytes in
      payload.withUnsafeBytes { Self.checksum(header: UnsafeRawBufferPointer(rebasing: bytes[start...]), payload: $0) }
    }
    writer.append(checksum)
    writer.append(raw: payload)
    while (writer.bytes.count - start) & 7 != 0 { writer.bytes.append(0) }
    return checksum
  }

  /// The frame at this offset, nil unless every bit of it and of its payload is right.
  init?(_ bytes: UnsafeRawBufferPointer, at offset: Int, incarnation: UInt64) {
    guard offset + Self.headerBytes <= bytes.count else { return nil }
    func number<Number: FixedWidthInteger>(_ position: Int, _: Number.Type = Number.self) -> Number {
      Number(littleEndian: bytes.loadUnaligned(fromByteOffset: offset + position, as: Number.self))
    }
    guard number(0, UInt32.self) == Self.magic, number(24, UInt64.self) == incarnation,
      let kind = Kind(rawValue: number(36))
    else { return nil }
    let length = Int(number(4, UInt32.self))
    guard length <= bytes.count - offset - Self.headerBytes else { return nil }
    self.init(
      kind: kind, index: LogIndex(number(8)), term: number(16), incarnation: incarnation, batchOffset: number(32),
      previous: number(40), payloadLength: length)
    self.checksum = number(48)
    let header = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + 48])
    let payloadStart = offset + Self.headerBytes
    let payload = UnsafeRawBufferPointer(rebasing: bytes[payloadStart..<payloadStart + length])
    guard Self.checksum(header: header, payload: payload) == self.checksum else { return nil }
  }

  /// The length that the header at the start of these bytes gives.
  static func payloadLength(_ bytes: UnsafeRawBufferPointer) -> Int? {
    guard bytes.count >= 8, UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)) == self.magic else { return nil }
    return Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)))
  }

  private static func checksum(header: UnsafeRawBufferPointer, payload: UnsafeRawBufferPointer) -> UInt64 {
    Checksum.of(payload, seed: Checksum.of(header))
  }
}

/// The first block of a segment.
struct SegmentHeader {
  var generation: UInt64
  var sequence: UInt64
  var incarnation: UInt64
  var firstIndex: LogIndex

  private static let magic = Array("BTLOGSEG".utf8)

  /// Less than the 512 bytes that a disk writes whole.
  func encoded() -> (bytes: [UInt8], checksum: UInt64) {
    var writer = ByteWriter()
    writer.append(raw: Self.magic)
    writer.append(StoreConfiguration.formatVersion)
    writer.append(UInt32(0))
    writer.append(self.generation)
    writer.append(self.sequence)
    writer.append(self.incarnation)
    writer.append(self.firstIndex.rawValue)
    let checksum = Checksum.of(writer.bytes)
    writer.append(checksum)
    return (writer.bytes, checksum)
  }

  /// Nil where the bytes are no whole header.
  static func decode(_ bytes: ArraySlice<UInt8>) throws(StoreError) -> (header: SegmentHeader, checksum: UInt64)? {
    var reader = ByteReader(bytes)
    var version: UInt32 = 0
    var decoded: (header: SegmentHeader, checksum: UInt64)?
    do throws(ByteReader.Malformed) {
      guard try reader.readRaw(8) == self.magic else { return nil }
      version = try reader.read()
      _ = try reader.read(UInt32.self)
      let header = SegmentHeader(
        generation: try reader.read(), sequence: try reader.read(), incarnation: try reader.read(),
        firstIndex: LogIndex(try reader.read()))
      decoded = (header, try reader.read())
    } catch {
      return nil
    }
    guard let decoded, Checksum.of(Array(bytes.prefix(48))) == decoded.checksum else { return nil }
    if version > StoreConfiguration.formatVersion {
      throw .newerFormat(found: version, supported: StoreConfiguration.formatVersion)
    }
    return decoded
  }
}
