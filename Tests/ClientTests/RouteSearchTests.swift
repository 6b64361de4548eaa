// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Routes
import Testing
import Trust

private func path(_ text: String) throws -> TreePath { try TreePath(parsing: text) }

private func redirection(_ directory: String, path: String? = nil) throws -> ClientRedirection {
  ClientRedirection(
    directory: try TreePath(parsing: directory), processes: [], lifetime: .seconds(30),
    path: try path.map { try TreePath(parsing: $0) })
}

@Suite("What a redirect says")
struct RedirectionTests {
  private func error(_ metadata: [String: String], reason: BlocktreeError.Reason = .redirected) -> BlocktreeError {
    BlocktreeError(code: .failedPrecondition, reason: reason, message: "", metadata: metadata)
  }

  private let good = [
    "directory": "/site-b", "lifetime_ms": "2500",
    "processes": "/site-b/nas1=10.0.0.1:7001,[::1]:7002;/site-b/nas2=10.0.0.2:7001",
  ]

  @Test("is read with processes, addresses and lifetime")
  func reading() throws {
    let read = try #require(try ClientRedirection(self.error(self.good)))
    #expect(read.directory.description == "/site-b" && read.lifetime == .milliseconds(2500) && read.path == nil)
    #expect(read.processes.map(\.path.description) == ["/site-b/nas1", "/site-b/nas2"])
    #expect(
      read.processes.map { $0.addresses.map(\.description) } == [["10.0.0.1:7001", "[::1]:7002"], ["10.0.0.2:7001"]])
    var other = self.good
    other["path"] = "/site-b/target"
    #expect(try ClientRedirection(self.error(other))?.path == path("/site-b/target"))
    #expect(try ClientRedirection(self.error(self.good, reason: .notLeader)) == nil)
  }

  @Test("escapes what separates, in names")
  func escapes() throws {
    var metadata = self.good
    metadata["directory"] = "/a;b=c,d%e"
    metadata["processes"] = "/a%3Bb%3dc%2Cd%25e/n=10.0.0.1:7001"
    let read = try #require(try ClientRedirection(self.error(metadata)))
    #expect(read.processes.map(\.path.description) == ["/a;b=c,d%e/n"])
  }

  @Test(
    "is refused when it breaks a rule",
    arguments: [
      ["directory": ""], ["directory": "site-b"], ["directory": "/site-c"], ["lifetime_ms": ""], ["lifetime_ms": "-1"],
      ["lifetime_ms": "4294967296"], ["path": "x"], ["processes": "/site-b/nas1"], ["processes": ";"],
      ["processes": "/site-b/nas1=10.0.0.1"], ["processes": "/site-b/deep/nas1=10.0.0.1:1"],
      ["processes": "/site-b/n%4=10.0.0.1:1"], ["processes": "/site-b/n%zz=10.0.0.1:1"],
      ["processes": "/site-b/n=10.0.0.1:1,,10.0.0.2:1"],
      ["processes": (0...16).map { "/site-b/n\($0)=10.0.0.1:1" }.joined(separator: ";")],
    ])
  func malformed(change: [String: String]) throws {
    let metadata = self.good.merging(change) { $1 }
    #expect(throws: BlocktreeError.self) { try ClientRedirection(self.error(metadata)) }
  }

  @Test("is not remembered for longer than a client wants to")
  func lifetime() throws {
    var metadata = self.good
    metadata["lifetime_ms"] = "4294967295"
    #expect(try ClientRedirection(self.error(metadata))?.lifetime == ClientRedirection.lifetimeMax)
    #expect(ClientRedirection.lifetimeMax == .seconds(30))
  }
}

@Suite("The routes of a client")
struct ClientRoutesTests {
  private let now = RouteTime(nanoseconds: 1_000_000_000_000)

  @Test("are found by the longest prefix, and not when they have expired")
  func prefix() throws {
    var routes = ClientRoutes([.root])
    routes.learn(try path("/a"), for: .seconds(10), self.now)
    routes.learn(try path("/a/b/c"), for: .seconds(2), self.now)
    let all = routes.directories(above: try path("/a/b/c/d"), self.now)
    #expect(all.fresh.map(\.description) == ["/a/b/c", "/a", "/"] && all.expired.isEmpty)
    let later = routes.directories(above: try path("/a/b/c/d"), self.now + .seconds(2))
    #expect(later.fresh.map(\.description) == ["/a", "/"] && later.expired.map(\.description) == ["/a/b/c"])
    #expect(routes.directories(above: try path("/ab"), self.now).fresh == [.root])
    #expect(routes.directories(above: try path("/a"), self.now).fresh.first?.description == "/a")
  }

  @Test("are bounded: those that were not used give way, the profile's never")
  func bound() throws {
    var routes = ClientRoutes([.root, try path("/home")])
    var learned: [TreePath] = []
    for number in 0..<3000 {
      let directory = try path("/r\(number)")
      routes.learn(directory, for: .seconds(10), self.now)
      routes.used(try path("/r0"), self.now)
      learned.append(directory)
      #expect(routes.byteCount <= ClientRoutes.byteCountMax)
    }
    let count = learned.count { routes.contains($0) }
    #expect(count > 200 && count < 1500)
    for kept in ["/", "/home", "/r0", "/r2999"] { #expect(routes.contains(try path(kept)), "\(kept)") }
    #expect(!routes.contains(try path("/r1")))
    #expect(routes.directories(above: try path("/r0/x"), self.now).fresh.first?.description == "/r0")
  }

  @Test("of the profile stay, whoever fails")
  func permanent() throws {
    var routes = ClientRoutes([try path("/site-b")])
    routes.learn(try path("/site-b"), for: .zero, self.now)
    routes.drop(try path("/site-b"))
    #expect(routes.directories(above: try path("/site-b/x"), self.now).fresh.map(\.description) == ["/site-b"])
    routes.move(try path("/site-b"), to: try path("/site-c"))
    #expect(!routes.contains(try path("/site-b")) && routes.home.description == "/site-c")
  }
}

@Suite("The search for the cluster that serves a path")
struct RouteSearchTests {
  private let now = RouteTime(nanoseconds: 1_000_000_000_000)

  private func routes(_ permanent: [String], _ learned: [String] = [], expired: [String] = []) throws -> ClientRoutes {
    var routes = ClientRoutes(try permanent.map { try path($0) })
    for text in learned { routes.learn(try path(text), for: .seconds(10), self.now) }
    for text in expired { routes.learn(try path(text), for: .zero, self.now) }
    return routes
  }

  private func step(_ directory: String, isPatient: Bool) throws -> RouteSearch.Step? {
    RouteSearch.Step(directory: try path(directory), isPatient: isPatient)
  }

  @Test("begins at the longest known prefix, and waits there when there is no other one")
  func beginning() throws {
    let search = RouteSearch(try path("/site-b/x"))
    #expect(search.next(in: try self.routes(["/"]), self.now) == (try self.step("/", isPatient: true)))
    #expect(
      search.next(in: try self.routes(["/"], ["/site-b"]), self.now) == (try self.step("/site-b", isPatient: false)))
    #expect(
      search.next(in: try self.routes(["/"], expired: ["/site-b"]), self.now) == (try self.step("/", isPatient: false)))
    #expect(search.next(in: try self.routes([]), self.now) == nil)
  }

  @Test("asks for names at the directory above, and for credentials of a cluster's processes above that")
  func levels() throws {
    let routes = try self.routes(["/"], ["/site-b", "/site-b/deep"])
    for (text, levels, expected) in [
      ("/site-b", 0, "/site-b"), ("/site-b", 1, "/"), ("/site-b/x", 1, "/site-b"), ("/site-b/deep", 1, "/site-b"),
      ("/site-b/nas1", 2, "/"), ("/site-b/deep/nas1", 2, "/site-b"), ("/site-b/people/eve", 2, "/site-b"),
      ("/", 2, "/"),
    ] {
      let step = RouteSearch(try path(text), levels: levels).next(in: routes, self.now)
      #expect(step?.directory.description == expected, "\(text)")
    }
  }

  @Test("follows redirects downwards, each to a longer prefix of the path")
  func downwards() throws {
    var search = RouteSearch(try path("/a/b/c"))
    try search.redirected(try redirection("/a"), by: .root)
    #expect(search.next(in: try self.routes(["/"]), self.now) == (try self.step("/a", isPatient: true)))
    try search.redirected(try redirection("/a/b"), by: try path("/a"))
    #expect(search.next(in: try self.routes(["/"]), self.now)?.directory.description == "/a/b")
    #expect(throws: BlocktreeError.self) { try search.redirected(try redirection("/a/b"), by: try path("/a/b")) }
    var other = RouteSearch(try path("/a/b/c"))
    try other.redirected(try redirection("/a/b"), by: .root)
    // Not a prefix; beside the way; back where it came from.
    for wrong in ["/a/b/d", "/x", "/", "/a/b/c/d"] {
      var copy = other
      let error = #expect(throws: BlocktreeError.self, "\(wrong)") {
        try copy.redirected(try redirection(wrong), by: try path("/a/b"))
      }
      #expect(error?.reason == .redirected && error?.metadata["hop"] == "2" && error?.metadata["from"] == "/a/b")
      #expect(error?.metadata["directory"] == wrong && error?.metadata["path"] == "/a/b/c")
    }
  }

  @Test("goes upwards from a process that is off the way, and then downwards")
  func upwards() throws {
    var search = RouteSearch(try path("/site-c/x"))
    let routes = try self.routes(["/site-b/deep"])
    #expect(search.next(in: routes, self.now) == (try self.step("/site-b/deep", isPatient: true)))
    try search.redirected(try redirection("/site-b"), by: try path("/site-b/deep"))
    try search.redirected(try redirection("/"), by: try path("/site-b"))
    try search.redirected(try redirection("/site-c"), by: .root)
    #expect(search.next(in: routes, self.now)?.directory.description == "/site-c")
    #expect(throws: BlocktreeError.self) { try search.redirected(try redirection("/"), by: try path("/site-c")) }
  }

  @Test("goes upwards once more when a deeper cluster says that those above do it")
  func upwardsAfterwards() throws {
    var search = RouteSearch(try path("/a/b"))
    try search.redirected(try redirection("/a/b"), by: .root)
    try search.redirected(try redirection("/a"), by: try path("/a/b"))
    #expect(search.next(in: try self.routes(["/"]), self.now)?.directory.description == "/a")
    #expect(throws: BlocktreeError.self) { try search.redirected(try redirection("/a/b"), by: try path("/a")) }
    #expect(throws: BlocktreeError.self) { try search.redirected(try redirection("/"), by: try path("/a")) }
  }

  @Test("goes on with the path that links lead to, wherever that is")
  func links() throws {
    var search = RouteSearch(try path("/site-b/link/x"))
    try search.redirected(try redirection("/", path: "/y/x"), by: try path("/site-b"))
    #expect(search.path.description == "/y/x" && search.original.description == "/site-b/link/x")
    try search.redirected(try redirection("/site-b", path: "/site-b/z/x"), by: .root)
    try search.redirected(try redirection("/site-b/z"), by: try path("/site-b"))
    #expect(search.next(in: try self.routes(["/"]), self.now)?.directory.description == "/site-b/z")
  }

  @Test("does not let those who redirect lead a change out of their directory")
  func confined() throws {
    for wrong in ["/y/x", "/site-bb/x", "/"] {
      var search = RouteSearch(try path("/site-b/link/x"), isConfined: true)
      let error = #expect(throws: BlocktreeError.self, "\(wrong)") {
        try search.redirected(try redirection("/", path: wrong), by: try path("/site-b"))
      }
      #expect(error?.code == .failedPrecondition && error?.reason == .redirected)
      #expect(error?.message == "a symbolic link leads out of /site-b, to \(wrong): name that path itself")
      #expect(search.path == search.original)
    }
    var search = RouteSearch(try path("/site-b/link/x"), isConfined: true)
    try search.redirected(try redirection("/site-b/z", path: "/site-b/z/x"), by: try path("/site-b"))
    #expect(search.path.description == "/site-b/z/x")
    // The path as it was asked for is nobody's choice.
    var upwards = RouteSearch(try path("/home/x"), isConfined: true)
    try upwards.redirected(try redirection("/", path: "/home/x"), by: try path("/site-b"))
    #expect(upwards.path == upwards.original)
  }

  @Test("asks those above when nobody can be reached, and waits at the second time")
  func unreachable() throws {
    var search = RouteSearch(try path("/site-b/x"))
    var routes = try self.routes(["/"], ["/site-b"])
    let first = try #require(search.next(in: routes, self.now))
    let goesOn1 = search.failed(first)
    #expect(goesOn1)
    routes.drop(first.directory)
    #expect(search.next(in: routes, self.now) == (try self.step("/", isPatient: true)))
    try search.redirected(try redirection("/site-b"), by: .root)
    routes.learn(first.directory, for: .seconds(30), self.now)
    let again = try #require(search.next(in: routes, self.now))
    #expect(again == (try self.step("/site-b", isPatient: true)))
    let goesOn2 = search.failed(again)
    #expect(!goesOn2)
  }

  @Test("uses a route that has expired when nobody above can be reached")
  func cutOff() throws {
    var search = RouteSearch(try path("/site-b/x"))
    let routes = try self.routes(["/"], expired: ["/site-b"])
    let first = try #require(search.next(in: routes, self.now))
    #expect(first == (try self.step("/", isPatient: false)))
    let goesOn3 = search.failed(first)
    #expect(goesOn3)
    let second = try #require(search.next(in: routes, self.now))
    #expect(second == (try self.step("/site-b", isPatient: false)))
    let goesOn4 = search.failed(second)
    #expect(goesOn4)
    #expect(search.next(in: routes, self.now)?.isPatient == true)
  }

  @Test("ends, whatever it is told")
  func termination() throws {
    var random = SeededGenerator()
    let names = ["a", "b"]
    func anyPath() throws -> TreePath {
      try TreePath(
        (0..<Int.random(in: 0...4, using: &random)).map { _ in
          try PathComponent(names.randomElement(using: &random) ?? "a")
        })
    }
    for _ in 0..<2000 {
      var search = RouteSearch(try anyPath())
      var (asked, hopCount) = (try anyPath(), 0)
      let hasLinks = Bool.random(using: &random)
      do {
        while true {
          let next = ClientRedirection(
            directory: try anyPath(), processes: [], lifetime: .zero,
            path: hasLinks && Bool.random(using: &random) ? try anyPath() : nil)
          try search.redirected(next, by: asked)
          asked = next.directory
          hopCount += 1
          // Without links it can not take longer than up the whole depth and down again, and that once more.
          guard hopCount <= (hasLinks ? RouteSearch.redirectCountMax : 20) else { break }
        }
        Issue.record("It does not end; seed \(random.seed)")
      } catch let error as BlocktreeError {
        #expect(error.reason == .redirected, "seed \(random.seed)")
      }
    }
  }
}

@Suite("An operation on two names")
struct TwoPathsTests {
  private func check(_ first: String, _ second: String, to directory: String, by asked: String, path: String? = nil)
    throws
  {
    var metadata = ["directory": directory, "lifetime_ms": "1000"]
    metadata["path"] = path
    let error = BlocktreeError(code: .failedPrecondition, reason: .redirected, message: "", metadata: metadata)
    let paths = TwoPaths(try TreePath(parsing: first), try TreePath(parsing: second))
    try paths.check(error, by: try TreePath(parsing: asked))
  }

  @Test("is asked for at the nearest directory above both")
  func common() throws {
    for (first, second, expected) in [
      ("/a/b/c", "/a/b/d", "/a/b"), ("/a/b", "/a/b/d", "/a"), ("/a", "/b", "/"), ("/a/b", "/ab/c", "/"),
      ("/", "/a", "/"),
    ] { #expect(TwoPaths(try path(first), try path(second)).common.description == expected) }
  }

  @Test("follows a redirect that leads to both, and no other one")
  func redirects() throws {
    try self.check("/s/a", "/s/b", to: "/s", by: "/")
    try self.check("/s/a/x", "/s/b/x", to: "/", by: "/s")
    for (first, second, directory) in [("/s/a", "/t", "/s"), ("/s/a/x", "/s/b", "/s/a"), ("/t", "/s/b", "/s")] {
      let error = #expect(throws: BlocktreeError.self) { try self.check(first, second, to: directory, by: "/") }
      #expect(error?.reason == .crossGeneration)
    }
    #expect(throws: TwoPaths.Elsewhere.self) { try self.check("/s/a", "/l/b", to: "/s", by: "/", path: "/s/b") }
    let error = #expect(throws: BlocktreeError.self) {
      try self.check("/s/a", "/s/l/b", to: "/", by: "/s", path: "/home/b")
    }
    #expect(error?.reason == .redirected && error?.message.contains("/home/b") == true)
  }
}
