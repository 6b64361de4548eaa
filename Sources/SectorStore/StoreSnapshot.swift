// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// All that a store holds, as it was after one entry of the log, to be read in pieces while the store goes on.
///
/// Reads block; do them with ``SectorStore/perform(_:)``. They wait for each other. While it is open, freed slots are
/// not used again, so the data files grow by what is written, and SQLite's log grows by what checkpoints write: a
/// snapshot costs disk space for as long as it is held. When the disk is full, changes that need slots are refused
/// until it is closed. Checkpoints and segments of the log go on as ever.
package final class StoreSnapshot: Sendable {
  /// The last entry that the snapshot contains, and its term.
  package let index: LogIndex
  package let term: UInt64
  private let sectorSize: Int
  private let rows: any StoreIndexSnapshot
  private let live: LiveState
  private let sectors: DataFiles
  private let nodes: DataFiles
  private let isOpen = Mutex(true)

  /// Takes over one hold of freed slots, which must have begun before `rows` was made; not when it throws.
  fileprivate init(_ store: SectorStore, rows: any StoreIndexSnapshot) throws(StoreError) {
    (self.index, self.term) = try rows.applied()
    self.sectorSize = store.configuration.sectorSize
    self.rows = rows
    self.live = store.live
    self.sectors = store.sectors
    self.nodes = store.nodes
  }

  deinit { self.close() }

  /// Lets slots and read transaction go, after a read that is under way. May be called more than once.
  package func close() {
    let wasOpen = self.isOpen.withLock { isOpen in
      defer { isOpen = false }
      return isOpen
    }
    guard wasOpen else { return }
    self.rows.close()
    self.live.state.withLock { $0.letFreedGo() }
  }

  /// Reads what comes after a cursor, or from the start: items in order of their cursors until they take `byteCountMax`
  /// bytes, which the last one may exceed, and at least one. `next` is the cursor to go on after, nil when the last item
  /// is ``SnapshotItem/end(_:)`` and nothing follows.
  ///
  /// Throws `damaged` with the place for a row or block that is not what was written, and `closed` when the snapshot or
  /// the store was closed.
  package func items(
    after cursor: SnapshotCursor? = nil, byteCountMax: Int
  ) throws(StoreError) -> (items: [SnapshotItem], next: SnapshotCursor?) {
    try self.live.check()
    if cursor == .end { return ([], nil) }
    var page = Page(byteCountMax: byteCountMax)
    try self.rows.forEachRow(after: cursor) { row throws(StoreError) in
      switch row {
      case .record(let record): page.append(.record(record))
      case .group(let key, let group): try self.append(group, key: key, after: cursor, to: &page)
      case .session(let session, let header): page.append(.session(session, header))
      case .result(let session, let sequence, let bytes):
        page.append(.result(session, sequence: sequence, bytes: bytes))
      case .certificate(let digest, let bytes): page.append(.certificate(digest, bytes: bytes))
      case .fact(let key, let value): page.append(.fact(key: key, value: value))
      }
      return !page.isFull
    }
    if !page.isFull { page.append(.end(try self.rows.counts())) }
    // Slots were not used for anything else while they were read, unless the store has let its directory go.
    try self.live.check()
    let last = page.items.last?.cursor
    return (page.items, last == .end ? nil : last)
  }

  private struct Page {
    let byteCountMax: Int
    private(set) var items: [SnapshotItem] = []
    private var byteCount = 0

    init(byteCountMax: Int) { self.byteCountMax = byteCountMax }

    var isFull: Bool { !self.items.isEmpty && self.byteCount >= self.byteCountMax }

    mutating func append(_ item: SnapshotItem) {
      self.byteCount += item.byteCount
      self.items.append(item)
    }
  }

  /// Adds the blocks of a group that the cursor has not passed, until the page is full.
  private func append(
    _ group: BlockGroup, key: GroupKey, after cursor: SnapshotCursor?, to page: inout Page
  ) throws(StoreError) {
    var mask: UInt64 = 0
    var pointers: [BlockPointer] = []
    var positions: [Int] = []
    for (position, pointer) in group.pointers.enumerated() where pointer.slot != nil {
      mask |= 1 << UInt64(position)
      pointers.append(pointer)
      positions.append(position)
    }
    guard mask != 0 else { throw .damaged(.blockMap(inode: key.inode, level: key.level, group: key.group)) }
    let files = key.level == 0 ? self.sectors : self.nodes
    let countMax = max(SnapshotItem.blockBytesMax / files.slotBytes, 1)
    var skipped = 0
    if case .blocks(key, let covered) = cursor { skipped = covered }
    while skipped < pointers.count, !page.isFull {
      let piece = pointers[skipped..<min(skipped + countMax, pointers.count)]
      let byteCount = piece.count * files.slotBytes
      var damaged: Int?
      let bytes = [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, initialized in
        damaged = files.read(
          piece, into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[..<byteCount]))
        if damaged == nil { initialized = byteCount }
      }
      if let damaged {
        let index = key.firstIndex + UInt64(positions[damaged])
        throw .damaged(.block(inode: key.inode, level: key.level, index: index))
      }
      page.append(
        .blocks(
          SnapshotBlocks(
            key: key, version: group.version, mask: mask, skipped: skipped, checksums: piece.map(\.checksum),
            bytes: bytes)))
      skipped += piece.count
    }
  }
}

extension SectorStore {
  /// A snapshot of what is applied by now, or of a little more. Writes a checkpoint for it first; throws what kept that
  /// from being written. Several may be open at a time.
  package func snapshot() async throws(StoreError) -> StoreSnapshot {
    try await self.perform { () throws(StoreError) in
      try self.live.check()
      // Before the index is read: from here on, what it refers to stays where it is.
      self.live.state.withLock { $0.holdFreed() }
      do throws(StoreError) {
        Self.requestCheckpoint(self.checkpoints, waits: true)
        if let error = self.checkpoints.withLock({ $0.lastError }) { throw error }
        let rows = try self.live.index.snapshot()
        do throws(StoreError) { return try StoreSnapshot(self, rows: rows) } catch {
          rows.close()
          throw error
        }
      } catch {
        self.live.state.withLock { $0.letFreedGo() }
        throw error
      }
    }
  }
}
