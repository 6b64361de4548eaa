// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Foundation
internal import GRPCCore
internal import Inodes
internal import SwiftProtobuf
internal import Synchronization
internal import Transport
internal import Trust

/// Commits and reads of single sectors, on one connection to the sector service.
struct SectorLoads: Sendable {
  /// Who commits.
  let principal: (credential: Credential, key: SigningKey)
  let connection: NodeConnection
  /// New inodes are to get their names in here.
  let directory: FileID
  let scale: Scale

  /// Larger messages make streams slow.
  private static let operationsPerMessage = 20
  /// The most that the service hands out at once.
  private static let inodesPerLoad: UInt32 = 65_536

  private var service: some Blocktree_V1_SectorService.ClientProtocol {
    Blocktree_V1_SectorService.Client(wrapping: self.connection.client)
  }

  // MARK: Commits

  func commits(_ figures: inout Figures) async throws {
    for inFlight in [1, 16, 64, 256] {
      let load = Load(inFlight: inFlight, duration: self.scale.loadDuration)
      figures.add("commit.unary.\(inFlight)", try await self.commitCalls(load), "commits/s")
    }
    for inFlight in [1, 16, 64, 256] {
      let load = Load(inFlight: inFlight, duration: self.scale.loadDuration)
      figures.add("commit.stream.\(inFlight)", try await self.commitSession(load).rate, "commits/s")
    }
  }

  private func commitCalls(_ load: Load) async throws -> Double {
    let writer = Mutex(try await self.writer(Self.inodesPerLoad))
    return try await self.connection.onEventLoop {
      try await load.calls {
        guard let commit = try writer.withLock({ try $0.commits(1) }).first else { return false }
        try Self.check(try await self.service.commit(commit.request), isAnswerTo: commit.request)
        return true
      }
    }
  }

  /// Returns what was committed, too.
  private func commitSession(
    _ load: Load, inodeCount: UInt32 = Self.inodesPerLoad
  ) async throws -> (rate: Double, sectors: [SectorWriter.SealedSector]) {
    let writer = Mutex(try await self.writer(inodeCount))
    let sectors = Mutex<[SectorWriter.SealedSector]>([])
    let rate = try await self.connection.onEventLoop {
      try await load.session(of: self.service) { free in
        let commits = try writer.withLock { try $0.commits(free) }
        sectors.withLock { $0 += commits.map(\.sector) }
        let operations = commits.map { commit in
          Blocktree_V1_SectorOperation.with {
            $0.id = commit.sector.file.inode.rawValue
            $0.commit = commit.request
          }
        }
        return Self.messages(operations)
      } take: { result in
        guard case .commit(let response)? = result.result, response.acceptances.count == 1 else {
          throw BenchFailure("a commit failed: \(result)")
        }
      }
    }
    return (rate, sectors.withLock { $0 })
  }

  private func writer(_ inodeCount: UInt32) async throws -> SectorWriter {
    let session = try await self.service.openSession(.init())
    let block = try await self.service.allocateInodes(.with { $0.count = inodeCount })
    let status = try await self.service.status(.init())
    return SectorWriter(
      self.principal, directory: self.directory, sectorSize: Int(status.superblock.sectorSize),
      session: Array(session.session), inodes: block.first..<block.first + UInt64(block.count))
  }

  static func check(
    _ response: Blocktree_V1_CommitResponse, isAnswerTo request: Blocktree_V1_CommitRequest
  ) throws {
    guard response.acceptances.count == request.records.count, response.operation == request.operation else {
      throw BenchFailure("a commit was answered with \(response)")
    }
  }

  // MARK: Reads

  func reads(_ figures: inout Figures) async throws {
    let filling = Load(inFlight: 64, duration: nil)
    let sectors = try await self.commitSession(filling, inodeCount: UInt32(self.scale.readInodeCount)).sectors
    guard !sectors.isEmpty else { throw BenchFailure("there is nothing to read") }
    for inFlight in [1, 16, 64] {
      let load = Load(inFlight: inFlight, duration: self.scale.loadDuration)
      figures.add("read.unary.\(inFlight)", try await self.readCalls(load, sectors), "reads/s")
    }
    for inFlight in [1, 16, 64] {
      let load = Load(inFlight: inFlight, duration: self.scale.loadDuration)
      figures.add("read.stream.\(inFlight)", try await self.readSession(load, sectors), "reads/s")
    }
  }

  private func readCalls(_ load: Load, _ sectors: [SectorWriter.SealedSector]) async throws -> Double {
    try await self.connection.onEventLoop {
      try await load.calls {
        let index = Int.random(in: sectors.indices)
        let blocks = try await self.service.readSectors(Self.request(sectors[index])) { response in
          var blocks: [Blocktree_V1_Block] = []
          for try await message in response.messages { blocks += message.blocks }
          return blocks
        }
        try Self.check(blocks, are: sectors[index])
        return true
      }
    }
  }

  private func readSession(_ load: Load, _ sectors: [SectorWriter.SealedSector]) async throws -> Double {
    try await self.connection.onEventLoop {
      try await load.session(of: self.service) { free in
        let operations = (0..<free).map { _ in
          let index = Int.random(in: sectors.indices)
          return Blocktree_V1_SectorOperation.with {
            $0.id = UInt64(index)
            $0.readSectors = Self.request(sectors[index])
          }
        }
        return [operations]
      } take: { result in
        guard case .readSectors(let response)? = result.result, sectors.indices.contains(Int(clamping: result.id))
        else {
          throw BenchFailure("a read failed: \(result)")
        }
        try Self.check(response.blocks, are: sectors[Int(clamping: result.id)])
      }
    }
  }

  static func request(_ sector: SectorWriter.SealedSector) -> Blocktree_V1_ReadSectorsRequest {
    .with {
      $0.fileID = sector.file.message
      $0.runs = [.with { $0.count = 1 }]
    }
  }

  /// As a reader does: bytes from a replica are worth nothing before they are verified.
  static func check(_ blocks: [Blocktree_V1_Block], are sector: SectorWriter.SealedSector) throws {
    guard blocks.count == 1, Digest32(sha256: blocks[0].bytes) == sector.digest else {
      throw BenchFailure("inode \(sector.file) was not read as it was written")
    }
  }

  private static func messages(_ operations: [Blocktree_V1_SectorOperation]) -> [[Blocktree_V1_SectorOperation]] {
    stride(from: 0, to: operations.count, by: self.operationsPerMessage).map {
      Array(operations[$0..<min($0 + self.operationsPerMessage, operations.count)])
    }
  }
}
