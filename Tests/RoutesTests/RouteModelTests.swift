// SPDX-License-Identifier: Apache-2.0

import Routes
import Testing
import Trust

/// The obvious trie: a dictionary of paths.
private struct ModelTrie {
  private struct Key: Hashable {
    let scope: TreePath
    let service: Service?
  }

  private var routes: [Key: Route] = [:]

  mutating func insert(_ route: Route, for service: Service?, at scope: TreePath, now: RouteTime) {
    self.routes[Key(scope: scope, service: service)] = route.expiry > now ? route : nil
  }

  mutating func drop(_ service: Service?, at scope: TreePath) {
    self.routes[Key(scope: scope, service: service)] = nil
  }

  mutating func dropAll(at scope: TreePath) {
    self.routes = self.routes.filter { $0.key.scope != scope }
  }

  mutating func drop(process: TreePath) {
    for (key, route) in self.routes where !route.isNegative {
      let left = route.processes.filter { $0.path != process }
      self.routes[key] = left.isEmpty ? nil : Route(processes: left, expiry: route.expiry)
    }
  }

  func exact(_ service: Service?, at scope: TreePath, now: RouteTime) -> Route? {
    self.routes[Key(scope: scope, service: service)].flatMap { $0.expiry > now ? $0 : nil }
  }

  func all(_ service: Service?, towards scope: TreePath, now: RouteTime) -> [TreePath: Route] {
    var result: [TreePath: Route] = [:]
    for directory in scope.ancestors + [scope] {
      if let route = self.exact(service, at: directory, now: now), !route.isNegative { result[directory] = route }
    }
    return result
  }

  func nearest(_ service: Service?, at scope: TreePath, now: RouteTime) -> (scope: TreePath, route: Route)? {
    var expiry = RouteTime.never
    for directory in (scope.ancestors + [scope]).reversed() {
      guard let route = self.exact(service, at: directory, now: now) else { return nil }
      expiry = min(expiry, route.expiry)
      if !route.isNegative || directory.isRoot {
        return (directory, Route(processes: route.processes, expiry: expiry))
      }
    }
    return nil
  }

  func count(now: RouteTime) -> Int { self.routes.values.count { $0.expiry > now } }
}

@Suite("A trie of routes beside a dictionary of paths")
struct RouteModelTests {
  /// Few names, so that paths meet; one of eight bytes, one longer, one that another begins with.
  private static let names = ["a", "ab", "b", "directory", "eight-by", "long-name-of-a-directory", "ünï"]

  private static func scope(_ random: inout SeededGenerator) -> TreePath {
    let depth = Int.random(in: 0...5, using: &random)
    return path("/" + (0..<depth).map { _ in self.names.randomElement(using: &random) ?? "a" }.joined(separator: "/"))
  }

  @Test("answers the same, whatever happens to it", arguments: seeds(1...30))
  func sameAnswers(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    // A seed of zero bits makes the hash no better; a table with many collisions works as well.
    let trie = TestTrie(limits: RouteLimits(byteCountMax: 1 << 24, lifetimeMax: .seconds(1_000)), seed: seed % 3)
    var model = ModelTrie()
    var now = RouteTime.seconds(1)
    let services: [Service?] = [.sector, .filesystem, nil] + (0..<12).map { service("s\($0)") }
    let processes = (0..<8).map { process("/p\($0)", port: UInt16(7_000 + $0)) }
    for _ in 0..<3_000 {
      let scope = Self.scope(&random)
      let service = services[
        min(Int.random(in: 0..<40, using: &random), Int.random(in: 0..<services.count, using: &random))]
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<40:
        let chosen = processes.shuffled(using: &random).prefix(Int.random(in: 0...3, using: &random))
        let expiry = now + .seconds(Double.random(in: -1...40, using: &random))
        let route = Route(processes: Array(chosen), expiry: expiry)
        trie.insert(route, for: service, at: scope, now: now)
        model.insert(route, for: service, at: scope, now: now)
      case 40..<42:
        trie.drop(service, at: scope)
        model.drop(service, at: scope)
      case 42:
        trie.dropAll(at: scope)
        model.dropAll(at: scope)
      case 43:
        let process = processes.randomElement(using: &random)?.path ?? .root
        trie.drop(process: process)
        model.drop(process: process)
      case 44..<48:
        now = now + .seconds(Double.random(in: 0...10, using: &random))
      case 48:
        trie.expire(countMax: Int.random(in: 0...20, using: &random), now: now)
      case 49:
        #expect(trie.list(count: .max, now: now).count == model.count(now: now), again(seed))
      default:
        #expect(
          trie.exact(service, at: scope, now: now)?.route == model.exact(service, at: scope, now: now), again(seed))
        let all = model.all(service, towards: scope, now: now)
        let longest = all.max { $0.key.depth < $1.key.depth }
        let match = trie.lookup(service, at: scope, now: now)
        #expect(match?.route == longest?.value, again(seed))
        #expect(match?.scope == longest?.key, again(seed))
        let matches = trie.all(service, towards: scope, now: now)
        #expect(matches.map(\.depth) == all.keys.map(\.depth).sorted(by: >), again(seed))
        #expect(matches.allSatisfy { all[$0.scope] == $0.route }, again(seed))
        #expect(trie.scopes(service, towards: scope, now: now) == matches.map(\.scope), again(seed))
        let nearest = model.nearest(service, at: scope, now: now)
        let found = trie.nearest(service, at: scope, now: now)
        #expect(found?.route == nearest?.route && found?.scope == nearest?.scope, again(seed))
      }
    }
  }

  @Test("answers the same or nothing when its memory is short", arguments: seeds(1...10))
  func shortOfMemory(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let trie = TestTrie(limits: RouteLimits(byteCountMax: 24_000, lifetimeMax: .seconds(1_000)), seed: seed)
    var model = ModelTrie()
    var now = RouteTime.seconds(1)
    let processes = (0..<8).map { process("/p\($0)", port: UInt16(7_000 + $0)) }
    var answers = 0
    for number in 0..<5_000 {
      let scope = Self.scope(&random)
      now = now + .milliseconds(10)
      if number.isMultiple(of: 2) {
        let chosen = processes.shuffled(using: &random).prefix(Int.random(in: 0...3, using: &random))
        let route = Route(processes: Array(chosen), expiry: now + .seconds(Double.random(in: 1...20, using: &random)))
        #expect(trie.insert(route, for: .sector, at: scope, now: now), again(seed))
        model.insert(route, for: .sector, at: scope, now: now)
        #expect(trie.byteCount <= 24_000, again(seed))
      } else if let match = trie.exact(.sector, at: scope, now: now) {
        answers += 1
        #expect(match.route == model.exact(.sector, at: scope, now: now), again(seed))
      }
    }
    #expect(trie.counters.evictions > 100 && answers > 20, again(seed))
  }
}
