// SPDX-License-Identifier: Apache-2.0

import Routes
import Testing
import Trust

/// A search, its book, and a script of what the processes of each directory answer.
private final class Search {
  var book: RouteBook
  var finder: Finder
  var now = RouteTime.seconds(100)
  /// What the processes of a directory say to a query; nil: they can not be reached.
  var answers: (_ directory: TreePath, _ query: FindQuery) -> Finder.Event?
  private(set) var asked: [TreePath] = []

  init(
    _ query: FindQuery, book: RouteBook = .startingAtRoot,
    answers: @escaping (TreePath, FindQuery) -> Finder.Event?
  ) {
    self.book = book
    self.finder = Finder(query)
    self.answers = answers
  }

  /// Runs to the end.
  func run(here: (FindQuery) -> FindAnswer? = { _ in nil }) -> Finder.Outcome {
    self.asked = []
    var step = self.finder.begin(&self.book, now: self.now, here: here)
    for _ in 0..<1_000 {
      switch step {
      case .finished(let outcome): return outcome
      case .ask(let process, let query):
        self.asked.append(process.path)
        let event = self.answers(process.path.parent ?? .root, query) ?? .unreachable
        step = self.finder.step(event, &self.book, now: self.now, here: here)
      }
    }
    Issue.record("no end")
    return .settled
  }
}

extension RouteBook {
  fileprivate static var startingAtRoot: RouteBook {
    var book = RouteBook()
    book.give([process("/n1")], of: .root)
    return book
  }
}

private func members(of directory: String) -> [RouteProcess] {
  ["n1", "n2"].map { process(directory == "/" ? "/\($0)" : "\(directory)/\($0)") }
}

private func redirect(_ directory: String, above: Found? = nil) -> Finder.Event {
  .answered(
    .redirect(
      Redirect(
        directory: path(directory), processes: members(of: directory), lifetime: .seconds(30), nearestAbove: above)))
}

private func found(_ directory: String, _ lifetime: Duration = .seconds(30)) -> Found {
  Found(directory: path(directory), processes: members(of: directory), lifetime: lifetime)
}

private func nobody() -> Finder.Event { .answered(.found(.nobody(for: .seconds(2)))) }

private func contained(_ scope: String, _ service: Service? = .filesystem) -> FindQuery {
  FindQuery(kind: .contained, service: service, scope: path(scope))
}

private func nearest(_ scope: String, _ service: Service? = .filesystem) -> FindQuery {
  FindQuery(kind: .nearest, service: service, scope: path(scope))
}

@Suite("A search for processes")
struct FinderTests {
  /// Directories that are delegated, each in the one before.
  private let delegated = ["/a", "/a/b", "/a/b/c", "/a/b/c/d"]

  /// What the clusters of these say, each of which knows who is directly below.
  private func answer(_ directory: TreePath, _ query: FindQuery) -> Finder.Event? {
    let next = self.delegated.first {
      path($0).depth == directory.depth + 1 && path($0).isSameOrAncestor(of: query.scope)
    }
    if let next, path(next) != query.scope { return redirect(next) }
    return .answered(.found(found(query.scope.description)))
  }

  @Test("takes as many round trips as delegations when it begins cold, and none when it is warm")
  func roundTrips() {
    let search = Search(contained("/a/b/c/d"), answers: self.answer)
    #expect(search.run() == .found(found("/a/b/c/d")))
    #expect(search.asked.map(\.description) == ["/n1", "/a/n1", "/a/b/n1", "/a/b/c/n1"])
    #expect(search.finder.roundTripCount == self.delegated.count)

    search.finder = Finder(contained("/a/b/c/d"))
    #expect(search.run() == .found(found("/a/b/c/d")))
    #expect(search.asked.isEmpty)
    guard case .remembered = search.finder.explanation.last else { Issue.record("says from where"); return }

    // What lies beside it is found at once where the way leads on.
    search.finder = Finder(contained("/a/b/c/x"))
    _ = search.run()
    #expect(search.asked.map(\.description) == ["/a/b/c/n1"])

    search.now = search.now + .seconds(30)
    search.finder = Finder(contained("/a/b/c/d"))
    _ = search.run()
    #expect(search.asked.count == 4)
  }

  @Test("tells every hop and redirect")
  func explanation() {
    let search = Search(contained("/a/b"), answers: self.answer)
    _ = search.run()
    #expect(
      search.finder.explanation.map(\.description) == [
        "begins in /, as given",
        "hop 0: asked /n1 (10.0.0.1:7777): filesystem contained in /a/b",
        "redirected to /a, 2 processes",
        "hop 1: asked /a/n1 (10.0.0.1:7777): filesystem contained in /a/b",
        "found: 2 in /a/b",
      ])
  }

  @Test("follows no redirect that leads back, aside, or no further", arguments: ["/", "/a", "/x", "/a/x", "/a/bb"])
  func noProgress(directory: String) {
    let search = Search(contained("/a/b/c/d")) { from, _ in from.isRoot ? redirect("/a") : redirect(directory) }
    #expect(search.run() == .failed(.noProgress(from: path("/a"), to: path(directory), hop: 1)))
    #expect(search.asked.count == 2)
  }

  @Test("gives up after 64 redirects")
  func tooLong() {
    let deep = "/" + (0..<100).map { "d\($0)" }.joined(separator: "/")
    let search = Search(contained(deep)) { from, query in
      redirect(query.scope.prefix(depth: from.depth + 1)?.description ?? "/")
    }
    #expect(search.run() == .failed(.tooLong))
    #expect(search.asked.count == 65)
    #expect(search.finder.hopCount == 64)
  }

  @Test("climbs as long as it is not above the scope, and not any more after that")
  func climbing() {
    var book = RouteBook(home: path("/x/y"))
    book.giveAbove(members(of: "/x"), of: path("/x"))
    let search = Search(contained("/a/b"), book: book) { from, query in
      switch from.description {
      case "/x": redirect("/")
      case "/": redirect("/a")
      default: .answered(.found(found(query.scope.description)))
      }
    }
    #expect(search.run() == .found(found("/a/b")))
    #expect(search.asked.map(\.description) == ["/x/n1", "/n1", "/a/n1"])

    let lost = Search(contained("/a/b"), book: book) { from, _ in from.isRoot ? redirect("/x") : redirect("/") }
    #expect(lost.run() == .failed(.noProgress(from: .root, to: path("/x"), hop: 1)))
  }

  @Test("is not sent to processes that are not in the directory they are said to be in")
  func foreignProcesses() {
    let search = Search(contained("/a/b")) { from, query in
      guard from.isRoot else { return .answered(.found(found(query.scope.description))) }
      let processes = [process("/evil/n1"), process("/a/sub/n1"), process("/a/n2")]
      return .answered(.redirect(Redirect(directory: path("/a"), processes: processes, lifetime: .seconds(30))))
    }
    #expect(search.run() == .found(found("/a/b")))
    #expect(search.asked.map(\.description) == ["/n1", "/a/n2"])
  }

  @Test("passes over whoever names processes that can not be the answer")
  func impossibleAnswers() {
    for claim in [
      found("/a/x"), found("/b"), found("/"),
      Found(directory: path("/a/b"), processes: [process("/elsewhere/n1")], lifetime: .seconds(30)),
    ] {
      let search = Search(nearest("/a/b/c")) { from, _ in from.isRoot ? redirect("/a") : .answered(.found(claim)) }
      #expect(search.run() == .failed(.unreachable(path("/a"), hop: 1)), "\(claim)")
      #expect(search.asked.map(\.description) == ["/n1", "/a/n1", "/a/n2"])
      #expect(search.book.recall(nearest("/a/b/c"), now: search.now) == nil)
    }
  }

  @Test("asks another process of the directory when one can not be reached, and says where nobody can")
  func failures() {
    var reachable: Set<String> = ["/n1", "/a/n2"]
    let search = Search(contained("/a/b")) { _, _ in nil }
    search.answers = { [unowned search] directory, query in
      guard reachable.contains(search.asked.last?.description ?? "") else { return nil }
      return directory.isRoot ? redirect("/a") : .answered(.found(found(query.scope.description)))
    }
    #expect(search.run() == .found(found("/a/b")))
    #expect(search.asked.map(\.description) == ["/n1", "/a/n1", "/a/n2"])

    // What is remembered is without the one that failed; when the other fails, too, the root is asked for more.
    reachable = ["/n1"]
    search.finder = Finder(contained("/a/x"))
    #expect(search.run() == .failed(.unreachable(path("/a"), hop: 1)))
    #expect(search.asked.map(\.description) == ["/a/n2", "/n1", "/a/n1"])
  }

  @Test("begins at a directory further up when nobody of the remembered one can be reached")
  func fallback() {
    var book = RouteBook.startingAtRoot
    let old = Redirect(directory: path("/a"), processes: [process("/a/old")], lifetime: .seconds(30))
    book.learn(old, now: .seconds(100))
    let search = Search(contained("/a/b"), book: book) { _, _ in nil }
    search.answers = { [unowned search] directory, query in
      if search.asked.last == path("/a/old") { return nil }
      return directory.isRoot ? redirect("/a") : .answered(.found(found(query.scope.description)))
    }
    #expect(search.run() == .found(found("/a/b")))
    #expect(search.asked.map(\.description) == ["/a/old", "/n1", "/a/n1"])
  }

  @Test("ends when it is told that this is not for it to know")
  func denied() {
    let search = Search(contained("/a/b")) { from, _ in from.isRoot ? redirect("/a") : .denied }
    #expect(search.run() == .denied(by: path("/a/n1")))
    #expect(search.book.recall(contained("/a/b"), now: search.now) == nil)
  }

  @Test("takes the nearest above when the deeper cluster knows nobody nearer, for the shorter of the lifetimes")
  func nearestAbove() {
    let search = Search(nearest("/a/x/y")) { from, _ in
      from.isRoot ? redirect("/a", above: found("/")) : nobody()
    }
    #expect(search.run() == .found(found("/", .seconds(2))))
    #expect(search.asked.count == 2)
    #expect(search.book.recall(nearest("/a/x/y"), now: search.now) == found("/", .seconds(2)))
    // From another directory the way up is known as far as the directory that was delegated.
    #expect(search.book.recall(nearest("/a"), now: search.now) == found("/", .seconds(2)))
    #expect(search.book.recall(nearest("/a/z"), now: search.now) == nil)
  }

  @Test("knows that there is nobody when all on the way say so")
  func nobodyAnywhere() {
    let nobodyAbove = Found.nobody(for: .seconds(2))
    let search = Search(nearest("/a/b/x")) { from, _ in
      switch from.description {
      case "/": redirect("/a", above: nobodyAbove)
      case "/a": redirect("/a/b", above: nobodyAbove)
      default: nobody()
      }
    }
    #expect(search.run() == .found(.nobody(for: .seconds(2))))
    #expect(search.asked.count == 3)
  }

  @Test("asks above when it was not told who is nearest there")
  func notTold() {
    let search = Search(nearest("/a/b/x")) { from, query in
      switch (from.description, query.scope.description) {
      case ("/", "/"): .answered(.found(found("/")))
      case ("/", _): redirect("/a")
      case ("/a", "/a"): nobody()
      case ("/a", _): redirect("/a/b")
      default: nobody()
      }
    }
    #expect(search.run() == .found(found("/", .seconds(2))))
    // Those of the directory above are remembered by now; they answer for their own directory.
    #expect(search.asked.map(\.description) == ["/n1", "/a/n1", "/a/b/n1", "/a/n1", "/n1"])
    #expect(search.finder.explanation.contains(.wentUp(nearest("/a"))))
  }

  @Test("goes on above its own cluster, and does not ask that over the network")
  func ownCluster() {
    var book = RouteBook(home: path("/a"))
    book.giveAbove(members(of: "/"), of: .root)
    let search = Search(nearest("/a/x", .relay), book: book) { _, query in
      .answered(.found(Found(directory: .root, processes: [process("/n1", [.relay])], lifetime: .seconds(30))))
    }
    let outcome = search.run { query in
      path("/a").isSameOrAncestor(of: query.scope) ? .found(.nobody(for: .seconds(2))) : nil
    }
    guard case .found(let found) = outcome else { Issue.record("\(outcome)"); return }
    #expect(found.directory == .root)
    #expect(search.asked.map(\.description) == ["/n1"])
  }

  @Test("asks its own cluster again when those that it remembered are gone")
  func ownClusterKnowsBetter() {
    var book = RouteBook(home: .root)
    book.learn(
      Redirect(directory: path("/a"), processes: [process("/a/old")], lifetime: .seconds(30)), now: .seconds(100))
    let search = Search(contained("/a/b"), book: book) { _, _ in nil }
    search.answers = { [unowned search] _, query in
      search.asked.last == path("/a/old") ? nil : .answered(.found(found(query.scope.description)))
    }
    let outcome = search.run { _ in
      .redirect(Redirect(directory: path("/a"), processes: members(of: "/a"), lifetime: .seconds(30)))
    }
    #expect(outcome == .found(found("/a/b")))
    #expect(search.asked.map(\.description) == ["/a/old", "/a/n1"])
  }

  @Test("remembers nothing that may be out of date, and says that it may be")
  func stale() {
    let search = Search(nearest("/a")) { _, _ in
      .answered(.found(Found(directory: .root, processes: members(of: "/"), lifetime: .seconds(30), isStale: true)))
    }
    guard case .found(let found) = search.run() else { Issue.record("nothing found"); return }
    #expect(found.isStale)
    #expect(search.book.recall(nearest("/a"), now: search.now) == nil)
  }

  @Test("for a credential file follows redirects, and ends with whoever settles it")
  func credential() {
    let search = Search(contained("/")) { from, _ in from.isRoot ? redirect("/a") : .settled }
    search.finder = Finder(credential: path("/a/people/ann"))
    #expect(search.run() == .settled)
    #expect(search.asked.map(\.description) == ["/n1", "/a/n1"])
  }

  @Test("fails when nobody is known to begin with")
  func nobodyKnown() {
    let search = Search(contained("/a"), book: RouteBook()) { _, _ in nil }
    #expect(search.run() == .failed(.nobodyKnown))
  }
}

@Suite("A book of routes")
struct RouteBookTests {
  private let now = RouteTime.seconds(100)

  private func book() -> RouteBook {
    var book = RouteBook(home: path("/a"))
    book.giveAbove(members(of: "/"), of: .root)
    return book
  }

  @Test("answers for what is elsewhere with who is above, and learns of it once")
  func unknown() {
    var book = self.book()
    let first = book.answerElsewhere(nearest("/b/x/y"), mayRead: false, now: now)
    guard case .redirect(let redirect) = first.answer else { Issue.record("no redirect"); return }
    #expect(redirect.directory == .root)
    #expect(first.toLearn == FindQuery(kind: .contained, service: nil, scope: path("/b/x/y")))
    #expect(book.answerElsewhere(nearest("/b/z"), mayRead: false, now: now).toLearn == nil)
    #expect(book.answerElsewhere(nearest("/c"), mayRead: false, now: now).toLearn?.scope == path("/c"))
    // Given up at some time, should whoever learns have gone away.
    #expect(book.answerElsewhere(nearest("/b/z"), mayRead: false, now: now + .seconds(5)).toLearn != nil)
  }

  @Test("answers from memory with the time that is left, and refreshes it before it is over")
  func remembered() {
    var book = self.book()
    book.learn(Redirect(directory: path("/b"), processes: members(of: "/b"), lifetime: .seconds(30)), now: now)
    for (seconds, isRefreshed) in [(10, false), (16, true), (17, false)] {
      let elsewhere = book.answerElsewhere(contained("/b/x"), mayRead: false, now: now + .seconds(seconds))
      guard case .redirect(let redirect) = elsewhere.answer else { Issue.record("no redirect"); return }
      #expect(redirect.directory == path("/b"))
      #expect(redirect.lifetime == .seconds(30 - seconds))
      #expect((elsewhere.toLearn != nil) == isRefreshed)
    }
    let late = book.answerElsewhere(contained("/b/x"), mayRead: false, now: now + .seconds(30)).answer
    guard case .redirect(let redirect) = late else { Issue.record("no redirect"); return }
    #expect(redirect.directory == .root)
  }

  @Test("tells who is in the directories above only to those who may read them")
  func above() {
    var book = self.book()
    book.learn(found("/"), of: contained("/"), upTo: .root, now: now)
    let told = book.answerElsewhere(contained("/"), mayRead: true, now: now + .seconds(1)).answer
    #expect(told == .found(found("/", .seconds(29))))
    guard case .redirect = book.answerElsewhere(contained("/"), mayRead: false, now: now).answer else {
      Issue.record("told")
      return
    }
  }

  @Test("knows nobody to name when nobody above was given")
  func nothingAbove() {
    var book = RouteBook(home: path("/a"))
    let elsewhere = book.answerElsewhere(contained("/b"), mayRead: true, now: now)
    #expect(elsewhere.answer == nil && elsewhere.toLearn == nil)
  }

  @Test("does not go on learning of what the cluster above has in its own hands")
  func ownHands() {
    var book = self.book()
    guard let query = book.answerElsewhere(nearest("/b/x"), mayRead: false, now: now).toLearn else {
      Issue.record("nothing to learn")
      return
    }
    var finder = Finder(learning: query)
    _ = finder.begin(&book, now: now)
    #expect(finder.step(nobody(), &book, now: now) == .finished(.settled))
    let soon = book.answerElsewhere(nearest("/b/y"), mayRead: false, now: now + .seconds(29))
    let other = book.answerElsewhere(nearest("/c/y"), mayRead: false, now: now + .seconds(29))
    let late = book.answerElsewhere(nearest("/b/y"), mayRead: false, now: now + .seconds(30))
    #expect(soon.toLearn == nil && other.toLearn != nil && late.toLearn != nil)
  }

  @Test("a learner asks above once, and is done when it knows who goes on")
  func learning() {
    var book = self.book()
    guard let query = book.answerElsewhere(nearest("/b/x"), mayRead: false, now: now).toLearn else {
      Issue.record("nothing to learn")
      return
    }
    var finder = Finder(learning: query)
    guard case .ask(let process, _) = finder.begin(&book, now: now) else { Issue.record("no question"); return }
    #expect(process.path.parent == .root)
    let event = redirect("/b")
    #expect(finder.step(event, &book, now: now) == .finished(.settled))
    let answer = book.answerElsewhere(nearest("/b/x"), mayRead: false, now: now)
    guard case .redirect(let redirect) = answer.answer else { Issue.record("no redirect"); return }
    #expect(redirect.directory == path("/b"))
    #expect(answer.toLearn == nil)
  }
}
