// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Blocks that were read, as they are at one version of their inode.
package struct BlockRange: Sendable {
  package let first: UInt64
  package let blockSize: Int
  /// The version that was read: the newest one where none was asked for.
  package let version: UInt64
  /// All blocks one after the other; zeros where there is a hole.
  package fileprivate(set) var bytes: [UInt8]
  package fileprivate(set) var isHole: [Bool]

  package var indexes: Range<UInt64> { self.first..<self.first + UInt64(self.isHole.count) }

  /// The bytes of a block in `indexes`, nil for a hole.
  package subscript(index: UInt64) -> ArraySlice<UInt8>? {
    let position = Int(index - self.first)
    if self.isHole[position] { return nil }
    return self.bytes[position * self.blockSize..<(position + 1) * self.blockSize]
  }
}

extension BlockRange {
  /// Blocks that another process has sent.
  ///
  /// - Returns: nil when the bytes are not so many blocks.
  package init?(first: UInt64, blockSize: Int, version: UInt64, received bytes: [UInt8], isHole: [Bool]) {
    guard blockSize > 0, bytes.count == isHole.count * blockSize else { return nil }
    (self.first, self.blockSize, self.version, self.bytes, self.isHole) = (first, blockSize, version, bytes, isHole)
  }
}

/// Keeps a version of an inode readable until it is released or let go.
package final class Pin: Sendable {
  package let inode: UInt64
  package let version: UInt64
  private let live: LiveState
  private let isHeld = Mutex(true)

  fileprivate init(inode: UInt64, version: UInt64, live: LiveState) {
    self.inode = inode
    self.version = version
    self.live = live
  }

  deinit { self.release() }

  /// May be called more than once.
  package func release() {
    guard
      self.isHeld.withLock({ isHeld in
        defer { isHeld = false }
        return isHeld
      })
    else { return }
    self.live.state.withLock { $0.unpin(self.inode, version: self.version) }
  }
}

extension SectorStore {
  // MARK: Records and the like

  /// The newest durable record. May wait for the disk; see ``cachedRecord(_:)``.
  package func record(_ inode: UInt64) throws(StoreError) -> StoredRecord? {
    try self.live.check()
    return try self.live.record(inode)
  }

  package enum CachedRecord: Sendable {
    case known(StoredRecord?)
    /// Only ``record(_:)`` can tell.
    case onDisk
  }

  /// The newest durable record, if it can be told without waiting.
  package func cachedRecord(_ inode: UInt64) throws(StoreError) -> CachedRecord {
    try self.live.check()
    return switch self.live.state.withLock({ $0.record(inode) }) {
    case .value(let record): .known(record)
    case .inIndex: .onDisk
    }
  }

  /// Inodes whose record names this parent, in order. May wait for the disk.
  package func inodes(parent: UInt64) throws(StoreError) -> [UInt64] {
    try self.live.check()
    return try self.live.inodes(parent: parent)
  }

  /// Inodes whose record has these flags, in order. May wait for the disk.
  package func inodes(flag: RecordFlags) throws(StoreError) -> [UInt64] {
    try self.live.check()
    return try self.live.inodes(flag: flag)
  }

  /// What became of an operation. Waits for the disk only when it is an old one.
  package func operationStatus(_ session: SessionID, sequence: UInt64) throws(StoreError) -> OperationStatus {
    try self.live.check()
    return try self.live.operationStatus(session, sequence: sequence)
  }

  /// An open session, nil if there is no such.
  package func session(_ session: SessionID) throws(StoreError) -> SessionHeader? {
    try self.live.check()
    return self.live.state.withLock { $0.sessions[session] }
  }

  /// May wait for the disk.
  package func certificate(_ digest: Digest) throws(StoreError) -> [UInt8]? {
    try self.live.check()
    return try self.live.certificate(digest)
  }

  package func fact(_ key: String) throws(StoreError) -> [UInt8]? {
    try self.live.check()
    return self.live.state.withLock { $0.facts[key] }
  }

  /// The facts whose names begin like this.
  package func facts(prefix: String) throws(StoreError) -> [String: [UInt8]] {
    try self.live.check()
    return self.live.state.withLock { state in state.facts.filter { $0.key.hasPrefix(prefix) } }
  }

  // MARK: Pins

  /// Keeps a version readable: the newest, or one that is pinned already. Without a version, the newest. Throws
  /// `versionGone` and `unknownInode`. May wait for the disk.
  package func pin(_ inode: UInt64, version: UInt64? = nil) throws(StoreError) -> Pin {
    try self.live.check()
    guard let taken = try self.takePin(inode, version: version, isStrict: true, mayWait: true) else {
      throw .unknownInode(inode)
    }
    return Pin(inode: inode, version: taken.version, live: self.live)
  }

  struct TakenPin {
    var version: UInt64
    /// Whether the version is known to be kept as a whole: it is the newest, or was pinned already.
    var isWhole: Bool
  }

  /// Counts a pin. If `isStrict`, throws for a version that is not kept as a whole. Nil where the disk would have to
  /// be asked, and `mayWait` is false.
  func takePin(
    _ inode: UInt64, version: UInt64?, isStrict: Bool, mayWait: Bool
  ) throws(StoreError) -> TakenPin? {
    while true {
      let outcome = self.live.state.withLock { state -> Result<TakenPin, StoreError>? in
        if let version, state.isWhole(inode, version: version) {
          state.pin(inode, version: version, isWhole: true)
          return .success(TakenPin(version: version, isWhole: true))
        }
        guard case .value(let record) = state.record(inode) else { return nil }
        guard let current = record?.version else {
          return .failure(version.map { .versionGone(inode: inode, version: $0, current: nil) } ?? .unknownInode(inode))
        }
        let wanted = version ?? current
        if wanted > current || isStrict && wanted < current {
          return .failure(.versionGone(inode: inode, version: wanted, current: current))
        }
        state.pin(inode, version: wanted, isWhole: wanted == current)
        return .success(TakenPin(version: wanted, isWhole: wanted == current))
      }
      if let outcome { return try outcome.get() }
      if !mayWait { return nil }
      guard try self.live.record(inode) != nil else {
        // The index has no such record, and no layer had when it was asked.
        throw version.map { .versionGone(inode: inode, version: $0, current: nil) } ?? .unknownInode(inode)
      }
    }
  }

  // MARK: Blocks

  /// Reads blocks as they are at a version of the inode, the newest if nil. A version that is neither the newest nor
  /// pinned may be answered with `versionGone`. Stays on the caller's thread when everything is in memory, and takes
  /// one of the store's otherwise.
  package func read(
    inode: UInt64, level: UInt8, indexes: Range<UInt64>, version: UInt64? = nil
  ) async throws(StoreError) -> BlockRange {
    if let range = try self.read(inode, level, indexes, version, mayWait: false) { return range }
    return try await self.perform { () throws(StoreError) in
      try self.readBlocking(inode: inode, level: level, indexes: indexes, version: version)
    }
  }

  /// The same, waiting for the disk where needed.
  package func readBlocking(
    inode: UInt64, level: UInt8, indexes: Range<UInt64>, version: UInt64? = nil
  ) throws(StoreError) -> BlockRange {
    guard let range = try self.read(inode, level, indexes, version, mayWait: true) else {
      throw .failed("a read that may wait was left undone")
    }
    return range
  }

  /// Nil where the disk would have to be waited for and `mayWait` is false.
  private func read(
    _ inode: UInt64, _ level: UInt8, _ indexes: Range<UInt64>, _ version: UInt64?, mayWait: Bool
  ) throws(StoreError) -> BlockRange? {
    try self.live.check()
    // While the version is pinned its slots are not used for anything else.
    guard let pin = try self.takePin(inode, version: version, isStrict: false, mayWait: mayWait) else { return nil }
    defer { self.live.state.withLock { $0.unpin(inode, version: pin.version) } }
    guard let pointers = try self.pointers(inode, level, indexes, pin, mayWait: mayWait) else { return nil }
    var range = BlockRange(
      first: indexes.lowerBound, blockSize: self.configuration.blockSize(level: level), version: pin.version, bytes: [],
      isHole: pointers.map { $0.slot == nil })
    var outcome: Result<Bool, StoreError> = .success(true)
    range.bytes = [UInt8](unsafeUninitializedCapacity: pointers.count * range.blockSize) { buffer, initialized in
      let raw = UnsafeMutableRawBufferPointer(
        rebasing: UnsafeMutableRawBufferPointer(buffer)[..<(pointers.count * range.blockSize)])
      outcome = Result { () throws(StoreError) in
        try self.read(inode, level, indexes.lowerBound, pointers, into: raw, mayWait: mayWait)
      }
      if case .success(true) = outcome { initialized = raw.count }
    }
    return try outcome.get() ? range : nil
  }

  private func pointers(
    _ inode: UInt64, _ level: UInt8, _ indexes: Range<UInt64>, _ pin: TakenPin, mayWait: Bool
  ) throws(StoreError) -> [BlockPointer]? {
    var pointers: [BlockPointer] = []
    pointers.reserveCapacity(indexes.count)
    var index = indexes.lowerBound
    while index < indexes.upperBound {
      let key = GroupKey(inode: inode, level: level, group: index >> 6)
      let end = min(key.firstIndex + UInt64(BlockGroup.size), indexes.upperBound)
      guard let group = try self.group(key, pin, mayWait: mayWait) else { return nil }
      for position in index..<end { pointers.append(group[Int(position - key.firstIndex)]) }
      index = end
    }
    return pointers
  }

  /// A group as it is at a version that is pinned.
  func group(_ key: GroupKey, _ pin: TakenPin, mayWait: Bool) throws(StoreError) -> BlockGroup? {
    while true {
      let (old, newest) = self.live.state.withLock { state in
        let old = state.superseded(key, version: pin.version, isWhole: pin.isWhole)
        return (old, old == nil ? state.group(key) : .value(nil))
      }
      if let old { return old }
      if case .value(let group) = newest {
        if let group, group.version <= pin.version { return group }
        // Without a row it is a hole now, and was at a version of which all is kept.
        if group == nil, pin.isWhole { return .empty }
        try self.throwGone(key.inode, pin)
      }
      if !mayWait { return nil }
      let group = try self.live.group(key)
      // Superseded while the index was asked? Then the kept one is right, and the layers have the newer.
      let isCurrent = self.live.state.withLock { state in
        if case .inIndex = state.group(key) { return true }
        return false
      }
      if group == nil, isCurrent {
        if pin.isWhole { return .empty }
        try self.throwGone(key.inode, pin)
      }
    }
  }

  private func throwGone(_ inode: UInt64, _ pin: TakenPin) throws(StoreError) -> Never {
    throw .versionGone(inode: inode, version: pin.version, current: try self.live.record(inode)?.version)
  }

  private func read(
    _ inode: UInt64, _ level: UInt8, _ first: UInt64, _ pointers: [BlockPointer],
    into buffer: UnsafeMutableRawBufferPointer, mayWait: Bool
  ) throws(StoreError) -> Bool {
    let files = level == 0 ? self.sectors : self.nodes
    let blockSize = files.slotBytes
    var position = 0
    while position < pointers.count {
      let start = position
      position += 1
      guard let slot = pointers[start].slot else {
        memoryZero(buffer, start * blockSize, blockSize)
        continue
      }
      let damage = StoreError.damaged(.block(inode: inode, level: level, index: first + UInt64(start)))
      guard let place = files.place(of: slot) else {
        self.live.note(damage)
        throw damage
      }
      // Neighbours in one read.
      while position < pointers.count, position - start < place.slotCount,
        pointers[position].slot == slot + UInt64(position - start)
      {
        position += 1
      }
      let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[start * blockSize..<position * blockSize])
      let count: Int?
      do throws(FileError) {
        count =
          try mayWait
          ? place.file.readAll(into: piece, at: place.offset) : place.file.readCached(into: piece, at: place.offset)
      } catch {
        self.live.note(damage)
        throw damage
      }
      guard let count, mayWait || count == piece.count else { return false }
      for number in start..<position {
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[number * blockSize..<(number + 1) * blockSize])
        guard (number + 1 - start) * blockSize <= count, Checksum.ofBlock(bytes) == pointers[number].checksum else {
          let damage = StoreError.damaged(.block(inode: inode, level: level, index: first + UInt64(number)))
          self.live.note(damage)
          throw damage
        }
      }
    }
    return true
  }
}

private func memoryZero(_ buffer: UnsafeMutableRawBufferPointer, _ offset: Int, _ count: Int) {
  UnsafeMutableRawBufferPointer(rebasing: buffer[offset..<offset + count])
    .initializeMemory(as: UInt8.self, repeating: 0)
}
