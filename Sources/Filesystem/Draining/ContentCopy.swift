// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import SectorStore
internal import Sectors

/// Copies the sealed content of one version of a file to an inode of another generation, piece by piece. What the copy
/// has already is left alone. Keys are not needed: sectors, and what the tree says of them, stay as they are, for all
/// that they are authenticated with is the content id, which the copy has, too.
struct ContentCopy: Sendable {
  private let filesystem: Filesystem
  private let source: ContentPart
  private let version: Version
  private let kept: any KeptVersion
  /// As much of the source's tree as was needed.
  private var tree: IntegrityTree
  /// The version of the copy that is stored; nil when there is none.
  private var stored: Version?
  /// The first sector that was not compared yet.
  private var next: UInt64 = 0
  /// The copy's content as far as it has got, and what of it is to be committed.
  private(set) var change: FileContent.Change

  /// Sectors that are compared at once.
  private let step: UInt64

  /// - Parameters:
  ///   - record: the source, verified.
  ///   - copy: as it is stored; nil for a new one.
  ///   - file: the copy.
  /// - Throws: `versionGone` when the source is at another version by now.
  init(
    of record: InodeRecord, to file: FileID, from copy: InodeRecord?, in filesystem: Filesystem
  ) async throws(FilesystemError) {
    self.filesystem = filesystem
    self.source = record.content.part
    self.version = record.version
    self.kept = try await filesystem.keep(record.fileID, version: record.version)
    self.tree = IntegrityTree(record.content.part)
    self.stored = copy?.version
    self.step = UInt64(max(1, FileContent.chunkByteCount / record.content.part.sectorSize))
    var content = record.content.part
    content.fileID = file
    content.actingFor = nil
    self.change = FileContent.Change(
      content: content, tree: copy.map { IntegrityTree($0.content.part) } ?? IntegrityTree())
  }

  var isDone: Bool { self.next >= self.source.sectorCount }

  /// Goes on until so many bytes are to be committed, or all that there are.
  ///
  /// - Throws: `versionGone`; `dataLoss` when what is read is not what the source's record says.
  mutating func advance(byteCountMax: Int) async throws(FilesystemError) {
    let count = self.source.sectorCount
    if self.next == 0, self.change.tree.sectorCount > count { try await self.cut(to: count) }
    var byteCount = 0
    while self.next < count, byteCount < byteCountMax {
      let range = self.next..<min(self.next + self.step, count)
      byteCount += try await self.copy(range)
      self.next = range.upperBound
      if self.tree.loadedNodeCount > 64 { self.tree.forgetUnchangedNodes() }
    }
    // Up to the end there may be what an earlier version had there.
    let isWhole = self.change.tree.sectorCount == count
    self.change.content.size =
      isWhole ? self.source.size : self.change.tree.sectorCount * UInt64(self.source.sectorSize)
    self.change.sealTree()
    guard self.isDone else { return }
    guard self.change.content.leaves == self.source.leaves,
      self.change.content.integrityRoot == self.source.integrityRoot,
      self.change.content.treeLevels == self.source.treeLevels
    else { throw .dataLoss(self.source.fileID, .content(offset: 0)) }
  }

  /// What there was to be committed is stored, as this version.
  mutating func committed(_ version: Version) {
    self.stored = version
    self.change.blocks = Commit.Blocks()
    if self.change.tree.loadedNodeCount > 64 { self.change.tree.forgetUnchangedNodes() }
  }

  private mutating func cut(to count: UInt64) async throws(FilesystemError) {
    let file = self.change.content.fileID
    if let stored {
      let needed = self.change.tree.sectorsToLoad(beforeResizingTo: count)
      try await self.filesystem.content.load(&self.change.tree, for: needed, of: file, version: stored)
    }
    do { try self.change.tree.resize(to: count) } catch {
      throw FilesystemError(error, file: file, sectorSize: self.source.sectorSize)
    }
  }

  /// - Returns: how many bytes were copied.
  private mutating func copy(_ range: Range<UInt64>) async throws(FilesystemError) -> Int {
    let (file, copy, sectorSize) = (self.source.fileID, self.change.content.fileID, self.source.sectorSize)
    try await self.filesystem.content.load(&self.tree, for: range, of: file, version: self.version)
    if let stored {
      try await self.filesystem.content.load(&self.change.tree, for: range, of: copy, version: stored)
    }
    var differing: [UInt64] = []
    do {
      try self.change.tree.resize(to: max(self.change.tree.sectorCount, range.upperBound))
      for index in range {
        let leaf = try self.tree.leaf(at: index)
        guard try leaf != self.change.tree.leaf(at: index) else { continue }
        try self.change.tree.set(leaf, at: index)
        if !leaf.isHole { differing.append(index) }
      }
    } catch {
      throw FilesystemError(error, file: file, sectorSize: sectorSize)
    }
    var rest = differing[...]
    while let first = rest.first {
      let run = rest.enumerated().prefix { $0.element == first + UInt64($0.offset) }.count
      try await self.read(first..<first + UInt64(run))
      rest = rest.dropFirst(run)
    }
    return differing.count * sectorSize
  }

  private mutating func read(_ range: Range<UInt64>) async throws(FilesystemError) {
    let sectorSize = self.source.sectorSize
    let blocks: BlockRange
    let volume = try await self.filesystem.volumes.volume(of: self.source.fileID)
    do {
      blocks = try await volume.read(self.source.fileID, level: 0, indexes: range, version: self.version)
    } catch {
      throw FilesystemError(error, sectorSize: sectorSize)
    }
    guard !blocks.isHole.contains(true), blocks.bytes.count == range.count * sectorSize else {
      throw FilesystemError(.sectorMismatch(index: range.lowerBound), file: self.source.fileID, sectorSize: sectorSize)
    }
    let run = await self.filesystem.content.workers.run(byteCount: blocks.bytes.count) {
      SealedRun(start: range.lowerBound, bytes: blocks.bytes, sectorSize: sectorSize)
    }
    // What is passed on was verified first: the cluster that takes it believes the digests.
    for (index, digest) in zip(range, run.digests) {
      let leaf: Leaf
      do { leaf = try self.tree.leaf(at: index) } catch {
        throw FilesystemError(error, file: self.source.fileID, sectorSize: sectorSize)
      }
      guard leaf.digest == digest else {
        throw FilesystemError(.sectorMismatch(index: index), file: self.source.fileID, sectorSize: sectorSize)
      }
    }
    self.change.blocks.runs.append(run)
  }
}
