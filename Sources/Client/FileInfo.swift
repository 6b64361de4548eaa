// SPDX-License-Identifier: Apache-2.0

/// Names one file of the domain for good, whatever its paths are: neither number is ever reused.
public struct FileID: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// The sector cluster that stores the file. The root cluster's is 1.
  public let generation: UInt64
  /// The number within the generation, from 1.
  public let inode: UInt64

  public init(generation: UInt64, inode: UInt64) {
    self.generation = generation
    self.inode = inode
  }

  /// Reads `generation:inode`; nil for anything else.
  public init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, let generation = UInt64(parts[0]), let inode = UInt64(parts[1]), generation > 0, inode > 0
    else { return nil }
    self.init(generation: generation, inode: inode)
  }

  /// `generation:inode`.
  public var description: String { "\(self.generation):\(self.inode)" }

  public static func < (left: Self, right: Self) -> Bool {
    (left.generation, left.inode) < (right.generation, right.inode)
  }
}

/// What a file is. Programs should expect to meet types that they do not know.
public struct FileType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  public let rawValue: Int

  public init(rawValue: Int) {
    self.rawValue = rawValue
  }

  /// A sequence of bytes.
  public static let file = FileType(rawValue: 1)
  public static let directory = FileType(rawValue: 2)
  public static let symbolicLink = FileType(rawValue: 3)
  /// The signed file that makes a process or user what it is.
  public static let credential = FileType(rawValue: 4)
  /// Inode 1 of each generation, which is in no directory.
  public static let superblock = FileType(rawValue: 5)

  /// `file`, `directory`, `symbolic-link`, `credential`, `superblock`, or `type-` and a number.
  public var description: String {
    switch self {
    case .file: "file"
    case .directory: "directory"
    case .symbolicLink: "symbolic-link"
    case .credential: "credential"
    case .superblock: "superblock"
    default: "type-\(self.rawValue)"
    }
  }
}

/// The twelve mode bits: set-user-id, set-group-id, sticky, then rwx for owner, group and others.
public struct FileMode: RawRepresentable, Hashable, Sendable, CustomStringConvertible, ExpressibleByIntegerLiteral {
  public let rawValue: UInt16

  /// Bits above the twelve are left out.
  public init(rawValue: UInt16) {
    self.rawValue = rawValue & 0o7777
  }

  public init(integerLiteral value: UInt16) {
    self.init(rawValue: value)
  }

  /// Four octal digits: `0644`.
  public var description: String {
    let digits = String(self.rawValue, radix: 8)
    return String(repeating: "0", count: 4 - digits.count) + digits
  }
}

/// What one principal or group may do beyond what owner, group and others may.
public struct AccessEntry: Hashable, Sendable {
  /// Of a principal's credential, or of the directory that is a group.
  public var path: String
  /// Whether all principals below `path` are meant.
  public var isGroup: Bool
  /// 4 read, 2 write, 1 execute.
  public var permission: UInt8

  public init(path: String, isGroup: Bool, permission: UInt8) {
    self.path = path
    self.isGroup = isGroup
    self.permission = permission & 7
  }
}

/// A description of a file, as of one version.
public struct FileInfo: Hashable, Sendable {
  public var id: FileID
  public var type: FileType
  /// Bytes; of a directory, those of its entries.
  public var size: UInt64
  /// Grows by one with each change.
  public var version: UInt64
  /// How many names the file has.
  public var linkCount: UInt32
  public var mode: FileMode
  /// The path of the owner's credential.
  public var owner: String
  /// The path of the group's directory.
  public var group: String
  /// Further permissions.
  public var access: [AccessEntry]
  /// When the content last changed.
  public var modified: Timestamp
  /// When attributes, links or content last changed.
  public var changed: Timestamp
  /// When the content was last read, as somebody set it.
  public var accessed: Timestamp
  public var created: Timestamp
  /// Bytes that its sectors take, holes not counted.
  public var storedByteCount: UInt64
  /// Of a directory that was handed to a cluster of its own, the generation of what is created in it.
  public var servedByGeneration: UInt64?
  /// Whether this comes from a copy that could not be compared with the processes of the directory above, as they can
  /// not be reached.
  public var isStale: Bool
  /// The epoch of the key that new sectors are sealed under, from 1; nil for what is not encrypted.
  public var keyEpoch: UInt32?
  /// The paths of the principals that have the key by a readcap of the file itself.
  public var readcaps: [String]
  /// Whether the key is in no directory, only in readcaps.
  public var isCutOff: Bool

  public init(
    id: FileID, type: FileType, size: UInt64, version: UInt64, linkCount: UInt32, mode: FileMode, owner: String,
    group: String, access: [AccessEntry], modified: Timestamp, changed: Timestamp, accessed: Timestamp,
    created: Timestamp, storedByteCount: UInt64, servedByGeneration: UInt64? = nil, isStale: Bool = false,
    keyEpoch: UInt32? = nil, readcaps: [String] = [], isCutOff: Bool = false
  ) {
    self.id = id
    self.type = type
    self.size = size
    self.version = version
    self.linkCount = linkCount
    self.mode = mode
    self.owner = owner
    self.group = group
    self.access = access
    self.modified = modified
    self.changed = changed
    self.accessed = accessed
    self.created = created
    self.storedByteCount = storedByteCount
    self.servedByGeneration = servedByGeneration
    self.isStale = isStale
    self.keyEpoch = keyEpoch
    self.readcaps = readcaps
    self.isCutOff = isCutOff
  }
}

/// A name in a directory.
public struct DirectoryEntry: Hashable, Sendable {
  public var name: String
  public var id: FileID
  public var type: FileType
  /// The description, if it was asked for and the caller may have it.
  public var info: FileInfo?
  /// Whether there is no description because what the name leads to is damaged. To `stat` it tells more.
  public var isDamaged: Bool

  public init(name: String, id: FileID, type: FileType, info: FileInfo? = nil, isDamaged: Bool = false) {
    self.name = name
    self.id = id
    self.type = type
    self.info = info
    self.isDamaged = isDamaged
  }
}

/// How much room there is.
public struct FilesystemStatus: Hashable, Sendable {
  /// That could be stored in all.
  public var totalByteCount: UInt64
  public var usedByteCount: UInt64
  public var freeByteCount: UInt64
  /// In use.
  public var inodeCount: UInt64
  public var sectorSize: Int
  public var generation: UInt64
}

/// How a write treats what is there.
public enum WriteMode: Hashable, Sendable {
  /// The data become the whole content, atomically at the end; until then, and if the transfer breaks off, the file is
  /// as it was. It is made if it is not there.
  case replace
  /// As `replace`, but the file must not be there.
  case create
  /// The data are written from this offset on, in atomic steps of at most 1 MiB. The file must be there.
  case at(offset: UInt64)
  /// The data are written at the end, in atomic steps of at most 1 MiB. The file is made if it is not there.
  case append
}

/// What a removal expects to find.
public enum RemovalKind: Hashable, Sendable {
  /// A file or symbolic link.
  case file
  /// An empty directory.
  case directory
  /// Any of these.
  case any
}

/// New attributes; what is nil stays.
public struct AttributeChanges: Hashable, Sendable {
  public var mode: FileMode?
  /// Only an authority above may give a file away.
  public var owner: String?
  public var group: String?
  public var accessed: Timestamp?
  public var modified: Timestamp?
  /// The whole access list.
  public var access: [AccessEntry]?

  public init(
    mode: FileMode? = nil, owner: String? = nil, group: String? = nil, accessed: Timestamp? = nil,
    modified: Timestamp? = nil, access: [AccessEntry]? = nil
  ) {
    self.mode = mode
    self.owner = owner
    self.group = group
    self.accessed = accessed
    self.modified = modified
    self.access = access
  }
}
