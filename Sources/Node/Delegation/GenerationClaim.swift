// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Filesystem
internal import Foundation
internal import Inodes
internal import Logging
internal import NIOPosix
internal import SectorStore
internal import Sectors
internal import SwiftProtobuf
internal import Trust

/// How a process with the sector mark in a delegated directory comes to its generation: that which serves the directory
/// already, or a new one, if it is the first.
///
/// The root's cluster gives it a number, it makes a store for that, and then has the directory say that this generation
/// serves it, which is a commit that only one can win. Who loses gives up its empty store and joins the winner's cluster;
/// its number stays unused. A crash at any point goes on from what the process's description says.
struct GenerationClaim: Sendable {
  let directory: NodeDirectory
  let identity: NodeDirectory.Identity
  let above: ClusterAbove
  let pool: NIOThreadPool
  let files: any FileLayer
  let logger: Logger

  /// The generation; what is needed to serve or join it is on the disk when this returns.
  func settle() async throws -> Generation {
    while true {
      let record = try await self.above.directory()
      if let generation = record.attributes.part.servedByGeneration {
        try self.conclude(generation)
        return generation
      }
      let generation = try await self.allocate()
      let volume = try await self.above.volume()
      try await self.makeStore(generation, sectorSize: volume.sectorSize)
      do {
        try await self.serve(record, by: generation, in: volume)
      } catch SectorError.conflict {
        continue
      }
    }
  }

  /// Asks for a number, with a claim that is on the disk first: the same claim gets the same number.
  private func allocate() async throws -> Generation {
    var description = try NodeDescription(readingFrom: self.directory.description)
    if let number = description.claimedGeneration { return Generation(number) }
    let claim: Data
    if let present = description.claim {
      claim = present
    } else {
      var random = SystemRandomNumberGenerator()
      claim = Data((0..<16).map { _ in UInt8.random(in: .min ... .max, using: &random) })
      description.claim = claim
      try description.write(to: self.directory.description)
    }
    let number = try await self.above.rootVolume().cluster.call(.read) { call in
      try await call.sectors.allocateGeneration(.with { $0.claim = claim }, options: call.options).generation
    }
    guard number > Generation.root.rawValue else { throw SectorError.malformedAnswer("generation") }
    description.claimedGeneration = number
    try description.write(to: self.directory.description)
    self.logger.notice("the root's cluster has given out a generation", metadata: ["generation": "\(number)"])
    return Generation(number)
  }

  /// Makes the store of a new cluster whose only member is this process, unless it is there already.
  private func makeStore(_ generation: Generation, sectorSize: Int) async throws {
    let path = self.directory.store(generation: generation.rawValue)
    if StorePlace(path, files: self.files).hasStore { return }
    let members = try await self.above.credentials(at: WallClock.date())
    guard members[self.identity.credential.path] != nil else {
      throw NodeError.wrongCredential("it is not in the tree any more")
    }
    let bootstrap = GroupBootstrap(home: self.above.home.group, members: members.values.sorted { $0.path < $1.path })
    let (files, identity) = (self.files, self.identity)
    // As a whole or not at all.
    try await OwnerFiles.create(path) { temporary in
      let configuration = StoreConfiguration(generation: generation.rawValue, sectorSize: sectorSize)
      let opened = try await self.pool.runIfActive {
        Result { () throws(StoreError) in
          try SectorStore.create(at: temporary, configuration, files: files)
          return try SectorStore.open(at: temporary, files: files)
        }
      }
      let store: SectorStore
      do throws(StoreError) { store = try opened.get() } catch { throw NodeError.store(path, error) }
      do {
        _ = try await SectorGroup(
          store: store, generation: generation, sectorSize: sectorSize,
          member: SectorGroup.Member(credential: identity.credential, key: identity.keys.signing),
          verifier: self.above.verifier, signatures: SignatureCache(), now: WallClock.nanoseconds,
          bootstrap: bootstrap)
      } catch {
        store.abandon()
        throw error
      }
      do throws(StoreError) { try await store.close() } catch { throw NodeError.store(path, error) }
    }
  }

  /// Has the directory say which generation serves it, if it is still as it was.
  private func serve(_ record: InodeRecord, by generation: Generation, in volume: RemoteVolume) async throws {
    let signer = RecordSigner(
      key: self.identity.keys.signing, chainDigest: self.identity.credential.chainDigest)
    var attributes = record.attributes.part
    attributes.version = record.version.next
    attributes.servedByGeneration = generation
    attributes.changed = WallClock.nanoseconds()
    attributes.actingFor = nil
    var commit = Commit()
    commit.records = [
      InodeRecord(
        fileID: record.fileID, version: record.version.next, content: record.content,
        attributes: try signer.sign(attributes), links: record.links, credential: record.credential)
    ]
    _ = try await volume.perform(commit, by: self.identity.credential)
  }

  private func conclude(_ generation: Generation) throws {
    var description = try NodeDescription(readingFrom: self.directory.description)
    if let claimed = description.claimedGeneration, claimed != generation.rawValue {
      // Nothing was ever stored in it.
      OwnerFiles.removeTree(self.directory.store(generation: claimed))
      self.logger.notice(
        "another process was first to serve the directory: joining its cluster",
        metadata: ["generation": "\(generation)"])
    }
    description.claimedGeneration = nil
    description.generation = generation.rawValue
    try description.write(to: self.directory.description)
  }
}
