// SPDX-License-Identifier: Apache-2.0

/// One entry of the log.
package struct LogEntry: Hashable, Sendable {
  package var index: LogIndex
  package var term: UInt64
  package var payload: [UInt8]

  package init(index: LogIndex, term: UInt64, payload: [UInt8]) {
    self.index = index
    self.term = term
    self.payload = payload
  }
}

/// What a member of a Raft group must never forget besides its log (dissertation, figure 3.1).
package struct LogHardState: Hashable, Sendable {
  package var term: UInt64
  /// The member that got this one's vote in that term.
  package var vote: UInt64?

  package init(term: UInt64 = 0, vote: UInt64? = nil) {
    self.term = term
    self.vote = vote
  }

  var encoded: [UInt8] {
    var writer = ByteWriter()
    writer.append(self.term)
    writer.append(UInt8(self.vote == nil ? 0 : 1))
    writer.append(self.vote ?? 0)
    return writer.bytes
  }

  init?(encoded bytes: ArraySlice<UInt8>) {
    var reader = ByteReader(bytes)
    guard let term = try? reader.read(UInt64.self), let flag = try? reader.read(UInt8.self), flag <= 1,
      let vote = try? reader.read(UInt64.self), reader.isAtEnd
    else { return nil }
    self.init(term: term, vote: flag == 1 ? vote : nil)
  }
}

/// A log in segments of fixed, already written size, so that a sync has no file to grow.
///
/// Each frame carries the incarnation of its segment (drawn at random whenever a file becomes a segment), the checksum
/// of the frame before it, and its own over all of that. So what a recycled file held before, or what follows a torn
/// write, is never taken for part of the log. Each frame also says at which offset its batch began: all before that
/// was durable when the frame was written, so a bad frame below the batch offset of a later good one is damage, while
/// one with nothing such behind it is the torn end of a write that nobody was told of.
///
/// A value without locks: whoever appends owns it.
package struct SegmentedLog: Sendable {
  let files: any FileLayer
  let directory: String
  let generation: UInt64
  let segmentBytes: Int

  /// Oldest first; the last one is written to. Empty only while opening.
  var segments: [Segment] = []
  var spares: [String] = []
  /// Where the next frame goes in the last segment.
  var end = 0
  /// The checksum of the frame before that.
  var chain: UInt64 = 0
  private var frames = ByteWriter()
  package private(set) var lastTerm: UInt64 = 0
  /// Damage that was found on opening in segments that nothing needed any more.
  var damageLetGo: DamagePlace?
  /// What was last set, durable with the next `sync`.
  package private(set) var hardState = LogHardState()

  struct Segment: Sendable {
    var sequence: UInt64
    var file: any StoreFile
    var byteCount: Int
    var incarnation: UInt64
    /// The index of the entry at `offsets[0]`, or of the next one where there is none.
    var firstIndex: LogIndex
    var offsets: [UInt32] = []
    /// The highest index that the segment ever held: more than the last of `offsets` after a truncation.
    var highestIndex: LogIndex
    /// Where its frames end, once another segment follows.
    var frameEnd = 0

    var nextIndex: LogIndex { LogIndex(self.firstIndex.rawValue + UInt64(self.offsets.count)) }
  }

  static let headerBytes = 4_096
  private static let sparesMax = 4

  init(files: any FileLayer, directory: String, generation: UInt64, segmentBytes: Int) {
    self.files = files
    self.directory = directory
    self.generation = generation
    self.segmentBytes = segmentBytes
  }

  /// Makes the first segment of a log that begins at `firstIndex`.
  package static func create(
    at directory: String, generation: UInt64, segmentBytes: Int, firstIndex: LogIndex, files: any FileLayer
  ) throws(FileError) -> SegmentedLog {
    var log = SegmentedLog(files: files, directory: directory, generation: generation, segmentBytes: segmentBytes)
    try log.addSegment(sequence: 1, firstIndex: firstIndex)
    return log
  }

  package var firstIndex: LogIndex { self.segments[0].firstIndex }
  /// One less than `firstIndex` while the log is empty.
  package var lastIndex: LogIndex { LogIndex(self.nextIndex.rawValue - 1) }
  package var nextIndex: LogIndex { self.segments[self.segments.count - 1].nextIndex }
  /// Bytes on the disk, spare segments included.
  package var byteCount: Int { self.segments.reduce(self.spares.count * self.segmentBytes) { $0 + $1.byteCount } }

  /// The most that a payload may take: so that a batch and one more entry always fit in a segment.
  package static func payloadBytesMax(segmentBytes: Int) -> Int { segmentBytes / 4 }

  static func frameBytes(payload count: Int) -> Int { (LogFrame.headerBytes + count + 7) & ~7 }

  /// Makes sure that the following appends, `byteCount` bytes of frames up to the next `sync`, fit. Nothing has
  /// changed when it throws `noSpace`.
  package mutating func prepare(byteCount: Int) throws(FileError) {
    let tail = self.segments[self.segments.count - 1]
    if self.end + self.frames.bytes.count + byteCount <= tail.byteCount { return }
    // What waits belongs into the segment that it was put together for.
    try self.sync()
    try self.addSegment(sequence: tail.sequence + 1, firstIndex: tail.nextIndex)
  }

  /// Takes an entry, which must follow the last one. It is durable after the next `sync`.
  package mutating func append(_ entry: LogEntry) {
    assert(entry.index == self.nextIndex)
    let tail = self.segments.count - 1
    self.segments[tail].offsets.append(UInt32(self.end + self.frames.bytes.count))
    self.segments[tail].highestIndex = max(self.segments[tail].highestIndex, entry.index)
    self.lastTerm = entry.term
    self.addFrame(.entry, index: entry.index, term: entry.term, payload: entry.payload)
  }

  /// Takes what must never be forgotten. It is durable after the next `sync`, which `prepare` has made room for.
  package mutating func setHardState(_ state: LogHardState) {
    self.hardState = state
    self.addHardState()
  }

  /// Each segment begins with it, so that it outlives the segments before.
  private mutating func addHardState() {
    self.addFrame(
      .hardState, index: LogIndex(self.nextIndex.rawValue), term: self.lastTerm, payload: self.hardState.encoded)
  }

  /// What a frame of ``LogHardState`` takes.
  static let hardStateBytes = SegmentedLog.frameBytes(payload: 17)

  /// Drops the entries from `index` on, durably. What is appended next takes their place.
  ///
  /// The old frames stay where they are: a mark behind them says that they are void.
  package mutating func truncate(from index: LogIndex) throws(FileError) {
    guard index < self.nextIndex else { return }
    assert(self.frames.bytes.isEmpty)
    try self.prepare(byteCount: Self.frameBytes(payload: 0))
    self.void(from: index)
    self.addFrame(.truncation, index: index, term: self.lastTerm, payload: [])
    try self.sync()
    self.lastTerm = index > self.firstIndex ? try self.term(of: LogIndex(index.rawValue - 1)) : 0
  }

  /// Writes what was appended and waits until the disk has it. After a failure the log must not be used any more.
  package mutating func sync() throws(FileError) {
    let tail = self.segments[self.segments.count - 1]
    let byteCount = self.frames.bytes.count
    guard byteCount > 0 else { return }
    // Whole pages, so that the kernel need not read what they held. The zeros are overwritten by the next batch.
    let padded = min((self.end + byteCount + 4_095) & ~4_095, tail.byteCount) - self.end
    self.frames.bytes.append(contentsOf: [UInt8](repeating: 0, count: padded - byteCount))
    try tail.file.writeAll(self.frames.bytes, at: UInt64(self.end))
    try tail.file.sync()
    self.end += byteCount
    self.frames.bytes.removeAll(keepingCapacity: true)
  }

  /// The entries in this range, which must lie between `firstIndex` and `lastIndex`.
  package func entries(_ range: Range<UInt64>) throws(StoreError) -> [LogEntry] {
    var entries: [LogEntry] = []
    entries.reserveCapacity(range.count)
    for index in range { entries.append(try self.entry(LogIndex(index))) }
    return entries
  }

  package func entry(_ index: LogIndex) throws(StoreError) -> LogEntry {
    guard let place = self.place(index) else { throw .damaged(.log(segment: 0, offset: 0)) }
    return try Self.entry(at: place)
  }

  /// Where an entry is. It can be read there, by anybody, until its segment is used again; that is noticed.
  struct Place: Sendable {
    var index: LogIndex
    var sequence: UInt64
    var file: any StoreFile
    var segmentBytes: Int
    var incarnation: UInt64
    var offset: Int
  }

  /// Where the entries of a range are; those that are not in the log are passed over.
  func places(_ range: ClosedRange<LogIndex>) -> [Place] {
    var places: [Place] = []
    var index = max(range.lowerBound, self.firstIndex)
    while index <= min(range.upperBound, self.lastIndex) {
      if let place = self.place(index) { places.append(place) }
      index = index.next
    }
    return places
  }

  private func place(_ index: LogIndex) -> Place? {
    guard let segment = self.segments.last(where: { $0.firstIndex <= index }), index < segment.nextIndex else {
      return nil
    }
    return Place(
      index: index, sequence: segment.sequence, file: segment.file, segmentBytes: segment.byteCount,
      incarnation: segment.incarnation, offset: Int(segment.offsets[Int(index.rawValue - segment.firstIndex.rawValue)]))
  }

  static func entry(at place: Place) throws(StoreError) -> LogEntry {
    do throws(FileError) {
      let header = try place.file.readAll(count: LogFrame.headerBytes, at: UInt64(place.offset))
      let length = header.withUnsafeBytes { LogFrame.payloadLength($0) }
      guard let length, length <= place.segmentBytes - place.offset - LogFrame.headerBytes else {
        throw FileError.failed(operation: "frame", code: 0)
      }
      let bytes = try place.file.readAll(count: LogFrame.headerBytes + length, at: UInt64(place.offset))
      guard let frame = bytes.withUnsafeBytes({ LogFrame($0, at: 0, incarnation: place.incarnation) }),
        frame.index == place.index, frame.kind == .entry
      else { throw FileError.failed(operation: "frame", code: 0) }
      return LogEntry(index: place.index, term: frame.term, payload: Array(bytes[LogFrame.headerBytes...]))
    } catch {
      throw .damaged(.log(segment: place.sequence, offset: UInt64(place.offset)))
    }
  }

  /// Lets go of segments that hold nothing above `index`. They are written to again later.
  package mutating func recycle(through index: LogIndex) throws(FileError) {
    while self.segments.count > 1, self.segments[0].highestIndex <= index {
      let segment = self.segments[0]
      if self.spares.count < Self.sparesMax, segment.byteCount == self.segmentBytes {
        let spare = Self.spareName(segment.sequence)
        try self.files.rename(self.path(Self.segmentName(segment.sequence)), to: self.path(spare))
        self.spares.append(spare)
      } else {
        try self.files.remove(self.path(Self.segmentName(segment.sequence)))
      }
      // One by one: after a loss of power, what is left must be without a gap.
      try self.files.syncDirectory(self.directory)
      self.segments.removeFirst()
    }
  }

  private func term(of index: LogIndex) throws(FileError) -> UInt64 {
    do throws(StoreError) { return try self.entry(index).term } catch {
      throw .failed(operation: "read of a log entry", code: 0)
    }
  }

  mutating func noteTerm(_ term: UInt64) { self.lastTerm = term }
  mutating func noteHardState(_ state: LogHardState) { self.hardState = state }

  /// Forgets the entries from `index` on.
  mutating func void(from index: LogIndex) {
    for number in self.segments.indices.reversed() where self.segments[number].nextIndex > index {
      let kept =
        index < self.segments[number].firstIndex ? 0 : index.rawValue - self.segments[number].firstIndex.rawValue
      self.segments[number].offsets.removeSubrange(Int(kept)...)
      if kept == 0 { self.segments[number].firstIndex = index }
    }
  }

  private mutating func addFrame(_ kind: LogFrame.Kind, index: LogIndex, term: UInt64, payload: [UInt8]) {
    let frame = LogFrame(
      kind: kind, index: index, term: term, incarnation: self.segments[self.segments.count - 1].incarnation,
      batchOffset: UInt32(self.end), previous: self.chain, payloadLength: payload.count)
    self.chain = frame.append(to: &self.frames, payload: payload)
  }

  mutating func addSegment(sequence: UInt64, firstIndex: LogIndex) throws(FileError) {
    let spare: String = if let spare = self.spares.popLast() { spare } else { try self.makeSpare(sequence) }
    let file = try self.files.open(self.path(spare), create: false)
    let header = SegmentHeader(
      generation: self.generation, sequence: sequence, incarnation: .random(in: .min ... .max), firstIndex: firstIndex)
    let encoded = header.encoded()
    try file.writeAll(encoded.bytes, at: 0)
    try file.sync()
    try self.files.rename(self.path(spare), to: self.path(Self.segmentName(sequence)))
    try self.files.syncDirectory(self.directory)
    if !self.segments.isEmpty { self.segments[self.segments.count - 1].frameEnd = self.end }
    self.segments.append(
      Segment(
        sequence: sequence, file: file, byteCount: self.segmentBytes, incarnation: header.incarnation,
        firstIndex: firstIndex, highestIndex: LogIndex(firstIndex.rawValue - 1)))
    self.end = Self.headerBytes
    self.chain = encoded.checksum
    if self.hardState != LogHardState() { self.addHardState() }
  }

  /// A file of zeros. Its blocks are written, not only allocated: an extent that was never written costs a journal
  /// transaction when it first is.
  private func makeSpare(_ sequence: UInt64) throws(FileError) -> String {
    let name = Self.spareName(sequence)
    do throws(FileError) {
      let file = try self.files.open(self.path(name), create: true)
      let zeros = [UInt8](repeating: 0, count: min(self.segmentBytes, 1 << 20))
      var offset = 0
      while offset < self.segmentBytes {
        let count = min(zeros.count, self.segmentBytes - offset)
        try file.writeAll(count == zeros.count ? zeros : Array(zeros.prefix(count)), at: UInt64(offset))
        offset += count
      }
      try file.sync()
      return name
    } catch {
      if error == .noSpace {
        try? self.files.remove(self.path(name))
        // Its name is used again when there is room.
        try? self.files.syncDirectory(self.directory)
      }
      throw error
    }
  }

  func path(_ name: String) -> String { self.directory + "/" + name }

  static func segmentName(_ sequence: UInt64) -> String { Self.padded(sequence) + ".log" }
  static func spareName(_ sequence: UInt64) -> String { "spare-" + Self.padded(sequence) }

  private static func padded(_ number: UInt64) -> String {
    let digits = String(number)
    return String(repeating: "0", count: 20 - digits.count) + digits
  }
}
