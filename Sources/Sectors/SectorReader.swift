// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Foundation
internal import Inodes
internal import SectorStore
internal import SwiftProtobuf
internal import Trust

/// Answers what a principal asks of a group, within its permissions.
struct SectorReader: Sendable {
  let group: SectorGroup
  let caller: Credential

  // MARK: Permission

  private func permits(_ wanted: Permission, _ record: InodeRecord) -> Bool {
    record.attributes.part.rules.permits(wanted, caller: .principal(self.caller.path), memberOf: { _ in false })
  }

  /// Whether the caller may read everything of an inode, whatever its rules say: it is a member, or a filesystem
  /// service at or above it.
  private func isPrivileged(_ record: InodeRecord?) async throws(SectorError) -> Bool {
    if self.group.isMember(self.caller) { return true }
    guard let directory = self.group.filesystemDirectory(of: self.caller) else { return false }
    if directory == self.group.home.directory { return true }
    // Where nothing is, nothing is below.
    guard let record else { return false }
    return try await self.group.isAtOrAbove(directory, record)
  }

  /// Whether the caller may read a record: with any permission at all.
  private func maySee(_ file: FileID, _ record: InodeRecord?) async throws(SectorError) -> Bool {
    if file.inode == .superblock { return true }
    if let record {
      if record.attributes.part.type == .credential { return true }
      if record.attributes.part.rules.owner == self.caller.path { return true }
      // It may have to hand it to its own cluster.
      if self.group.hostDirectory(of: self.caller) == file { return true }
      if [Permission.read, .write, .execute].contains(where: { self.permits($0, record) }) { return true }
      if try await self.holdsReadcap(record) { return true }
      // A process checks the permissions of all that lies above its own directory.
      if record.attributes.part.type == .directory, try await self.group.isProcess(self.caller, atOrBelow: file) {
        return true
      }
    }
    return try await self.isPrivileged(record)
  }

  /// Whether the caller has the key of an inode by a readcap of its own, or of a directory above it that is stored here.
  private func holdsReadcap(_ record: InodeRecord) async throws(SectorError) -> Bool {
    var queue = [record]
    var seen: Set<FileID> = []
    while let next = queue.popLast() {
      if next.attributes.part.readcaps.contains(where: { $0.principal == self.caller.path }) { return true }
      // The key of what is cut off is not known to whoever has that of a directory above.
      if next.attributes.part.isCutOff { continue }
      for parent in CommitPolicy.directories(of: next) where parent.generation == self.group.generation {
        guard seen.count < SectorLimits.ancestorsMax, seen.insert(parent).inserted,
          let above = try await self.group.storedRecord(parent)
        else { continue }
        queue.append(above)
      }
      // What is stored above counts as far as it is known here.
      if CommitPolicy.directories(of: next).contains(self.group.home.directory),
        self.group.isHomeReader(self.caller.path)
      {
        return true
      }
    }
    return false
  }

  // MARK: Records, certificates, inode numbers

  func records(
    _ request: Blocktree_V1_ReadRecordsRequest
  ) async throws(SectorError) -> Blocktree_V1_ReadRecordsResponse {
    let found = request.fileIds.count
    guard found <= SectorLimits.readRecordsMax else {
      throw .tooLarge("file_ids", limit: SectorLimits.readRecordsMax, found: found)
    }
    var files: [FileID] = []
    for file in request.fileIds { files.append(try FileID(schema: file, field: "file_ids")) }
    let records = try await self.group.records(files)
    var response = Blocktree_V1_ReadRecordsResponse()
    response.records.reserveCapacity(files.count)
    var byteCount = 0
    for (file, record) in zip(files, records) {
      guard try await self.maySee(file, record) else { throw .permissionDenied }
      byteCount += record?.byteCountEstimate ?? 0
      guard byteCount <= SectorLimits.readRecordsByteCountMax || files.count == 1 else {
        throw .tooLarge("record bytes", limit: SectorLimits.readRecordsByteCountMax, found: byteCount)
      }
      response.records.append(record?.message ?? .with { $0.fileID = file.message })
    }
    return response
  }

  func certificates(
    _ request: Blocktree_V1_ReadCertificatesRequest
  ) async throws(SectorError) -> Blocktree_V1_ReadCertificatesResponse {
    let found = request.digests.count
    guard found <= SectorLimits.chainsMax else {
      throw .tooLarge("digests", limit: SectorLimits.chainsMax, found: found)
    }
    var response = Blocktree_V1_ReadCertificatesResponse()
    for digest in request.digests {
      guard let digest = Digest32(bytes: digest) else { throw .invalid(field: "digests") }
      let chain = try await self.group.chain(digest)
      response.chains.append(.with { $0.certificates = chain?.certificates.map { Data($0) } ?? [] })
    }
    return response
  }

  func allocate(
    _ request: Blocktree_V1_AllocateInodesRequest
  ) async throws(SectorError) -> Blocktree_V1_AllocateInodesResponse {
    let first = try await self.group.allocateInodes(request.count)
    return .with {
      $0.first = first
      $0.count = request.count
      $0.generation = self.group.generation.rawValue
    }
  }

  // MARK: Sectors

  /// Neighbouring blocks that go into one message.
  struct Piece: Sendable {
    let level: Int
    let indexes: Range<UInt64>
  }

  /// A version that is being read, and is kept until this is let go.
  struct Reading: Sendable {
    fileprivate let group: SectorGroup
    fileprivate let file: FileID
    fileprivate let pin: Pin
    let pieces: [Piece]

    func read(_ piece: Piece) async throws(SectorError) -> Blocktree_V1_ReadSectorsResponse {
      var response = Blocktree_V1_ReadSectorsResponse()
      try await self.read(piece, into: &response)
      return response
    }

    /// Everything in one message.
    func readAll() async throws(SectorError) -> Blocktree_V1_ReadSectorsResponse {
      var response = Blocktree_V1_ReadSectorsResponse()
      for piece in self.pieces { try await self.read(piece, into: &response) }
      return response
    }

    private func read(
      _ piece: Piece, into response: inout Blocktree_V1_ReadSectorsResponse
    ) async throws(SectorError) {
      let range = try await self.group.read(
        self.file, level: piece.level, indexes: piece.indexes, version: Version(self.pin.version))
      self.group.noteSent(sealed: range.bytes.count)
      response.version = range.version
      response.blocks.reserveCapacity(response.blocks.count + piece.indexes.count)
      for index in piece.indexes {
        response.blocks.append(
          .with {
            $0.level = UInt32(piece.level)
            $0.index = index
            if let bytes = range[index] { $0.bytes = Data(bytes) }
          })
      }
    }
  }

  /// Checks a request, and keeps the version that it is about.
  func open(_ request: Blocktree_V1_ReadSectorsRequest) async throws(SectorError) -> Reading {
    let file = try FileID(schema: request.fileID, field: "file_id")
    let pieces = try self.pieces(of: request)
    let record = try await self.group.record(file)
    // A writer needs the tree, though not the sectors, to change a part of the file.
    let wanted: [Permission] = pieces.contains { $0.level == 0 } ? [.read] : [.read, .write]
    var isPermitted = record.map { record in wanted.contains { self.permits($0, record) } } ?? false
    if !isPermitted, let record { isPermitted = try await self.holdsReadcap(record) }
    if !isPermitted {
      guard try await self.isPrivileged(record) else { throw .permissionDenied }
      guard record != nil else { throw .notFound(file) }
    }
    let version = request.version == 0 ? nil : Version(request.version)
    return Reading(group: self.group, file: file, pin: try self.group.pin(file, version: version), pieces: pieces)
  }

  /// Cuts the runs into pieces of one message each.
  private func pieces(of request: Blocktree_V1_ReadSectorsRequest) throws(SectorError) -> [Piece] {
    guard !request.runs.isEmpty else { throw .invalid(field: "runs") }
    guard request.runs.count <= SectorLimits.readRunsMax else {
      throw .tooLarge("runs", limit: SectorLimits.readRunsMax, found: request.runs.count)
    }
    let total = Self.blockCount(of: request)
    guard total <= SectorLimits.readSectorsMax else {
      throw .tooLarge("runs", limit: SectorLimits.readSectorsMax, found: total)
    }
    var pieces: [Piece] = []
    for run in request.runs {
      let indexMax = TreeShape.fileByteCountMax / UInt64(self.group.sectorSize)
      guard run.count > 0, run.level <= UInt32(TreeShape.levelsMax), run.start <= indexMax else {
        throw .invalid(field: "runs")
      }
      let blockSize = self.group.blockSize(level: Int(run.level))
      // The rest of a message are a few bytes for each block.
      let step = UInt64(max(1, (SectorLimits.messageByteCount - 64) / (blockSize + 32)))
      let end = run.start + UInt64(run.count)
      var start = run.start
      while start < end {
        let next = min(start + step, end)
        pieces.append(Piece(level: Int(run.level), indexes: start..<next))
        start = next
      }
    }
    return pieces
  }

  private static func blockCount(of request: Blocktree_V1_ReadSectorsRequest) -> Int {
    request.runs.reduce(0) { min($0 + Int($1.count), 1 << 40) }
  }

  /// The bytes of the blocks that a request asks for.
  func byteCount(of request: Blocktree_V1_ReadSectorsRequest) -> Int {
    // Counts are the client's word, which may add up to more than a number holds.
    request.runs.reduce(0) { sum, run in
      let count = min(Int(run.count), SectorLimits.readSectorsMax)
      return min(sum + count * self.group.blockSize(level: run.level == 0 ? 0 : 1), 1 << 40)
    }
  }
}

extension SectorGroup {
  func blockSize(level: Int) -> Int { level == 0 ? self.sectorSize : TreeShape.nodeByteCount }
}

extension InodeRecord {
  /// About what the record takes in a message.
  fileprivate var byteCountEstimate: Int {
    self.content.body.count + self.attributes.body.count + self.links.body.count + self.credential.count + 512
  }
}
