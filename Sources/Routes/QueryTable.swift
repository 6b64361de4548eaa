// SPDX-License-Identifier: Apache-2.0

/// Queries under way, so that equal ones are asked once: the first to ask leads, the others wait for what it hears.
///
/// What waits is up to the caller: a number, a continuation.
package struct QueryTable<Query: Hashable & Sendable, Waiter: Sendable>: Sendable {
  /// What to do with a query.
  package enum Role: Hashable, Sendable {
    /// Ask, and call `finish` with whatever comes of it.
    case lead
    /// Wait: whoever leads will hand over the result.
    case wait
    /// Too many are under way: refuse.
    case full
  }

  package let queryCountMax: Int
  package let waiterCountMax: Int
  private var waiters: [Query: [Waiter]] = [:]
  private(set) package var waiterCount = 0

  /// - Parameters:
  ///   - queryCountMax: how many different queries may be under way.
  ///   - waiterCountMax: how many may wait for one, beside those who lead, for all queries together.
  package init(queryCountMax: Int = 1_024, waiterCountMax: Int = 65_536) {
    self.queryCountMax = queryCountMax
    self.waiterCountMax = waiterCountMax
  }

  package var queryCount: Int { self.waiters.count }

  /// Says whether to ask. The waiter is kept only for `.wait`.
  package mutating func join(_ query: Query, as waiter: @autoclosure () -> Waiter) -> Role {
    guard self.waiters[query] != nil else {
      guard self.waiters.count < self.queryCountMax else { return .full }
      self.waiters[query] = []
      return .lead
    }
    guard self.waiterCount < self.waiterCountMax else { return .full }
    self.waiters[query]?.append(waiter())
    self.waiterCount += 1
    return .wait
  }

  /// Ends a query. To be called once by who leads, whatever happened, also when it was cancelled.
  ///
  /// - Returns: who waits for the result, in the order in which they came.
  package mutating func finish(_ query: Query) -> [Waiter] {
    let waiters = self.waiters.removeValue(forKey: query) ?? []
    self.waiterCount -= waiters.count
    return waiters
  }

  /// Takes out who does not wait any more. Nil when there is no such waiter, as it has its result already.
  package mutating func leave(_ query: Query, where isTheOne: (Waiter) -> Bool) -> Waiter? {
    guard let index = self.waiters[query]?.firstIndex(where: isTheOne) else { return nil }
    self.waiterCount -= 1
    return self.waiters[query]?.remove(at: index)
  }
}
