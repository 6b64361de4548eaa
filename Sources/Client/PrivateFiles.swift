// SPDX-License-Identifier: Apache-2.0

internal import Trust

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// The files of a directory that only its owner may use.
///
/// A directory is made as a whole: under another name beside its place, with mode 0700 from the first moment, and
/// renamed when everything in it is on the disk. So it exists complete or not at all.
enum PrivateFiles {
  static let byteCountMax = 1 << 20

  /// Throws unless this is a directory of ours that is closed to others.
  static func require(directory path: String) throws(ProfileError) {
    let file = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard file >= 0 else { throw Self.failure(path, "open") }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw Self.failure(path, "fstat") }
    guard status.st_uid == geteuid() else { throw ProfileError(path, .foreignOwner) }
    let mode = UInt16(truncatingIfNeeded: status.st_mode) & 0o7777
    guard mode & 0o077 == 0 else { throw ProfileError(path, .tooOpen(mode: mode)) }
  }

  static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  static func readText(_ path: String) throws(ProfileError) -> String {
    // Not blocking, since opening a pipe would wait for a writer.
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw Self.failure(path, "open") }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw Self.failure(path, "fstat") }
    guard status.st_mode & S_IFMT == S_IFREG else { throw ProfileError(path, .wrongKind) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 16 << 10)
    while true {
      let count = buffer.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { throw Self.failure(path, "read") }
      if count == 0 { break }
      bytes.append(contentsOf: buffer.prefix(count))
      guard bytes.count <= Self.byteCountMax else { throw ProfileError(path, .malformed("it is too large")) }
    }
    guard let text = String(validating: bytes, as: UTF8.self) else { throw ProfileError(path, .malformed("not UTF-8")) }
    return text
  }

  /// Makes a directory; `fill` writes its files, under the name that it is given.
  static func createDirectory(
    _ path: String, fill: (_ directory: String) throws(ProfileError) -> Void
  ) throws(ProfileError) {
    let (parent, name) = Self.split(path)
    let temporary = "\(parent)/.\(name).\(UInt64.random(in: .min ... .max)).new"
    guard mkdir(temporary, 0o700) == 0 else { throw Self.failure(parent, "mkdir") }
    do throws(ProfileError) {
      try fill(temporary)
      try Self.synchronize(temporary)
      // Onto an empty directory this succeeds; onto anything else it fails and changes nothing.
      guard rename(temporary, path) == 0 else { throw Self.failure(path, "rename") }
    } catch {
      Self.removeDirectory(temporary)
      throw error
    }
    try Self.synchronize(parent)
  }

  /// Writes a file, or replaces one atomically. It is on the disk when this returns; its name, once the directory has
  /// been synchronized.
  static func write(_ text: String, to path: String) throws(ProfileError) {
    let (directory, name) = Self.split(path)
    let temporary = "\(directory)/.\(name).\(UInt64.random(in: .min ... .max)).new"
    let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw Self.failure(path, "open") }
    do throws(ProfileError) {
      defer { close(file) }
      var rest = Array(text.utf8)[...]
      while !rest.isEmpty {
        let count = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { throw Self.failure(path, "write") }
        rest.removeFirst(count)
      }
      guard fsync(file) == 0 else { throw Self.failure(path, "fsync") }
      guard rename(temporary, path) == 0 else { throw Self.failure(path, "rename") }
    } catch {
      unlink(temporary)
      throw error
    }
  }

  /// Runs `body` while no other process or thread does so with the same directory. Waits for it; `body` is short.
  static func withLock<Result>(
    on directory: String, _ body: () throws(ProfileError) -> Result
  ) throws(ProfileError) -> Result {
    let file = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard file >= 0 else { throw Self.failure(directory, "open") }
    // That unlocks it, too.
    defer { close(file) }
    while flock(file, LOCK_EX) != 0 {
      guard errno == EINTR else { throw Self.failure(directory, "flock") }
    }
    return try body()
  }

  static func synchronize(_ path: String) throws(ProfileError) {
    let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard directory >= 0 else { throw Self.failure(path, "open") }
    defer { close(directory) }
    guard fsync(directory) == 0 else { throw Self.failure(path, "fsync") }
  }

  private static func removeDirectory(_ path: String) {
    guard let directory = opendir(path) else { return }
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { unlink("\(path)/\(name)") }
    }
    closedir(directory)
    rmdir(path)
  }

  /// Removes a directory that holds a key and nothing else.
  static func removeKeyDirectory(_ path: String, key: String) throws(ProfileError) {
    guard !Profile.hasCredential(path) else { throw ProfileError(path, .alreadyExists) }
    guard unlink("\(path)/\(key)") == 0 else { throw Self.failure(path, "unlink") }
    guard rmdir(path) == 0 else { throw Self.failure(path, "rmdir") }
  }

  private static func split(_ path: String) -> (directory: String, name: String) {
    var path = path[...]
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    guard let slash = path.lastIndex(of: "/") else { return (".", String(path)) }
    let directory = path[..<slash]
    return (directory.isEmpty ? "/" : String(directory), String(path[path.index(after: slash)...]))
  }

  static func failure(_ path: String, _ call: String) -> ProfileError {
    switch errno {
    case ENOENT: ProfileError(path, .missing)
    case EEXIST, ENOTEMPTY: ProfileError(path, .alreadyExists)
    case ENOTDIR: ProfileError(path, .wrongKind)
    default: ProfileError(path, .system(call: call, code: errno, text: String(cString: strerror(errno))))
    }
  }
}
