// SPDX-License-Identifier: Apache-2.0

package import Inodes
package import Trust

/// What a caller learns of a file.
package struct FileInfo: Hashable, Sendable {
  package var fileID: FileID
  package var type: FileType
  /// Bytes in the file; of a directory, the bytes of its sectors.
  package var size: UInt64
  package var version: Version
  package var linkCount: UInt32
  package var rules: AccessRules
  /// Nanoseconds since 1970 UTC, as all times here.
  package var modified: Int64
  package var changed: Int64
  package var accessed: Int64
  package var created: Int64
  /// Bytes of its sectors, holes counted as if they were stored.
  package var storedBytes: UInt64
  /// Of a directory with a cluster of its own: the generation of what is made in it.
  package var servedByGeneration: Generation?
  /// Whether it comes from a copy of what a cluster above stores, which can not be reached.
  package var isStale = false
  /// The epoch of the key that new sectors are sealed under; 0 for what is not encrypted.
  package var keyEpoch: UInt32
  /// Who has the key by a readcap of the file itself.
  package var readcaps: [TreePath]
  /// Whether the key is in no directory, only in readcaps.
  package var isCutOff: Bool

  /// Describes a verified record.
  package init(_ record: InodeRecord) {
    let content = record.content.part
    let attributes = record.attributes.part
    self.fileID = record.fileID
    self.type = attributes.type
    self.size = attributes.type == .credential ? UInt64(record.credential.count) : content.size
    self.version = record.version
    self.linkCount = record.links.part.count
    self.rules = attributes.rules
    // A time set by hand counts until the content changes.
    let isSetByHand = attributes.modifiedAtVersion == content.version
    self.modified = isSetByHand ? attributes.modified : content.modified
    self.changed = max(attributes.changed, content.modified)
    self.accessed = attributes.accessed == 0 ? self.modified : attributes.accessed
    self.created = attributes.created
    self.storedBytes = content.sectorCount * UInt64(content.sectorSize)
    self.servedByGeneration = attributes.servedByGeneration
    self.keyEpoch = attributes.type == .credential ? 0 : content.keyEpoch
    self.readcaps = attributes.readcaps.map(\.principal)
    self.isCutOff = attributes.isCutOff
    // What has just been given its name, or is about to lose it, has it.
    if record.links.part.pending != nil { self.linkCount = max(self.linkCount, 1) }
  }

  /// Describes a file as it was written, which by now has no name any more.
  ///
  /// - Parameter content: what was written.
  init(nameless file: FileID, content: ContentPart, rules: AccessRules) {
    self.fileID = file
    self.type = .file
    self.size = content.size
    self.version = 1
    self.linkCount = 0
    self.rules = rules
    (self.modified, self.changed) = (content.modified, content.modified)
    (self.accessed, self.created) = (content.modified, content.modified)
    self.storedBytes = content.sectorCount * UInt64(content.sectorSize)
    self.keyEpoch = content.keyEpoch
    self.readcaps = []
    self.isCutOff = false
  }

  /// About how many bytes it takes in a message.
  var byteCount: Int {
    let readcapsByteCount = self.readcaps.reduce(0) { $0 + 8 + $1.bytes.count }
    return self.rules.entries.reduce(
      144 + self.rules.owner.bytes.count + self.rules.group.bytes.count + readcapsByteCount
    ) { sum, entry in
      switch entry.subject {
      case .principal(let path), .group(let path): sum + 16 + path.bytes.count
      }
    }
  }
}

/// A name in a directory.
package struct ListedEntry: Hashable, Sendable {
  package var name: PathComponent
  package var fileID: FileID
  package var type: FileType
  /// Present when it was asked for, the caller may know, and the entry is not damaged.
  package var info: FileInfo?
  /// Whether it was asked for, and the record is damaged or missing.
  package var isDamaged = false

  /// About how many bytes it takes in a message.
  var byteCount: Int { 64 + self.name.bytes.count + (self.info?.byteCount ?? 0) }
}

/// How much room there is.
package struct FilesystemInfo: Hashable, Sendable {
  package var totalBytes: UInt64
  package var usedBytes: UInt64
  package var freeBytes: UInt64
  package var inodes: UInt64
  package var sectorSize: Int
  package var generation: Generation
}
