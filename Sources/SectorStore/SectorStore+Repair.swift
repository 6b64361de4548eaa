// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Making whole again what a scrub or a read has found damaged.
extension SectorStore {
  /// Looks at a place, repairs what can be repaired from what is here, and says what it takes otherwise. May be called at
  /// any time, and any number of times.
  ///
  /// - `block`: the bytes have to come from elsewhere.
  /// - `log`, `logEntry`: the log goes on in a new segment, everything goes to the index, and the segments through the
  ///   damaged one are given back. Whoever lacks entries of theirs needs a snapshot then.
  /// - `header`, `fact`, `session`: written once more; the memory has them all.
  /// - `index`: parts that are made from records are made anew.
  /// - `record`, `blockMap`, `certificate`, and the rest of the index: a new store.
  ///
  /// What it returns as repaired is durable, and was read back.
  package func repair(_ place: DamagePlace) async throws(StoreError) -> RepairOutcome {
    let outcome: RepairOutcome
    switch place {
    case .block(let inode, let level, let index):
      outcome = try await self.perform { () throws(StoreError) in
        try self.live.check()
        return try self.lookAtBlock(inode: inode, level: level, index: index)
      }
    default:
      outcome = try await self.performScrub { () throws(StoreError) in
        try self.live.check()
        return try self.repairHere(place)
      }
    }
    if outcome == .repaired || outcome == .unneeded { self.live.damage.withLock { $0.remove(place) } }
    return outcome
  }

  // MARK: Blocks

  private func groupKey(inode: UInt64, level: UInt8, index: UInt64) -> GroupKey {
    GroupKey(inode: inode, level: level, group: index >> 6)
  }

  private func lookAtBlock(inode: UInt64, level: UInt8, index: UInt64) throws(StoreError) -> RepairOutcome {
    let key = self.groupKey(inode: inode, level: level, index: index)
    let outcome = try self.withPinned(key) { (group) -> RepairOutcome in
      let pointer = group[Int(index - key.firstIndex)]
      let files = level == 0 ? self.sectors : self.nodes
      if pointer.slot == nil || files.damaged([pointer]).isEmpty { return .unneeded }
      return .needsBlock(WantedBlock(inode: inode, level: level, index: index, checksum: pointer.checksum))
    }
    if let outcome { return outcome }
    // No such inode any more, or nobody can tell.
    return try self.isWhole(key) ? .unneeded : .needsNewStore
  }

  /// Whether the rows that lead to a group can be read.
  private func isWhole(_ key: GroupKey) throws(StoreError) -> Bool {
    do throws(StoreError) {
      _ = try self.live.record(key.inode)
      _ = try self.live.group(key)
      return true
    } catch {
      guard case .damaged = error else { throw error }
      return false
    }
  }

  /// Whether a place that was damaged is not any more. Only of what can be told by looking at little.
  func isWhole(_ place: DamagePlace) throws(StoreError) -> Bool {
    switch place {
    case .block(let inode, let level, let index):
      try self.lookAtBlock(inode: inode, level: level, index: index) == .unneeded
    case .record, .blockMap, .certificate: try !self.isRowDamaged(place)
    case .header: !self.isHeaderDamaged
    case .log, .logEntry, .fact, .session, .index: false
    }
  }

  /// Puts the bytes of a damaged block back where they were. They are checked, written, synced, and read from the disk
  /// again. Where the block has changed since, says what is wanted now.
  package func repair(_ block: WantedBlock, with bytes: [UInt8]) async throws(StoreError) -> RepairOutcome {
    let outcome = try await self.perform { () throws(StoreError) in
      try self.live.check()
      return try self.put(bytes, into: block)
    }
    if outcome == .repaired || outcome == .unneeded { self.live.damage.withLock { $0.remove(block.place) } }
    return outcome
  }

  private func put(_ bytes: [UInt8], into block: WantedBlock) throws(StoreError) -> RepairOutcome {
    guard bytes.count == self.configuration.blockSize(level: block.level),
      bytes.withUnsafeBytes({ Checksum.ofBlock($0) }) == block.checksum
    else { return .failed }
    let key = self.groupKey(inode: block.inode, level: block.level, index: block.index)
    let outcome = try self.withPinned(key) { (group) throws(StoreError) -> RepairOutcome? in
      let pointer = group[Int(block.index - key.firstIndex)]
      guard let slot = pointer.slot, pointer.checksum == block.checksum else { return nil }
      let files = block.level == 0 ? self.sectors : self.nodes
      if files.damaged([pointer]).isEmpty { return .unneeded }
      guard let place = files.place(of: slot) else { return .failed }
      do throws(FileError) { try place.file.writeAll(bytes, at: place.offset) } catch {
        return error == .noSpace ? .waits : .failed
      }
      do throws(FileError) { try place.file.sync() } catch {
        // It may have been to write what others rely on, and nobody will be told of it again.
        let failure = StoreError.failed("\(error)")
        self.fail(failure)
        throw failure
      }
      return files.damaged([pointer]).isEmpty ? .repaired : .failed
    }
    if let outcome = outcome ?? nil { return outcome }
    return try self.lookAtBlock(inode: block.inode, level: block.level, index: block.index)
  }

  /// A block for another member, whose own is damaged: only if the newest version here is just the one that is wanted,
  /// and is whole.
  package func block(_ wanted: WantedBlock) async throws(StoreError) -> [UInt8]? {
    let key = self.groupKey(inode: wanted.inode, level: wanted.level, index: wanted.index)
    return try await self.perform { () throws(StoreError) in
      try self.live.check()
      let bytes = try self.withPinned(key) { (group) throws(StoreError) -> [UInt8]? in
        let pointer = group[Int(wanted.index - key.firstIndex)]
        guard let slot = pointer.slot, pointer.checksum == wanted.checksum else { return nil }
        let files = wanted.level == 0 ? self.sectors : self.nodes
        guard let place = files.place(of: slot),
          let bytes = try? place.file.readAll(count: files.slotBytes, at: place.offset), bytes.count == files.slotBytes,
          bytes.withUnsafeBytes({ Checksum.ofBlock($0) }) == wanted.checksum
        else {
          self.live.damage.withLock { $0.note(wanted.place) }
          return nil
        }
        return bytes
      }
      return bytes ?? nil
    }
  }

  // MARK: Everything else

  private func repairHere(_ place: DamagePlace) throws(StoreError) -> RepairOutcome {
    switch place {
    case .block(let inode, let level, let index): return try self.lookAtBlock(inode: inode, level: level, index: index)
    case .log(let segment, _):
      guard let extent = try self.logExtents().first(where: { $0.sequence == segment }),
        try !self.damage(in: extent).isEmpty
      else { return .unneeded }
      return try self.letGo(ofSegment: segment)
    case .logEntry(let index):
      let segment = try self.onWriter { (writer) throws(StoreError) in writer.log.sequence(of: index) }
      guard let segment else { return .unneeded }
      return try self.letGo(ofSegment: segment)
    case .header: return try self.rewriteHeader()
    case .fact(let key):
      return try self.rewriteSmall(place, [.fact], isKnown: self.live.state.withLock { $0.facts[key] != nil })
    case .session(let session):
      return try self.rewriteSmall(
        place, [.session, .result], isKnown: self.live.state.withLock { $0.sessions[session] != nil })
    case .record, .blockMap, .certificate: return try self.isRowDamaged(place) ? .needsNewStore : .unneeded
    case .index(let part): return try self.repairIndex(part)
    }
  }

  private func letGo(ofSegment segment: UInt64) throws(StoreError) -> RepairOutcome {
    let highest: LogIndex?
    do throws(StoreError) {
      highest = try self.onWriter { (writer) throws(StoreError) in
        do throws(FileError) { return try writer.log.leave(segment: segment) } catch {
          throw error == .noSpace ? .noSpace : .failed("\(error)")
        }
      }
    } catch {
      if error == .noSpace { return .waits }
      if case .failed = error { self.fail(error) }
      throw error
    }
    guard let highest else { return .unneeded }
    // The log alone has these.
    guard self.appliedIndex >= highest else { return .waits }
    Self.requestCheckpoint(self.checkpoints, waits: true)
    try self.live.check()
    let retainedAfter = self.live.state.withLock { state in
      state.dropRetained()
      return state.retainedAfter
    }
    guard retainedAfter >= highest else { return .waits }
    self.queue.withLock {
      $0.recycleThrough = max($0.recycleThrough ?? retainedAfter, retainedAfter)
      _ = $0.retry()
    }
    self.queue.wakeAll()
    // Behind the giving back, which comes first.
    let first = try self.onWriter { (writer) throws(StoreError) in writer.log.extents.first?.sequence }
    return first.map { $0 > segment } == true ? .repaired : .waits
  }

  private func rewriteHeader() throws(StoreError) -> RepairOutcome {
    guard self.isHeaderDamaged else { return .unneeded }
    do throws(FileError) {
      try self.header.write(to: self.directory, files: self.files)
    } catch {
      // Whatever there is, is complete: it is put in its place by a rename.
      return error == .noSpace ? .waits : .failed
    }
    return self.isHeaderDamaged ? .failed : .repaired
  }

  private func rewriteSmall(
    _ place: DamagePlace, _ kinds: [SnapshotKind], isKnown: Bool
  ) throws(StoreError) -> RepairOutcome {
    func isDamaged() throws(StoreError) -> Bool {
      for kind in kinds {
        if try self.scanTwice(kind, after: nil, byteCountMax: .max).damaged.contains(place) { return true }
      }
      return false
    }
    guard try isDamaged() else { return .unneeded }
    guard isKnown else { return .needsNewStore }
    guard try self.rewriteSmall() else { return .waits }
    return try isDamaged() ? .needsNewStore : .repaired
  }

  /// Writes a checkpoint with all sessions and facts. False where there is no room.
  private func rewriteSmall() throws(StoreError) -> Bool {
    self.live.state.withLock { $0.rewriteSmall() }
    Self.requestCheckpoint(self.checkpoints, waits: true)
    try self.live.check()
    if let error = self.checkpoints.withLock({ $0.lastError }) {
      guard error == .noSpace else { throw error }
      return false
    }
    return true
  }

  private func isRowDamaged(_ place: DamagePlace) throws(StoreError) -> Bool {
    let scan: RowScan
    switch place {
    case .record(let inode):
      scan = try self.scanTwice(
        .record, after: inode > 0 ? .record(inode - 1) : nil, byteCountMax: .max, through: .record(inode))
    case .blockMap(let inode, let level, let group):
      let key = GroupKey(inode: inode, level: level, group: group)
      scan = try self.scanTwice(
        .blocks, after: .blocks(key, covered: 1), byteCountMax: .max, through: .blocks(key, covered: BlockGroup.size))
    case .certificate(let digest):
      scan = try self.scanTwice(.certificate, after: nil, byteCountMax: .max, through: .certificate(digest))
    default: return true
    }
    return scan.damaged.contains(place)
  }

  private func repairIndex(_ part: String) throws(StoreError) -> RepairOutcome {
    let index = self.live.index
    if part == "applied" {
      guard try index.checkStructure().damaged.contains(.index(part)) else { return .unneeded }
      guard try self.rewriteSmall() else { return .waits }
      return try index.checkStructure().damaged.contains(.index(part)) ? .needsNewStore : .repaired
    }
    if let derived = DerivedPart(rawValue: part) {
      do throws(StoreError) {
        guard try index.rebuild(derived) else { return .needsNewStore }
      } catch {
        switch error {
        case .noSpace: return .waits
        case .damaged: return .needsNewStore
        default: throw error
        }
      }
      return try index.checkStructure().damaged.contains(derived.place) ? .needsNewStore : .repaired
    }
    let damaged = try index.checkStructure().damaged.filter { place in
      !DerivedPart.allCases.contains { $0.place == place }
    }
    return damaged.isEmpty ? .unneeded : .needsNewStore
  }
}
