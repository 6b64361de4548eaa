// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
package import Inodes
private import Synchronization
package import Trust

/// What the verification of one stored file found.
package struct VerificationReport: Sendable {
  /// Something that does not fit.
  package struct Finding: Hashable, Sendable {
    /// `acceptance`, `content`, `attributes`, `links`, `credential`, `node LEVEL:INDEX` or `sector INDEX`.
    package let part: String
    package let problem: String
  }

  package let record: InodeRecord
  /// The paths of those who signed, as their certificates say, by the digest of their chains.
  package internal(set) var signers: [Digest32: TreePath] = [:]
  /// Those of them that are processes.
  private var processes: Set<Digest32> = []
  package internal(set) var signatureCount = 0
  package internal(set) var nodeCount: UInt64 = 0
  package internal(set) var sectorCount: UInt64 = 0
  package internal(set) var holeCount: UInt64 = 0
  /// At most ``findingCountMax``.
  package internal(set) var findings: [Finding] = []

  package static let findingCountMax = 100

  package init(record: InodeRecord) { self.record = record }

  package var isGood: Bool { self.findings.isEmpty }

  mutating func add(_ signer: TreePath, _ digest: Digest32, isProcess: Bool) {
    self.signers[digest] = signer
    if isProcess { self.processes.insert(digest) }
  }

  /// The path of a signer that may be a member of a cluster: it is a process.
  func acceptor(_ digest: Digest32) -> TreePath? {
    self.processes.contains(digest) ? self.signers[digest] : nil
  }

  mutating func note(_ part: String, _ problem: String) {
    if self.findings.count < Self.findingCountMax { self.findings.append(Finding(part: part, problem: problem)) }
  }
}

/// Certificate chains that were fetched, so that they need not be fetched again: files of one place have the same few
/// signers. They are named by their digests, and verified wherever they are used.
final class KnownChains: Sendable {
  private let chains = Mutex<[Digest32: CertificateChain]>([:])

  private static let countMax = 256

  func chains(_ digests: [Digest32]) -> [Digest32: CertificateChain] {
    self.chains.withLock { chains in
      digests.reduce(into: [:]) { $0[$1] = chains[$1] }
    }
  }

  func add(_ new: [Digest32: CertificateChain]) {
    self.chains.withLock { chains in
      if chains.count + new.count > Self.countMax { chains = [:] }
      chains.merge(new) { _, new in new }
    }
  }
}

/// Fetches all that is stored of one file and checks it here, trusting nobody but the domain's root: the cluster's
/// acceptance, the signatures of the record's parts, the integrity tree, and the digest of every sealed sector.
package struct StoredFileVerifier {
  private let sectors: SectorClient
  private let verifier: ChainVerifier
  private let known: KnownChains

  /// Sectors that are looked at together.
  private static let windowCount: UInt64 = 4096
  private static let runsPerRequest = 64

  /// - Parameter sectors: of the cluster that stores the files; nil for the profile's first process's.
  package init(_ client: Client, _ sectors: SectorClient? = nil) {
    self.init(client, sectors, KnownChains())
  }

  /// - Parameter known: chains that were fetched before, for other files.
  init(_ client: Client, _ sectors: SectorClient?, _ known: KnownChains) {
    self.known = known
    self.sectors = sectors ?? client.sectors
    self.verifier = ChainVerifier(root: client.core.profile.root)
  }

  /// Reads a record without checking more than its form.
  package func record(of file: FileID) async throws -> InodeRecord {
    guard let message = try await self.sectors.readRecords([file]).first, message.version > 0 else {
      throw BlocktreeError(
        code: .notFound, reason: .notFound, message: "There is no such inode.", metadata: ["file": "\(file)"])
    }
    let record: InodeRecord
    do {
      record = try InodeRecord(message)
    } catch {
      throw BlocktreeError.damaged(file, "The record is malformed: \(error)")
    }
    guard FileID(record.fileID) == file else { throw BlocktreeError.malformedAnswer("file_id") }
    return record
  }

  /// Reads a record and verifies its signatures. Also, the acceptance has to be that of a process whose credential lies
  /// in the directory that the cluster serves: nobody else is a member.
  ///
  /// - Throws: with the reason ``BlocktreeError/Reason/dataLoss`` when something does not fit; with `notFound` when
  ///   there is no such inode.
  func verifiedRecord(of file: FileID) async throws -> InodeRecord {
    var report = VerificationReport(record: try await self.record(of: file))
    try await self.verifySignatures(&report)
    if let finding = report.findings.first {
      throw BlocktreeError.damaged(file, "The \(finding.part) of the record does not verify: \(finding.problem)")
    }
    let directory = self.sectors.cluster.scope
    guard let signer = report.record.acceptance.flatMap({ report.acceptor($0.signer) }), signer.parent == directory
    else {
      throw BlocktreeError.damaged(file, "The record was accepted by somebody who is no process of \(directory)")
    }
    return report.record
  }

  /// - Parameter progress: told how many of the sectors have been checked.
  package func verify(
    _ file: FileID, progress: (_ done: UInt64, _ of: UInt64) -> Void = { _, _ in }
  ) async throws -> VerificationReport {
    var report = VerificationReport(record: try await self.record(of: file))
    try await self.verifySignatures(&report)
    if report.record.content.part.sectorCount > 0 { try await self.verifyContent(file, &report, progress) }
    return report
  }

  // MARK: Signatures

  private func verifySignatures(_ report: inout VerificationReport) async throws {
    let record = report.record
    let digests = Set(
      [record.content.signer, record.attributes.signer, record.links.signer]
        + (record.acceptance.map { [$0.signer] } ?? [])
    ).sorted()
    let chains = try await self.chains(digests)
    guard let acceptance = record.acceptance else { return report.note("acceptance", "there is none") }
    let accepted = Date(timeIntervalSince1970: Double(acceptance.accepted) / 1e9)
    let key = self.key(of: chains[acceptance.signer], at: accepted, mayHaveExpired: false)
    self.check("acceptance", acceptance.signer, key, &report) { key in
      acceptance.signature.verify(digest: record.acceptanceDigest, purpose: .acceptance, key: key, cache: nil)
    }
    // The acceptance names the signers' chains. These were valid when their part was committed, which may have been
    // long before this version was.
    func checkPart<Part>(_ name: String, _ signed: Signed<Part>) {
      let key = self.key(of: chains[signed.signer], at: accepted, mayHaveExpired: true)
      self.check(name, signed.signer, key, &report) { key in
        signed.signature.verify(digest: signed.digest, purpose: Part.purpose, key: key, cache: nil)
      }
    }
    checkPart("content", record.content)
    checkPart("attributes", record.attributes)
    checkPart("links", record.links)
    if !record.credential.isEmpty {
      do {
        _ = try CredentialFile(bytes: record.credential).verify(with: self.verifier, at: accepted)
        report.signatureCount += 1
      } catch {
        report.note("credential", error.sentence)
      }
    }
  }

  /// The chains of these digests, as far as they are known.
  private func chains(_ digests: [Digest32]) async throws -> [Digest32: CertificateChain] {
    var chains = self.known.chains(digests)
    let unknown = digests.filter { chains[$0] == nil }
    if unknown.isEmpty { return chains }
    for (digest, message) in zip(unknown, try await self.sectors.readCertificates(unknown.map(\.bytes))) {
      guard let chain = try? CertificateChain(message.certificates.map { Array($0) }), chain.digest == digest else {
        continue
      }
      chains[digest] = chain
    }
    self.known.add(chains)
    return chains
  }

  private struct Signer {
    let key: VerifyingKey
    let path: TreePath
    let isProcess: Bool

    init(_ credential: Credential) {
      self.key = credential.verifyingKey
      self.path = credential.path
      self.isProcess = credential.kind == .process
    }
  }

  private func check(
    _ part: String, _ digest: Digest32, _ signer: Result<Signer, TrustError>?, _ report: inout VerificationReport,
    _ isValid: (VerifyingKey) -> Bool
  ) {
    switch signer {
    case nil: report.note(part, "the certificates of its signer are not there")
    case .failure(let error): report.note(part, "the certificate of its signer does not verify: \(error.sentence)")
    case .success(let signer):
      report.add(signer.path, digest, isProcess: signer.isProcess)
      report.signatureCount += 1
      if !isValid(signer.key) { report.note(part, "the signature of \(signer.path) is wrong") }
    }
  }

  private func key(
    of chain: CertificateChain?, at time: Date, mayHaveExpired: Bool
  ) -> Result<Signer, TrustError>? {
    guard let chain else { return nil }
    do throws(TrustError) {
      let credential = try self.verifier.verify(chain, at: time)
      return .success(Signer(credential))
    } catch {
      // Whether it leads to the root is still to be checked, at a time when it was valid.
      guard error == .expired, mayHaveExpired, let credential = try? self.verifier.verifyAtIssue(chain) else {
        return .failure(error)
      }
      return .success(Signer(credential))
    }
  }

  // MARK: Content

  private func verifyContent(
    _ file: FileID, _ report: inout VerificationReport, _ progress: (UInt64, UInt64) -> Void
  ) async throws {
    let content = report.record.content.part
    let version = report.record.version.rawValue
    var tree = IntegrityTree(content)
    var start: UInt64 = 0
    while start < content.sectorCount {
      let window = start..<min(start + Self.windowCount, content.sectorCount)
      guard try await self.load(window, of: file, version, into: &tree, &report) else { return }
      var leaves: [UInt64: Leaf] = [:]
      for sector in window {
        guard let leaf = try? tree.leaf(at: sector) else {
          report.note("sector \(sector)", "its leaf is malformed")
          continue
        }
        if leaf.isHole { report.holeCount += 1 } else { leaves[sector] = leaf }
      }
      try await self.checkSectors(leaves, of: file, version, content.sectorSize, &report)
      tree.forgetUnchangedNodes()
      start = window.upperBound
      progress(start, content.sectorCount)
    }
  }

  /// Loads the tree nodes above some sectors; false when one of them is wrong, since nothing below it can be checked.
  private func load(
    _ sectors: Range<UInt64>, of file: FileID, _ version: UInt64, into tree: inout IntegrityTree,
    _ report: inout VerificationReport
  ) async throws -> Bool {
    while true {
      let missing = tree.missing(for: sectors)
      guard let level = missing.first?.level else { return true }
      let blocks = try await self.blocks(of: file, version, level: level, indexes: missing.map(\.index))
      for key in missing {
        do {
          try tree.insert(blocks[key.index] ?? [], at: key)
          report.nodeCount += 1
        } catch {
          let problem = blocks[key.index] == nil ? "it is missing" : "it is not the one that was signed"
          report.note("node \(key.level):\(key.index)", problem)
          return false
        }
      }
    }
  }

  private func checkSectors(
    _ leaves: [UInt64: Leaf], of file: FileID, _ version: UInt64, _ sectorSize: Int,
    _ report: inout VerificationReport
  ) async throws {
    // A window of the largest sectors would be 256 MiB, so only digests are kept.
    let fetched = try await self.fetch(leaves.keys.sorted(), of: file, version, level: 0) { block in
      block.bytes.count == sectorSize ? Digest32(sha256: block.bytes) : Digest32.zero
    }
    for (sector, leaf) in leaves.sorted(by: { $0.key < $1.key }) {
      report.sectorCount += 1
      switch fetched.found[sector] {
      case leaf.digest: break
      case nil where fetched.damaged.contains(sector):
        report.note("sector \(sector)", "the process finds it damaged on its disk")
      case nil: report.note("sector \(sector)", "it is missing")
      default: report.note("sector \(sector)", "its bytes are not those that were signed")
      }
    }
  }

  private func blocks(
    of file: FileID, _ version: UInt64, level: Int, indexes: [UInt64]
  ) async throws -> [UInt64: [UInt8]] {
    try await self.fetch(indexes, of: file, version, level: level) { Array($0.bytes) }.found
  }

  private struct Fetched<Value: Sendable>: Sendable {
    var found: [UInt64: Value] = [:]
    /// Those that the process itself finds damaged.
    var damaged: Set<UInt64> = []
  }

  /// Fetches blocks, and keeps of each what `value` makes of it. Around one that is damaged at the process, the others
  /// are fetched all the same.
  private func fetch<Value: Sendable>(
    _ indexes: [UInt64], of file: FileID, _ version: UInt64, level: Int,
    _ value: @escaping @Sendable (Blocktree_V1_Block) -> Value
  ) async throws -> Fetched<Value> {
    let fetched = Mutex(Fetched<Value>())
    var wanted = indexes
    while !wanted.isEmpty {
      let runs = SectorRuns.of(wanted, level: level).prefix(Self.runsPerRequest)
      do {
        try await self.sectors.readSectors(file, version: version, runs: Array(runs)) { messages in
          for try await message in messages {
            for block in message.blocks where block.level == UInt32(level) {
              let kept = value(block)
              fetched.withLock { $0.found[block.index] = kept }
            }
          }
        }
        // What was asked for and did not come is missing.
        let asked = runs.last.map { $0.start + UInt64($0.count) } ?? 0
        wanted = wanted.filter { $0 >= asked }
      } catch let error as BlocktreeError where error.reason == .dataLoss {
        guard let index = error.metadata["index"].flatMap({ UInt64($0) }), wanted.contains(index) else { throw error }
        let isTooMuch = fetched.withLock { fetched in
          fetched.damaged.insert(index)
          return fetched.damaged.count > VerificationReport.findingCountMax
        }
        if isTooMuch { throw error }
        let known = fetched.withLock { $0 }
        wanted = wanted.filter { known.found[$0] == nil && !known.damaged.contains($0) }
      }
    }
    return fetched.withLock { $0 }
  }
}

extension BlocktreeError {
  /// What a process has handed out is not what was signed.
  static func damaged(_ file: FileID, _ message: String, part: String = "record") -> BlocktreeError {
    BlocktreeError(
      code: .dataLoss, reason: .dataLoss, message: message, metadata: ["file": "\(file)", "part": part])
  }
}

extension FileID {
  init(_ file: Inodes.FileID) {
    self.init(generation: file.generation.rawValue, inode: file.inode.rawValue)
  }
}

/// Neighbouring indexes as runs.
enum SectorRuns {
  static func of(_ indexes: [UInt64], level: Int) -> [Blocktree_V1_SectorRun] {
    var runs: [Blocktree_V1_SectorRun] = []
    for index in indexes {
      if let last = runs.last, last.start + UInt64(last.count) == index {
        runs[runs.count - 1].count += 1
      } else {
        var run = Blocktree_V1_SectorRun()
        run.level = UInt32(level)
        run.start = index
        run.count = 1
        runs.append(run)
      }
    }
    return runs
  }
}
