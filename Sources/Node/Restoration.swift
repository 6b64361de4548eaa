// SPDX-License-Identifier: Apache-2.0

package import BlocktreeClient
internal import BlocktreeSchema
internal import FoundationEssentials
internal import Inodes
internal import Raft
internal import SectorStore
internal import Sectors
internal import SwiftProtobuf
package import Trust

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// Makes the store of a node out of a backup file, as the only member of its cluster.
///
/// The node's directory has keys and a credential, as `init` or `join` left them, and the backup has to know that
/// credential; there must be no store. The store gets its name when all of it is on the disk and has been checked, so
/// whatever happens before leaves the node without one.
///
/// What the cluster did after the backup is lost. The other processes of the cluster must not go on with the stores that
/// they had: they are members of another history. With the root principal's key the restored store begins another life
/// of the cluster, and they give up theirs when they meet it. Without the key nothing but a jump of the term keeps them
/// apart: their stores have to be moved away first. Without stores they join again by themselves.
package struct Restoration: Sendable {
  private let directory: NodeDirectory
  /// The root principal's key file; nil to stay in the life that the backup is of.
  private let rootKey: String?

  package struct Result: Sendable {
    /// What it was made of.
    package let backup: BackupSummary
    /// The process that is the cluster's only member now.
    package let process: TreePath
    /// The incarnation of the cluster that it begins; nil where it stays in the one that the backup is of.
    package let incarnation: UInt64?
  }

  /// Terms that the members left behind may have reached since the backup, with room to spare.
  private static let termGap: UInt64 = 1 << 32
  private static let termMax: UInt64 = 1 << 60

  /// - Parameter rootKey: the root principal's key file; nil to stay in the life that the backup is of.
  package init(_ directory: NodeDirectory, rootKey: String? = nil) {
    self.directory = directory
    self.rootKey = rootKey
  }

  /// - Parameter path: the backup file; `-` for standard input.
  package func run(backup path: String) async throws -> Result {
    let identity = try self.directory.identity(at: WallClock.date())
    let generation = try await self.generation(of: path, identity)
    let place = self.directory.store(generation: generation)
    let lock = try OwnerFiles.lock(directory: self.directory.path)
    defer { close(lock) }
    for taken in [place, place + ".incoming"] where OwnerFiles.exists(taken) {
      throw NodeError.restoring("\(taken) exists; stop the node and move it away first")
    }
    let warrants = WarrantFile(
      path: self.directory.warrant(generation: generation), root: identity.root, generation: generation)
    let rootKeys = try self.rootKeys()
    let temporary = place + ".restoring"
    OwnerFiles.removeTree(temporary)
    do {
      let (backup, term) = try await LocalFile.onThread {
        try Self.load(path, into: temporary, generation: generation, domain: identity.credential.domain)
      }
      let warrant = try await Self.refound(
        temporary, identity, term: term, known: try warrants.read(), key: rootKeys?.signing)
      guard rename(temporary, place) == 0 else { throw OwnerFiles.failure("rename", place) }
      try OwnerFiles.synchronize(directory: self.directory.path)
      try self.note(generation)
      return Result(backup: backup, process: identity.credential.path, incarnation: warrant?.incarnation)
    } catch {
      OwnerFiles.removeTree(temporary)
      throw Self.explained(error, path, place)
    }
  }

  /// The generation that the node belongs to. One of a delegated directory that never ran does not know yet: it takes the
  /// backup's, which has to know its credential.
  private func generation(of path: String, _ identity: NodeDirectory.Identity) async throws -> UInt64 {
    let description = try NodeDescription(readingFrom: self.directory.description)
    if let generation = description.generation { return generation }
    guard try NodeHome(description, of: identity.credential.path) != nil else { return 1 }
    // Standard input can be read only once.
    guard path != "-" else {
      throw NodeError.restoring("this node does not know its generation yet: give the backup as a file")
    }
    let generation = try await LocalFile.onThread { try BackupFileReader(path).header.generation }
    guard generation > Generation.root.rawValue else {
      throw NodeError.restoring(
        "\(path) is a backup of the root directory's cluster, which this node does not belong to")
    }
    return generation
  }

  /// Has the node know its generation the next time. Should that not come to pass, it is told by the cluster above.
  private func note(_ generation: UInt64) throws {
    var description = try NodeDescription(readingFrom: self.directory.description)
    guard description.generation == nil, generation != 1 else { return }
    (description.generation, description.claimedGeneration) = (generation, nil)
    try description.write(to: self.directory.description)
  }

  private func rootKeys() throws(NodeError) -> PrincipalKeys? {
    guard let rootKey else { return nil }
    do { return try KeyFile.load(from: rootKey) } catch { throw .keyFile(rootKey, error) }
  }

  /// Imports all of the file. Returns the term that the new cluster begins with.
  private static func load(
    _ path: String, into directory: String, generation: UInt64, domain: DomainID
  ) throws -> (backup: BackupSummary, term: UInt64) {
    let reader = try BackupFileReader(path)
    let header = reader.header
    guard Digest32(bytes: header.domain) == domain.digest else {
      throw NodeError.restoring("\(path) is a backup of another domain")
    }
    guard header.generation == generation else {
      throw NodeError.restoring("\(path) is a backup of generation \(header.generation), this node's is \(generation)")
    }
    // At random: whoever restores the same backup twice has two clusters.
    let term = header.term + Self.termGap + .random(in: 0..<Self.termGap)
    guard term <= Self.termMax else { throw NodeError.restoring("\(path) has a term that is too high") }
    let configuration = StoreConfiguration(generation: generation, sectorSize: Int(header.sectorSize))
    let snapshot = try SnapshotImport.begin(
      at: directory, configuration, index: LogIndex(header.index), term: header.term)
    defer { snapshot.close() }
    while let encoded = try reader.next() {
      var items: [SnapshotItem] = []
      for bytes in encoded {
        guard let item = SnapshotItem(encoded: bytes) else {
          throw NodeError.malformed(path, why: "an item is damaged")
        }
        items.append(item)
      }
      try snapshot.add(items)
    }
    // Only now: before its end, the file may still be damaged.
    guard let summary = reader.summary else { throw NodeError.malformed(path, why: "it has no end") }
    try snapshot.finish(hardState: LogHardState(term: term))
    return (summary, term)
  }

  /// - Parameters:
  ///   - known: the latest recovery that this process knows of.
  ///   - key: the root principal's; nil where it is not at hand.
  /// - Returns: what begins another life of the cluster; nil without the key.
  private static func refound(
    _ directory: String, _ identity: NodeDirectory.Identity, term: UInt64, known: RecoveryWarrant?, key: SigningKey?
  ) async throws -> RecoveryWarrant? {
    let credential = identity.credential
    let store = try await LocalFile.onThread { try SectorStore.open(at: directory) }
    do {
      let isKnown = try await store.perform { () throws(StoreError) in try SectorGroup.hosts(store, credential) }
      guard isKnown else {
        throw NodeError.restoring(
          "the backup does not know the credential of this node (\(credential.path)); "
            + "restore at a process that it knows")
      }
      let life = try GroupLife(of: store, root: identity.root)
      var warrant: RecoveryWarrant?
      if let key {
        let incarnation = max(life.incarnation.rawValue, known?.incarnation ?? 1) + 1
        do {
          warrant = try RecoveryWarrant(
            signedBy: key, root: identity.root, generation: store.configuration.generation, incarnation: incarnation,
            process: credential.path, member: store.configuration.memberID ?? 0,
            issuedAtMilliseconds: WallClock.milliseconds())
        } catch {
          throw NodeError.restoring("the key is not that of the domain's root principal")
        }
      } else if GroupLife(known).supersedes(life) {
        throw NodeError.restoring(
          "the backup is older than the last recovery of the cluster: to go back behind that takes the root "
            + "principal's key (--root-key)")
      }
      try await SectorGroup.refound(store, as: credential.path, term: term, warrant: warrant)
      try await store.close()
      return warrant
    } catch {
      store.abandon()
      throw error
    }
  }

  private static func explained(_ error: any Error, _ path: String, _ place: String) -> any Error {
    switch error {
    case let error as BlocktreeError where error.reason == .backupDamaged:
      NodeError.malformed(
        path, why: "\(error.metadata["fault"] ?? "") at byte \(error.metadata["offset"] ?? "")")
    case let error as BlocktreeError: NodeError.restoring(error.message)
    case SnapshotImportError.store(let error): NodeError.store(place, error)
    case SnapshotImportError.invalid(let fault): NodeError.malformed(path, why: fault.rawValue)
    case let error as StoreError: NodeError.store(place, error)
    default: error
    }
  }
}
