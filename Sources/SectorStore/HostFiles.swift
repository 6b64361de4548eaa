// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// The files of this host.
package struct HostFiles: FileLayer {
  package init() {}

  package func makeDirectory(_ path: String) throws(FileError) {
    if Glibc.mkdir(path, 0o700) != 0, errno != EEXIST { throw FileError(errno, "mkdir") }
  }

  package func list(_ directory: String) throws(FileError) -> [String] {
    guard let stream = opendir(directory) else { throw FileError(errno, "opendir") }
    defer { closedir(stream) }
    var names: [String] = []
    while true {
      errno = 0
      guard let entry = readdir(stream) else { break }
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != ".", name != ".." { names.append(name) }
    }
    if errno != 0 { throw FileError(errno, "readdir") }
    return names.sorted()
  }

  package func open(_ path: String, create: Bool) throws(FileError) -> any StoreFile {
    HostFile(descriptor: try Self.descriptor(path, create ? O_RDWR | O_CREAT : O_RDWR))
  }

  package func rename(_ path: String, to newPath: String) throws(FileError) {
    if Glibc.rename(path, newPath) != 0 { throw FileError(errno, "rename") }
  }

  package func remove(_ path: String) throws(FileError) {
    if unlink(path) != 0 { throw FileError(errno, "unlink") }
  }

  package func syncDirectory(_ path: String) throws(FileError) {
    let descriptor = try Self.descriptor(path, O_RDONLY | O_DIRECTORY)
    defer { close(descriptor) }
    if fsync(descriptor) != 0 { throw .failed(operation: "fsync", code: errno) }
  }

  package func lock(_ path: String) throws(FileError) -> any FileLock {
    let file = HostFile(descriptor: try Self.descriptor(path, O_RDWR | O_CREAT))
    if flock(file.descriptor, LOCK_EX | LOCK_NB) != 0 {
      throw errno == EWOULDBLOCK ? .locked : FileError(errno, "flock")
    }
    return HostLock(file: file)
  }

  package func freeBytes(_ path: String) throws(FileError) -> UInt64 {
    var status = statvfs()
    if statvfs(path, &status) != 0 { throw FileError(errno, "statvfs") }
    return UInt64(status.f_bavail) * UInt64(status.f_frsize)
  }

  private static func descriptor(_ path: String, _ flags: CInt) throws(FileError) -> CInt {
    while true {
      let descriptor = Glibc.open(path, flags | O_CLOEXEC, 0o600)
      if descriptor >= 0 { return descriptor }
      if errno != EINTR { throw FileError(errno, "open") }
    }
  }
}

/// `preadv2`, which the Glibc module does not declare; nil where the C library has none.
private let preadv2: (@convention(c) (CInt, UnsafePointer<iovec>, CInt, off_t, CInt) -> Int)? = {
  typealias Function = @convention(c) (CInt, UnsafePointer<iovec>, CInt, off_t, CInt) -> Int
  return dlsym(nil, "preadv2").map { unsafeBitCast($0, to: Function.self) }
}()

/// RWF_NOWAIT of <linux/fs.h>.
private let readWithoutWaiting: CInt = 8

private final class HostFile: StoreFile {
  let descriptor: CInt

  init(descriptor: CInt) { self.descriptor = descriptor }

  deinit { close(self.descriptor) }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) -> Int {
    while true {
      let count = pread(self.descriptor, buffer.baseAddress, buffer.count, off_t(offset))
      if count >= 0 { return count }
      if errno != EINTR { throw FileError(errno, "pread") }
    }
  }

  func readCached(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) -> Int? {
    guard let preadv2 else { return nil }
    var vector = iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
    while true {
      let count = preadv2(self.descriptor, &vector, 1, off_t(offset), readWithoutWaiting)
      if count >= 0 { return count }
      switch errno {
      case EINTR: continue
      // Not in memory, or a filesystem that can not tell.
      case EAGAIN, EOPNOTSUPP, EINVAL, ENOSYS: return nil
      default: throw FileError(errno, "preadv2")
      }
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError) -> Int {
    while true {
      let count = pwrite(self.descriptor, bytes.baseAddress, bytes.count, off_t(offset))
      if count >= 0 { return count }
      if errno != EINTR { throw FileError(errno, "pwrite") }
    }
  }

  func sync() throws(FileError) {
    // Never again after a failure, EINTR included: the kernel may have dropped what it could not write. Nor is a sync
    // that fails for want of room only that: what it was to write may be of changes that others rely on already.
    if fdatasync(self.descriptor) != 0 { throw .failed(operation: "fdatasync", code: errno) }
  }

  func allocate(byteCount: UInt64) throws(FileError) {
    while true {
      // Falls back to writing where the filesystem can not allocate.
      let code = posix_fallocate(self.descriptor, 0, off_t(byteCount))
      if code == 0 { return }
      if code != EINTR { throw FileError(code, "fallocate") }
    }
  }

  func size() throws(FileError) -> UInt64 {
    var status = stat()
    if fstat(self.descriptor, &status) != 0 { throw FileError(errno, "fstat") }
    return UInt64(status.st_size)
  }

  func dropCached(byteCount: Int, at offset: UInt64) {
    _ = posix_fadvise(self.descriptor, off_t(offset), off_t(byteCount), POSIX_FADV_DONTNEED)
  }
}

private final class HostLock: FileLock {
  private let file: HostFile

  init(file: HostFile) { self.file = file }

  func release() { flock(self.file.descriptor, LOCK_UN) }
}

extension FileError {
  fileprivate init(_ code: Int32, _ operation: String) {
    self =
      switch code {
      case ENOSPC, EDQUOT: .noSpace
      case ENOENT: .notFound
      case EEXIST: .exists
      default: .failed(operation: operation, code: code)
      }
  }
}
