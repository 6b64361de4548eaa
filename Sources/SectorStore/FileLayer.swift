// SPDX-License-Identifier: Apache-2.0

/// Why a file operation failed.
package enum FileError: Error, Hashable, Sendable {
  case noSpace
  case notFound
  case exists
  case locked
  /// Anything else, with the operation and the system's error number.
  case failed(operation: String, code: Int32)
}

/// All disk access of the log and the data files goes through this, so that tests can put a disk beneath it that loses
/// power. (SQLite has its own files; see ``StoreIndex``.)
///
/// These are `any`, not generic parameters: each call is a system call, next to which the dispatch costs nothing, and
/// files are class instances, so nothing is boxed.
package protocol FileLayer: Sendable {
  /// Makes a directory of mode 0700; one that exists is left as it is.
  func makeDirectory(_ path: String) throws(FileError)
  /// Names of the entries of a directory, sorted.
  func list(_ directory: String) throws(FileError) -> [String]
  /// Opens a file for reading and writing. With `create`, makes it with mode 0600 where it does not exist.
  func open(_ path: String, create: Bool) throws(FileError) -> any StoreFile
  func rename(_ path: String, to newPath: String) throws(FileError)
  func remove(_ path: String) throws(FileError)
  /// Makes names in this directory durable: made, renamed and removed ones.
  func syncDirectory(_ path: String) throws(FileError)
  /// Takes the lock that this file stands for until what is returned is released. Throws `locked`.
  func lock(_ path: String) throws(FileError) -> any FileLock
  /// Bytes that may still be written to the filesystem of this path.
  func freeBytes(_ path: String) throws(FileError) -> UInt64
}

package protocol FileLock: AnyObject, Sendable {
  func release()
}

/// An open file; closed when the last reference goes.
package protocol StoreFile: AnyObject, Sendable {
  /// Reads up to the buffer's size; 0 at the end of the file. May read less than asked.
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) -> Int
  /// The same for what is in memory already; nil where that would have to wait for the disk.
  func readCached(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) -> Int?
  /// May write less than asked.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError) -> Int
  /// `fdatasync`: contents, and the size where it is needed to read them.
  func sync() throws(FileError)
  /// Makes the file at least so long, and its blocks taken, so that writing to them needs no room.
  func allocate(byteCount: UInt64) throws(FileError)
  func size() throws(FileError) -> UInt64
  /// Lets go of what memory holds of these bytes and the disk has, so that they are read from the disk next. What is not
  /// synced yet stays. A hint: where it can not be done, nothing happens.
  func dropCached(byteCount: Int, at offset: UInt64)
}

extension StoreFile {
  package func dropCached(byteCount: Int, at offset: UInt64) {}

  func writeAll(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError) {
    var done = 0
    while done < bytes.count {
      let count = try self.write(UnsafeRawBufferPointer(rebasing: bytes[done...]), at: offset + UInt64(done))
      guard count > 0 else { throw .failed(operation: "write", code: 0) }
      done += count
    }
  }

  func writeAll(_ bytes: [UInt8], at offset: UInt64) throws(FileError) {
    try bytes.withUnsafeBytes { raw in Result { () throws(FileError) in try self.writeAll(raw, at: offset) } }.get()
  }

  /// Reads until the buffer is full or the file ends; returns the number of bytes read.
  func readAll(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) -> Int {
    var done = 0
    while done < buffer.count {
      let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[done...])
      let count = try self.read(into: rest, at: offset + UInt64(done))
      if count == 0 { break }
      done += count
    }
    return done
  }

  /// Up to `count` bytes from `offset`, less where the file ends before.
  func readAll(count: Int, at offset: UInt64) throws(FileError) -> [UInt8] {
    var failure: FileError?
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      do throws(FileError) {
        initialized = try self.readAll(into: UnsafeMutableRawBufferPointer(buffer), at: offset)
      } catch {
        failure = error
      }
    }
    if let failure { throw failure }
    return bytes
  }
}

extension StoreError {
  /// For operations after which the store can go on.
  init(_ error: FileError) {
    self =
      switch error {
      case .noSpace: .noSpace
      case .locked: .locked
      case .notFound, .exists, .failed: .io(error)
      }
  }
}
