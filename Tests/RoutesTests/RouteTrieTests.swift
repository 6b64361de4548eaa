// SPDX-License-Identifier: Apache-2.0

import Routes
import Testing
import Trust

@Suite("A trie of routes")
struct RouteTrieTests {
  private let now = RouteTime.seconds(100)

  private func trie(_ scopes: [String], until seconds: Double = 130) -> TestTrie {
    let trie = TestTrie()
    for scope in scopes {
      trie.insert(
        route([scope == "/" ? "/p" : "\(scope)/p"], until: seconds), for: .filesystem, at: path(scope), now: now)
    }
    return trie
  }

  @Test("answers with the longest prefix, and says which it is")
  func longestPrefix() {
    let trie = self.trie(["/", "/a", "/a/b/c"])
    for (scope, expected) in [
      ("/", "/"), ("/x", "/"), ("/a", "/a"), ("/a/b", "/a"), ("/a/b/c", "/a/b/c"), ("/a/b/c/d/e", "/a/b/c"),
      ("/a/b/cd", "/a"), ("/ab", "/"), ("/a/x/b/c", "/a"),
    ] {
      let match = trie.lookup(.filesystem, at: path(scope), now: now)
      #expect(match?.scope == path(expected), "for \(scope)")
      #expect(match?.route.processes.first?.path.parent == path(expected))
    }
    #expect(trie.lookup(.sector, at: path("/a"), now: now) == nil)
    #expect(trie.counters.hits == 9)
    #expect(trie.counters.misses == 1)
  }

  @Test("gives all prefixes, the longest first")
  func allPrefixes() {
    let trie = self.trie(["/", "/a", "/a/b/c"])
    trie.insert(.negative(until: .seconds(130)), for: .filesystem, at: path("/a/b"), now: now)
    let scopes = trie.all(.filesystem, towards: path("/a/b/c/d"), now: now).map(\.scope.description)
    #expect(scopes == ["/a/b/c", "/a", "/"])
  }

  @Test("never answers a route from the moment of its expiry on")
  func expiry() {
    let trie = self.trie(["/a/b"], until: 130)
    trie.insert(route(["/a/p"], until: 125), for: .filesystem, at: path("/a"), now: now)
    let scope = path("/a/b/c")
    #expect(trie.lookup(.filesystem, at: scope, now: RouteTime(nanoseconds: 129_999_999_999))?.depth == 2)
    #expect(trie.lookup(.filesystem, at: scope, now: .seconds(130)) == nil)
    #expect(trie.exact(.filesystem, at: path("/a/b"), now: .seconds(130)) == nil)
    #expect(trie.nearest(.filesystem, at: path("/a/b"), now: .seconds(130)) == nil)
    #expect(trie.list(count: 10, now: .seconds(130)).isEmpty)
    #expect(trie.all(.filesystem, towards: scope, now: .seconds(126)).map(\.depth) == [2])
  }

  @Test("remembers nothing for longer than its limit, but what is to stay")
  func lifetimeLimit() {
    let trie = TestTrie(limits: RouteLimits(lifetimeMax: .seconds(60)))
    trie.insert(route(["/p"], until: 1e6), for: .sector, at: .root, now: now)
    trie.insert(Route(processes: [process("/q")], expiry: .never), for: .filesystem, at: .root, now: now)
    #expect(trie.exact(.sector, at: .root, now: .seconds(159))?.route.expiry == .seconds(160))
    #expect(trie.exact(.sector, at: .root, now: .seconds(160)) == nil)
    #expect(trie.exact(.filesystem, at: .root, now: .seconds(1e9)) != nil)
  }

  @Test("looks past negative routes for a prefix, and tells of them when asked for just that scope")
  func negative() {
    let trie = self.trie(["/a"])
    trie.insert(.negative(until: .seconds(102)), for: .filesystem, at: path("/a/b"), now: now)
    #expect(trie.lookup(.filesystem, at: path("/a/b/c"), now: now)?.scope == path("/a"))
    #expect(trie.exact(.filesystem, at: path("/a/b"), now: now)?.route.isNegative == true)
    #expect(trie.exact(.filesystem, at: path("/a/b"), now: .seconds(102)) == nil)
  }

  @Test("knows the nearest only if it knows of each directory on the way that nobody is there")
  func nearest() {
    let trie = self.trie(["/a"])
    #expect(trie.nearest(.filesystem, at: path("/a"), now: now)?.scope == path("/a"))
    #expect(trie.nearest(.filesystem, at: path("/a/b/c"), now: now) == nil)
    trie.insert(.negative(until: .seconds(110)), for: .filesystem, at: path("/a/b/c"), now: now)
    #expect(trie.nearest(.filesystem, at: path("/a/b/c"), now: now) == nil)
    trie.insert(.negative(until: .seconds(105)), for: .filesystem, at: path("/a/b"), now: now)
    let match = trie.nearest(.filesystem, at: path("/a/b/c"), now: now)
    #expect(match?.scope == path("/a"))
    #expect(match?.route.expiry == .seconds(105))
    #expect(trie.nearest(.filesystem, at: path("/a/b/x"), now: now) == nil)
  }

  @Test("knows that nobody is nearest when that is known up to the root")
  func nearestNobody() {
    let trie = TestTrie()
    trie.insert(.negative(until: .seconds(110)), for: .relay, at: path("/a"), now: now)
    #expect(trie.nearest(.relay, at: path("/a"), now: now) == nil)
    trie.insert(.negative(until: .seconds(110)), for: .relay, at: .root, now: now)
    #expect(trie.nearest(.relay, at: path("/a"), now: now)?.route.isNegative == true)
  }

  @Test("takes a process that failed out of all routes, and forgets those that are left with none")
  func dropProcess() {
    let trie = TestTrie()
    for scope in ["/a", "/a/b", "/a/c"] {
      trie.insert(route(["/a/p", "/a/q"], until: 130), for: .filesystem, at: path(scope), now: now)
    }
    trie.insert(route(["/a/p"], until: 130), for: .sector, at: path("/a/b"), now: now)
    trie.insert(route(["/x/p"], until: 130), for: .sector, at: path("/x"), now: now)
    trie.drop(process: path("/a/p"))
    #expect(trie.count == 4)
    #expect(trie.lookup(.sector, at: path("/a/b"), now: now) == nil)
    let left = trie.lookup(.filesystem, at: path("/a/b"), now: now)
    #expect(left?.route.processes.map(\.path) == [path("/a/q")])
    // What is told anew counts again.
    trie.insert(route(["/a/p"], until: 130), for: .sector, at: path("/a/b"), now: now)
    trie.insert(route(["/a/q", "/a/p"], until: 130), for: .filesystem, at: path("/a/c"), now: now)
    #expect(trie.lookup(.sector, at: path("/a/b"), now: now)?.route.processes.count == 1)
    #expect(trie.lookup(.filesystem, at: path("/a/c"), now: now)?.route.processes.count == 2)
    #expect(trie.lookup(.filesystem, at: path("/a/b"), now: now)?.route.processes.count == 1)
    #expect(trie.count == 5)
  }

  @Test("forgets all services of one scope when told so, and nothing of other scopes")
  func dropAll() {
    let trie = self.trie(["/a", "/a/b"])
    trie.insert(route(["/a/p"], until: 130), for: .sector, at: path("/a"), now: now)
    trie.insert(.negative(until: .seconds(110)), for: nil, at: path("/a"), now: now)
    for scope in ["/a", "/a/nothing", "/"] { trie.dropAll(at: path(scope)) }
    #expect(trie.list(count: 10, now: now).map(\.scope) == [path("/a/b")])
    trie.dropAll(at: path("/a/b"))
    #expect(trie.count == 0)
  }

  @Test("lists prefixes without counting that as a use")
  func scopes() {
    let trie = self.trie(["/", "/a", "/a/b"])
    #expect(trie.scopes(.filesystem, towards: path("/a/b/c"), now: now).map(\.description) == ["/a/b", "/a", "/"])
    #expect(trie.scopes(.filesystem, towards: path("/x"), now: .seconds(130)).isEmpty)
    #expect(trie.counters.hits == 0 && trie.counters.misses == 0)
  }

  @Test("forgets one scope and service at a time when told so")
  func drop() {
    let trie = self.trie(["/a", "/a/b"])
    trie.insert(route(["/a/p"], until: 130), for: .sector, at: path("/a"), now: now)
    trie.drop(.filesystem, at: path("/a"))
    trie.drop(.filesystem, at: path("/a/nothing"))
    #expect(trie.lookup(.filesystem, at: path("/a"), now: now) == nil)
    #expect(trie.lookup(.sector, at: path("/a"), now: now) != nil)
    #expect(trie.lookup(.filesystem, at: path("/a/b"), now: now) != nil)
    #expect(trie.count == 2)
  }

  @Test("lists what it knows, by scopes")
  func list() {
    let trie = self.trie(["/b", "/a/c", "/a"])
    trie.insert(.negative(until: .seconds(110)), for: nil, at: path("/a"), now: now)
    let list = trie.list(count: 10, now: now)
    #expect(list.map(\.scope.description) == ["/a", "/a", "/a/c", "/b"])
    #expect(list.first?.service == nil)
    #expect(trie.list(count: 2, now: now).count == 2)
  }

  @Test("keeps the same processes once, however they are ordered, and names as bytes")
  func interning() {
    let trie = TestTrie()
    for number in 0..<1_000 {
      let names = number.isMultiple(of: 2) ? ["/p", "/q", "/r"] : ["/r", "/p", "/q", "/q"]
      trie.insert(route(names, until: 130), for: .filesystem, at: path("/a/\(number)"), now: now)
    }
    let small = trie.byteCount
    // Each set is some 600 bytes.
    #expect(small < 1_000 * 300)
    // One text to Swift, two names here.
    let (composed, decomposed) = (path("/caf\u{e9}"), path("/cafe\u{301}"))
    trie.insert(route(["/x"], until: 130), for: .sector, at: composed, now: now)
    #expect(trie.exact(.sector, at: decomposed, now: now) == nil)
    #expect(trie.exact(.sector, at: composed, now: now) != nil)
  }
}

@Suite("The memory of a trie of routes")
struct RouteMemoryTests {
  private let now = RouteTime.seconds(100)

  @Test("stays within its bound whatever is put in", arguments: seeds(1...4))
  func bound(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let limits = RouteLimits(byteCountMax: 200_000, lifetimeMax: .seconds(60))
    let trie = TestTrie(limits: limits)
    for number in 0..<20_000 {
      // First short names and shared processes, then long names, then large sets of processes.
      let long = String(repeating: "n", count: 100)
      let (scope, processes) =
        switch number / 5_000 {
        case 0: ("/a/\(number)", 2)
        case 1: ("/\(number)\(long)/\(number)\(long)/x", 2)
        case 2: ("/b/\(number)", 12)
        default: ("/c/\(Int.random(in: 0..<3_000, using: &random))/\(number % 7)", 1)
        }
      let set = (0..<processes).map { process("/p\($0)-\(number / 5_000 == 2 ? number : 0)") }
      let lifetime = Double.random(in: 1...60, using: &random)
      let now = RouteTime.seconds(100 + Double(number) / 1_000)
      let isKept = trie.insert(
        Route(processes: set, expiry: now + .seconds(lifetime)), for: .sector, at: path(scope), now: now)
      #expect(isKept, again(seed))
      #expect(trie.byteCount <= limits.byteCountMax, again(seed))
      #expect(trie.exact(.sector, at: path(scope), now: now) != nil, "what was just put in is there")
    }
    // What it is made of now does not suffer from what was there before.
    #expect(trie.count > 500, again(seed))
    #expect(trie.counters.evictions > 0)
  }

  @Test("makes room first with what has expired")
  func expiredFirst() {
    let trie = TestTrie(limits: RouteLimits(byteCountMax: 100_000))
    var number = 0
    // Full, to the last one that fits without an eviction.
    while trie.counters.evictions == 0 && number < 10_000 {
      trie.insert(
        route(["/p"], until: number.isMultiple(of: 2) ? 110 : 1e4), for: .sector, at: path("/\(number)"), now: now)
      number += 1
    }
    let (evictions, count) = (trie.counters.evictions, number)
    #expect(count > 200 && evictions > 0)
    for more in 0..<(count / 2 - 50) {
      trie.insert(route(["/p"], until: 1e4), for: .sector, at: path("/new-\(more)"), now: .seconds(120))
    }
    #expect(trie.counters.evictions == evictions)
    let kept = (0..<count).count { trie.exact(.sector, at: path("/\($0)"), now: .seconds(120)) != nil }
    #expect(kept >= count / 2 - Int(evictions))
  }

  @Test("keeps what is asked for, and lets go of what is not")
  func usedStays() {
    let trie = TestTrie(limits: RouteLimits(byteCountMax: 100_000))
    let hot = (0..<20).map { path("/hot/\($0)") }
    for scope in hot { trie.insert(route(["/p"], until: 500), for: .sector, at: scope, now: now) }
    for number in 0..<5_000 {
      trie.insert(route(["/p"], until: 500), for: .sector, at: path("/cold/\(number)"), now: now)
      if number.isMultiple(of: 50) {
        for scope in hot { _ = trie.lookup(.sector, at: scope, now: now) }
      }
    }
    #expect(trie.counters.evictions > 1_000)
    for scope in hot { #expect(trie.exact(.sector, at: scope, now: now) != nil, "\(scope)") }
  }

  @Test("is given back by what expires, without anybody asking for it")
  func steady() {
    let trie = TestTrie(limits: RouteLimits(byteCountMax: 1 << 24, lifetimeMax: .seconds(30)))
    var byteCount = 0
    for number in 0..<20_000 {
      // A thousand a second, each for two seconds.
      let now = RouteTime.seconds(100 + Double(number) / 1_000)
      trie.insert(
        Route(processes: [process("/p")], expiry: now + .seconds(2)), for: .sector, at: path("/d/\(number)"), now: now)
      if number == 5_000 { byteCount = trie.byteCount }
    }
    #expect(trie.count < 4_500)
    #expect(trie.byteCount <= byteCount * 3 / 2)
    #expect(trie.counters.evictions == 0)
  }

  @Test("refuses a route that is too large for it, and keeps the others")
  func tooLarge() {
    let trie = TestTrie(limits: RouteLimits(byteCountMax: 64_000))
    trie.insert(route(["/p"], until: 130), for: .sector, at: path("/a"), now: now)
    let many = (0..<256).map { "/a/process-with-a-name-\($0)" }
    #expect(!trie.insert(route(many, until: 130), for: .sector, at: path("/b"), now: now))
    #expect(trie.counters.refusals == 1)
    #expect(trie.exact(.sector, at: path("/a"), now: now) != nil)
  }

  @Test("survives long silence and times that lie far apart")
  func silence() {
    let trie = TestTrie(limits: RouteLimits(lifetimeMax: .seconds(30)))
    var seconds = 0.0
    for round in 0..<200 {
      seconds += round.isMultiple(of: 3) ? 1e5 : 17.3
      let now = RouteTime.seconds(seconds)
      for number in 0..<20 {
        trie.insert(
          Route(processes: [process("/p")], expiry: now + .seconds(Double(number + 1))), for: .sector,
          at: path("/\(round)/\(number)"), now: now)
      }
      for number in 0..<20 {
        #expect(trie.exact(.sector, at: path("/\(round)/\(number)"), now: now) != nil)
      }
    }
    trie.expire(countMax: .max, now: .seconds(seconds + 100))
    #expect(trie.count == 0)
    #expect(trie.counters.expirations == 200 * 20)
  }
}
