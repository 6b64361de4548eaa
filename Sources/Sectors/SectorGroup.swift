// SPDX-License-Identifier: Apache-2.0

internal import Foundation
package import Inodes
internal import Raft
package import Replication
package import SectorStore
internal import Synchronization
package import Trust

/// The sector cluster of one generation as one of its members sees it: accepts commits, and reads.
///
/// A commit is judged against the newest records, those of commits in flight included, accepted by a signature over
/// each new record, and put into the log together with its conditions, which are judged again when its turn comes. So
/// commits follow one another without waiting for the disk, and one that was overtaken fails as a whole.
///
/// A commit that was answered is durable on a majority, and reads see every commit that was answered before they began,
/// on whichever member. Only the member that leads takes commits; the others say who that is.
///
/// Everything runs where its caller runs. Only what is not in memory is fetched by a thread of the store.
package final class SectorGroup: Sendable {
  /// Who this member is.
  package struct Member: Sendable {
    package let credential: Credential
    package let key: SigningKey

    package init(credential: Credential, key: SigningKey) {
      self.credential = credential
      self.key = key
    }
  }

  struct State {
    /// The term of leadership that all of this is about; 0 before the first.
    var term: UInt64 = 0
    var inFlight = InFlight()
    var records = RecordCache(countMax: SectorGroup.parsedRecordsMax)
    /// The next inode number to hand out.
    var nextInode: UInt64
    var generations: GenerationNumbers
    /// Inodes, with all commits in flight.
    var inodeCount: UInt64
    /// Numbers commits in the order of the log.
    var lastCommit: UInt64 = 0
    /// What commits in flight complete.
    var operations: [OperationID: PendingChange] = [:]
    /// The paths that credential files in flight are for.
    var credentialPaths: [TreePath: FileID] = [:]
    /// Whether anything may be changed, with what is in flight.
    var freeze = Freeze.open
    /// Generations that were taken back in this term: perhaps by what is in flight.
    var retired: Set<Generation> = []
  }

  package let generation: Generation
  /// The directory that the cluster serves.
  package let home: GroupHome
  package let sectorSize: Int
  package let store: SectorStore
  /// This member's part in the consensus.
  package let replica: ReplicaDriver
  /// The life of the cluster that the store belongs to.
  package let life: GroupLife
  package let credentials: CredentialIndex
  /// Principals of other clusters; filled by others.
  package let guests: GuestDirectory
  /// Signatures that need not be verified again in this process.
  package let signatures: SignatureCache
  package let verifier: ChainVerifier
  let member: Member
  let memberChainDigest: Digest32
  let chains: ChainCache
  let state: Mutex<State>
  let now: @Sendable () -> Int64
  package let timing: GroupTiming
  let departures = Mutex(Departures())
  /// Whether a member is just being released: one at a time.
  let isReleasing = Mutex(false)
  /// Whether the copies of members' credentials are just being changed: one at a time.
  let isSettingMembers = Mutex(false)
  /// Of a delegated cluster: who owns the home, as far as that is known.
  let homeOwner = Mutex<TreePath?>(nil)
  /// And who has its key by a readcap.
  let homeReaders = Mutex<Set<TreePath>>([])
  /// Heals what reads have met; nil where there is nobody to heal it from.
  let healer = Mutex<SectorHealer?>(nil)
  /// Bytes of sealed sectors and tree nodes that callers were given.
  let sealedBytesSent = Atomic<UInt64>(0)
  package var sealedByteCountSent: UInt64 { self.sealedBytesSent.load(ordering: .relaxed) }
  func noteSent(sealed byteCount: Int) { self.sealedBytesSent.add(UInt64(byteCount), ordering: .relaxed) }
  /// Says that leadership or membership has changed, or a snapshot is wanted. For one reader.
  package let changes: AsyncStream<Void>

  /// Parsed records that are kept; the store keeps the bytes of more.
  private static let parsedRecordsMax = 8_192

  static let nextInodeFact = "superblock.next-inode"
  static let inodeCountFact = "inodes"

  /// Takes over an open store. An empty one becomes the first member of a new cluster, and leads it on return.
  ///
  /// - Parameters:
  ///   - now: the present time, nanoseconds since 1970 UTC.
  ///   - timing: the same on all members.
  ///   - transport: how other members are reached.
  ///   - bootstrap: for an empty store of any generation but 1, what the new cluster begins with.
  ///   - guests: those who are known of principals of other clusters.
  package init(
    store: SectorStore, generation: Generation, sectorSize: Int, member: Member, verifier: ChainVerifier,
    signatures: SignatureCache, now: @escaping @Sendable () -> Int64, timing: GroupTiming = GroupTiming(),
    transport: any ReplicaTransport = NoTransport(), bootstrap: GroupBootstrap? = nil,
    guests: GuestDirectory = GuestDirectory()
  ) async throws(SectorError) {
    guard store.configuration.generation == generation.rawValue else {
      throw .wrongGeneration(Generation(store.configuration.generation))
    }
    self.store = store
    self.generation = generation
    self.sectorSize = sectorSize
    self.member = member
    self.memberChainDigest = member.credential.chainDigest
    self.verifier = verifier
    self.signatures = signatures
    self.now = now
    self.chains = ChainCache(verifier: verifier)
    self.timing = timing
    self.guests = guests
    let counts: (nextInode: UInt64, inodes: UInt64)
    let nextGeneration: UInt64
    let first = try bootstrap.map { bootstrap throws(SectorError) in try Self.facts(bootstrap) } ?? []
    do throws(StoreError) {
      counts = try Self.counts(store)
      nextGeneration = try Self.nextGeneration(store)
      self.life = try GroupLife(of: store, root: verifier.root)
      self.replica = try await Self.replica(store, member, self.life, timing, transport, facts: first)
      guard let home = try GroupHome(of: store) else { throw .damaged(.fact(GroupHome.factKey)) }
      self.home = home
    } catch {
      throw SectorError(error, generation: generation)
    }
    self.credentials = CredentialIndex(home: self.home.directory)
    self.state = Mutex(
      State(
        nextInode: counts.nextInode, generations: GenerationNumbers(next: nextGeneration), inodeCount: counts.inodes))
    self.chains.add(member.credential, digest: self.memberChainDigest)
    let (changes, change) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    self.changes = changes
    var observer = ReplicaDriver.Observer()
    observer.changed = { change.yield() }
    observer.applied = { [weak self] entries in self?.noteApplied(entries) }
    self.replica.setObserver(observer)
    guard self.replica.start() else { throw .notServing }
    // What is applied from now on is noted as it comes.
    try await self.loadCredentials()
    if self.replica.status.membership.voters == [self.replica.member] { _ = try await self.lead() }
  }

  private static func replica(
    _ store: SectorStore, _ member: Member, _ life: GroupLife, _ timing: GroupTiming,
    _ transport: any ReplicaTransport, facts: [Change.Fact]
  ) async throws(StoreError) -> ReplicaDriver {
    guard let id = store.configuration.memberID else { throw .damaged(.header) }
    let log: RecoveredLog
    if try store.membership() == nil {
      // Nobody but the bootstrap writes in the first term; it may have been interrupted.
      guard store.recoveredLog.applied == .zero, store.recoveredLog.entries.allSatisfy({ $0.term <= 1 }) else {
        throw .damaged(.fact("membership"))
      }
      // What it serves has to be known from the beginning, but for the root directory's.
      if facts.isEmpty, store.configuration.generation != Generation.root.rawValue {
        throw .damaged(.fact(GroupHome.factKey))
      }
      log = try await ReplicaDriver.bootstrap(
        store, facts: [self.memberFact(MemberID(id), path: member.credential.path)] + facts)
    } else {
      log = store.recoveredLog
    }
    // At random, anew in each life.
    var configuration = ReplicaConfiguration(
      member: MemberID(id), incarnation: life.incarnation, seed: .random(in: .min ... .max))
    configuration.heartbeatInterval = timing.heartbeatInterval
    configuration.electionTimeout = timing.electionTimeout
    configuration.clockDriftBound = timing.clockDriftBound
    do {
      return try ReplicaDriver(store: store, log: log, configuration: configuration, transport: transport)
    } catch {
      throw error as? StoreError ?? .failed("\(error)")
    }
  }

  private func loadCredentials() async throws(SectorError) {
    let inodes: [UInt64]
    do throws(StoreError) {
      let store = self.store
      inodes = try await store.perform { () throws(StoreError) in try store.inodes(flag: .credential) }
      try Self.noteCopies(of: store, in: self.credentials)
    } catch {
      throw SectorError(error, generation: self.generation)
    }
    for inode in inodes {
      let file = FileID(generation: self.generation, inode: InodeNumber(inode))
      do throws(SectorError) {
        if let record = try await self.storedRecord(file) { self.credentials.note(record, at: .zero) }
      } catch {
        // Whoever it confirmed is not confirmed; everybody else goes on.
        guard case .dataLoss = error else { throw error }
        self.credentials.noteDamage(of: file)
      }
    }
  }

  /// Takes note of credential files, on whichever member: they say who may call.
  private func noteApplied(_ entries: [AppliedEntry]) {
    for entry in entries {
      for fact in entry.facts where Self.isCopy(fact) {
        Self.noteCopy(fact, at: entry.index, in: self.credentials)
      }
      for change in entry.records {
        switch change {
        case .put(let stored):
          guard stored.flags.contains(.credential), let record = try? InodeRecord(serialized: stored.bytes) else {
            continue
          }
          self.credentials.note(record, at: entry.index)
        case .remove(let inode):
          self.credentials.noteRemoval(
            of: FileID(generation: self.generation, inode: InodeNumber(inode)), at: entry.index)
        }
      }
    }
  }

  /// The next inode number to hand out, and how many inodes there are.
  static func counts(_ store: SectorStore) throws(StoreError) -> (nextInode: UInt64, inodes: UInt64) {
    // Below it are the superblock and the root directory.
    (
      try self.number(store, self.nextInodeFact) ?? InodeNumber.rootDirectory.rawValue + 1,
      try self.number(store, self.inodeCountFact) ?? 0
    )
  }

  /// A number that is kept as a fact.
  static func number(_ store: SectorStore, _ key: String) throws(StoreError) -> UInt64? {
    guard let bytes = try store.fact(key) else { return nil }
    guard bytes.count == 8 else { throw .damaged(.fact(key)) }
    return bytes.reduce(0) { $0 << 8 | UInt64($1) }
  }

  static func fact(_ key: String, _ number: UInt64) -> Change.Fact {
    .init(key: key, value: withUnsafeBytes(of: number.bigEndian, Array.init))
  }

  // MARK: Records

  /// The newest durable record; nil when there is no such inode.
  package func record(_ file: FileID) async throws(SectorError) -> InodeRecord? {
    try await self.confirmRead()
    return try await self.storedRecord(file)
  }

  /// The newest record that this member has applied, which may be behind others.
  package func storedRecord(_ file: FileID) async throws(SectorError) -> InodeRecord? {
    try self.require(file)
    let stored: StoredRecord?
    do throws(StoreError) {
      switch try self.store.cachedRecord(file.inode.rawValue) {
      case .known(let record): stored = record
      case .onDisk:
        let store = self.store
        stored = try await store.perform { () throws(StoreError) in try store.record(file.inode.rawValue) }
      }
    } catch {
      throw SectorError(error, generation: self.generation)
    }
    guard let stored else { return nil }
    if let known = self.state.withLock({ $0.records.record(file.inode, bytes: stored.bytes) }) { return known }
    let record: InodeRecord
    do { record = try InodeRecord(serialized: stored.bytes) } catch { throw .dataLoss(file, place: .record) }
    guard record.fileID == file, record.version.rawValue == stored.version else {
      throw .dataLoss(file, place: .record)
    }
    self.state.withLock { $0.records.insert(record, bytes: stored.bytes) }
    return record
  }

  /// The newest durable records of several inodes, all as of one moment.
  package func records(_ files: [FileID]) async throws(SectorError) -> [InodeRecord?] {
    try await self.confirmRead()
    var records: [InodeRecord?] = []
    for file in files { records.append(try await self.storedRecord(file)) }
    if files.count < 2 { return records }
    // Versions only grow: what was the same twice in a row was so at the moment between.
    for _ in 0..<Self.snapshotAttemptsMax {
      var again: [InodeRecord?] = []
      for file in files { again.append(try await self.storedRecord(file)) }
      if zip(records, again).allSatisfy({ $0?.version == $1?.version }) { return again }
      records = again
    }
    throw .busy
  }

  private static let snapshotAttemptsMax = 32

  func require(_ file: FileID) throws(SectorError) {
    guard file.generation == self.generation else { throw .wrongGeneration(file.generation) }
  }

  // MARK: Signatures

  /// Reads the certificate chain of a signer; nil when the digest is not known.
  package func chain(_ digest: Digest32) async throws(SectorError) -> CertificateChain? {
    if let known = self.chains.chain(digest) { return known }
    guard let key = Digest(digest.bytes) else { return nil }
    let stored: [UInt8]?
    do throws(StoreError) {
      let store = self.store
      stored = try await store.perform { () throws(StoreError) in try store.certificate(key) }
    } catch {
      throw SectorError(error, generation: self.generation)
    }
    guard let stored else { return nil }
    guard Digest32(sha256: stored) == digest, let chain = try? CertificateChain(bytes: stored),
      self.chains.addStored(chain, digest: digest)
    else { throw .dataLoss(nil, place: .store("certificate")) }
    return chain
  }

  /// The key that a stored signature was made with.
  private func signerKey(_ digest: Digest32) async throws(SectorError) -> VerifyingKey? {
    if let key = self.chains.key(digest) { return key }
    _ = try await self.chain(digest)
    return self.chains.key(digest)
  }

  /// Verifies the acceptance and the signatures of a stored record. Results are remembered, so that it costs nothing
  /// to do this again.
  ///
  /// - Throws: `dataLoss` when a signature is not that of the bytes.
  package func verify(_ record: InodeRecord) async throws(SectorError) {
    guard let acceptance = record.acceptance, let key = try await self.signerKey(acceptance.signer),
      acceptance.signature.verify(
        digest: record.acceptanceDigest, purpose: .acceptance, key: key, cache: self.signatures)
    else { throw .dataLoss(record.fileID, place: .record) }
    try await self.verifyPart(record.content, of: record)
    try await self.verifyPart(record.attributes, of: record)
    try await self.verifyPart(record.links, of: record)
  }

  private func verifyPart<Part>(_ part: Signed<Part>, of record: InodeRecord) async throws(SectorError) {
    guard let key = try await self.signerKey(part.signer),
      part.signature.verify(digest: part.digest, purpose: Part.purpose, key: key, cache: self.signatures)
    else { throw .dataLoss(record.fileID, place: .record) }
  }

  /// Signs with one signature for all, and remembers that it is good.
  func sign(_ digests: [Digest32], purpose: SigningPurpose) throws(SectorError) -> [BatchSignature] {
    do { return try self.member.key.sign(digests, purpose: purpose, cache: self.signatures) } catch {
      throw .internalFault("signing")
    }
  }

  /// Signs receipts, all with one signature.
  package func sign(_ receipts: [CommitReceipt]) throws(SectorError) -> [BatchSignature] {
    try self.sign(receipts.map(\.digest), purpose: .receipt)
  }

  /// The digest of this member's certificate chain, which signs acceptances and receipts.
  package var signer: Digest32 { self.memberChainDigest }

  /// This member's path.
  package var memberPath: TreePath { self.member.credential.path }

  var date: Date { Date(timeIntervalSince1970: Double(self.now()) / 1e9) }

  // MARK: Sectors

  /// Reads neighbouring sectors or tree nodes of a version. What is damaged here is fetched from other members first.
  ///
  /// - Throws: `versionGone` when the version is not kept, `dataLoss` when what the disk holds is not what was written,
  ///   and no other member has it either.
  package func read(
    _ file: FileID, level: Int, indexes: Range<UInt64>, version: Version
  ) async throws(SectorError) -> BlockRange {
    try self.require(file)
    do {
      return try await self.readHealing(
        inode: file.inode.rawValue, level: UInt8(clamping: level), indexes: indexes, version: version.rawValue)
    } catch {
      throw SectorError(error, generation: self.generation)
    }
  }

  /// Keeps a version readable for as long as the pin lives: the newest, or one that is kept already. Without a version,
  /// the newest.
  package func pin(_ file: FileID, version: Version?) throws(SectorError) -> Pin {
    try self.require(file)
    do { return try self.store.pin(file.inode.rawValue, version: version?.rawValue) } catch {
      throw SectorError(error, generation: self.generation)
    }
  }

  // MARK: Inode numbers

  /// Hands out inode numbers, never to be handed out again. Durable when it returns.
  package func allocateInodes(_ count: UInt32) async throws(SectorError) -> UInt64 {
    guard count > 0, count <= SectorLimits.allocationMax else { throw .invalid(field: "count") }
    let term = try await self.lead()
    // The order of numbers and the order in the log are the same, as both are taken under one lock.
    let (first, pending) = self.state.withLock { state in
      let first = state.nextInode
      var change = Change()
      change.facts = [Self.fact(Self.nextInodeFact, first + UInt64(count))]
      // In another term, others may have handed out the same numbers.
      let pending = Result { () throws(StoreError) in
        guard state.term == term else { throw .leadershipLost }
        return try self.replica.propose(change, term: term)
      }
      if case .success = pending { state.nextInode += UInt64(count) }
      return (first, pending)
    }
    try await self.finish(pending)
    return first
  }

  /// Waits until a change is durable and applied.
  func finish(_ pending: Result<PendingChange, StoreError>) async throws(SectorError) {
    self.replica.flush()
    do { _ = try await pending.get().durable() } catch { throw self.error(error) }
  }
}
