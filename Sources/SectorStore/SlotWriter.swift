// SPDX-License-Identifier: Apache-2.0

/// Gathers blocks for neighbouring slots into few writes, and remembers which files to sync.
struct SlotWriter: Sendable {
  private let files: DataFiles
  private var buffer: [UInt8] = []
  /// The slot after the last one in `buffer`.
  private var nextSlot: UInt64 = 0
  private var touched: [Int: any StoreFile] = [:]

  /// Longer runs are written from where they are, shorter ones gathered first.
  private static let gatherBytes = 1 << 20

  init(files: DataFiles) { self.files = files }

  mutating func add(_ bytes: ArraySlice<UInt8>, runs: [SlotRun]) throws(FileError) {
    let slotBytes = self.files.slotBytes
    var position = bytes.startIndex
    for run in runs {
      var slot = run.first
      let end = run.first + UInt64(run.count)
      while slot < end {
        // Not across the end of a data file.
        guard let place = self.files.place(of: slot) else { throw .failed(operation: "slot", code: 0) }
        let count = min(Int(end - slot), place.slotCount)
        let piece = bytes[position..<position + count * slotBytes]
        if piece.count >= Self.gatherBytes / 4 {
          try self.flush()
          try self.write(piece, at: slot)
        } else {
          let isAdjacent = slot == self.nextSlot && place.offset != 0
          if !isAdjacent || self.buffer.count + piece.count > Self.gatherBytes { try self.flush() }
          self.buffer.append(contentsOf: piece)
          self.nextSlot = slot + UInt64(count)
        }
        slot += UInt64(count)
        position += piece.count
      }
    }
  }

  /// Writes what is left and waits until the disk has all of it.
  mutating func finish() throws(FileError) {
    try self.flush()
    for file in self.touched.values { try file.sync() }
    self.touched.removeAll(keepingCapacity: true)
  }

  /// Writes what is left, and leaves it to the next checkpoint to wait for the disk: for blocks that the log has, too.
  mutating func finishUnsynced() throws(FileError) {
    try self.flush()
    for number in self.touched.keys { self.files.noteWritten(number) }
    self.touched.removeAll(keepingCapacity: true)
  }

  /// Forgets what is not written yet.
  mutating func reset() {
    self.buffer.removeAll(keepingCapacity: true)
    self.touched.removeAll(keepingCapacity: true)
  }

  private mutating func flush() throws(FileError) {
    guard !self.buffer.isEmpty else { return }
    let first = self.nextSlot - UInt64(self.buffer.count / self.files.slotBytes)
    try self.write(self.buffer[...], at: first)
    self.buffer.removeAll(keepingCapacity: true)
  }

  private mutating func write(_ bytes: ArraySlice<UInt8>, at slot: UInt64) throws(FileError) {
    guard let place = self.files.place(of: slot) else { throw .failed(operation: "slot", code: 0) }
    self.touched[place.number] = place.file
    try bytes.withUnsafeBytes { raw in
      Result { () throws(FileError) in try place.file.writeAll(raw, at: place.offset) }
    }.get()
  }
}
