// SPDX-License-Identifier: Apache-2.0

package import Inodes
internal import Sectors
internal import SectorStore
internal import Trust

/// What a process of a delegated directory keeps on its disk of what lies above, so that it serves what is below its home
/// after a start at which nobody above can be reached: records as they were accepted, and the home's sectors as they are
/// sealed. No name and no key is in it that can be read without the home's key.
package struct AncestorCopies: Hashable, Sendable {
  /// The home's content as it is stored, of the home's record among `records`.
  package struct SealedContent: Hashable, Sendable {
    package var nodes: [NodeKey: [UInt8]]
    /// Those that are no holes.
    package var sectors: [UInt64: [UInt8]]

    package init(nodes: [NodeKey: [UInt8]] = [:], sectors: [UInt64: [UInt8]] = [:]) {
      self.nodes = nodes
      self.sectors = sectors
    }
  }

  /// Bytes of a home's content of which a copy is kept. Of a larger one only the record is.
  package static let contentByteCountMax = 8 << 20

  /// The home's, then from its parent to the root directory.
  package var records: [InodeRecord]
  /// Nil while it was not read, or when it is too large.
  package var content: SealedContent?
  /// Inodes of this process's own generation that a name in the home leads to for as long as their links part has this
  /// version; see ``HomeNames``.
  package var links: [InodeNumber: Version]

  package init(records: [InodeRecord], content: SealedContent?, links: [InodeNumber: Version]) {
    self.records = records
    self.content = content
    self.links = links
  }
}

extension AncestorCopies.SealedContent {
  /// The leaves of all sectors, verified from the record on.
  ///
  /// - Throws: `nodeMissing` when not all of the tree is here.
  func leaves(of part: ContentPart) throws(IntegrityError) -> [Leaf] {
    var tree = IntegrityTree(part)
    while true {
      let missing = tree.missing(for: 0..<part.sectorCount)
      if missing.isEmpty { break }
      for key in missing {
        guard let bytes = self.nodes[key] else { throw .nodeMissing(level: key.level, index: key.index) }
        try tree.insert(bytes, at: key)
      }
    }
    var leaves: [Leaf] = []
    leaves.reserveCapacity(Int(part.sectorCount))
    for index in 0..<part.sectorCount { leaves.append(try tree.leaf(at: index)) }
    return leaves
  }
}

extension Filesystem {
  // MARK: Writing down

  /// What is to be kept on the disk now; nil while nothing is known of what lies above. It reads what has changed of the
  /// home's content since the last time from the cluster that stores it; what can not be read is left as it was.
  ///
  /// To be called now and then, by one task at a time.
  package func copiesOfAncestors() async -> AncestorCopies? {
    guard let (home, above) = self.ancestors.records else { return nil }
    try? await self.copyContent(of: home)
    guard let copy = self.ancestors.copy else {
      return AncestorCopies(records: [home] + above, content: nil, links: [:])
    }
    // Record and content have to be of one version.
    return AncestorCopies(records: [copy.home] + above, content: copy.content, links: self.linksOfNames(in: copy))
  }

  /// Brings the copy of the home's content up to date with a record.
  private func copyContent(of home: InodeRecord) async throws(FilesystemError) {
    let former = self.ancestors.copy
    if let former, former.home.content == home.content {
      self.ancestors.copy = .init(home: home, content: former.content)
      return
    }
    let part = home.content.part
    guard part.size <= UInt64(AncestorCopies.contentByteCountMax) else {
      self.ancestors.copy = nil
      return
    }
    let volume = try await self.volumes.volume(of: home.fileID)
    do {
      let reader = ContentCopier(volume: volume, home: home, former: former)
      self.ancestors.copy = .init(home: home, content: try await reader.read())
    } catch let error as SectorError {
      throw FilesystemError(error, sectorSize: volume.sectorSize)
    } catch let error as IntegrityError {
      throw FilesystemError(error, file: home.fileID, sectorSize: part.sectorSize)
    } catch {
      throw .sector(.internalFault("\(error)"))
    }
  }

  /// The versions of links parts that names in the home are known to hold for.
  private func linksOfNames(in copy: Ancestors.Copy) -> [InodeNumber: Version] {
    let changeCount = self.names.changeCount
    if let known = self.ancestors.links, known.changeCount == changeCount, known.version == copy.home.version {
      return known.links
    }
    let links = self.findLinks(in: copy)
    self.ancestors.links = .init(changeCount: changeCount, version: copy.home.version, links: links)
    return links
  }

  private func findLinks(in copy: Ancestors.Copy) -> [InodeNumber: Version] {
    let seen = self.names.all
    guard !seen.isEmpty, let directory = self.homeInMemory(at: copy)?.directory else { return [:] }
    var links: [InodeNumber: Version] = [:]
    var several: Set<InodeNumber> = []
    for (name, seen) in seen where directory.entry(name) == seen.entry {
      let inode = seen.entry.fileID.inode
      // Which of its names was meant would not be known any more.
      if links.updateValue(seen.links, forKey: inode) != nil { several.insert(inode) }
    }
    for inode in several { links[inode] = nil }
    // A name that was not seen here may lead to the same inode.
    var counts: [InodeNumber: Int] = [:]
    for entry in directory.all where links[entry.fileID.inode] != nil {
      counts[entry.fileID.inode, default: 0] += 1
    }
    for (inode, count) in counts where count > 1 { links[inode] = nil }
    return links
  }

  private func homeInMemory(at copy: Ancestors.Copy) -> InodeState.Known? {
    if let known = self.root.lastKnown, known.directory != nil, known.record.content == copy.home.content {
      return known
    }
    return try? self.open(copy)
  }

  // MARK: Reading back

  /// Begins with copies from the disk. To be called before anybody is served, with records whose signatures were verified.
  ///
  /// - Throws: `dataLoss` when they do not lead from the home to the root directory, which leaves all as it was; or when the
  ///   home's entries can not be read, which leaves them out.
  package func restore(_ copies: AncestorCopies) throws(FilesystemError) {
    guard let home = copies.records.first, home.fileID == self.home.fileID,
      copies.records.last?.fileID == .rootDirectory, copies.records.count >= 2
    else { throw .dataLoss(self.home.fileID, .record) }
    for (record, parent) in zip(copies.records, copies.records.dropFirst()) {
      guard record.links.part.parents.first == parent.fileID else { throw .dataLoss(record.fileID, .record) }
    }
    self.ancestors.restore(home: home, above: Array(copies.records.dropFirst()))
    guard let content = copies.content else { return }
    let copy = Ancestors.Copy(home: home, content: content)
    let known = try self.open(copy)
    self.ancestors.copy = copy
    self.inodes.remember(known, of: self.root)
    guard let entries = known.directory else { return }
    for entry in entries.all where entry.fileID.generation == self.sectors.generation {
      if let links = copies.links[entry.fileID.inode] { self.names.note(entry, links: links) }
    }
  }

  /// The last copy of the home that its entries are known of; nil when there is none.
  var lastKnownHome: InodeState.Known? {
    if let known = self.root.lastKnown, known.directory != nil { return known }
    guard let copy = self.ancestors.copy, let known = try? self.open(copy) else { return nil }
    self.inodes.remember(known, of: self.root)
    return known
  }

  /// Opens the home's sectors.
  private func open(_ copy: Ancestors.Copy) throws(FilesystemError) -> InodeState.Known {
    let (file, part) = (copy.home.fileID, copy.home.content.part)
    guard part.directoryFormat <= DirectoryContent.format else {
      throw .newerFormat(file, format: part.directoryFormat)
    }
    var key = self.root.key
    if key?.epoch != part.keyEpoch {
      // The home has been given a new one since this process was certified.
      key = self.openReadcap(of: copy.home)
      if let key { self.readcapKeys.note(key, of: file) }
    }
    guard let key, part.size <= UInt64(AncestorCopies.contentByteCountMax) else { throw .noKey(file) }
    var entries = DirectoryContent(sectorSize: part.sectorSize)
    do {
      let cipher = SectorCipher(keys: try FileKeys(key, content: part), contentID: part.contentID)
      for (index, leaf) in try copy.content.leaves(of: part).enumerated() {
        let index = UInt64(index)
        var plain: [UInt8] = []
        if leaf.isHole {
          plain = [UInt8](repeating: 0, count: part.sectorSize)
        } else {
          guard let sealed = copy.content.sectors[index] else { throw IntegrityError.sectorMismatch(index: index) }
          try cipher.open(sealed, leaf: leaf, at: index, range: 0..<part.sectorSize, into: &plain)
        }
        try entries.appendSector(plain[...])
      }
    } catch {
      throw .dataLoss(file, .entries)
    }
    return InodeState.Known(record: copy.home, tree: IntegrityTree(part), directory: entries)
  }
}

/// Reads the sealed content of a directory, and of what was read before only what has changed.
private struct ContentCopier {
  let volume: any Volume
  let home: InodeRecord
  let former: Ancestors.Copy?

  /// Bytes that are asked for at once.
  private static let readByteCountMax = 1 << 20

  func read() async throws -> AncestorCopies.SealedContent {
    let part = self.home.content.part
    var copy = AncestorCopies.SealedContent()
    var tree = IntegrityTree(part)
    while true {
      let missing = tree.missing(for: 0..<part.sectorCount)
      if missing.isEmpty { break }
      for key in missing {
        if let bytes = self.former?.content.nodes[key], (try? tree.insert(bytes, at: key)) != nil {
          copy.nodes[key] = bytes
          continue
        }
        guard let bytes = try await self.blocks(key.level, key.index..<key.index + 1)[key.index] else {
          throw IntegrityError.nodeMissing(level: key.level, index: key.index)
        }
        try tree.insert(Array(bytes), at: key)
        copy.nodes[key] = Array(bytes)
      }
    }
    let formerLeaves = self.former.flatMap { try? $0.content.leaves(of: $0.home.content.part) } ?? []
    var absent: [UInt64] = []
    for index in 0..<part.sectorCount {
      let leaf = try tree.leaf(at: index)
      if leaf.isHole { continue }
      if Int(index) < formerLeaves.count, formerLeaves[Int(index)] == leaf,
        let bytes = self.former?.content.sectors[index]
      {
        copy.sectors[index] = bytes
      } else {
        absent.append(index)
      }
    }
    let countMax = max(1, Self.readByteCountMax / part.sectorSize)
    var rest = absent[...]
    while let first = rest.first {
      var count = 1
      while count < min(rest.count, countMax), rest[rest.startIndex + count] == first + UInt64(count) { count += 1 }
      let range = try await self.blocks(0, first..<first + UInt64(count))
      for index in first..<first + UInt64(count) {
        guard let bytes = range[index], Digest32(sha256: bytes) == (try tree.leaf(at: index)).digest else {
          throw IntegrityError.sectorMismatch(index: index)
        }
        copy.sectors[index] = Array(bytes)
      }
      rest = rest.dropFirst(count)
    }
    return copy
  }

  private func blocks(_ level: Int, _ indexes: Range<UInt64>) async throws -> BlockRange {
    try await self.volume.read(self.home.fileID, level: level, indexes: indexes, version: self.home.version)
  }
}
