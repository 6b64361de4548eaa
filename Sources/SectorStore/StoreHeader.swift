// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// The file `store` of a store's directory: what is fixed for its life, as lines of text.
struct StoreHeader: Equatable {
  var generation: UInt64
  var sectorSize: Int
  var dataFileBytes: Int
  /// Seconds since 1970.
  var created: Int64

  static let fileName = "store"
  private static let title = "blocktree-store"

  init(_ configuration: StoreConfiguration) {
    self.generation = configuration.generation
    self.sectorSize = configuration.sectorSize
    self.dataFileBytes = configuration.dataFileBytes
    self.created = Int64(time(nil))
  }

  func encoded() -> [UInt8] {
    let text = """
      \(Self.title) \(StoreConfiguration.formatVersion)
      generation \(Int64(bitPattern: self.generation))
      sector-size \(self.sectorSize)
      node-size \(StoreConfiguration.nodeSize)
      data-file-bytes \(self.dataFileBytes)
      created \(self.created)

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
      let dataFileBytes = values["data-file-bytes"], let created = values["created"],
      values["node-size"] == Int64(StoreConfiguration.nodeSize)
    else { throw .damaged(.header) }
    self.generation = UInt64(bitPattern: generation)
    self.sectorSize = Int(sectorSize)
    self.dataFileBytes = Int(dataFileBytes)
    self.created = created
    guard self.encoded() == bytes, Self.isValid(sectorSize: self.sectorSize) else { throw .damaged(.header) }
  }

  static func isValid(sectorSize: Int) -> Bool {
    sectorSize >= 4_096 && sectorSize <= 1 << 20 && sectorSize & (sectorSize - 1) == 0
  }
}
