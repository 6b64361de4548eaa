// SPDX-License-Identifier: Apache-2.0

package import Routes
package import Trust

/// Which directories a client knows processes of, and for how long it believes that. Decides, and performs nothing.
///
/// Whoever serves a path is found by the longest prefix: the deepest known directory at or above it. What the profile
/// names stays. What was learned from redirects is in a `RouteTrie`, with its lifetime. There it is known that a
/// directory has processes, and not which: those are the affair of its `ClusterCore`.
package struct ClientRoutes: Sendable {
  package typealias Instant = RouteTime

  /// The memory for what is remembered beside the profile's: some 400 directories. What was not used in a while gives
  /// way.
  package static let byteCountMax = 256 << 10
  /// How long a route that has expired is used on when nobody above can be asked about it.
  package static let emergencyLifetime: Duration = .seconds(5)

  /// What stands in the trie for a directory that is believed to have processes of its own.
  private static let believed = Service.queries
  /// The same for one that has had some: nobody else may be left to be asked.
  private static let known: Service? = nil

  /// The profile's, in its order.
  private var permanent: [TreePath] = []
  private var trie: RouteTrie

  /// - Parameter seed: of the trie.
  package init(_ directories: [TreePath], seed: UInt64 = 0) {
    let limits = RouteLimits(byteCountMax: Self.byteCountMax, lifetimeMax: ClientRedirection.lifetimeMax)
    self.trie = RouteTrie(limits: limits, seed: seed)
    for directory in directories where !self.permanent.contains(directory) { self.permanent.append(directory) }
  }

  /// The memory that it takes for what was learned, in bytes.
  package var byteCount: Int { self.trie.byteCount }

  /// Where calls go that are about no path.
  package var home: TreePath { self.permanent.first ?? .root }

  package func contains(_ directory: TreePath) -> Bool {
    // What does not expire is the same at all times.
    self.permanent.contains(directory)
      || self.trie.scopes(Self.known, towards: directory, now: RouteTime(nanoseconds: 0)).first == directory
  }

  package var permanentCount: Int { self.permanent.count }

  package func isPermanent(_ directory: TreePath) -> Bool { self.permanent.contains(directory) }

  /// The directories at or above a path, the deepest first: those that are believed, and those that no longer are.
  package func directories(above path: TreePath, _ now: Instant) -> (fresh: [TreePath], expired: [TreePath]) {
    let permanent = self.permanent.filter { $0.isSameOrAncestor(of: path) }
    let believed = self.trie.scopes(Self.believed, towards: path, now: now).filter { !permanent.contains($0) }
    let fresh = (permanent + believed).sorted { $0.depth > $1.depth }
    return (fresh, self.trie.scopes(Self.known, towards: path, now: now).filter { !fresh.contains($0) })
  }

  /// The profile's that lie elsewhere, those nearest to the root first: they know who is above them.
  package func elsewhere(than path: TreePath) -> [TreePath] {
    let others = self.permanent.enumerated().filter { !$0.element.isSameOrAncestor(of: path) }
    return others.sorted { ($0.element.depth, $0.offset) < ($1.element.depth, $1.offset) }.map(\.element)
  }

  /// The directory's processes answer for what lies below it.
  package mutating func learn(_ directory: TreePath, for lifetime: Duration, _ now: Instant) {
    guard !self.permanent.contains(directory) else { return }
    let mark = [RouteProcess(path: directory, addresses: [])]
    self.trie.insert(Route(processes: mark, expiry: .never), for: Self.known, at: directory, now: now)
    self.trie.insert(Route(processes: mark, expiry: now + lifetime), for: Self.believed, at: directory, now: now)
  }

  package mutating func used(_ directory: TreePath, _ now: Instant) {
    _ = self.trie.exact(Self.known, at: directory, now: now)
    _ = self.trie.exact(Self.believed, at: directory, now: now)
  }

  /// Nobody can be reached there. What the profile names stays.
  package mutating func drop(_ directory: TreePath) { self.trie.dropAll(at: directory) }

  /// A process of the profile has said where it really is.
  package mutating func move(_ directory: TreePath, to other: TreePath) {
    guard let index = self.permanent.firstIndex(of: directory), directory != other else { return }
    if self.permanent.contains(other) { self.permanent.remove(at: index) } else { self.permanent[index] = other }
    self.trie.dropAll(at: other)
  }
}
