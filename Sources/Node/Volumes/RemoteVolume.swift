// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import BlocktreeSchema
internal import Filesystem
internal import Foundation
internal import GRPCCore
internal import Inodes
internal import SectorStore
internal import Sectors
private import Synchronization
internal import Transport
internal import Trust

/// The client library has one of its own, for whoever only calls.
typealias FileID = Inodes.FileID

/// One generation that another cluster serves, over its sector service.
///
/// Every call has a time limit of its own, see ``RemoteVolumes/Timing``, and is made again within it where that is safe. Nothing is taken on trust but freshness: what is read is verified by whoever reads it, and records by
/// ``verify(_:)``. Two things are weaker than in the cluster itself: a version is not kept readable while it is being
/// read, see ``keep(_:version:)``, and when an answer was lost it may take until the time limit to learn of the outcome.
final class RemoteVolume: Volume {
  /// Bytes of one read of sectors or tree nodes.
  static let readByteCountMax = 4 << 20
  /// Records that are remembered for ``storedRecord(_:)``.
  private static let recordsMax = 1_024

  let cluster: RemoteCluster
  let sectorSize: Int
  private let signers: SignerCache
  private let signatures: SignatureCache
  private let records = Mutex<[FileID: InodeRecord]>([:])
  /// Numbers the commits that complete nobody else's operation.
  let operationIDs = OperationIDs()

  var generation: Generation { self.cluster.generation }
  /// The directory that the generation serves.
  var directory: TreePath { self.cluster.directory }

  /// Asks the cluster for its sector size.
  ///
  /// - Throws: `unreachable` when nobody answers.
  init(
    _ cluster: RemoteCluster, signers: SignerCache, signatures: SignatureCache
  ) async throws(SectorError) {
    self.cluster = cluster
    self.signers = signers
    self.signatures = signatures
    let generation = cluster.generation
    self.sectorSize = try await cluster.call(.read) { call in
      let status = try await call.sectors.status(.init(), options: call.options)
      // Whoever serves another generation is passed over, as if it had said so itself.
      guard status.generation == generation.rawValue else {
        throw BlocktreeError(
          code: .failedPrecondition, reason: BlocktreeError.Reason(rawValue: "WRONG_GENERATION"),
          message: "The process serves another generation.")
      }
      let size = Int(status.superblock.sectorSize)
      guard RecordLimits.sectorSizes.contains(size) else { throw SectorError.malformedAnswer("sector_size") }
      return size
    }
  }

  func require(_ file: FileID) throws(SectorError) {
    guard file.generation == self.generation else { throw .wrongGeneration(file.generation) }
  }

  // MARK: Records

  func record(_ file: FileID) async throws(SectorError) -> InodeRecord? {
    try self.require(file)
    var request = Blocktree_V1_ReadRecordsRequest()
    request.fileIds = [file.message]
    let messages = try await self.cluster.call(.read) { [request] call in
      let outcome = try await call.stream.perform(.readRecords(request), byteCount: 64, deadline: call.deadline)
      guard case .readRecords(let response) = outcome else { throw SectorError.malformedAnswer("result") }
      return response.records
    }
    guard let message = messages.first, messages.count == 1 else { throw .malformedAnswer("records") }
    guard message.version > 0 else {
      self.forget(file)
      return nil
    }
    let record: InodeRecord
    do throws(RecordError) { record = try InodeRecord(message) } catch { throw .dataLoss(file, place: .record) }
    guard record.fileID == file else { throw .malformedAnswer("file_id") }
    self.remember(record)
    return record
  }

  func storedRecord(_ file: FileID) async throws(SectorError) -> InodeRecord? {
    if let record = self.records.withLock({ $0[file] }) { return record }
    return try await self.record(file)
  }

  func remember(_ record: InodeRecord) {
    self.records.withLock { records in
      if let known = records[record.fileID], known.version >= record.version { return }
      if records.count >= Self.recordsMax, records[record.fileID] == nil { records.removeAll() }
      records[record.fileID] = record
    }
  }

  func forget(_ file: FileID) { self.records.withLock { $0[file] = nil } }

  /// As in the cluster itself. Also, the acceptance has to be that of a process whose credential lies in the directory
  /// that the cluster serves: nobody else is a member. Chains that are not known are fetched from the cluster.
  func verify(_ record: InodeRecord) async throws(SectorError) {
    try self.require(record.fileID)
    guard let acceptance = record.acceptance else { throw .dataLoss(record.fileID, place: .record) }
    try await self.fetchSigners(
      [acceptance.signer, record.content.signer, record.attributes.signer, record.links.signer])
    guard self.signers.isVerified(record, servedBy: self.directory, cache: self.signatures) else {
      throw .dataLoss(record.fileID, place: .record)
    }
  }

  /// Fetches the chains that are not known; those that the cluster does not know either are left out.
  private func fetchSigners(_ digests: Set<Digest32>) async throws(SectorError) {
    let unknown = digests.filter { self.signers.signer($0) == nil }.sorted()
    if unknown.isEmpty { return }
    var request = Blocktree_V1_ReadCertificatesRequest()
    request.digests = unknown.map { Data($0.bytes) }
    let chains = try await self.cluster.call(.read) { [request] call in
      try await call.sectors.readCertificates(request, options: call.options).chains
    }
    guard chains.count == unknown.count else { throw .malformedAnswer("chains") }
    for (digest, message) in zip(unknown, chains) {
      guard let chain = try? CertificateChain(message.certificates.map { Array($0) }) else { continue }
      _ = self.signers.add(chain, digest: digest)
    }
  }

  // MARK: Sectors

  func read(
    _ file: FileID, level: Int, indexes: Range<UInt64>, version: Version
  ) async throws(SectorError) -> BlockRange {
    try self.require(file)
    let blockSize = level == 0 ? self.sectorSize : TreeShape.nodeByteCount
    guard let level = UInt32(exactly: level), level <= UInt32(TreeShape.levelsMax) else {
      throw .invalid(field: "level")
    }
    let countMax = Self.readByteCountMax / blockSize
    guard indexes.count <= countMax else { throw .tooLarge("indexes", limit: countMax, found: indexes.count) }
    if indexes.isEmpty {
      return try Self.range(indexes, blockSize, version, bytes: [], isHole: [])
    }
    var run = Blocktree_V1_SectorRun()
    run.level = level
    run.start = indexes.lowerBound
    run.count = UInt32(indexes.count)
    var request = Blocktree_V1_ReadSectorsRequest()
    request.fileID = file.message
    request.version = version.rawValue
    request.runs = [run]
    let isSmall = indexes.count * blockSize <= SectorStream.operationByteCountMax
    return try await self.cluster.call(.read) { [request] call in
      if isSmall {
        let outcome = try await call.stream.perform(.readSectors(request), byteCount: 64, deadline: call.deadline)
        guard case .readSectors(let message) = outcome else { throw SectorError.malformedAnswer("result") }
        var received = ReceivedBlocks(indexes: indexes, level: level, blockSize: blockSize, version: version)
        try received.add(message)
        return try received.range
      }
      return try await call.sectors.readSectors(request, options: call.options) { response in
        var received = ReceivedBlocks(indexes: indexes, level: level, blockSize: blockSize, version: version)
        for try await message in response.messages { try received.add(message) }
        return try received.range
      }
    }
  }

  static func range(
    _ indexes: Range<UInt64>, _ blockSize: Int, _ version: Version, bytes: [UInt8], isHole: [Bool]
  ) throws(SectorError) -> BlockRange {
    guard isHole.count == indexes.count,
      let range = BlockRange(
        first: indexes.lowerBound, blockSize: blockSize, version: version.rawValue, received: bytes, isHole: isHole)
    else { throw .malformedAnswer("blocks") }
    return range
  }

  /// Nothing keeps a version over the network: when it is overwritten and no one else keeps it, a read ends with
  /// `versionGone`, and whoever reads has to begin again with the version that is there then. So nobody is asked.
  func keep(_ file: FileID, version: Version) async throws(SectorError) -> any KeptVersion {
    return NothingKept()
  }
}

/// A version that is not kept.
private final class NothingKept: KeptVersion {}

/// The blocks of one answer, put together. All of them have to come, in their order, of the right size and version.
struct ReceivedBlocks {
  private let indexes: Range<UInt64>
  private let level: UInt32
  private let blockSize: Int
  private let version: Version
  private var bytes: [UInt8] = []
  private var isHole: [Bool] = []

  init(indexes: Range<UInt64>, level: UInt32, blockSize: Int, version: Version) {
    self.indexes = indexes
    self.level = level
    self.blockSize = blockSize
    self.version = version
    self.bytes.reserveCapacity(indexes.count * blockSize)
    self.isHole.reserveCapacity(indexes.count)
  }

  mutating func add(_ message: Blocktree_V1_ReadSectorsResponse) throws(SectorError) {
    guard message.version == self.version.rawValue else { throw .malformedAnswer("version") }
    for block in message.blocks {
      guard self.isHole.count < self.indexes.count,
        block.index == self.indexes.lowerBound + UInt64(self.isHole.count), block.level == self.level
      else { throw .malformedAnswer("blocks") }
      if block.bytes.isEmpty {
        self.bytes.append(contentsOf: repeatElement(0, count: self.blockSize))
      } else {
        guard block.bytes.count == self.blockSize else { throw .malformedAnswer("blocks") }
        self.bytes.append(contentsOf: block.bytes)
      }
      self.isHole.append(block.bytes.isEmpty)
    }
  }

  var range: BlockRange {
    get throws(SectorError) {
      try RemoteVolume.range(self.indexes, self.blockSize, self.version, bytes: self.bytes, isHole: self.isHole)
    }
  }
}

extension SectorError {
  /// An answer that breaks the schema's rules.
  static func malformedAnswer(_ field: String) -> SectorError { .internalFault("malformed answer: \(field)") }
}
