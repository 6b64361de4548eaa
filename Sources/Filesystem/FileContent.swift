// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
internal import SectorStore
internal import Trust

/// Reads the verified content of inodes, and prepares changed contents for a commit: the place where sectors, tree and
/// key meet.
struct FileContent: Sendable {
  let volumes: VolumeTable
  let workers: Workers

  /// The most that is read, opened or sealed at once.
  static let chunkByteCount = 1 << 20
  /// The most that one call reads: a chunk, with whole sectors at its ends.
  private static let rangeByteCountMax = 4 << 20

  // MARK: The tree

  /// Loads what is missing of a tree for a range of sectors.
  func load(
    _ tree: inout IntegrityTree, for range: Range<UInt64>, of file: FileID, version: Version
  ) async throws(FilesystemError) {
    while true {
      let missing = tree.missing(for: range)
      if missing.isEmpty { return }
      var rest = missing[...]
      while let first = rest.first {
        // Neighbours of one level are read together.
        var count = 1
        while count < rest.count, rest[rest.startIndex + count].level == first.level,
          rest[rest.startIndex + count].index == first.index + UInt64(count)
        { count += 1 }
        let blocks = try await self.read(
          file, level: first.level, indexes: first.index..<first.index + UInt64(count), version: version)
        do {
          for offset in 0..<count {
            let index = first.index + UInt64(offset)
            guard let bytes = blocks[index] else {
              throw IntegrityError.nodeMissing(level: first.level, index: index)
            }
            try tree.insert(Array(bytes), at: NodeKey(level: first.level, index: index))
          }
        } catch let error as IntegrityError {
          let size = try await self.volumes.volume(of: file).sectorSize
          throw FilesystemError(error, file: file, sectorSize: size)
        } catch {
          throw .sector(.internalFault("\(error)"))
        }
        rest = rest.dropFirst(count)
      }
    }
  }

  private func read(
    _ file: FileID, level: Int, indexes: Range<UInt64>, version: Version
  ) async throws(FilesystemError) -> BlockRange {
    let volume = try await self.volumes.volume(of: file)
    do { return try await volume.read(file, level: level, indexes: indexes, version: version) } catch {
      throw FilesystemError(error, sectorSize: volume.sectorSize)
    }
  }

  // MARK: Reading

  /// Reads a range of bytes of one version, at most `chunkByteCount`, all below the size.
  func read(
    _ range: Range<UInt64>, of content: ContentPart, tree: inout IntegrityTree, key: FileKey?, version: Version
  ) async throws(FilesystemError) -> [UInt8] {
    guard !range.isEmpty else { return [] }
    guard range.count <= Self.rangeByteCountMax, range.upperBound <= content.size else { throw .outOfRange }
    let file = content.fileID
    guard let key else { throw .noKey(file) }
    guard key.epoch == content.keyEpoch else { throw .keyOutdated(file) }
    let cipher: SectorCipher
    do { cipher = SectorCipher(keys: try FileKeys(key, content: content), contentID: content.contentID) } catch {
      throw .dataLoss(file, .record)
    }
    if !content.inlineContent.isEmpty {
      do {
        let plain = try cipher.open(content.inlineContent, as: .inlineContent)
        guard plain.count == Int(content.size) else { throw IntegrityError.malformed }
        return Array(plain[Int(range.lowerBound)..<Int(range.upperBound)])
      } catch {
        throw .dataLoss(file, .content(offset: 0))
      }
    }
    let size = UInt64(content.sectorSize)
    let indexes = range.lowerBound / size..<(range.upperBound - 1) / size + 1
    try await self.load(&tree, for: indexes, of: file, version: version)
    var leaves: [Leaf] = []
    leaves.reserveCapacity(indexes.count)
    do {
      for index in indexes { leaves.append(try tree.leaf(at: index)) }
    } catch {
      throw FilesystemError(error, file: file, sectorSize: content.sectorSize)
    }
    if leaves.allSatisfy(\.isHole) { return [UInt8](repeating: 0, count: range.count) }
    let blocks = try await self.read(file, level: 0, indexes: indexes, version: version)
    let opened = await self.workers.run(byteCount: range.count) { [leaves] in
      Result { () throws(IntegrityError) in
        try Self.open(blocks, leaves: leaves, range: range, sectorSize: content.sectorSize, cipher: cipher)
      }
    }
    do { return try opened.get() } catch {
      throw FilesystemError(error, file: file, sectorSize: content.sectorSize)
    }
  }

  private static func open(
    _ blocks: BlockRange, leaves: [Leaf], range: Range<UInt64>, sectorSize: Int, cipher: SectorCipher
  ) throws(IntegrityError) -> [UInt8] {
    var plain: [UInt8] = []
    plain.reserveCapacity(range.count)
    let size = UInt64(sectorSize)
    for (leaf, index) in zip(leaves, range.lowerBound / size..<UInt64.max) {
      let start = index * size
      let part = Int(max(range.lowerBound, start) - start)..<Int(min(range.upperBound, start + size) - start)
      if leaf.isHole {
        plain.append(contentsOf: repeatElement(0, count: part.count))
      } else {
        guard let sealed = blocks[index] else { throw .sectorMismatch(index: index) }
        try cipher.open(sealed, leaf: leaf, at: index, range: part, into: &plain)
      }
    }
    return plain
  }

  // MARK: Writing

  /// A changed content on its way to a commit.
  struct Change: Sendable {
    var content: ContentPart
    var tree: IntegrityTree
    var blocks = Commit.Blocks()

    /// Copies what the tree says into the content part, and its changed nodes to the blocks.
    mutating func sealTree() {
      for node in self.tree.seal() { self.blocks.nodes[node.key] = node.bytes }
      self.content.leaves = self.tree.recordLeaves
      self.content.integrityRoot = self.tree.levels == 0 ? .zero : self.tree.root
      self.content.treeLevels = self.tree.levels
    }
  }

  /// Writes bytes at an offset, at most `chunkByteCount`, and grows the content where needed.
  ///
  /// - Parameter version: the version of the stored content that `change` begins with; nil when nothing is stored yet.
  func write(
    _ data: ArraySlice<UInt8>, at offset: UInt64, to change: inout Change, key: FileKey, version: Version?
  ) async throws(FilesystemError) {
    guard !data.isEmpty else { return }
    let (end, overflow) = offset.addingReportingOverflow(UInt64(data.count))
    guard !overflow, end <= TreeShape.fileByteCountMax else { throw .outOfRange }
    let size = UInt64(change.content.sectorSize)
    let indexes = offset / size..<(end - 1) / size + 1
    let oldSize = change.content.size
    // The parts of the first and the last sector that stay.
    var buffer: [UInt8] = []
    let headStart = indexes.lowerBound * size
    let tailEnd = min(indexes.upperBound * size, oldSize)
    let needsHead = headStart < offset && headStart < oldSize
    let needsTail = end < tailEnd
    if needsHead || needsTail || headStart < offset {
      buffer.reserveCapacity(Int(indexes.upperBound * size - headStart))
      if headStart < offset {
        let kept = headStart..<min(offset, max(oldSize, headStart))
        buffer = try await self.read(
          kept, of: change.content, tree: &change.tree, key: key, version: version ?? .absent)
        buffer += [UInt8](repeating: 0, count: Int(offset - headStart) - buffer.count)
      }
      buffer += data
      if needsTail {
        buffer += try await self.read(
          end..<tailEnd, of: change.content, tree: &change.tree, key: key, version: version ?? .absent)
      }
    }
    if let version {
      try await self.load(&change.tree, for: indexes, of: change.content.fileID, version: version)
    }
    let plain = buffer.isEmpty ? data : buffer[...]
    guard key.epoch == change.content.keyEpoch else { throw .keyOutdated(change.content.fileID) }
    let cipher = SectorCipher(key: key, contentID: change.content.contentID)
    let sealed = await self.workers.run(byteCount: plain.count) {
      Result { () throws(IntegrityError) in
        try cipher.seal(plain, from: indexes.lowerBound, sectorSize: Int(size))
      }
    }
    do {
      let (leaves, run) = try sealed.get()
      change.content.size = max(oldSize, end)
      try change.tree.resize(to: max(change.tree.sectorCount, indexes.upperBound))
      for (offset, leaf) in leaves.enumerated() { try change.tree.set(leaf, at: indexes.lowerBound + UInt64(offset)) }
      change.blocks.runs.append(run)
    } catch {
      throw FilesystemError(error, file: change.content.fileID, sectorSize: Int(size))
    }
  }

  /// Changes the size. What is cut off is gone; what is added reads as zeros.
  func resize(
    to byteCount: UInt64, _ change: inout Change, key: FileKey, version: Version
  ) async throws(FilesystemError) {
    guard byteCount <= TreeShape.fileByteCountMax else { throw .outOfRange }
    let file = change.content.fileID
    let size = UInt64(change.content.sectorSize)
    let sectorCount = TreeShape.sectorCount(byteCount: byteCount, sectorSize: change.content.sectorSize)
    if byteCount < change.content.size, byteCount % size != 0 {
      // The last sector is sealed anew, so that what is cut off does not come back when the file grows.
      let start = byteCount - byteCount % size
      let kept = try await self.read(
        start..<byteCount, of: change.content, tree: &change.tree, key: key, version: version)
      try await self.shrink(&change, to: sectorCount, version: version)
      change.content.size = start
      try await self.write(kept[...], at: start, to: &change, key: key, version: version)
    } else {
      try await self.shrink(&change, to: sectorCount, version: version)
      if sectorCount > change.tree.sectorCount {
        do { try change.tree.resize(to: sectorCount) } catch {
          throw FilesystemError(error, file: file, sectorSize: Int(size))
        }
      }
    }
    change.content.size = byteCount
  }

  private func shrink(
    _ change: inout Change, to sectorCount: UInt64, version: Version
  ) async throws(FilesystemError) {
    guard sectorCount < change.tree.sectorCount else { return }
    let file = change.content.fileID
    let needed = change.tree.sectorsToLoad(beforeResizingTo: sectorCount)
    try await self.load(&change.tree, for: needed, of: file, version: version)
    do { try change.tree.resize(to: sectorCount) } catch {
      throw FilesystemError(error, file: file, sectorSize: change.content.sectorSize)
    }
  }

  /// Seals single sectors of a directory, which is rewritten in places.
  func write(
    sectors: [(index: Int, bytes: [UInt8])], count: Int, to change: inout Change, key: FileKey, version: Version?
  ) async throws(FilesystemError) {
    let file = change.content.fileID
    guard key.epoch == change.content.keyEpoch else { throw .keyOutdated(change.content.fileID) }
    let cipher = SectorCipher(key: key, contentID: change.content.contentID)
    if let version {
      try await self.shrink(&change, to: UInt64(count), version: version)
      for (index, _) in sectors {
        try await self.load(&change.tree, for: UInt64(index)..<UInt64(index) + 1, of: file, version: version)
      }
    }
    do {
      try change.tree.resize(to: UInt64(count))
      for (index, bytes) in sectors {
        let (leaves, run) = try cipher.seal(bytes[...], from: UInt64(index), sectorSize: change.content.sectorSize)
        for leaf in leaves { try change.tree.set(leaf, at: UInt64(index)) }
        change.blocks.runs.append(run)
      }
    } catch {
      throw FilesystemError(error, file: file, sectorSize: change.content.sectorSize)
    }
    change.content.size = UInt64(count) * UInt64(change.content.sectorSize)
  }
}
