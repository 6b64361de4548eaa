// SPDX-License-Identifier: Apache-2.0

package import Trust

/// A process: its path, what it hosts, and where it says that it can be reached.
package struct RouteProcess: Hashable, Sendable, CustomStringConvertible {
  /// The path of its credential file.
  package let path: TreePath
  /// In ascending order; empty where whoever told of the process did not say.
  package let services: [Service]
  /// In the order in which they should be tried; at most `NetworkAddress.countMax`.
  package let addresses: [NetworkAddress]

  /// Keeps the first `Service.countMax` services and `NetworkAddress.countMax` addresses.
  package init(path: TreePath, services: [Service] = [], addresses: [NetworkAddress]) {
    self.path = path
    self.services = Array(services.sorted().prefix(Service.countMax))
    self.addresses = Array(addresses.prefix(NetworkAddress.countMax))
  }

  package var description: String { self.path.description }

  /// Whether it hosts the service; each hosts nil, which stands for any.
  package func hosts(_ service: Service?) -> Bool {
    service.map(self.services.contains) ?? true
  }
}

/// Who serves a scope, for a while: processes, or the knowledge that there are none.
package struct Route: Hashable, Sendable {
  /// How many processes one route may have; what is beyond is not kept.
  package static let processCountMax = 256

  /// By their paths, each once. None: it is known that nobody serves the scope (a negative route).
  package let processes: [RouteProcess]
  /// From this moment on it is not answered any more.
  package let expiry: RouteTime

  package init(processes: [RouteProcess], expiry: RouteTime) {
    // In order, so that the same processes told in another order are one set in the trie.
    var distinct: [RouteProcess] = []
    distinct.reserveCapacity(min(processes.count, Self.processCountMax))
    for process in processes.sorted(by: { $0.path < $1.path }) where distinct.last?.path != process.path {
      guard distinct.count < Self.processCountMax else { break }
      distinct.append(process)
    }
    self.processes = distinct
    self.expiry = expiry
  }

  init(ordered processes: [RouteProcess], expiry: RouteTime) {
    self.processes = processes
    self.expiry = expiry
  }

  package static func negative(until expiry: RouteTime) -> Route { Route(ordered: [], expiry: expiry) }

  package var isNegative: Bool { self.processes.isEmpty }
}

/// What a trie answers: a route, and the scope that it was found at.
package struct RouteMatch: Sendable {
  package let route: Route
  /// What was asked for.
  let path: TreePath
  /// How many components the scope that matched has. Only kept as a number, since most callers do not need the path.
  package let depth: Int

  /// The scope that matched: the path that was asked for, or a directory above it.
  package var scope: TreePath { self.path.prefix(depth: self.depth) ?? self.path }
}

/// What is known of one scope and service.
package struct KnownRoute: Hashable, Sendable {
  package let scope: TreePath
  /// Nil for processes whatever they host.
  package let service: Service?
  package let route: Route
}
