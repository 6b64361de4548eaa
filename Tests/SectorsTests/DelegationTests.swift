// SPDX-License-Identifier: Apache-2.0

import Inodes
import SectorStore
import Sectors
import Testing
import Trust

@Suite("Handing a directory to a cluster of its own", .timeLimit(.minutes(2)))
struct DelegationTests {
  @Test("is for a process with the sector mark in that directory, once, for a generation that it was given")
  func delegation() async throws {
    let test = try await TestGroup()
    let (ann, node) = (test.domain.ann, test.domain.node)
    let nas = try test.domain.principal(.process, "/site-b/nas1", services: [.sector])
    let fs = try test.domain.principal(.process, "/site-b/fs1", services: [.filesystem])
    let made = try await test.makeFile(mode: 0o700, type: .directory)
    let other = try await test.makeFile(mode: 0o777, type: .directory)
    try await test.add(fs, to: made.fileID)
    let group = try test.group
    let generation = try await group.allocateGeneration(claim: claim(1), for: nas.path)
    let foreign = try await group.allocateGeneration(claim: claim(1), for: node.path)

    /// Expects that a change of a directory is refused.
    func refuse(
      _ error: SectorError, _ inode: TestInode, by principal: TestPrincipal, _ parts: TestInode.Parts = .attributes,
      sourceLocation: SourceLocation = #_sourceLocation, _ change: (inout TestInode) -> Void
    ) async throws {
      var inode = inode
      change(&inode)
      let commit = try inode.commit(parts, by: principal)
      await expectRefused(error, sourceLocation: sourceLocation) { try await test.apply(commit, by: principal) }
    }
    // Its credential is not there yet.
    try await refuse(.permissionDenied, made, by: nas) { $0.attributes.servedByGeneration = generation }
    try await test.add(nas, to: made.fileID)
    // Not even its owner, nor a filesystem service above or there, whomever it acts for.
    for principal in [ann, node, fs] {
      try await refuse(.permissionDenied, made, by: principal) { $0.attributes.servedByGeneration = generation }
    }
    try await refuse(.permissionDenied, made, by: node) {
      $0.attributes.servedByGeneration = generation
      $0.attributes.actingFor = nas.path
    }
    // Nothing else goes with it.
    try await refuse(.permissionDenied, made, by: nas) {
      $0.attributes.servedByGeneration = generation
      $0.attributes.actingFor = ann.path
    }
    try await refuse(.permissionDenied, made, by: nas) {
      $0.attributes.servedByGeneration = generation
      $0.attributes.rules.mode = Mode(truncating: 0o777)
    }
    try await refuse(.permissionDenied, made, by: nas, [.attributes, .content]) {
      $0.attributes.servedByGeneration = generation
    }
    try await refuse(.permissionDenied, made, by: nas) { $0.attributes.changed += 1 }
    try await refuse(.permissionDenied, other, by: nas) { $0.attributes.servedByGeneration = generation }
    // Only its own number.
    try await refuse(.generationUnknown(foreign), made, by: nas) { $0.attributes.servedByGeneration = foreign }
    let unknown = Generation(foreign.rawValue + 1)
    try await refuse(.generationUnknown(unknown), made, by: nas) { $0.attributes.servedByGeneration = unknown }

    var directory = made
    directory.attributes.servedByGeneration = generation
    directory.attributes.changed += 1
    try await test.apply(directory.commit(.attributes, by: nas), by: nas)
    try await test.reopen(orderly: false)
    let stored = try await test.group.record(directory.fileID)
    #expect(stored?.attributes.part.servedByGeneration == generation)
    // It stays what it is, whatever else becomes of the directory, until a filesystem service above takes it back.
    let second = try await test.group.allocateGeneration(claim: claim(2), for: nas.path)
    try await refuse(
      .invalidRecord(directory.fileID, .contradiction("served_by_generation")), directory, by: nas
    ) { $0.attributes.servedByGeneration = second }
    for principal in [ann, nas, fs] {
      try await refuse(.permissionDenied, directory, by: principal) { $0.attributes.servedByGeneration = nil }
    }
    directory.attributes.rules.mode = Mode(truncating: 0o755)
    try await test.apply(directory.commit(.attributes, by: ann), by: ann)
    directory.attributes.servedByGeneration = nil
    try await test.apply(directory.commit(.attributes, by: node), by: node)
    // What was taken back is not handed out again, by whoever leads; another one is.
    try await refuse(.generationUnknown(generation), directory, by: nas) {
      $0.attributes.servedByGeneration = generation
    }
    try await test.reopen(orderly: false)
    try await refuse(.generationUnknown(generation), directory, by: nas) {
      $0.attributes.servedByGeneration = generation
    }
    directory.attributes.servedByGeneration = second
    try await test.apply(directory.commit(.attributes, by: nas), by: nas)
  }

  @Test("never happens as an inode is created, nor to the root directory or a file")
  func place() async throws {
    let test = try await TestGroup()
    let node = test.domain.node
    let generation = try await test.group.allocateGeneration(claim: claim(1), for: node.path)
    let rules = AccessRules(owner: test.domain.ann.path, group: .root, mode: Mode(truncating: 0o755))
    var new = TestInode(try await test.number(), type: .directory, rules: rules)
    new.attributes.servedByGeneration = generation
    let creation = try new.commit(by: node)
    await expectRefused(.permissionDenied) { try await test.apply(creation, by: node) }
    var root = TestInode(.rootDirectory, type: .directory, rules: rules)
    try root.take(#require(await test.group.record(.rootDirectory)))
    root.attributes.servedByGeneration = generation
    let commit = try root.commit(.attributes, by: node)
    await expectRefused(.permissionDenied) { try await test.apply(commit, by: node) }
  }

  @Test("is won by one of those that do it at once, and the others see who was first")
  func race() async throws {
    let test = try await TestGroup()
    let group = try test.group
    let directory = try await test.makeFile(mode: 0o700, type: .directory)
    var commits: [(TestPrincipal, Commit)] = []
    for number: UInt8 in 1...4 {
      let nas = try test.domain.principal(.process, "/site-b/nas\(number)", services: [.sector])
      try await test.add(nas, to: directory.fileID)
      var changed = directory
      changed.attributes.servedByGeneration = try await group.allocateGeneration(claim: claim(number), for: nas.path)
      commits.append((nas, try changed.commit(.attributes, by: nas)))
    }
    let outcomes = await withTaskGroup(of: Result<CommitOutcome, SectorError>.self) { tasks in
      for (nas, commit) in commits {
        tasks.addTask { await group.perform([commit], by: nas.credential).first ?? .failure(.busy) }
      }
      return await tasks.reduce(into: []) { $0.append($1) }
    }
    var refusals: [SectorError] = []
    for case .failure(let error) in outcomes { refusals.append(error) }
    #expect(refusals == [SectorError](repeating: .conflict(directory.fileID, current: 2), count: 3))
    let stored = try #require(await group.record(directory.fileID))
    let served = try #require(stored.attributes.part.servedByGeneration)
    #expect(commits.contains { $0.1.records[0].attributes.part.servedByGeneration == served })
  }

  @Test("leaves it a process that stores it: the credential of the last one stays")
  func lastProcess() async throws {
    let test = try await TestGroup()
    let node = test.domain.node
    let nas = try test.domain.principal(.process, "/site-b/nas1", services: [.sector])
    let second = try test.domain.principal(.process, "/site-b/nas2", services: [.sector])
    let helper = try test.domain.principal(.process, "/site-b/fs1", services: [.filesystem])
    let directory = try await test.makeFile(type: .directory)
    let plain = try await test.makeFile(type: .directory)
    var ofNas = try await test.add(nas, to: directory.fileID)
    try await test.add(helper, to: directory.fileID)
    let lonely = try await test.add(
      test.domain.principal(.process, "/plain/nas", services: [.sector]), to: plain.fileID)
    try await test.delegate(directory, by: nas)

    func remove(_ inodes: TestInode...) async throws {
      var commit = Commit()
      commit.removals = inodes.map(\.fileID)
      try await test.apply(commit, by: node)
    }
    let refusal = SectorError.delegated(try path("/site-b"))
    await expectRefused(refusal) { try await remove(ofNas) }
    // Nor does it lose the mark, or its place.
    let before = ofNas
    ofNas.credential = try TestDomain.principal(
      .process, "/site-b/nas1", services: [], keys: nas.keys, serial: 2, by: test.domain.authority
    ).credentialFile.bytes
    let unmarked = try ofNas.commit([], by: node)
    await expectRefused(refusal) { try await test.apply(unmarked, by: node) }
    ofNas = before
    ofNas.links.parents = [plain.fileID]
    let moved = try ofNas.commit(.links, by: node)
    await expectRefused(refusal) { try await test.apply(moved, by: node) }
    ofNas = before
    // A newer credential is fine.
    ofNas.credential = try TestDomain.principal(
      .process, "/site-b/nas1", services: [.sector], keys: nas.keys, serial: 2, by: test.domain.authority
    ).credentialFile.bytes
    try await test.apply(ofNas.commit([], by: node), by: node)

    let ofSecond = try await test.add(second, to: directory.fileID)
    await expectRefused(refusal) { try await remove(ofNas, ofSecond) }
    try await remove(ofNas)
    await expectRefused(refusal) { try await remove(ofSecond) }
    // Nobody is served by this one.
    try await remove(lonely)
  }

  @Test("leaves it a process that stores it, whatever comes and goes at the same time", arguments: Seeds.take(4))
  func lastProcessRace(seed: UInt64) async throws {
    print("SECTORS_SEED=\(seed)")
    var random = SeededGenerator(seed: seed)
    let test = try await TestGroup()
    let group = try test.group
    let node = test.domain.node
    for round in 0..<6 {
      let directory = try await test.makeFile(type: .directory)
      var commits: [(TestPrincipal, Commit)] = []
      for number in 1...(random.chance(50) ? 1 : 3) {
        let nas = try test.domain.principal(.process, "/site-\(round)/nas\(number)", services: [.sector])
        let inode = try await test.add(nas, to: directory.fileID)
        if number == 1 {
          var changed = directory
          changed.attributes.servedByGeneration = try await group.allocateGeneration(claim: claim(1), for: nas.path)
          commits.append((nas, try changed.commit(.attributes, by: nas)))
        }
        var removal = Commit()
        removal.removals = [inode.fileID]
        commits.append((node, removal))
      }
      commits.shuffle(using: &random)
      await withTaskGroup(of: Void.self) { tasks in
        for (principal, commit) in commits {
          tasks.addTask { _ = await group.perform([commit], by: principal.credential) }
        }
      }
      let record = try await group.record(directory.fileID)
      let isServed = record?.attributes.part.servedByGeneration != nil
      let hosts = try group.credentials.processes(in: path("/site-\(round)"))
      #expect(!isServed || !hosts.isEmpty, "round \(round)")
    }
  }
}

@Suite("Generations", .timeLimit(.minutes(2)))
struct GenerationTests {
  @Test("are handed out once each, the same for the same claim of the same process, for good")
  func allocation() async throws {
    let test = try await TestGroup()
    let group = try test.group
    let processes = try (1...3).map { try path("/site-\($0)/nas") }
    #expect(group.nextGeneration == 2)
    await expectRefused(.invalid(field: "claim")) {
      _ = try await group.allocateGeneration(claim: [1], for: processes[0])
    }
    // Each claim several times at once.
    struct Key: Hashable {
      let process: TreePath
      let claim: UInt8
    }
    let answers = try await withThrowingTaskGroup(of: (Key, Generation).self) { tasks in
      for _ in 0..<3 {
        for process in processes {
          for number: UInt8 in 1...8 {
            tasks.addTask {
              (
                Key(process: process, claim: number),
                try await group.allocateGeneration(claim: claim(number), for: process)
              )
            }
          }
        }
      }
      return try await tasks.reduce(into: [Key: Set<Generation>]()) { $0[$1.0, default: []].insert($1.1) }
    }
    #expect(answers.count == 24 && answers.values.allSatisfy { $0.count == 1 })
    #expect(Set(answers.values.flatMap(\.self)) == Set((2...25).map { Generation($0) }))
    #expect(group.nextGeneration == 26)
    for orderly in [false, true] {
      try await test.reopen(orderly: orderly)
      #expect(try test.group.nextGeneration == (orderly ? 27 : 26))
      for (key, generations) in answers {
        let again = try await test.group.allocateGeneration(claim: claim(key.claim), for: key.process)
        #expect([again] == generations)
      }
      if !orderly {
        #expect(try await test.group.allocateGeneration(claim: claim(9), for: processes[0]) == 26)
      }
    }
  }

  @Test("are so many for one process, and no more")
  func limit() async throws {
    let test = try await TestGroup()
    let process = try path("/site-b/nas1")
    let limit = UInt8(SectorLimits.claimsMax)
    for number in 1...limit {
      _ = try await test.group.allocateGeneration(claim: claim(number), for: process)
      if number == limit / 2 { try await test.reopen(orderly: false) }
    }
    let group = try test.group
    await expectRefused(.limitReached("generations", limit: 64)) {
      _ = try await group.allocateGeneration(claim: claim(limit + 1), for: process)
    }
    #expect(try await group.allocateGeneration(claim: claim(limit), for: process).rawValue == 65)
    #expect(try await group.allocateGeneration(claim: claim(limit), for: path("/site-c/nas1")).rawValue == 66)
  }

  @Test("are handed out once each while leadership changes", arguments: Seeds.take(1))
  func failover(seed: UInt64) async throws {
    print("SECTORS_SEED=\(seed)")
    try await ThreeMembers.with { cluster in
      let processes = try (1...2).map { try path("/site-\($0)/nas") }
      let answers = try await withThrowingTaskGroup(of: [Answer].self) { tasks in
        for worker in 0..<6 {
          let random = SeededGenerator(seed: seed &+ UInt64(worker))
          let process = processes[worker % 2]
          tasks.addTask { try await Self.allocate(for: process, at: cluster, random) }
        }
        for _ in 0..<3 {
          try await Task.sleep(for: .milliseconds(200))
          let leader = cluster.members[try await cluster.leader()].group
          _ = try? await leader.transferLeadership(to: nil)
        }
        return try await tasks.reduce([], +)
      }
      var byClaim: [String: Set<Generation>] = [:]
      for answer in answers { byClaim["\(answer.process) \(answer.claim)", default: []].insert(answer.generation) }
      #expect(byClaim.values.allSatisfy { $0.count == 1 })
      #expect(Set(byClaim.values.flatMap(\.self)).count == byClaim.count)
    }
  }

  struct Answer: Sendable {
    let process: TreePath
    let claim: UInt8
    let generation: Generation
  }

  /// Asks whoever may lead, until each claim was answered.
  private static func allocate(
    for process: TreePath, at cluster: ThreeMembers, _ random: SeededGenerator
  ) async throws -> [Answer] {
    var random = random
    var answers: [Answer] = []
    for _ in 0..<24 {
      let number = UInt8.random(in: 1...20, using: &random)
      while true {
        try Task.checkCancellation()
        let member = Int.random(in: 0..<3, using: &random)
        do throws(SectorError) {
          let group = cluster.members[member].group
          let generation = try await group.allocateGeneration(claim: claim(number), for: process)
          answers.append(Answer(process: process, claim: number, generation: generation))
          break
        } catch {
          switch error {
          case .notLeader, .leadershipLost, .busy: try await Task.sleep(for: .milliseconds(5))
          default: throw error
          }
        }
      }
    }
    return answers
  }
}
