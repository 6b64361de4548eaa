// SPDX-License-Identifier: Apache-2.0

internal import Trust

/// What a process remembers of who serves which scope.
///
/// A tree of directories, in which a directory has a route for each service that something is known of. The longest
/// prefix of a path wins. No route is answered after it has expired; all memory is bounded, and what has expired, or
/// has not been asked for in a while, makes room for what is new.
///
/// Inside there is no object for a directory: directories, routes, names and sets of processes are records in four
/// arrays, which name each other by index, and the children of all directories are found through one hash table.
/// A route to a set of processes that others lead to as well takes some 100 bytes.
///
/// No clock: each call says what time it is, in an order that never goes back. A value, to be kept by one owner; copies
/// are dear.
package struct RouteTrie: Sendable {
  /// A directory that has routes, or directories with routes below it.
  struct Node: ArenaElement {
    /// The next free place while this is one.
    var link: UInt32
    /// The next free place is told apart by it.
    var name: UInt32
    var firstRoute: UInt32
    var childCount: UInt32

    var parent: UInt32 { self.link }
  }

  struct Entry: ArenaElement {
    var expiry: RouteTime
    /// The next route of the same directory; the next free place while this is one.
    var link: UInt32
    /// None in a free place.
    var node: UInt32
    /// None for a negative route.
    var processes: UInt32
    /// In the list of those that expire at about the same time.
    var previous: UInt32
    var next: UInt32
    var service: UInt16
    /// Since the hand has passed last.
    var wasUsed: Bool
  }

  static var none: UInt32 { .max }
  static var rootNode: UInt32 { 0 }

  package let limits: RouteLimits
  package internal(set) var counters = RouteCounters()

  var nodes = Arena<Node>()
  var names: NameTable
  var children = HashSlots()
  var entries = Arena<Entry>()
  var sets = ProcessSets()
  var services = ServiceTable()
  var expiries: ExpiryWheel
  /// Where the search for a route that has not been used goes on.
  var hand: UInt32 = 0
  let hash: NameHash

  /// - Parameter seed: any number that others do not know, so that nobody can choose names that all fall into one
  ///   place.
  package init(limits: RouteLimits = RouteLimits(), seed: UInt64 = 0) {
    var limits = limits
    // So all that is counted inside fits into four bytes.
    limits.byteCountMax = min(limits.byteCountMax, Int(UInt32.max))
    self.limits = limits
    self.hash = NameHash(seed: seed)
    self.names = NameTable(hash: self.hash)
    self.expiries = ExpiryWheel(lifetimeMax: limits.lifetimeMax)
    _ = self.nodes.add(Node(link: Self.none, name: Self.none, firstRoute: Self.none, childCount: 0))
  }

  /// How many routes there are; some of them may have expired.
  package var count: Int { self.entries.count - self.sets.deadRouteCount }

  /// The memory that the trie has taken, in bytes, used or not.
  package var byteCount: Int { self.byteCount(adding: Addition()) }

  /// Some of the routes that have not expired, by their scopes: all of them, unless there are more than `count`.
  package func list(count: Int, now: RouteTime) -> [KnownRoute] {
    var result: [KnownRoute] = []
    for index in 0..<UInt32(self.entries.endIndex) {
      guard result.count < count else { break }
      let entry = self.entries[index]
      guard entry.node != Self.none, self.isGood(entry, at: now), let scope = self.scope(of: entry.node) else {
        continue
      }
      result.append(
        KnownRoute(scope: scope, service: self.services[entry.service], route: self.route(entry)))
    }
    return result.sorted {
      if $0.scope != $1.scope { return $0.scope < $1.scope }
      return ($0.service?.name ?? "") < ($1.service?.name ?? "")
    }
  }

  func scope(of node: UInt32) -> TreePath? {
    var names: [UInt32] = []
    var node = node
    while node != Self.rootNode {
      names.append(self.nodes[node].name)
      node = self.nodes[node].parent
    }
    guard !names.isEmpty else { return .root }
    var bytes: [UInt8] = []
    for name in names.reversed() {
      bytes.append(UInt8(ascii: "/"))
      bytes.append(contentsOf: self.names.name(name))
    }
    return try? TreePath(parsing: bytes)
  }

  @inline(__always)
  func isGood(_ entry: Entry, at now: RouteTime) -> Bool {
    entry.expiry > now && (entry.processes == Self.none || !self.sets.isDead(entry.processes))
  }

  func route(_ entry: Entry) -> Route {
    Route(
      ordered: entry.processes == Self.none ? [] : self.sets.processes(entry.processes), expiry: entry.expiry)
  }
}
