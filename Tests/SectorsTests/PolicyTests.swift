// SPDX-License-Identifier: Apache-2.0

import Inodes
import Sectors
import Testing
import Trust

@Suite("Who may commit")
struct PolicyTests {
  enum Who: String, CaseIterable, Sendable {
    case owner, member, named, other
  }

  @Test(
    "contents is decided by the mode and the access list of what is stored",
    arguments: [
      (0o644, Who.owner, true), (0o444, .owner, false), (0o664, .member, true), (0o644, .member, false),
      (0o606, .member, false), (0o602, .other, true), (0o660, .other, false), (0o666, .named, false),
      (0o000, .owner, false), (0o622, .member, true),
    ] as [(UInt32, Who, Bool)])
  func contents(mode: UInt32, who: Who, isPermitted: Bool) async throws {
    let test = try await TestGroup()
    let named = try test.domain.principal(.user, "/named")
    var inode = try await test.makeFile(
      mode: mode, group: path("/staff"), entries: [AccessEntry(.principal(named.path), [.read, .execute])])
    let principal =
      switch who {
      case .owner: test.domain.ann
      case .member: test.domain.cleo
      case .named: named
      case .other: test.domain.bob
      }
    let commit = try inode.commit(writing: sector(1), by: principal)
    if isPermitted {
      try await test.apply(commit, by: principal)
    } else {
      await expectRefused(.permissionDenied) { try await test.apply(commit, by: principal) }
    }
  }

  @Test("attributes is the owner's, who can not give the file away or have it served elsewhere")
  func attributes() async throws {
    let test = try await TestGroup()
    let (ann, bob, node) = (test.domain.ann, test.domain.bob, test.domain.node)
    var inode = try await test.makeFile(mode: 0o666)
    let before = inode
    inode.attributes.rules.mode = Mode(truncating: 0o600)
    var commit = try inode.commit(.attributes, by: bob)
    await expectRefused(.permissionDenied) { try await test.apply(commit, by: bob) }
    // By the signature of the owner, brought by another.
    inode = before
    inode.attributes.rules.mode = Mode(truncating: 0o600)
    commit = try inode.commit(.attributes, by: ann)
    await expectRefused(.permissionDenied) { try await test.apply(commit, by: bob) }
    try await test.apply(commit, by: ann)
    let stored = inode
    inode.attributes.rules.owner = bob.path
    commit = try inode.commit(.attributes, by: ann)
    await expectRefused(.permissionDenied) { try await test.apply(commit, by: ann) }
    inode = stored
    inode.attributes.servedByGeneration = 7
    commit = try inode.commit(.attributes, by: ann)
    await expectRefused(.permissionDenied) { try await test.apply(commit, by: ann) }
    // A filesystem service has checked what it does, and names on whose behalf.
    inode = stored
    inode.attributes.rules.owner = bob.path
    inode.attributes.actingFor = ann.path
    try await test.apply(inode.commit(.attributes, by: node), by: node)
  }

  @Test("names is decided by the directories that gain or lose one")
  func links() async throws {
    let test = try await TestGroup()
    let (ann, bob, cleo) = (test.domain.ann, test.domain.bob, test.domain.cleo)
    let open = try await test.makeFile(mode: 0o777, type: .directory)
    let closed = try await test.makeFile(mode: 0o755, type: .directory)
    func create(_ directory: FileID, by principal: TestPrincipal, owner: TestPrincipal? = nil) async throws -> TestInode
    {
      let rules = AccessRules(owner: (owner ?? principal).path, group: .root, mode: Mode(truncating: 0o666))
      var inode = TestInode(try await test.number(), type: .file, rules: rules, in: directory)
      try await test.apply(inode.commit(by: principal), by: principal)
      return inode
    }
    var mine = try await create(open.fileID, by: bob)
    await expectRefused(.permissionDenied) { _ = try await create(closed.fileID, by: bob) }
    await expectRefused(.permissionDenied) { _ = try await create(.rootDirectory, by: bob) }
    await expectRefused(.permissionDenied) { _ = try await create(open.fileID, by: bob, owner: ann) }
    await expectRefused(.permissionDenied) { _ = try await create(file(9_999), by: bob) }
    // A new directory and what is in it, at once.
    let rules = AccessRules(owner: bob.path, group: .root, mode: Mode(truncating: 0o755))
    var directory = TestInode(try await test.number(), type: .directory, rules: rules, in: open.fileID)
    var below = TestInode(try await test.number(), type: .file, rules: rules, in: directory.fileID)
    var both = try directory.commit(by: bob)
    both.records += try below.commit(by: bob).records
    try await test.apply(both, by: bob)
    // Two directories that are only in one another are nowhere.
    var left = TestInode(try await test.number(), type: .directory, rules: rules)
    var right = TestInode(try await test.number(), type: .directory, rules: rules, in: left.fileID)
    left.links.parents = [right.fileID]
    var circle = try left.commit(by: cleo)
    circle.records += try right.commit(by: cleo).records
    await expectRefused(.permissionDenied) { try await test.apply(circle, by: cleo) }

    // Moved to where nobody lets it, by its owner; and back to where everybody does, by another.
    let before = mine
    mine.links.parents = [closed.fileID]
    var commit = try mine.commit(.links, by: bob)
    await expectRefused(.permissionDenied) { try await test.apply(commit, by: bob) }
    mine = before
    mine.links.parents = [open.fileID, open.fileID]
    commit = try mine.commit(.links, by: cleo)
    try await test.apply(commit, by: cleo)
    // Nobody counts names that are in no directory.
    let linked = mine
    mine.links.parents = []
    commit = try mine.commit(.links, by: ann)
    try await test.apply(commit, by: ann)
    mine = linked
    await #expect(throws: SectorError.self) { try await test.apply(mine.commit(.links, by: ann), by: ann) }
    var removal = Commit()
    removal.removals = [mine.fileID]
    await expectRefused(.permissionDenied) { try await test.apply(removal, by: ann) }
    try await test.apply(removal, by: bob)
  }

  @Test("where the tree hangs together is nobody's: the root has no parent, a directory not two")
  func treeShape() async throws {
    let test = try await TestGroup()
    let (bob, node) = (test.domain.bob, test.domain.node)
    let open = try await test.makeFile(mode: 0o777, type: .directory)
    let other = try await test.makeFile(mode: 0o777, type: .directory)
    for principal in [bob, node] {
      for (number, parents) in [
        (FileID.rootDirectory, [open.fileID]), (file(1), [open.fileID]), (other.fileID, [.rootDirectory, open.fileID]),
        (file(TestGroup.Inodes.ann), [.rootDirectory, open.fileID]),
      ] {
        let record = try #require(try await test.group.record(number))
        var inode = TestInode(number, type: record.attributes.part.type, rules: record.attributes.part.rules)
        try inode.take(record)
        inode.credential = record.credential
        inode.links.parents = parents
        let commit = try inode.commit(.links, by: principal)
        await expectRefused(.invalidRecord(number, .contradiction("parents"))) {
          try await test.apply(commit, by: principal)
        }
      }
    }
  }

  @Test("to mark an inode is its owner's")
  func pendingMark() async throws {
    let test = try await TestGroup()
    let (ann, bob) = (test.domain.ann, test.domain.bob)
    let open = try await test.makeFile(mode: 0o777, type: .directory)
    let inode = try await test.makeFile(mode: 0o666)
    for principal in [bob, ann] {
      var marked = inode
      marked.links.pending = PendingMark(
        directory: open.fileID, operation: OperationID(session: [UInt8](repeating: 1, count: 16), sequence: 1), since: 1
      )
      let commit = try marked.commit(.links, by: principal)
      if principal.path == bob.path {
        await expectRefused(.permissionDenied) { try await test.apply(commit, by: bob) }
      } else {
        try await test.apply(commit, by: ann)
      }
    }
  }

  @Test("names in a sticky directory is the owner's of the file or of the directory")
  func sticky() async throws {
    let test = try await TestGroup()
    let (ann, bob, cleo) = (test.domain.ann, test.domain.bob, test.domain.cleo)
    let shared = try await test.makeFile(mode: 0o1777, type: .directory)
    let open = try await test.makeFile(mode: 0o777, type: .directory)
    func make() async throws -> TestInode {
      let rules = AccessRules(owner: bob.path, group: .root, mode: Mode(truncating: 0o666))
      var inode = TestInode(try await test.number(), type: .file, rules: rules, in: shared.fileID)
      try await test.apply(inode.commit(by: bob), by: bob)
      return inode
    }
    for (principal, isPermitted) in [(cleo, false), (bob, true), (ann, true)] {
      var moved = try await make()
      var removal = Commit()
      removal.removals = [try await make().fileID]
      moved.links.parents = [open.fileID]
      for commit in [try moved.commit(.links, by: principal), removal] {
        if isPermitted {
          try await test.apply(commit, by: principal)
        } else {
          await expectRefused(.permissionDenied) { try await test.apply(commit, by: principal) }
        }
      }
    }
  }

  @Test("on behalf of another is a filesystem service's word only")
  func actingFor() async throws {
    let test = try await TestGroup()
    let (ann, bob, node) = (test.domain.ann, test.domain.bob, test.domain.node)
    var inode = try await test.makeFile(mode: 0o666)
    let before = inode
    inode.content.actingFor = ann.path
    let forged = try inode.commit(writing: sector(1), by: bob)
    await expectRefused(.permissionDenied) { try await test.apply(forged, by: bob) }
    inode = before
    inode.content.actingFor = bob.path
    let own = try inode.commit(writing: sector(1), by: bob)
    await expectRefused(.permissionDenied) { try await test.apply(own, by: bob) }
    inode = before
    inode.content.actingFor = bob.path
    try await test.apply(inode.commit(writing: sector(2), by: node), by: node)
    // What a service wrote is kept when somebody changes another part.
    try await test.apply(inode.commit(.attributes, by: ann), by: ann)
    #expect(try await test.group.record(inode.fileID)?.content.part.actingFor == bob.path)

    // A process with the mark in a directory is one below there, and a principal like others elsewhere.
    let directory = try await test.makeFile(mode: 0o755, type: .directory)
    let site = try test.domain.principal(.process, "/site/node2", services: [.filesystem])
    try await test.add(site, in: directory.fileID)
    let rules = AccessRules(owner: ann.path, group: .root, mode: Mode(truncating: 0o600))
    var below = TestInode(try await test.number(), type: .file, rules: rules, in: directory.fileID)
    below.content.actingFor = ann.path
    try await test.apply(below.commit(by: site), by: site)
    var outside = try await test.makeFile(mode: 0o644)
    outside.content.actingFor = ann.path
    let elsewhere = try outside.commit(writing: sector(1), by: site)
    await expectRefused(.permissionDenied) { try await test.apply(elsewhere, by: site) }
    // It can not draw a file into its directory by saying that it is there: neither by moving it, nor by a second name,
    // and not in a directory of its own either.
    let readable = try await test.makeFile(mode: 0o644)
    let siteRules = AccessRules(owner: site.path, group: .root, mode: Mode(truncating: 0o777))
    var mine = TestInode(try await test.number(), type: .directory, rules: siteRules, in: directory.fileID)
    mine.attributes.actingFor = site.path
    try await test.apply(mine.commit(by: site), by: site)
    for parents in [[directory.fileID], [.rootDirectory, directory.fileID], [.rootDirectory, mine.fileID]] {
      var drawn = readable
      drawn.links.parents = parents
      for parts in [TestInode.Parts.all, .links] {
        var copy = drawn
        let taken = try copy.commit(parts, by: site)
        await expectRefused(.permissionDenied) { try await test.apply(taken, by: site) }
      }
    }
    // With write permission it may make a name, as anybody may; that gives it no power over the file.
    var shared = try await test.makeFile(mode: 0o666)
    shared.links.parents = [.rootDirectory, mine.fileID]
    try await test.apply(shared.commit(.links, by: site), by: site)
    shared.attributes.rules.owner = site.path
    let seized = try shared.commit(.attributes, by: site)
    await expectRefused(.permissionDenied) { try await test.apply(seized, by: site) }
    var removal = Commit()
    removal.removals = [outside.fileID]
    await expectRefused(.permissionDenied) { try await test.apply(removal, by: site) }
  }

  @Test("is proved by a signature over the very part, made by who commits")
  func signatures() async throws {
    let test = try await TestGroup()
    let (ann, bob) = (test.domain.ann, test.domain.bob)
    var inode = try await test.makeFile(mode: 0o666)
    let before = inode
    let refusal = SectorError.badSignature(inode.fileID)
    let commit = try inode.commit(writing: sector(1), by: ann)
    await expectRefused(refusal, "signed by another") { try await test.apply(commit, by: bob) }
    let record = commit.records[0]

    func expectBad(_ what: Comment, _ content: Signed<ContentPart>) async {
      var bad = commit
      bad.records[0].content = content
      await expectRefused(refusal, what) { try await test.apply(bad, by: ann) }
    }
    let signed = record.content
    let chain = ann.credential.chainDigest
    let other = try ann.key.sign(Digest32(sha256: [1]), purpose: .contentPart)
    await expectBad("the signature of something else", try .init(body: signed.body, signature: other, signer: chain))
    let purpose = try ann.key.sign(signed.digest, purpose: .linksPart)
    await expectBad("another purpose", try .init(body: signed.body, signature: purpose, signer: chain))
    let stranger = try SigningKey().sign(signed.digest, purpose: .contentPart)
    await expectBad("another key", try .init(body: signed.body, signature: stranger, signer: chain))
    await expectBad(
      "another signer", try .init(body: signed.body, signature: signed.signature, signer: bob.credential.chainDigest))

    // Attributes that nobody signed, with a signature that was good for others.
    var attributes = before.attributes
    attributes.version = 2
    attributes.rules.mode = Mode(truncating: 0o777)
    let old = try #require(before.record?.attributes)
    var unsigned = commit
    unsigned.records[0].attributes = try .init(
      body: attributes.encoded(), signature: old.signature, signer: chain)
    await expectRefused(refusal, "unsigned attributes") { try await test.apply(unsigned, by: ann) }
    try await test.apply(commit, by: ann)
  }

  @Test("does not bring back what was, nor change what never changes")
  func constants() async throws {
    let test = try await TestGroup()
    let ann = test.domain.ann
    var inode = try await test.makeFile(sectors: [0: sector(1)])
    try await test.apply(inode.commit(writing: sector(2), by: ann), by: ann)
    let first = try #require(inode.record)
    try await test.apply(inode.commit(writing: sector(3), by: ann), by: ann)
    let stored = inode
    func expectRefused(_ field: String, _ change: (inout TestInode) throws -> Commit) async throws {
      var copy = stored
      let commit = try change(&copy)
      await #expect(throws: SectorError.invalidRecord(stored.fileID, .contradiction(field))) {
        try await test.apply(commit, by: ann)
      }
    }
    // An old part, rightly signed in its day, under the next version.
    try await expectRefused("version") { inode in
      var commit = try inode.commit(.attributes, by: ann)
      commit.records[0].content = first.content
      return commit
    }
    try await expectRefused("version") { inode in
      var commit = try inode.commit(.attributes, by: ann)
      let record = try #require(stored.record)
      commit.records[0] = InodeRecord(
        fileID: record.fileID, version: record.version.next, content: record.content, attributes: record.attributes,
        links: record.links)
      return commit
    }
    try await expectRefused("type") { inode in
      inode.attributes.type = .directory
      return try inode.commit(.attributes, by: ann)
    }
    try await expectRefused("type") { inode in
      inode.attributes.type = .superblock
      return try inode.commit(.attributes, by: ann)
    }
    try await expectRefused("created_ns") { inode in
      inode.attributes.created += 1
      return try inode.commit(.attributes, by: ann)
    }
    try await expectRefused("content_id") { inode in
      inode.content.contentID[0] ^= 1
      return try inode.commit(.content, by: ann)
    }
    try await expectRefused("sector_size") { inode in
      inode.content.sectorSize = 8_192
      return try inode.commit(.content, by: ann)
    }
    var later = stored
    later.content.keyEpoch = 2
    later.content.fencingToken = 5
    try await test.apply(later.commit(.content, by: ann), by: ann)
    let epoch = later
    later.content.keyEpoch = 1
    let backwards = try later.commit(.content, by: ann)
    await #expect(throws: SectorError.invalidRecord(stored.fileID, .contradiction("key_epoch"))) {
      try await test.apply(backwards, by: ann)
    }
    later = epoch
    later.content.fencingToken = 4
    let late = try later.commit(.content, by: ann)
    await #expect(throws: SectorError.fenced(current: 5)) { try await test.apply(late, by: ann) }
  }
}

@Suite("A credential file")
struct CredentialTests {
  @Test("makes a principal known when it is committed, and unknown when it is removed")
  func index() async throws {
    let test = try await TestGroup()
    let group = try test.group
    #expect(
      group.credentials.all.map(\.credential.marks.place.path.description) == ["/ann", "/bob", "/node1", "/staff/cleo"])
    let dora = try test.domain.principal(.user, "/dora")
    #expect(!group.confirms(dora.credential))
    let added = try await test.add(dora, in: .rootDirectory)
    #expect(group.confirms(dora.credential))
    // By key: the same path with another is somebody else.
    #expect(!group.confirms(try test.domain.principal(.user, "/dora").credential))
    try await test.reopen(orderly: false)
    #expect(try test.group.confirms(dora.credential))
    var removal = Commit()
    removal.removals = [added.fileID]
    try await test.apply(removal, by: test.domain.node)
    #expect(try !test.group.confirms(dora.credential))
    try await test.reopen(orderly: true)
    #expect(try !test.group.confirms(dora.credential))
    #expect(try test.group.isMember(test.domain.node.credential))
    #expect(try !test.group.isMember(test.domain.ann.credential))
  }

  @Test("is committed by a filesystem service alone, once for each path, and only with an authority's signature")
  func admission() async throws {
    let test = try await TestGroup()
    let ann = test.domain.ann
    let dora = try test.domain.principal(.user, "/dora")
    func commit(_ bytes: [UInt8], by principal: TestPrincipal) async throws -> Commit {
      let rules = AccessRules(owner: ann.path, group: .root, mode: Mode(truncating: 0o644))
      var inode = TestInode(try await test.number(), type: .credential, rules: rules)
      inode.credential = bytes
      return try inode.commit(by: principal)
    }
    let byPrincipal = try await commit(dora.credentialFile.bytes, by: ann)
    await expectRefused(.permissionDenied) { try await test.apply(byPrincipal, by: ann) }
    let foreign = try TestDomain().ann.credentialFile.bytes
    for (bytes, what): ([UInt8], Comment) in [
      (foreign, "of another domain"), ([1, 2, 3], "no credential"),
      (Array(dora.credentialFile.bytes.dropLast()), "cut off"),
    ] {
      let bad = try await commit(bytes, by: test.domain.node)
      await #expect(throws: SectorError.self, what) { try await test.apply(bad, by: test.domain.node) }
    }
    let good = try await commit(dora.credentialFile.bytes, by: test.domain.node)
    // The same path in two commits at once: one of them has it.
    let rival = try await commit(dora.credentialFile.bytes, by: test.domain.node)
    let outcomes = await test.perform([good, rival], by: test.domain.node)
    #expect(outcomes.map { (try? $0.get()) != nil } == [true, false])
    await #expect(throws: SectorError.self) { try await test.apply(rival, by: test.domain.node) }
    let taken = try await commit(test.domain.principal(.user, "/bob").credentialFile.bytes, by: test.domain.node)
    await #expect(throws: SectorError.self) { try await test.apply(taken, by: test.domain.node) }
  }

  @Test("is replaced by a newer one alone; a process changes its own addresses and nothing else")
  func replacement() async throws {
    let test = try await TestGroup()
    let (node, ann) = (test.domain.node, test.domain.ann)
    let addresses = [try NetworkAddress(parsing: "10.0.0.1:7000")]
    let keys = PrincipalKeys()
    func process(_ serial: UInt64, services: [Service] = []) throws -> TestPrincipal {
      try TestDomain.principal(
        .process, "/node2", services: services, keys: keys, serial: serial, addresses: addresses,
        by: test.domain.authority)
    }
    let second = try process(2)
    var inode = try await test.add(second, in: .rootDirectory)
    func replace(_ file: CredentialFile, by principal: TestPrincipal) async throws {
      var copy = inode
      copy.credential = file.bytes
      var commit = Commit()
      let record = try #require(inode.record)
      commit.records = [
        InodeRecord(
          fileID: record.fileID, version: record.version.next, content: record.content, attributes: record.attributes,
          links: record.links, credential: file.bytes)
      ]
      try await test.apply(commit, by: principal)
      copy.credential = file.bytes
      try copy.take(commit.records[0])
      inode = copy
    }
    await #expect(throws: SectorError.self, "older") { try await replace(process(1).credentialFile, by: node) }
    await #expect(throws: SectorError.self, "as old, with other marks") {
      try await replace(process(2, services: [.sector]).credentialFile, by: node)
    }
    await #expect(throws: SectorError.self, "another path") { try await replace(ann.credentialFile, by: node) }
    let moved = try CredentialAddresses(
      keyID: second.credential.keyID, addresses: [NetworkAddress(parsing: "10.0.0.2:7000")], serial: 2,
      issuedAtMilliseconds: 1
    ).signed(with: keys.signing)
    let elsewhere = second.credentialFile.replacing(addresses: moved)
    await expectRefused(.permissionDenied) { try await replace(elsewhere, by: ann) }
    let forged = SignedAddresses(
      addresses: moved.addresses, signature: try ann.key.sign(.zero, purpose: .credentialAddresses))
    await #expect(throws: SectorError.self) {
      try await replace(second.credentialFile.replacing(addresses: forged), by: second)
    }
    try await replace(elsewhere, by: second)
    #expect(try test.group.credentials.entry(second.path)?.credential.addresses?.addresses.serial == 2)
    await #expect(throws: SectorError.self, "older addresses") { try await replace(second.credentialFile, by: second) }
    // Marks are an authority's business, and a filesystem service's to bring.
    let third = try process(3, services: [.filesystem])
    await #expect(throws: SectorError.self) { try await replace(third.credentialFile, by: second) }
    try await replace(third.credentialFile.replacing(addresses: moved), by: node)
    #expect(try test.group.filesystemDirectory(of: third.credential) == .rootDirectory)
  }
}

extension TestGroup {
  /// Adds a principal's credential file to a directory, as a filesystem service does.
  @discardableResult
  func add(_ principal: TestPrincipal, in directory: FileID) async throws -> TestInode {
    let rules = AccessRules(owner: self.domain.ann.path, group: .root, mode: Mode(truncating: 0o644))
    var inode = TestInode(try await self.number(), type: .credential, rules: rules, in: directory)
    inode.credential = principal.credentialFile.bytes
    try await self.apply(inode.commit(by: self.domain.node), by: self.domain.node)
    return inode
  }

  func perform(_ commits: [Commit], by principal: TestPrincipal) async -> [Result<CommitOutcome, any Error>] {
    guard let group = try? self.group else { return [] }
    return await group.perform(commits, by: principal.credential).map { $0.mapError { $0 } }
  }
}
