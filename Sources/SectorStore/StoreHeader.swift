// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// The file `store` of a store's directory: what is fixed for its life, as lines of text.
struct StoreHeader: Equatable {
  var generation: UInt64
  var sectorSize: Int
  var dataFileBytes: Int
  /// Seconds since 1970.
  var created: Int64
  /// Names this very store among the members of a group: one that is made anew is another member, since it has forgotten
  /// what the one before had promised.
  var memberID: UInt64

  static let fileName = "store"
  private static let title = "blocktree-store"

  init(_ configuration: StoreConfiguration) {
    self.generation = configuration.generation
    self.sectorSize = configuration.sectorSize
    self.dataFileBytes = configuration.dataFileBytes
    self.created = Int64(time(nil))
    self.memberID = configuration.memberID ?? .random(in: 1 ... .max)
  }

  func encoded() -> [UInt8] {
    let text = """
      \(Self.title) \(StoreConfiguration.formatVersion)
      generation \(Int64(bitPattern: self.generation))
      sector-size \(self.sectorSize)
      node-size \(StoreConfiguration.nodeSize)
      data-file-bytes \(self.dataFileBytes)
      created \(self.created)
      member \(Int64(bitPattern: self.memberID))

      """
    return Array((text + "checksum \(Checksum.of(Array(text.utf8)))\n").utf8)
  }

  init(encoded bytes: [UInt8]) throws(StoreError) {
    let text = String(decoding: bytes, as: UTF8.self)
    let lines = text.split(separator: "\n")
    guard let first = lines.first, first.hasPrefix(Self.title + " "),
      let version = UInt32(first.dropFirst(Self.title.count + 1))
    else { throw .notAStore }
    // Before the checksum: a newer format may have another.
    if version > StoreConfiguration.formatVersion {
      throw .newerFormat(found: version, supported: StoreConfiguration.formatVersion)
    }
    var values: [Substring: Int64] = [:]
    for line in lines.dropFirst().dropLast() {
      let parts = line.split(separator: " ")
      if parts.count == 2, let value = Int64(parts[1]) { values[parts[0]] = value }
    }
    guard let generation = values["generation"], let sectorSize = values["sector-size"],
      let dataFileBytes = values["data-file-bytes"], let created = values["created"], let member = values["member"],
      values["node-size"] == Int64(StoreConfiguration.nodeSize)
    else { throw .damaged(.header) }
    self.generation = UInt64(bitPattern: generation)
    self.sectorSize = Int(sectorSize)
    self.dataFileBytes = Int(dataFileBytes)
    self.created = created
    self.memberID = UInt64(bitPattern: member)
    guard self.encoded() == bytes, Self.isValid(sectorSize: self.sectorSize) else { throw .damaged(.header) }
  }

  /// Puts the header in its place, durably: with it the directory is a store, so everything else comes before.
  func write(to directory: String, files: any FileLayer) throws(FileError) {
    let temporary = directory + "/" + Self.fileName + ".new"
    // A longer one that was left behind would show its end.
    if try files.list(directory).contains(Self.fileName + ".new") { try files.remove(temporary) }
    let file = try files.open(temporary, create: true)
    try file.writeAll(self.encoded(), at: 0)
    try file.sync()
    try files.syncDirectory(directory)
    try files.rename(temporary, to: directory + "/" + Self.fileName)
    try files.syncDirectory(directory)
    try files.syncDirectory(Self.parent(of: directory))
  }

  static func parent(of directory: String) -> String {
    var path = directory[...]
    while path.count > 1, path.hasSuffix("/") { path = path.dropLast() }
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  static func isValid(sectorSize: Int) -> Bool {
    sectorSize >= 4_096 && sectorSize <= 1 << 20 && sectorSize & (sectorSize - 1) == 0
  }
}
