// SPDX-License-Identifier: Apache-2.0

package import Trust

/// One search: whom to ask next, and what each answer means. It performs nothing: who drives it sends the query to
/// the process that a step names, and tells what came of it.
///
/// It begins at what is remembered, and follows redirects while they make progress: upwards as long as it has not
/// reached a directory that the scope is in, each time to one further up; from then on downwards, each time deeper.
/// When a cluster knows nobody nearer, the search goes on above. When nobody of a directory can be reached, it begins
/// again with whoever is known further up, who may name others.
package struct Finder: Sendable {
  /// How many redirects are followed.
  package static let redirectCountMax = 64
  /// How many processes are asked in all, those that can not be reached among them.
  package static let askCountMax = 256
  /// How many processes of one directory are asked.
  package static let processCountMax = 16

  package enum Step: Hashable, Sendable {
    /// Ask this process, and call `step` with what it says.
    case ask(RouteProcess, FindQuery)
    case finished(Outcome)
  }

  package enum Event: Hashable, Sendable {
    case answered(FindAnswer)
    /// The process says that this is not for the caller to know.
    case denied
    /// There is no connection to the process.
    case unreachable
    /// The process answers, but does not know or serve. For people to read.
    case unable(String)
    /// The process had the credential file, or knows that there is none (`init(credential:)`).
    case settled
  }

  package enum Outcome: Hashable, Sendable {
    /// Who was found, or that there is nobody.
    case found(Found)
    case denied(by: TreePath)
    /// What the search was for has been answered, and is with who drives it.
    case settled
    case failed(Failure)
  }

  /// Why a search came to no end. `hop` counts redirects that were followed, and is 0 where the search began.
  package enum Failure: Error, Hashable, Sendable {
    /// Nobody is known who could be asked.
    case nobodyKnown
    /// None of the processes of a directory could be reached, or none could answer.
    case unreachable(TreePath, hop: Int)
    /// Processes of the first directory lead to the second, which is no further on the way.
    case noProgress(from: TreePath, to: TreePath, hop: Int)
    /// It takes more redirects, or more processes to ask, than are allowed.
    case tooLong
  }

  /// What the search is for.
  private enum Goal: Hashable, Sendable {
    case processes
    case credential
    /// To learn who goes on towards the scope.
    case route
  }

  /// One directory whose cluster was asked.
  private struct Link: Sendable {
    let directory: TreePath
    /// Who is nearest in what that cluster stores; nil when it did not say.
    let nearestAbove: Found?
  }

  package let query: FindQuery
  private let goal: Goal
  private let choice: Int
  /// All that happened, in order.
  package private(set) var explanation: [FindNote] = []

  /// What is asked now: the query, or the same for a directory further up.
  private var present: FindQuery
  private var starts: [FindStart] = []
  /// The clusters that have redirected since the search began, or went on above.
  private var chain: [Link] = []
  /// The directory whose processes are being asked.
  private var directory: TreePath = .root
  private var processes: ArraySlice<RouteProcess> = []
  private var asking: RouteProcess?
  /// Processes that are not asked again.
  private var failed: Set<TreePath> = []
  private var failure: Failure?
  private var redirectCount = 0
  private var askCount = 0
  /// The result is known for no longer than each of the answers that it follows from.
  private var lifetimeMax: Duration?
  private var isStale = false

  /// - Parameter choice: any number; it decides which of several equal processes is asked first.
  package init(_ query: FindQuery, choice: Int = 0) {
    self.init(query, goal: .processes, choice: choice)
  }

  /// A search for who has the credential file at a path. The processes that it names are to be asked for that file.
  /// Their redirects are told as answers; whoever has the file, or knows that there is none, as `settled`.
  package init(credential path: TreePath, choice: Int = 0) {
    // It is stored where its directory is.
    let query = FindQuery(kind: .contained, service: nil, scope: path.parent ?? path)
    self.init(query, goal: .credential, choice: choice)
  }

  /// A search that asks no further than it takes to know who goes on towards the scope (`RouteBook.Elsewhere.toLearn`).
  package init(learning query: FindQuery, choice: Int = 0) {
    self.init(query, goal: .route, choice: choice)
  }

  private init(_ query: FindQuery, goal: Goal, choice: Int) {
    self.query = query
    self.present = query
    self.goal = goal
    self.choice = choice
  }

  /// How many processes were asked.
  package var roundTripCount: Int { self.askCount }
  package var hopCount: Int { self.redirectCount }

  /// Begins.
  ///
  /// - Parameter here: what one's own cluster answers to a query; nil when that is for others to say
  ///   (`QueryOutcome.above`), and for
  ///   clients. Without it, what is remembered counts.
  package mutating func begin(
    _ book: inout RouteBook, now: RouteTime, here: (FindQuery) -> FindAnswer? = { _ in nil }
  ) -> Step {
    self.begin(&book, now, here)
  }

  /// Takes what came of the last step's question.
  package mutating func step(
    _ event: Event, _ book: inout RouteBook, now: RouteTime, here: (FindQuery) -> FindAnswer? = { _ in nil }
  ) -> Step {
    guard let process = self.asking else { return self.finish(.failed(self.failure ?? .nobodyKnown)) }
    self.asking = nil
    switch event {
    case .answered(let answer):
      return self.take(answer, of: process, &book, now, here)
    case .denied:
      self.note(.denied(process.path))
      return self.finish(.denied(by: process.path))
    case .unreachable:
      self.note(.unreachable(process.path))
      book.drop(process: process.path)
      return self.pass(over: process, &book, now, here)
    case .unable(let reason):
      self.note(.unable(process.path, reason))
      return self.pass(over: process, &book, now, here)
    case .settled:
      return self.finish(.settled)
    }
  }

  // MARK: Whom to ask

  private mutating func begin(
    _ book: inout RouteBook, _ now: RouteTime, _ here: (FindQuery) -> FindAnswer?
  ) -> Step {
    self.chain = []
    if self.goal == .processes, let found = book.recall(self.present, now: now) {
      self.note(.remembered(found, of: self.present))
      return self.finish(found)
    }
    self.starts = book.starts(towards: self.present.scope, now: now)
    return self.beginAtNextStart(&book, now, here)
  }

  private mutating func beginAtNextStart(
    _ book: inout RouteBook, _ now: RouteTime, _ here: (FindQuery) -> FindAnswer?
  ) -> Step {
    while !self.starts.isEmpty {
      let start = self.starts.removeFirst()
      self.chain = []
      guard start.origin == .here else {
        self.note(.began(start.directory, isRemembered: start.origin == .memory))
        return self.enter(start.directory, start.processes, &book, now, here)
      }
      guard let answer = here(self.present) else { continue }
      self.note(.askedHere(self.present, start.directory))
      self.directory = start.directory
      return self.take(answer, of: nil, &book, now, here)
    }
    return self.finish(.failed(self.failure ?? .nobodyKnown))
  }

  private mutating func enter(
    _ directory: TreePath, _ processes: [RouteProcess], _ book: inout RouteBook, _ now: RouteTime,
    _ here: (FindQuery) -> FindAnswer?
  ) -> Step {
    self.directory = directory
    let left = processes.filter { !self.failed.contains($0.path) }
    let first = left.isEmpty ? 0 : Int(UInt(bitPattern: self.choice) % UInt(left.count))
    self.processes = (left[first...] + left[..<first]).prefix(Self.processCountMax)
    return self.askNext(&book, now, here)
  }

  private mutating func askNext(
    _ book: inout RouteBook, _ now: RouteTime, _ here: (FindQuery) -> FindAnswer?
  ) -> Step {
    guard self.askCount < Self.askCountMax else { return self.finish(.failed(.tooLong)) }
    guard let process = self.processes.popFirst() else {
      self.failure = .unreachable(self.directory, hop: self.redirectCount)
      return self.beginAtNextStart(&book, now, here)
    }
    self.askCount += 1
    self.asking = process
    self.note(.asked(process, self.present, hop: self.redirectCount))
    return .ask(process, self.present)
  }

  private mutating func pass(
    over process: RouteProcess, _ book: inout RouteBook, _ now: RouteTime, _ here: (FindQuery) -> FindAnswer?
  ) -> Step {
    self.failed.insert(process.path)
    return self.askNext(&book, now, here)
  }

  // MARK: What an answer means

  private mutating func take(
    _ answer: FindAnswer, of process: RouteProcess?, _ book: inout RouteBook, _ now: RouteTime,
    _ here: (FindQuery) -> FindAnswer?
  ) -> Step {
    switch answer {
    case .redirect(let redirect): self.follow(redirect, of: process, &book, now, here)
    case .found(let found): self.take(found, of: process, &book, now, here)
    }
  }

  private mutating func follow(
    _ redirect: Redirect, of process: RouteProcess?, _ book: inout RouteBook, _ now: RouteTime,
    _ here: (FindQuery) -> FindAnswer?
  ) -> Step {
    let isDescending = self.directory.isSameOrAncestor(of: self.present.scope)
    let isOnTheWay = redirect.directory.isSameOrAncestor(of: self.present.scope)
    // Nobody sends a search to processes that are not in the directory: who is there has a credential there.
    let processes = redirect.processes.filter { $0.path.parent == redirect.directory }
    let isProgress =
      isDescending
      ? isOnTheWay && self.directory.isAncestor(of: redirect.directory)
      : isOnTheWay || redirect.directory.isAncestor(of: self.directory)
    guard isProgress else {
      self.note(.ledNowhere(from: self.directory, to: redirect.directory))
      self.failure = .noProgress(from: self.directory, to: redirect.directory, hop: self.redirectCount)
      return self.beginAtNextStart(&book, now, here)
    }
    guard self.redirectCount < Self.redirectCountMax else { return self.finish(.failed(.tooLong)) }
    self.redirectCount += 1
    self.note(.redirected(to: redirect.directory, processCount: processes.count))
    // What one's own cluster says is known anyway, and fresher there.
    if process != nil {
      book.learn(
        Redirect(directory: redirect.directory, processes: processes, lifetime: redirect.lifetime), now: now)
    }
    let nearest = isDescending ? self.nearestAbove(in: redirect) : nil
    if let nearest, process != nil {
      let query = FindQuery(kind: .nearest, service: self.present.service, scope: redirect.directory)
      book.learn(nearest, of: query, upTo: self.directory, now: now)
    }
    self.chain.append(Link(directory: self.directory, nearestAbove: nearest))
    if self.goal == .route && isOnTheWay && !redirect.directory.isRoot {
      return self.endLearning(isOwn: false, .settled, &book, now)
    }
    return self.enter(redirect.directory, processes, &book, now, here)
  }

  /// Who is nearest in what the redirecting cluster stores, if it says so and that can be.
  private func nearestAbove(in redirect: Redirect) -> Found? {
    guard self.present.kind == .nearest, let found = redirect.nearestAbove else { return nil }
    guard let directory = found.directory else { return found }
    let isPossible =
      self.directory.isSameOrAncestor(of: directory) && directory.isSameOrAncestor(of: redirect.directory)
      && found.processes.allSatisfy { $0.path.parent == directory }
    return isPossible ? found : nil
  }

  private mutating func take(
    _ found: Found, of process: RouteProcess?, _ book: inout RouteBook, _ now: RouteTime,
    _ here: (FindQuery) -> FindAnswer?
  ) -> Step {
    let isDescending = self.directory.isSameOrAncestor(of: self.present.scope)
    if let process, !self.isPossible(found, isDescending: isDescending) {
      self.note(.unable(process.path, "it names processes that are not on the way"))
      return self.pass(over: process, &book, now, here)
    }
    self.note(.found(found))
    self.isStale = self.isStale || found.isStale
    if process != nil {
      book.learn(found, of: self.present, upTo: isDescending ? self.directory : .root, now: now)
    }
    if self.goal == .route { return self.endLearning(isOwn: true, .settled, &book, now) }
    // Whoever answers for what is elsewhere says that there is nobody only if it is so up to the root.
    guard self.present.kind == .nearest, found.isEmpty, isDescending else { return self.finish(found) }
    self.limit(found.lifetime)
    var lowest = self.directory
    while let link = self.chain.popLast() {
      guard let nearest = link.nearestAbove else { break }
      if !nearest.isEmpty {
        self.note(.found(nearest))
        return self.finish(nearest)
      }
      self.limit(nearest.lifetime)
      lowest = link.directory
    }
    guard let above = lowest.parent else { return self.finish(found) }
    self.present = FindQuery(kind: .nearest, service: self.present.service, scope: above)
    self.note(.wentUp(self.present))
    return self.begin(&book, now, here)
  }

  /// Whether the one who says so can know it, and whoever is found can be there.
  private func isPossible(_ found: Found, isDescending: Bool) -> Bool {
    guard let directory = found.directory else { return found.processes.isEmpty }
    let isInside =
      switch self.present.kind {
      case .contained: directory == self.present.scope
      case .nearest:
        directory.isSameOrAncestor(of: self.present.scope)
          && (!isDescending || self.directory.isSameOrAncestor(of: directory))
      }
    return isInside && found.processes.allSatisfy { $0.path.parent == directory }
  }

  private mutating func limit(_ lifetime: Duration) {
    self.lifetimeMax = min(self.lifetimeMax ?? lifetime, lifetime)
  }

  private mutating func finish(_ found: Found) -> Step {
    self.limit(found.lifetime)
    let result = Found(
      directory: found.directory, processes: found.processes, lifetime: self.lifetimeMax ?? found.lifetime,
      isStale: self.isStale || found.isStale)
    return self.finish(.found(result))
  }

  private func finish(_ outcome: Outcome) -> Step {
    .finished(outcome)
  }

  private mutating func endLearning(
    isOwn: Bool, _ outcome: Outcome, _ book: inout RouteBook, _ now: RouteTime
  ) -> Step {
    book.endLearning(self.query, isOwn: isOwn, now: now)
    return .finished(outcome)
  }

  private mutating func note(_ note: FindNote) {
    // There is no more to tell than steps that can be taken.
    if self.explanation.count < 4 * Self.askCountMax { self.explanation.append(note) }
  }
}
