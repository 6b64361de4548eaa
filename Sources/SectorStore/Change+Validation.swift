// SPDX-License-Identifier: Apache-2.0

extension Change {
  /// The first rule that the change breaks by itself, whatever the store holds.
  func fault(_ configuration: StoreConfiguration) -> ChangeFault? {
    let payloadMax = SegmentedLog.payloadBytesMax(segmentBytes: configuration.segmentBytes)
    if EntryBody.byteCountMax(of: self) > payloadMax { return .entryTooLong }
    if self.payloadExtra.count > StoreConfiguration.recordBytesMax { return .extraTooLong }
    return self.recordFault() ?? self.blockFault(configuration) ?? self.otherFault()
  }

  private func recordFault() -> ChangeFault? {
    for change in self.records {
      guard change.inode > 0, change.inode <= UInt64(Int64.max) else { return .inodeOutOfRange }
      guard case .put(let record) = change else { continue }
      if record.version > UInt64(Int64.max) { return .versionTooHigh }
      if record.bytes.count > StoreConfiguration.recordBytesMax { return .recordTooLong }
      if record.parents.count > StoreConfiguration.parentCountMax { return .tooManyParents }
    }
    return self.records.count > 1 && Set(self.records.map(\.inode)).count < self.records.count ? .inodeTwice : nil
  }

  private func blockFault(_ configuration: StoreConfiguration) -> ChangeFault? {
    if self.blocks.isEmpty, self.truncations.isEmpty { return nil }
    var written: Set<UInt64> = []
    for case .put(let record) in self.records { written.insert(record.inode) }
    for block in self.blocks {
      guard written.contains(block.inode) else { return .blocksWithoutRecord }
      guard block.blockSize == configuration.blockSize(level: block.level), block.count > 0,
        block.bytes.count == block.count * block.blockSize
      else { return .blockSizeWrong }
      guard block.index <= StoreConfiguration.blockIndexMax - UInt64(block.count) else { return .blockIndexTooHigh }
    }
    if self.blocks.count > 1 {
      let sorted = self.blocks.sorted { ($0.inode, $0.level, $0.index) < ($1.inode, $1.level, $1.index) }
      for (left, right) in zip(sorted, sorted.dropFirst())
      where left.inode == right.inode && left.level == right.level && left.index + UInt64(left.count) > right.index {
        return .blocksOverlap
      }
    }
    guard self.truncations.allSatisfy({ written.contains($0.inode) }) else { return .blocksWithoutRecord }
    guard Set(self.truncations.map(\.inode)).count == self.truncations.count else { return .truncatedTwice }
    return self.truncations.contains { $0.keptCounts.count > 256 } ? .changeTooLong : nil
  }

  private func otherFault() -> ChangeFault? {
    for opening in self.sessionsOpened where opening.owner.count > StoreConfiguration.ownerBytesMax {
      return .ownerTooLong
    }
    for operation in self.operations {
      if operation.sequence == 0 { return .sequenceZero }
      if operation.result.count > StoreConfiguration.resultBytesMax { return .resultTooLong }
    }
    if self.operations.count > 1 {
      let names = Set(self.operations.map { Change.Operation(session: $0.session, sequence: $0.sequence, result: []) })
      if names.count < self.operations.count { return .operationTwice }
    }
    for certificate in self.certificates where certificate.bytes.count > StoreConfiguration.recordBytesMax {
      return .certificateTooLong
    }
    for fact in self.facts
    where fact.value.count > StoreConfiguration.recordBytesMax
      || fact.key.utf8.count > StoreConfiguration.factKeyBytesMax
    {
      return .factTooLong
    }
    return nil
  }
}
