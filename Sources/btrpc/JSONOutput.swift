// SPDX-License-Identifier: Apache-2.0

package import BlocktreeClient
internal import FoundationEssentials

/// Results for programs: one JSON document a command. Times are RFC 3339 in UTC with nanoseconds, modes four octal
/// digits, bytes base64.
package enum JSONOutput {
  package static func text(_ value: some Encodable, pretty: Bool = true) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    if pretty { encoder.outputFormatting.insert(.prettyPrinted) }
    return String(decoding: try encoder.encode(value), as: UTF8.self)
  }

  static func print(_ value: some Encodable) throws {
    try Standard.write(try self.text(value) + "\n")
  }
}

/// Prints an array an element at a time, so that it need not be held.
struct JSONArrayWriter {
  private var isEmpty = true

  mutating func append(_ value: some Encodable) throws {
    try Standard.write(self.isEmpty ? "[\n" : ",\n")
    self.isEmpty = false
    try Standard.write(try JSONOutput.text(value, pretty: false))
  }

  func finish() throws {
    try Standard.write(self.isEmpty ? "[]\n" : "\n]\n")
  }
}

/// A file as the commands print it.
package struct FileJSON: Encodable {
  struct Access: Encodable {
    var path: String
    var isGroup: Bool
    var permission: UInt8
  }

  var path: String?
  var name: String?
  var id: String
  var type: String
  var size: UInt64?
  var version: UInt64?
  var links: UInt32?
  var mode: String?
  var owner: String?
  var group: String?
  var access: [Access]?
  var modified: String?
  var changed: String?
  var accessed: String?
  var created: String?
  var storedBytes: UInt64?
  var target: String?
  /// Only there when it is so.
  var isDamaged: Bool?
  var generation: UInt64?
  /// Of a directory that was handed to a cluster of its own.
  var servedByGeneration: UInt64?
  /// Only there when it is so.
  var isStale: Bool?
  /// Of the key that new sectors are sealed under.
  var keyEpoch: UInt32?
  /// Who has the key by a readcap; only there when somebody has.
  var readcaps: [String]?
  /// Only there when it is so.
  var isCutOff: Bool?

  package init(path: String? = nil, name: String? = nil, info: FileInfo, target: String? = nil) {
    self.path = path
    self.name = name
    self.id = info.id.description
    self.type = info.type.description
    self.size = info.size
    self.version = info.version
    self.links = info.linkCount
    self.mode = info.mode.description
    self.owner = info.owner
    self.group = info.group
    self.access = info.access.map { Access(path: $0.path, isGroup: $0.isGroup, permission: $0.permission) }
    self.modified = info.modified.description
    self.changed = info.changed.description
    self.accessed = info.accessed.description
    self.created = info.created.description
    self.storedBytes = info.storedByteCount
    self.generation = info.id.generation
    self.servedByGeneration = info.servedByGeneration
    self.isStale = info.isStale ? true : nil
    self.keyEpoch = info.keyEpoch
    self.readcaps = info.readcaps.isEmpty ? nil : info.readcaps
    self.isCutOff = info.isCutOff ? true : nil
    self.target = target
  }

  /// A name whose description the caller may not have.
  init(path: String? = nil, entry: DirectoryEntry, target: String? = nil) {
    if let info = entry.info {
      self.init(path: path, name: entry.name, info: info, target: target)
    } else {
      self.init(path: path, name: entry.name, id: entry.id.description, type: entry.type.description)
      self.isDamaged = entry.isDamaged ? true : nil
    }
  }

  private init(path: String?, name: String?, id: String, type: String) {
    self.path = path
    self.name = name
    self.id = id
    self.type = type
  }
}
