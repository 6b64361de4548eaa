// SPDX-License-Identifier: Apache-2.0

package import Inodes
package import Trust

/// Something that is done in the background, as it is written down in the cluster of the process that does it.
package struct TaskRecord: Hashable, Sendable {
  package enum Kind: UInt8, Hashable, Sendable {
    /// Gives everything at or below a path new keys, and seals what is there under them.
    case rekey = 1
    /// Takes a directory back from its cluster.
    case drain = 2
  }

  /// 32 hexadecimal digits, drawn at random.
  package let id: String
  package let kind: Kind
  /// Of the file or directory, when the task was begun.
  package let path: TreePath
  package let file: FileID
  /// For `rekey`: whose readcaps are withdrawn first, if it has no credential any more.
  let holder: Holder?
  /// For `drain`: the generation that is taken back. Once another one serves the directory, it was. Nil in what was
  /// written down by earlier releases.
  let generation: Generation?
  /// Nanoseconds since 1970 UTC.
  package let started: Int64

  /// Somebody who has readcaps.
  struct Holder: Hashable, Sendable {
    let principal: TreePath
    /// The digest of the key-agreement key that they are sealed to; nil for any.
    let keyID: Digest32?

    func has(_ readcap: Readcap) -> Bool {
      readcap.principal == self.principal && (self.keyID ?? readcap.keyID) == readcap.keyID
    }
  }

  init(kind: Kind, path: TreePath, file: FileID, holder: Holder? = nil, generation: Generation? = nil, started: Int64) {
    var generator = SystemRandomNumberGenerator()
    let digits = (0..<2).map { _ in UInt64.random(in: .min ... .max, using: &generator) }
    self.id = digits.map { String(repeating: "0", count: 16 - String($0, radix: 16).count) + String($0, radix: 16) }
      .joined()
    self.kind = kind
    self.path = path
    self.file = file
    self.holder = holder
    self.generation = generation
    self.started = started
  }

  private static let label = "blocktree/task"
  private static let idByteCountMax = 64

  var bytes: [UInt8] {
    var writer = CanonicalWriter(label: Self.label)
    writer.write(self.kind.rawValue)
    writer.write(bytes: self.path.bytes)
    writer.write(self.file.generation.rawValue)
    writer.write(self.file.inode.rawValue)
    writer.write(bytes: self.holder?.principal.bytes ?? [])
    writer.write(bytes: self.holder?.keyID?.bytes ?? [])
    writer.write(UInt64(bitPattern: self.started))
    if let generation { writer.write(generation.rawValue) }
    return writer.bytes
  }

  /// Takes what `bytes` gave.
  init(id: String, bytes: [UInt8]) throws(FilesystemError) {
    guard id.utf8.count <= Self.idByteCountMax else { throw .invalid(field: "task") }
    do {
      var reader = try CanonicalReader(bytes, label: Self.label)
      guard let kind = Kind(rawValue: try reader.integer()) else { throw FilesystemError.invalid(field: "task") }
      self.id = id
      self.kind = kind
      self.path = try TreePath(parsing: try reader.bytes(countMax: TreePath.byteCountMax))
      self.file = FileID(
        generation: Generation(try reader.integer()), inode: InodeNumber(try reader.integer()))
      let principal = try reader.bytes(countMax: TreePath.byteCountMax)
      let keyID = Digest32(bytes: try reader.bytes(countMax: Digest32.byteCount))
      self.holder = principal.isEmpty ? nil : Holder(principal: try TreePath(parsing: principal), keyID: keyID)
      self.started = Int64(bitPattern: try reader.integer(UInt64.self))
      self.generation = reader.isAtEnd ? nil : Generation(try reader.integer())
      try reader.finish()
    } catch {
      throw .invalid(field: "task")
    }
  }
}
