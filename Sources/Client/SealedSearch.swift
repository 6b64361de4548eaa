// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Crypto
internal import Inodes
internal import Trust

/// The way to a file for somebody who reads with a key of his own: from the nearest directory at or above it that the
/// caller has a readcap of, down by the sealed directories, which are opened here.
struct SealedSearch {
  private let client: Client
  private let caller: Profile.Caller
  private let path: TreePath
  /// Of what it has met, by generation.
  private var clusters: [UInt64: SectorClient] = [:]
  private let chains = KnownChains()

  /// Symbolic links that are followed on the way, as a filesystem service does.
  private static let linksMax = 40

  /// What was found does not belong together, as it was changed meanwhile: it is worth beginning again. Otherwise this
  /// is why it failed.
  struct Changed: Error {
    let error: BlocktreeError
  }

  /// A file, and the directory whose readcap has led to it.
  struct Found {
    let content: SealedContent
    let readcapPath: TreePath
  }

  init(_ client: Client, _ path: TreePath) throws(BlocktreeError) {
    guard let caller = client.core.profile.caller else {
      throw BlocktreeError(
        code: .failedPrecondition, reason: .profile, message: "An anonymous caller has no keys; use a profile.")
    }
    self.client = client
    self.caller = caller
    self.path = path
  }

  /// Finds what the path leads to.
  mutating func run() async throws -> Found {
    let (start, file) = try await self.start()
    let first = try await self.open(file, at: start, entry: nil)
    /// The directories from the start to where it has got to.
    var way = [first]
    var components = start.components
    var names = self.path.components[components.count...]
    var linkCount = 0
    while let name = names.popFirst() {
      var directory = way[way.count - 1]
      guard directory.type == .directory else { throw self.error(.failedPrecondition, .notDirectory, "No directory.") }
      let entry = try await self.changing { try await directory.entry(name) }
      // With the nodes of its tree.
      way[way.count - 1] = directory
      guard let entry else { throw self.error(.notFound, .notFound, "There is no such file.") }
      let place = try self.treePath(components + [name])
      var content = try await self.open(FileID(entry.fileID), at: place, entry: entry)
      guard content.type == .symbolicLink else {
        way.append(content)
        components.append(name)
        continue
      }
      linkCount += 1
      guard linkCount <= Self.linksMax else { throw self.error(.failedPrecondition, .loop, "Too many symbolic links.") }
      let target = try await self.changing {
        try await content.read(0..<UInt64(RecordLimits.inlineContentByteCountMax))
      }
      let all = try self.follow(target, from: components) + names
      guard all.starts(with: start.components) else {
        throw BlocktreeError(
          code: .failedPrecondition, reason: .noKey,
          message: "the symbolic link \(place) leads out of \(start), which the key is for: name the path itself",
          metadata: ["path": "\(self.path)", "target": String(decoding: target, as: UTF8.self)])
      }
      let common = zip(all, components).prefix { $0 == $1 }.count
      way.removeLast(components.count - common)
      components.removeLast(components.count - common)
      names = all[common...]
    }
    return Found(content: way[way.count - 1], readcapPath: start)
  }

  // MARK: The start

  /// The nearest place at or above the path that the caller has a readcap of.
  private func start() async throws -> (path: TreePath, file: FileID) {
    let own = self.caller.credential.path.description
    var next: TreePath? = self.path
    while let place = next {
      do {
        let info = try await self.client.stat("\(place)")
        if info.readcaps.contains(own) { return (place, info.id) }
      } catch let error as BlocktreeError
        where error.code == .permissionDenied || error.code == .notFound || error.reason == .noKey
      {
        // What is above may be the caller's all the same: whoever answers need not have the key to look further.
      }
      next = place.parent
    }
    throw BlocktreeError(
      code: .failedPrecondition, reason: .noKey,
      message: "\(own) has no key for this, nor for a directory above that it may look at",
      metadata: ["path": "\(self.path)", "principal": own])
  }

  // MARK: Inodes

  /// Reads and verifies a record, and finds its key.
  ///
  /// - Parameter entry: what has led there; nil for the start.
  private mutating func open(
    _ file: FileID, at place: TreePath, entry: Inodes.DirectoryEntry?
  ) async throws -> SealedContent {
    guard entry?.type != .credential else { throw Self.notEncrypted(place) }
    let sectors = try await self.sectors(storing: file, at: place)
    let record: InodeRecord
    do {
      record = try await StoredFileVerifier(self.client, sectors, self.chains).verifiedRecord(of: file)
    } catch let error as BlocktreeError where error.reason == .notFound {
      throw Changed(error: error)
    }
    let attributes = record.attributes.part
    guard attributes.type != .credential else { throw Self.notEncrypted(place) }
    if let entry, entry.type != attributes.type {
      throw BlocktreeError.damaged(file, "It is no \(entry.type), as its name says")
    }
    let epoch = record.content.part.keyEpoch
    // Of an inode in another cluster than its name, the key that fits may be either one for a moment.
    let keys = [entry?.key, entry?.nextKey, self.openReadcap(of: record)].compactMap(\.self)
    if let key = keys.first(where: { $0.epoch == epoch }) { return try SealedContent(record, key: key, sectors) }
    let message =
      switch (keys.isEmpty, entry) {
      case (true, nil):
        "the readcap of \(self.caller.credential.path) for \(place) was taken back, or is of former keys"
      case (true, _): "\(place) is cut off from the directory above, and there is no readcap of it"
      case (false, _): "\(place) was given a new key (epoch \(epoch)), and the one at hand is of a former epoch"
      }
    throw Changed(
      error: BlocktreeError(
        code: .failedPrecondition, reason: .noKey, message: message,
        metadata: ["file": "\(file)", "path": "\(self.path)"]))
  }

  /// The key in the caller's own readcap, of whatever epoch; nil when there is none that opens.
  private func openReadcap(of record: InodeRecord) -> FileKey? {
    let agreement = self.caller.keys.agreement
    let keyID = Digest32(sha256: agreement.publicKey.x963Representation)
    for readcap in record.attributes.part.readcaps where readcap.keyID == keyID {
      let context = ReadcapContext(
        domain: self.caller.credential.domain, generation: record.fileID.generation.rawValue,
        inode: record.fileID.inode.rawValue, epoch: readcap.epoch, recipient: readcap.principal)
      if let seal = try? ReadcapSeal(bytes: readcap.sealedKey),
        let key = try? seal.open(with: agreement, context: context),
        let opened = key.withUnsafeBytes({ FileKey(bytes: $0, epoch: readcap.epoch) })
      {
        return opened
      }
    }
    return nil
  }

  private mutating func sectors(storing file: FileID, at place: TreePath) async throws -> SectorClient {
    if let known = self.clusters[file.generation] { return known }
    let sectors = try await self.client.sectors(storing: file, at: "\(place)")
    self.clusters[file.generation] = sectors
    return sectors
  }

  // MARK: Names

  /// Where a symbolic link in a directory leads. As a filesystem service has it: ".." takes back what went before it by
  /// name, and above the root lies the root.
  private func follow(_ target: [UInt8], from components: [PathComponent]) throws -> [PathComponent] {
    var names = target.first == UInt8(ascii: "/") ? [] : components
    for part in target.split(separator: UInt8(ascii: "/")) {
      if part.elementsEqual([UInt8(ascii: ".")]) { continue }
      if part.elementsEqual([UInt8(ascii: "."), UInt8(ascii: ".")]) {
        _ = names.popLast()
        continue
      }
      do { names.append(try PathComponent(bytes: Array(part))) } catch {
        throw BlocktreeError.invalidPath("\(error)", path: String(decoding: target, as: UTF8.self))
      }
    }
    return names
  }

  private func treePath(_ components: [PathComponent]) throws -> TreePath {
    do { return try TreePath(components) } catch {
      throw BlocktreeError.invalidPath(error.rawValue, path: "\(self.path)")
    }
  }

  // MARK: Errors

  /// What is read may be replaced meanwhile.
  private func changing<Result>(_ body: () async throws -> Result) async throws -> Result {
    do {
      return try await body()
    } catch let error as BlocktreeError where error.reason == .versionGone || error.reason == .notFound {
      throw Changed(error: error)
    }
  }

  private func error(
    _ code: BlocktreeError.Code, _ reason: BlocktreeError.Reason, _ message: String
  ) -> BlocktreeError {
    BlocktreeError(code: code, reason: reason, message: message, metadata: ["path": "\(self.path)"])
  }

  private static func notEncrypted(_ place: TreePath) -> BlocktreeError {
    BlocktreeError(
      code: .failedPrecondition, reason: .wrongType,
      message: "A credential file is not encrypted: it is read without a key.", metadata: ["path": "\(place)"])
  }
}
