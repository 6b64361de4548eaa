// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Crypto
import Foundation
import GRPCCore
import Inodes
import SwiftProtobuf
import Synchronization
import Testing
import Trust

/// What the processes of one directory store: records signed as real ones are, and sealed sectors. It can be told to
/// lie.
final class SealedStore: Sendable {
  struct State {
    var records: [Inodes.FileID: InodeRecord] = [:]
    var blocks: [Inodes.FileID: [Key: [UInt8]]] = [:]
    /// Changes what is handed out.
    var lie: (@Sendable (inout Blocktree_V1_Block) -> Void)?
    var recordLie: (@Sendable (inout Blocktree_V1_InodeRecord) -> Void)?
    /// How many more calls for sectors break off after their first message.
    var breakCount = 0
    /// Whether versions are not kept any more.
    var isGone = false
    /// How often sectors were asked for.
    var readCount = 0
    /// The most blocks that were asked for at once.
    var blockCountMax = 0
  }

  struct Key: Hashable {
    var level: Int
    var index: UInt64
  }

  static let sectorSize = 4_096

  let domain: TestDomain
  let generation: UInt64
  let state = Mutex(State())
  /// Of a process in the directory, whose word is that of the cluster.
  private let member: (keys: PrincipalKeys, chain: CertificateChain)
  private let writer: (keys: PrincipalKeys, chain: CertificateChain)

  /// - Parameters:
  ///   - directory: that the processes' credentials lie in.
  ///   - acceptor: in whose name records are accepted, if it is not one of these processes.
  init(of domain: TestDomain, generation: UInt64 = 1, in directory: String = "/", acceptor: String? = nil) throws {
    self.domain = domain
    self.generation = generation
    let (memberKeys, writerKeys) = (PrincipalKeys(), PrincipalKeys())
    let path = acceptor ?? (directory == "/" ? "" : directory) + "/node1"
    self.member = (memberKeys, try domain.credential(.process, path, keys: memberKeys).chain)
    self.writer = (writerKeys, try domain.credential(.user, "/writer", keys: writerKeys).chain)
  }

  func file(_ inode: UInt64) -> Inodes.FileID {
    Inodes.FileID(generation: Generation(self.generation), inode: InodeNumber(inode))
  }

  /// Who is given a key.
  struct Reader {
    var path: String
    var key: AgreementPublicKey
  }

  /// Stores an inode.
  ///
  /// - Parameters:
  ///   - holes: sectors that were never written.
  ///   - earlier: sectors that are still sealed under a former key, the next of which is `key`.
  func put(
    _ inode: UInt64, _ type: Inodes.FileType, _ plain: [UInt8], key: FileKey, readers: [Reader] = [],
    holes: Set<UInt64> = [], earlier: (key: FileKey, sectors: Set<UInt64>)? = nil, served: UInt64? = nil,
    isCutOff: Bool = false
  ) throws {
    let file = self.file(inode)
    let contentID = (0..<16).map { _ in UInt8.random(in: .min ... .max) }
    var content = ContentPart(
      fileID: file, version: 1, size: UInt64(plain.count), sectorSize: Self.sectorSize, contentID: contentID,
      keyEpoch: earlier?.key.epoch ?? key.epoch, modified: 1)
    if type == .directory { content.directoryFormat = DirectorySector.format }
    var blocks: [Key: [UInt8]] = [:]
    if type == .symbolicLink {
      content.inlineContent = try SectorCipher(key: key, contentID: contentID).seal(plain, as: .inlineContent)
    } else {
      var tree = IntegrityTree()
      try tree.resize(to: content.sectorCount)
      for index in 0..<content.sectorCount where !holes.contains(index) {
        let start = Int(index) * Self.sectorSize
        let old = earlier.flatMap { $0.sectors.contains(index) ? $0.key : nil }
        let cipher = SectorCipher(key: old ?? key, contentID: contentID)
        let (leaves, run) = try cipher.seal(
          plain[start..<min(start + Self.sectorSize, plain.count)], from: index, sectorSize: Self.sectorSize)
        try tree.set(leaves[0], at: index)
        blocks[Key(level: 0, index: index)] = run.bytes
      }
      for node in tree.seal() { blocks[Key(level: node.key.level, index: node.key.index)] = node.bytes }
      content.leaves = tree.recordLeaves
      content.integrityRoot = tree.levels == 0 ? .zero : tree.root
      content.treeLevels = tree.levels
    }
    if let earlier { try content.beginEpoch(from: earlier.key, to: key) }
    var attributes = AttributesPart(
      fileID: file, version: 1, type: type,
      rules: AccessRules(owner: try TreePath(parsing: "/writer"), group: .root, mode: Mode(truncating: 0o640)),
      changed: 1, created: 1)
    attributes.readcaps = try readers.map { reader in
      let path = try TreePath(parsing: reader.path)
      let context = ReadcapContext(
        domain: self.domain.authority.root.domain, generation: self.generation, inode: inode, epoch: key.epoch,
        recipient: path)
      let seal = try ReadcapSeal.seal(SymmetricKey(data: key.bytes), to: reader.key, context: context)
      return Readcap(
        principal: path, keyID: Digest32(sha256: reader.key.x963Representation), epoch: key.epoch,
        sealedKey: seal.bytes)
    }
    attributes.servedByGeneration = served.map { Generation($0) }
    attributes.isCutOff = isCutOff
    let links = LinksPart(fileID: file, version: 1, count: 1, parents: [])
    let signer = RecordSigner(key: self.writer.keys.signing, chainDigest: self.writer.chain.digest)
    var record = InodeRecord(
      fileID: file, version: 1, content: try signer.sign(content), attributes: try signer.sign(attributes),
      links: try signer.sign(links))
    record.acceptance = Acceptance(
      signature: try self.member.keys.signing.sign(record.acceptanceDigest, purpose: .acceptance),
      signer: self.member.chain.digest, accepted: Int64(Date.now.timeIntervalSince1970 * 1e9))
    let (stored, sealed) = (record, blocks)
    self.state.withLock { state in
      state.records[file] = stored
      state.blocks[file] = sealed
    }
  }

  /// Stores a directory.
  func put(_ inode: UInt64, entries: [Inodes.DirectoryEntry], key: FileKey, readers: [Reader] = []) throws {
    // One to a sector, so that there are several.
    let plain = try entries.flatMap { try DirectorySector.encode([$0], sectorSize: Self.sectorSize) }
    try self.put(inode, .directory, plain, key: key, readers: readers)
  }

  /// What a filesystem service says of an inode.
  func info(_ inode: UInt64) throws -> Blocktree_V1_FileInfo {
    let record = try #require(self.state.withLock { $0.records[self.file(inode)] })
    return .with {
      $0.fileID = record.fileID.message
      $0.type = record.attributes.part.type.message
      $0.version = 1
      $0.readcaps = record.attributes.part.readcaps.map { "\($0.principal)" }
    }
  }

  func chains(_ digests: [Data]) -> [Blocktree_V1_CertificateChain] {
    let known = [self.member.chain, self.writer.chain]
    return digests.map { digest in
      .with { message in
        let chain = known.first { Array(digest) == $0.digest.bytes }
        message.certificates = chain?.certificates.map { Data($0) } ?? []
      }
    }
  }
}

/// The sector service of a member: what those call that only read.
struct TestSectors: Blocktree_V1_SectorService.SimpleServiceProtocol {
  let cluster: TestCluster
  let index: Int

  private var unimplemented: RPCError { RPCError(code: .unimplemented, message: "not in these tests") }

  private func store() throws -> SealedStore {
    guard let store = self.cluster.state.withLock({ $0.sealed }) else { throw self.unimplemented }
    return store
  }

  func status(
    request: Blocktree_V1_SectorServiceStatusRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SectorServiceStatusResponse {
    let store = try self.store()
    return .with { $0.generation = store.generation }
  }

  func readRecords(
    request: Blocktree_V1_ReadRecordsRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadRecordsResponse {
    let store = try self.store()
    let records = try request.fileIds.map { message in
      let (record, lie) = try store.state.withLock { state in
        (state.records[try Inodes.FileID(message)], state.recordLie)
      }
      var answer = record?.message ?? .with { $0.fileID = message }
      lie?(&answer)
      return answer
    }
    return .with { $0.records = records }
  }

  func readSectors(
    request: Blocktree_V1_ReadSectorsRequest, response: RPCWriter<Blocktree_V1_ReadSectorsResponse>,
    context: ServerContext
  ) async throws {
    let store = try self.store()
    let file = try Inodes.FileID(request.fileID)
    let wanted = request.runs.flatMap { run in
      (run.start..<run.start + UInt64(run.count)).map { SealedStore.Key(level: Int(run.level), index: $0) }
    }
    if store.state.withLock({ $0.isGone }) { throw Declined(reason: "VERSION_GONE", code: .aborted) }
    let (blocks, lie, breaks) = store.state.withLock { state in
      state.readCount += 1
      state.blockCountMax = max(state.blockCountMax, wanted.count)
      let breaks = state.breakCount > 0
      state.breakCount = max(0, state.breakCount - 1)
      return (state.blocks[file] ?? [:], state.lie, breaks)
    }
    for key in wanted {
      var block = Blocktree_V1_Block()
      block.level = UInt32(key.level)
      block.index = key.index
      block.bytes = Data(blocks[key] ?? [])
      lie?(&block)
      let answer = block
      try await response.write(.with { $0.blocks = [answer] })
      if breaks { try await self.cluster.die(self.index) }
    }
  }

  func readCertificates(
    request: Blocktree_V1_ReadCertificatesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadCertificatesResponse {
    let store = try self.store()
    return .with { $0.chains = store.chains(request.digests) }
  }

  func openSession(
    request: Blocktree_V1_SectorServiceOpenSessionRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SectorServiceOpenSessionResponse { throw self.unimplemented }

  func findOperation(
    request: Blocktree_V1_FindOperationRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FindOperationResponse { throw self.unimplemented }

  func allocateGeneration(
    request: Blocktree_V1_AllocateGenerationRequest, context: ServerContext
  ) async throws -> Blocktree_V1_AllocateGenerationResponse { throw self.unimplemented }

  func setFreeze(
    request: Blocktree_V1_SetFreezeRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SetFreezeResponse { throw self.unimplemented }

  func findCredentials(
    request: Blocktree_V1_FindCredentialsRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FindCredentialsResponse { throw self.unimplemented }

  func allocateInodes(
    request: Blocktree_V1_AllocateInodesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_AllocateInodesResponse { throw self.unimplemented }

  func commit(
    request: Blocktree_V1_CommitRequest, context: ServerContext
  ) async throws -> Blocktree_V1_CommitResponse { throw self.unimplemented }

  func session(
    request: RPCAsyncSequence<Blocktree_V1_SectorServiceSessionRequest, any Error>,
    response: RPCWriter<Blocktree_V1_SectorServiceSessionResponse>, context: ServerContext
  ) async throws { throw self.unimplemented }
}
