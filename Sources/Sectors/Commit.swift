// SPDX-License-Identifier: Apache-2.0

package import Inodes
package import Trust

/// The one write primitive: conditions, records, and the sectors and tree nodes that they need, all in one generation,
/// applied as a whole or not at all.
package struct Commit: Sendable {
  /// What must hold, beyond the versions that the records themselves imply. 0: the inode must not exist.
  package var conditions: [Condition] = []
  /// The records to be put in place; each has its present version plus one.
  package var records: [InodeRecord] = []
  /// Sealed sectors and tree nodes of inodes among `records`.
  package var blocks: [FileID: Blocks] = [:]
  /// Inodes to be removed, with all they hold.
  package var removals: [FileID] = []
  /// Chains of signers, so that others can check them later. The committer's own need not be among them.
  package var chains: [CertificateChain] = []
  /// What this commit completes, so that a repetition is answered and not applied again.
  package var operations: [Operation] = []
  /// Whether the operations are of others, for whom a filesystem service acts: nobody else may say so.
  package var isForOthers = false

  package init() {}

  package struct Condition: Hashable, Sendable {
    package let fileID: FileID
    package let version: Version
    /// The acceptance digest that the record of this version must have; nil: any.
    package let acceptanceDigest: Digest32?

    package init(_ fileID: FileID, _ version: Version, acceptanceDigest: Digest32? = nil) {
      self.fileID = fileID
      self.version = version
      self.acceptanceDigest = acceptanceDigest
    }
  }

  package struct Operation: Hashable, Sendable {
    package let id: OperationID
    /// What a repetition is answered with: at most 1,024 bytes.
    package let result: [UInt8]

    package init(id: OperationID, result: [UInt8]) {
      self.id = id
      self.result = result
    }
  }

  /// Sealed sectors and changed tree nodes of one inode.
  package struct Blocks: Sendable {
    package var runs: [SealedRun] = []
    package var nodes: [NodeKey: [UInt8]] = [:]

    package init() {}
  }

  /// Whether a record's version lies above one of these.
  func isBuilt(on versions: [FileID: Version]) -> Bool {
    !versions.isEmpty
      && self.records.contains { record in versions[record.fileID].map { $0 < record.version } ?? false }
  }

  /// Bytes of sectors and nodes.
  package var byteCount: Int {
    self.blocks.values.reduce(0) { sum, blocks in
      sum + blocks.runs.reduce(0) { $0 + $1.bytes.count } + blocks.nodes.count * TreeShape.nodeByteCount
    }
  }
}

/// What came of a commit.
package enum CommitOutcome: Sendable {
  case applied(CommitReceipt)
  /// The operation had been applied before; what it was answered with then.
  case repeated([UInt8])
}

/// The cluster's answer to a commit that is durable.
package struct CommitReceipt: Sendable {
  /// The records as they are stored, with their acceptances, in the order of the commit.
  package let records: [InodeRecord]
  /// The position in the cluster's log.
  package let logIndex: UInt64
  /// The members that had it on disk when it was acknowledged.
  package let members: [TreePath]
  /// SHA-256 of the acceptance digests of the records, one after the other.
  package let acceptancesDigest: Digest32

  package init(records: [InodeRecord], logIndex: UInt64, members: [TreePath], acceptancesDigest: Digest32) {
    self.records = records
    self.logIndex = logIndex
    self.members = members
    self.acceptancesDigest = acceptancesDigest
  }

  /// What the leader signs: that these members had the commit at this index on disk.
  package var digest: Digest32 {
    var bytes = Array("blocktree/receipt/v1".utf8)
    withUnsafeBytes(of: self.logIndex.bigEndian) { bytes.append(contentsOf: $0) }
    for (number, member) in self.members.enumerated() {
      if number > 0 { bytes.append(0) }
      bytes.append(contentsOf: member.bytes)
    }
    bytes.append(0)
    bytes.append(contentsOf: self.acceptancesDigest.bytes)
    return Digest32(sha256: bytes)
  }
}

/// Bounds of what one call of the sector service may ask for.
package enum SectorLimits {
  /// Bytes of sectors and tree nodes in a commit.
  package static let commitByteCountMax = 4 << 20
  /// Records, and also conditions and removals, in a commit.
  package static let commitRecordsMax = 1_024
  /// Records in one read.
  package static let readRecordsMax = 256
  /// Bytes of records in one read of more than one.
  package static let readRecordsByteCountMax = 4 << 20
  /// Runs in one read of sectors.
  package static let readRunsMax = 64
  /// Sectors in one read.
  package static let readSectorsMax = 65_536
  /// Bytes in one message of a streamed read.
  package static let messageByteCount = 128 << 10
  /// Bytes that one operation of a session stream may read.
  package static let sessionReadByteCountMax = 1 << 20
  /// Operations in one message of a session stream, and in flight on one.
  package static let sessionOperationsMax = 256
  /// Bytes of requests in flight on a session stream.
  package static let sessionByteCountMax = 4 << 20
  /// Certificate chains in one read or commit.
  package static let chainsMax = 64
  /// Inode numbers in one allocation.
  package static let allocationMax: UInt32 = 65_536
  /// Credential files that lie directly in a delegated directory, and of which its cluster keeps copies.
  package static let memberCredentialsMax = 512
  /// Bytes of these together.
  package static let memberCredentialsByteCountMax = 2 << 20
  /// Bytes of what a process claims a generation with.
  package static let claimByteCount = 16
  /// Generations that one process may claim.
  package static let claimsMax: UInt64 = 64
  /// Operations that one commit of a filesystem service may complete from elsewhere.
  package static let completedMax = 64
  /// Bytes of what is remembered with each of them.
  package static let completedResultByteCountMax = 64
  /// Ancestors that are followed to find out whether one inode lies below another.
  package static let ancestorsMax = 1_024
}
