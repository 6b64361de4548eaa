// SPDX-License-Identifier: Apache-2.0

extension SegmentedLog {
  /// Reads the whole log, cuts a torn end, and makes sure that what remains is on the disk.
  ///
  /// Throws `damaged` for a bad frame that is known to have been durable, unless nothing is lost with it: where a later
  /// segment begins with an entry that is not above the one after `covered`, the segments before it are let go, and the
  /// damage is in ``damageLetGo``.
  ///
  /// - Parameter covered: entries through here are known elsewhere.
  package static func open(
    at directory: String, generation: UInt64, segmentBytes: Int, covered: LogIndex = .zero, files: any FileLayer
  ) throws(StoreError) -> SegmentedLog {
    var log = SegmentedLog(files: files, directory: directory, generation: generation, segmentBytes: segmentBytes)
    var segments: [(sequence: UInt64, file: any StoreFile, bytes: Int)] = []
    do throws(FileError) {
      // A name that a failed sync left in the kernel's memory only would be lost later.
      try files.syncDirectory(directory)
      for sequence in try log.takeNames() {
        let file = try files.open(log.path(Self.segmentName(sequence)), create: false)
        segments.append((sequence, file, Int(try file.size())))
      }
    } catch {
      throw StoreError(error)
    }
    let empty = log
    do throws(StoreError) {
      try log.scan(segments)
      return log
    } catch {
      guard case .damaged(let place) = error else { throw error }
      guard let first = segments.indices.dropFirst().last(where: { empty.canBegin(at: segments[$0], covered) }) else {
        throw error
      }
      log = empty
      // If there is damage from here on, too, it is as good a reason as the first.
      try log.scan(Array(segments[first...]))
      log.damageLetGo = place
      do throws(FileError) {
        for segment in segments[..<first] {
          try files.remove(log.path(Self.segmentName(segment.sequence)))
          // As when segments are given back: what is left must be without a gap.
          try files.syncDirectory(directory)
        }
      } catch {
        throw StoreError(error)
      }
      return log
    }
  }

  private mutating func scan(
    _ segments: [(sequence: UInt64, file: any StoreFile, bytes: Int)]
  ) throws(StoreError) {
    guard let last = segments.last else { throw .damaged(.log(segment: 0, offset: 0)) }
    for segment in segments {
      let bytes: [UInt8]
      do throws(FileError) { bytes = try segment.file.readAll(count: segment.bytes, at: 0) } catch {
        throw StoreError(error)
      }
      try self.scan(
        sequence: segment.sequence, file: segment.file, bytes: bytes, isLast: segment.sequence == last.sequence)
    }
  }

  /// Whether a log that begins with this segment lacks nothing: no entry that is not covered, and not the hard state,
  /// which each segment begins with. A segment without a frame may not have got it yet.
  private func canBegin(
    at segment: (sequence: UInt64, file: any StoreFile, bytes: Int), _ covered: LogIndex
  ) -> Bool {
    guard let bytes = try? segment.file.readAll(count: segment.bytes, at: 0),
      let (header, checksum) = try? SegmentHeader.decode(bytes.prefix(64)), header.sequence == segment.sequence,
      header.generation == self.generation, header.firstIndex <= covered.next
    else { return false }
    let frame = bytes.withUnsafeBytes { LogFrame($0, at: Self.headerBytes, incarnation: header.incarnation) }
    return frame?.previous == checksum
  }

  private mutating func scan(
    sequence: UInt64, file: any StoreFile, bytes: [UInt8], isLast: Bool
  ) throws(StoreError) {
    if let previous = self.segments.last, previous.sequence + 1 != sequence {
      throw .damaged(.log(segment: previous.sequence + 1, offset: 0))
    }
    guard let (header, headerChecksum) = try SegmentHeader.decode(bytes.prefix(64)), header.sequence == sequence,
      header.generation == self.generation
    else { throw .damaged(.log(segment: sequence, offset: 0)) }
    if let previous = self.segments.last, header.firstIndex != previous.nextIndex {
      // The segment before was complete when this one was begun.
      throw .damaged(.log(segment: previous.sequence, offset: UInt64(self.end)))
    }
    if !self.segments.isEmpty { self.segments[self.segments.count - 1].frameEnd = self.end }
    self.segments.append(
      Segment(
        sequence: sequence, file: file, byteCount: bytes.count, incarnation: header.incarnation,
        firstIndex: header.firstIndex, highestIndex: LogIndex(header.firstIndex.rawValue - 1)))
    self.chain = headerChecksum
    self.end = Self.headerBytes

    var batchOffset = self.end
    bytes.withUnsafeBytes { raw in
      while let frame = self.nextFrame(raw) {
        batchOffset = Int(frame.batchOffset)
        switch frame.kind {
        case .entry:
          let tail = self.segments.count - 1
          self.segments[tail].offsets.append(UInt32(self.end))
          self.segments[tail].highestIndex = max(self.segments[tail].highestIndex, frame.index)
          self.noteTerm(frame.term)
        case .truncation:
          self.void(from: frame.index)
          self.noteTerm(frame.term)
        case .hardState:
          let payload = self.end + LogFrame.headerBytes..<self.end + LogFrame.headerBytes + frame.payloadLength
          if let state = LogHardState(encoded: Array(raw[payload])[...]) { self.noteHardState(state) }
        }
        self.chain = frame.checksum
        self.end += Self.frameBytes(payload: frame.payloadLength)
      }
    }
    guard isLast else { return }
    if bytes.withUnsafeBytes({ self.wasDurable(at: self.end, $0) }) {
      throw .damaged(.log(segment: sequence, offset: UInt64(self.end)))
    }
    do throws(FileError) {
      // The process before may have died of a failed sync, with these bytes in the kernel's memory and not on the
      // disk, and marked as clean. Writing them once more makes them dirty, and this sync true.
      if batchOffset < self.end { try file.writeAll(Array(bytes[batchOffset..<self.end]), at: UInt64(batchOffset)) }
      try file.sync()
    } catch {
      throw StoreError(error)
    }
  }

  /// The frame at `end`, nil where the log ends.
  private func nextFrame(_ bytes: UnsafeRawBufferPointer) -> LogFrame? {
    let tail = self.segments[self.segments.count - 1]
    guard let frame = LogFrame(bytes, at: self.end, incarnation: tail.incarnation), frame.previous == self.chain else {
      return nil
    }
    return frame.kind != .entry || frame.index == tail.nextIndex ? frame : nil
  }

  /// Whether a later frame proves that the one at this offset had been written to the end.
  private func wasDurable(at offset: Int, _ bytes: UnsafeRawBufferPointer) -> Bool {
    let incarnation = self.segments[self.segments.count - 1].incarnation
    var later = offset + 8
    while later + LogFrame.headerBytes <= bytes.count {
      // The incarnation first: it is the cheapest thing that almost never matches.
      if bytes.loadUnaligned(fromByteOffset: later + 24, as: UInt64.self).littleEndian == incarnation,
        let frame = LogFrame(bytes, at: later, incarnation: incarnation), Int(frame.batchOffset) > offset
      {
        return true
      }
      later += 8
    }
    return false
  }

  /// Sorts the directory's entries into segments and spares.
  private mutating func takeNames() throws(FileError) -> [UInt64] {
    var sequences: [UInt64] = []
    var isAnyRemoved = false
    for name in try self.files.list(self.directory) {
      if name.hasPrefix("spare-") {
        if try self.files.open(self.path(name), create: false).size() == UInt64(self.segmentBytes) {
          self.spares.append(name)
        } else {
          try self.files.remove(self.path(name))
          isAnyRemoved = true
        }
      } else if name.hasSuffix(".log"), let sequence = UInt64(name.dropLast(4)) {
        sequences.append(sequence)
      }
    }
    // The names are used again: a file of zeros that had not got its size must not come to light under one of them.
    if isAnyRemoved { try self.files.syncDirectory(self.directory) }
    return sequences.sorted()
  }
}
