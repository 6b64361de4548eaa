// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
internal import GRPCProtobuf
internal import Inodes
internal import SwiftProtobuf
internal import Trust

// Between commits and their schema. Whatever is missing, unknown or beyond its limit is an error.

extension Commit {
  /// Takes a request apart. Nothing is verified yet but its form.
  ///
  /// - Parameter sectorSize: of the generation that is served.
  package init(_ message: Blocktree_V1_CommitRequest, sectorSize: Int) throws(SectorError) {
    try Self.checkCounts(message)
    self.init()
    if !message.completed.isEmpty {
      guard !message.hasOperation else { throw .invalid(field: "completed") }
      self.isForOthers = true
      for completed in message.completed {
        self.operations.append(
          Operation(
            id: try OperationID(schema: completed.operation, field: "completed"), result: Array(completed.result)))
      }
      guard Set(self.operations.map(\.id)).count == self.operations.count else { throw .invalid(field: "completed") }
    } else if message.hasOperation {
      self.operations = [
        Operation(id: try OperationID(schema: message.operation, field: "operation"), result: [])
      ]
    }
    for condition in message.conditions {
      let digest = condition.acceptanceDigest.isEmpty ? nil : Digest32(bytes: condition.acceptanceDigest)
      guard condition.acceptanceDigest.isEmpty || digest != nil else { throw .invalid(field: "conditions") }
      self.conditions.append(
        Condition(
          try FileID(schema: condition.fileID, field: "conditions"), Version(condition.version),
          acceptanceDigest: digest))
    }
    self.records.reserveCapacity(message.records.count)
    for record in message.records {
      do throws(RecordError) { self.records.append(try InodeRecord(record)) } catch {
        throw .invalidRecord(try? FileID(record.fileID), error)
      }
    }
    for blocks in message.blocks {
      let file = try FileID(schema: blocks.fileID, field: "blocks.file_id")
      guard self.blocks.updateValue(try Blocks(blocks.blocks, sectorSize: sectorSize), forKey: file) == nil else {
        throw .invalid(field: "blocks")
      }
    }
    for file in message.removals { self.removals.append(try FileID(schema: file, field: "removals")) }
    for chain in message.chains {
      guard let chain = try? CertificateChain(chain.certificates.map { Array($0) }) else {
        throw .invalid(field: "chains")
      }
      self.chains.append(chain)
    }
  }

  private static func checkCounts(_ message: Blocktree_V1_CommitRequest) throws(SectorError) {
    let byteCount = message.blocks.reduce(0) { sum, blocks in
      sum + blocks.blocks.reduce(0) { $0 + $1.bytes.count }
    }
    let limits: [(String, Int, Int)] = [
      ("conditions", message.conditions.count, SectorLimits.commitRecordsMax),
      ("records", message.records.count, SectorLimits.commitRecordsMax),
      ("removals", message.removals.count, SectorLimits.commitRecordsMax),
      ("blocks", message.blocks.count, SectorLimits.commitRecordsMax),
      ("blocks", byteCount, SectorLimits.commitByteCountMax),
      ("chains", message.chains.count, SectorLimits.chainsMax),
      ("completed", message.completed.count, SectorLimits.completedMax),
      (
        "completed", message.completed.map(\.result.count).max() ?? 0,
        SectorLimits.completedResultByteCountMax
      ),
    ]
    for (what, found, limit) in limits where found > limit { throw .tooLarge(what, limit: limit, found: found) }
  }
}

extension Blocktree_V1_CommitRequest {
  /// The request of a filesystem service for a commit at another cluster; its operations are those that the commit
  /// completes for others.
  package init(_ commit: Commit) {
    self.init()
    self.conditions = commit.conditions.map { condition in
      .with {
        $0.fileID = condition.fileID.message
        $0.version = condition.version.rawValue
        if let digest = condition.acceptanceDigest { $0.acceptanceDigest = Data(digest.bytes) }
      }
    }
    self.records = commit.records.map(\.message)
    self.blocks = commit.blocks.sorted { $0.key < $1.key }.map { file, blocks in
      .with {
        $0.fileID = file.message
        $0.blocks = blocks.messages
      }
    }
    self.removals = commit.removals.map(\.message)
    self.chains = commit.chains.map { chain in .with { $0.certificates = chain.certificates.map { Data($0) } } }
    self.completed = commit.operations.map { operation in
      .with {
        $0.operation = operation.id.message
        $0.result = Data(operation.result)
      }
    }
  }
}

extension CommitOutcome {
  /// What another cluster has answered to a commit. Nothing of it is verified: the acceptances are, with the records,
  /// by whoever reads these. The result of an operation that had been applied before is not in it: `FindOperation`
  /// tells.
  ///
  /// - Throws: `invalid` when the answer does not fit the commit.
  package init(_ message: Blocktree_V1_CommitResponse, to commit: Commit) throws(SectorError) {
    if message.repeatedAnswer {
      self = .repeated([])
      return
    }
    guard message.acceptances.count == commit.records.count else { throw .invalid(field: "acceptances") }
    var records = commit.records
    var digests: [UInt8] = []
    for (index, acceptance) in message.acceptances.enumerated() {
      do throws(RecordError) { records[index].acceptance = try Acceptance(acceptance) } catch {
        throw .invalid(field: "acceptances")
      }
      digests += records[index].acceptanceDigest.bytes
    }
    var members: [TreePath] = []
    for member in message.receipt.members {
      guard let path = try? TreePath(parsing: member) else { throw .invalid(field: "receipt.members") }
      members.append(path)
    }
    self = .applied(
      CommitReceipt(
        records: records, logIndex: message.logIndex, members: members,
        acceptancesDigest: Digest32(sha256: digests)))
  }
}

extension Commit.Blocks {
  /// In order: sectors, then the levels of the tree.
  fileprivate var messages: [Blocktree_V1_Block] {
    var messages: [Blocktree_V1_Block] = []
    for run in self.runs where !run.digests.isEmpty {
      let sectorSize = run.bytes.count / run.digests.count
      for number in run.digests.indices {
        let start = run.bytes.startIndex + number * sectorSize
        messages.append(
          .with {
            $0.index = run.start + UInt64(number)
            $0.bytes = Data(run.bytes[start..<start + sectorSize])
          })
      }
    }
    for (key, bytes) in self.nodes.sorted(by: { $0.key < $1.key }) {
      messages.append(
        .with {
          $0.level = UInt32(key.level)
          $0.index = key.index
          $0.bytes = Data(bytes)
        })
    }
    return messages
  }

  /// Neighbouring sectors become one run.
  init(_ messages: [Blocktree_V1_Block], sectorSize: Int) throws(SectorError) {
    self.init()
    var sectors: [(index: UInt64, bytes: Data)] = []
    for block in messages {
      switch block.level {
      case 0:
        guard block.bytes.count == sectorSize, block.index < TreeShape.fileByteCountMax / UInt64(sectorSize) else {
          throw .invalid(field: "blocks")
        }
        sectors.append((block.index, block.bytes))
      case 1...UInt32(TreeShape.levelsMax):
        let key = NodeKey(level: Int(block.level), index: block.index)
        guard block.bytes.count == TreeShape.nodeByteCount,
          self.nodes.updateValue(Array(block.bytes), forKey: key) == nil
        else { throw .invalid(field: "blocks") }
      default: throw .invalid(field: "blocks")
      }
    }
    sectors.sort { $0.index < $1.index }
    var rest = sectors[...]
    while let first = rest.first {
      var end = rest.startIndex + 1
      while end < rest.endIndex, rest[end].index == rest[end - 1].index + 1 { end += 1 }
      var bytes: [UInt8] = []
      bytes.reserveCapacity((end - rest.startIndex) * sectorSize)
      for sector in rest[..<end] { bytes.append(contentsOf: sector.bytes) }
      self.runs.append(SealedRun(start: first.index, bytes: bytes, sectorSize: sectorSize))
      rest = rest[end...]
    }
  }
}

extension FileID {
  init(schema message: Blocktree_V1_FileId, field: String) throws(SectorError) {
    do throws(RecordError) { try self.init(message) } catch { throw .invalid(field: field) }
  }
}

extension OperationID {
  init(schema message: Blocktree_V1_OperationId, field: String) throws(SectorError) {
    do throws(RecordError) { try self.init(message) } catch { throw .invalid(field: field) }
  }
}

extension Blocktree_V1_CommitResponse {
  /// The receipt of a commit that was applied.
  ///
  /// - Parameters:
  ///   - signature: over the receipt; nil when the commit changed no record.
  ///   - signer: the digest of the leader's certificate chain.
  init(_ receipt: CommitReceipt, operation: OperationID?, signature: BatchSignature?, signer: Digest32) {
    self.init()
    if let operation { self.operation = operation.message }
    self.acceptances = receipt.records.compactMap { $0.acceptance?.message }
    self.logIndex = receipt.logIndex
    self.receipt.members = receipt.members.map(\.description)
    if let signature {
      self.receipt.signature = signature.message
      self.receipt.signer = Data(signer.bytes)
    }
  }

  /// The answer to an operation that had been applied before.
  init(repeating operation: OperationID?) {
    self.init()
    if let operation { self.operation = operation.message }
    self.repeatedAnswer = true
  }
}
