// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import Raft
import Replication
import SectorStore
import Sectors
import Testing
import Trust

@Suite("A group that has lost its majority", .timeLimit(.minutes(2)))
struct RecoveryTests {
  /// A store as it is left on one of three members, with entries behind what is known to be committed.
  private final class Survivor: Sendable {
    let domain: TestDomain
    let directory: String
    let member: UInt64

    init() async throws {
      let test = try await TestGroup()
      self.domain = test.domain
      self.directory = NSTemporaryDirectory() + "SectorsTests/" + UUID().uuidString
      let store = try test.group.store
      self.member = try #require(store.configuration.memberID)
      _ = try await test.makeFile()
      try await test.group.store.close()
      // Afterwards, two more voters that nobody has ever seen since.
      try FileManager.default.copyItem(atPath: test.directory + "/store", toPath: self.directory)
      let reopened = try self.open(appliesLog: true)
      var change = Change(term: 5)
      let membership = try #require(Membership(voters: [MemberID(self.member), MemberID(1), MemberID(2)]))
      change.facts = [SectorStore.membershipFact(membership.bytes)]
      _ = try await reopened.commit(change)
      try await reopened.checkpoint()
      // In the log, and nobody knows whether it is on others, too.
      var last = Change(term: 5)
      last.facts = [.init(key: "last", value: [1])]
      _ = try await reopened.commit(last)
      reopened.abandon()
    }

    deinit { try? FileManager.default.removeItem(atPath: self.directory) }

    func open(appliesLog: Bool) throws -> SectorStore {
      try SectorStore.open(at: self.directory, TestGroup.configuration, appliesLog: appliesLog)
    }

    func group(_ store: SectorStore) async throws -> SectorGroup {
      try await SectorGroup(
        store: store, generation: .root, sectorSize: store.configuration.sectorSize,
        member: .init(credential: self.domain.node.credential, key: self.domain.node.key),
        verifier: self.domain.verifier, signatures: SignatureCache(), now: presentTime)
    }

    func warrant(_ incarnation: UInt64, member: UInt64? = nil, process: String = "/node1") throws -> RecoveryWarrant {
      try self.domain.warrant(incarnation, process: process, member: member ?? self.member)
    }

    func refound(_ warrant: RecoveryWarrant) async throws {
      let store = try self.open(appliesLog: true)
      defer { store.abandon() }
      try await SectorGroup.refound(store, as: path("/node1"), term: 1 << 20, warrant: warrant)
    }
  }

  @Test("takes the warrant that the root principal signed for this very member, and no other")
  func accepts() async throws {
    let survivor = try await Survivor()
    let store = try survivor.open(appliesLog: false)
    defer { store.abandon() }
    let group = try await survivor.group(store)
    defer { group.replica.stop() }
    #expect(group.replica.leader == nil && group.life == .first)

    let good = try survivor.warrant(2)
    #expect(try group.acceptRecovery(good.bytes) == good)
    #expect(try group.acceptRecovery(survivor.warrant(9).bytes)?.incarnation == 9)
    func refusal(_ bytes: [UInt8]) -> RecoveryError? {
      do throws(RecoveryError) {
        _ = try group.acceptRecovery(bytes)
        return nil
      } catch {
        return error
      }
    }
    #expect(refusal([]) == .malformed)
    #expect(refusal([UInt8](repeating: 1, count: RecoveryWarrant.byteCountMax + 1)) == .malformed)
    var forged = good.bytes
    forged[forged.count - 1] ^= 1
    #expect(refusal(forged) == .badSignature)
    let stranger = try TestDomain().warrant(2, process: "/node1", member: survivor.member)
    #expect(refusal(stranger.bytes) == .badSignature)
    let elsewhere = try survivor.domain.warrant(2, generation: 2, process: "/node1", member: survivor.member)
    #expect(refusal(elsewhere.bytes) == .wrongGeneration(1))
    #expect(refusal(try survivor.warrant(2, member: 1).bytes) == .refused(.wrongMember))
    #expect(refusal(try survivor.warrant(2, process: "/node2").bytes) == .refused(.wrongMember))
  }

  @Test("goes on with one member and with all that was in its log, in the next life")
  func refounds() async throws {
    let survivor = try await Survivor()
    let warrant = try survivor.warrant(2)
    try await survivor.refound(warrant)

    let store = try survivor.open(appliesLog: false)
    defer { store.abandon() }
    let group = try await survivor.group(store)
    defer { group.replica.stop() }
    #expect(group.life.warrant == warrant)
    #expect(group.replica.status.membership.members == [MemberID(survivor.member)])
    #expect(try store.fact("last") == [1])
    #expect(try await group.record(.rootDirectory) != nil)
    #expect(try await group.allocateInodes(1) > 0)
    #expect(group.clusterStatus().life.incarnation == GroupIncarnation(2))
    #expect(group.replica.status.leadership.term.rawValue > 1 << 20)

    // Once more the same is done already. Another one is not for a cluster that has a leader, or had this one.
    #expect(try group.acceptRecovery(warrant.bytes) == nil)
    #expect(throws: RecoveryError.refused(.leaderKnown)) {
      _ = try group.acceptRecovery(survivor.warrant(3).bytes)
    }
    #expect(throws: RecoveryError.refused(.notNewer)) {
      _ = try group.acceptRecovery(
        survivor.domain.warrant(2, process: "/node1", member: survivor.member, time: 7).bytes)
    }
  }

  @Test("is in its former life or in the next one after a crash, and doing it again does no harm")
  func crash() async throws {
    let survivor = try await Survivor()
    let warrant = try survivor.warrant(2)
    for _ in 0..<2 {
      try await survivor.refound(warrant)
      let store = try survivor.open(appliesLog: false)
      #expect(try GroupLife(of: store, root: survivor.domain.authority.root).warrant == warrant)
      store.abandon()
    }
    let store = try survivor.open(appliesLog: false)
    defer { store.abandon() }
    let group = try await survivor.group(store)
    defer { group.replica.stop() }
    #expect(group.replica.status.membership.members == [MemberID(survivor.member)])
    #expect(try await group.allocateInodes(1) > 0)
  }

  @Test("does not open with a warrant that the root principal did not sign")
  func forgedFact() async throws {
    let survivor = try await Survivor()
    try await survivor.refound(try TestDomain().warrant(2, process: "/node1", member: survivor.member))
    let store = try survivor.open(appliesLog: false)
    defer { store.abandon() }
    await #expect(throws: SectorError.dataLoss(nil, place: .store("fact group.incarnation"))) {
      _ = try await survivor.group(store)
    }
  }
}

@Suite("The only process of a domain", .timeLimit(.minutes(1)))
struct LastProcessTests {
  @Test("keeps its credential, until there is another one that stores the domain")
  func removal() async throws {
    let test = try await TestGroup()
    let node = file(TestGroup.Inodes.node)
    var removal = Commit()
    removal.removals = [node]
    let refused = await outcome { try await test.group.perform(removal, by: test.domain.node.credential) }
    #expect(refused == .lastProcess)
    // A user goes, and comes no nearer to it.
    var other = Commit()
    other.removals = [file(TestGroup.Inodes.bob)]
    _ = try await test.group.perform(other, by: test.domain.node.credential)
    // One that does not store anything does not count.
    try await self.add("/helper", services: [.filesystem], to: test)
    #expect(await outcome { try await test.group.perform(removal, by: test.domain.node.credential) } == .lastProcess)
    // Where there is another one, one of them may go, and not both at once.
    let second = try await self.add("/node2", services: [.sector], to: test)
    var both = removal
    both.removals.append(second)
    #expect(await outcome { try await test.group.perform(both, by: test.domain.node.credential) } == .lastProcess)
    var back = Commit()
    back.removals = [second]
    _ = try await test.group.perform(back, by: test.domain.node.credential)
    #expect(await outcome { try await test.group.perform(removal, by: test.domain.node.credential) } == .lastProcess)
  }

  @discardableResult
  private func add(_ text: String, services: [Service], to test: TestGroup) async throws -> FileID {
    let principal = try test.domain.principal(.process, text, services: services)
    let rules = AccessRules(owner: test.domain.ann.path, group: .root, mode: Mode(truncating: 0o755))
    var inode = TestInode(try await test.number(), type: .credential, rules: rules)
    inode.credential = principal.credentialFile.bytes
    var commit = Commit()
    commit.records = [try inode.next(by: test.domain.node)]
    _ = try await test.group.perform(commit, by: test.domain.node.credential)
    return inode.fileID
  }

  private func outcome(_ body: () async throws -> some Any) async -> SectorError? {
    do {
      _ = try await body()
      return nil
    } catch {
      return error as? SectorError
    }
  }
}
