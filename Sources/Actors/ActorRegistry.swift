// SPDX-License-Identifier: Apache-2.0

/// Which actors there are. Under its runtime's lock.
struct ActorRegistry {
  private var cells: [UInt64: Cell] = [:]
  private var names: [String: Cell] = [:]
  /// How those that take envelopes read them.
  private var inboxes: [UInt64: EnvelopeInbox] = [:]
  private var services: [ServiceKey: EnvelopeInbox] = [:]
  private var lastNumber: UInt64 = 0
  private var isClosed = false
  /// Who waits until there is nobody left.
  private var closing: [EndWaiter] = []

  struct ServiceKey: Hashable {
    let scope: String
    let service: String
  }

  var count: Int { self.cells.count }

  /// - Returns: a number that no actor of this runtime had before.
  mutating func newNumber() -> UInt64 {
    self.lastNumber += 1
    return self.lastNumber
  }

  mutating func add(_ cell: Cell, name: String?, inbox: EnvelopeInbox?, countMax: Int) throws(SpawnError) {
    if self.isClosed { throw .shutDown }
    if self.cells.count >= countMax { throw .tooManyActors }
    if let name {
      if self.names[name] != nil { throw .nameTaken }
      self.names[name] = cell
    }
    self.cells[cell.number] = cell
    if let inbox { self.inboxes[cell.number] = inbox }
  }

  /// - Returns: who waits for that, if it was the last, and no other will come.
  mutating func remove(_ number: UInt64, name: String?) -> [EndWaiter] {
    self.cells[number] = nil
    if let name { self.names[name] = nil }
    if !self.inboxes.isEmpty { self.inboxes[number] = nil }
    return self.takeClosing()
  }

  func cell(_ number: UInt64) -> Cell? { self.cells[number] }
  func cell(named name: String) -> Cell? { self.names[name] }
  func inbox(_ number: UInt64) -> EnvelopeInbox? { self.inboxes[number] }

  // MARK: Services

  mutating func add(_ inbox: EnvelopeInbox, for key: ServiceKey, countMax: Int) throws(GroupError) {
    if self.services[key] != nil { throw .serviceTaken }
    if self.services.count >= countMax { throw .tooManyServices }
    self.services[key] = inbox
  }

  mutating func removeService(_ key: ServiceKey) { self.services[key] = nil }
  func service(_ key: ServiceKey) -> EnvelopeInbox? { self.services[key] }

  // MARK: The end

  /// No actor comes from now on.
  ///
  /// - Returns: those without a parent, and who waits for nobody.
  mutating func close(_ waiter: EndWaiter) -> ([Cell], [EndWaiter]) {
    self.isClosed = true
    self.closing.append(waiter)
    return (self.cells.values.filter { $0.parent == nil }, self.takeClosing())
  }

  private mutating func takeClosing() -> [EndWaiter] {
    guard self.isClosed, self.cells.isEmpty else { return [] }
    defer { self.closing = [] }
    return self.closing
  }
}
