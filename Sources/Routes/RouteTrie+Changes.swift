// SPDX-License-Identifier: Apache-2.0

package import Trust

extension RouteTrie {
  /// How much is missing for a route.
  struct Addition {
    var nodeCount = 0
    var nameByteCount = 0
    var entryCount = 0
    var processes: [RouteProcess] = []
  }

  /// Remembers a route in place of the one for the same scope and service. One that has expired is just forgotten.
  ///
  /// Its expiry is brought within `RouteLimits.lifetimeMax` from now, unless it is `RouteTime.never`.
  ///
  /// - Returns: whether it is remembered. It is not when it has expired, or takes more than a sixteenth of the memory
  ///   that
  ///   there may be in all.
  @discardableResult
  package mutating func insert(_ route: Route, for service: Service?, at scope: TreePath, now: RouteTime) -> Bool {
    self.expire(countMax: Self.expiryCount, now: now)
    guard route.expiry > now, self.limits.lifetimeMax > .zero else {
      self.drop(service, at: scope)
      return false
    }
    guard self.makeRoom(for: route, of: service, at: scope, now: now) else {
      self.counters.refusals += 1
      // What was known before is not so any more.
      self.drop(service, at: scope)
      return false
    }
    let expiry = route.expiry == .never ? .never : min(route.expiry, now + self.limits.lifetimeMax)
    // Its list has to be empty of what expired a round ago.
    if expiry != .never && ExpiryWheel.number(of: expiry) - self.expiries.listCount > self.expiries.swept {
      self.expire(countMax: .max, now: now)
    }
    guard self.store(Route(ordered: route.processes, expiry: expiry), for: service, at: scope) != nil else {
      self.counters.refusals += 1
      return false
    }
    self.counters.insertions += 1
    return true
  }

  /// Forgets what is known of a scope and service.
  package mutating func drop(_ service: Service?, at scope: TreePath) {
    guard let number = self.services.find(service), let node = self.node(at: scope) else { return }
    let index = self.entry(of: number, at: node)
    if index != Self.none { self.remove(index) }
  }

  /// Forgets what is known of a scope, for all services.
  package mutating func dropAll(at scope: TreePath) {
    // The directory's place goes with its last route.
    while let node = self.node(at: scope), self.nodes[node].firstRoute != Self.none {
      self.remove(self.nodes[node].firstRoute)
    }
  }

  /// Forgets a process that could not be reached: it is taken out of all routes, and those that led to it alone are
  /// gone. Takes a pass over the sets of processes, of which there are far fewer than routes.
  package mutating func drop(process: TreePath) {
    self.sets.drop(process)
  }

  /// Removes routes that expired more than about a second ago, so many at most.
  package mutating func expire(countMax: Int, now: RouteTime) {
    let present = ExpiryWheel.number(of: now)
    var count = 0
    // After more time than the lists cover all that is in them has expired, wherever one begins.
    var number = max(self.expiries.swept, present - self.expiries.listCount - 1)
    while number + 1 < present {
      while self.expiries[number + 1] != Self.none {
        guard count < countMax else { return self.expiries.advance(to: number) }
        self.remove(self.expiries[number + 1])
        self.counters.expirations += 1
        count += 1
      }
      number += 1
    }
    self.expiries.advance(to: number)
  }

  /// How many expired routes go with each new one: more than one, so that they do not become more.
  private static let expiryCount = 4

  // MARK: Memory

  func byteCount(adding addition: Addition) -> Int {
    self.nodes.byteCount(adding: addition.nodeCount) + self.children.byteCount(adding: addition.nodeCount)
      + self.names.byteCount(adding: addition.nodeCount, ofBytes: addition.nameByteCount)
      + self.entries.byteCount(adding: addition.entryCount)
      + (addition.processes.isEmpty ? self.sets.byteCount : self.sets.byteCount(adding: addition.processes))
      + self.services.byteCount + self.expiries.byteCount
  }

  /// Evicts until a route fits in.
  private mutating func makeRoom(for route: Route, of service: Service?, at scope: TreePath, now: RouteTime) -> Bool {
    let ownByteCount = ProcessSets.heapByteCount(of: route.processes) + 2 * scope.bytes.count
    guard ownByteCount <= self.limits.byteCountMax / 16 else { return false }
    var evictionCount = 0
    var mayRebuild = true
    while true {
      let addition = self.addition(for: route, of: service, at: scope)
      if self.byteCount(adding: addition) <= self.limits.byteCountMax { return true }
      let isEmpty = !self.evict(now: now)
      evictionCount += 1
      // One or two evictions make room, as long as routes are like those before them. Otherwise what was taken for
      // one kind (long names, say) is in the way of another (many processes): then everything is put together anew.
      if isEmpty || evictionCount > max(16, self.entries.count / 8) {
        guard mayRebuild else { return false }
        self.rebuild()
        mayRebuild = !isEmpty
        evictionCount = 0
      }
    }
  }

  /// Puts all routes into new tables, which are no larger than they have to be.
  private mutating func rebuild() {
    var fresh = RouteTrie(limits: self.limits, seed: self.hash.seed)
    fresh.counters = self.counters
    fresh.nodes.reserve(self.nodes.count)
    fresh.entries.reserve(self.entries.count)
    for index in 0..<UInt32(self.entries.endIndex) {
      let entry = self.entries[index]
      guard entry.node != Self.none, entry.processes == Self.none || !self.sets.isDead(entry.processes),
        let scope = self.scope(of: entry.node),
        let new = fresh.store(self.route(entry), for: self.services[entry.service], at: scope)
      else { continue }
      fresh.entries[new].wasUsed = entry.wasUsed
    }
    fresh.expiries.advance(to: self.expiries.swept)
    self = fresh
  }

  private func addition(for route: Route, of service: Service?, at scope: TreePath) -> Addition {
    var addition = Addition(processes: route.processes)
    var depth = 0
    var last = Self.rootNode
    self.walk(scope) { node, reached in
      last = node
      depth = reached
    }
    let missing = scope.depth - depth
    if missing == 0, let number = self.services.find(service) {
      addition.entryCount = self.entry(of: number, at: last) == Self.none ? 1 : 0
    } else {
      addition.entryCount = 1
    }
    guard missing > 0 else { return addition }
    addition.nodeCount = missing
    scope.bytes.withUnsafeBytes { path in
      var cursor = ComponentCursor()
      var position = 0
      while let name = cursor.next(in: path) {
        position += 1
        guard position > depth else { continue }
        if self.names.find(UnsafeRawBufferPointer(rebasing: path[name])) == nil { addition.nameByteCount += name.count }
      }
    }
    return addition
  }

  /// Removes one route: one that has expired if there is any, else the first after the hand that was not used since
  /// the hand passed it last.
  private mutating func evict(now: RouteTime) -> Bool {
    guard self.entries.count > 0 else { return false }
    let expirations = self.counters.expirations
    self.expire(countMax: 1, now: now)
    if self.counters.expirations > expirations { return true }
    let endIndex = UInt32(self.entries.endIndex)
    while true {
      let index = self.hand < endIndex ? self.hand : 0
      self.hand = index + 1
      guard self.entries[index].node != Self.none else { continue }
      if self.entries[index].wasUsed && self.isGood(self.entries[index], at: now) {
        self.entries[index].wasUsed = false
        continue
      }
      if self.isGood(self.entries[index], at: now) { self.counters.evictions += 1 }
      self.remove(index)
      return true
    }
  }

  // MARK: Parts

  /// Puts a route in its place, for which there is room. Nil when there are routes for too many other services.
  private mutating func store(_ route: Route, for service: Service?, at scope: TreePath) -> UInt32? {
    guard let number = self.services.retain(service) else { return nil }
    let processes = route.isNegative ? Self.none : self.sets.retain(route.processes)
    let node = self.makeNode(at: scope)
    var index = self.entry(of: number, at: node)
    if index == Self.none {
      index = self.entries.add(
        Entry(
          expiry: route.expiry, link: self.nodes[node].firstRoute, node: node, processes: processes,
          previous: Self.none, next: Self.none, service: number, wasUsed: false))
      self.nodes[node].firstRoute = index
    } else {
      self.services.release(number)
      self.unlink(index)
      if self.entries[index].processes != Self.none { self.sets.release(self.entries[index].processes) }
      self.entries[index].processes = processes
      self.entries[index].expiry = route.expiry
    }
    self.link(index)
    return index
  }

  private mutating func makeNode(at scope: TreePath) -> UInt32 {
    scope.bytes.withUnsafeBytes { path in
      var node = Self.rootNode
      var cursor = ComponentCursor()
      while let range = cursor.next(in: path) {
        let name = UnsafeRawBufferPointer(rebasing: path[range])
        if let child = self.child(name, of: node) {
          node = child
          continue
        }
        let child = self.nodes.add(
          Node(link: node, name: self.names.retain(name), firstRoute: Self.none, childCount: 0))
        self.children.insert(child, hash: self.hash.hash(name, in: node))
        self.nodes[node].childCount += 1
        node = child
      }
      return node
    }
  }

  /// Removes a route, and the directories that are there for nothing else.
  private mutating func remove(_ index: UInt32) {
    let entry = self.entries[index]
    self.unlink(index)
    if self.nodes[entry.node].firstRoute == index {
      self.nodes[entry.node].firstRoute = entry.link
    } else {
      var before = self.nodes[entry.node].firstRoute
      while before != Self.none && self.entries[before].link != index { before = self.entries[before].link }
      if before != Self.none { self.entries[before].link = entry.link }
    }
    if entry.processes != Self.none { self.sets.release(entry.processes) }
    self.services.release(entry.service)
    self.entries.remove(
      index,
      leaving: Entry(
        expiry: .never, link: Self.none, node: Self.none, processes: Self.none, previous: Self.none, next: Self.none,
        service: 0, wasUsed: false))
    var node = entry.node
    while node != Self.rootNode && self.nodes[node].firstRoute == Self.none && self.nodes[node].childCount == 0 {
      let (parent, name) = (self.nodes[node].parent, self.nodes[node].name)
      let hash = self.names.name(name).withUnsafeBytes { self.hash.hash($0, in: parent) }
      self.children.remove(node, hash: hash)
      self.names.release(name)
      self.nodes.remove(
        node, leaving: Node(link: Self.none, name: Self.none, firstRoute: Self.none, childCount: 0))
      self.nodes[parent].childCount -= 1
      node = parent
    }
  }

  /// Puts a route into the list of those that expire with it.
  private mutating func link(_ index: UInt32) {
    let expiry = self.entries[index].expiry
    guard expiry != .never else { return }
    let number = ExpiryWheel.number(of: expiry)
    let head = self.expiries[number]
    self.entries[index].previous = Self.none
    self.entries[index].next = head
    if head != Self.none { self.entries[head].previous = index }
    self.expiries[number] = index
  }

  private mutating func unlink(_ index: UInt32) {
    let entry = self.entries[index]
    guard entry.expiry != .never else { return }
    if entry.previous != Self.none {
      self.entries[entry.previous].next = entry.next
    } else {
      self.expiries[ExpiryWheel.number(of: entry.expiry)] = entry.next
    }
    if entry.next != Self.none { self.entries[entry.next].previous = entry.previous }
    self.entries[index].previous = Self.none
    self.entries[index].next = Self.none
  }
}
