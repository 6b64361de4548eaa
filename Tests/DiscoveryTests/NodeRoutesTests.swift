// SPDX-License-Identifier: Apache-2.0

import Discovery
import Filesystem
import Routes
import Synchronization
import Testing
import Trust

@Suite("What a process finds out about others")
struct NodeRoutesTests {
  private func fill(_ tree: TestTree) async throws {
    try await tree.makeDirectory("/open")
    try await tree.add(.process, "/open/p1", [.relay])
    try await tree.add(.user, "/ann")
    try await tree.add(.user, "/site/bob")
    try await tree.makeDirectory("/site/deep")
    try await tree.makeDirectory("/site/empty")
    try await tree.add(.process, "/site/deep/q", [.relay])
  }

  private func found(_ search: NodeRoutes.Search) -> [String]? {
    guard case .found(let found) = search.outcome else { return nil }
    return found.processes.map(\.path.description)
  }

  private func eventually(_ condition: () -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while !condition() {
      try #require(ContinuousClock.now < deadline, "The condition never came true.")
      try await Task.sleep(for: .milliseconds(1))
    }
  }

  @Test("what its own cluster knows takes no journey, and what another one knows takes one, once")
  func journeys() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let routes = tree.root.routes
      #expect(self.found(try await routes.find(.contained, .relay, TestTree.path("/open"))) == ["/open/p1"])
      #expect(tree.calls.count("/site/nas1") == 0)
      for _ in 0..<3 {
        #expect(self.found(try await routes.find(.contained, .relay, TestTree.path("/site/deep"))) == ["/site/deep/q"])
        #expect(tree.calls.count("/site/nas1") == 1)
      }
      let scopes = routes.list(countMax: 100).routes.map(\.known.scope)
      #expect(scopes.contains(TestTree.path("/site/deep")))
      #expect(routes.list(countMax: 1).routes.count == 1)
      #expect(routes.list(countMax: 1).total >= 1)
    }
  }

  @Test("who is nearest may be further up than the cluster that was asked last")
  func nearestAbove() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      try await tree.add(.process, "/r1", [.relay])
      let scope = TestTree.path("/site/empty")
      #expect(self.found(try await tree.root.routes.find(.nearest, .relay, scope)) == ["/r1"])
      #expect(self.found(try await tree.site.routes.find(.nearest, .relay, scope)) == ["/r1"])
      #expect(
        self.found(try await tree.site.routes.find(.nearest, .relay, TestTree.path("/site/deep"))) == ["/site/deep/q"])
      #expect(self.found(try await tree.site.routes.find(.nearest, .sector, scope)) == ["/site/nas1"])
    }
  }

  @Test("equal questions at the same time are asked once, and who gives up takes nobody's answer away")
  func coalesces() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let routes = tree.root.routes
      tree.calls.hold()
      let gaveUp = Task { try await routes.find(.contained, .relay, TestTree.path("/site/deep")) }
      try await self.eventually { tree.calls.count("/site/nas1") == 1 }
      try await withThrowingTaskGroup(of: NodeRoutes.Search.self) { group in
        for _ in 0..<20 { group.addTask { try await routes.find(.contained, .relay, TestTree.path("/site/deep")) } }
        gaveUp.cancel()
        await #expect(throws: CancellationError.self) { try await gaveUp.value }
        tree.calls.letGo()
        for try await search in group { #expect(self.found(search) == ["/site/deep/q"]) }
      }
      #expect(tree.calls.count("/site/nas1") == 1)
    }
  }

  @Test("a search that comes to no end says at which directory, and is begun anew by the next who asks")
  func failures() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      tree.calls.set("/site/nas1", isReachable: false)
      let scope = TestTree.path("/site/deep")
      let search = try await tree.root.routes.find(.contained, .relay, scope)
      #expect(search.outcome == .failed(.unreachable(TestTree.path("/site"), hop: 1)))
      #expect(search.explanation.contains(.unreachable(TestTree.path("/site/nas1"))))
      tree.calls.set("/site/nas1", isReachable: true)
      #expect(self.found(try await tree.root.routes.find(.contained, .relay, scope)) == ["/site/deep/q"])
    }
  }

  @Test("credential files are found wherever they are stored; not finding out is another thing than that there is none")
  func credentials() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      func bytes(_ text: String) -> [UInt8]? { tree.files.withLock { $0[TestTree.path(text)]?.bytes } }
      let (root, site) = (tree.root.routes, tree.site.routes)
      #expect(try await root.readCredential(TestTree.path("/site/deep/q"))?.file == bytes("/site/deep/q"))
      #expect(try await site.readCredential(TestTree.path("/ann"))?.file == bytes("/ann"))
      #expect(try await site.readCredential(TestTree.path("/site/bob"))?.file == bytes("/site/bob"))
      #expect(try await site.readCredential(TestTree.path("/site/old/eve"))?.file == bytes("/site/old/eve"))
      #expect(try await site.readCredential(TestTree.path("/site/old/nobody"))?.file == nil)
      #expect(try await root.readCredential(TestTree.path("/site/deep/nobody"))?.file == nil)
      #expect(try await site.readCredential(TestTree.path("/nobody"))?.file == nil)
      tree.calls.set("/site/nas1", isReachable: false)
      tree.calls.set("/node1", isReachable: false)
      await #expect(throws: Finder.Failure.self) { try await root.readCredential(TestTree.path("/site/deep/q")) }
      await #expect(throws: Finder.Failure.self) { try await site.readCredential(TestTree.path("/ann")) }
    }
  }

  @Test("who is led up has the way looked for meanwhile, once")
  func learning() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let query = FindQuery(kind: .contained, service: .relay, scope: TestTree.path("/other/place"))
      tree.calls.hold()
      for _ in 0..<10 {
        guard case .redirect(let redirect)? = tree.site.routes.answerElsewhere(query, mayRead: false) else {
          Issue.record("no redirect")
          return
        }
        #expect(redirect.directory == .root)
      }
      try await self.eventually { tree.calls.count("/node1") == 1 }
      tree.calls.letGo()
      #expect(tree.calls.count("/node1") == 1)
    }
  }

  @Test("nothing waits for ever when it ends")
  func ends() async throws {
    var routes: NodeRoutes?
    try await TestTree.with { tree in
      try await self.fill(tree)
      routes = tree.root.routes
    }
    await #expect(throws: CancellationError.self) {
      _ = try await routes?.find(.contained, .relay, TestTree.path("/site/deep"))
    }
  }
}
