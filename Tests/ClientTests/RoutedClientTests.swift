// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Inodes
import SwiftProtobuf
import Synchronization
import Testing
import Trust

@Suite("A client of several clusters", .timeLimit(.minutes(2)))
struct RoutedClientTests {
  /// Runs the root's cluster, and one that /site-b was handed to.
  private func withTwoClusters(
    site count: Int = 1, rootLife: UInt64? = nil,
    _ body: (_ root: TestCluster, _ site: TestCluster) async throws -> Void
  ) async throws {
    let domain = try TestDomain()
    let life = try rootLife.map {
      try RecoveryWarrant(
        signedBy: domain.rootKey, root: domain.authority.root, generation: 1, incarnation: $0,
        process: TreePath(parsing: "/node1"), member: 1, issuedAtMilliseconds: 1)
    }
    try await TestCluster.run(1, of: domain, life: life) { root in
      try await TestCluster.run(count, in: "/site-b", of: domain) { site in
        root.redirect(to: site) { $0.hasPrefix("/site-b/") }
        site.redirect(to: root) { !($0 + "/").hasPrefix("/site-b/") }
        try await body(root, site)
      }
    }
  }

  private func asked(_ cluster: TestCluster) -> [String] { cluster.state.withLock { $0.askedPaths } }
  private func files(_ cluster: TestCluster) -> [String] { cluster.state.withLock { $0.files.keys.sorted() } }

  @Test("goes where it is sent, and then there at once")
  func redirect() async throws {
    try await self.withTwoClusters { root, site in
      try await root.withClient(knowing: [0]) { client in
        try await client.makeDirectory("/site-b/x")
        try await client.makeDirectory("/site-b/x/y")
        _ = try await client.stat("/site-b/x/y")
        try await client.makeDirectory("/home")
      }
      #expect(self.asked(root) == ["/site-b/x", "/home"])
      #expect(self.files(root) == ["/home"] && self.files(site) == ["/site-b/x", "/site-b/x/y"])
      // Each has its own session: an id of the other one would have been refused.
      #expect(root.state.withLock { $0.sessions.count } == 1 && site.state.withLock { $0.sessions.count } == 1)
    }
  }

  @Test("sends the operations of one session to several clusters, each once")
  func session() async throws {
    try await self.withTwoClusters { root, site in
      try await root.withClient(knowing: [0]) { client in
        try await client.withFileSession { session in
          try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<200 {
              let path = number.isMultiple(of: 2) ? "/d\(number)" : "/site-b/d\(number)"
              group.addTask { _ = try await session.makeDirectory(path) }
            }
            try await group.waitForAll()
          }
          let asked = self.asked(root).count
          try await session.makeDirectory("/site-b/last")
          #expect(self.asked(root).count == asked)
        }
      }
      #expect(self.files(root).count == 100 && self.files(site).count == 101)
      #expect(root.state.withLock { $0.appliedCount } == 100 && site.state.withLock { $0.appliedCount } == 101)
    }
  }

  @Test("uploads and downloads through a redirect, whether or not the source can be read twice")
  func transfers() async throws {
    let content = (0..<(3 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 11) }
    try await self.withTwoClusters { root, site in
      try await withDirectory { directory in
        try Data(content).write(to: URL(fileURLWithPath: "\(directory)/source"))
        try await root.withClient(knowing: [0]) { client in
          try await client.upload(fromFile: "\(directory)/source", to: "/site-b/one")
          // Another client has no route.
          try await root.withClient(knowing: [0]) { client in
            _ = try await client.write(to: "/site-b/two") { try await $0.write(content) }
          }
          try await root.withClient(knowing: [0]) { client in
            try await client.download("/site-b/two", toFile: "\(directory)/copy")
          }
        }
        #expect(try Data(contentsOf: URL(fileURLWithPath: "\(directory)/copy")) == Data(content))
      }
      #expect(self.files(root) == [] && self.files(site) == ["/site-b/one", "/site-b/two"])
      #expect(site.state.withLock { $0.files.values.allSatisfy { $0.bytes == content } })
    }
  }

  @Test("asks again above when a route has expired")
  func expiry() async throws {
    try await self.withTwoClusters { root, site in
      root.redirect(to: site, lifetime: 0) { $0.hasPrefix("/site-b/") }
      try await root.withClient(knowing: [0]) { client in
        for number in 0..<3 { try await client.makeDirectory("/site-b/\(number)") }
      }
      #expect(self.asked(root).count == 3)
      #expect(self.files(site).count == 3 && site.state.withLock { $0.sessions.count } == 1)
    }
  }

  @Test("goes on with an expired route when nobody above answers")
  func cutOff() async throws {
    try await self.withTwoClusters { root, site in
      root.redirect(to: site, lifetime: 0) { $0.hasPrefix("/site-b/") }
      let configuration = ClientConfiguration(connectionPatience: .zero, reconnectionPatience: .zero)
      try await root.withClient(knowing: [0], configuration: configuration) { client in
        try await client.makeDirectory("/site-b/one")
        await root.members[0].end()
        try await client.makeDirectory("/site-b/two")
        await #expect(throws: BlocktreeError.self) { try await client.makeDirectory("/home") }
      }
      #expect(self.files(site) == ["/site-b/one", "/site-b/two"])
    }
  }

  @Test("asks above for other processes when those that it knows of can not be reached", arguments: [false, true])
  func failover(inSession: Bool) async throws {
    try await self.withTwoClusters(site: 2) { root, site in
      let (first, second) = (site.members[0], site.members[1])
      let answers = Mutex("\(first.path)=\(first.address)")
      root.state.withLock { state in
        state.redirect = { path in
          guard path.hasPrefix("/site-b/") else { return nil }
          return TestCluster.Redirect(directory: "/site-b", processes: answers.withLock { $0 })
        }
      }
      let configuration = ClientConfiguration(connectionPatience: .zero, reconnectionPatience: .zero)
      try await root.withClient(knowing: [0], configuration: configuration) { client in
        func use(_ operations: some FileOperations) async throws {
          try await operations.makeDirectory("/site-b/one")
          answers.withLock { $0 = "\(second.path)=\(second.address)" }
          site.state.withLock { $0.leader = 1 }
          await first.end()
          // Its end is noticed before the next is sent.
          try await Task.sleep(for: .milliseconds(50))
          try await operations.makeDirectory("/site-b/two")
        }
        if inSession { try await client.withFileSession { try await use($0) } } else { try await use(client) }
      }
      #expect(self.files(site) == ["/site-b/one", "/site-b/two"])
      #expect(self.asked(root) == ["/site-b/one", "/site-b/two"])
    }
  }

  @Test("does not do a change elsewhere that may have been done where nobody answers any more")
  func unsettled() async throws {
    try await self.withTwoClusters { root, site in
      let configuration = ClientConfiguration(
        timeout: .seconds(3), connectionPatience: .zero, reconnectionPatience: .zero)
      try await root.withClient(knowing: [0], configuration: configuration) { client in
        try await client.makeDirectory("/site-b/one")
        // From now on the root's would do it themselves.
        root.state.withLock { $0.redirect = nil }
        site.state.withLock { $0.diesAfterApplying = true }
        await #expect(throws: BlocktreeError.self) { try await client.makeDirectory("/site-b/two") }
      }
      #expect(self.files(root) == [] && self.files(site) == ["/site-b/one", "/site-b/two"])
    }
  }

  @Test("that knows a deeper process only is sent upwards, and remembers that")
  func upwards() async throws {
    try await self.withTwoClusters { root, site in
      try await site.withClient(knowing: [0]) { client in
        try await client.makeDirectory("/home")
        try await client.makeDirectory("/home/ann")
        try await client.makeDirectory("/site-b/x")
      }
      #expect(self.asked(site) == ["/home", "/site-b/x"])
      #expect(self.files(root) == ["/home", "/home/ann"])
    }
  }

  @Test("learns from a process at a bare address which directory it is in")
  func bareAddress() async throws {
    try await self.withTwoClusters { root, site in
      try await site.withProfile([0]) { profile in
        let bare = try profile.starting(from: ["\(site.members[0].address)"])
        try await withClient(bare) { client in
          try await client.makeDirectory("/home")
          try await client.makeDirectory("/site-b/x")
          try await client.makeDirectory("/home/ann")
        }
      }
      #expect(self.asked(site) == ["/home", "/site-b/x"])
      #expect(self.files(root) == ["/home", "/home/ann"])
    }
  }

  @Test("names the hop where redirects lead nowhere")
  func loop() async throws {
    try await self.withTwoClusters { root, site in
      site.redirect(to: root) { _ in true }
      try await root.withClient(knowing: [0]) { client in
        let error = await #expect(throws: BlocktreeError.self) { try await client.makeDirectory("/site-b/x") }
        #expect(error?.reason == .redirected)
        #expect(error?.metadata["hop"] == "2" && error?.metadata["from"] == "/site-b", "\(String(describing: error))")
        #expect(error?.metadata["directory"] == "/")
      }
    }
  }

  @Test("refuses a redirect that breaks the rules of the schema")
  func malformed() async throws {
    try await self.withTwoClusters { root, site in
      let address = site.members[0].address
      root.state.withLock { state in
        state.redirect = { _ in TestCluster.Redirect(directory: "/site-b", processes: "/other/node1=\(address)") }
      }
      try await root.withClient(knowing: [0]) { client in
        let error = await #expect(throws: BlocktreeError.self) { try await client.makeDirectory("/site-b/x") }
        #expect(error?.reason == .malformedAnswer)
      }
      #expect(self.asked(site) == [])
    }
  }

  @Test("goes on with the path that links lead to, and names the one that the caller gave")
  func links() async throws {
    try await self.withTwoClusters { root, site in
      let redirect = TestCluster.Redirect(
        directory: "/site-b", processes: site.processes, path: "/site-b/real/x")
      root.state.withLock { state in state.redirect = { $0 == "/link/x" ? redirect : nil } }
      try await root.withClient(knowing: [0]) { client in
        try await client.makeDirectory("/link/x")
        #expect(self.asked(site) == ["/site-b/real/x"] && self.files(site) == ["/site-b/real/x"])
        site.state.withLock { state in state.redirect = { _ in TestCluster.Redirect(directory: "/x", processes: "") } }
        let error = await #expect(throws: BlocktreeError.self) { try await client.makeDirectory("/link/x") }
        #expect(error?.metadata["path"] == "/link/x")
      }
    }
  }

  @Test("reads where links lead out of a directory, but changes nothing there")
  func linksOut() async throws {
    try await self.withTwoClusters { root, site in
      try await root.withClient(knowing: [0]) { client in
        let home = try await client.makeDirectory("/home")
        let redirect = TestCluster.Redirect(directory: "/", processes: root.processes, path: "/home")
        site.state.withLock { state in state.redirect = { _ in redirect } }
        #expect(try await client.stat("/site-b/link").id == home.id)
        let before = self.asked(root).filter { !$0.hasPrefix("/site-b/") }
        let changes: [@Sendable () async throws -> Void] = [
          { _ = try await client.makeDirectory("/site-b/link") },
          { _ = try await client.rename("/site-b/link/a", to: "/site-b/link/b") },
          { _ = try await client.write(to: "/site-b/link") { try await $0.write([1]) } },
        ]
        for (index, change) in changes.enumerated() {
          let error = await #expect(throws: BlocktreeError.self, "\(index)") { try await change() }
          #expect(error?.reason == .redirected, "\(index): \(String(describing: error))")
          #expect(error?.message.contains("name that path itself") == true, "\(index)")
        }
        #expect(self.asked(root).filter { !$0.hasPrefix("/site-b/") } == before)
        #expect(self.files(root) == ["/home"] && root.state.withLock { $0.renames.isEmpty })
      }
    }
  }

  @Test("takes what can be read once only once, through links as well")
  func onceThroughLink() async throws {
    try await self.withTwoClusters { root, site in
      let redirect = TestCluster.Redirect(directory: "/site-b", processes: site.processes, path: "/site-b/real/x")
      root.state.withLock { state in state.redirect = { $0 == "/link/x" ? redirect : nil } }
      try await root.withClient(knowing: [0]) { client in
        // As a pipe: what was handed out is gone.
        let rest = Mutex((0..<(2 << 20)).map { UInt8(truncatingIfNeeded: $0 >> 8) }[...])
        let content = rest.withLock { Array($0) }
        _ = try await client.write(to: "/link/x") { file in
          while true {
            let part = rest.withLock { rest in
              defer { rest = rest.dropFirst(128 << 10) }
              return Array(rest.prefix(128 << 10))
            }
            if part.isEmpty { return }
            try await file.write(part)
          }
        }
        #expect(site.state.withLock { $0.files["/site-b/real/x"]?.bytes == content })
      }
    }
  }

  @Test("does not go on elsewhere when something was taken that can be read only once")
  func redirectedMidway() async throws {
    try await self.withTwoClusters { root, site in
      let redirect = TestCluster.Redirect(directory: "/site-b", processes: site.processes, path: "/site-b/x")
      root.state.withLock { state in
        let asked = Mutex(0)
        state.redirect = { _ in
          asked.withLock { asked in
            asked += 1
            return asked > 1 ? redirect : nil
          }
        }
      }
      try await root.withClient(knowing: [0]) { client in
        let count = Mutex(0)
        let error = await #expect(throws: BlocktreeError.self) {
          // It is handed over between the question where to write, and the writing.
          _ = try await client.write(to: "/x") { file in
            if count.withLock({ count in
              count += 1
              return count
            }) == 1 {
              try await file.write(Array(repeating: 1, count: 128 << 10))
            }
          }
        }
        #expect(error?.reason == .busy && count.withLock { $0 } == 1)
      }
      #expect(self.files(site) == [])
    }
  }

  @Test("renames within a cluster, and not from one to the other")
  func rename() async throws {
    try await self.withTwoClusters { root, site in
      try await root.withClient(knowing: [0]) { client in
        try await client.rename("/site-b/a", to: "/site-b/b")
        try await client.rename("/a", to: "/b")
        for (from, to) in [("/a", "/site-b/b"), ("/site-b/b", "/a")] {
          let error = await #expect(throws: BlocktreeError.self) { try await client.rename(from, to: to) }
          #expect(error?.reason == .crossGeneration)
        }
      }
      #expect(root.state.withLock { $0.renames } == ["/a /b"])
      #expect(site.state.withLock { $0.renames } == ["/site-b/a /site-b/b"])
    }
  }

  @Test("renames where links lead to, if both names lie in one cluster there")
  func renameThroughLink() async throws {
    try await self.withTwoClusters { root, site in
      let redirect = TestCluster.Redirect(directory: "/site-b", processes: site.processes)
      root.state.withLock { state in
        state.redirect = { path in
          var redirect = redirect
          if path.hasPrefix("/link") { redirect.path = "/site-b/real" + path.dropFirst("/link".count) }
          return redirect.path != nil || path.hasPrefix("/site-b/") ? redirect : nil
        }
      }
      try await root.withClient(knowing: [0]) { client in
        try await client.rename("/link/a", to: "/site-b/b")
        let error = await #expect(throws: BlocktreeError.self) { try await client.rename("/link/a", to: "/b") }
        #expect(error?.reason == .crossGeneration)
      }
      #expect(site.state.withLock { $0.renames } == ["/site-b/real/a /site-b/b"])
    }
  }

  @Test("has credentials of a cluster's own processes stored by the cluster above")
  func credential() async throws {
    try await self.withTwoClusters { root, site in
      try await withDirectory { directory in
        try root.domain.makeProfile(at: "\(directory)/profile")
        let profile = try Profile(contentsOf: "\(directory)/profile").starting(from: ["\(root.members[0].address)"])
        let request = try CredentialRequest(keys: PrincipalKeys(), issuedAtMilliseconds: 1).pemRepresentation
        // Those of people in it are its own.
        root.redirect(to: site) { $0.hasPrefix("/site-b/") && $0 != "/site-b/node2" }
        try await withClient(profile) { client in
          try await client.makeDirectory("/site-b/people")
          let package = try await client.issueCredential(
            .process(services: ["sector"]), at: "/site-b/node2", request: request, lifetime: .seconds(600),
            replaces: true)
          #expect(package.directory?.inode.rawValue == 5)
          _ = try await client.issueCredential(
            .user, at: "/site-b/people/eve", request: request, lifetime: .seconds(600), replaces: true)
        }
      }
      let places = [root, site].map { cluster in
        cluster.state.withLock { state in
          state.credentials.compactMap { try? CredentialFile(bytes: $0).marks.place.path.description }
        }
      }
      #expect(places == [["/site-b/node2"], ["/site-b/people/eve"]])
    }
  }

  @Test("does not hold the recovery of one cluster against another one")
  func lives() async throws {
    try await self.withTwoClusters(rootLife: 3) { root, site in
      try await root.withClient(knowing: [0]) { client in
        try await client.makeDirectory("/home")
        try await client.makeDirectory("/site-b/x")
      }
      #expect(self.files(site) == ["/site-b/x"])
    }
  }

  @Test("asks nobody whom those above have ceased to name, once its route has expired")
  func revoked() async throws {
    let clock = TestClock()
    try await self.withTwoClusters(site: 2) { root, site in
      try await root.withProfile([0]) { profile in
        try await BlocktreeClient.withClient(profile, now: clock.now) { client in
          try await client.makeDirectory("/site-b/a")
          // From now on the first one declines all calls, which is counted.
          let left = TestCluster.Redirect(
            directory: "/site-b", processes: "\(site.members[1].path)=\(site.members[1].address)")
          root.state.withLock { $0.redirect = { $0.hasPrefix("/site-b/") ? left : nil } }
          site.state.withLock { $0.leader = 1 }
          clock.advance(by: .seconds(30))
          try await client.makeDirectory("/site-b/b")
          #expect(site.state.withLock { $0.declinations } == [0, 0])
          #expect(self.asked(root) == ["/site-b/a", "/site-b/b"])
        }
      }
    }
  }

  // MARK: Queries

  private func found(_ directory: String, _ names: [String]) -> Blocktree_V1_FoundProcesses {
    .with { found in
      found.directory = names.isEmpty ? "" : directory
      found.processes = names.map { name in
        .with {
          $0.path = "\(directory == "/" ? "" : directory)/\(name)"
          $0.services = ["filesystem"]
          $0.addresses = ["10.0.0.1:1"]
        }
      }
      found.lifetimeMs = 30_000
    }
  }

  @Test("finds processes through redirects, and says which way")
  func find() async throws {
    try await self.withTwoClusters { root, site in
      let member = site.members[0]
      let (above, here, none) = (self.found("/", ["node1"]), self.found("/site-b", ["node1"]), self.found("/", []))
      root.state.withLock { state in
        state.findings = { request in
          guard request.scope.hasPrefix("/site-b/") else { return .with { $0.found = above } }
          return .with {
            $0.redirect.directory = "/site-b"
            $0.redirect.lifetimeMs = 30_000
            $0.redirect.processes = [
              .with {
                $0.path = member.path
                $0.addresses = ["\(member.address)"]
              }
            ]
            $0.redirect.nearestAbove = above
          }
        }
      }
      site.state.withLock { state in
        state.findings = { request in .with { $0.found = request.service == "filesystem" ? here : none } }
      }
      try await root.withClient(knowing: [0]) { client in
        let first = try await client.find(.nearest, service: "filesystem", scope: "/site-b/x")
        #expect(first.found.directory == "/site-b" && first.found.processes.map(\.path) == ["/site-b/node1"])
        #expect(
          first.steps == [
            FindStep(directory: "/", process: nil, event: .asking(isKnown: true)),
            FindStep(
              directory: "/", process: "/node1",
              event: .redirected(to: "/site-b", processCount: 1, lifetime: .seconds(30))),
            FindStep(directory: "/site-b", process: nil, event: .asking(isKnown: false)),
            FindStep(directory: "/site-b", process: "/site-b/node1", event: .answered),
          ])
        let second = try await client.find(.nearest, service: "filesystem", scope: "/site-b/x")
        #expect(second.found.processes == first.found.processes && second.steps.count == 1)
        guard case .remembered? = second.steps.first?.event else { Issue.record("\(second.steps)"); return }
        // Asked again, those who were found to know are asked first.
        let anew = try await client.find(.nearest, service: "filesystem", scope: "/site-b/x", refresh: true)
        #expect(anew.steps.map(\.event) == [.asking(isKnown: true), .answered])
        // Nobody in /site-b has a relay.
        let third = try await client.find(.contained, service: "relay", scope: "/site-b/x")
        #expect(third.found.processes.isEmpty && third.found.directory == nil)
        // Who knows that of the nearest was passed by at first.
        let fourth = try await client.find(.nearest, service: "relay", scope: "/site-b/x")
        #expect(fourth.found.directory == "/" && fourth.steps.first?.directory == "/site-b")
      }
      try await root.withClient(knowing: [0]) { client in
        let result = try await client.find(.nearest, service: "relay", scope: "/site-b/x")
        #expect(result.found.directory == "/" && result.steps.last?.event == .fallback(to: "/"))
      }
    }
  }

  @Test("does not believe processes of a deeper directory about those above")
  func answersAbove() async throws {
    try await self.withTwoClusters { root, site in
      let (right, wrong) = (self.found("/", ["node1"]), self.found("/", ["evil"]))
      let member = site.members[0]
      root.state.withLock { state in
        state.findings = { _ in
          .with {
            $0.redirect.directory = "/site-b"
            $0.redirect.lifetimeMs = 30_000
            $0.redirect.processes = [
              .with {
                $0.path = member.path
                $0.addresses = ["\(member.address)"]
              }
            ]
            $0.redirect.nearestAbove = right
          }
        }
      }
      site.state.withLock { state in state.findings = { _ in .with { $0.found = wrong } } }
      try await root.withClient(knowing: [0]) { client in
        let result = try await client.find(.nearest, service: "filesystem", scope: "/site-b/x")
        #expect(result.found.processes.map(\.path) == ["/node1"] && result.steps.last?.event == .fallback(to: "/"))
      }
    }
  }

  @Test("does not believe processes that are elsewhere than was asked for")
  func implausible() async throws {
    try await self.withTwoClusters { root, _ in
      let elsewhere = self.found("/other", ["node1"])
      root.state.withLock { state in state.findings = { _ in .with { $0.found = elsewhere } } }
      try await root.withClient(knowing: [0]) { client in
        for kind in [FindKind.nearest, .contained] {
          let error = await #expect(throws: BlocktreeError.self) {
            try await client.find(kind, service: nil, scope: "/home")
          }
          #expect(error?.reason == .malformedAnswer)
        }
      }
    }
  }
}
