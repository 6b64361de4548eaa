// SPDX-License-Identifier: Apache-2.0

import Foundation
import Routes
import Testing
import Trust

/// SplitMix64: the same seed gives the same test.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) {
    self.state = seed
  }

  mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var z = self.state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// Seeds for a test: the one in the environment variable `BLOCKTREE_SEED`, if there is one, else those given.
func seeds(_ usual: ClosedRange<UInt64>) -> [UInt64] {
  let named = ProcessInfo.processInfo.environment["BLOCKTREE_SEED"].flatMap { UInt64($0) }
  return named.map { [$0] } ?? Array(usual)
}

/// What a failure of a random test says: how to see it again.
func again(_ seed: UInt64) -> Comment { "Again: this test with BLOCKTREE_SEED=\(seed)" }

func path(_ text: String) -> TreePath {
  do {
    return try TreePath(parsing: text)
  } catch {
    Issue.record("\(text) is no path: \(error)")
    return .root
  }
}

func service(_ name: String) -> Service {
  do {
    return try Service(name)
  } catch {
    Issue.record("\(name) is no service: \(error)")
    return .relay
  }
}

func process(_ text: String, _ services: [Service] = [.sector, .filesystem, .discovery], port: UInt16 = 7777)
  -> RouteProcess
{
  let address = try? NetworkAddress(host: "10.0.0.1", port: port)
  return RouteProcess(path: path(text), services: services, addresses: address.map { [$0] } ?? [])
}

extension RouteTime {
  static func seconds(_ count: Double) -> RouteTime { RouteTime(nanoseconds: Int64(count * 1e9)) }
}

func route(_ processes: [String], until seconds: Double = 30) -> Route {
  Route(processes: processes.map { process($0) }, expiry: .seconds(seconds))
}

/// A trie behind a reference: expectations can not change values.
final class TestTrie {
  private var trie: RouteTrie

  init(limits: RouteLimits = RouteLimits(), seed: UInt64 = 0) {
    self.trie = RouteTrie(limits: limits, seed: seed)
  }

  var count: Int { self.trie.count }
  var byteCount: Int { self.trie.byteCount }
  var counters: RouteCounters { self.trie.counters }

  @discardableResult
  func insert(_ route: Route, for service: Service?, at scope: TreePath, now: RouteTime) -> Bool {
    self.trie.insert(route, for: service, at: scope, now: now)
  }

  func lookup(_ service: Service?, at scope: TreePath, now: RouteTime) -> RouteMatch? {
    self.trie.lookup(service, at: scope, now: now)
  }

  func all(_ service: Service?, towards scope: TreePath, now: RouteTime) -> [RouteMatch] {
    self.trie.all(service, towards: scope, now: now)
  }

  func scopes(_ service: Service?, towards scope: TreePath, now: RouteTime) -> [TreePath] {
    self.trie.scopes(service, towards: scope, now: now)
  }

  func exact(_ service: Service?, at scope: TreePath, now: RouteTime) -> RouteMatch? {
    self.trie.exact(service, at: scope, now: now)
  }

  func nearest(_ service: Service?, at scope: TreePath, now: RouteTime) -> RouteMatch? {
    self.trie.nearest(service, at: scope, now: now)
  }

  func list(count: Int, now: RouteTime) -> [KnownRoute] { self.trie.list(count: count, now: now) }
  func drop(_ service: Service?, at scope: TreePath) { self.trie.drop(service, at: scope) }
  func dropAll(at scope: TreePath) { self.trie.dropAll(at: scope) }
  func drop(process: TreePath) { self.trie.drop(process: process) }
  func expire(countMax: Int, now: RouteTime) { self.trie.expire(countMax: countMax, now: now) }
}
