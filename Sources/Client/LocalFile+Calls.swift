// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials
internal import NIOPosix

#if canImport(Glibc)
  package import Glibc
#elseif canImport(Musl)
  package import Musl
#endif

/// Calls on files of this machine that block. Made on threads of their own.
package enum LocalFile {
  /// What `lstat` says of a name.
  package struct Description: Sendable {
    package enum Kind: Sendable {
      case file
      case directory
      case symbolicLink
      /// A device, socket or pipe.
      case other
    }

    package let kind: Kind
    package let mode: FileMode
    package let modified: Timestamp
    package let size: UInt64
  }

  /// What a file of this machine gets of the mode of one that comes from elsewhere. Not setuid, setgid and sticky: here
  /// the file belongs to whoever fetched it, and with these bits others could act as that user.
  static let permissions: UInt16 = 0o777

  /// Runs `body` on such a thread.
  package static func onThread<Result: Sendable>(
    _ body: @escaping @Sendable () throws -> Result
  ) async throws -> Result {
    try await NIOThreadPool.singleton.runIfActive(body)
  }

  /// - Parameter followsLink: whether a symbolic link is followed.
  package static func describe(_ path: String, followsLink: Bool = false) throws -> Description {
    var status = stat()
    let result = followsLink ? stat(path, &status) : lstat(path, &status)
    guard result == 0 else { throw BlocktreeError.localFile(path, errno) }
    return Description(status)
  }

  /// The names in a directory, in order. A name that is not UTF-8 is an error.
  package static func list(_ path: String) throws -> [String] {
    guard let directory = opendir(path) else { throw BlocktreeError.localFile(path, errno) }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let bytes = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
      guard let name = String(validating: bytes, as: UTF8.self) else {
        throw BlocktreeError.localFile("\(path)/\(String(decoding: bytes, as: UTF8.self))", EILSEQ)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  package static func readSymbolicLink(_ path: String) throws -> String {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { buffer in
      buffer.withMemoryRebound(to: CChar.self) { $0.baseAddress.map { readlink(path, $0, buffer.count) } ?? -1 }
    }
    guard count >= 0 else { throw BlocktreeError.localFile(path, errno) }
    guard let target = String(validating: buffer.prefix(count), as: UTF8.self) else {
      throw BlocktreeError.localFile(path, EILSEQ)
    }
    return target
  }

  /// Reads a file of at most `limit` bytes whole; nil when it is larger.
  package static func readWhole(_ path: String, limit: Int) throws -> [UInt8]? {
    let descriptor = try self.open(path, O_RDONLY | O_NOFOLLOW)
    defer { self.close(descriptor) }
    var bytes: [UInt8] = []
    while true {
      let part = try self.read(descriptor, count: limit + 1 - bytes.count)
      if part.isEmpty { return bytes }
      bytes.append(contentsOf: part)
      if bytes.count > limit { return nil }
    }
  }

  /// Writes a whole file, which takes its name when it is complete.
  package static func writeWhole(_ bytes: [UInt8], to path: String, mode: FileMode, modified: Timestamp?) throws {
    let temporary = try TemporaryFile(for: path)
    do {
      try self.write(temporary.descriptor.value, Data(bytes))
      try temporary.setAttributes(mode: mode, modified: modified)
      try temporary.takeName(path)
    } catch {
      temporary.discard()
      throw error
    }
  }

  /// Makes a directory that only its owner may use, or takes one that is there. Symbolic links are not followed: what
  /// came from elsewhere must not lead out of where it is put.
  package static func makeDirectory(_ path: String) throws {
    if mkdir(path, 0o700) == 0 { return }
    let code = errno
    guard code == EEXIST, try self.describe(path).kind == .directory else { throw BlocktreeError.localFile(path, code) }
  }

  /// Makes a symbolic link, in the place of a file or link that is there.
  package static func makeSymbolicLink(_ path: String, to target: String) throws {
    if symlink(target, path) == 0 { return }
    guard errno == EEXIST else { throw BlocktreeError.localFile(path, errno) }
    let temporary = "\(path).\(UInt64.random(in: .min ... .max)).part"
    guard symlink(target, temporary) == 0 else { throw BlocktreeError.localFile(path, errno) }
    guard rename(temporary, path) == 0 else {
      let code = errno
      unlink(temporary)
      throw BlocktreeError.localFile(path, code)
    }
  }

  /// Sets permissions and modification time of a directory.
  package static func setAttributes(_ path: String, mode: FileMode, modified: Timestamp) throws {
    let times = [modified.timespec, modified.timespec]
    guard chmod(path, mode_t(mode.rawValue & Self.permissions)) == 0, utimensat(AT_FDCWD, path, times, 0) == 0 else {
      throw BlocktreeError.localFile(path, errno)
    }
  }

  // MARK: Descriptors

  package static func open(_ path: String, _ flags: Int32, mode: mode_t = 0) throws -> Int32 {
    let descriptor = Glibc.open(path, flags | O_CLOEXEC, mode)
    guard descriptor >= 0 else { throw BlocktreeError.localFile(path, errno) }
    return descriptor
  }

  package static func close(_ descriptor: Int32) { Glibc.close(descriptor) }

  static func describe(_ descriptor: Int32, _ path: String) throws -> Description {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw BlocktreeError.localFile(path, errno) }
    return Description(status)
  }

  /// At most `count` bytes; none at the end.
  ///
  /// - Parameter offset: where; nil for where the descriptor stands, which moves on.
  package static func read(_ descriptor: Int32, count: Int, at offset: Int64? = nil) throws -> Data {
    var data = Data(count: count)
    var got = -1
    while got < 0 {
      got = data.withUnsafeMutableBytes { buffer in
        offset.map { pread(descriptor, buffer.baseAddress, buffer.count, off_t($0)) }
          ?? Glibc.read(descriptor, buffer.baseAddress, buffer.count)
      }
      guard got >= 0 || errno == EINTR else { throw BlocktreeError.localFile(self.name(descriptor), errno) }
    }
    if got < count { data.removeSubrange(got...) }
    return data
  }

  package static func write(_ descriptor: Int32, _ data: Data) throws {
    try data.withUnsafeBytes { buffer in
      var written = 0
      while written < buffer.count {
        let put = Glibc.write(descriptor, buffer.baseAddress.map { $0 + written }, buffer.count - written)
        if put < 0 && errno == EINTR { continue }
        guard put > 0 else { throw BlocktreeError.localFile(self.name(descriptor), errno) }
        written += put
      }
    }
  }

  private static func name(_ descriptor: Int32) -> String {
    switch descriptor {
    case STDIN_FILENO: "standard input"
    case STDOUT_FILENO: "standard output"
    default: "local file"
    }
  }
}

extension LocalFile.Description {
  fileprivate init(_ status: stat) {
    self.kind =
      switch status.st_mode & S_IFMT {
      case S_IFREG: .file
      case S_IFDIR: .directory
      case S_IFLNK: .symbolicLink
      default: .other
      }
    self.mode = FileMode(rawValue: UInt16(truncatingIfNeeded: status.st_mode & 0o7777))
    self.modified = Timestamp(
      nanoseconds: Int64(status.st_mtim.tv_sec) &* 1_000_000_000 &+ Int64(status.st_mtim.tv_nsec))
    self.size = UInt64(clamping: status.st_size)
  }
}

extension Timestamp {
  fileprivate var timespec: timespec {
    Glibc.timespec(tv_sec: Int(self.seconds), tv_nsec: Int(self.nanoseconds &- self.seconds &* 1_000_000_000))
  }
}

/// A file that takes the place of another one when it is complete.
struct TemporaryFile: Sendable {
  private let path: String
  let descriptor: LocalDescriptor

  init(for destination: String) throws {
    let slash = destination.lastIndex(of: "/").map { destination.index(after: $0) } ?? destination.startIndex
    let name = destination[slash...].prefix(50)
    self.path = "\(destination[..<slash]).\(name).\(UInt64.random(in: .min ... .max)).part"
    do {
      self.descriptor = LocalDescriptor(
        try LocalFile.open(self.path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600), isOwned: true)
    } catch let error as BlocktreeError {
      // The user has not heard of this name.
      throw BlocktreeError.localFile(destination, error.metadata["errno"].flatMap { Int32($0) } ?? EIO)
    }
  }

  /// - Parameter modified: with it, exactly these permissions; without, what the umask leaves of them.
  func setAttributes(mode: FileMode, modified: Timestamp?) throws {
    let bits = mode.rawValue & LocalFile.permissions & (modified == nil ? ~Self.creationMask : LocalFile.permissions)
    guard fchmod(self.descriptor.value, mode_t(bits)) == 0 else { throw BlocktreeError.localFile(self.path, errno) }
    if let modified {
      guard futimens(self.descriptor.value, [modified.timespec, modified.timespec]) == 0 else {
        throw BlocktreeError.localFile(self.path, errno)
      }
    }
  }

  /// The process's umask. It can only be read by setting it, so it is read once.
  private static let creationMask: UInt16 = {
    let mask = umask(0o077)
    umask(mask)
    return UInt16(truncatingIfNeeded: mask)
  }()

  func takeName(_ destination: String) throws {
    guard rename(self.path, destination) == 0 else { throw BlocktreeError.localFile(destination, errno) }
    // A disk that is full may say so only now.
    guard self.descriptor.close() == 0 else { throw BlocktreeError.localFile(destination, errno) }
  }

  /// Not after `takeName` has succeeded.
  func discard() {
    unlink(self.path)
  }
}
