// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import Raft
import Replication
import SectorStore
import Sectors
import Testing
import Trust

@Suite("The cluster of a delegated directory", .timeLimit(.minutes(2)))
struct SiteTests {
  @Test("knows its home and its members by copies of their credentials, and after a restart, too")
  func bootstrap() async throws {
    let site = try await TestSite()
    let home = try TestSite.someHome
    let stranger = try site.domain.principal(.process, "/site-b/nas9", services: [.sector])
    func check() throws {
      let group = try site.group
      #expect(group.home == home)
      #expect(group.wantedMembers == [site.nas.path])
      #expect(group.isMember(site.nas.credential) && !group.isMember(site.fs.credential))
      #expect(group.filesystemDirectory(of: site.fs.credential) == home.directory)
      #expect(group.coversEverything(site.fs.credential) && !group.coversEverything(site.nas.credential))
      #expect(group.confirms(site.fs.credential) && !group.confirms(stranger.credential))
      #expect(group.credentials.processes(in: home.path).map(\.path) == [site.fs.path, site.nas.path])
      #expect(group.credentials.all.allSatisfy { $0.directory == home.directory && $0.fileID.generation == .root })
      #expect(group.nextGeneration == 0)
    }
    try check()
    for orderly in [false, true] {
      try await site.reopen(orderly: orderly)
      try check()
    }
    let group = try site.group
    #expect(try SectorGroup.hosts(group.store, site.nas.credential))
    #expect(try !SectorGroup.hosts(group.store, site.fs.credential))
    // A copy is no inode.
    #expect(try await group.allocateInodes(1) == 3)
    await expectRefused(.wrongGeneration(.root)) { _ = try await group.record(file(71)) }
    await expectRefused(.wrongGeneration(.root)) {
      _ = try await group.allocateGeneration(claim: claim(1), for: site.nas.path)
    }
  }

  @Test("does not begin without a home, nor with credentials from elsewhere")
  func noHome() async throws {
    let test = try await TestSite()
    let directory = try test.group.store.configuration
    #expect(directory.generation == 2)
    let home = try TestSite.someHome
    let elsewhere = try test.domain.principal(.process, "/site-c/nas1", services: [.sector])
    let wrong = [
      CredentialEntry(fileID: file(71), directory: home.directory, credential: elsewhere.credentialFile),
      CredentialEntry(fileID: file(71), directory: file(9), credential: test.nas.credentialFile),
    ]
    for entry in wrong {
      await expectRefused(.invalid(field: "members")) {
        try await Self.begin(GroupBootstrap(home: home, members: [entry]), test)
      }
      await expectRefused(.invalid(field: "members")) { try await test.group.setMemberCredentials([entry]) }
    }
    await expectRefused(.dataLoss(nil, place: .store("fact group.home"))) { try await Self.begin(nil, test) }
    let same = try test.entry(test.nas, 71)
    await expectRefused(.invalid(field: "members")) { try await test.group.setMemberCredentials([same, same]) }
    let many = [CredentialEntry](repeating: same, count: SectorLimits.memberCredentialsMax + 1)
    await expectRefused(
      .tooLarge("members", limit: SectorLimits.memberCredentialsMax, found: SectorLimits.memberCredentialsMax + 1)
    ) { try await test.group.setMemberCredentials(many) }
    // The root directory's own cluster has the files themselves.
    let root = try await TestGroup()
    await expectRefused(.invalid(field: "generation")) { try await root.group.setMemberCredentials([same]) }
  }

  /// Opens an empty store.
  private static func begin(_ bootstrap: GroupBootstrap?, _ site: TestSite) async throws {
    let place = NSTemporaryDirectory() + "SectorsTests/" + UUID().uuidString
    defer { try? FileManager.default.removeItem(atPath: place) }
    try SectorStore.create(at: place, TestSite.configuration)
    let store = try SectorStore.open(at: place, TestSite.configuration)
    defer { store.abandon() }
    _ = try await SectorGroup(
      store: store, generation: TestSite.generation, sectorSize: store.configuration.sectorSize,
      member: .init(credential: site.nas.credential, key: site.nas.key), verifier: site.domain.verifier,
      signatures: SignatureCache(), now: presentTime, bootstrap: bootstrap)
  }

  @Test("takes over what the cluster above says of its members, as one change, and for good")
  func members() async throws {
    let site = try await TestSite()
    let second = try site.domain.principal(.process, "/site-b/nas2", services: [.sector])
    let renewed = try site.domain.principal(.process, "/site-b/fs1", services: [.filesystem, .sector], serial: 2)
    let first = [try site.entry(site.nas, 71), try site.entry(site.fs, 72)]
    let before = try site.group.replica.status.last
    try await site.group.setMemberCredentials(first.reversed())
    #expect(try site.group.replica.status.last == before, "Nothing was different.")

    try await site.group.setMemberCredentials([first[0], site.entry(second, 73), site.entry(renewed, 74)])
    func check() throws {
      let group = try site.group
      #expect(group.wantedMembers == [site.nas.path, second.path, renewed.path])
      #expect(group.isMember(second.credential) && group.isMember(renewed.credential))
      // Its key has changed.
      #expect(!group.confirms(site.fs.credential) && group.confirms(renewed.credential))
      #expect(group.credentials.entry(renewed.path)?.fileID == file(74))
    }
    try check()
    for orderly in [false, true] {
      try await site.reopen(orderly: orderly)
      try check()
    }
    try await site.group.setMemberCredentials([first[0]])
    for orderly in [false, true] {
      let group = try site.group
      #expect(group.wantedMembers == [site.nas.path])
      #expect(!group.confirms(second.credential) && !group.confirms(renewed.credential))
      #expect(group.credentials.all.map(\.path) == [site.nas.path])
      try await site.reopen(orderly: orderly)
    }
    // And back again.
    try await site.group.setMemberCredentials(first)
    #expect(try site.group.confirms(site.fs.credential))
  }

  @Test("keeps the credential of a member that it can not do without, whatever the cluster above says")
  func needed() async throws {
    let site = try await TestSite()
    let group = try site.group
    let others = [try site.entry(site.fs, 72)]
    // Nobody else could decide anything.
    await expectRefused(.processNeeded(site.nas.path)) { try await group.setMemberCredentials(others) }
    #expect(group.wantedMembers == [site.nas.path])
    try await group.setMemberCredentials([site.entry(site.nas, 71)])
    #expect(group.credentials.all.map(\.path) == [site.nas.path])
  }

  @Test("takes names in its home from filesystem services there and above alone")
  func home() async throws {
    let site = try await TestSite()
    let (ann, node) = (site.domain.ann, site.domain.node)
    let home = try TestSite.someHome.directory
    try site.confirm(ann)
    var directory = try await site.inode(.directory, mode: 0o777, in: home)
    // Neither a member nor the owner, whom nothing here says what they may do in the home.
    for principal in [site.nas, ann] {
      var attempt = directory
      let commit = try attempt.commit(by: principal)
      await expectRefused(.permissionDenied) { try await site.apply(commit, by: principal) }
    }
    try await site.apply(directory.commit(by: site.fs), by: site.fs)
    // Below, it is a directory as everywhere.
    var below = try await site.inode(in: directory.fileID)
    try await site.apply(below.commit(by: ann), by: ann)
    let made = below
    below.links.parents.append(home)
    var commit = try below.commit(.links, by: ann)
    await expectRefused(.permissionDenied) { try await site.apply(commit, by: ann) }
    below = made
    below.links.pending = .init(directory: home, operation: nil, since: 1, isCondemned: false)
    commit = try below.commit(.links, by: ann)
    await expectRefused(.permissionDenied) { try await site.apply(commit, by: ann) }
    // From elsewhere, the node above is a filesystem service as soon as it is confirmed.
    below = made
    below.links.parents.append(home)
    commit = try below.commit(.links, by: node)
    await expectRefused(.permissionDenied) { try await site.apply(commit, by: node) }
    try site.confirm(node, services: [.filesystem, .sector])
    try await site.apply(commit, by: node)
    // What is in the home is taken out of it by the same alone.
    let linked = below
    below.links.parents.removeLast()
    commit = try below.commit(.links, by: ann)
    await expectRefused(.permissionDenied) { try await site.apply(commit, by: ann) }
    var removal = Commit()
    removal.removals = [directory.fileID]
    let refused = removal
    await expectRefused(.permissionDenied) { try await site.apply(refused, by: ann) }
    below = linked
    below.links.parents.removeLast()
    try await site.apply(below.commit(.links, by: site.fs), by: site.fs)
  }

  @Test("has no names in directories of other generations but its home, and no credentials in that")
  func foreignParents() async throws {
    let site = try await TestSite()
    let home = try TestSite.someHome.directory
    for other in [FileID.rootDirectory, file(71), FileID(generation: 3, inode: home.inode)] {
      var inode = try await site.inode(in: other)
      let commit = try inode.commit(by: site.fs)
      await expectRefused(.invalidRecord(inode.fileID, .contradiction("parents"))) {
        try await site.apply(commit, by: site.fs)
      }
      var pending = try await site.inode(in: home)
      pending.links.pending = .init(directory: other, operation: nil, since: 1, isCondemned: false)
      let marked = try pending.commit(by: site.fs)
      await expectRefused(.invalidRecord(pending.fileID, .contradiction("parents"))) {
        try await site.apply(marked, by: site.fs)
      }
    }
    var credential = try await site.inode(.credential, in: home)
    credential.credential = try site.domain.principal(.process, "/site-b/nas7", services: [.sector]).credentialFile
      .bytes
    let commit = try credential.commit(by: site.fs)
    await expectRefused(.invalidRecord(credential.fileID, .contradiction("parents"))) {
      try await site.apply(commit, by: site.fs)
    }
    // In generation 1, no directory is of another one.
    let test = try await TestGroup()
    let rules = AccessRules(owner: test.domain.ann.path, group: .root, mode: Mode(truncating: 0o644))
    let far = FileID(generation: 2, inode: 3)
    var inode = TestInode(try await test.number(), type: .file, rules: rules, in: far)
    let foreign = try inode.commit(by: test.domain.node)
    await expectRefused(.invalidRecord(inode.fileID, .contradiction("parents"))) {
      try await test.apply(foreign, by: test.domain.node)
    }
  }

  @Test("believes its own credentials below its home, and those of deeper clusters' processes in it")
  func deeper() async throws {
    let site = try await TestSite()
    let home = try TestSite.someHome.directory
    var people = try await site.inode(.directory, in: home)
    try await site.apply(people.commit(by: site.fs), by: site.fs)
    let eve = try site.domain.principal(.user, "/site-b/people/eve")
    let deep = try site.domain.principal(.process, "/site-b/rack/nas1", services: [.sector, .filesystem])
    var rack = try await site.inode(.directory, in: home)
    try await site.apply(rack.commit(by: site.fs), by: site.fs)
    for (principal, directory) in [(eve, people.fileID), (deep, rack.fileID)] {
      var inode = try await site.inode(.credential, in: directory)
      inode.credential = principal.credentialFile.bytes
      try await site.apply(inode.commit(by: site.fs), by: site.fs)
    }
    let group = try site.group
    #expect(group.confirms(eve.credential) && group.confirms(deep.credential))
    #expect(!group.isMember(deep.credential) && group.hostsSectors(deep.credential))
    #expect(group.filesystemDirectory(of: deep.credential) == rack.fileID && !group.coversEverything(deep.credential))
    // Which numbers were allocated, only the root's cluster knows.
    rack.attributes.servedByGeneration = 9
    try await site.apply(rack.commit(.attributes, by: deep), by: deep)
    #expect(group.isStoredHere(eve.path) && group.isStoredHere(deep.path))
    // Who is not known may be known above.
    for text in ["/site-b/people/fay", "/site-b/rack/nas2", "/site-b/rack/people/gus"] {
      #expect(try !group.isStoredHere(path(text)), "\(text)")
    }
  }
}

@Suite("Guests", .timeLimit(.minutes(1)))
struct GuestTests {
  @Test("are believed while their own cluster confirms them, with that key and kind")
  func confirmation() async throws {
    let site = try await TestSite()
    let (ann, bob) = (site.domain.ann, site.domain.bob)
    let group = try site.group
    #expect(!group.confirms(ann.credential))
    try site.confirm(ann)
    #expect(group.confirms(ann.credential) && !group.confirms(bob.credential))
    site.pass(.seconds(29))
    #expect(group.confirms(ann.credential))
    try site.confirm(bob)
    site.pass(.seconds(2))
    #expect(!group.confirms(ann.credential) && group.confirms(bob.credential))
    group.guests.forget(bob.path)
    #expect(!group.confirms(bob.credential))
    // Somebody else at the same path.
    let other = try site.domain.principal(.user, "/ann")
    try site.confirm(other)
    #expect(!group.confirms(ann.credential) && group.confirms(other.credential))
    group.guests.confirm(
      .init(path: ann.path, keyID: ann.credential.keyID, kind: .process, services: [.filesystem]), for: .seconds(30))
    #expect(!group.confirms(ann.credential))
  }

  @Test("are nobody where their credentials would be stored here")
  func stored() async throws {
    let site = try await TestSite()
    let group = try site.group
    #expect(group.isStoredHere(site.nas.path))
    // What lies in a delegated home may be stored above, as long as it is not known here.
    for text in ["/", "/node1", "/site-b", "/site-b/ann", "/site-b/a/b/c", "/site-bb/x", "/site-a/x"] {
      #expect(try !group.isStoredHere(path(text)), "\(text)")
    }

    let test = try await TestGroup()
    let directory = try await test.makeFile(type: .directory)
    let root = try test.group
    let person = try test.domain.principal(.user, "/site-b/people/ann")
    let guest = GuestDirectory.Guest(
      path: person.path, keyID: person.credential.keyID, kind: .user, services: [])
    root.guests.confirm(guest, for: .seconds(1_000))
    #expect(root.isStoredHere(person.path) && !root.confirms(person.credential))
    try await test.add(test.domain.principal(.process, "/site-b/nas1", services: [.sector]), to: directory.fileID)
    #expect(!root.isStoredHere(person.path) && root.confirms(person.credential))
    #expect(try root.isStoredHere(path("/site-b/fs1")) && root.isStoredHere(path("/site-c/people/ann")))
    // What was there before stays.
    try await test.add(person, to: file(TestGroup.Inodes.staff))
    root.guests.forget(person.path)
    #expect(root.isStoredHere(person.path) && root.confirms(person.credential))
  }

  @Test(
    "act as filesystem services where they lie at or above the home, and as processes with the sector mark anywhere")
  func services() async throws {
    let site = try await TestSite()
    let group = try site.group
    let home = try TestSite.someHome.directory
    func guest(_ text: String, _ kind: Credential.Kind = .process, _ services: [Service]) throws -> Credential {
      let principal = try site.domain.principal(kind, text, services: services)
      try site.confirm(principal, services: services)
      return principal.credential
    }
    let above = try guest("/node7", .process, [.filesystem])
    #expect(group.filesystemDirectory(of: above) == home && group.coversEverything(above))
    #expect(!group.isMember(above) && !group.hostsSectors(above))
    let beside = try guest("/site-a/fs1", .process, [.filesystem, .sector])
    #expect(group.filesystemDirectory(of: beside) == nil && !group.coversEverything(beside))
    #expect(group.hostsSectors(beside) && !group.isMember(beside))
    let user = try guest("/user7", .user, [.filesystem, .sector])
    #expect(group.filesystemDirectory(of: user) == nil && !group.hostsSectors(user) && group.confirms(user))
    let plain = try guest("/node8", .process, [])
    #expect(group.filesystemDirectory(of: plain) == nil)
    site.pass(.seconds(31))
    #expect(group.filesystemDirectory(of: above) == nil)
  }

  @Test("are bounded in number: those go first that would be forgotten first")
  func bound() throws {
    let guests = GuestDirectory()
    let key = Digest32(sha256: [1])
    for number in 0...GuestDirectory.countMax {
      guests.confirm(
        .init(path: try path("/g\(number)"), keyID: key, kind: .user, services: []), for: .seconds(1_000 + number))
    }
    #expect(try guests.guest(at: path("/g0")) == nil)
    #expect(try guests.guest(at: path("/g1")) != nil && guests.guest(at: path("/g\(GuestDirectory.countMax)")) != nil)
  }
}
