// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Routes
internal import Trust

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// What a trie of many scopes costs.
struct TrieFigures: Encodable, Sendable {
  let scopeCount: Int
  /// By how much the memory of this process grew; nil where the system does not say.
  let residentBytesPerEntry: Double?
  /// By the trie's own count, of what it has taken.
  let countedBytesPerEntry: Double
  let insertMicroseconds: Double
  /// Of a scope that is there, and of a path two names below one; medians of all runs.
  let exactMicroseconds: Double
  let prefixMicroseconds: Double
  let missMicroseconds: Double
  /// Of a process that is in all routes of one site.
  let dropMicroseconds: Double

  var table: String {
    let resident =
      self.residentBytesPerEntry.map { [["resident memory", Self.text($0), "bytes an entry", "200"]] } ?? []
    let rows =
      [["trie of \(self.scopeCount) scopes", "", "unit", "target"]] + resident + [
        ["memory, by its own count", Self.text(self.countedBytesPerEntry), "bytes an entry", "200"],
        ["insert", Self.text(self.insertMicroseconds), "µs", ""],
        ["lookup, the scope itself", Self.text(self.exactMicroseconds), "µs", "1"],
        ["lookup, two names below", Self.text(self.prefixMicroseconds), "µs", "1"],
        ["lookup, nothing there", Self.text(self.missMicroseconds), "µs", "1"],
        ["drop a process", Self.text(self.dropMicroseconds), "µs", ""],
      ]
    return TextTable(rows: rows, numberColumns: [1, 3]).lines.joined(separator: "\n")
  }

  /// Fills a trie with `/site-12/users/user-7/projects/p3`, each with the three processes of its site, and asks for
  /// them in no order, so that nothing that is looked at was looked at just before.
  static func measure(scopeCount: Int, runCount: Int) -> TrieFigures {
    let now = RouteTime(nanoseconds: 0)
    let siteCount = max(1, scopeCount / 10_000)
    let routes = (0..<siteCount).map { site in
      Route(processes: (1...3).compactMap { Self.process(site, $0) }, expiry: now + .seconds(300))
    }
    var order = Array(0..<scopeCount)
    var random = Permutation(seed: 1)
    order.shuffle(using: &random)
    let sample = order.prefix(100_000)
    let exact = sample.compactMap { Self.scope($0, of: siteCount, below: "") }
    let below = sample.compactMap { Self.scope($0, of: siteCount, below: "/src/main.swift") }
    let nowhere = sample.compactMap { try? TreePath(parsing: "/elsewhere-\($0)/users") }

    let before = Self.residentByteCount
    var trie = RouteTrie(limits: RouteLimits(byteCountMax: 4 << 30), seed: 7)
    let clock = ContinuousClock()
    var insertion = Duration.zero
    for number in order {
      guard let scope = Self.scope(number, of: siteCount, below: "") else { continue }
      let begin = clock.now
      trie.insert(routes[number % siteCount], for: .filesystem, at: scope, now: now)
      insertion += clock.now - begin
    }
    let after = Self.residentByteCount
    let count = Double(trie.count)
    let counted = Double(trie.byteCount) / count

    func lookups(_ scopes: [TreePath]) -> Double {
      let times = (0..<runCount).map { _ in
        let begin = clock.now
        for scope in scopes { _ = trie.lookup(.filesystem, at: scope, now: now) }
        return (clock.now - begin) / .microseconds(1) / Double(max(1, scopes.count))
      }
      return times.sorted()[times.count / 2]
    }
    let (exactTime, prefixTime, missTime) = (lookups(exact), lookups(below), lookups(nowhere))
    let begin = clock.now
    if let process = routes[0].processes.first { trie.drop(process: process.path) }
    let drop = (clock.now - begin) / .microseconds(1)
    return TrieFigures(
      scopeCount: trie.count,
      residentBytesPerEntry: before.flatMap { before in after.map { Double($0 - before) / count } },
      countedBytesPerEntry: counted, insertMicroseconds: insertion / .microseconds(1) / count,
      exactMicroseconds: exactTime, prefixMicroseconds: prefixTime, missMicroseconds: missTime,
      dropMicroseconds: drop)
  }

  private static func scope(_ number: Int, of siteCount: Int, below: String) -> TreePath? {
    // Twenty projects a user, and 500 users in each site, which has 10,000 scopes.
    let (rest, site) = number.quotientAndRemainder(dividingBy: siteCount)
    let (user, project) = rest.quotientAndRemainder(dividingBy: 20)
    return try? TreePath(parsing: "/site-\(site)/users/user-\(user)/projects/p\(project)\(below)")
  }

  private static func process(_ site: Int, _ number: Int) -> RouteProcess? {
    guard let path = try? TreePath(parsing: "/site-\(site)/node-\(number)"),
      let address = try? NetworkAddress(host: "node-\(number).site-\(site).example.org", port: 7777)
    else { return nil }
    return RouteProcess(path: path, services: [.sector, .filesystem], addresses: [address])
  }

  /// Of this process (proc(5), statm).
  private static var residentByteCount: Int? {
    guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return nil }
    return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map {
      $0 * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
  }

  private static func text(_ value: Double) -> String { String(format: value < 10 ? "%.2f" : "%.0f", value) }
}

/// SplitMix64: the same order in each run.
private struct Permutation: RandomNumberGenerator {
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
