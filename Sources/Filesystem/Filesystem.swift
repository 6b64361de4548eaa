// SPDX-License-Identifier: Apache-2.0

internal import Crypto
internal import Inodes
package import NIOPosix
internal import SectorStore
package import Sectors
internal import Synchronization
package import Trust

/// Turns sealed sectors into directories and files: finds paths, checks permissions, encrypts and decrypts, and makes
/// of each change one commit of the sector service.
///
/// It keeps copies of what it read, for the versions that it read; each operation begins with the records as the sector
/// service has them. Callers are named by whoever proved who they are.
package final class Filesystem: Sendable {
  /// The process that this is.
  let identity: Credential
  /// What the cluster that this process belongs to stores.
  package let sectors: any Volume
  /// This process as a member of that cluster; nil in a gateway, which stores nothing itself. What only members do,
  /// gateways pass on to one: see ``requireMember()``.
  package let member: SectorGroup?
  /// Where this process begins to look for paths.
  package let home: FilesystemHome
  let volumes: VolumeTable
  let neighbours: FilesystemNeighbours
  let ancestors = Ancestors()
  /// Bytes of files that callers were given.
  let plainBytesSent = Atomic<UInt64>(0)
  package var plainByteCountSent: UInt64 { self.plainBytesSent.load(ordering: .relaxed) }
  func noteSent(plain byteCount: Int) { self.plainBytesSent.add(UInt64(byteCount), ordering: .relaxed) }
  let names = HomeNames()
  let readcapKeys: ReadcapKeys
  let tasks = TaskTable()
  let drains = DrainTurns()
  /// What is being given a name by a step over two clusters.
  let crossing = CrossingTable()
  let content: FileContent
  let signer: RecordSigner
  let agreementKey: AgreementKey
  let inodes: InodeTable
  let numbers: InodeNumbers
  let now: @Sendable () -> Int64
  /// One directory at a time is renamed, or gets a credential below it, so that these seldom conflict.
  let moves = CombiningQueue<Never, Never>(batchCountMax: 1)
  /// How often an operation is tried again when others change the same file.
  static let attemptsMax = 32

  /// - Parameters:
  ///   - keys: this process's, of which the agreement key opens the root directory's readcap.
  ///   - home: where the process begins; nil for the root directory, of which its cluster holds the readcap.
  ///   - volumes: the other clusters; nil when there are none.
  ///   - knownByteCountMax: about how much memory what is known of inodes may take.
  ///   - now: the present time, nanoseconds since 1970 UTC.
  /// - Throws: `noKey` when the root directory has no readcap for this process.
  package convenience init(
    sectors: SectorGroup, identity: Credential, keys: PrincipalKeys, pool: NIOThreadPool,
    home: FilesystemHome? = nil, volumes: (any VolumeSource)? = nil,
    neighbours: FilesystemNeighbours = FilesystemNeighbours(), knownByteCountMax: Int = 64 << 20,
    now: @escaping @Sendable () -> Int64
  ) async throws(FilesystemError) {
    try await self.init(
      sectors, member: sectors, signatures: sectors.signatures, identity, keys, pool, home, volumes, neighbours,
      knownByteCountMax, now)
  }

  /// A gateway: a filesystem service in a process that stores nothing itself.
  ///
  /// - Parameters:
  ///   - sectors: what the cluster stores that serves the home, over its sector service.
  ///   - signatures: those that need not be verified again in this process.
  ///   - neighbours: has to answer all questions.
  /// - Throws: `noKey` when the root directory has no readcap for this process; `unreachable` when it is the home, and
  ///   its cluster can not be reached.
  package convenience init(
    gatewayTo sectors: any Volume, signatures: SignatureCache, identity: Credential, keys: PrincipalKeys,
    pool: NIOThreadPool, home: FilesystemHome?, volumes: any VolumeSource, neighbours: FilesystemNeighbours,
    knownByteCountMax: Int = 64 << 20, now: @escaping @Sendable () -> Int64
  ) async throws(FilesystemError) {
    try await self.init(
      sectors, member: nil, signatures: signatures, identity, keys, pool, home, volumes, neighbours, knownByteCountMax,
      now)
  }

  private init(
    _ sectors: any Volume, member: SectorGroup?, signatures: SignatureCache, _ identity: Credential,
    _ keys: PrincipalKeys, _ pool: NIOThreadPool, _ home: FilesystemHome?, _ volumes: (any VolumeSource)?,
    _ neighbours: FilesystemNeighbours, _ knownByteCountMax: Int, _ now: @escaping @Sendable () -> Int64
  ) async throws(FilesystemError) {
    self.identity = identity
    self.sectors = sectors
    self.member = member
    self.volumes = VolumeTable(own: sectors, others: volumes)
    self.neighbours = neighbours
    self.content = FileContent(volumes: self.volumes, workers: Workers(pool: pool))
    self.signer = RecordSigner(key: keys.signing, chainDigest: identity.chainDigest, cache: signatures)
    self.agreementKey = keys.agreement
    self.inodes = InodeTable(byteCountMax: knownByteCountMax)
    self.numbers = InodeNumbers()
    self.now = now
    if let home {
      self.home = home
      self.readcapKeys = ReadcapKeys(home: home.fileID, key: home.key)
      for cluster in home.above { self.volumes.note(cluster.generation, serving: cluster.path, cluster.fileID) }
      return
    }
    let record: InodeRecord?
    do {
      // As this member has it, which may be behind: a newer key is found when it is met, and the others need not be there.
      record = try await sectors.storedRecord(.rootDirectory)
      if let record { try await sectors.verify(record) }
    } catch {
      throw FilesystemError(error, sectorSize: sectors.sectorSize)
    }
    guard let record else { throw .dataLoss(.rootDirectory, .missing) }
    guard let key = Self.openReadcap(of: record, identity: identity, agreementKey: keys.agreement) else {
      throw .noKey(.rootDirectory)
    }
    self.home = .root(key: key)
    self.readcapKeys = ReadcapKeys(home: .rootDirectory, key: key)
  }

  /// The directory that looking for paths begins at.
  var root: InodeState {
    self.inodes.state(self.home.fileID, type: .directory, key: self.readcapKeys.home(else: self.home.key))
  }

  static func openReadcap(
    of record: InodeRecord, identity: Credential, agreementKey: AgreementKey
  ) -> FileKey? {
    let keyID = Digest32(sha256: agreementKey.publicKey.x963Representation)
    for readcap in record.attributes.part.readcaps.sorted(by: { $0.epoch > $1.epoch }) where readcap.keyID == keyID {
      let context = ReadcapContext(
        domain: identity.domain, generation: record.fileID.generation.rawValue, inode: record.fileID.inode.rawValue,
        epoch: readcap.epoch, recipient: readcap.principal)
      if let seal = try? ReadcapSeal(bytes: readcap.sealedKey),
        let key = try? seal.open(with: agreementKey, context: context),
        let fileKey = key.withUnsafeBytes({ FileKey(bytes: $0, epoch: readcap.epoch) })
      {
        return fileKey
      }
    }
    return nil
  }

  // MARK: Records

  /// The newest record of an inode, its signatures not verified.
  func storedRecord(_ file: FileID) async throws(FilesystemError) -> InodeRecord? {
    let volume = try await self.volumes.volume(of: file)
    let record: InodeRecord?
    do { record = try await volume.record(file) } catch {
      throw FilesystemError(error, sectorSize: volume.sectorSize)
    }
    // After the record was read, as this member knows by then what was answered before.
    if file.generation == self.sectors.generation { try self.requireNotRetired() }
    return record
  }

  /// What is known of the newest version of an inode, with its signatures verified; nil when it is gone.
  ///
  /// - Throws: `keyOutdated` when it has another key by now than the one that it was looked up with.
  func known(_ state: InodeState) async throws(FilesystemError) -> InodeState.Known? {
    guard let record = try await self.storedRecord(state.fileID) else { return nil }
    if let known = state.known(at: record.version) {
      try self.requirePresentKey(state, for: known.record)
      return known
    }
    try await self.verify(record)
    guard record.attributes.part.type == state.type else { throw .dataLoss(state.fileID, .record) }
    try self.requirePresentKey(state, for: record)
    return self.inodes.update(state, to: record)
  }

  func verify(_ record: InodeRecord) async throws(FilesystemError) {
    let volume = try await self.volumes.volume(of: record.fileID)
    do { try await volume.verify(record) } catch { throw FilesystemError(error, sectorSize: volume.sectorSize) }
  }

  /// Keeps a version readable.
  func keep(_ file: FileID, version: Version) async throws(FilesystemError) -> any KeptVersion {
    let volume = try await self.volumes.volume(of: file)
    do { return try await volume.keep(file, version: version) } catch {
      throw FilesystemError(error, sectorSize: volume.sectorSize)
    }
  }

  /// As `known`, with the entries of a directory; nil when it is gone.
  func directory(_ state: InodeState) async throws(FilesystemError) -> InodeState.Known? {
    guard state.type == .directory else { throw .notDirectory }
    for _ in 0..<Self.attemptsMax {
      guard let known = try await self.known(state) else { return nil }
      if known.directory != nil { return known }
      do throws(FilesystemError) { return try await self.readEntries(of: state, known) } catch {
        // It was changed between the look and the pin.
        guard error.isConflict else { throw error }
      }
    }
    throw .contended
  }

  /// As `directory`.
  ///
  /// - Throws: `notFound` when it is gone.
  func knownDirectory(_ state: InodeState) async throws(FilesystemError) -> InodeState.Known {
    guard let known = try await self.directory(state) else { throw .notFound }
    return known
  }

  private func readEntries(
    of state: InodeState, _ known: InodeState.Known
  ) async throws(FilesystemError) -> InodeState.Known {
    var known = known
    let part = known.record.content.part
    guard part.directoryFormat <= DirectoryContent.format else {
      throw .newerFormat(state.fileID, format: part.directoryFormat)
    }
    guard part.size <= RecordLimits.directoryByteCountMax else { throw .dataLoss(state.fileID, .entries) }
    let kept = try await self.keep(state.fileID, version: known.record.version)
    defer { withExtendedLifetime(kept) {} }
    var entries = DirectoryContent(sectorSize: part.sectorSize)
    var offset: UInt64 = 0
    while offset < part.size {
      let end = min(offset + UInt64(FileContent.chunkByteCount), part.size)
      let bytes = try await self.content.read(
        offset..<end, of: part, tree: &known.tree, key: state.key, version: known.record.version)
      for start in stride(from: 0, to: bytes.count, by: part.sectorSize) {
        do { try entries.appendSector(bytes[start..<min(start + part.sectorSize, bytes.count)]) } catch {
          throw .dataLoss(state.fileID, .entries)
        }
      }
      offset = end
    }
    known.directory = entries
    self.inodes.remember(known, of: state)
    return known
  }

  /// Whether a caller may do something to the inode with this record.
  func permits(_ wanted: Permission, _ record: InodeRecord, _ caller: CallerIdentity) -> Bool {
    record.attributes.part.rules.permits(wanted, caller: caller, memberOf: { _ in false })
  }

  // MARK: Commits

  /// Changes directories together with what others want of the same one, and answers the record of the inode that the
  /// request was about.
  func change(
    _ directory: InodeState, _ request: DirectoryRequest
  ) async throws(FilesystemError) -> InodeRecord? {
    let directory = self.inodes.current(directory)
    let response = await directory.changes.submit(request) { requests in
      await self.perform(requests, on: directory)
    }
    do { return try response.get() } catch { throw self.error(error, about: [directory]) }
  }

  /// Changes a directory while nobody else here changes it or the others.
  func change(
    _ directory: InodeState, together others: [InodeState], _ request: DirectoryRequest
  ) async throws(FilesystemError) -> InodeRecord? {
    let directory = self.inodes.current(directory)
    var turns = [directory]
    for state in others where !turns.contains(where: { $0.fileID == state.fileID }) {
      turns.append(self.inodes.current(state))
    }
    // In the order of their ids, so that no two changes ever wait for one another.
    turns.sort { $0.fileID < $1.fileID }
    let responses = await self.inTurn(turns[...]) { await self.perform([request], on: directory) }
    do { return try responses.first?.get() ?? nil } catch { throw self.error(error, about: turns) }
  }

  private func inTurn(
    _ states: ArraySlice<InodeState>, _ work: () async -> [DirectoryResponse]
  ) async -> [DirectoryResponse] {
    guard let first = states.first else { return await work() }
    return await first.changes.alone { await self.inTurn(states.dropFirst(), work) }
  }

  /// Performs requests on one directory in commits of many, in their order.
  private func perform(_ requests: [DirectoryRequest], on directory: InodeState) async -> [DirectoryResponse] {
    var responses: [DirectoryResponse] = []
    responses.reserveCapacity(requests.count)
    while responses.count < requests.count {
      var byteCount = 0
      let group = requests[responses.count...].prefix { request in
        byteCount += request.byteCount
        return byteCount <= SectorLimits.commitByteCountMax / 2
      }
      // One that is large on its own still has its turn.
      let taken = group.isEmpty ? requests[responses.count...responses.count] : group
      responses += await self.performSome(taken, on: directory)
    }
    return responses
  }

  /// Performs at least the first of some requests, again and again while others change what they are about.
  private func performSome(
    _ requests: ArraySlice<DirectoryRequest>, on directory: InodeState
  ) async -> [DirectoryResponse] {
    for _ in 0..<Self.attemptsMax {
      switch await self.attempt(requests, on: directory) {
      case .done(let responses): return responses
      case .conflict: continue
      case .refused(let error):
        if requests.count == 1 { return [.failure(error)] }
        // What is wrong with one of them is no fault of the others.
        var responses: [DirectoryResponse] = []
        for index in requests.indices { responses += await self.performSome(requests[index...index], on: directory) }
        return responses
      }
    }
    return requests.map { _ in .failure(.contended) }
  }

  private enum Attempt {
    /// The responses to the first of the requests. What comes after them has to wait for their commit.
    case done([DirectoryResponse])
    /// Nothing was done, since others changed something meanwhile.
    case conflict
    /// Nothing was done, since the commit was refused.
    case refused(FilesystemError)
  }

  /// Tries requests in one commit.
  private func attempt(_ requests: ArraySlice<DirectoryRequest>, on directory: InodeState) async -> Attempt {
    enum Outcome {
      case failed(FilesystemError)
      case repeated(FileID?)
      case about(FileID?)
    }
    var edit = Edit(self, caller: .anonymous)
    do throws(FilesystemError) { try await edit.open(directory) } catch {
      return error.isConflict ? .conflict : .done(requests.map { _ in .failure(error) })
    }
    var outcomes: [Outcome] = []
    loop: for request in requests {
      let before = edit
      do throws(FilesystemError) {
        if let operation = request.operation {
          if let result = try await self.result(
            of: operation.id, by: operation.principal, in: directory.fileID.generation)
          {
            outcomes.append(.repeated(result))
            continue
          }
          // The same operation twice in one batch: the second one has to wait for the first.
          if edit.operations.contains(where: { $0.id == operation.id }) { throw .contended }
        }
        let file = try await request.work(&edit)
        if let operation = request.operation {
          edit.complete(operation.id, of: operation.principal, about: file)
        }
        outcomes.append(.about(file))
      } catch {
        edit = before
        if error.isConflict {
          if outcomes.isEmpty { return .conflict }
          break loop
        }
        outcomes.append(.failed(error))
      }
    }
    let committed: [FileID: InodeRecord]
    do throws(FilesystemError) {
      guard let records = try await self.commit(&edit) else { return .conflict }
      committed = records
    } catch {
      if outcomes.count == 1, case .failed(let own) = outcomes[0] { return .done([.failure(own)]) }
      return .refused(error)
    }
    var responses: [DirectoryResponse] = []
    for outcome in outcomes {
      switch outcome {
      case .failed(let error): responses.append(.failure(error))
      case .about(let file):
        if let file, let record = committed[file] {
          responses.append(.success(record))
        } else {
          responses.append(await self.answerAgain(file))
        }
      case .repeated(let file): responses.append(await self.answerAgain(file))
      }
    }
    return .done(responses)
  }

  private func answerAgain(_ file: FileID?) async -> DirectoryResponse {
    guard let file else { return .success(nil) }
    do throws(FilesystemError) { return .success(try await self.storedRecord(file)) } catch { return .failure(error) }
  }

  /// Commits an edit; nil when a conflict was met and nothing was done.
  func commit(_ edit: inout Edit) async throws(FilesystemError) -> [FileID: InodeRecord]? {
    let prepared: Edit.Prepared
    do throws(FilesystemError) {
      // A directory may be losing its name just now: then nothing is to be put into it.
      for record in edit.changedDirectoryRecords where try await !self.isFreeOfMark(record) { return nil }
      if edit.isCrossing { return try await self.commitCrossing(&edit) }
      prepared = try await edit.prepare()
    } catch {
      if error.isConflict { return nil }
      throw error
    }
    return try await self.commit(prepared, of: edit)
  }

  /// Commits what was prepared, all of it in one generation; nil when a conflict was met and nothing was done.
  func commit(
    _ prepared: Edit.Prepared, of edit: Edit
  ) async throws(FilesystemError) -> [FileID: InodeRecord]? {
    guard !prepared.commit.records.isEmpty || !prepared.commit.removals.isEmpty else { return [:] }
    for directory in prepared.directories {
      if let record = prepared.commit.records.first(where: { $0.fileID == directory.state.fileID }),
        record.content.part.keyEpoch == directory.state.key?.epoch
      {
        directory.state.announce(.init(content: record.content, tree: directory.tree, entries: directory.entries))
      }
    }
    defer { for directory in prepared.directories { directory.state.announce(nil) } }
    guard
      let generation = prepared.commit.records.first?.fileID.generation ?? prepared.commit.removals.first?.generation
    else { return [:] }
    let volume = try await self.volumes.volume(of: generation)
    let outcome: CommitOutcome
    do {
      if generation != self.sectors.generation {
        for (session, owner) in edit.sessions { try await self.volumes.adopt(session, of: owner, in: volume) }
      }
      outcome = try await volume.perform(prepared.commit, by: self.identity)
    } catch {
      if case .conflict = error { return nil }
      throw FilesystemError(error, sectorSize: volume.sectorSize)
    }
    // An operation that was applied meanwhile: everything is judged anew.
    guard case .applied(let receipt) = outcome else { return nil }
    var records: [FileID: InodeRecord] = [:]
    for record in receipt.records { records[record.fileID] = record }
    for directory in prepared.directories {
      // Given a new key with this, it is looked up anew.
      if let record = records[directory.state.fileID],
        record.content.part.keyEpoch == directory.state.key?.epoch
      {
        self.inodes.remember(
          InodeState.Known(record: record, tree: directory.tree, directory: directory.entries), of: directory.state)
      }
    }
    for file in prepared.commit.removals { self.inodes.forget(file) }
    return records
  }

  // MARK: Operations

  /// The inode that an operation was about, if it was applied before.
  ///
  /// - Parameter generation: the one that it changes something in.
  func result(
    of operation: OperationID, by principal: TreePath, in generation: Generation
  ) async throws(FilesystemError) -> FileID?? {
    var bytes: [UInt8]?
    do { bytes = try await self.sectors.result(of: operation, by: principal) } catch {
      throw FilesystemError(error, sectorSize: self.sectors.sectorSize)
    }
    if bytes == nil, generation != self.sectors.generation {
      // Sessions are opened at this process's own cluster. Another one knows of a session once it has completed something.
      let volume = try await self.volumes.volume(of: generation)
      do { bytes = try await volume.result(of: operation, by: principal) } catch {
        if error != .sessionUnknown { throw FilesystemError(error, sectorSize: volume.sectorSize) }
      }
    }
    guard let bytes else { return nil }
    guard bytes.count == 16 else { return .some(nil) }
    func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
    return FileID(generation: Generation(number(bytes[0..<8])), inode: InodeNumber(number(bytes[8..<16])))
  }

  /// What is remembered of an operation: the inode that it was about, 16 bytes; nothing for a removal.
  static func encode(_ file: FileID?) -> [UInt8] {
    guard let file else { return [] }
    return withUnsafeBytes(of: file.generation.rawValue.bigEndian, Array.init)
      + withUnsafeBytes(of: file.inode.rawValue.bigEndian, Array.init)
  }
}
