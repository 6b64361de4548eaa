// SPDX-License-Identifier: Apache-2.0

/// What is known of a session besides its results.
package struct SessionHeader: Hashable, Sendable {
  package var owner: [UInt8]
  package var openedAt: Int64
  /// The highest sequence number applied; 0 before the first.
  package var highest: UInt64
  /// The entry that used it last.
  package var lastUsed: LogIndex

  package init(owner: [UInt8], openedAt: Int64, highest: UInt64, lastUsed: LogIndex) {
    self.owner = owner
    self.openedAt = openedAt
    self.highest = highest
    self.lastUsed = lastUsed
  }
}

/// What became of an operation.
package enum OperationStatus: Hashable, Sendable {
  case applied(result: [UInt8])
  case new
  /// More than 1,024 below the session's highest: it can not be told.
  case tooOld
  case unknownSession
}

/// The open sessions, bounded in number, in all and for each owner, so that nobody can have those of others dropped. A
/// pure function of the entries applied, so equal on all replicas.
struct SessionTable: Sendable {
  private(set) var headers: [SessionID: SessionHeader] = [:]
  private var byOwner: [[UInt8]: Set<SessionID>] = [:]
  private let countMax: Int
  private let ownerCountMax: Int
  /// One item for each use, in order of log index; items that are not a session's last use are passed over.
  private var uses: [(index: LogIndex, session: SessionID)] = []
  private var usesStart = 0

  init(countMax: Int, ownerCountMax: Int, headers: [SessionID: SessionHeader] = [:]) {
    self.countMax = max(countMax, 1)
    self.ownerCountMax = max(ownerCountMax, 1)
    self.headers = headers
    for (session, header) in headers { self.byOwner[header.owner, default: []].insert(session) }
    // Several sessions may have been used by one entry: their identifiers decide, the same everywhere.
    self.uses = headers.map { ($0.value.lastUsed, $0.key) }.sorted { Self.isOrdered($0, $1) }
  }

  subscript(_ session: SessionID) -> SessionHeader? { self.headers[session] }

  /// Opens a session, and returns those dropped for it.
  mutating func open(_ opening: Change.SessionOpening, at index: LogIndex) -> [SessionID] {
    guard self.headers[opening.session] == nil else { return [] }
    var evicted: [SessionID] = []
    while let own = self.byOwner[opening.owner], own.count >= self.ownerCountMax,
      let oldest = self.leastRecentlyUsed(of: own)
    {
      self.remove(oldest)
      evicted.append(oldest)
    }
    while self.headers.count >= self.countMax, let oldest = self.leastRecentlyUsed() {
      self.remove(oldest)
      evicted.append(oldest)
    }
    self.byOwner[opening.owner, default: []].insert(opening.session)
    self.headers[opening.session] = SessionHeader(
      owner: opening.owner, openedAt: opening.openedAt, highest: 0, lastUsed: index)
    self.uses.append((index, opening.session))
    return evicted
  }

  mutating func apply(_ operation: Change.Operation, at index: LogIndex) {
    guard var header = self.headers[operation.session] else { return }
    header.highest = max(header.highest, operation.sequence)
    if header.lastUsed != index {
      header.lastUsed = index
      self.uses.append((index, operation.session))
    }
    self.headers[operation.session] = header
    if self.uses.count - self.usesStart > 2 * self.headers.count + 1_024 { self.compact() }
  }

  private mutating func remove(_ session: SessionID) {
    guard let header = self.headers.removeValue(forKey: session) else { return }
    self.byOwner[header.owner]?.remove(session)
    if self.byOwner[header.owner]?.isEmpty == true { self.byOwner[header.owner] = nil }
  }

  private func leastRecentlyUsed(of sessions: Set<SessionID>) -> SessionID? {
    let uses = sessions.compactMap { session in self.headers[session].map { (index: $0.lastUsed, session: session) } }
    return uses.min { Self.isOrdered($0, $1) }?.session
  }

  private mutating func leastRecentlyUsed() -> SessionID? {
    while self.usesStart < self.uses.count {
      let first = self.uses[self.usesStart]
      if self.headers[first.session]?.lastUsed == first.index {
        // Of those used by one entry the lowest, whatever the order of their operations in it.
        var lowest = first.session
        var next = self.usesStart + 1
        while next < self.uses.count, self.uses[next].index == first.index {
          let other = self.uses[next].session
          if self.headers[other]?.lastUsed == first.index, Self.isLower(other, lowest) { lowest = other }
          next += 1
        }
        return lowest
      }
      self.usesStart += 1
    }
    return nil
  }

  private mutating func compact() {
    self.uses = self.uses[self.usesStart...].filter { self.headers[$0.session]?.lastUsed == $0.index }
    self.usesStart = 0
  }

  private static func isOrdered(
    _ left: (index: LogIndex, session: SessionID), _ right: (index: LogIndex, session: SessionID)
  ) -> Bool {
    left.index == right.index ? self.isLower(left.session, right.session) : left.index < right.index
  }

  private static func isLower(_ left: SessionID, _ right: SessionID) -> Bool {
    (left.high, left.low) < (right.high, right.low)
  }
}
