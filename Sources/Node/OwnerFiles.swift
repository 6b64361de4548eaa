// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#endif

/// Files and directories that only their owner may use: made with mode 0600 and 0700, refused when wider.
enum OwnerFiles {
  static let byteCountMax = 1 << 20

  static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  // MARK: Directories

  /// Throws unless this is a directory of ours that is closed to others.
  static func require(directory path: String) throws(NodeError) {
    let file = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard file >= 0 else { throw errno == ENOENT ? .notANode(path) : Self.failure("open", path) }
    defer { close(file) }
    try Self.require(own: file, path)
  }

  /// Throws unless what is open here is ours and closed to others.
  private static func require(own file: Int32, _ path: String) throws(NodeError) {
    var status = stat()
    guard fstat(file, &status) == 0 else { throw Self.failure("fstat", path) }
    guard status.st_uid == geteuid() else { throw .foreignOwner(path) }
    let mode = UInt16(truncatingIfNeeded: status.st_mode) & 0o7777
    guard mode & 0o077 == 0 else { throw .tooOpen(path, mode: mode) }
  }

  static func makeDirectory(_ path: String) throws(NodeError) {
    guard mkdir(path, 0o700) == 0 else { throw Self.failure("mkdir", path) }
  }

  /// The names in a directory, `.` and `..` left out; nil when there is no such directory.
  static func list(_ path: String) throws(NodeError) -> [String]? {
    guard let directory = opendir(path) else {
      if errno == ENOENT { return nil }
      throw Self.failure("opendir", path)
    }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  /// Removes a directory and all that is in it. What can not be removed stays.
  static func removeTree(_ path: String) {
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      unlink(path)
      return
    }
    for name in (try? Self.list(path)) ?? [] { Self.removeTree("\(path)/\(name)") }
    rmdir(path)
  }

  /// Makes a directory as a whole: in another place beside its own, which is renamed when `fill` has returned and all
  /// is on the disk. So it exists complete or not at all; what a crash leaves is a directory named
  /// `.<name>.incomplete`, which the next call removes. Anything else at that name is refused.
  ///
  /// - Parameter path: must not exist, or be an empty directory; its parent must exist.
  static func create<Result>(
    _ path: String, _ fill: (_ temporary: String) async throws -> Result
  ) async throws -> Result {
    if let names = try Self.list(path), !names.isEmpty { throw NodeError.directoryInUse(path) }
    let (parent, name) = Self.split(path)
    let temporary = "\(parent)/.\(name).incomplete"
    let lock = try Self.claim(temporary, for: path)
    defer { close(lock) }
    let result: Result
    do {
      result = try await fill(temporary)
      try Self.synchronize(directory: temporary)
      guard rename(temporary, path) == 0 else { throw Self.failure("rename", path) }
    } catch {
      Self.removeTree(temporary)
      throw error
    }
    try Self.synchronize(directory: parent)
    return result
  }

  /// Makes the temporary directory, empty, and locks it. Returns the open directory, which holds the lock.
  ///
  /// Its name can be guessed, and in a place like `/tmp` anybody may have put something there. So one that exists is
  /// taken over only if it is such as this would have made.
  private static func claim(_ temporary: String, for path: String) throws(NodeError) -> Int32 {
    guard mkdir(temporary, 0o700) == 0 || errno == EEXIST else { throw Self.failure("mkdir", temporary) }
    let lock = open(temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    guard lock >= 0 else {
      throw errno == ENOTDIR || errno == ELOOP ? .inTheWay(temporary) : Self.failure("open", temporary)
    }
    do throws(NodeError) {
      try Self.require(own: lock, temporary)
      guard flock(lock, LOCK_EX | LOCK_NB) == 0 else { throw .beingMade(path) }
      for name in try Self.list(temporary) ?? [] { Self.removeTree("\(temporary)/\(name)") }
    } catch {
      close(lock)
      throw error
    }
    return lock
  }

  /// Locks a directory of ours against others that do the same. It is unlocked when the result is closed.
  static func lock(directory path: String) throws(NodeError) -> Int32 {
    let lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard lock >= 0 else { throw Self.failure("open", path) }
    guard flock(lock, LOCK_EX | LOCK_NB) == 0 else {
      close(lock)
      throw .beingMade(path)
    }
    return lock
  }

  static func synchronize(directory path: String) throws(NodeError) {
    let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard directory >= 0 else { throw Self.failure("open", path) }
    defer { close(directory) }
    guard fsync(directory) == 0 else { throw Self.failure("fsync", path) }
  }

  // MARK: Files

  /// - Parameter limit: bytes; a larger file is refused.
  static func read(_ path: String, limit: Int = byteCountMax) throws(NodeError) -> [UInt8] {
    // Not blocking, since opening a pipe would wait for a writer.
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw errno == ENOENT ? .missing(path) : Self.failure("open", path) }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw Self.failure("fstat", path) }
    guard status.st_mode & S_IFMT == S_IFREG else { throw .malformed(path, why: "it is not a file") }
    return try Self.readAll(file, path, limit: limit)
  }

  static func readText(_ path: String) throws(NodeError) -> String {
    guard let text = String(validating: try Self.read(path), as: UTF8.self) else {
      throw .malformed(path, why: "it is not UTF-8")
    }
    return text
  }

  /// Reads standard input, or a file that may be a pipe.
  static func readArgument(_ path: String) throws(NodeError) -> String {
    let file = path == "-" ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { throw errno == ENOENT ? .missing(path) : Self.failure("open", path) }
    defer { close(file) }
    guard let text = String(validating: try Self.readAll(file, path), as: UTF8.self) else {
      throw .malformed(path, why: "it is not UTF-8")
    }
    return text
  }

  private static func readAll(_ file: Int32, _ path: String, limit: Int = byteCountMax) throws(NodeError) -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 16 << 10)
    while true {
      let count = buffer.withUnsafeMutableBytes { Glibc.read(file, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      guard count >= 0 else { throw Self.failure("read", path) }
      if count == 0 { return bytes }
      bytes.append(contentsOf: buffer.prefix(count))
      guard bytes.count <= limit else { throw .malformed(path, why: "it is too large") }
    }
  }

  /// Writes a file, or replaces one atomically. On return the bytes and the name are on the disk.
  static func write(_ bytes: [UInt8], to path: String) throws(NodeError) {
    let (directory, name) = Self.split(path)
    let temporary = "\(directory)/.\(name).\(UInt64.random(in: .min ... .max)).new"
    let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw Self.failure("open", path) }
    do throws(NodeError) {
      defer { close(file) }
      var rest = bytes[...]
      while !rest.isEmpty {
        let count = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { throw Self.failure("write", path) }
        rest.removeFirst(count)
      }
      guard fsync(file) == 0 else { throw Self.failure("fsync", path) }
      guard rename(temporary, path) == 0 else { throw Self.failure("rename", path) }
    } catch {
      unlink(temporary)
      throw error
    }
    try Self.synchronize(directory: directory)
  }

  static func split(_ path: String) -> (parent: String, name: String) {
    var path = path[...]
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    guard let slash = path.lastIndex(of: "/") else { return (".", String(path)) }
    let parent = path[..<slash]
    return (parent.isEmpty ? "/" : String(parent), String(path[path.index(after: slash)...]))
  }

  static func failure(_ call: String, _ path: String) -> NodeError {
    let code = errno
    return .system(call: call, path: path, code: code, text: String(cString: strerror(code)))
  }
}
