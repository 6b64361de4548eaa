// SPDX-License-Identifier: Apache-2.0

internal import Routes
internal import Trust

/// How a simulated domain behaves.
package struct Behaviour: Hashable, Sendable {
  /// How often each process looks for something.
  package var findsPerSecond = 0.2
  /// How many of these, of a thousand, are for anywhere in the domain; the others are for what is near.
  package var globalPerMille = 100
  /// How many processes, of a thousand, can not be reached from half of the measured time on.
  package var failingPerMille = 0
  /// Whether processes ask the cluster above theirs first. Otherwise they all begin at the root's.
  package var climbs = true
  package var warmUp = Duration.seconds(60)
  package var measured = Duration.seconds(60)

  package init() {}
}

/// What was counted in the measured time.
package struct SimulationReport: Hashable, Sendable {
  package var processCount = 0
  package var clusterCount = 0
  /// The most clusters from the root's down to one.
  package var levelCount = 0
  package var measured = Duration.zero
  package var findCount = 0
  /// Of these, answered without a message: from memory, by one's own cluster, or along with an equal one.
  package var rememberedCount = 0
  package var ownClusterCount = 0
  package var coalescedCount = 0
  package var failureCount = 0
  /// Answers that were not what is true.
  package var wrongCount = 0
  /// By how many processes were asked; the last for that many and more.
  package var roundTrips: [Int] = Array(repeating: 0, count: 16)
  package var redirectCount = 0
  /// Virtual, of all finds together.
  package var waiting = Duration.zero
  /// Questions to all processes, and of these to the root's.
  package var requestCount = 0
  package var rootRequestCount = 0
  /// Of those to the root's, such as were asked in the background.
  package var rootLearningCount = 0
  /// Of those to the root's, such as were about directories that it stores itself, which nobody else can answer.
  package var rootOwnCount = 0
  /// The most that one process was asked.
  package var busiestRequestCount = 0

  package var rootRequestsPerSecond: Double { Double(self.rootRequestCount) / self.seconds }
  package var requestsPerSecond: Double { Double(self.requestCount) / self.seconds }
  package var askedCount: Int { self.roundTrips.reduce(0, +) }

  package var meanRoundTrips: Double {
    let sum = self.roundTrips.enumerated().reduce(0) { $0 + $1.offset * $1.element }
    return self.askedCount == 0 ? 0 : Double(sum) / Double(self.askedCount)
  }

  /// Of all finds that one's own cluster could not answer, how many took no message.
  package var hitRate: Double {
    let others = self.findCount - self.ownClusterCount
    return others == 0 ? 0 : Double(self.rememberedCount + self.coalescedCount) / Double(others)
  }

  /// Of all finds that one's own cluster could not answer, how many began where they ended: the way was remembered.
  package var directRate: Double {
    let others = self.findCount - self.ownClusterCount
    return others == 0 ? 0 : Double(self.roundTrips[1]) / Double(others)
  }

  package var meanRedirects: Double {
    self.askedCount == 0 ? 0 : Double(self.redirectCount) / Double(self.askedCount)
  }

  /// What the root's cluster is asked about other clusters' directories, a second.
  package var rootPassingPerSecond: Double { Double(self.rootRequestCount - self.rootOwnCount) / self.seconds }

  private var seconds: Double { self.measured / .seconds(1) }
}

/// A domain in virtual time: each process has a book of routes, and finds what it looks for with the code of real ones,
/// over a network that is simulated. The same seed gives the same run.
package struct DomainSimulation: Sendable {
  private enum Event: Sendable {
    case find(process: Int)
    case request(search: Int, to: Int, FindQuery)
    case response(search: Int, Finder.Event)
    case learning(process: Int, FindQuery)
  }

  private struct Search: Sendable {
    let process: Int
    let isLearning: Bool
    let startedAt: RouteTime
    var finder: Finder
  }

  private struct Process: Sendable {
    var book: RouteBook
    var queries = QueryTable<FindQuery, RouteTime>(queryCountMax: 64, waiterCountMax: 64)
    var requestCount = 0
  }

  package let domain: SimulatedDomain
  private let behaviour: Behaviour
  private var random: SeededGenerator
  private var now = RouteTime(nanoseconds: 0)
  private var events = EventQueue<Event>()
  private var processes: [Process] = []
  private var searches: [Int: Search] = [:]
  private var searchCount = 0
  private var failing: Set<Int> = []
  private var report = SimulationReport()
  private let clusterRanks: ZipfRanks
  private let nameRanks = ZipfRanks(count: 32)
  /// Clusters by how much is looked for in them.
  private var popularity: [Int] = []

  package init(_ shape: DomainShape, _ behaviour: Behaviour = Behaviour(), seed: UInt64) {
    self.random = SeededGenerator(seed: seed)
    self.domain = SimulatedDomain(shape, seed: self.random.next())
    self.behaviour = behaviour
    self.clusterRanks = ZipfRanks(count: self.domain.clusters.count)
    self.popularity = self.domain.clusters.indices.shuffled(using: &self.random)
    for number in self.domain.members.indices {
      self.processes.append(Process(book: self.book(of: number)))
      self.events.add(.find(process: number), at: self.now + self.pause())
    }
    self.report.processCount = self.domain.members.count
    self.report.clusterCount = self.domain.clusters.count
    self.report.levelCount = self.domain.clusters.indices.map { self.domain.level(of: $0) }.max() ?? 0
    self.report.measured = behaviour.measured
  }

  /// What a process knows when it starts.
  private func book(of number: Int) -> RouteBook {
    let member = self.domain.members[number]
    let cluster = self.domain.clusters[member.cluster]
    func processes(_ cluster: Int) -> [RouteProcess] {
      self.domain.clusters[cluster].members.map { self.domain.members[$0].process }
    }
    let limits = RouteLimits(byteCountMax: 256 << 10, lifetimeMax: .seconds(30))
    var book = RouteBook(home: member.isServing ? cluster.home : nil, limits: limits, seed: UInt64(number))
    if !self.behaviour.climbs {
      book.give(processes(0), of: .root)
    } else if !member.isServing {
      book.give(processes(member.cluster), of: cluster.home)
    } else if let parent = cluster.parent {
      // The parent directory of a home need not be that of the cluster above.
      book.giveAbove(processes(parent), of: self.domain.clusters[parent].home)
    }
    return book
  }

  /// Runs to the end, and says what was counted.
  package mutating func run() -> SimulationReport {
    let end = RouteTime(nanoseconds: 0) + self.behaviour.warmUp + self.behaviour.measured
    var hasFailed = false
    let failure = RouteTime(nanoseconds: 0) + self.behaviour.warmUp + self.behaviour.measured / 2
    while let (time, event) = self.events.next() {
      self.now = time
      if !hasFailed && time >= failure {
        hasFailed = true
        self.fail()
      }
      switch event {
      case .find(let process):
        guard time < end else { continue }
        self.events.add(.find(process: process), at: time + self.pause())
        guard !self.failing.contains(process) else { continue }
        let query = self.draw(for: process)
        self.find(query, by: process)
        // Programs of one process often want the same at once.
        if self.random.next().isMultiple(of: 16) { self.find(query, by: process) }
      case .request(let search, let target, let query):
        self.answer(search, by: target, query)
      case .response(let number, let event):
        // Taken out, so that it is changed in place.
        guard var search = self.searches.removeValue(forKey: number) else { continue }
        let step = search.finder.step(
          event, &self.processes[search.process].book, now: self.now, here: self.here(search.process))
        self.searches[number] = search
        self.perform(step, of: number)
      case .learning(let process, let query):
        self.begin(Finder(learning: query, choice: self.choice()), by: process, isLearning: true)
      }
    }
    self.report.busiestRequestCount = self.processes.map(\.requestCount).max() ?? 0
    return self.report
  }

  private var isMeasuring: Bool { self.now >= RouteTime(nanoseconds: 0) + self.behaviour.warmUp }

  // MARK: Asking

  private mutating func find(_ query: FindQuery, by process: Int) {
    if self.isMeasuring { self.report.findCount += 1 }
    switch self.processes[process].queries.join(query, as: self.now) {
    case .lead: self.begin(Finder(query, choice: self.choice()), by: process, isLearning: false)
    case .wait: if self.isMeasuring { self.report.coalescedCount += 1 }
    case .full: if self.isMeasuring { self.report.failureCount += 1 }
    }
  }

  private mutating func begin(_ finder: Finder, by process: Int, isLearning: Bool) {
    self.searchCount += 1
    var search = Search(process: process, isLearning: isLearning, startedAt: self.now, finder: finder)
    let step = search.finder.begin(&self.processes[process].book, now: self.now, here: self.here(process))
    self.searches[self.searchCount] = search
    self.perform(step, of: self.searchCount)
  }

  private mutating func perform(_ step: Finder.Step, of number: Int) {
    guard let search = self.searches[number] else { return }
    switch step {
    case .ask(let process, let query):
      guard let target = self.domain.numbers[process.path], !self.failing.contains(target) else {
        // The connection is refused, or there is no answer to the first packets.
        self.events.add(.response(search: number, .unreachable), at: self.now + .milliseconds(200))
        return
      }
      self.events.add(
        .request(search: number, to: target, query), at: self.now + self.latency(search.process, target))
    case .finished(let outcome):
      self.searches[number] = nil
      guard !search.isLearning else { return }
      let waiterCount = self.processes[search.process].queries.finish(search.finder.query).count
      guard self.isMeasuring else { return }
      self.count(outcome, of: search, waiterCount: waiterCount)
    }
  }

  private mutating func count(_ outcome: Finder.Outcome, of search: Search, waiterCount: Int) {
    let finder = search.finder
    if finder.roundTripCount == 0 {
      if case .remembered = finder.explanation.last {
        self.report.rememberedCount += 1
      } else {
        self.report.ownClusterCount += 1
        self.report.coalescedCount -= waiterCount
        self.report.ownClusterCount += waiterCount
      }
    }
    self.report.roundTrips[min(finder.roundTripCount, self.report.roundTrips.count - 1)] += 1
    self.report.redirectCount += finder.hopCount
    self.report.waiting += self.now - search.startedAt
    guard case .found(let found) = outcome else {
      self.report.failureCount += 1
      return
    }
    let truth = self.domain.truth(of: finder.query)
    guard self.failing.isEmpty else { return }
    if found.directory != truth.directory || found.processes.map(\.path) != truth.processes.map(\.path) {
      self.report.wrongCount += 1
    }
  }

  /// What a process's own cluster says, which it knows by itself.
  private func here(_ number: Int) -> (FindQuery) -> FindAnswer? {
    let member = self.domain.members[number]
    let cluster = self.domain.clusters[member.cluster]
    return { query in
      guard member.isServing else { return nil }
      let outcome = QueryAnswer(cluster).outcome(of: query, rights: QueryRights(mayRead: true, mayFollow: true))
      guard case .answer(let answer) = outcome else { return nil }
      return answer
    }
  }

  // MARK: Answering

  private mutating func answer(_ number: Int, by target: Int, _ query: FindQuery) {
    guard let search = self.searches[number] else { return }
    let member = self.domain.members[target]
    if self.isMeasuring {
      self.report.requestCount += 1
      self.processes[target].requestCount += 1
      if member.cluster == 0 {
        self.report.rootRequestCount += 1
        if search.isLearning { self.report.rootLearningCount += 1 }
        let boundary = QueryAnswer(self.domain.clusters[0]).boundary(of: query.scope)
        if boundary == nil || boundary == query.scope { self.report.rootOwnCount += 1 }
      }
    }
    var event: Finder.Event
    let rights = QueryRights(mayRead: true, mayFollow: true)
    switch QueryAnswer(self.domain.clusters[member.cluster]).outcome(of: query, rights: rights) {
    case .answer(let answer): event = .answered(answer)
    case .denied: event = .denied
    case .above:
      let directory = self.domain.members[search.process].process.path.parent ?? .root
      let elsewhere = self.processes[target].book.answerElsewhere(
        query, mayRead: query.scope.isSameOrAncestor(of: directory), now: self.now)
      if let toLearn = elsewhere.toLearn {
        self.events.add(.learning(process: target, toLearn), at: self.now)
      }
      event = elsewhere.answer.map { .answered($0) } ?? .unable("nobody above is known")
    }
    if !member.isServing { event = .unable("no such service") }
    self.events.add(.response(search: number, event), at: self.now + self.latency(search.process, target))
  }

  private mutating func fail() {
    for number in self.domain.members.indices {
      if Int(self.random.next() % 1_000) < self.behaviour.failingPerMille { self.failing.insert(number) }
    }
  }

  // MARK: Chance

  private mutating func choice() -> Int { Int(truncatingIfNeeded: self.random.next() >> 1) }

  /// Until a process looks for something again.
  private mutating func pause() -> Duration {
    // A sum of uniform numbers in place of a logarithm: no less random, and the same on all machines.
    .seconds((self.random.fraction() + self.random.fraction()) / self.behaviour.findsPerSecond)
  }

  /// One way: short within a cluster, longer the further one has to climb.
  private mutating func latency(_ from: Int, _ to: Int) -> Duration {
    let (from, to) = (self.domain.members[from].cluster, self.domain.members[to].cluster)
    let base = from == to ? 200 : 5_000
    return .microseconds(base + Int(self.random.next() % UInt64(base)))
  }

  /// Draws what a process looks for: mostly something in its own cluster or in those around it; sometimes anything,
  /// popular places more often.
  private mutating func draw(for number: Int) -> FindQuery {
    var cluster = self.domain.members[number].cluster
    if Int(self.random.next() % 1_000) < self.behaviour.globalPerMille {
      cluster = self.popularity[self.clusterRanks.draw(&self.random)]
    } else {
      while self.random.next() % 10 < 3, let parent = self.domain.clusters[cluster].parent { cluster = parent }
      while self.random.next() % 10 < 3,
        let child = self.domain.clusters[cluster].children.randomElement(using: &self.random)
      {
        cluster = child
      }
    }
    let home = self.domain.clusters[cluster].home
    let name = self.nameRanks.draw(&self.random)
    let scope: TreePath? =
      switch self.random.next() % 4 {
      case 0: home
      case 1: home.appending(["apps"])
      case 2: home.appending(["users", "user-\(name)"])
      default: home.appending(["users", "user-\(name)", "projects", "p\(self.nameRanks.draw(&self.random))"])
      }
    let service: Service? =
      switch self.random.next() % 8 {
      case 0: nil
      case 1: .relay
      case 2: SimulatedDomain.thumbnails
      case 3: .sector
      default: .filesystem
      }
    let kind: FindKind = self.random.next() % 4 == 0 ? .contained : .nearest
    return FindQuery(kind: kind, service: service, scope: scope ?? home)
  }
}
