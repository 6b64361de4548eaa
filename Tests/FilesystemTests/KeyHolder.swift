// SPDX-License-Identifier: Apache-2.0

import Crypto
import Inodes
import SectorStore
import Sectors
import Testing
import Trust

@testable import Filesystem

/// Somebody who keeps every key that it ever gets hold of, and reads the stored sectors by itself: what it can open, it
/// opens, whatever it is permitted.
struct KeyHolder {
  let path: TreePath
  let agreement: AgreementKey
  let domain: DomainID
  /// All keys that it has, whatever they are of.
  private(set) var keys: [FileKey] = []

  init(_ path: TreePath, _ agreement: AgreementKey, domain: DomainID) {
    self.path = path
    self.agreement = agreement
    self.domain = domain
  }

  /// Takes its readcap of a record, if that has one.
  mutating func takeReadcap(of record: InodeRecord) {
    for readcap in record.attributes.part.readcaps where readcap.principal == self.path {
      let context = ReadcapContext(
        domain: self.domain, generation: record.fileID.generation.rawValue, inode: record.fileID.inode.rawValue,
        epoch: readcap.epoch, recipient: self.path)
      if let key = try? ReadcapSeal(bytes: readcap.sealedKey).open(with: self.agreement, context: context),
        let fileKey = key.withUnsafeBytes({ FileKey(bytes: $0, epoch: readcap.epoch) })
      {
        self.keys.append(fileKey)
      }
    }
  }

  /// Opens all that it can of an inode and of what lies below it, and keeps the keys that it finds.
  ///
  /// - Parameter groups: where it looks.
  /// - Returns: by inode, the plain sectors that it could open.
  mutating func explore(_ file: FileID, in groups: SectorGroup...) async throws -> [FileID: [[UInt8]]] {
    try await self.explore(file, in: groups)
  }

  private mutating func explore(_ file: FileID, in groups: [SectorGroup]) async throws -> [FileID: [[UInt8]]] {
    guard let group = groups.first(where: { $0.generation == file.generation }),
      let record = try await group.record(file)
    else { return [:] }
    let content = record.content.part
    // Every key of the file, of any epoch, that one of its own leads to.
    var known = self.keys
    for key in self.keys {
      var newer = key
      for sealed in content.earlierKeys {
        guard
          let bytes = try? SectorCipher(key: newer, contentID: content.contentID).open(
            sealed.sealedKey, as: .earlierKey), let earlier = FileKey(bytes: bytes, epoch: sealed.epoch)
        else { continue }
        known.append(earlier)
        newer = earlier
      }
    }
    var opened: [[UInt8]] = []
    if !content.inlineContent.isEmpty {
      for key in known {
        if let plain = try? SectorCipher(key: key, contentID: content.contentID).open(
          content.inlineContent, as: .inlineContent)
        {
          opened.append(plain)
        }
      }
    } else {
      var tree = IntegrityTree(content)
      while let key = tree.missing(for: 0..<content.sectorCount).first {
        let blocks = try await group.read(
          file, level: key.level, indexes: key.index..<key.index + 1, version: record.version)
        try tree.insert(Array(#require(blocks[key.index])), at: key)
      }
      for index in 0..<content.sectorCount {
        let leaf = try tree.leaf(at: index)
        if leaf.isHole { continue }
        let blocks = try await group.read(file, level: 0, indexes: index..<index + 1, version: record.version)
        guard let sealed = blocks[index] else { continue }
        for key in known {
          var plain: [UInt8] = []
          // It may try a key under any epoch.
          guard let tried = FileKey(bytes: key.bytes, epoch: leaf.epoch) else { continue }
          let cipher = SectorCipher(key: tried, contentID: content.contentID)
          if (try? cipher.open(Array(sealed), leaf: leaf, at: index, range: 0..<content.sectorSize, into: &plain))
            != nil
          {
            opened.append(plain)
            break
          }
        }
      }
    }
    var found = [file: opened]
    if record.attributes.part.type == .directory {
      let entries = opened.flatMap { (try? DirectorySector.decode($0[...])) ?? [] }
      self.keys += entries.compactMap(\.key) + entries.compactMap(\.nextKey)
      for entry in entries {
        found.merge(try await self.explore(entry.fileID, in: groups)) { first, _ in first }
      }
    }
    return found
  }
}
