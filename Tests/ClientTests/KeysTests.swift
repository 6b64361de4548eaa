// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Synchronization
import Testing

@Suite("Keys and permissions", .timeLimit(.minutes(2)))
struct KeysTests {
  /// Runs the root's cluster, and one that /site-b was handed to.
  private func withTwoClusters(
    _ body: (_ root: TestCluster, _ site: TestCluster) async throws -> Void
  ) async throws {
    let domain = try TestDomain()
    try await TestCluster.run(1, of: domain) { root in
      try await TestCluster.run(1, in: "/site-b", of: domain) { site in
        root.redirect(to: site) { $0.hasPrefix("/site-b/") }
        site.redirect(to: root) { !($0 + "/").hasPrefix("/site-b/") || $0 == "/site-b" }
        try await body(root, site)
      }
    }
  }

  private func changes(_ cluster: TestCluster) -> [String] { cluster.state.withLock { $0.changes } }

  @Test("are asked for where the directory above is served, each once and numbered")
  func places() async throws {
    try await self.withTwoClusters { root, site in
      for (known, other) in [(root, site), (site, root)] {
        try await known.withClient(knowing: [0]) { client in
          try await client.grant("/site-b", to: "/ann", permission: 5, withKey: true)
          try await client.grant("/site-b/x", to: "/people", isGroup: true, permission: 4)
          let revoked = try await client.revoke("/site-b/x", from: "/ann")
          #expect(revoked.task == nil)
          let rekeyed = try await client.rekey("/site-b/x/y")
          #expect(rekeyed.task?.kind == .rekey && rekeyed.task?.state == .running && rekeyed.task?.isOver == false)
          try await client.setCutOff("/site-b", true)
          #expect(try await client.drain("/site-b").kind == .drain)
          #expect(try await client.drain("/site-b", cancelling: true).state == .cancelled)
        }
        _ = other
        #expect(
          self.changes(root) == [
            "/site-b: grant /ann 5 false true, numbered", "/site-b: cut off true, numbered", "/site-b: drain false",
            "/site-b: drain true",
          ])
        #expect(
          self.changes(site) == [
            "/site-b/x: grant /people 4 true false, numbered", "/site-b/x: revoke /ann false, numbered",
            "/site-b/x/y: rekey, numbered",
          ])
        for cluster in [root, site] { cluster.state.withLock { $0.changes = [] } }
      }
    }
  }

  @Test("whose tasks are listed by those above and by those at the path, each task once")
  func tasks() async throws {
    try await self.withTwoClusters { root, site in
      root.state.withLock { $0.tasks = [TestCluster.task(.drain, "/site-b", .waiting)] }
      site.state.withLock {
        $0.tasks = [
          TestCluster.task(.rekey, "/site-b/x", .finished), TestCluster.task(.drain, "/site-b", .waiting),
        ]
      }
      try await root.withClient(knowing: [0]) { client in
        // Asking for something there shows who serves it, as any program does that waits for one of these.
        try await client.makeDirectory("/site-b/d")
        let tasks = try await client.tasks(at: "/site-b")
        #expect(tasks.map(\.path) == ["/site-b", "/site-b/x"])
        #expect(tasks.map(\.isOver) == [false, true])
        let first = try #require(tasks.first)
        #expect(try await client.task(first)?.state == .waiting)
        root.state.withLock { $0.tasks = [] }
        #expect(try await client.task(first) == nil)
      }
    }
  }

  @Test("of a task in a state that is not known are no answer")
  func unknownState() async throws {
    try await TestCluster.run(1) { cluster in
      cluster.state.withLock { $0.tasks = [TestCluster.task(.rekey, "/x", .unspecified)] }
      try await cluster.withClient(knowing: [0]) { client in
        let error = await #expect(throws: BlocktreeError.self) { _ = try await client.tasks() }
        #expect(error?.reason == .malformedAnswer)
      }
    }
  }

  @Test("can not be changed while a cluster is being taken back: that is waited for, and done where it is then")
  func frozen() async throws {
    try await self.withTwoClusters { root, site in
      site.state.withLock { $0.frozenCount = 3 }
      root.redirect(to: site) { _ in false }
      site.state.withLock { state in
        // Once it is thawed it is retired, and everything is above.
        state.redirect = { [processes = root.processes] _ in .init(directory: "/", processes: processes) }
      }
      try await site.withClient(knowing: [0]) { client in
        try await client.makeDirectory("/site-b/x")
        try await client.rekey("/site-b/x")
      }
      #expect(site.state.withLock { $0.frozenCount } == 0)
      #expect(root.state.withLock { $0.files.keys.sorted() } == ["/site-b/x"])
      #expect(self.changes(root) == ["/site-b/x: rekey, numbered"] && self.changes(site) == [])
    }
  }
}
