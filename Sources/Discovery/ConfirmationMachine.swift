// SPDX-License-Identifier: Apache-2.0

package import Trust

/// What is known of principals whose credential files other clusters store: decides whether somebody is confirmed, and
/// when to ask for whose credential file. It asks nobody itself, and has no clock: times are nanoseconds of one that
/// never goes back.
///
/// Requests for one path share one question. An answer holds for a lifetime. Whoever is asked for in its second half
/// has it asked for again meanwhile, so that nobody who is in use waits. When the cluster that knows can not be
/// reached, what was confirmed stays so until its lifetime ends, and not longer.
package struct ConfirmationMachine<Waiter: Sendable>: Sendable {
  package typealias Time = Int64
  package typealias WaiterID = UInt64
  package typealias Limits = ConfirmationLimits
  package typealias Outcome = ConfirmationOutcome

  package enum Answer: Hashable, Sendable {
    case now(Standing)
    /// The waiter is told when the question is answered. It is to be asked now, or it is under way.
    case wait(asks: Bool)
    /// Confirmed. The question is to be asked again, for the next time.
    case refresh
  }

  private struct Known {
    var keyID: Digest32
    var noted: Time
    var until: Time
    /// When to ask again, while it is in use.
    var refresh: Time
  }

  private struct Entry {
    /// The last confirmation; it may have ended.
    var known: Known?
    /// A refusal that holds for a while. There is no confirmation beside an absence.
    var refusal: (standing: Standing, until: Time)?
    var isAsking = false
    var waiters: [WaiterID: (keyID: Digest32, waiter: Waiter)] = [:]
    var used: Time
  }

  /// What there is of a part of the tree.
  private struct Part {
    var count = 0
    var questionCount = 0
  }

  private let limits: Limits
  private let home: TreePath
  private var entries: [TreePath: Entry] = [:]
  private var parts: [TreePath: Part] = [:]
  /// Questions under way.
  package private(set) var questionCount = 0

  /// - Parameter home: the directory that this process's cluster serves.
  package init(_ limits: Limits = Limits(), home: TreePath = .root) {
    self.limits = limits
    self.home = home
  }

  /// How many principals are remembered.
  package var count: Int { self.entries.count }

  /// Asks for somebody. With `wait`, the waiter is kept until `settle` or `cancel` hands it back.
  package mutating func request(
    _ path: TreePath, _ keyID: Digest32, _ id: WaiterID, _ waiter: Waiter, now: Time
  ) -> Answer {
    self.entries[path]?.used = now
    if let standing = self.standing(path, keyID, now: now) {
      guard standing == .confirmed, self.isRefreshDue(path, now: now) else { return .now(standing) }
      self.ask(path)
      return .refresh
    }
    if let entry = self.entries[path] {
      guard entry.waiters.count < self.limits.waitersMax else { return .now(.busy) }
    } else {
      guard self.makeRoom(for: path) else { return .now(.busy) }
      self.add(Entry(used: now), at: path)
    }
    let asks = self.entries[path]?.isAsking == false
    guard !asks || self.mayAsk(path) else { return .now(.busy) }
    if asks { self.ask(path) }
    self.entries[path]?.waiters[id] = (keyID, waiter)
    return .wait(asks: asks)
  }

  /// As `request` by somebody who does not wait: for connections that stay open. Answers whether to ask.
  package mutating func touch(_ path: TreePath, _ keyID: Digest32, now: Time) -> Bool {
    self.entries[path]?.used = now
    if let standing = self.standing(path, keyID, now: now) {
      guard standing == .confirmed, self.isRefreshDue(path, now: now) else { return false }
    } else {
      guard self.mayAsk(path) else { return false }
      if self.entries[path] == nil {
        guard self.makeRoom(for: path) else { return false }
        self.add(Entry(used: now), at: path)
      }
      guard self.entries[path]?.isAsking == false else { return false }
    }
    self.ask(path)
    return true
  }

  /// How somebody stands now, without asking; nil when that is not known (any more).
  package func standing(_ path: TreePath, _ keyID: Digest32, now: Time) -> Standing? {
    guard let entry = self.entries[path] else { return nil }
    if let known = entry.known, now < known.until {
      if known.keyID == keyID { return .confirmed }
      // It may have been replaced just now: what the file said a while ago refuses nobody.
      if now < known.noted + self.limits.negativeLifetime { return .refused }
      return nil
    }
    if let refusal = entry.refusal, now < refusal.until { return refusal.standing }
    return nil
  }

  /// Whether somebody was asked for, and is not confirmed any more, or was refused: then open connections are to close.
  package func hasLapsed(_ path: TreePath, _ keyID: Digest32, now: Time) -> Bool {
    guard let entry = self.entries[path] else { return false }
    switch self.standing(path, keyID, now: now) {
    case .confirmed?: return false
    case .refused?: return true
    // Only a confirmation that has ended says something; nobody may have answered yet about a newcomer.
    case .unreachable?, .busy?, nil: return entry.known.map { $0.until <= now } ?? false
    }
  }

  /// Takes the answer to a question; returns who waited for it, and what each is to be told.
  package mutating func settle(
    _ path: TreePath, _ outcome: Outcome, now: Time
  ) -> [(waiter: Waiter, standing: Standing)] {
    guard var entry = self.entries[path], entry.isAsking else { return [] }
    entry.isAsking = false
    self.questionCount -= 1
    if let part = self.part(of: path) { self.parts[part]?.questionCount -= 1 }
    switch outcome {
    case .found(let keyID, let lifetime):
      let lifetime = max(0, min(lifetime, self.limits.lifetime))
      entry.known = Known(keyID: keyID, noted: now, until: now + lifetime, refresh: now + lifetime / 2)
      entry.refusal = nil
    case .absent:
      entry.known = nil
      entry.refusal = (.refused, now + self.limits.negativeLifetime)
    case .unreachable:
      entry.refusal = (.unreachable, now + self.limits.negativeLifetime)
      // Soon again, while it still holds.
      entry.known?.refresh = now + self.limits.negativeLifetime
    }
    let waiters = entry.waiters.values
    entry.waiters = [:]
    self.entries[path] = entry
    return waiters.map { keyID, waiter in
      let standing: Standing =
        switch outcome {
        case .found(let found, _): found == keyID ? .confirmed : .refused
        case .absent: .refused
        case .unreachable: .unreachable
        }
      return (waiter, standing)
    }
  }

  /// Takes a waiter back that was not told yet.
  package mutating func cancel(_ path: TreePath, _ id: WaiterID) -> Waiter? {
    self.entries[path]?.waiters.removeValue(forKey: id)?.waiter
  }

  /// Takes all waiters back: nobody answers any more.
  package mutating func stop() -> [Waiter] {
    let waiters = self.entries.values.flatMap { $0.waiters.values.map(\.waiter) }
    self.entries = [:]
    self.parts = [:]
    self.questionCount = 0
    return waiters
  }

  private func isRefreshDue(_ path: TreePath, now: Time) -> Bool {
    guard let entry = self.entries[path], let known = entry.known, !entry.isAsking else { return false }
    return now >= known.refresh && self.mayAsk(path)
  }

  private mutating func ask(_ path: TreePath) {
    self.entries[path]?.isAsking = true
    self.questionCount += 1
    if let part = self.part(of: path) { self.parts[part]?.questionCount += 1 }
  }

  // MARK: Room

  /// Whether one more question may be under way.
  private func mayAsk(_ path: TreePath) -> Bool {
    guard self.questionCount < self.limits.questionsMax else { return false }
    guard let part = self.part(of: path).flatMap({ self.parts[$0] }) else { return true }
    return part.questionCount < self.limits.questionsMax / 2
  }

  /// The part of the tree that a principal belongs to: those who certify principals below one directory can fill the
  /// half of what there is room for, and the rest is for all others. Nil for those who do not lie so deep.
  private func part(of path: TreePath) -> TreePath? {
    let depth = self.home.isAncestor(of: path) ? self.home.depth + 1 : 1
    return path.depth > depth ? path.prefix(depth: depth) : nil
  }

  private mutating func add(_ entry: Entry, at path: TreePath) {
    self.entries[path] = entry
    if let part = self.part(of: path) { self.parts[part, default: Part()].count += 1 }
  }

  /// Whether one more principal fits in. Those that were not asked for longest give way, some at once, so that looking
  /// for them is cheap on the whole; those about whom a question is under way do not. Where a part of the tree has
  /// filled its half, they are of that part.
  private mutating func makeRoom(for path: TreePath) -> Bool {
    let part = self.part(of: path)
    let isPartFull = part.flatMap { self.parts[$0] }.map { $0.count >= self.limits.countMax / 2 } ?? false
    guard isPartFull || self.entries.count >= self.limits.countMax else { return true }
    let idle = self.entries.filter { !$0.value.isAsking && (!isPartFull || self.part(of: $0.key) == part) }
      .sorted { ($0.value.used, $0.key) < ($1.value.used, $1.key) }
    for (path, _) in idle.prefix(max(1, self.limits.countMax / 16)) {
      self.entries[path] = nil
      guard let part = self.part(of: path) else { continue }
      self.parts[part]?.count -= 1
      if self.parts[part]?.count == 0 { self.parts[part] = nil }
    }
    return !idle.isEmpty
  }
}

package struct ConfirmationLimits: Hashable, Sendable {
  /// For how long a confirmation holds, in nanoseconds. Whoever answers may say less.
  package var lifetime: Int64 = 30_000_000_000
  /// The same for the answer that there is no such credential, and that nobody could be asked.
  package var negativeLifetime: Int64 = 2_000_000_000
  /// Principals that are remembered.
  package var countMax = 4_096
  /// Questions under way.
  package var questionsMax = 256
  /// Requests that wait for the answer to one question.
  package var waitersMax = 1_024

  package init() {}
}

/// What a question has led to.
package enum ConfirmationOutcome: Hashable, Sendable {
  /// The credential file at the path is for this key, and may be believed for so many nanoseconds.
  case found(keyID: Digest32, lifetime: Int64)
  /// There is none, or one that does not verify.
  case absent
  /// Nobody who knows could be reached.
  case unreachable
}

/// How somebody stands.
package enum Standing: Hashable, Sendable {
  case confirmed
  /// There is no credential file with this key.
  case refused
  /// Nobody who knows can be reached.
  case unreachable
  /// More is asked at once than can be.
  case busy
}
