// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import FoundationEssentials
internal import SwiftProtobuf
internal import Trust

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// The format of backup files: see the article "Backups".
enum BackupFormat {
  static let magic: [UInt8] = Array("btbackup".utf8)
  static let version: UInt32 = 1
  /// Bytes of one message.
  static let messageByteCountMax = 256 << 10

  /// What a file begins with.
  static var beginning: [UInt8] { self.magic + withUnsafeBytes(of: self.version.littleEndian, Array.init) }

  /// The digest that stands behind a message; with that of the part before, so that a part stands only where it was
  /// written.
  static func digest(of length: [UInt8], _ message: [UInt8], after former: Digest32) -> Digest32 {
    var digest = RunningDigest()
    digest.update(former)
    digest.update(length)
    digest.update(message)
    return digest.digest
  }
}

/// What a backup is, in short.
public struct BackupSummary: Hashable, Sendable {
  /// The domain's name, without `bt://`.
  public let domain: String
  public let generation: UInt64
  /// In bytes.
  public let sectorSize: Int
  /// The last entry of the log that the backup contains, and its term.
  public let index: UInt64
  public let term: UInt64
  /// When it began, by the clock of the process that made it: nanoseconds since 1970 UTC.
  public let nanoseconds: Int64
  /// The process that made it.
  public let process: String
  public let recordCount: UInt64
  public let groupCount: UInt64
  public let certificateCount: UInt64
  public let itemCount: UInt64
  /// Bytes of items.
  public let itemByteCount: UInt64

  init?(_ assembly: BackupAssembly) {
    guard let header = assembly.header, let trailer = assembly.trailer, let domain = Digest32(bytes: header.domain)
    else { return nil }
    self.domain = DomainID(digest: domain).description
    self.generation = header.generation
    self.sectorSize = Int(header.sectorSize)
    self.index = header.index
    self.term = header.term
    self.nanoseconds = header.timeNs
    self.process = header.process
    self.recordCount = trailer.recordCount
    self.groupCount = trailer.groupCount
    self.certificateCount = trailer.certificateCount
    self.itemCount = trailer.itemCount
    self.itemByteCount = trailer.itemByteCount
  }
}

/// Writes a backup file from the responses of a process, and checks these on the way. Its calls block.
///
/// The file is `<path>.partial`, of mode 0600, until all of it is on the disk.
package final class BackupFileWriter {
  private let path: String
  private let isStandardOutput: Bool
  private let descriptor: Int32
  private var assembly = BackupAssembly()
  private var former: Digest32
  private var isDone = false

  package var itemByteCount: UInt64 { self.assembly.itemByteCount }
  private var partial: String { self.path + ".partial" }

  /// - Parameter path: must not exist; `-` for standard output.
  package init(_ path: String) throws {
    self.path = path
    self.isStandardOutput = path == "-"
    if path == "-" {
      self.descriptor = STDOUT_FILENO
    } else {
      guard access(path, F_OK) != 0 else { throw BlocktreeError.localFile(path, EEXIST) }
      // One that was left of an earlier attempt is of no use.
      unlink(path + ".partial")
      self.descriptor = try LocalFile.open(path + ".partial", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
    }
    let beginning = BackupFormat.beginning
    self.former = Digest32(sha256: beginning)
    do { try LocalFile.write(self.descriptor, Data(beginning)) } catch {
      self.discard()
      throw error
    }
  }

  deinit { self.discard() }

  package func write(_ response: Blocktree_V1_BackupResponse) throws {
    do { _ = try self.assembly.receive(response) } catch { throw BlocktreeError.malformedAnswer(error.rawValue) }
    let message: [UInt8] = try response.serializedBytes()
    let length = withUnsafeBytes(of: UInt32(clamping: message.count).littleEndian, Array.init)
    self.former = BackupFormat.digest(of: length, message, after: self.former)
    try LocalFile.write(self.descriptor, Data(length + message + self.former.bytes))
  }

  /// Gives the file its name. On return both are on the disk. Standard output is only complete.
  package func finish() throws -> BackupSummary {
    guard let summary = BackupSummary(self.assembly) else {
      throw BlocktreeError.malformedAnswer(BackupFault.truncated.rawValue)
    }
    if self.isStandardOutput {
      self.isDone = true
      return summary
    }
    guard fsync(self.descriptor) == 0 else { throw BlocktreeError.localFile(self.partial, errno) }
    guard access(self.path, F_OK) != 0 else { throw BlocktreeError.localFile(self.path, EEXIST) }
    guard rename(self.partial, self.path) == 0 else { throw BlocktreeError.localFile(self.path, errno) }
    self.isDone = true
    LocalFile.close(self.descriptor)
    let parent = self.path.lastIndex(of: "/").map { String(self.path[...$0]) } ?? "."
    let directory = try LocalFile.open(parent, O_RDONLY | O_DIRECTORY)
    defer { LocalFile.close(directory) }
    guard fsync(directory) == 0 else { throw BlocktreeError.localFile(parent, errno) }
    return summary
  }

  /// Removes what is not whole. May be called more than once.
  package func discard() {
    guard !self.isDone, !self.isStandardOutput else { return }
    self.isDone = true
    LocalFile.close(self.descriptor)
    unlink(self.partial)
  }
}

/// Reads a backup file from beginning to end, and checks all of it. Its calls block. It holds about two items.
package final class BackupFileReader {
  private let path: String
  private let descriptor: Int32
  private var assembly = BackupAssembly()
  private var former: Digest32
  /// Where the next part begins.
  private var offset: UInt64 = 0

  /// What the backup is of.
  package private(set) var header: Blocktree_V1_BackupHeader

  /// Reads the header.
  ///
  /// - Parameter path: `-` for standard input.
  /// - Throws: `BlocktreeError` of the reason `LOCAL_FILE`, or `BACKUP_DAMAGED`.
  package init(_ path: String) throws {
    self.path = path
    self.descriptor = path == "-" ? STDIN_FILENO : try LocalFile.open(path, O_RDONLY)
    self.former = Digest32(sha256: BackupFormat.beginning)
    self.header = Blocktree_V1_BackupHeader()
    guard let magic = try self.bytes(BackupFormat.magic.count), magic == BackupFormat.magic else {
      throw BlocktreeError.backupDamaged(path, .notABackup, at: 0)
    }
    guard let version = try self.bytes(4) else { throw BlocktreeError.backupDamaged(path, .truncated, at: 8) }
    guard magic + version == BackupFormat.beginning else {
      throw BlocktreeError.backupDamaged(path, .newerFormat, at: 8)
    }
    _ = try self.next()
    guard let header = self.assembly.header else {
      throw BlocktreeError.backupDamaged(path, .headerWrong, at: self.offset)
    }
    self.header = header
  }

  deinit { if self.path != "-" { LocalFile.close(self.descriptor) } }

  /// The next items, encoded; possibly none. Nil at the end, and then the backup is whole and what its maker had; only
  /// then may the items be relied on.
  package func next() throws -> [[UInt8]]? {
    let start = self.offset
    do {
      return try self.part()
    } catch let fault as BackupFault {
      throw BlocktreeError.backupDamaged(self.path, fault, at: start)
    }
  }

  private func part() throws -> [[UInt8]]? {
    let start = self.offset
    guard let length = try self.bytes(4) else {
      guard self.assembly.trailer != nil, self.offset == start else { throw BackupFault.truncated }
      return nil
    }
    guard self.assembly.trailer == nil else { throw BackupFault.trailingBytes }
    let byteCount = Int(length.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
    guard byteCount <= BackupFormat.messageByteCountMax else { throw BackupFault.checksumWrong }
    guard let message = try self.bytes(byteCount), let found = try self.bytes(Digest32.byteCount) else {
      throw BackupFault.truncated
    }
    let digest = BackupFormat.digest(of: length, message, after: self.former)
    guard Digest32(bytes: found) == digest else { throw BackupFault.checksumWrong }
    self.former = digest
    guard let response = try? Blocktree_V1_BackupResponse(serializedBytes: message) else {
      throw BackupFault.itemMalformed
    }
    return try self.assembly.receive(response)
  }

  /// What the backup is; nil before its end.
  package var summary: BackupSummary? { BackupSummary(self.assembly) }

  /// Nil when there are fewer.
  private func bytes(_ count: Int) throws -> [UInt8]? {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    while bytes.count < count {
      let piece = try LocalFile.read(self.descriptor, count: count - bytes.count)
      if piece.isEmpty { break }
      bytes.append(contentsOf: piece)
      self.offset += UInt64(piece.count)
    }
    return bytes.count == count ? bytes : nil
  }
}

extension BlocktreeError.Reason {
  /// A backup file is not whole, or not as it was written. Metadata: `path`, `fault`, and `offset`, from which on it is
  /// not.
  public static let backupDamaged = BlocktreeError.Reason(rawValue: "BACKUP_DAMAGED")
}

extension BlocktreeError {
  package static func backupDamaged(_ path: String, _ fault: BackupFault, at offset: UInt64) -> BlocktreeError {
    BlocktreeError(
      code: .dataLoss, reason: .backupDamaged, message: "\(path) is no whole backup.",
      metadata: ["path": path, "fault": fault.rawValue, "offset": "\(offset)"])
  }
}
