// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import GRPCCore
import GRPCProtobuf
import Inodes
import SectorStore
import Sectors
import SwiftProtobuf
import Testing
import Transport
import Trust

@Suite("The sector service between clusters", .timeLimit(.minutes(2)))
struct SiteServiceTests {
  @Test("hands out generations to processes with the sector mark alone, and only at the root's cluster")
  func generations() async throws {
    try await withService { service in
      let test = service.test
      let domain = test.domain
      let group = try test.group
      let nas = try domain.principal(.process, "/site-b/nas1", services: [.sector])
      let fs = try domain.principal(.process, "/site-b/fs1", services: [.filesystem])
      let deep = try domain.principal(.process, "/site-b/rack/nas1", services: [.sector])
      let directory = try await test.makeFile(type: .directory)
      for principal in [nas, fs] { try await test.add(principal, to: directory.fileID) }
      func allocate(_ number: UInt8, as principal: TestPrincipal) async throws -> UInt64 {
        try await service.call(as: principal) { connection in
          try await connection.client.allocateGeneration(.with { $0.claim = Data(claim(number)) }).generation
        }
      }
      #expect(try await allocate(1, as: nas) == 2)
      #expect(try await allocate(1, as: nas) == 2)
      #expect(try await allocate(1, as: domain.node) == 3)
      for principal in [fs, domain.ann, deep] {
        #expect(await failure { _ = try await allocate(1, as: principal) }.reason == "PERMISSION_DENIED")
      }
      // Of a cluster below.
      group.guests.confirm(
        .init(path: deep.path, keyID: deep.credential.keyID, kind: .process, services: [.sector]),
        for: .seconds(1_000))
      #expect(try await allocate(1, as: deep) == 4)
      try await service.call(as: nas) { connection in
        let refused = await failure {
          _ = try await connection.client.allocateGeneration(.with { $0.claim = Data(count: 15) })
        }
        #expect(refused.reason == "INVALID_REQUEST")
        let superblock = try await connection.client.status(.init()).superblock
        #expect(superblock.nextGeneration == 5)
      }
    }
    let site = try await TestSite()
    try await TestServer.with(site.group, as: site.nas, in: site.domain) { server in
      try await server.call(as: site.nas) { connection in
        let refused = await failure {
          _ = try await connection.client.allocateGeneration(.with { $0.claim = Data(claim(1)) })
        }
        #expect(refused.reason == "WRONG_GENERATION" && refused.code == .failedPrecondition)
        let status = try await connection.client.status(.init())
        #expect(status.superblock.nextGeneration == 0)
      }
    }
  }

  @Test("opens sessions of others for filesystem services that cover everything, over and over")
  func adoption() async throws {
    let site = try await TestSite()
    let (ann, bob, node) = (site.domain.ann, site.domain.bob, site.domain.node)
    for principal in [ann, bob] { try site.confirm(principal) }
    try site.confirm(node, services: [.sector, .filesystem])
    try await TestServer.with(site.group, as: site.nas, in: site.domain) { server in
      let session = Data((0..<16).map { UInt8($0) })
      func open(_ session: Data, _ owner: String, as principal: TestPrincipal) async throws -> Data {
        try await server.call(as: principal) { connection in
          try await connection.client.openSession(
            .with {
              $0.session = session
              $0.owner = owner
            }
          ).session
        }
      }
      for principal in [node, site.fs, node] {
        let opened = try await open(session, "/ann", as: principal)
        #expect(opened == session)
      }
      for principal in [ann, site.nas] {
        #expect(await failure { _ = try await open(session, "/ann", as: principal) }.reason == "PERMISSION_DENIED")
      }
      #expect(await failure { _ = try await open(session, "/bob", as: node) }.reason == "SESSION_UNKNOWN")
      for (bytes, owner) in [(Data(), "/ann"), (session, ""), (session, "ann"), (Data(count: 15), "/ann")] {
        #expect(await failure { _ = try await open(bytes, owner, as: node) }.reason == "INVALID_REQUEST")
      }
      // It is Ann's as if she had opened it.
      let id = Blocktree_V1_OperationId.with {
        $0.session = session
        $0.sequence = 1
      }
      func find(_ owner: String, as principal: TestPrincipal) async throws -> Bool {
        try await server.call(as: principal) { connection in
          try await connection.client.findOperation(
            .with {
              $0.operation = id
              $0.owner = owner
            }
          ).wasApplied
        }
      }
      for (owner, principal) in [("", ann), ("/ann", ann), ("/ann", site.fs), ("/ann", node)] {
        let wasApplied = try await find(owner, as: principal)
        #expect(!wasApplied)
      }
      #expect(await failure { _ = try await find("", as: bob) }.reason == "SESSION_UNKNOWN")
      #expect(await failure { _ = try await find("/bob", as: node) }.reason == "SESSION_UNKNOWN")
      #expect(await failure { _ = try await find("/ann", as: bob) }.reason == "PERMISSION_DENIED")
      #expect(await failure { _ = try await find("/ann", as: site.nas) }.reason == "PERMISSION_DENIED")
    }
  }

  @Test("opens sessions for a delegated directory's services, too, which have no bearing on those of the principals")
  func adoptionFromBelow() async throws {
    try await withService { service in
      let test = service.test
      let group = try test.group
      let (ann, node) = (test.domain.ann, test.domain.node)
      let fs = try test.domain.principal(.process, "/site-b/fs1", services: [.filesystem])
      let second = try test.domain.principal(.process, "/site-b/fs2", services: [.filesystem])
      let elsewhere = try test.domain.principal(.process, "/site-c/fs1", services: [.filesystem])
      let directory = try await test.makeFile(type: .directory)
      let other = try await test.makeFile(type: .directory)
      for (principal, place) in [(fs, directory), (second, directory), (elsewhere, other)] {
        try await test.add(principal, to: place.fileID)
      }
      let own = try await group.openSession(owner: ann.path)
      let acted = claim(9)
      func open(_ session: [UInt8], as principal: TestPrincipal) async throws {
        try await service.call(as: principal) { connection in
          _ = try await connection.client.openSession(
            .with {
              $0.session = Data(session)
              $0.owner = "/ann"
            })
        }
      }
      func find(_ session: [UInt8], as principal: TestPrincipal) async throws -> Bool {
        try await service.call(as: principal) { connection in
          try await connection.client.findOperation(
            .with {
              $0.operation = OperationID(session: session, sequence: 1).message
              $0.owner = "/ann"
            }
          ).wasApplied
        }
      }
      for principal in [fs, second, fs] { try await open(acted, as: principal) }
      for principal in [fs, second] {
        let wasApplied = try await find(acted, as: principal)
        #expect(!wasApplied)
        #expect(await failure { _ = try await find(own, as: principal) }.reason == "SESSION_UNKNOWN")
        #expect(await failure { try await open(own, as: principal) }.reason == "SESSION_UNKNOWN")
      }
      for principal in [ann, node, elsewhere] {
        #expect(await failure { _ = try await find(acted, as: principal) }.reason == "SESSION_UNKNOWN")
      }
      for principal in [node, elsewhere] {
        #expect(await failure { try await open(acted, as: principal) }.reason == "SESSION_UNKNOWN")
      }
      // It completes what it has opened, and nothing of anybody else's.
      let rules = AccessRules(owner: ann.path, group: .root, mode: Mode(truncating: 0o644))
      for (session, isPermitted) in [(own, false), (claim(1), false), (acted, true)] {
        var inode = TestInode(try await test.number(), type: .file, rules: rules, in: directory.fileID)
        var commit = try inode.commit(by: fs)
        commit.operations = [.init(id: OperationID(session: session, sequence: 1), result: [4])]
        let request = Blocktree_V1_CommitRequest(commit)
        func send() async throws {
          try await service.call(as: fs) { _ = try await $0.client.commit(request) }
        }
        if isPermitted {
          try await send()
        } else {
          #expect(await failure { try await send() }.reason == "SESSION_UNKNOWN")
        }
      }
      let (isThere, isOwnApplied) = (try await find(acted, as: second), try await find(own, as: ann))
      #expect(isThere && !isOwnApplied)
      // However many it opens, Ann's stay.
      let owner = try #require(group.sessionOwner(ann.path, actedForBy: fs.credential))
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        for number in 0..<UInt16(group.store.configuration.sessionsPerOwnerMax + 8) {
          let session = claim(0).dropLast(2) + [UInt8(number >> 8), UInt8(number & 255)]
          tasks.addTask { try await group.openSession(owner: owner, adopting: Array(session)) }
        }
        try await tasks.waitForAll()
      }
      #expect(await failure { _ = try await find(acted, as: fs) }.reason == "SESSION_UNKNOWN")
      let isOwnStill = try await find(own, as: ann)
      #expect(!isOwnStill)
    }
  }

  @Test("completes the operations of those that a filesystem service acts for, and answers them again")
  func completed() async throws {
    let site = try await TestSite()
    let (ann, bob, node) = (site.domain.ann, site.domain.bob, site.domain.node)
    for principal in [ann, bob] { try site.confirm(principal) }
    try site.confirm(node, services: [.filesystem])
    let group = try site.group
    let home = try TestSite.someHome.directory
    let ofAnn = try await group.openSession(owner: ann.path)
    let ofBob = try await group.openSession(owner: SessionOwner(bob.path), adopting: claim(7))
    func operations(_ sequence: UInt64) -> [Commit.Operation] {
      [
        .init(id: OperationID(session: ofAnn, sequence: sequence), result: [1, 2]),
        .init(id: OperationID(session: ofBob, sequence: sequence), result: []),
      ]
    }
    var inode = try await site.inode(mode: 0o666, in: home)
    try inode.write([0: sector(1), 1: sector(2), 5: sector(3)])
    var commit = try inode.commit(by: node)
    commit.operations = operations(1)
    let first = commit
    try await TestServer.with(group, as: site.nas, in: site.domain) { server in
      func send(_ request: Blocktree_V1_CommitRequest, as principal: TestPrincipal) async throws
        -> Blocktree_V1_CommitResponse
      {
        try await server.call(as: principal) { try await $0.client.commit(request) }
      }
      let response = try await send(Blocktree_V1_CommitRequest(first), as: node)
      guard case .applied(let receipt) = try CommitOutcome(response, to: first) else { throw TestFailure() }
      let stored = try #require(await group.record(inode.fileID))
      #expect(receipt.records == [stored] && receipt.members == [site.nas.path] && receipt.logIndex > 0)
      #expect(receipt.acceptancesDigest == Digest32(sha256: stored.acceptanceDigest.bytes))
      let again = try await send(Blocktree_V1_CommitRequest(first), as: node)
      guard case .repeated = try CommitOutcome(again, to: first) else { throw TestFailure() }
      #expect(throws: SectorError.invalid(field: "acceptances")) {
        _ = try CommitOutcome(.with { $0.logIndex = 1 }, to: first)
      }

      try await server.call(as: node) { connection in
        for (operation, owner) in [(0, "/ann"), (1, "/bob")] {
          let found = try await connection.client.findOperation(
            .with {
              $0.operation = first.operations[operation].id.message
              $0.owner = owner
            })
          #expect(found.wasApplied && Array(found.result) == first.operations[operation].result)
        }
      }
      // Nobody else completes anything for others, nor more than a bit at once.
      var next = try inode.commit(writing: sector(9), by: ann)
      next.operations = operations(2)
      let ofOthers = Blocktree_V1_CommitRequest(next)
      #expect(await failure { _ = try await send(ofOthers, as: ann) }.reason == "PERMISSION_DENIED")
      var own = Blocktree_V1_CommitRequest(next)
      own.completed.removeLast()
      #expect(await failure { _ = try await send(own, as: ann) }.reason == "PERMISSION_DENIED")
      for (change, reason): ((inout Blocktree_V1_CommitRequest) -> Void, String) in [
        ({ $0.operation = $0.completed[0].operation }, "INVALID_REQUEST"),
        ({ $0.completed.append($0.completed[0]) }, "INVALID_REQUEST"),
        ({ $0.completed[0].operation.session.removeLast() }, "INVALID_REQUEST"),
        ({ $0.completed[0].result = Data(count: 65) }, "TOO_LARGE"),
        (
          { request in
            for sequence: UInt64 in 10..<80 {
              request.completed.append(.with { $0.operation = OperationID(session: ofAnn, sequence: sequence).message })
            }
          }, "TOO_LARGE"
        ),
      ] {
        var request = ofOthers
        change(&request)
        let changed = request
        #expect(await failure { _ = try await send(changed, as: node) }.reason == reason)
      }
    }
  }

  @Test("says the same of a commit on the way to another cluster as at home")
  func request() async throws {
    let site = try await TestSite()
    var inode = try await site.inode(in: TestSite.someHome.directory)
    try inode.write(Dictionary(uniqueKeysWithValues: (0..<200).map { (UInt64($0 * 2), sector(UInt8($0))) }))
    var commit = try inode.commit(by: site.fs)
    commit.conditions = [
      .init(file(1), 3), .init(file(2), 0, acceptanceDigest: Digest32(sha256: [1])),
    ]
    commit.removals = [file(9)]
    commit.chains = [site.domain.ann.credential.chain]
    commit.operations = [.init(id: OperationID(session: claim(1), sequence: 4), result: [7])]
    let taken = try Commit(Blocktree_V1_CommitRequest(commit), sectorSize: 4_096)
    #expect(taken.isForOthers)
    #expect(taken.conditions == commit.conditions && taken.removals == commit.removals)
    #expect(taken.operations == commit.operations && taken.chains.map(\.digest) == commit.chains.map(\.digest))
    #expect(taken.records == commit.records)
    let (there, here) = (try #require(taken.blocks[inode.fileID]), try #require(commit.blocks[inode.fileID]))
    #expect(there.nodes == here.nodes && !here.nodes.isEmpty)
    #expect(there.runs.map(\.start) == here.runs.map(\.start).sorted())
    #expect(there.runs.map(\.digests) == here.runs.sorted { $0.start < $1.start }.map(\.digests))
  }

  @Test("shows what it needs to whoever hands a directory over, and everything to members and services above")
  func reading() async throws {
    try await withService { service in
      let test = service.test
      let nas = try test.domain.principal(.process, "/site-b/nas1", services: [.sector])
      let directory = try await test.makeFile(mode: 0o700, type: .directory)
      let other = try await test.makeFile(mode: 0o700, type: .directory)
      try await test.add(nas, to: directory.fileID)
      try await service.call(as: nas) { connection in
        let records = try await connection.records(directory.fileID)
        #expect(records.first?.version == 1)
        #expect(await failure { _ = try await connection.records(other.fileID) }.reason == "PERMISSION_DENIED")
      }
    }
    let site = try await TestSite()
    let (ann, bob, node) = (site.domain.ann, site.domain.bob, site.domain.node)
    for principal in [ann, bob] { try site.confirm(principal) }
    try site.confirm(node, services: [.filesystem])
    var secret = try await site.inode(mode: 0o600, in: TestSite.someHome.directory)
    try secret.write([0: sector(1)])
    try await site.apply(secret.commit(by: site.fs), by: site.fs)
    let file = secret.fileID
    let request = Blocktree_V1_ReadSectorsRequest.with {
      $0.fileID = file.message
      $0.runs = [.with { $0.count = 1 }]
    }
    try await TestServer.with(site.group, as: site.nas, in: site.domain) { server in
      for principal in [ann, node, site.fs, site.nas] {
        try await server.call(as: principal) { connection in
          let (records, read) = (try await connection.records(file), try await connection.read(request))
          #expect(records.first?.version == 1 && read.first?.blocks.count == 1, "\(principal.path)")
        }
      }
      try await server.call(as: bob) { connection in
        #expect(await failure { _ = try await connection.records(file) }.reason == "PERMISSION_DENIED")
        #expect(await failure { _ = try await connection.read(request) }.reason == "PERMISSION_DENIED")
      }
      // The time of the confirmation is over.
      site.pass(.seconds(31))
      try await server.call(as: node) { connection in
        #expect(await failure { _ = try await connection.records(file) }.reason == "PERMISSION_DENIED")
      }
    }
  }

  @Test("shows processes the records, and no more, of the directories above them, whatever their modes say")
  func readingAbove() async throws {
    try await withService { service in
      let test = service.test
      let domain = test.domain
      let group = try test.group
      let rules = AccessRules(owner: domain.ann.path, group: .root, mode: Mode(truncating: 0o700))
      func make(_ type: FileType, in directory: FileID) async throws -> FileID {
        var inode = TestInode(try await test.number(), type: type, rules: rules, in: directory)
        try await test.apply(inode.commit(by: domain.node), by: domain.node)
        return inode.fileID
      }
      // /p/site and /q/site have clusters of their own.
      let above = try await make(.directory, in: .rootDirectory)
      let site = try await make(.directory, in: above)
      let beside = try await make(.directory, in: above)
      let within = try await make(.file, in: above)
      let elsewhere = try await make(.directory, in: .rootDirectory)
      let otherSite = try await make(.directory, in: elsewhere)
      let nas = try domain.principal(.process, "/p/site/nas1", services: [.sector])
      let fs = try domain.principal(.process, "/p/site/fs1", services: [.filesystem])
      let plain = try domain.principal(.process, "/p/site/app")
      let user = try domain.principal(.user, "/p/site/dora")
      let other = try domain.principal(.process, "/q/site/nas1", services: [.sector])
      for principal in [nas, fs, plain, user] { try await test.add(principal, to: site) }
      try await test.add(other, to: otherSite)
      // Of the clusters below.
      let deep = try domain.principal(.process, "/p/site/rack/nas1", services: [.sector])
      let deepUser = try domain.principal(.user, "/p/site/rack/emil")
      let otherDeep = try domain.principal(.process, "/q/site/rack/nas1", services: [.sector])
      for principal in [deep, deepUser, otherDeep] {
        group.guests.confirm(
          .init(
            path: principal.path, keyID: principal.credential.keyID, kind: principal.credential.kind, services: []),
          for: .seconds(1_000))
      }
      func mayRead(_ file: FileID, _ principal: TestPrincipal) async throws -> Bool {
        try await service.call(as: principal) { connection in
          do { return try await connection.records(file).first?.version == 1 } catch {
            let refused = await failure { throw error }
            #expect(refused.reason == "PERMISSION_DENIED", "\(principal.path)")
            return false
          }
        }
      }
      for principal in [nas, fs, plain, deep] {
        for file in [above, site] {
          let isRead = try await mayRead(file, principal)
          #expect(isRead, "\(principal.path) \(file)")
        }
        // The filesystem service below sees its own directory's contents by its marks, and nothing beside it.
        for file in [beside, within, elsewhere, otherSite] {
          let isRead = try await mayRead(file, principal)
          #expect(!isRead, "\(principal.path) \(file)")
        }
      }
      for principal in [domain.bob, user, deepUser, other, otherDeep] {
        for file in [above, site] {
          let isRead = try await mayRead(file, principal)
          #expect(!isRead, "\(principal.path) \(file)")
        }
      }
      let request = Blocktree_V1_ReadSectorsRequest.with {
        $0.fileID = above.message
        $0.runs = [.with { $0.count = 1 }]
      }
      for principal in [nas, deep] {
        try await service.call(as: principal) { connection in
          #expect(await failure { _ = try await connection.read(request) }.reason == "PERMISSION_DENIED")
        }
      }
    }
  }
}
