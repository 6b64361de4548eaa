// SPDX-License-Identifier: Apache-2.0

/// A set of changes that is done as a whole or not at all, as one entry of the log.
///
/// Within a change, removals and truncations come first, then blocks are written, whatever the order of calls.
package struct Change: Sendable {
  /// The term of the entry when the store numbers it itself; never lower than that of the change before.
  package var term: UInt64
  /// What must hold when the change is applied, after all changes before it in the log. Where it does not, nothing of
  /// the change is done, on any replica.
  package var conditions: [Condition] = []
  package var records: [RecordChange] = []
  /// Blocks belong to the version that the change gives their inode's record.
  package var blocks: [BlockWrite] = []
  package var truncations: [Truncation] = []
  package var sessionsOpened: [SessionOpening] = []
  package var operations: [Operation] = []
  package var certificates: [Certificate] = []
  package var facts: [Fact] = []
  /// Kept in the log entry for the layer above, which reads it nowhere else; up to 64 KiB.
  package var payloadExtra: [UInt8] = []

  package init(term: UInt64 = 0) { self.term = term }

  /// About what the change takes on the disk and on the way, in bytes.
  package var byteCount: Int { QueuedWork.blockBytes(self) + EntryBody.byteCountMax(of: self) }

  /// Why no store of this configuration would take the change, whatever it holds.
  package func check(_ configuration: StoreConfiguration) throws(StoreError) {
    if let fault = self.fault(configuration) { throw .invalidChange(fault) }
  }

  package struct Condition: Hashable, Sendable {
    package var inode: UInt64
    /// The version that the newest record has; nil: there is no record.
    package var version: UInt64?
    /// The SHA-256 digest of the newest record's bytes; nil: any. A version alone can not tell whether what has it now
    /// is what a change was built on: another change may have taken the version of one that came to nothing.
    package var digest: Digest?

    package init(inode: UInt64, version: UInt64?, digest: Digest? = nil) {
      self.inode = inode
      self.version = version
      self.digest = digest
    }
  }

  /// How many blocks of an inode stay. Blocks from there on become holes.
  package struct Truncation: Hashable, Sendable {
    package var inode: UInt64
    /// The number of blocks kept at level 0, 1, ...; levels not mentioned keep none.
    package var keptCounts: [UInt64]

    package init(inode: UInt64, keptCounts: [UInt64]) {
      self.inode = inode
      self.keptCounts = keptCounts
    }
  }

  /// Opens a session. Opening one that is open changes nothing.
  package struct SessionOpening: Hashable, Sendable {
    package var session: SessionID
    /// Who opened it: bytes of the layer above, up to 4,096.
    package var owner: [UInt8]
    /// Seconds since 1970, of the layer above.
    package var openedAt: Int64

    package init(session: SessionID, owner: [UInt8], openedAt: Int64) {
      self.session = session
      self.owner = owner
      self.openedAt = openedAt
    }
  }

  /// What is remembered so that a retry is not applied twice.
  package struct Operation: Hashable, Sendable {
    package var session: SessionID
    package var sequence: UInt64
    /// What a retry is answered with, up to 1,024 bytes.
    package var result: [UInt8]

    package init(session: SessionID, sequence: UInt64, result: [UInt8]) {
      self.session = session
      self.sequence = sequence
      self.result = result
    }
  }

  /// Bytes that are looked up by their digest, up to 64 KiB. Putting one again changes nothing.
  package struct Certificate: Hashable, Sendable {
    package var digest: Digest
    package var bytes: [UInt8]

    package init(digest: Digest, bytes: [UInt8]) {
      self.digest = digest
      self.bytes = bytes
    }
  }

  /// A small value with a name: superblock facts, counters. Names are up to 255 bytes, values up to 64 KiB.
  package struct Fact: Hashable, Sendable {
    package var key: String
    package var value: [UInt8]

    package init(key: String, value: [UInt8]) {
      self.key = key
      self.value = value
    }
  }
}

package enum RecordChange: Hashable, Sendable {
  /// The newest record from now on. Its version must be higher than that of the record before.
  case put(StoredRecord)
  /// Removes the record and all of its blocks. Pinned versions stay readable.
  case remove(inode: UInt64)

  var inode: UInt64 {
    switch self {
    case .put(let record): record.inode
    case .remove(let inode): inode
    }
  }
}

/// An inode record, opaque but for what the index needs.
package struct StoredRecord: Hashable, Sendable {
  package var inode: UInt64
  package var version: UInt64
  /// Up to 64 KiB.
  package var bytes: [UInt8]
  /// The directories that hold it, for ``SectorStore/inodes(parent:)``; up to 1,024.
  package var parents: [UInt64]
  package var flags: RecordFlags

  package init(inode: UInt64, version: UInt64, bytes: [UInt8], parents: [UInt64] = [], flags: RecordFlags = []) {
    self.inode = inode
    self.version = version
    self.bytes = bytes
    self.parents = parents
    self.flags = flags
  }
}

package struct RecordFlags: OptionSet, Hashable, Sendable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }
  package static let credential = RecordFlags(rawValue: 1 << 0)
  package static let pending = RecordFlags(rawValue: 1 << 1)
}

/// One or more consecutive blocks of one inode and level.
///
/// Checksums are computed here, on the caller's thread, since the store has only one thread that writes.
package struct BlockWrite: Sendable {
  package let inode: UInt64
  package let level: UInt8
  /// The index of the first block.
  package let index: UInt64
  package let bytes: ArraySlice<UInt8>
  package let blockSize: Int
  let checksums: [UInt32]

  package var count: Int { self.checksums.count }

  /// - Parameters:
  ///   - bytes: whole blocks; a rest shorter than a block makes the change invalid.
  ///   - blockSize: the store's sector size at level 0, 4,096 above.
  package init(inode: UInt64, level: UInt8, index: UInt64, bytes: ArraySlice<UInt8>, blockSize: Int) {
    self.inode = inode
    self.level = level
    self.index = index
    self.bytes = bytes
    self.blockSize = blockSize
    self.checksums = bytes.withUnsafeBytes { raw in
      guard blockSize > 0 else { return [] }
      return (0..<raw.count / blockSize).map { number in
        Checksum.ofBlock(UnsafeRawBufferPointer(rebasing: raw[number * blockSize..<(number + 1) * blockSize]))
      }
    }
  }

  package init(inode: UInt64, level: UInt8, index: UInt64, bytes: [UInt8], blockSize: Int) {
    self.init(inode: inode, level: level, index: index, bytes: bytes[...], blockSize: blockSize)
  }
}
