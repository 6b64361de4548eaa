// SPDX-License-Identifier: Apache-2.0

package import Trust

/// Which directories a client knows processes of, and for how long it believes that. Decides, and performs nothing.
///
/// Whoever serves a path is found by the longest prefix: the deepest known directory at or above it. What the profile
/// names stays; what was learned from redirects has a lifetime.
package struct ClientRoutes: Sendable {
  package typealias Instant = ContinuousClock.Instant

  /// Directories that are remembered beside the profile's. Those that were used least lately give way.
  package static let learnedCountMax = 256
  /// How long a route that has expired is used on when nobody above can be asked about it.
  package static let emergencyLifetime: Duration = .seconds(5)

  private struct Route {
    /// Nil for what the profile names.
    var expires: Instant?
    var lastUse: UInt64
  }

  private var routes: [TreePath: Route] = [:]
  /// The profile's, in its order.
  private var permanent: [TreePath] = []
  private var useCount: UInt64 = 0

  package init(_ directories: [TreePath]) {
    for directory in directories where self.routes[directory] == nil {
      self.permanent.append(directory)
      self.routes[directory] = Route(expires: nil, lastUse: 0)
    }
  }

  package var count: Int { self.routes.count }

  /// Where calls go that are about no path.
  package var home: TreePath { self.permanent.first ?? .root }

  package func contains(_ directory: TreePath) -> Bool { self.routes[directory] != nil }

  /// The directories at or above a path, the deepest first: those that are believed, and those that no longer are.
  package func directories(above path: TreePath, _ now: Instant) -> (fresh: [TreePath], expired: [TreePath]) {
    var (fresh, expired): ([TreePath], [TreePath]) = ([], [])
    var place: TreePath? = path
    while let directory = place {
      if let route = self.routes[directory] {
        if route.expires.map({ $0 > now }) ?? true { fresh.append(directory) } else { expired.append(directory) }
      }
      place = directory.parent
    }
    return (fresh, expired)
  }

  /// The profile's that lie elsewhere, those nearest to the root first: they know who is above them.
  package func elsewhere(than path: TreePath) -> [TreePath] {
    let others = self.permanent.enumerated().filter { !$0.element.isSameOrAncestor(of: path) }
    return others.sorted { ($0.element.depth, $0.offset) < ($1.element.depth, $1.offset) }.map(\.element)
  }

  /// The directory's processes answer for what lies below it.
  ///
  /// - Returns: directories that had to give way.
  package mutating func learn(_ directory: TreePath, for lifetime: Duration, _ now: Instant) -> [TreePath] {
    self.useCount += 1
    if let route = self.routes[directory], route.expires == nil { return [] }
    self.routes[directory] = Route(expires: now + lifetime, lastUse: self.useCount)
    var dropped: [TreePath] = []
    while self.routes.count > self.permanent.count + Self.learnedCountMax {
      let oldest = self.routes.filter { $0.value.expires != nil }.min { $0.value.lastUse < $1.value.lastUse }
      guard let oldest else { break }
      self.routes[oldest.key] = nil
      dropped.append(oldest.key)
    }
    return dropped
  }

  package mutating func used(_ directory: TreePath) {
    self.useCount += 1
    self.routes[directory]?.lastUse = self.useCount
  }

  /// Nobody can be reached there. What the profile names stays.
  package mutating func drop(_ directory: TreePath) {
    guard let route = self.routes[directory], route.expires != nil else { return }
    self.routes[directory] = nil
  }

  /// A process of the profile has said where it really is.
  package mutating func move(_ directory: TreePath, to other: TreePath) {
    guard let index = self.permanent.firstIndex(of: directory), directory != other else { return }
    self.routes[directory] = nil
    if self.permanent.contains(other) { self.permanent.remove(at: index) } else { self.permanent[index] = other }
    self.routes[other] = Route(expires: nil, lastUse: self.useCount)
  }
}
