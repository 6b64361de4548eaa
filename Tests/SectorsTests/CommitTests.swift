// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import SectorStore
import Sectors
import Testing
import Trust

@Suite("A commit")
struct CommitTests {
  @Test("is there when it is answered, with records that verify, and after opening the store again")
  func durable() async throws {
    let test = try await TestGroup()
    var inode = try await test.makeFile(sectors: [0: sector(1), 2: sector(2)])
    let receipt = try await test.apply(
      inode.commit(writing: sector(3), at: 70, by: test.domain.ann), by: test.domain.ann)
    #expect(receipt.records.map(\.version) == [2])
    #expect(receipt.members == [test.domain.node.path])
    let signature = try #require(try test.group.sign([receipt]).first)
    #expect(
      signature.verify(
        digest: receipt.digest, purpose: .receipt, key: test.domain.node.credential.verifyingKey, cache: nil))
    let contents: [UInt64: [UInt8]] = [0: sector(1), 2: sector(2), 70: sector(3)]
    #expect(try await test.read(inode) == contents)
    for orderly in [false, true] {
      try await test.reopen(orderly: orderly)
      #expect(try await test.read(inode) == contents)
      // Signers are found in the store, not in memory.
      let record = try #require(try await test.group.record(inode.fileID))
      #expect(record.content.signer == test.domain.ann.credential.chainDigest)
      #expect(try await test.group.chain(record.content.signer) == test.domain.ann.credential.chain)
    }
    try await test.apply(inode.commit(writing: sector(4), by: test.domain.ann), by: test.domain.ann)
  }

  @Test("is refused as a whole when a version or a condition does not hold, with the version that there is")
  func conflicts() async throws {
    let test = try await TestGroup()
    let (ann, node) = (test.domain.ann, test.domain.node)
    var first = try await test.makeFile(sectors: [0: sector(1)])
    var second = try await test.makeFile(sectors: [0: sector(2)])
    var stale = first
    try await test.apply(first.commit(writing: sector(3), by: ann), by: ann)
    // One commit of both files, of which one has changed.
    var commit = try second.commit(writing: sector(4), by: ann)
    let other = try stale.commit(writing: sector(5), by: ann)
    commit.records += other.records
    commit.blocks.merge(other.blocks) { $1 }
    let conflict = SectorError.conflict(first.fileID, current: 2)
    await expectRefused(conflict) { try await test.apply(commit, by: ann) }
    #expect(try await test.read(second) == [0: sector(2)])
    // Versions skip nothing.
    var ahead = first
    _ = try ahead.commit(writing: sector(6), by: ann)
    let skipping = try ahead.commit(writing: sector(6), by: ann)
    await expectRefused(conflict) { try await test.apply(skipping, by: ann) }

    // Conditions on others.
    let absent = try await test.number()
    func conditioned(_ conditions: [Commit.Condition]) async throws {
      var commit = try first.commit(writing: sector(7), by: ann)
      commit.conditions = conditions
      try await test.apply(commit, by: ann)
    }
    let before = first
    await expectRefused(.conflict(file(2), current: 1)) { try await conditioned([.init(.rootDirectory, 2)]) }
    first = before
    await expectRefused(.conflict(file(2), current: 1)) { try await conditioned([.init(.rootDirectory, .absent)]) }
    first = before
    try await conditioned([.init(.rootDirectory, 1), .init(first.fileID, 2)])
    // Of what does not exist, or may not be seen, a principal learns nothing by asking.
    let hidden = try await test.makeFile(mode: 0o700)
    let bob = test.domain.bob
    for (condition, version) in [(hidden.fileID, Version(9)), (hidden.fileID, .absent), (absent, Version(1))] {
      var commit = try first.commit(writing: sector(7), by: bob)
      commit.conditions = [.init(condition, version)]
      await expectRefused(.permissionDenied) { try await test.apply(commit, by: bob) }
    }
    // The filesystem service does.
    var own = try await test.makeFile()
    var asking = try own.commit(writing: sector(8), by: node)
    asking.conditions = [.init(hidden.fileID, 9)]
    await expectRefused(.conflict(hidden.fileID, current: 1)) { try await test.apply(asking, by: node) }
  }

  @Test("of an operation that was applied is answered again and not applied, however often and from wherever it comes")
  func idempotent() async throws {
    let test = try await TestGroup()
    let (ann, bob) = (test.domain.ann, test.domain.bob)
    let group = try test.group
    let session = try await group.openSession(owner: ann.path)
    var inode = try await test.makeFile(mode: 0o666)
    func operation(_ sequence: UInt64, _ commit: Commit, session: [UInt8]) -> Commit {
      var commit = commit
      commit.operations = [
        .init(id: OperationID(session: session, sequence: sequence), result: [UInt8(sequence & 255)])
      ]
      return commit
    }
    let first = operation(1, try inode.commit(writing: sector(1), by: ann), session: session)
    try await test.apply(first, by: ann)
    func expectRepeated(_ commit: Commit, _ result: [UInt8]) async throws {
      guard case .repeated(let answer) = try await group.perform(commit, by: ann.credential) else {
        Issue.record("It was applied again.")
        return
      }
      #expect(answer == result)
    }
    try await expectRepeated(first, [1])
    #expect(try await group.record(inode.fileID)?.version == 2)

    // Many at once, over and over, and twice in one batch.
    for sequence: UInt64 in 2...12 {
      let commit = operation(sequence, try inode.commit(writing: sector(UInt8(sequence)), by: ann), session: session)
      let applied = try await withThrowingTaskGroup(of: Int.self) { tasks in
        for _ in 0..<8 {
          tasks.addTask {
            var count = 0
            for outcome in await group.perform([commit, commit], by: ann.credential) {
              switch try outcome.get() {
              case .applied: count += 1
              case .repeated(let result): #expect(result == [UInt8(sequence)])
              }
            }
            return count
          }
        }
        return try await tasks.reduce(0, +)
      }
      #expect(applied == 1)
      #expect(try await group.record(inode.fileID)?.version == Version(sequence + 1))
    }

    // It is remembered on disk, for the last 1,024 of a session.
    try await test.reopen(orderly: true)
    let reopened = try test.group
    #expect(try await reopened.result(of: OperationID(session: session, sequence: 5), by: ann.path) == [5])
    let far = operation(1_100, try inode.commit(writing: sector(1), by: ann), session: session)
    try await test.apply(far, by: ann)
    await expectRefused(.operationTooOld) { try await test.apply(first, by: ann) }

    // A session belongs to who opened it.
    var others = inode
    let stolen = operation(1_101, try others.commit(writing: sector(9), by: bob), session: session)
    await expectRefused(.sessionUnknown) { try await test.apply(stolen, by: bob) }
    others = inode
    let unknown = operation(
      1, try others.commit(writing: sector(9), by: bob), session: [UInt8](repeating: 1, count: 16))
    await expectRefused(.sessionUnknown) { try await test.apply(unknown, by: bob) }
    await #expect(throws: SectorError.sessionUnknown) {
      try await reopened.result(of: OperationID(session: session, sequence: 5), by: bob.path)
    }
  }

  @Test("may follow others on the same inode without waiting for them, in a batch and in batches at once")
  func pipelined() async throws {
    let test = try await TestGroup()
    let ann = test.domain.ann
    let group = try test.group
    var inode = try await test.makeFile()
    var batch: [Commit] = []
    for number: UInt8 in 0..<40 {
      // From leaves in the record to a tree of two levels and back: each builds on nodes that are not on disk yet.
      if number == 30 { try inode.resize(to: 3) }
      batch.append(try inode.commit(writing: sector(number), at: number < 30 ? UInt64(number) * 5 : 1, by: ann))
    }
    for outcome in await group.perform(batch, by: ann.credential) {
      guard case .success(.applied) = outcome else {
        Issue.record("\(outcome)")
        return
      }
    }
    #expect(try await group.record(inode.fileID)?.version == 41)
    #expect(try await test.read(inode) == [0: sector(0), 1: sector(39)])

    // In separate batches, which are judged one after the other and waited for together.
    var waiting: [Task<[Result<CommitOutcome, SectorError>], Never>] = []
    for number: UInt8 in 100..<130 {
      let commit = try inode.commit(writing: sector(number), at: UInt64(number), by: ann)
      let started = AsyncStream<Void>.makeStream()
      waiting.append(
        Task {
          started.continuation.finish()
          return await group.perform([commit], by: ann.credential)
        })
      for await _ in started.stream {}
    }
    var versions: [Version] = []
    for task in waiting {
      for outcome in await task.value {
        if case .success(.applied(let receipt)) = outcome { versions += receipt.records.map(\.version) }
      }
    }
    // Tasks may overtake one another; what was applied is a row without gaps.
    #expect(!versions.isEmpty)
    #expect(try await group.record(inode.fileID)?.version == Version(41 + UInt64(versions.count)))
  }

  @Test("that fails takes those with it that were built on it, and leaves nothing behind for the next")
  func failureInFlight() async throws {
    let test = try await TestGroup()
    let ann = test.domain.ann
    let group = try test.group
    let inode = try await test.makeFile(sectors: [0: sector(1)])
    for round in 0..<30 {
      var tries = [inode, inode, inode]
      // Three writers who all think that they are next, each with two commits in a row.
      let current = try #require(try await group.record(inode.fileID))
      var batches: [[Commit]] = []
      for number in tries.indices {
        tries[number] = try TestInode.continuing(inode, at: current)
        let byte = UInt8(round * 3 + number)
        batches.append([
          try tries[number].commit(writing: sector(byte), by: ann),
          try tries[number].commit(writing: sector(byte), at: 1, by: ann),
        ])
      }
      let outcomes = await withTaskGroup(of: [Bool].self) { tasks in
        for batch in batches {
          tasks.addTask {
            await group.perform(batch, by: ann.credential).map {
              if case .success(.applied) = $0 { true } else { false }
            }
          }
        }
        return await tasks.reduce(into: []) { $0.append($1) }
      }
      #expect(outcomes.filter { $0 == [true, true] }.count == 1)
      #expect(outcomes.filter { $0 == [false, false] }.count == 2)
    }
    #expect(try await group.record(inode.fileID)?.version == 61)
  }

  @Test("of a batch is not built on what somebody else made of the version that an earlier one failed to make")
  func overtakenBatch() async throws {
    let test = try await TestGroup()
    let ann = test.domain.ann
    let group = try test.group
    let inode = try await test.makeFile(sectors: [0: sector(1)])
    let current = try #require(try await group.record(inode.fileID))
    var (slow, fast) = (try TestInode.continuing(inode, at: current), try TestInode.continuing(inode, at: current))
    let batch = [
      try slow.commit(writing: sector(2), at: 0, by: ann), try slow.commit(writing: sector(3), at: 1, by: ann),
    ]
    // It takes version 2, so that the batch's second commit, which makes version 3, seems to fit.
    try await test.apply(fast.commit(writing: sector(4), at: 2, by: ann), by: ann)
    for outcome in await group.perform(batch, by: ann.credential) {
      #expect(throws: SectorError.conflict(inode.fileID, current: 2)) { try outcome.get() }
    }
    #expect(try await test.read(inode) == [0: sector(1), 2: sector(4)])

    // In a message of its own the second one can say what it was built on.
    var alone = batch[1]
    let first = batch[0].records[0]
    alone.conditions = [.init(inode.fileID, first.version, acceptanceDigest: first.acceptanceDigest)]
    await expectRefused(.conflict(inode.fileID, current: 2)) { try await test.apply(alone, by: ann) }
    var next = try fast.commit(writing: sector(5), at: 3, by: ann)
    let present = try #require(try await group.record(inode.fileID))
    next.conditions = [.init(inode.fileID, 2, acceptanceDigest: present.acceptanceDigest)]
    try await test.apply(next, by: ann)
  }

  @Test("of records that are too many for one entry of the log is refused as too large")
  func manyRecords() async throws {
    let test = try await TestGroup()
    let node = test.domain.node
    let entries = try (0..<64).map {
      try AccessEntry(.principal(path("/" + String(repeating: "x", count: 200) + "\($0)")), .read)
    }
    let rules = AccessRules(owner: test.domain.ann.path, group: .root, mode: Mode(truncating: 0o644), entries: entries)
    var commit = Commit()
    let first = try await test.group.allocateInodes(100)
    for number in 0..<100 {
      var inode = TestInode(file(first + UInt64(number)), type: .file, rules: rules)
      commit.records += try inode.commit(by: node).records
    }
    // A segment of the tests' stores has 4 MiB.
    await #expect { try await test.apply(commit, by: node) } throws: { error in
      if case .tooLarge("record bytes", limit: 1 << 20, _) = error as? SectorError { true } else { false }
    }
  }

  @Test("removes an inode with its sectors, and gives numbers out once")
  func removal() async throws {
    let test = try await TestGroup()
    let (ann, bob, node) = (test.domain.ann, test.domain.bob, test.domain.node)
    let group = try test.group
    let before = group.status()
    let inode = try await test.makeFile(sectors: [0: sector(1), 1: sector(2)])
    #expect(group.status().inodes == before.inodes + 1)
    var removal = Commit()
    removal.removals = [inode.fileID]
    await expectRefused(.permissionDenied) { try await test.apply(removal, by: bob) }
    // Who may write the directory may remove what is in it.
    try await test.apply(removal, by: ann)
    #expect(try await group.record(inode.fileID) == nil)
    #expect(group.status().inodes == before.inodes)
    await expectRefused(.permissionDenied) { try await test.apply(removal, by: ann) }
    await expectRefused(.notFound(inode.fileID)) { try await test.apply(removal, by: node) }
    for number: UInt64 in [1, 2] {
      removal.removals = [file(number)]
      await #expect(throws: SectorError.self) { try await test.apply(removal, by: node) }
    }
    let first = try await group.allocateInodes(10)
    let second = try await group.allocateInodes(1)
    #expect(second == first + 10)
    try await test.reopen(orderly: false)
    #expect(try await test.group.allocateInodes(1) == second + 1)
    await expectRefused(.invalid(field: "count")) { _ = try await test.group.allocateInodes(0) }
    await expectRefused(.invalid(field: "count")) { _ = try await test.group.allocateInodes(65_537) }
    // A number that nobody was given is no number for a file.
    let rules = AccessRules(owner: ann.path, group: .root, mode: Mode(truncating: 0o644))
    var unallocated = TestInode(file(second + 100), type: .file, rules: rules)
    let commit = try unallocated.commit(by: ann)
    await expectRefused(.invalidRecord(unallocated.fileID, .malformed("file_id"))) {
      try await test.apply(commit, by: ann)
    }
  }

  @Test("of another generation, or of more than its limits, is refused")
  func limits() async throws {
    let test = try await TestGroup()
    let ann = test.domain.ann
    let rules = AccessRules(owner: ann.path, group: .root, mode: Mode(truncating: 0o644))
    var foreign = TestInode(FileID(generation: 2, inode: 9), type: .file, rules: rules)
    let elsewhere = try foreign.commit(by: ann)
    await expectRefused(.wrongGeneration(2)) { try await test.apply(elsewhere, by: ann) }
    var condition = Commit()
    condition.records = elsewhere.records
    condition.removals = [FileID(generation: 7, inode: 1)]
    await expectRefused(.wrongGeneration(2)) { try await test.apply(condition, by: ann) }
    await expectRefused(.wrongGeneration(7)) { _ = try await test.group.record(FileID(generation: 7, inode: 1)) }

    await expectRefused(.invalid(field: "records")) { try await test.apply(Commit(), by: ann) }
    var many = Commit()
    many.removals = (0..<1_025).map { file($0 + 10) }
    await expectRefused(.tooLarge("removals", limit: 1_024, found: 1_025)) { try await test.apply(many, by: ann) }
    many.removals = [file(9), file(9)]
    await expectRefused(.invalid(field: "removals")) { try await test.apply(many, by: ann) }
    var inode = try await test.makeFile()
    var large = try inode.commit(writing: sector(1), by: ann)
    large.conditions = Array(repeating: .init(.rootDirectory, 1), count: 1_025)
    await expectRefused(.tooLarge("conditions", limit: 1_024, found: 1_025)) { try await test.apply(large, by: ann) }
    large.conditions = []
    large.chains = Array(repeating: ann.credential.chain, count: 65)
    await expectRefused(.tooLarge("chains", limit: 64, found: 65)) { try await test.apply(large, by: ann) }
    large.chains = []
    large.blocks[inode.fileID]?.runs.append(
      SealedRun(start: 10, bytes: [UInt8](repeating: 0, count: 4 << 20), sectorSize: 4_096))
    await expectRefused(.tooLarge("blocks", limit: 4 << 20, found: 4 << 20 | 4_096)) {
      try await test.apply(large, by: ann)
    }
    // A record of more than 64 KiB, each part of which is within its bounds.
    var heavy = try await test.makeFile()
    heavy.attributes.extendedAttributes = [UInt8](repeating: 1, count: 16_000)
    heavy.attributes.readcaps = (0..<30).map { _ in
      Readcap(principal: ann.path, keyID: .zero, epoch: 1, sealedKey: [UInt8](repeating: 2, count: 460))
    }
    heavy.content.earlierKeys = (0..<256).map {
      SealedEpochKey(epoch: UInt32($0 + 1), sealedKey: sector(1).prefix(90).map { $0 })
    }
    heavy.links.parents = Array(repeating: file(1 << 60), count: 1_000)
    let attempt = try heavy.commit(by: test.domain.node)
    #expect(throws: RecordError.tooLarge("record")) { try attempt.records[0].serialized() }
    await expectRefused(.invalidRecord(heavy.fileID, .tooLarge("record"))) {
      try await test.apply(attempt, by: test.domain.node)
    }
    // After all this the group still serves.
    var last = try await test.makeFile()
    try await test.apply(last.commit(writing: sector(1), by: ann), by: ann)
  }

  @Test("is refused when blocks and tree do not fit, or belong to nothing")
  func integrity() async throws {
    let test = try await TestGroup()
    let ann = test.domain.ann
    let before = try await test.makeFile(sectors: [0: sector(1), 9: sector(2)])
    func expectRefused(_ what: Comment, _ change: (inout Commit) throws -> Void) async throws {
      var inode = before
      var commit = try inode.commit(writing: sector(3), at: 9, by: ann)
      try change(&commit)
      await #expect(throws: SectorError.self, what) { try await test.apply(commit, by: ann) }
    }
    let id = before.fileID
    try await expectRefused("no sector") { $0.blocks[id]?.runs = [] }
    try await expectRefused("no node") { $0.blocks[id]?.nodes = [:] }
    try await expectRefused("nothing") { $0.blocks = [:] }
    try await expectRefused("other bytes") {
      $0.blocks[id]?.runs = [SealedRun(start: 9, bytes: sector(9), sectorSize: 4_096)]
    }
    try await expectRefused("another place") {
      let bytes = try #require($0.blocks[id]?.runs.first?.bytes)
      $0.blocks[id]?.runs = [SealedRun(start: 8, bytes: bytes, sectorSize: 4_096)]
    }
    try await expectRefused("one too many") {
      $0.blocks[id]?.runs.append(SealedRun(start: 0, bytes: sector(9), sectorSize: 4_096))
    }
    try await expectRefused("half a sector") {
      $0.blocks[id]?.runs.append(SealedRun(start: 20, bytes: Array(sector(9).prefix(100)), sectorSize: 4_096))
    }
    try await expectRefused("a node with another byte") { $0.blocks[id]?.nodes[NodeKey(level: 1, index: 0)]?[9] ^= 1 }
    try await expectRefused("blocks of another inode") { $0.blocks[.rootDirectory] = $0.blocks[id] }
    try await expectRefused("far beyond the end") {
      $0.blocks[id]?.runs.append(SealedRun(start: .max - 1, bytes: sector(9), sectorSize: 4_096))
    }
    #expect(try await test.read(before) == [0: sector(1), 9: sector(2)])
    var inode = before
    try await test.apply(inode.commit(writing: sector(3), at: 9, by: ann), by: ann)
  }

  @Test("finds damage on the disk, and reads of what is whole go on")
  func damage() async throws {
    let test = try await TestGroup()
    let ann = test.domain.ann
    var inode = try await test.makeFile(sectors: [0: sector(1)])
    let commit = try inode.commit(writing: sector(2), at: 7, by: ann)
    let sealed = try #require(commit.blocks[inode.fileID]?.runs.first?.bytes)
    let node = try #require(commit.blocks[inode.fileID]?.nodes.values.first)
    try await test.apply(commit, by: ann)
    try await test.reopen(orderly: true)
    try test.damage(sealed, in: "sectors")
    let group = try test.group
    _ = try await group.read(inode.fileID, level: 0, indexes: 0..<1, version: 2)
    await expectRefused(.dataLoss(inode.fileID, place: .block(level: 0, index: 7))) {
      _ = try await group.read(inode.fileID, level: 0, indexes: 0..<8, version: 2)
    }
    // To write the sector anew repairs it.
    try await test.apply(inode.commit(writing: sector(3), at: 7, by: ann), by: ann)
    #expect(try await test.read(inode) == [0: sector(1), 7: sector(3)])
    // Where a node is damaged no commit can be judged by it.
    let changed = try await group.read(inode.fileID, level: 1, indexes: 0..<1, version: 3)
    #expect(changed[0].map(Array.init) != node)
    try test.damage(try #require(changed[0].map(Array.init)), in: "nodes")
    let next = try inode.commit(writing: sector(4), at: 8, by: ann)
    await expectRefused(.dataLoss(inode.fileID, place: .block(level: 1, index: 0))) {
      try await test.apply(next, by: ann)
    }
    try await test.makeFile().removed(from: test)
  }

  @Test("keeps a version readable for as long as somebody reads it")
  func pins() async throws {
    let test = try await TestGroup()
    let ann = test.domain.ann
    let group = try test.group
    var inode = try await test.makeFile(sectors: [0: sector(1)])
    let old = try await group.read(inode.fileID, level: 0, indexes: 0..<1, version: 1)
    let pin = try group.pin(inode.fileID, version: nil)
    #expect(pin.version == 1)
    try await test.apply(inode.commit(writing: sector(2), by: ann), by: ann)
    #expect(try await group.read(inode.fileID, level: 0, indexes: 0..<1, version: 1).bytes == old.bytes)
    pin.release()
    await expectRefused(.versionGone(inode.fileID, version: 1, current: 2)) {
      _ = try await group.read(inode.fileID, level: 0, indexes: 0..<1, version: 1)
    }
    #expect(throws: SectorError.versionGone(inode.fileID, version: 3, current: 2)) {
      try group.pin(inode.fileID, version: 3)
    }
  }
}

extension TestInode {
  /// The same file as somebody else sees it who has read this record.
  static func continuing(_ inode: TestInode, at record: InodeRecord) throws -> TestInode {
    var copy = inode
    try copy.take(record)
    return copy
  }

  fileprivate func removed(from test: TestGroup) async throws {
    var removal = Commit()
    removal.removals = [self.fileID]
    try await test.apply(removal, by: test.domain.node)
  }
}

extension TestGroup {
  /// Flips a bit of these bytes where they lie in the store's data files.
  func damage(_ bytes: [UInt8], in prefix: String) throws {
    let directory = URL(filePath: self.directory + "/store/data")
    var found = 0
    for name in try FileManager.default.contentsOfDirectory(atPath: directory.path) where name.hasPrefix(prefix) {
      let url = directory.appending(path: name)
      let data = try Data(contentsOf: url)
      guard let range = data.range(of: Data(bytes)) else { continue }
      let handle = try FileHandle(forUpdating: url)
      try handle.seek(toOffset: UInt64(range.lowerBound + 100))
      try handle.write(contentsOf: [bytes[100] ^ 1])
      try handle.close()
      found += 1
    }
    #expect(found == 1)
  }
}
