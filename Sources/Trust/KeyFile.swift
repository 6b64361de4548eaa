// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// Why a key file was not read or written.
package enum KeyFileError: Error, Hashable, Sendable {
  case notFound
  case alreadyExists
  /// Group or others have some right to the file, or it is executable: the mode is wider than 0600.
  case tooOpen(mode: UInt16)
  /// The file belongs to another user than the one that this process acts as.
  case foreignOwner
  /// A directory, a pipe or the like.
  case notRegularFile
  case malformed
  /// A system call failed, with this errno.
  case system(call: String, code: Int32)
}

/// The file that holds a principal's private keys. It exists whole and durable or not at all, is only ever created
/// with mode 0600 (never opened up first and narrowed later), and is refused when its mode is wider than that or when
/// it belongs to somebody else.
package enum KeyFile {
  package static let byteCountMax = 16 * 1024

  /// Writes a new file; when it returns, the file and its name are on the disk.
  ///
  /// The bytes go to a new file beside it, which then gets its name by a hard link: that fails if the name is taken,
  /// and a crash leaves at worst a stray file that begins with a dot, never half a key.
  package static func create(_ keys: PrincipalKeys, at path: String) throws(KeyFileError) {
    let (directory, name) = Self.split(path)
    let temporary = "\(directory)/.\(name).\(UInt64.random(in: .min ... .max)).new"
    let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw Self.failure("open") }
    defer { unlink(temporary) }
    do throws(KeyFileError) {
      try Self.writeAll(Array(keys.pemRepresentation.utf8), to: file)
      guard fsync(file) == 0 else { throw Self.failure("fsync") }
    } catch {
      close(file)
      throw error
    }
    guard close(file) == 0 else { throw Self.failure("close") }
    guard link(temporary, "\(directory)/\(name)") == 0 else { throw Self.failure("link") }
    try Self.synchronize(directory: directory)
  }

  package static func load(from path: String) throws(KeyFileError) -> PrincipalKeys {
    // Not blocking, since opening a pipe would wait for a writer.
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw Self.failure("open") }
    defer { close(file) }
    // The open file is asked, not the name, which could be changed in between.
    var status = stat()
    guard fstat(file, &status) == 0 else { throw Self.failure("fstat") }
    guard status.st_mode & S_IFMT == S_IFREG else { throw .notRegularFile }
    guard status.st_uid == geteuid() else { throw .foreignOwner }
    let mode = UInt16(truncatingIfNeeded: status.st_mode) & 0o7777
    guard mode & ~0o600 == 0 else { throw .tooOpen(mode: mode) }
    guard status.st_size <= Self.byteCountMax else { throw .malformed }
    let bytes = try Self.readAll(file)
    guard let text = String(validating: bytes, as: UTF8.self), let keys = try? PrincipalKeys(pemRepresentation: text)
    else { throw .malformed }
    return keys
  }

  private static func split(_ path: String) -> (directory: String, name: String) {
    guard let end = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return (".", path) }
    let directory = String(path[..<end])
    return (directory.isEmpty ? "/" : directory, String(path[path.utf8.index(after: end)...]))
  }

  private static func writeAll(_ bytes: [UInt8], to file: Int32) throws(KeyFileError) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = rest.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw Self.failure("write") }
      rest.removeFirst(count)
    }
  }

  private static func readAll(_ file: Int32) throws(KeyFileError) -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = buffer.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { throw Self.failure("read") }
      if count == 0 { return bytes }
      bytes.append(contentsOf: buffer.prefix(count))
      guard bytes.count <= Self.byteCountMax else { throw .malformed }
    }
  }

  private static func synchronize(directory path: String) throws(KeyFileError) {
    let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard directory >= 0 else { throw Self.failure("open") }
    defer { close(directory) }
    guard fsync(directory) == 0 else { throw Self.failure("fsync") }
  }

  private static func failure(_ call: String) -> KeyFileError {
    switch errno {
    case ENOENT: .notFound
    case EEXIST: .alreadyExists
    default: .system(call: call, code: errno)
    }
  }
}
