// SPDX-License-Identifier: Apache-2.0

package import Trust

/// Where a search can begin.
struct FindStart: Sendable {
  enum Origin: Int, Sendable {
    /// One's own cluster, which needs no journey.
    case here
    /// It was learned, and has not expired.
    case memory
    /// It was given, by a profile or a join package, and is not forgotten.
    case given
  }

  let directory: TreePath
  /// None for `here`.
  let processes: [RouteProcess]
  let origin: Origin
}

/// All that one process or client knows of who serves what, and the rules by which it learns more.
///
/// Routes that queries lead through, and what they find, are in a trie. There `Service.queries` stands for those who
/// go on with queries about a directory. Beside it are the processes that were given at the beginning, which are
/// never forgotten: those above one's own cluster, or the starting points of a profile.
///
/// A process first asks those who are closest to what it looks for; failing these, the cluster above its own, and not
/// the root's. That cluster answers for what is elsewhere from its own memory, with the lifetime that is left, and
/// refreshes what is asked for in the background. So what the root's cluster is asked depends on how many clusters
/// are directly below it, and not on how many there are in all.
package struct RouteBook: Sendable {
  /// How many directories with given processes there may be, and how many processes in each are used.
  package static let givenCountMax = 64
  /// How many directories may be learned of in the background at a time.
  package static let learningCountMax = 64
  /// When what is being learned is given up, so that it may be tried again.
  package static let learningTimeout = Duration.seconds(5)

  package var trie: RouteTrie
  /// What one's own cluster serves; nil for a client, which belongs to none.
  package let home: TreePath?
  /// By directories.
  private var given: [TreePath: [RouteProcess]] = [:]
  private var aboveDirectory: TreePath?
  /// Until when nobody begins to learn of something, as somebody does already, or as it was found to be in the
  /// cluster above's own hands.
  private var learning: [Subject: RouteTime] = [:]

  /// What is learned of at once.
  private struct Subject: Hashable, Sendable {
    /// The directory where the way leaves that to one's own home; the scope itself when it is on that way.
    let directory: TreePath
    /// Whether it is just about the directory, and not about what is below.
    let isExact: Bool
  }

  /// - Parameter seed: of the trie.
  package init(home: TreePath? = nil, limits: RouteLimits = RouteLimits(), seed: UInt64 = 0) {
    self.home = home
    self.trie = RouteTrie(limits: limits, seed: seed)
  }

  // MARK: What is given

  /// Says who serves a directory, for good. No processes: takes back what was said. Beyond `givenCountMax` directories
  /// nothing is kept.
  package mutating func give(_ processes: [RouteProcess], of directory: TreePath) {
    if processes.isEmpty {
      self.given[directory] = nil
    } else if self.given[directory] != nil || self.given.count < Self.givenCountMax {
      self.given[directory] = Array(processes.prefix(Redirect.processCountMax))
    }
  }

  /// Says who serves the directory above one's home, whose cluster is asked for what is elsewhere.
  package mutating func giveAbove(_ processes: [RouteProcess], of directory: TreePath) {
    self.give(processes, of: directory)
    self.aboveDirectory = processes.isEmpty ? nil : directory
  }

  /// The cluster above one's own, as it was given.
  package var above: Redirect? {
    guard let directory = self.aboveDirectory, let processes = self.given[directory] else { return nil }
    return Redirect(directory: directory, processes: processes, lifetime: AnswerLifetime.positive)
  }

  // MARK: What is remembered

  /// The answer to a query, if it is known already.
  package mutating func recall(_ query: FindQuery, now: RouteTime) -> Found? {
    let match =
      switch query.kind {
      case .contained: self.trie.exact(query.service, at: query.scope, now: now)
      case .nearest: self.trie.nearest(query.service, at: query.scope, now: now)
      }
    return match.map {
      Found(directory: $0.scope, processes: $0.route.processes, lifetime: $0.route.expiry - now)
    }
  }

  /// Where a query about a scope can begin, the best first: who serves the longest prefix, but for the root; who is
  /// above one's own cluster; who serves the root; and all others that were given.
  mutating func starts(towards scope: TreePath, now: RouteTime) -> [FindStart] {
    var starts = self.trie.all(.queries, towards: scope, now: now).map {
      FindStart(directory: $0.scope, processes: $0.route.processes, origin: .memory)
    }
    for (directory, processes) in self.given {
      starts.append(FindStart(directory: directory, processes: processes, origin: .given))
    }
    if let home = self.home, home.isSameOrAncestor(of: scope) {
      starts.append(FindStart(directory: home, processes: [], origin: .here))
    }
    // The given ones come in no order.
    return starts.sorted { (left: FindStart, right: FindStart) -> Bool in
      let (leftRank, rightRank) = (self.rank(left, towards: scope), self.rank(right, towards: scope))
      return leftRank == rightRank ? left.directory < right.directory : leftRank < rightRank
    }
  }

  /// Smaller is better.
  private func rank(_ start: FindStart, towards scope: TreePath) -> (Int, Int, Int) {
    let depth = start.directory.depth
    let origin = start.origin.rawValue
    if depth > 0 && start.directory.isSameOrAncestor(of: scope) { return (0, -depth, origin) }
    if start.directory == self.aboveDirectory && start.origin != .here { return (1, 0, origin) }
    if depth == 0 { return (2, 0, origin) }
    return (3, depth, origin)
  }

  /// Remembers who goes on with queries in a directory.
  package mutating func learn(_ redirect: Redirect, now: RouteTime) {
    guard !redirect.processes.isEmpty else { return }
    self.trie.insert(
      Route(processes: redirect.processes, expiry: now + redirect.lifetime), for: .queries, at: redirect.directory,
      now: now)
  }

  /// Remembers what was found: also that there is nobody from the scope up to the directory where somebody is.
  ///
  /// - Parameter top: the highest directory that the answer says something of.
  package mutating func learn(_ found: Found, of query: FindQuery, upTo top: TreePath, now: RouteTime) {
    guard !found.isStale else { return }
    let expiry = now + found.lifetime
    if let directory = found.directory {
      self.trie.insert(
        Route(processes: found.processes, expiry: expiry), for: query.service, at: directory, now: now)
    }
    // From the top: what was just learned would be the last to make room.
    let lowest = query.scope.depth
    let highest = found.directory.map { $0.depth + 1 } ?? top.depth
    guard query.kind == .nearest || found.isEmpty, highest <= lowest else { return }
    for depth in query.kind == .nearest ? highest...lowest : lowest...lowest {
      guard let directory = query.scope.prefix(depth: depth) else { continue }
      self.trie.insert(.negative(until: expiry), for: query.service, at: directory, now: now)
    }
  }

  /// Forgets a process that could not be reached.
  package mutating func drop(process: TreePath) {
    self.trie.drop(process: process)
  }

  // MARK: Answering for what is elsewhere

  /// What to tell somebody who asks for a scope that is not at or below one's own home.
  package struct Elsewhere: Sendable {
    /// Nil when nobody is known who knows more.
    package let answer: FindAnswer?
    /// What to ask in the background, with `Finder(learning:)`, so that the next one is told more; nil when that is not
    /// needed, or under way.
    package let toLearn: FindQuery?
  }

  /// Answers a query (`QueryOutcome.above`) from memory: with a redirect as far towards the scope as is known, which
  /// may be the processes above; or, to whoever may read the scope, with what was found before.
  ///
  /// - Parameter mayRead: whether the caller may read the scope. What is elsewhere can not be judged here, except
  ///   that processes
  ///   may read the directories above their own.
  package mutating func answerElsewhere(_ query: FindQuery, mayRead: Bool, now: RouteTime) -> Elsewhere {
    let above = self.above.map { FindAnswer.redirect($0) }
    if let home = self.home, query.scope.isSameOrAncestor(of: home) {
      guard mayRead else { return Elsewhere(answer: above, toLearn: nil) }
      guard let recalled = self.recall(query, now: now) else {
        return Elsewhere(answer: above, toLearn: self.beginLearning(query, now: now))
      }
      // What is not there is not worth a question of its own before somebody asks again.
      let isFresh = recalled.isEmpty || Self.isFresh(recalled.lifetime)
      return Elsewhere(answer: .found(recalled), toLearn: isFresh ? nil : self.beginLearning(query, now: now))
    }
    // Not for the caller's service: whoever goes on is the same for all.
    let toLearn = FindQuery(kind: .contained, service: nil, scope: query.scope)
    guard let match = self.trie.lookup(.queries, at: query.scope, now: now), match.depth > 0 else {
      return Elsewhere(answer: above, toLearn: self.beginLearning(toLearn, now: now))
    }
    let lifetime = match.route.expiry - now
    let redirect = Redirect(directory: match.scope, processes: match.route.processes, lifetime: lifetime)
    return Elsewhere(
      answer: .redirect(redirect), toLearn: Self.isFresh(lifetime) ? nil : self.beginLearning(toLearn, now: now))
  }

  private func subject(of scope: TreePath) -> Subject {
    var depth = 0
    if let home = self.home {
      while let common = scope.prefix(depth: depth), common.isSameOrAncestor(of: home) { depth += 1 }
    }
    guard let directory = scope.prefix(depth: depth) else { return Subject(directory: scope, isExact: true) }
    return Subject(directory: directory, isExact: directory == scope)
  }

  private mutating func beginLearning(_ query: FindQuery, now: RouteTime) -> FindQuery? {
    guard self.above != nil else { return nil }
    let subject = self.subject(of: query.scope)
    if let until = self.learning[subject], until > now { return nil }
    if self.learning[subject] == nil && self.learning.count >= Self.learningCountMax {
      self.learning = self.learning.filter { $0.value > now }
      guard self.learning.count < Self.learningCountMax else { return nil }
    }
    self.learning[subject] = now + Self.learningTimeout
    return query
  }

  /// - Parameter isOwn: whether the cluster above answered the query itself. Then it probably does so for all that is
  ///   beside
  ///   it, too, and it would be of no use to ask for each.
  mutating func endLearning(_ query: FindQuery, isOwn: Bool, now: RouteTime) {
    let isOnTheWayUp = self.home.map { query.scope.isSameOrAncestor(of: $0) } ?? false
    self.learning[self.subject(of: query.scope)] = isOwn && !isOnTheWayUp ? now + AnswerLifetime.positive : nil
  }

  /// Whether more than half of the time is left that there is at first.
  private static func isFresh(_ lifetime: Duration) -> Bool { lifetime > AnswerLifetime.positive / 2 }
}
