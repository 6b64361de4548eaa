// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
package import GRPCProtobuf
package import Inodes
package import Sectors
internal import Transport
package import Trust

/// Why the filesystem service refused. Nothing was changed.
package enum FilesystemError: Error, Hashable, Sendable {
  /// A path that breaks the rules for paths.
  case invalidPath(PathError)
  /// There is no such file. Said only to callers who may know.
  case notFound
  /// The name is taken.
  case alreadyExists
  /// A directory is needed here.
  case notDirectory
  /// This is a directory.
  case isDirectory
  /// The directory has entries.
  case notEmpty
  /// The caller may not do this, or the thing does not exist and the caller may not know that.
  case permissionDenied
  /// Too many symbolic links on the way, or a directory would come to lie in itself.
  case loop
  /// The two names belong to different generations.
  case crossGeneration
  /// Not a file, or not a symbolic link, as the operation needs it.
  case wrongType
  /// A request field that is malformed. Names it.
  case invalid(field: String)
  /// More than a limit allows.
  case tooLarge(String, limit: Int, found: Int)
  /// A fixed limit of the filesystem is reached. Names it.
  case limitReached(String)
  /// Beyond the largest offset or size.
  case outOfRange
  /// What is stored does not match what was signed.
  case dataLoss(FileID, DamagedPart)
  /// A directory in a format that a newer release wrote.
  case newerFormat(FileID, format: UInt32)
  /// The file changes faster than this operation can be repeated.
  case contended
  /// A credential that does not verify, or that the issuer was not entitled to. Names why.
  case badCredential(String)
  /// This process has no key for the file or directory.
  case noKey(FileID)
  /// The key also stands in an entry of this directory, of another generation, and is replaced from there. Nobody is
  /// answered with this.
  case keyStandsElsewhere(FileID)
  /// A task in the background is to stop. Nobody is answered with this.
  case taskStopped
  /// The file or directory was given a new key after it was looked up: it is to be looked up again.
  case keyOutdated(FileID)
  /// The directory can not be taken back from its cluster. Nothing was done.
  case drainRefused(DrainRefusal)
  /// Other processes answer for this path. Nothing was done.
  case redirected(FilesystemRedirection)
  /// This takes the processes of the directory above, and none is known.
  case parentUnreachable
  /// The sector service refused.
  case sector(SectorError)

  /// What of a file is damaged.
  package enum DamagedPart: Hashable, Sendable {
    /// Content from this byte on.
    case content(offset: UInt64)
    /// The record.
    case record
    /// A directory's entries.
    case entries
    /// A directory has an entry whose inode is missing.
    case missing
  }

  /// Whether others changed what was read while it was read: then everything is read again.
  var isConflict: Bool {
    switch self {
    case .contended, .sector(.conflict), .sector(.versionGone), .sector(.notFound): true
    default: false
    }
  }

  /// Translates what the sector service threw, with byte offsets for sector indexes.
  init(_ error: SectorError, sectorSize: Int) {
    switch error {
    case .dataLoss(let file?, .block(let level, let index)):
      self = .dataLoss(file, .content(offset: Self.offset(level: level, index: index, sectorSize: sectorSize)))
    case .dataLoss(let file?, .record): self = .dataLoss(file, .record)
    case .permissionDenied: self = .permissionDenied
    default: self = .sector(error)
    }
  }

  /// Translates what an integrity check threw while a file was read.
  init(_ error: IntegrityError, file: FileID, sectorSize: Int) {
    switch error {
    case .sectorMismatch(let index):
      self = .dataLoss(file, .content(offset: Self.offset(level: 0, index: index, sectorSize: sectorSize)))
    case .nodeMismatch(let level, let index), .nodeMissing(let level, let index), .unreferenced(let level, let index):
      self = .dataLoss(file, .content(offset: Self.offset(level: level, index: index, sectorSize: sectorSize)))
    case .malformed, .shapeMismatch, .outOfRange: self = .dataLoss(file, .record)
    }
  }

  /// The first byte that lies below a node.
  private static func offset(level: Int, index: UInt64, sectorSize: Int) -> UInt64 {
    var sectors = index
    for level in stride(from: level, to: 0, by: -1) {
      sectors = sectors.multipliedReportingOverflow(by: TreeShape.fanOut(level: level)).partialValue
    }
    return sectors.multipliedReportingOverflow(by: UInt64(sectorSize)).partialValue
  }
}

extension FilesystemError: StatusConvertible {
  package var status: GoogleRPCStatus {
    switch self {
    case .invalidPath(let rule):
      .init(.invalidArgument, "The path breaks a rule.", reason: "INVALID_PATH", ["rule": rule.rawValue])
    case .notFound: .init(.notFound, "There is no such file.", reason: "NOT_FOUND")
    case .alreadyExists: .init(.alreadyExists, "The name is taken.", reason: "ALREADY_EXISTS")
    case .notDirectory: .init(.failedPrecondition, "This is not a directory.", reason: "NOT_DIRECTORY")
    case .isDirectory: .init(.failedPrecondition, "This is a directory.", reason: "IS_DIRECTORY")
    case .notEmpty: .init(.failedPrecondition, "The directory has entries.", reason: "NOT_EMPTY")
    case .permissionDenied: .init(.permissionDenied, "You may not do this.", reason: "PERMISSION_DENIED")
    case .loop: .init(.failedPrecondition, "The path leads round in a circle.", reason: "LOOP")
    case .crossGeneration:
      .init(
        .failedPrecondition, "The two names belong to different clusters; copy instead.", reason: "CROSS_GENERATION")
    case .wrongType: .init(.failedPrecondition, "The file is of another type.", reason: "WRONG_TYPE")
    case .invalid(let field):
      .init(.invalidArgument, "A field is malformed.", reason: "INVALID_REQUEST", ["field": field])
    case .tooLarge(let what, let limit, let found):
      .init(
        .invalidArgument, "Too large: \(what).", reason: "TOO_LARGE",
        ["field": what, "limit": "\(limit)", "found": "\(found)"])
    case .limitReached(let what):
      .init(.resourceExhausted, "A limit is reached: \(what).", reason: "LIMIT_REACHED", ["limit": what])
    case .outOfRange:
      .init(
        .outOfRange, "Beyond the largest file.", reason: "OUT_OF_RANGE", ["limit": "\(TreeShape.fileByteCountMax)"])
    case .dataLoss(let file, let part):
      .init(
        .dataLoss, "What is stored is damaged.", reason: "DATA_LOSS",
        part.metadata.merging(["file": "\(file)"]) { first, _ in first })
    case .newerFormat(let file, let format):
      .init(
        .failedPrecondition, "A newer release wrote this directory.", reason: "UNSUPPORTED_VERSION",
        ["file": "\(file)", "format": "\(format)", "limit": "\(DirectoryContent.format)"])
    case .contended, .keyOutdated, .keyStandsElsewhere:
      .init(
        .aborted, "The file changes too fast; repeat the call.", reason: "BUSY", ["retry_delay_ms": "20"],
        retryAfter: .milliseconds(20))
    case .badCredential(let why):
      .init(.invalidArgument, "The credential is refused: \(why).", reason: "BAD_SIGNATURE", ["detail": why])
    case .noKey(let file):
      .init(
        .failedPrecondition, "This process has no key for it.", reason: "NO_KEY", ["file": "\(file)"])
    case .drainRefused(let cause):
      .init(
        .failedPrecondition, "The directory can not be taken back from its cluster: \(cause.sentence).",
        reason: "DRAIN_REFUSED", ["cause": cause.rawValue])
    case .redirected(let redirection):
      .init(
        .failedPrecondition, "Other processes answer for this path.", reason: "REDIRECTED", redirection.metadata)
    case .parentUnreachable:
      .init(
        .unavailable, "The processes of the directory above can not be reached.", reason: "PARENT_UNREACHABLE",
        retryAfter: .seconds(1))
    case .taskStopped: .init(.unavailable, "This stops.", reason: "NOT_SERVING")
    case .sector(let error): error.status
    }
  }
}

extension FilesystemError.DamagedPart {
  var metadata: [String: String] {
    switch self {
    case .content(let offset): ["part": "content", "offset": "\(offset)"]
    case .record: ["part": "record"]
    case .entries: ["part": "entries"]
    case .missing: ["part": "inode"]
    }
  }
}
