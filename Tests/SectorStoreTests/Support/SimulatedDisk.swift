// SPDX-License-Identifier: Apache-2.0

import Glibc
import SectorStore
import Synchronization

/// A disk in memory that loses power.
///
/// What was written and not synced is, after a loss of power, there or not there, sector by sector of 512 bytes; so are
/// names made, renamed and removed in a directory that was not synced, one by one. After a failed sync, contents stay
/// in memory, count as clean, and never reach the disk, as on Linux.
final class SimulatedDisk: FileLayer, Sendable {
  enum Target: Sendable { case data, log, directories }

  private struct Contents {
    var bytes: [UInt8] = []
    var durable: [UInt8] = []
    /// Numbers of the 512-byte sectors that differ, or may, from what is durable.
    var dirty: Set<Int> = []
    var isSizeDirty = false
  }

  private enum NameChange {
    case add(String, Int)
    case rename(String, String)
    case remove(String)
  }

  private struct State {
    var contents: [Int: Contents] = [:]
    var names: [String: Int] = [:]
    var durableNames: [String: Int] = [:]
    var pending: [String: [NameChange]] = [:]
    var locks: Set<String> = []
    var generator: SeededGenerator
    /// Grows with each restart: handles from before are dead.
    var boot = 0
    var isOff = false
    /// Operations until the power goes.
    var countdown: Int?
    var capacity = Int.max
    var shortWrites = false
    var scrubMicroseconds: UInt32 = 0
    var ignored: Target?
    var failingSync: Target?
    var operationCount = 0
    var nextID = 1

    var usedBytes: Int { self.contents.values.reduce(0) { $0 + $1.bytes.count } }
  }

  private let state: Mutex<State>

  static let sectorBytes = 512

  init(seed: UInt64) {
    self.state = Mutex(State(generator: SeededGenerator(seed: seed)))
  }

  // MARK: Faults

  /// The power goes after so many writes, syncs and the like.
  func losePower(afterOperations count: Int) { self.state.withLock { $0.countdown = count } }
  func losePowerNow() { self.state.withLock { $0.isOff = true } }
  var isOff: Bool { self.state.withLock { $0.isOff } }
  var operationCount: Int { self.state.withLock { $0.operationCount } }

  /// Syncs of this kind do nothing and say that all is well.
  func ignoreSyncs(_ target: Target?) { self.state.withLock { $0.ignored = target } }
  /// The next sync of this kind fails, and what it should have written is lost.
  func failNextSync(_ target: Target) { self.state.withLock { $0.failingSync = target } }
  func limitCapacity(_ bytes: Int) { self.state.withLock { $0.capacity = bytes } }
  var usedBytes: Int { self.state.withLock { $0.usedBytes } }
  /// Before each block that a scrub reads, so much time goes by.
  func slowScrubs(microseconds: UInt32) { self.state.withLock { $0.scrubMicroseconds = microseconds } }
  fileprivate func pauseScrub() { usleep(self.state.withLock { $0.scrubMicroseconds }) }
  func writeShort(_ isOn: Bool) { self.state.withLock { $0.shortWrites = isOn } }

  func names(_ directory: String) -> [String] { (try? self.list(directory)) ?? [] }

  func bytes(_ path: String) -> [UInt8] {
    self.state.withLock { state in state.names[path].flatMap { state.contents[$0]?.bytes } ?? [] }
  }

  /// Changes bytes in memory and on the disk, as rot would.
  func overwrite(_ path: String, at offset: Int, with bytes: [UInt8]) {
    self.state.withLock { state in
      guard let id = state.names[path] else { return }
      for (number, byte) in bytes.enumerated() {
        state.contents[id]?.bytes[offset + number] = byte
        if offset + number < state.contents[id]?.durable.count ?? 0 {
          state.contents[id]?.durable[offset + number] = byte
        }
      }
    }
  }

  func flip(_ path: String, at offset: Int) {
    let byte = self.bytes(path)[offset]
    self.overwrite(path, at: offset, with: [byte ^ 0x10])
  }

  /// What is left when the power comes back. With `keepsMemory`, only the process died.
  func restart(keepsMemory: Bool = false) {
    self.state.withLock { state in
      state.boot += 1
      state.isOff = false
      state.countdown = nil
      state.locks = []
      if keepsMemory { return }
      for directory in state.pending.keys.sorted() {
        for change in state.pending[directory] ?? [] where state.generator.bool() {
          Self.apply(change, to: &state.durableNames)
        }
      }
      state.pending = [:]
      state.names = state.durableNames
      let living = Set(state.names.values)
      for id in state.contents.keys.sorted() {
        guard living.contains(id), var contents = state.contents[id] else {
          state.contents[id] = nil
          continue
        }
        var survivor = contents.durable
        if contents.isSizeDirty, state.generator.bool() { survivor.resize(contents.bytes.count) }
        for sector in contents.dirty.sorted() where state.generator.bool() {
          Self.copySector(sector, from: contents.bytes, to: &survivor)
        }
        contents.bytes = survivor
        contents.durable = survivor
        contents.dirty = []
        contents.isSizeDirty = false
        state.contents[id] = contents
      }
    }
  }

  // MARK: FileLayer

  func makeDirectory(_ path: String) throws(FileError) {}

  func list(_ directory: String) throws(FileError) -> [String] {
    self.state.withLock { state in
      state.names.keys.filter { Self.directory(of: $0) == directory }.map { String($0.dropFirst(directory.count + 1)) }
        .sorted()
    }
  }

  func open(_ path: String, create: Bool) throws(FileError) -> any StoreFile {
    try self.withPower { state throws(FileError) in
      if let id = state.names[path] { return SimulatedFile(disk: self, id: id, boot: state.boot, path: path) }
      guard create else { throw .notFound }
      let id = state.nextID
      state.nextID += 1
      state.contents[id] = Contents()
      Self.change(.add(path, id), path: path, in: &state)
      return SimulatedFile(disk: self, id: id, boot: state.boot, path: path)
    }
  }

  func rename(_ path: String, to newPath: String) throws(FileError) {
    try self.withPower { state throws(FileError) in
      guard state.names[path] != nil else { throw .notFound }
      Self.change(.rename(path, newPath), path: path, in: &state)
    }
  }

  func remove(_ path: String) throws(FileError) {
    try self.withPower { state throws(FileError) in
      guard state.names[path] != nil else { throw .notFound }
      Self.change(.remove(path), path: path, in: &state)
    }
  }

  func syncDirectory(_ path: String) throws(FileError) {
    try self.withPower { state throws(FileError) in
      if case .directories = state.ignored { return }
      for change in state.pending[path] ?? [] { Self.apply(change, to: &state.durableNames) }
      state.pending[path] = nil
    }
  }

  func lock(_ path: String) throws(FileError) -> any FileLock {
    try self.withPower { state throws(FileError) in
      guard state.locks.insert(path).inserted else { throw .locked }
      return SimulatedLock(disk: self, path: path, boot: state.boot)
    }
  }

  func freeBytes(_ path: String) throws(FileError) -> UInt64 {
    self.state.withLock { UInt64(max($0.capacity - $0.usedBytes, 0)) }
  }

  // MARK: Files

  fileprivate func release(_ path: String, boot: Int) {
    self.state.withLock { if $0.boot == boot { $0.locks.remove(path) } }
  }

  fileprivate func read(_ file: SimulatedFile, into buffer: UnsafeMutableRawBufferPointer, at offset: Int)
    throws(FileError) -> Int
  {
    try self.withPower(ticks: false, boot: file.boot) { state throws(FileError) in
      guard let contents = state.contents[file.id] else { throw .notFound }
      let count = max(min(buffer.count, contents.bytes.count - offset), 0)
      contents.bytes.withUnsafeBytes { bytes in
        buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[min(offset, bytes.count)...].prefix(count)))
      }
      return count
    }
  }

  fileprivate func write(_ file: SimulatedFile, _ bytes: UnsafeRawBufferPointer, at offset: Int)
    throws(FileError) -> Int
  {
    // The power may go in the middle of a write.
    var count = bytes.count
    do throws(FileError) {
      return try self.withPower(boot: file.boot) { state throws(FileError) in
        if state.shortWrites, count > 1, state.generator.bool() {
          count = Int.random(in: 1..<count, using: &state.generator)
        }
        try Self.write(bytes, count, file.id, at: offset, in: &state)
        return count
      }
    } catch {
      self.state.withLock { state in
        guard state.boot == file.boot, state.isOff, count > 0 else { return }
        try? Self.write(bytes, Int.random(in: 0..<count, using: &state.generator), file.id, at: offset, in: &state)
      }
      throw error
    }
  }

  private static func write(
    _ bytes: UnsafeRawBufferPointer, _ count: Int, _ id: Int, at offset: Int, in state: inout State
  )
    throws(FileError)
  {
    guard count > 0, var contents = state.contents.removeValue(forKey: id) else { return }
    defer { state.contents[id] = contents }
    if offset + count > contents.bytes.count {
      let growth = offset + count - contents.bytes.count
      guard state.usedBytes + contents.bytes.count + growth <= state.capacity else { throw .noSpace }
      contents.bytes.resize(offset + count)
      contents.isSizeDirty = true
    }
    contents.bytes.withUnsafeMutableBytes { target in
      UnsafeMutableRawBufferPointer(rebasing: target[offset..<offset + count])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
    }
    for sector in offset / Self.sectorBytes...(offset + count - 1) / Self.sectorBytes { contents.dirty.insert(sector) }
  }

  fileprivate func sync(_ file: SimulatedFile) throws(FileError) {
    try self.withPower(boot: file.boot) { state throws(FileError) in
      let target: Target = file.path.contains("/log/") ? .log : .data
      if state.failingSync == target, !file.path.contains("spare") {
        state.failingSync = nil
        state.contents[file.id]?.dirty = []
        throw .failed(operation: "fdatasync", code: 5)
      }
      if state.ignored == target { return }
      guard var contents = state.contents.removeValue(forKey: file.id) else { throw .notFound }
      contents.durable.resize(contents.bytes.count)
      for sector in contents.dirty { Self.copySector(sector, from: contents.bytes, to: &contents.durable) }
      contents.dirty = []
      contents.isSizeDirty = false
      state.contents[file.id] = contents
    }
  }

  fileprivate func allocate(_ file: SimulatedFile, _ byteCount: Int) throws(FileError) {
    try self.withPower(boot: file.boot) { state throws(FileError) in
      guard let contents = state.contents[file.id], byteCount > contents.bytes.count else { return }
      guard state.usedBytes + byteCount - contents.bytes.count <= state.capacity else { throw .noSpace }
      state.contents[file.id]?.bytes.resize(byteCount)
      state.contents[file.id]?.isSizeDirty = true
    }
  }

  fileprivate func size(_ file: SimulatedFile) throws(FileError) -> Int {
    try self.withPower(ticks: false, boot: file.boot) { $0.contents[file.id]?.bytes.count ?? 0 }
  }

  /// For what else needs this disk's power, such as the simulated index.
  func withPower<Value: Sendable>(_ body: () -> Value) throws(FileError) -> Value {
    try self.withPower { (_: inout State) throws(FileError) in body() }
  }

  func coin() -> Bool { self.state.withLock { $0.generator.bool() } }

  private func withPower<Value: Sendable>(
    ticks: Bool = true, boot: Int? = nil, _ body: (inout State) throws(FileError) -> Value
  ) throws(FileError) -> Value {
    try self.state.withLock { state throws(FileError) in
      if ticks, let countdown = state.countdown, !state.isOff {
        state.countdown = countdown - 1
        if countdown <= 1 { state.isOff = true }
      }
      guard !state.isOff, boot == nil || boot == state.boot else { throw .failed(operation: "power", code: 0) }
      state.operationCount += 1
      return try body(&state)
    }
  }

  private static func change(_ change: NameChange, path: String, in state: inout State) {
    self.apply(change, to: &state.names)
    state.pending[self.directory(of: path), default: []].append(change)
  }

  private static func apply(_ change: NameChange, to names: inout [String: Int]) {
    switch change {
    case .add(let path, let id): names[path] = id
    case .rename(let path, let newPath):
      if let id = names.removeValue(forKey: path) { names[newPath] = id }
    case .remove(let path): names[path] = nil
    }
  }

  private static func copySector(_ sector: Int, from source: [UInt8], to target: inout [UInt8]) {
    let start = sector * self.sectorBytes
    let end = min(start + self.sectorBytes, source.count, target.count)
    guard start < end else { return }
    target.withUnsafeMutableBytes { target in
      source.withUnsafeBytes { source in
        UnsafeMutableRawBufferPointer(rebasing: target[start..<end])
          .copyMemory(from: UnsafeRawBufferPointer(rebasing: source[start..<end]))
      }
    }
  }

  private static func directory(of path: String) -> String {
    path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
  }
}

private final class SimulatedFile: StoreFile {
  let disk: SimulatedDisk
  let id: Int
  let boot: Int
  let path: String

  init(disk: SimulatedDisk, id: Int, boot: Int, path: String) {
    self.disk = disk
    self.id = id
    self.boot = boot
    self.path = path
  }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) -> Int {
    try self.disk.read(self, into: buffer, at: Int(offset))
  }

  func readCached(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) -> Int? {
    self.disk.coin() ? try self.disk.read(self, into: buffer, at: Int(offset)) : nil
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError) -> Int {
    try self.disk.write(self, bytes, at: Int(offset))
  }

  func dropCached(byteCount: Int, at offset: UInt64) { self.disk.pauseScrub() }
  func sync() throws(FileError) { try self.disk.sync(self) }
  func allocate(byteCount: UInt64) throws(FileError) { try self.disk.allocate(self, Int(byteCount)) }
  func size() throws(FileError) -> UInt64 { UInt64(try self.disk.size(self)) }
}

private final class SimulatedLock: FileLock {
  let disk: SimulatedDisk
  let path: String
  let boot: Int

  init(disk: SimulatedDisk, path: String, boot: Int) {
    self.disk = disk
    self.path = path
    self.boot = boot
  }

  func release() { self.disk.release(self.path, boot: self.boot) }
}

extension [UInt8] {
  fileprivate mutating func resize(_ count: Int) {
    if count > self.count {
      self.append(contentsOf: [UInt8](repeating: 0, count: count - self.count))
    } else {
      self.removeLast(self.count - count)
    }
  }
}
