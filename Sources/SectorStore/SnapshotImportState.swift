// SPDX-License-Identifier: Apache-2.0

/// What an import is doing: the rows and blocks since the last mark, and what came last.
struct SnapshotImportState: Sendable {
  /// What is durable.
  private(set) var mark: SnapshotImportMark
  private let directory: String
  private let configuration: StoreConfiguration
  private let files: any FileLayer
  private let storeIndex: any StoreIndex
  private let sectors: DataFiles
  private let nodes: DataFiles
  private let lock: any FileLock

  /// The mark that there will be when what is in `layer` and on its way to the data files is durable.
  private var next: SnapshotImportMark
  private var layer = Layer()
  private var rowBytes = 0
  private var blockBytes = 0
  private var sectorWriter: SlotWriter
  private var nodeWriter: SlotWriter
  /// The group whose blocks have not all come, and what there is of it.
  private var partial: (blocks: SnapshotBlocks, group: BlockGroup)?
  /// The record whose blocks came last.
  private var blocksOf: (inode: UInt64, version: UInt64)?
  /// Highest sequence numbers.
  private var sessions: [SessionID: UInt64] = [:]
  /// Why nothing more is taken.
  private var failure: SnapshotImportError?

  /// What a row takes in memory besides its bytes.
  private static let rowOverhead = 128
  /// Far more than a store keeps: a donor whose limit was lowered may still have the old number.
  private static let sessionCountMax = 1 << 20

  // MARK: Beginning

  static func begin(
    at directory: String, _ configuration: StoreConfiguration, _ start: SnapshotImportMark, files: any FileLayer,
    storeIndex: (any StoreIndex)?
  ) throws(StoreError) -> SnapshotImportState {
    guard StoreHeader.isValid(sectorSize: configuration.sectorSize) else { throw .invalidChange(.blockSizeWrong) }
    let lock: any FileLock
    do throws(FileError) {
      try files.makeDirectory(directory)
      lock = try files.lock(directory + "/lock")
    } catch {
      throw StoreError(error)
    }
    do throws(StoreError) {
      let isStore: Bool
      do throws(FileError) {
        isStore = try files.list(directory).contains(StoreHeader.fileName)
        if !isStore {
          for name in ["log", "data"] { try files.makeDirectory(directory + "/" + name) }
        }
      } catch {
        throw StoreError(error)
      }
      guard !isStore else { throw .alreadyExists }
      if let state = try Self.resume(directory, configuration, start, files, storeIndex, lock) { return state }
      guard storeIndex == nil else { throw .alreadyExists }
      do throws(FileError) { try Self.clear(directory, files: files) } catch { throw StoreError(error) }
      guard let state = try Self.resume(directory, configuration, start, files, nil, lock) else {
        throw .failed("an empty index is not empty")
      }
      return state
    } catch {
      lock.release()
      throw error
    }
  }

  /// Nil where the directory holds something else than this import, or the beginning of it.
  private static func resume(
    _ directory: String, _ configuration: StoreConfiguration, _ start: SnapshotImportMark, _ files: any FileLayer,
    _ given: (any StoreIndex)?, _ lock: any FileLock
  ) throws(StoreError) -> SnapshotImportState? {
    let storeIndex: any StoreIndex
    if let given {
      storeIndex = given
    } else {
      do throws(StoreError) { storeIndex = try SQLiteIndex(path: directory + "/index.sqlite") } catch {
        guard case .damaged = error else { throw error }
        return nil
      }
    }
    var isTaken = false
    defer { if !isTaken, given == nil { storeIndex.close() } }
    do throws(StoreError) {
      var mark = start
      var sessions: [SessionID: UInt64] = [:]
      if let encoded = try storeIndex.importMark() {
        guard let found = SnapshotImportMark(encoded: encoded), found.isSameImport(as: start) else { return nil }
        mark = found
        sessions = try storeIndex.sessions().mapValues(\.highest)
        guard sessions.count == Int(clamping: mark.counts.sessions) else { return nil }
      } else {
        // Rows without a mark are of no import.
        guard try storeIndex.applied() == (.zero, 0), try storeIndex.inodeMax() == 0 else { return nil }
      }
      let state: SnapshotImportState
      do throws(FileError) {
        // The index's name, and those of the directories, so that the first mark is not lost with them.
        try files.syncDirectory(directory)
        try files.syncDirectory(StoreHeader.parent(of: directory))
        state = try SnapshotImportState(
          mark: mark, sessions: sessions, directory: directory, configuration: configuration, files: files,
          storeIndex: storeIndex, lock: lock)
      } catch {
        throw StoreError(error)
      }
      guard UInt64(state.sectors.capacity) >= mark.nextSector, UInt64(state.nodes.capacity) >= mark.nextNode else {
        return nil
      }
      isTaken = true
      return state
    } catch {
      guard case .damaged = error else { throw error }
      return nil
    }
  }

  private init(
    mark: SnapshotImportMark, sessions: [SessionID: UInt64], directory: String, configuration: StoreConfiguration,
    files: any FileLayer, storeIndex: any StoreIndex, lock: any FileLock
  ) throws(FileError) {
    self.mark = mark
    self.next = mark
    self.sessions = sessions
    self.directory = directory
    self.configuration = configuration
    self.files = files
    self.storeIndex = storeIndex
    self.lock = lock
    self.sectors = try DataFiles(
      files: files, directory: directory + "/data", prefix: "sectors", slotBytes: configuration.sectorSize,
      fileBytes: configuration.dataFileBytes, growthBytes: configuration.growthBytes)
    self.nodes = try DataFiles(
      files: files, directory: directory + "/data", prefix: "nodes", slotBytes: StoreConfiguration.nodeSize,
      fileBytes: configuration.dataFileBytes, growthBytes: min(configuration.growthBytes, 32 << 20))
    self.sectorWriter = SlotWriter(files: self.sectors)
    self.nodeWriter = SlotWriter(files: self.nodes)
  }

  private static func clear(_ directory: String, files: any FileLayer) throws(FileError) {
    for part in ["log", "data"] {
      let path = directory + "/" + part
      for name in try files.list(path) { try files.remove(path + "/" + name) }
      try files.syncDirectory(path)
    }
    for name in try files.list(directory) where name.hasPrefix("index.sqlite") {
      try files.remove(directory + "/" + name)
    }
    try files.syncDirectory(directory)
  }

  // MARK: Adding

  mutating func add(_ items: [SnapshotItem]) throws(SnapshotImportError) {
    if let failure = self.failure { throw failure }
    do throws(SnapshotImportError) {
      for item in items {
        try self.add(item)
        // Only where a group has come wholly, so that nothing has to be known of its beginning.
        if self.partial == nil,
          self.rowBytes >= self.configuration.checkpointBytes || self.blockBytes >= self.configuration.batchBytes
        {
          try self.flush()
        }
      }
    } catch {
      self.failure = error
      throw error
    }
  }

  private mutating func add(_ item: SnapshotItem) throws(SnapshotImportError) {
    let cursor = item.cursor
    if let last = self.next.cursor, last >= cursor { throw .invalid(.orderWrong) }
    guard item.isWithinLimits else { throw .invalid(.itemOutOfRange) }
    if self.partial != nil {
      guard case .blocks = item else { throw .invalid(.groupIncomplete) }
    }
    switch item {
    case .record(let record): self.layer.put(.put(record), inode: record.inode)
    case .blocks(let blocks): try self.add(blocks)
    case .session(let session, let header):
      guard self.sessions.count < Self.sessionCountMax else { throw .invalid(.tooManySessions) }
      self.sessions[session] = header.highest
      self.layer.sessions[session] = header
    case .result(let session, let sequence, let bytes):
      guard let highest = self.sessions[session], sequence <= highest else { throw .invalid(.resultWithoutSession) }
      self.layer.results[session, default: [:]][sequence] = bytes
    case .certificate(let digest, let bytes): self.layer.certificates[digest] = bytes
    case .fact(let key, let value): self.layer.facts[key] = value
    case .end(let counts):
      guard counts == self.next.counts else { throw .invalid(.countsDiffer) }
    }
    self.next.counts.count(item)
    self.next.cursor = cursor
    if case .blocks(let blocks) = item {
      self.rowBytes += blocks.checksums.count * MemoryLayout<BlockPointer>.stride
      self.blockBytes += blocks.bytes.count
    } else {
      self.rowBytes += item.byteCount
    }
    self.rowBytes += Self.rowOverhead
  }

  private mutating func add(_ blocks: SnapshotBlocks) throws(SnapshotImportError) {
    let blockSize = self.configuration.blockSize(level: blocks.key.level)
    guard blocks.bytes.count == blocks.checksums.count * blockSize else { throw .invalid(.blockSizeWrong) }
    var group = BlockGroup(version: blocks.version, pointers: [])
    if let partial = self.partial {
      guard partial.blocks.key == blocks.key, partial.blocks.version == blocks.version,
        partial.blocks.mask == blocks.mask, partial.blocks.skipped + partial.blocks.checksums.count == blocks.skipped
      else { throw .invalid(.groupIncomplete) }
      group = partial.group
    } else {
      guard blocks.skipped == 0 else { throw .invalid(.groupIncomplete) }
      guard let version = try self.version(blocks.key.inode), blocks.version <= version else {
        throw .invalid(.blocksWithoutRecord)
      }
    }
    let isRight = blocks.bytes.withUnsafeBytes { raw in
      blocks.checksums.indices.allSatisfy { number in
        Checksum.ofBlock(UnsafeRawBufferPointer(rebasing: raw[number * blockSize..<(number + 1) * blockSize]))
          == blocks.checksums[number]
      }
    }
    guard isRight else { throw .invalid(.blockDamaged) }
    var slot = try self.write(blocks)
    var rest = blocks.mask
    for _ in 0..<blocks.skipped { rest &= rest - 1 }
    for checksum in blocks.checksums {
      group[rest.trailingZeroBitCount] = BlockPointer(slot: slot, checksum: checksum)
      rest &= rest - 1
      slot += 1
    }
    if blocks.isLast {
      self.partial = nil
      self.layer.put(group, key: blocks.key)
    } else {
      var known = blocks
      known.bytes = []
      self.partial = (known, group)
    }
  }

  /// Sends blocks on their way to the next slots, and returns the first of these.
  private mutating func write(_ blocks: SnapshotBlocks) throws(SnapshotImportError) -> UInt64 {
    let isSector = blocks.key.level == 0
    let files = isSector ? self.sectors : self.nodes
    let slot = isSector ? self.next.nextSector : self.next.nextNode
    let end = slot + UInt64(blocks.checksums.count)
    let run = SlotRun(first: slot, count: blocks.checksums.count)
    do throws(FileError) {
      if end > UInt64(files.capacity) {
        try files.grow(by: Int(end) - files.capacity, reserved: UInt64(self.configuration.reservedBytes))
      }
      if isSector {
        try self.sectorWriter.add(blocks.bytes[...], runs: [run])
        self.next.nextSector = end
      } else {
        try self.nodeWriter.add(blocks.bytes[...], runs: [run])
        self.next.nextNode = end
      }
    } catch {
      throw .store(StoreError(error))
    }
    return slot
  }

  /// The version of an inode's record, nil where none has come.
  private mutating func version(_ inode: UInt64) throws(SnapshotImportError) -> UInt64? {
    if let last = self.blocksOf, last.inode == inode { return last.version }
    let record: StoredRecord?
    do throws(StoreError) {
      record = if let state = self.layer.records[inode] { state.record } else { try self.storeIndex.record(inode) }
    } catch {
      throw .store(error)
    }
    self.blocksOf = record.map { (inode, $0.version) }
    return record?.version
  }

  /// Makes everything that was taken durable, blocks before the rows that refer to them, rows with the mark.
  private mutating func flush() throws(SnapshotImportError) {
    do throws(FileError) {
      try self.sectorWriter.finish()
      try self.nodeWriter.finish()
    } catch {
      throw .store(StoreError(error))
    }
    do throws(StoreError) {
      try self.storeIndex.write(self.layer, importMark: self.next.encoded())
    } catch {
      throw .store(error)
    }
    self.mark = self.next
    self.layer = Layer()
    self.rowBytes = 0
    self.blockBytes = 0
  }

  // MARK: Ending

  mutating func finish(_ hardState: LogHardState) throws(SnapshotImportError) {
    if let failure = self.failure { throw failure }
    guard self.next.cursor == .end else { throw .invalid(.endMissing) }
    do throws(SnapshotImportError) {
      // With the last rows the index stands at the snapshot's entry.
      self.layer.lastIndex = self.next.index
      self.layer.lastTerm = self.next.term
      try self.flush()
      // Moves all of it to the main file.
      self.storeIndex.close()
      do throws(FileError) {
        let log = self.directory + "/log"
        // What an import left behind that got so far and no further.
        for name in try self.files.list(log) { try self.files.remove(log + "/" + name) }
        try self.files.syncDirectory(log)
        var segments = try SegmentedLog.create(
          at: log, generation: self.configuration.generation, segmentBytes: self.configuration.segmentBytes,
          firstIndex: self.next.index.next, files: self.files)
        if hardState != LogHardState() {
          try segments.prepare(byteCount: SegmentedLog.hardStateBytes)
          segments.setHardState(hardState)
          try segments.sync()
        }
        try self.files.syncDirectory(self.directory + "/data")
        try StoreHeader(self.configuration).write(to: self.directory, files: self.files)
      } catch {
        throw .store(StoreError(error))
      }
    } catch {
      self.failure = error
      throw error
    }
    self.close()
  }

  mutating func close() {
    if self.failure == .store(.closed) { return }
    self.failure = .store(.closed)
    self.layer = Layer()
    self.storeIndex.close()
    self.lock.release()
  }
}
