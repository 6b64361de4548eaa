// SPDX-License-Identifier: Apache-2.0

extension SegmentedLog {
  /// What of a segment was durable at one moment. It stays as it is until the segment is used again.
  struct Extent: Sendable {
    var sequence: UInt64
    var incarnation: UInt64
    var generation: UInt64
    var file: any StoreFile
    /// Where its frames end.
    var end: Int
  }

  /// All that the log holds, oldest first. Nothing may wait to be synced.
  var extents: [Extent] {
    self.segments.indices.map { number in
      let segment = self.segments[number]
      return Extent(
        sequence: segment.sequence, incarnation: segment.incarnation, generation: self.generation, file: segment.file,
        end: number == self.segments.count - 1 ? self.end : segment.frameEnd)
    }
  }

  /// Has the log go on in a new segment if this one or an earlier one is the last. Returns the highest index that was
  /// ever in the segments through this one; nil where none of them is left.
  mutating func leave(segment sequence: UInt64) throws(FileError) -> LogIndex? {
    guard self.segments[0].sequence <= sequence else { return nil }
    let tail = self.segments[self.segments.count - 1]
    if tail.sequence <= sequence {
      try self.sync()
      try self.addSegment(sequence: tail.sequence + 1, firstIndex: tail.nextIndex)
      // The hard state stands in the new segment: it has to be there before the ones before go.
      try self.sync()
    }
    return self.segments.filter { $0.sequence <= sequence }.map(\.highestIndex).max()
  }

  /// The segment that an entry is in.
  func sequence(of index: LogIndex) -> UInt64? {
    self.segments.last { $0.firstIndex <= index && index < $0.nextIndex }?.sequence
  }
}

extension SegmentedLog.Extent {
  /// Reads all of it from the disk and returns the offsets at which frames are not what was written: for frames one
  /// behind the other the first. What can not be read counts as zeros. 0 is the segment's header.
  func damagedOffsets() -> [Int] {
    self.file.dropCached(byteCount: self.end, at: 0)
    let bytes = self.read()
    return bytes.withUnsafeBytes { self.damagedOffsets($0) }
  }

  private func read() -> [UInt8] {
    if let bytes = try? self.file.readAll(count: self.end, at: 0), bytes.count == self.end { return bytes }
    var bytes = [UInt8](repeating: 0, count: self.end)
    let pageBytes = 4_096
    for offset in stride(from: 0, to: self.end, by: pageBytes) {
      let count = min(pageBytes, self.end - offset)
      guard let page = try? self.file.readAll(count: count, at: UInt64(offset)) else { continue }
      bytes.replaceSubrange(offset..<offset + page.count, with: page)
    }
    return bytes
  }

  private func damagedOffsets(_ bytes: UnsafeRawBufferPointer) -> [Int] {
    var damaged: [Int] = []
    /// The checksum that the next frame has to name; nil behind a bad one.
    var chain: UInt64?
    if let (header, checksum) = try? SegmentHeader.decode(Array(bytes.prefix(64))[...]),
      header.sequence == self.sequence, header.generation == self.generation, header.incarnation == self.incarnation
    {
      chain = checksum
    } else {
      damaged.append(0)
    }
    var offset = SegmentedLog.headerBytes
    var isBehindBad = false
    while offset < self.end {
      if let frame = LogFrame(bytes, at: offset, incarnation: self.incarnation), chain == nil || frame.previous == chain
      {
        chain = frame.checksum
        offset += SegmentedLog.frameBytes(payload: frame.payloadLength)
        isBehindBad = false
      } else {
        // How long a bad frame is can not be told: the next good one lies somewhere behind.
        if !isBehindBad { damaged.append(offset) }
        isBehindBad = true
        chain = nil
        offset += 8
      }
    }
    return damaged
  }
}
