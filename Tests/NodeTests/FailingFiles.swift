// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Synchronization

/// The host's files, on a disk that can be made to fail: every sync then reports an error.
final class FailingFiles: FileLayer {
  private let host = HostFiles()
  private let isBroken = Atomic(false)

  func breakDown() { self.isBroken.store(true, ordering: .releasing) }

  fileprivate func check() throws(FileError) {
    // EIO
    if self.isBroken.load(ordering: .acquiring) { throw .failed(operation: "fdatasync", code: 5) }
  }

  func makeDirectory(_ path: String) throws(FileError) { try self.host.makeDirectory(path) }
  func list(_ directory: String) throws(FileError) -> [String] { try self.host.list(directory) }
  func rename(_ path: String, to newPath: String) throws(FileError) { try self.host.rename(path, to: newPath) }
  func remove(_ path: String) throws(FileError) { try self.host.remove(path) }
  func lock(_ path: String) throws(FileError) -> any FileLock { try self.host.lock(path) }
  func freeBytes(_ path: String) throws(FileError) -> UInt64 { try self.host.freeBytes(path) }

  func open(_ path: String, create: Bool) throws(FileError) -> any StoreFile {
    FailingFile(file: try self.host.open(path, create: create), files: self)
  }

  func syncDirectory(_ path: String) throws(FileError) {
    try self.check()
    try self.host.syncDirectory(path)
  }
}

private final class FailingFile: StoreFile {
  let file: any StoreFile
  let files: FailingFiles

  init(file: any StoreFile, files: FailingFiles) {
    self.file = file
    self.files = files
  }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) -> Int {
    try self.file.read(into: buffer, at: offset)
  }

  func readCached(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) -> Int? {
    try self.file.readCached(into: buffer, at: offset)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError) -> Int {
    try self.file.write(bytes, at: offset)
  }

  func sync() throws(FileError) {
    try self.files.check()
    try self.file.sync()
  }

  func allocate(byteCount: UInt64) throws(FileError) { try self.file.allocate(byteCount: byteCount) }
  func size() throws(FileError) -> UInt64 { try self.file.size() }
}
