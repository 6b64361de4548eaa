// SPDX-License-Identifier: Apache-2.0

import Discovery
import Filesystem
import GRPCCore
import GRPCProtobuf
import Inodes
import Routes
import Synchronization
import Testing
import Transport
import Trust

@Suite("Who may ask what")
struct AnswersTests {
  private func query(_ kind: FindKind, _ scope: String, _ service: String? = "relay") throws -> FindQuery {
    FindQuery(kind: kind, service: try service.map { try Service($0) }, scope: TestTree.path(scope))
  }

  private func find(
    _ side: TestTree.Side, _ kind: FindKind, _ scope: String, _ service: String? = "relay", by caller: Caller
  ) async throws -> FindAnswer {
    try await side.answers.find(self.query(kind, scope, service), by: caller)
  }

  /// Paths of those that were found; nil when there is a redirect.
  private func found(_ answer: FindAnswer) -> [String]? {
    guard case .found(let found) = answer else { return nil }
    return found.processes.map(\.path.description)
  }

  private func redirect(_ answer: FindAnswer) -> Redirect? {
    guard case .redirect(let redirect) = answer else { return nil }
    return redirect
  }

  /// A tree with open and closed directories, with relays in them.
  private func fill(_ tree: TestTree) async throws {
    try await tree.makeDirectory("/open")
    try await tree.put("/open/file")
    try await tree.put("/open/secret", mode: 0o600)
    try await tree.add(.process, "/open/p1", [.relay])
    try await tree.makeDirectory("/closed")
    try await tree.makeDirectory("/closed/inner")
    try await tree.add(.process, "/closed/p2", [.relay])
    try await tree.add(.process, "/closed/inner/p3", [.relay])
    try await tree.close("/closed")
    try await tree.add(.user, "/ann")
    try await tree.makeDirectory("/site/deep")
    try await tree.add(.process, "/site/deep/q", [.relay])
  }

  @Test("anybody finds what every directory lets others read, contained and nearest")
  func anonymous() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      #expect(self.found(try await self.find(tree.root, .contained, "/open", by: .anonymous)) == ["/open/p1"])
      #expect(self.found(try await self.find(tree.root, .nearest, "/open/file", by: .anonymous)) == ["/open/p1"])
      // As if it was in the directory: who may read that knows that it is not there.
      #expect(
        self.found(try await self.find(tree.root, .nearest, "/open/nothing/below", by: .anonymous)) == ["/open/p1"])
      #expect(self.found(try await self.find(tree.root, .contained, "/open/nothing", by: .anonymous)) == [])
      #expect(self.found(try await self.find(tree.root, .nearest, "/open", "sector", by: .anonymous)) == ["/node1"])
      for scope in ["/closed", "/closed/inner", "/closed/inner/more", "/open/secret"] {
        await #expect(throws: DiscoveryError.permissionDenied) {
          try await self.find(tree.root, .nearest, scope, by: .anonymous)
        }
      }
    }
  }

  @Test("whoever may read the scope finds, and others do not")
  func readers() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let (owner, ann) = (try tree.caller("/owner"), try tree.caller("/ann"))
      #expect(self.found(try await self.find(tree.root, .contained, "/closed", by: owner)) == ["/closed/p2"])
      #expect(self.found(try await self.find(tree.root, .contained, "/open", by: ann)) == ["/open/p1"])
      await #expect(throws: DiscoveryError.permissionDenied) {
        try await self.find(tree.root, .contained, "/closed", by: ann)
      }
      // Not even though the directory itself lets others read, as the one above is closed.
      await #expect(throws: DiscoveryError.permissionDenied) {
        try await self.find(tree.root, .contained, "/closed/inner", by: ann)
      }
    }
  }

  @Test("processes ask about their own directory and those above, and about nothing else")
  func processes() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let inner = try tree.caller("/closed/inner/p3")
      #expect(
        self.found(try await self.find(tree.root, .contained, "/closed/inner", by: inner)) == ["/closed/inner/p3"])
      #expect(self.found(try await self.find(tree.root, .contained, "/closed", by: inner)) == ["/closed/p2"])
      await #expect(throws: DiscoveryError.permissionDenied) {
        try await self.find(tree.root, .contained, "/closed/inner/more", by: inner)
      }
      try await tree.makeDirectory("/closed/other", mode: 0o700)
      await #expect(throws: DiscoveryError.permissionDenied) {
        try await self.find(tree.root, .contained, "/closed/other", by: inner)
      }
      // A filesystem service has the key of all that is below.
      try await tree.close("/closed", mode: 0o755)
      let filesystem = try await tree.add(.process, "/closed/fs", [.filesystem])
      try await tree.close("/closed")
      #expect(self.found(try await self.find(tree.root, .contained, "/closed/other", by: filesystem)) == [])
      await #expect(throws: DiscoveryError.permissionDenied) {
        try await self.find(tree.root, .contained, "/open/secret", by: filesystem)
      }
    }
  }

  @Test("a user's marks make it no process, and who is not in the tree gets nothing")
  func strangers() async throws {
    try await TestTree.with { tree in
      let file = try TestTree.issue(.process, "/stranger", PrincipalKeys(), [.relay], by: tree.authority)
      let stranger = Caller.credential(try tree.credential(file))
      await #expect(throws: DiscoveryError.permissionDenied) {
        try await self.find(tree.root, .contained, "/", by: stranger)
      }
      await #expect(throws: DiscoveryError.permissionDenied) {
        try await tree.root.answers.readCredential(TestTree.path("/owner"), by: stranger)
      }
      await #expect(throws: DiscoveryError.permissionDenied) {
        try await tree.root.answers.readCredential(TestTree.path("/owner"), by: .anonymous)
      }
    }
  }

  @Test("a holder of a readcap may ask about all that is below")
  func readcaps() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      // Its directory's key is sealed to it; what is asked is by the readcap, as the mark is not there any more.
      let caller = CallerIdentity.principal(TestTree.path("/closed/fs"))
      #expect(try await !tree.root.filesystem.mayQuery(TestTree.path("/closed/inner"), by: caller).isPermitted)
      try await tree.close("/closed", mode: 0o755)
      try await tree.add(.process, "/closed/fs", [.filesystem])
      try await tree.close("/closed")
      #expect(try await tree.root.filesystem.mayQuery(TestTree.path("/closed/inner"), by: caller).isPermitted)
      #expect(try await tree.root.filesystem.mayQuery(TestTree.path("/closed/nothing"), by: caller).isPermitted)
      #expect(try await !tree.root.filesystem.mayQuery(TestTree.path("/open/secret"), by: caller).isPermitted)
    }
  }

  @Test("principals are led to another cluster in any case, without a word of who is above unless they may ask there")
  func redirects() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let (owner, ann) = (try tree.caller("/owner"), try tree.caller("/ann"))
      // The directory itself is answered for by the cluster that stores it.
      #expect(self.found(try await self.find(tree.root, .contained, "/site", "sector", by: ann)) == ["/site/nas1"])
      let open = try #require(self.redirect(try await self.find(tree.root, .nearest, "/site/deep", "sector", by: ann)))
      #expect(open.directory == TestTree.path("/site"))
      #expect(open.processes.map(\.path) == [TestTree.path("/site/nas1")])
      #expect(open.nearestAbove?.directory == TestTree.path("/site"))
      // Closed to all but the owner from now on.
      try await tree.close("/site")
      let closed = try #require(
        self.redirect(try await self.find(tree.root, .nearest, "/site/deep", "sector", by: ann)))
      #expect(closed.directory == TestTree.path("/site"))
      #expect(closed.nearestAbove == nil)
      let told = try #require(
        self.redirect(try await self.find(tree.root, .nearest, "/site/deep", "sector", by: owner)))
      #expect(told.nearestAbove?.directory == TestTree.path("/site"))
      await #expect(throws: DiscoveryError.permissionDenied) {
        try await self.find(tree.root, .nearest, "/site/deep", by: .anonymous)
      }
    }
  }

  @Test("anonymous callers are led only past what is open to others, on both sides")
  func anonymousRedirects() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      #expect(self.redirect(try await self.find(tree.root, .contained, "/site/deep", by: .anonymous)) != nil)
      #expect(self.found(try await self.find(tree.site, .contained, "/site/deep", by: .anonymous)) == ["/site/deep/q"])
      #expect(self.redirect(try await self.find(tree.site, .contained, "/open", by: .anonymous))?.directory == .root)
      // The root directory counts for what is below, also where another cluster answers.
      try await tree.close("/")
      try await tree.site.filesystem.refreshAncestors()
      for scope in ["/site/deep", "/site", "/site/nothing", "/open"] {
        await #expect(throws: DiscoveryError.permissionDenied) {
          try await self.find(tree.site, .contained, scope, by: .anonymous)
        }
      }
    }
  }

  @Test("a process of a delegated directory answers for what is in it, and leads back up")
  func site() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let nas = Caller.credential(tree.site.process)
      #expect(self.found(try await self.find(tree.site, .nearest, "/site/deep/x", by: nas)) == ["/site/deep/q"])
      #expect(self.found(try await self.find(tree.site, .contained, "/site", "sector", by: nas)) == ["/site/nas1"])
      let up = try #require(self.redirect(try await self.find(tree.site, .contained, "/open", by: nas)))
      #expect(up.directory == .root)
      #expect(up.processes.map(\.path) == [TestTree.path("/node1")])
    }
  }

  @Test("credential files are read where they are stored, and by way of that place from elsewhere")
  func credentials() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      try await tree.add(.user, "/site/bob")
      let (ann, nas, node) = (
        try tree.caller("/ann"), Caller.credential(tree.site.process), Caller.credential(tree.root.process)
      )
      func bytes(_ text: String) -> [UInt8]? { tree.files.withLock { $0[TestTree.path(text)]?.bytes } }
      func read(_ side: TestTree.Side, _ text: String, _ caller: Caller) async throws -> CredentialAnswer {
        try await side.answers.readCredential(TestTree.path(text), by: caller)
      }
      guard case .file(let own, _) = try await read(tree.root, "/owner", ann) else {
        Issue.record("no file")
        return
      }
      #expect(own.bytes == bytes("/owner"))
      #expect(own.directory == .rootDirectory)
      // Directly in the other cluster's directory: stored here.
      guard case .file(let member, _) = try await read(tree.root, "/site/nas1", nas) else {
        Issue.record("no file")
        return
      }
      #expect(member.bytes == bytes("/site/nas1"))
      guard case .redirect(let down) = try await read(tree.root, "/site/deep/q", ann) else {
        Issue.record("no redirect")
        return
      }
      #expect(down.directory == TestTree.path("/site"))
      guard case .file(let deep, _) = try await read(tree.site, "/site/deep/q", node) else {
        Issue.record("no file")
        return
      }
      #expect(deep.bytes == bytes("/site/deep/q"))
      guard case .redirect(let up) = try await read(tree.site, "/owner", nas) else {
        Issue.record("no redirect")
        return
      }
      #expect(up.directory == .root)
      // Users directly in the directory, and below it before it was handed over, are not known to this cluster: it asks
      // above.
      let deepProcess = try tree.caller("/site/deep/q")
      for user in ["/site/bob", "/site/old/eve"] {
        guard case .file(let stored, _) = try await read(tree.site, user, deepProcess) else {
          Issue.record("no file of \(user)")
          return
        }
        #expect(stored.bytes == bytes(user))
      }
      guard case .file(let eve, _) = try await read(tree.root, "/site/old/eve", ann) else {
        Issue.record("no file")
        return
      }
      #expect(eve.bytes == bytes("/site/old/eve"))
      #expect(try await read(tree.root, "/nobody", ann) == .absent(lifetime: AnswerLifetime.negative))
      for name in ["/site/nobody", "/site/deep/nobody", "/site/old/nobody"] {
        for caller in [node, deepProcess] {
          #expect(try await read(tree.site, name, caller) == .absent(lifetime: AnswerLifetime.negative), "\(name)")
        }
      }
    }
  }

  @Test("a member that knows no copy is led up rather than asked for, so that members never ask each other in a circle")
  func circles() async throws {
    try await TestTree.with { tree in
      let nas = Caller.credential(tree.site.process)
      let answer = try await tree.site.answers.readCredential(TestTree.path("/site/bob"), by: nas)
      guard case .redirect(let redirect) = answer else {
        Issue.record("\(answer)")
        return
      }
      #expect(redirect.directory == .root)
      #expect(tree.calls.count("/node1") == 0)
    }
  }

  @Test("who owns the directory, and processes at or above it, see the routes")
  func routes() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      try await tree.root.answers.requireOwner(try tree.caller("/owner"))
      try await tree.root.answers.requireOwner(Caller.credential(tree.root.process))
      try await tree.site.answers.requireOwner(Caller.credential(tree.root.process))
      for caller in [try tree.caller("/ann"), try tree.caller("/open/p1"), .anonymous] {
        await #expect(throws: DiscoveryError.permissionDenied) { try await tree.root.answers.requireOwner(caller) }
      }
    }
  }
}
