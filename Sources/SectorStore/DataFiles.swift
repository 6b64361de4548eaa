// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// The files that hold the slots of one size. Shared by the thread that writes and all that read.
final class DataFiles: Sendable {
  let slotBytes: Int
  private let files: any FileLayer
  private let directory: String
  private let prefix: String
  private let slotsPerFile: Int
  private let growthSlots: Int
  private let opened: Mutex<Opened>
  /// Files that were written to and not synced: of entries whose bytes the log has, too.
  private let unsynced = Mutex<Set<Int>>([])

  private struct Opened {
    var files: [any StoreFile] = []
    /// Slots in the last file.
    var lastCapacity = 0
  }

  init(
    files: any FileLayer, directory: String, prefix: String, slotBytes: Int, fileBytes: Int, growthBytes: Int
  ) throws(FileError) {
    self.files = files
    self.directory = directory
    self.prefix = prefix
    self.slotBytes = slotBytes
    self.slotsPerFile = max(fileBytes / slotBytes, 64)
    self.growthSlots = max(growthBytes / slotBytes, 64)
    var opened = Opened()
    for name in try files.list(directory) where name.hasPrefix(prefix + "-") {
      guard name == Self.name(prefix, opened.files.count) else { break }
      let file = try files.open(directory + "/" + name, create: false)
      opened.lastCapacity = min(Int(try file.size()) / slotBytes, self.slotsPerFile)
      opened.files.append(file)
    }
    self.opened = Mutex(opened)
  }

  /// The number of slots that there is room for now.
  var capacity: Int {
    self.opened.withLock { $0.files.isEmpty ? 0 : ($0.files.count - 1) * self.slotsPerFile + $0.lastCapacity }
  }

  /// Makes room for at least `count` more slots, durably, unless that would leave less than `reserved` bytes free.
  func grow(by count: Int, reserved: UInt64) throws(FileError) {
    var missing = count
    while missing > 0 {
      let (fileCount, lastCapacity) = self.opened.withLock { ($0.files.count, $0.lastCapacity) }
      let isNew = fileCount == 0 || lastCapacity == self.slotsPerFile
      let before = isNew ? 0 : lastCapacity
      let available = Int(try self.files.freeBytes(self.directory)) - Int(reserved)
      let fitting = max(available / self.slotBytes, 0)
      // A full step if there is room for it, else what is needed.
      let step = min(fitting >= self.growthSlots ? max(missing, self.growthSlots) : missing, self.slotsPerFile - before)
      guard step <= fitting else { throw .noSpace }
      let number = isNew ? fileCount : fileCount - 1
      let file =
        try isNew
        ? self.files.open(self.directory + "/" + Self.name(self.prefix, number), create: true)
        : self.opened.withLock { $0.files[number] }
      try file.allocate(byteCount: UInt64((before + step) * self.slotBytes))
      try file.sync()
      if isNew { try self.files.syncDirectory(self.directory) }
      self.opened.withLock {
        if isNew { $0.files.append(file) }
        $0.lastCapacity = before + step
      }
      missing -= step
    }
  }

  /// The file that holds a slot, the offset there in bytes, and how many slots follow in it, itself included.
  func place(of slot: UInt64) -> (file: any StoreFile, number: Int, offset: UInt64, slotCount: Int)? {
    let number = Int(slot) / self.slotsPerFile
    let position = Int(slot) % self.slotsPerFile
    guard let file = self.opened.withLock({ number < $0.files.count ? $0.files[number] : nil }) else { return nil }
    return (file, number, UInt64(position * self.slotBytes), self.slotsPerFile - position)
  }

  /// Remembers that a file has what only ``syncWritten()`` makes durable. To be called when it was written: before, a
  /// checkpoint could sync too early.
  func noteWritten(_ number: Int) { self.unsynced.withLock { _ = $0.insert(number) } }

  /// Waits until the disk has all that ``noteWritten(_:)`` was called for. After a failure nothing is known of it.
  func syncWritten() throws(FileError) {
    let numbers = self.unsynced.withLock { numbers in
      defer { numbers = [] }
      return numbers
    }
    for number in numbers {
      guard let file = self.opened.withLock({ number < $0.files.count ? $0.files[number] : nil }) else { continue }
      try file.sync()
    }
  }

  /// Reads blocks, none of them a hole, one after the other, neighbours at once, and checks each. Returns the position
  /// of the first that is not there as it was written, nil if all are.
  func read(_ pointers: ArraySlice<BlockPointer>, into buffer: UnsafeMutableRawBufferPointer) -> Int? {
    var next = pointers.startIndex
    while next < pointers.endIndex {
      let start = next
      guard let slot = pointers[start].slot, let place = self.place(of: slot) else { return start }
      next += 1
      while next < pointers.endIndex, next - start < place.slotCount,
        pointers[next].slot == slot + UInt64(next - start)
      {
        next += 1
      }
      let first = (start - pointers.startIndex) * self.slotBytes
      let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[first..<first + (next - start) * self.slotBytes])
      guard let count = try? place.file.readAll(into: piece, at: place.offset) else { return start }
      for position in start..<next {
        let offset = (position - start) * self.slotBytes
        guard offset + self.slotBytes <= count,
          Checksum.ofBlock(UnsafeRawBufferPointer(rebasing: piece[offset..<offset + self.slotBytes]))
            == pointers[position].checksum
        else { return position }
      }
    }
    return nil
  }

  private static func name(_ prefix: String, _ number: Int) -> String {
    let digits = String(number)
    return prefix + "-" + String(repeating: "0", count: max(6 - digits.count, 0)) + digits
  }
}
