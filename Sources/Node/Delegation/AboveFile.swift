// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import Inodes
internal import Trust

/// What a process of a delegated directory keeps in its own directory of what lies above: ``AncestorCopies``, and the
/// certificate chains of those who signed the records, so that they can be verified again with nobody there to ask.
///
/// The file is replaced as a whole. Behind its heading stand, each with its length or count before it as a big-endian
/// number: the records, the chains, the home's tree nodes and sealed sectors, and the versions of links parts; then SHA-256 of all that. No name
/// and no key can be read from it.
struct AboveFile: Hashable, Sendable {
  var copies: AncestorCopies
  var chains: [CertificateChain]

  /// Ends with the version of the format.
  private static let heading = Array("blocktree above\n".utf8) + [1]
  /// Of the whole file. What would be larger is not kept.
  static let byteCountMax = 32 << 20
  static let recordsMax = 2_048
  static let chainsMax = 8_192
  private static let linksMax = 65_536

  // MARK: Bytes

  /// Nil when it would be too large.
  var bytes: [UInt8]? {
    var writer = Writer()
    writer.add(bytes: Self.heading)
    writer.add(UInt32(clamping: self.copies.records.count))
    for record in self.copies.records {
      guard let bytes = try? record.serialized() else { return nil }
      writer.add(counted: bytes)
    }
    writer.add(UInt32(clamping: self.chains.count))
    for chain in self.chains { writer.add(counted: chain.bytes) }
    writer.add(UInt32(self.copies.content == nil ? 0 : 1))
    if let content = self.copies.content {
      writer.add(UInt32(clamping: content.nodes.count))
      for (key, bytes) in content.nodes.sorted(by: { $0.key < $1.key }) {
        writer.add(UInt32(clamping: key.level))
        writer.add(key.index)
        writer.add(counted: bytes)
      }
      writer.add(UInt32(clamping: content.sectors.count))
      for (index, bytes) in content.sectors.sorted(by: { $0.key < $1.key }) {
        writer.add(index)
        writer.add(counted: bytes)
      }
    }
    let links = self.copies.links.sorted { $0.key.rawValue < $1.key.rawValue }.prefix(Self.linksMax)
    writer.add(UInt32(clamping: links.count))
    for (inode, version) in links {
      writer.add(inode.rawValue)
      writer.add(version.rawValue)
    }
    guard writer.bytes.count + 32 <= Self.byteCountMax, self.copies.records.count <= Self.recordsMax,
      self.chains.count <= Self.chainsMax
    else { return nil }
    return writer.bytes + Digest32(sha256: writer.bytes).bytes
  }

  init(copies: AncestorCopies, chains: [CertificateChain]) {
    self.copies = copies
    self.chains = chains
  }

  /// Takes apart what `bytes` gave. Nothing in it is verified but its form.
  ///
  /// - Throws: `malformed` for anything else, also for another version.
  init(_ bytes: [UInt8], from path: String) throws(NodeError) {
    guard bytes.count >= Self.heading.count + 32, bytes.starts(with: Self.heading.dropLast()) else {
      throw .malformed(path, why: "it is no copy of what lies above")
    }
    guard bytes[Self.heading.count - 1] == Self.heading.last else {
      throw .malformed(path, why: "it is of another version")
    }
    guard Digest32(sha256: bytes.dropLast(32)).bytes == Array(bytes.suffix(32)) else {
      throw .malformed(path, why: "it is damaged")
    }
    var reader = Reader(bytes.dropLast(32).dropFirst(Self.heading.count))
    do {
      var records: [InodeRecord] = []
      for _ in 0..<(try reader.count(max: Self.recordsMax)) {
        records.append(try InodeRecord(serialized: try reader.counted(max: RecordLimits.recordByteCountMax)))
      }
      var chains: [CertificateChain] = []
      for _ in 0..<(try reader.count(max: Self.chainsMax)) {
        chains.append(try CertificateChain(bytes: try reader.counted(max: 2 * CertificateChain.byteCountMax)))
      }
      var content: AncestorCopies.SealedContent?
      if try reader.count(max: 1) == 1 { content = try Self.content(&reader) }
      var links: [InodeNumber: Version] = [:]
      for _ in 0..<(try reader.count(max: Self.linksMax)) {
        links[InodeNumber(try reader.number())] = Version(try reader.number())
      }
      guard reader.isAtEnd else { throw Malformed() }
      self.init(copies: AncestorCopies(records: records, content: content, links: links), chains: chains)
    } catch {
      throw .malformed(path, why: "it is not what it says")
    }
  }

  private static func content(_ reader: inout Reader) throws -> AncestorCopies.SealedContent {
    var content = AncestorCopies.SealedContent()
    let blocksMax = Self.byteCountMax / 512
    for _ in 0..<(try reader.count(max: blocksMax)) {
      let key = NodeKey(level: try reader.count(max: TreeShape.levelsMax), index: try reader.number())
      content.nodes[key] = try reader.counted(max: TreeShape.nodeByteCount)
    }
    for _ in 0..<(try reader.count(max: blocksMax)) {
      let index = try reader.number()
      content.sectors[index] = try reader.counted(max: Self.byteCountMax)
    }
    return content
  }

  // MARK: On the disk

  /// - Returns: nil where there is none.
  static func read(_ path: String) throws(NodeError) -> AboveFile? {
    guard OwnerFiles.exists(path) else { return nil }
    return try AboveFile(try OwnerFiles.read(path, limit: Self.byteCountMax), from: path)
  }

  /// On return it is on the disk.
  ///
  /// - Returns: whether it is small enough to be kept; what was kept before is removed otherwise.
  func write(_ path: String) throws(NodeError) -> Bool {
    guard let bytes = self.bytes else {
      OwnerFiles.removeTree(path)
      return false
    }
    try OwnerFiles.write(bytes, to: path)
    return true
  }
}

private struct Malformed: Error {}

private struct Writer {
  private(set) var bytes: [UInt8] = []

  mutating func add(bytes: [UInt8]) { self.bytes += bytes }

  mutating func add(_ number: some FixedWidthInteger) {
    withUnsafeBytes(of: number.bigEndian) { self.bytes.append(contentsOf: $0) }
  }

  mutating func add(counted bytes: [UInt8]) {
    self.add(UInt32(clamping: bytes.count))
    self.bytes += bytes
  }
}

private struct Reader {
  private var rest: ArraySlice<UInt8>

  init(_ bytes: ArraySlice<UInt8>) { self.rest = bytes }

  var isAtEnd: Bool { self.rest.isEmpty }

  private mutating func take(_ count: Int) throws -> ArraySlice<UInt8> {
    guard self.rest.count >= count else { throw Malformed() }
    defer { self.rest = self.rest.dropFirst(count) }
    return self.rest.prefix(count)
  }

  mutating func number() throws -> UInt64 { try self.take(8).reduce(0) { $0 << 8 | UInt64($1) } }

  /// A count or length of at most so much.
  mutating func count(max: Int) throws -> Int {
    let count = try self.take(4).reduce(0) { $0 << 8 | Int($1) }
    guard count <= max else { throw Malformed() }
    return count
  }

  mutating func counted(max: Int) throws -> [UInt8] { Array(try self.take(try self.count(max: max))) }
}
