// SPDX-License-Identifier: Apache-2.0

package import Trust

extension RouteTrie {
  /// The route with the longest scope that is a prefix of the path, or the path itself. Negative ones are passed
  /// over: who is told that nobody serves a directory looks above it.
  package mutating func lookup(_ service: Service?, at scope: TreePath, now: RouteTime) -> RouteMatch? {
    var found = Self.none
    var depthFound = 0
    if let number = self.services.find(service) {
      self.walk(scope) { node, depth in
        let index = self.entry(of: number, at: node)
        guard index != Self.none else { return }
        let entry = self.entries[index]
        guard entry.processes != Self.none, self.isGood(entry, at: now) else { return }
        found = index
        depthFound = depth
      }
    }
    return self.answer(found, path: scope, depth: depthFound)
  }

  /// All routes with scopes that are prefixes of the path, or the path itself; the longest first, and no negative ones.
  package mutating func all(_ service: Service?, towards scope: TreePath, now: RouteTime) -> [RouteMatch] {
    self.entries(service, towards: scope, now: now).reversed().compactMap {
      self.answer($0.entry, path: scope, depth: $0.depth)
    }
  }

  /// The scopes of what `all` finds, in the same order, without counting this as a use of the routes.
  package func scopes(_ service: Service?, towards scope: TreePath, now: RouteTime) -> [TreePath] {
    self.entries(service, towards: scope, now: now).reversed().compactMap { scope.prefix(depth: $0.depth) }
  }

  private func entries(
    _ service: Service?, towards scope: TreePath, now: RouteTime
  ) -> [(entry: UInt32, depth: Int)] {
    var found: [(entry: UInt32, depth: Int)] = []
    guard let number = self.services.find(service) else { return found }
    self.walk(scope) { node, depth in
      let index = self.entry(of: number, at: node)
      guard index != Self.none else { return }
      let entry = self.entries[index]
      if entry.processes != Self.none, self.isGood(entry, at: now) { found.append((index, depth)) }
    }
    return found
  }

  /// The route for just this scope, negative or not.
  package mutating func exact(_ service: Service?, at scope: TreePath, now: RouteTime) -> RouteMatch? {
    var found = Self.none
    let depth = scope.depth
    if let number = self.services.find(service), let node = self.node(at: scope) {
      let index = self.entry(of: number, at: node)
      if index != Self.none, self.isGood(self.entries[index], at: now) { found = index }
    }
    return self.answer(found, path: scope, depth: depth)
  }

  /// The nearest processes at or above the scope, if that is known for certain: of each directory from the scope
  /// upwards it is known that nobody there hosts the service, up to one of which it is known who does. A negative
  /// answer means that it is known up to the root that nobody does. Its expiry is that of the first of all these to
  /// expire.
  package mutating func nearest(_ service: Service?, at scope: TreePath, now: RouteTime) -> RouteMatch? {
    var path: [UInt32] = []
    let number = self.services.find(service)
    if let number {
      self.walk(scope) { node, _ in path.append(self.entry(of: number, at: node)) }
    }
    let depth = scope.depth
    guard path.count == depth + 1 else { return self.answer(Self.none, path: scope, depth: depth) }
    var expiry = RouteTime.never
    for (depth, index) in path.enumerated().reversed() {
      guard index != Self.none, self.isGood(self.entries[index], at: now) else { break }
      let entry = self.entries[index]
      expiry = min(expiry, entry.expiry)
      // Each of them is part of the answer.
      self.entries[index].wasUsed = true
      if entry.processes != Self.none || depth == 0 {
        self.counters.hits += 1
        return RouteMatch(
          route: Route(ordered: self.route(entry).processes, expiry: expiry), path: scope, depth: depth)
      }
    }
    return self.answer(Self.none, path: scope, depth: depth)
  }

  /// Counts, and remembers that the route was of use.
  private mutating func answer(_ index: UInt32, path: TreePath, depth: Int) -> RouteMatch? {
    guard index != Self.none else {
      self.counters.misses += 1
      return nil
    }
    self.counters.hits += 1
    if !self.entries[index].wasUsed { self.entries[index].wasUsed = true }
    return RouteMatch(route: self.route(self.entries[index]), path: path, depth: depth)
  }

  /// The node of a directory, if it has one.
  func node(at scope: TreePath) -> UInt32? {
    var last = Self.rootNode
    var count = 0
    self.walk(scope) { node, depth in
      last = node
      count = depth
    }
    return count == scope.depth ? last : nil
  }

  /// Visits the nodes from the root towards a directory, as far as there are any, with the number of their components.
  @inline(__always)
  func walk(_ scope: TreePath, _ visit: (_ node: UInt32, _ depth: Int) -> Void) {
    scope.bytes.withUnsafeBytes { path in
      var node = Self.rootNode
      var depth = 0
      visit(node, depth)
      var cursor = ComponentCursor()
      while let name = cursor.next(in: path) {
        guard let child = self.child(UnsafeRawBufferPointer(rebasing: path[name]), of: node) else { return }
        node = child
        depth += 1
        visit(node, depth)
      }
    }
  }

  @inline(__always)
  func child(_ name: UnsafeRawBufferPointer, of node: UInt32) -> UInt32? {
    self.children.find(self.hash.hash(name, in: node)) {
      let child = self.nodes[$0]
      return child.parent == node && self.names.isName(child.name, name)
    }
  }

  /// Where the route of a directory for a service lies; none when there is none.
  @inline(__always)
  func entry(of service: UInt16, at node: UInt32) -> UInt32 {
    var index = self.nodes[node].firstRoute
    while index != Self.none && self.entries[index].service != service { index = self.entries[index].link }
    return index
  }
}

/// Goes through the names of a path.
struct ComponentCursor {
  private var end = 0

  /// Where the next name lies; nil after the last one.
  @inline(__always)
  mutating func next(in path: UnsafeRawBufferPointer) -> Range<Int>? {
    let start = self.end + 1
    guard start < path.count else { return nil }
    var end = start
    while end < path.count && path[end] != UInt8(ascii: "/") { end += 1 }
    self.end = end
    return start..<end
  }
}
