// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Filesystem
import GRPCCore
import Inodes
import Node
import SectorStore
import Sectors
import Synchronization
import Testing
import Transport
import Trust

@Suite("The volume of another cluster", .timeLimit(.minutes(5)))
struct VolumesTests {
  // MARK: Reading

  @Test("has the records that the cluster has, with signatures that verify")
  func records() async throws {
    let cluster = try await VolumeCluster()
    let faults = VolumeFaults()
    try await cluster.withVolume(faults: faults) { volume in
      #expect(volume.generation == .root)
      #expect(volume.sectorSize == VolumeCluster.sectorSize)
      var inode = try await cluster.makeFile()
      let record = try #require(try await volume.record(inode.fileID))
      #expect(record.version == 1)
      #expect(record.acceptance != nil)
      try await volume.verify(record)
      // Who signed is asked once.
      let asked = faults.count("ReadCertificates")
      try await volume.verify(record)
      #expect(faults.count("ReadCertificates") == asked)
      // A newer one is seen at once by whoever asks for the newest, and only by them.
      try await cluster.apply(inode.commit(by: cluster.node))
      let reads = faults.count("ReadRecords")
      #expect(try await volume.storedRecord(inode.fileID)?.version == 1)
      #expect(faults.count("ReadRecords") == reads)
      #expect(try await volume.record(inode.fileID)?.version == 2)
      #expect(try await volume.storedRecord(inode.fileID)?.version == 2)
      let absent = FileID(generation: .root, inode: 999)
      #expect(try await volume.record(absent) == nil)
      await #expect(throws: SectorError.wrongGeneration(7)) {
        _ = try await volume.record(FileID(generation: 7, inode: 3))
      }
    }
  }

  @Test("takes no record for good that was not accepted by a member, or is signed wrongly")
  func forgedRecords() async throws {
    let cluster = try await VolumeCluster()
    try await cluster.withVolume { volume in
      let inode = try await cluster.makeFile()
      let record = try #require(try await volume.record(inode.fileID))
      func accepted(by principal: VolumePrincipal) throws -> InodeRecord {
        var forged = record
        forged.acceptance = Acceptance(
          signature: try principal.keys.signing.sign(record.acceptanceDigest, purpose: .acceptance, cache: nil),
          signer: principal.credential.chainDigest, accepted: 1)
        return forged
      }
      // The cluster has to know the person's chain.
      var commit = Commit()
      commit.chains = [cluster.person.credential.chain]
      var other = try await cluster.makeFile()
      commit.records = [try other.next(by: cluster.node)]
      try await cluster.apply(commit)
      try await volume.verify(accepted(by: cluster.node))
      var forgeries = [try accepted(by: cluster.person)]
      var unaccepted = record
      unaccepted.acceptance = nil
      forgeries.append(unaccepted)
      // The combination was never accepted.
      var mixed = record
      mixed.content = try #require(other.record).content
      forgeries.append(mixed)
      // Accepted by a member, but the part is not what its signer has signed.
      let signer = cluster.node.signer
      let genuine = try signer.sign(inode.content)
      var changed = inode.content
      changed.modified = 77
      var wrong = record
      wrong.content = try Signed(body: changed.encoded(), signature: genuine.signature, signer: genuine.signer)
      wrong.acceptance = Acceptance(
        signature: try cluster.node.keys.signing.sign(wrong.acceptanceDigest, purpose: .acceptance, cache: nil),
        signer: cluster.node.credential.chainDigest, accepted: 1)
      forgeries.append(wrong)
      for forgery in forgeries {
        await #expect(throws: SectorError.dataLoss(inode.fileID, place: .record)) { try await volume.verify(forgery) }
      }
    }
  }

  @Test("reads sectors, holes and tree nodes that verify against the record")
  func sectors() async throws {
    let cluster = try await VolumeCluster()
    try await cluster.withVolume { volume in
      // More than one message holds, with a hole in it.
      var contents: [UInt64: [UInt8]] = [:]
      for index in 0..<UInt64(150) where index != 70 { contents[index] = volumeSector(UInt8(index)) }
      var inode = try await cluster.makeFile(sectors: contents)
      let record = try #require(try await volume.record(inode.fileID))
      try await volume.verify(record)
      var tree = IntegrityTree(record.content.part)
      #expect(tree.levels > 1)
      while case let missing = tree.missing(for: 0..<150), !missing.isEmpty {
        for key in missing {
          let range = try await volume.read(
            inode.fileID, level: key.level, indexes: key.index..<key.index + 1, version: record.version)
          try tree.insert(Array(#require(range[key.index])), at: key)
        }
      }
      let range = try await volume.read(inode.fileID, level: 0, indexes: 0..<150, version: record.version)
      #expect(range.indexes == 0..<150)
      for index in UInt64(0)..<150 {
        let leaf = try tree.leaf(at: index)
        guard let sealed = range[index] else {
          #expect(index == 70)
          #expect(leaf.isHole)
          continue
        }
        var plain: [UInt8] = []
        try inode.cipher.open(
          Array(sealed), leaf: leaf, at: index, range: 0..<VolumeCluster.sectorSize, into: &plain)
        #expect(plain == contents[index])
      }
      // What is overwritten and kept by nobody is gone.
      try inode.write([3: volumeSector(1)])
      try await cluster.apply(inode.commit(by: cluster.node))
      let gone = SectorError.versionGone(inode.fileID, version: 1, current: 2)
      await #expect(throws: gone) {
        _ = try await volume.read(inode.fileID, level: 0, indexes: 3..<4, version: 1)
      }
      let tooMany = UInt64(4 << 20) / UInt64(VolumeCluster.sectorSize) + 1
      await #expect(throws: SectorError.self) {
        _ = try await volume.read(inode.fileID, level: 0, indexes: 0..<tooMany, version: 2)
      }
    }
  }

  // MARK: Commits

  @Test("commits, and says what a commit conflicts with")
  func commits() async throws {
    let cluster = try await VolumeCluster()
    let caller = cluster.caller.credential
    try await cluster.withVolume { volume in
      var inode = VolumeInode(try await volume.allocateInodes(1), type: .file)
      try inode.write([0: volumeSector(1), 9: volumeSector(2)])
      guard case .applied(let receipt) = try await volume.perform(inode.commit(by: cluster.caller), by: caller) else {
        throw VolumeTestFailure()
      }
      #expect(receipt.members == [cluster.node.path])
      let record = try #require(receipt.records.first)
      try await volume.verify(record)
      #expect(try await cluster.group.record(inode.fileID) == record)
      // A change that is built on a version that is not the newest any more.
      var late = inode
      try await cluster.apply(inode.commit(by: cluster.node))
      await #expect(throws: SectorError.conflict(inode.fileID, current: 2)) {
        _ = try await volume.perform(late.commit(by: cluster.caller), by: caller)
      }
      var commit = Commit()
      commit.conditions = [.init(inode.fileID, 2)]
      commit.removals = [inode.fileID]
      _ = try await volume.perform(commit, by: caller)
      #expect(try await volume.storedRecord(inode.fileID) == nil)
      #expect(try await cluster.group.record(inode.fileID) == nil)
    }
  }

  @Test("applies a commit once, though its answer is lost again and again")
  func lostAnswers() async throws {
    let cluster = try await VolumeCluster()
    let caller = cluster.caller.credential
    let faults = VolumeFaults()
    try await cluster.withVolume(faults: faults) { volume in
      var inode = VolumeInode(try await volume.allocateInodes(1), type: .file)
      faults.inject(.loseAnswer {}, .loseAnswer {}, into: "Commit")
      guard case .applied(let receipt) = try await volume.perform(inode.commit(by: cluster.caller), by: caller) else {
        throw VolumeTestFailure()
      }
      #expect(faults.count("Commit") == 3)
      let record = try #require(receipt.records.first)
      try await volume.verify(record)
      #expect(try await cluster.group.record(inode.fileID) == record)
      // Somebody else builds on it before it is sent again: it was applied all the same.
      let second = try inode.commit(by: cluster.caller)
      let third = Mutex(try inode.commit(by: cluster.node))
      faults.inject(.loseAnswer { try await cluster.apply(third.withLock { $0 }) }, into: "Commit")
      guard case .applied(let receipt) = try await volume.perform(second, by: caller) else { throw VolumeTestFailure() }
      #expect(receipt.records.map(\.version) == [2])
      #expect(try await volume.record(inode.fileID)?.version == 3)
    }
  }

  @Test("says of a commit with operations that it was applied before, and what they were answered with")
  func operations() async throws {
    let cluster = try await VolumeCluster()
    let caller = cluster.caller.credential
    let person = cluster.person.path
    let faults = VolumeFaults()
    try await cluster.withVolume(faults: faults) { volume in
      let session = try await volume.openSession(owner: person)
      let operation = OperationID(session: session, sequence: 1)
      #expect(try await volume.result(of: operation, by: person) == nil)
      var inode = VolumeInode(try await volume.allocateInodes(1), type: .file)
      var commit = try inode.commit(by: cluster.caller)
      commit.operations = [.init(id: operation, result: [1, 2, 3])]
      faults.inject(.loseAnswer {}, into: "Commit")
      guard case .repeated = try await volume.perform(commit, by: caller) else { throw VolumeTestFailure() }
      #expect(try await volume.result(of: operation, by: person) == [1, 2, 3])
      #expect(try await volume.record(inode.fileID)?.version == 1)
    }
  }

  @Test("takes over sessions of other clusters, and none of anybody else's")
  func sessions() async throws {
    let cluster = try await VolumeCluster()
    let person = cluster.person.path
    try await cluster.withVolume { volume in
      let session = [UInt8](repeating: 7, count: 16)
      await #expect(throws: SectorError.sessionUnknown) {
        _ = try await volume.result(of: OperationID(session: session, sequence: 1), by: person)
      }
      try await volume.adopt(session: session, owner: person)
      try await volume.adopt(session: session, owner: person)
      #expect(try await volume.result(of: OperationID(session: session, sequence: 1), by: person) == nil)
      await #expect(throws: SectorError.sessionUnknown) {
        try await volume.adopt(session: session, owner: cluster.node.path)
      }
      let first = try await volume.openSession(owner: person)
      let second = try await volume.openSession(owner: person)
      #expect(first != second)
    }
  }

  @Test("opens a new session for its own commits when the cluster has forgotten the former")
  func forgottenSession() async throws {
    let cluster = try await VolumeCluster()
    let caller = cluster.caller.credential
    let faults = VolumeFaults()
    try await cluster.withVolume(faults: faults) { volume in
      var inode = VolumeInode(try await volume.allocateInodes(1), type: .file)
      faults.inject(.refuse(.sessionUnknown), into: "Commit")
      _ = try await volume.perform(inode.commit(by: cluster.caller), by: caller)
      #expect(faults.count("OpenSession") == 2)
      #expect(try await volume.record(inode.fileID)?.version == 1)
    }
  }

  @Test("hands out numbers once, though the answer is lost")
  func allocation() async throws {
    let cluster = try await VolumeCluster()
    let faults = VolumeFaults()
    try await cluster.withVolume(faults: faults) { volume in
      let first = try await volume.allocateInodes(10)
      faults.inject(.loseAnswer {}, into: "AllocateInodes")
      let second = try await volume.allocateInodes(10)
      #expect(second >= first + 10)
      #expect(try await cluster.group.allocateInodes(1) >= second + 10)
      await #expect(throws: SectorError.invalid(field: "count")) { _ = try await volume.allocateInodes(0) }
    }
  }

  @Test("serves many at the same time")
  func concurrency() async throws {
    let cluster = try await VolumeCluster()
    let caller = cluster.caller.credential
    try await cluster.withVolume { volume in
      let count = 64
      let first = try await volume.allocateInodes(UInt32(count))
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        for number in 0..<count {
          tasks.addTask {
            var inode = VolumeInode(first + UInt64(number), type: .file)
            for version in 1...3 {
              try inode.write([0: volumeSector(UInt8(number))])
              _ = try await volume.perform(inode.commit(by: cluster.caller), by: caller)
              let record = try #require(try await volume.record(inode.fileID))
              #expect(record.version == Version(UInt64(version)))
              try await volume.verify(record)
              let range = try await volume.read(inode.fileID, level: 0, indexes: 0..<1, version: record.version)
              let leaf = try #require(record.content.part.leaves.first)
              var plain: [UInt8] = []
              try inode.cipher.open(
                Array(#require(range[0])), leaf: leaf, at: 0, range: 0..<VolumeCluster.sectorSize, into: &plain)
              #expect(plain == volumeSector(UInt8(number)))
            }
          }
        }
        try await tasks.waitForAll()
      }
    }
  }

  // MARK: Who is called

  @Test("reads at whoever answers, and commits at the process that leads")
  func leader() async throws {
    let cluster = try await VolumeCluster()
    let follower = VolumeFaults()
    try await cluster.serve { leader in
      let hint = SectorLeader(path: leader.path, addresses: leader.addresses)
      for method in ["Commit", "AllocateInodes", "OpenSession"] {
        follower.set(.refuse(.notLeader(hint)), for: method)
      }
      try await cluster.serve(as: cluster.other, faults: follower) { other in
        // Only the follower is known before.
        try await cluster.withVolumes { _ in
          [other]
        } _: { volumes, _ in
          let volume = try await volumes.volume(.root, serving: .root, .rootDirectory)
          #expect(try await volume.record(.rootDirectory) != nil)
          #expect(follower.count("ReadRecords") == 1)
          var inode = VolumeInode(try await volume.allocateInodes(1), type: .file)
          _ = try await volume.perform(inode.commit(by: cluster.caller), by: cluster.caller.credential)
          #expect(follower.count("Commit") == 0)
          #expect(try await volume.record(inode.fileID)?.version == 1)
        }
      }
    }
  }

  @Test("passes over a process that serves another generation, or does not answer any more")
  func otherProcesses() async throws {
    let cluster = try await VolumeCluster()
    let faults = VolumeFaults()
    var timing = RemoteVolumes.Timing()
    timing.watchInterval = .milliseconds(20)
    timing.probePatience = .milliseconds(200)
    timing.readTimeout = .seconds(60)
    faults.set(.refuse(.wrongGeneration(4)), for: "Status")
    try await cluster.serve { [timing] good in
      try await cluster.serve(as: cluster.other, faults: faults) { bad in
        try await cluster.withVolumes(timing: timing) { _ in
          [bad, good]
        } _: { volumes, _ in
          let volume = try await volumes.volume(.root, serving: .root, .rootDirectory)
          #expect(faults.count("Status") == 1)
          #expect(volume.sectorSize == VolumeCluster.sectorSize)
        }
        faults.set(nil, for: "Status")
        try await cluster.withVolumes(timing: timing) { _ in
          [bad, good]
        } _: { volumes, _ in
          let volume = try await volumes.volume(.root, serving: .root, .rootDirectory)
          #expect(faults.count("Status") == 2)
          for method in ["ReadRecords", "Check"] { faults.set(.hang, for: method) }
          let record = try await volume.record(.rootDirectory)
          #expect(record != nil)
          #expect(faults.count("ReadRecords") == 1)
        }
      }
    }
  }

  @Test("can not be reached when nobody is known, or nobody answers; and is found again at another place")
  func unreachable() async throws {
    let cluster = try await VolumeCluster()
    let places = Notes<[RemoteVolumes.Process]>([])
    try await cluster.withVolumes { _ in
      places.value
    } _: { volumes, pool in
      let unreachable = SectorError.unreachable(.root)
      await #expect(throws: unreachable) { _ = try await volumes.volume(.root, serving: .root, .rootDirectory) }
      let volume = try await cluster.serve { process in
        places.change { $0 = [process] }
        return try await volumes.volume(.root, serving: .root, .rootDirectory)
      }
      // Nobody is there any more.
      await #expect(throws: unreachable) { _ = try await volume.record(.rootDirectory) }
      var inode = VolumeInode(90, type: .file)
      let commit = try inode.commit(by: cluster.caller)
      await #expect(throws: unreachable) { _ = try await volume.perform(commit, by: cluster.caller.credential) }
      try await cluster.serve { process in
        places.change { $0 = [process] }
        #expect(try await volume.record(.rootDirectory) != nil)
        let again = try await volumes.volume(.root, serving: .root, .rootDirectory)
        #expect(again as AnyObject === volume as AnyObject)
      }
    }
  }

  @Test("does not know of a commit that was sent and never answered whether it was applied")
  func unknownOutcome() async throws {
    let cluster = try await VolumeCluster()
    let caller = cluster.caller.credential
    let faults = VolumeFaults()
    var timing = RemoteVolumes.Timing()
    timing.readTimeout = .seconds(2)
    timing.changeTimeout = .seconds(2)
    try await cluster.withVolume(faults: faults, timing: timing) { volume in
      var inode = VolumeInode(try await volume.allocateInodes(1), type: .file)
      let commit = try inode.commit(by: cluster.caller)
      faults.set(.loseAnswer {}, for: "Commit")
      await #expect(throws: SectorError.notServing) { _ = try await volume.perform(commit, by: caller) }
      #expect(try await volume.record(inode.fileID)?.version == 1)
      // Nothing was done at all.
      faults.set(.refuse(.notLeader(nil)), for: "Commit")
      let refused = await #expect(throws: SectorError.self) {
        _ = try await volume.perform(inode.commit(by: cluster.caller), by: caller)
      }
      // Unless the time is up just while an attempt is on its way, which happens where processors are busy: what comes of
      // that one is not known.
      #expect(refused == .unreachable(.root) || refused == .notServing)
      #expect(try await volume.record(inode.fileID)?.version == 1)
      // Of a read it does not matter.
      faults.set(.hang, for: "ReadRecords")
      await #expect(throws: SectorError.unreachable(.root)) { _ = try await volume.record(inode.fileID) }
    }
  }

  // MARK: Errors

  @Test(
    "gives back what the sector service threw",
    arguments: [
      SectorError.conflict(FileID(generation: 3, inode: 4), current: 5), .permissionDenied,
      .notFound(FileID(generation: 3, inode: 4)), .badSignature(FileID(generation: 3, inode: 4)),
      .invalid(field: "records"), .tooLarge("blocks", limit: 3, found: 4), .wrongGeneration(4),
      .versionGone(FileID(generation: 3, inode: 4), version: 5, current: 6),
      .dataLoss(FileID(generation: 3, inode: 4), place: .record),
      .dataLoss(FileID(generation: 3, inode: 4), place: .block(level: 0, index: 9)),
      .dataLoss(nil, place: .store("log")), .noSpace, .busy, .operationTooOld, .sessionUnknown, .fenced(current: 8),
      .lastProcess, .generationUnknown(9), .limitReached("links", limit: 1_000),
    ])
  func errors(_ error: SectorError) throws {
    let received = try BlocktreeError(thrown: RPCError(error))
    #expect(SectorError(remote: received) == error)
  }

  @Test("takes an answer that makes no sense for a fault")
  func senselessErrors() {
    for (reason, metadata) in [
      ("CONFLICT", ["file": "1", "current": "2"]), ("CONFLICT", ["file": "0:1", "current": "2"]), ("CONFLICT", [:]),
      ("VERSION_GONE", ["file": "1:2"]), ("NOT_FOUND", ["file": "x:y"]), ("SOMETHING", [:]),
    ] {
      let error = BlocktreeError(
        code: .aborted, reason: BlocktreeError.Reason(rawValue: reason), message: "", metadata: metadata)
      guard case .internalFault = SectorError(remote: error) else {
        Issue.record("\(reason) \(metadata)")
        continue
      }
    }
  }
}
