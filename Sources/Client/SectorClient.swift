// SPDX-License-Identifier: Apache-2.0

public import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// The calls of the sector service, which stores sealed sectors and signed records: for programs that verify or decrypt
/// themselves, and for tools that look at what is stored. Its messages are those of the schema.
public struct SectorClient: Sendable {
  let cluster: ClusterCore
  /// For each call.
  public var timeout: Duration?

  /// Reads the records of up to 256 inodes, as of one moment, in the order asked for. One that does not exist has
  /// version 0.
  public func readRecords(_ files: [FileID]) async throws -> [Blocktree_V1_InodeRecord] {
    let request = Blocktree_V1_ReadRecordsRequest.with { $0.fileIds = files.map(\.message) }
    let records = try await self.call { connection, options in
      try await connection.sectors.readRecords(request, options: options).records
    }
    guard records.count == files.count else { throw BlocktreeError.malformedAnswer("records") }
    return records
  }

  /// Reads runs of sealed sectors or tree nodes of one version, in order, in messages of at most 128 KiB.
  ///
  /// - Parameters:
  ///   - version: 0 for the current one.
  ///   - body: takes the messages as they come.
  public func readSectors<Result: Sendable>(
    _ file: FileID, version: UInt64 = 0, runs: [Blocktree_V1_SectorRun],
    _ body: @Sendable @escaping (SectorBlocks) async throws -> Result
  ) async throws -> Result {
    let request = Blocktree_V1_ReadSectorsRequest.with {
      $0.fileID = file.message
      $0.version = version
      $0.runs = runs
    }
    let hasBegun = Flag()
    return try await self.cluster.call(timeout: nil, isReplayable: { !hasBegun.isSet }) { connection, options in
      try await connection.sectors.readSectors(request, options: options) { response in
        let blocks = SectorBlocks(messages: response.messages.makeAsyncIterator())
        hasBegun.set()
        return try await body(blocks)
      }
    }
  }

  /// Reads certificate chains by the digests that records name them by, at most 64, in the order asked for. One that is
  /// not known is empty.
  public func readCertificates(_ digests: [[UInt8]]) async throws -> [Blocktree_V1_CertificateChain] {
    let request = Blocktree_V1_ReadCertificatesRequest.with { $0.digests = digests.map { Data($0) } }
    let chains = try await self.call { connection, options in
      try await connection.sectors.readCertificates(request, options: options).chains
    }
    guard chains.count == digests.count else { throw BlocktreeError.malformedAnswer("chains") }
    return chains
  }

  /// Opens a session for commits: 16 bytes for their operation ids.
  public func openSession() async throws -> [UInt8] {
    try await self.call { connection, options in
      Array(try await connection.sectors.openSession(.init(), options: options).session)
    }
  }

  /// Hands out inode numbers that will never be handed out again.
  public func allocateInodes(_ count: Int) async throws -> Blocktree_V1_AllocateInodesResponse {
    let request = Blocktree_V1_AllocateInodesRequest.with { $0.count = UInt32(clamping: count) }
    return try await self.call { connection, options in
      try await connection.sectors.allocateInodes(request, options: options)
    }
  }

  /// Performs one commit of at most 4 MiB. It is repeated when its answer was lost, if it has an operation id.
  public func commit(_ request: Blocktree_V1_CommitRequest) async throws -> Blocktree_V1_CommitResponse {
    try await self.call(isRepeatable: request.hasOperation) { connection, options in
      try await connection.sectors.commit(request, options: options)
    }
  }

  /// How the service is.
  public func status() async throws -> Blocktree_V1_SectorServiceStatusResponse {
    try await self.call { connection, options in
      try await connection.sectors.status(.init(), options: options)
    }
  }

  private func call<Result>(
    isRepeatable: Bool = true, _ body: (NodeConnection, CallOptions) async throws -> Result
  ) async throws -> Result {
    try await self.cluster.call(timeout: self.timeout, isRepeatable: { isRepeatable }, body)
  }
}

/// Sealed sectors and tree nodes on their way from a process. Can be iterated once.
public struct SectorBlocks: AsyncSequence, AsyncIteratorProtocol {
  public typealias Element = Blocktree_V1_ReadSectorsResponse

  var messages: RPCAsyncSequence<Blocktree_V1_ReadSectorsResponse, any Error>.AsyncIterator

  public func makeAsyncIterator() -> SectorBlocks { self }

  public mutating func next() async throws -> Blocktree_V1_ReadSectorsResponse? {
    do {
      return try await self.messages.next(isolation: #isolation)
    } catch {
      throw try BlocktreeError(thrown: error)
    }
  }
}

extension Client {
  /// The sector service's calls, at the cluster of the profile's first process.
  public var sectors: SectorClient { SectorClient(cluster: self.core.home, timeout: self.timeout) }

  /// The sector service's calls, at the cluster that stores a file.
  ///
  /// - Parameters:
  ///   - file: at `path`, as `stat` says.
  ///   - path: no link on the way to it leads to another cluster.
  public func sectors(storing file: FileID, at path: String) async throws -> SectorClient {
    guard let parsed = try? TreePath(parsing: try self.treePath(path)) else {
      throw BlocktreeError.invalidPath("malformed", path: path)
    }
    if try await self.sectors.status().generation == file.generation { return self.sectors }
    // What is in a directory is stored by whoever serves it, credentials of its own processes by whoever is above.
    var place = parsed.parent ?? .root
    while true {
      let (cluster, directory) = try await self.sectorCluster(serving: place)
      let sectors = SectorClient(cluster: cluster, timeout: self.timeout)
      if try await sectors.status().generation == file.generation { return sectors }
      guard let above = directory.parent else {
        throw BlocktreeError(
          code: .failedPrecondition, reason: .wrongGeneration, message: "No cluster on the way to the file stores it.",
          metadata: ["file": "\(file)", "path": path])
      }
      place = above
    }
  }
}
