// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
package import Routes
private import Synchronization
internal import Transport
package import Trust

/// What a process knows of who serves what, and how it finds out more: it asks other processes, follows their
/// redirects, and remembers what they say.
///
/// Equal queries at the same time are asked once. They are asked in ``run()``, so that whoever gives up takes nobody
/// else's answer away.
package final class NodeRoutes: RouteList, CredentialSource {
  /// What a search has led to.
  package struct Search: Sendable {
    package let outcome: Finder.Outcome
    /// All that happened, in order.
    package let explanation: [FindNote]
  }

  private enum Job: Sendable {
    case find(FindQuery)
    case learn(FindQuery)
  }

  private typealias Waiter = (id: UInt64, continuation: CheckedContinuation<Search, any Error>)

  private struct State {
    var book: RouteBook
    var table: QueryTable<FindQuery, Waiter>
    /// Those of the table.
    var queries: Set<FindQuery> = []
    var lastWaiter: UInt64 = 0
    var isStopped = false
  }

  private let caller: any DiscoveryCaller
  private let cluster: any OwnCluster
  private let members: @Sendable () -> Redirect?
  private let above: @Sendable () -> Redirect?
  private let now: @Sendable () -> RouteTime
  private let state: Mutex<State>
  /// Bounded by the table of queries, and by what may be learned at a time.
  private let jobs: AsyncStream<Job>
  private let job: AsyncStream<Job>.Continuation

  /// - Parameters:
  ///   - cluster: what this process's own cluster answers.
  ///   - members: for a process that is no member of the cluster: those who are; nil when none is known.
  ///   - above: the processes of the cluster above; nil when none is known, and in the root's.
  ///   - now: the present time, on a clock that never goes back.
  package init(
    cluster: any OwnCluster, caller: any DiscoveryCaller, members: @escaping @Sendable () -> Redirect? = { nil },
    above: @escaping @Sendable () -> Redirect? = { nil }, limits: RouteLimits = RouteLimits(),
    now: @escaping @Sendable () -> RouteTime
  ) {
    self.members = members
    self.caller = caller
    self.cluster = cluster
    self.above = above
    self.now = now
    self.state = Mutex(
      State(
        book: RouteBook(home: cluster.home, limits: limits, seed: .random(in: .min ... .max)), table: QueryTable()))
    (self.jobs, self.job) = AsyncStream.makeStream(of: Job.self)
  }

  /// Asks for whoever waits, until it is cancelled. Call it once.
  package func run() async {
    await withTaskCancellationHandler {
      await withDiscardingTaskGroup { group in
        for await job in self.jobs {
          group.addTask { await self.perform(job) }
        }
      }
    } onCancel: {
      self.stop()
    }
    self.stop()
  }

  // MARK: Questions

  /// Finds processes; needs ``run()``.
  ///
  /// - Throws: `CancellationError`; `DiscoveryError.busy` when too much is asked at once.
  package func find(_ kind: FindKind, _ service: Service?, _ scope: TreePath) async throws -> Search {
    let query = FindQuery(kind: kind, service: service, scope: scope)
    let id = self.state.withLock { state in
      state.lastWaiter += 1
      return state.lastWaiter
    }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let role = self.state.withLock { state -> QueryTable<FindQuery, Waiter>.Role? in
          guard !state.isStopped else { return nil }
          let role = state.table.join(query, as: (id, continuation))
          guard role == .lead else { return role }
          // Whoever is first waits, too: somebody else asks.
          guard state.table.join(query, as: (id, continuation)) == .wait else {
            _ = state.table.finish(query)
            return .full
          }
          state.queries.insert(query)
          return .lead
        }
        switch role {
        case .lead?: self.job.yield(.find(query))
        case .wait?: break
        case .full?: continuation.resume(throwing: DiscoveryError.busy)
        case nil: continuation.resume(throwing: CancellationError())
        }
        // Cancelled before it was waiting: the handler below has found nothing then.
        if Task.isCancelled { self.cancel(query, id) }
      }
    } onCancel: {
      self.cancel(query, id)
    }
  }

  /// Reads a credential file that another cluster stores.
  ///
  /// - Throws: `Finder.Failure` or `DiscoveryError.permissionDenied` when nobody who knows has said.
  package func readCredential(_ path: TreePath) async throws -> (file: [UInt8], lifetime: Duration)? {
    let finder = Finder(credential: path, choice: .random(in: 0 ... .max))
    var answer: CredentialAnswer?
    let cluster = self.cluster
    let search = try await self.drive(finder, here: { _ in cluster.redirect(toCredential: path) }) { process, _ in
      let said = try await self.caller.readCredential(path, at: process)
      if case .redirect(let redirect) = said {
        guard cluster.isKnownHere, redirect.directory == cluster.home else { return .answered(.redirect(redirect)) }
        // Others say that it would be here. Whoever asks has looked here before.
        answer = .absent(lifetime: AnswerLifetime.negative)
        return .settled
      }
      answer = said
      return .settled
    }
    switch (search.outcome, answer) {
    case (.settled, .file(let stored, let lifetime)?): return (stored.bytes, lifetime)
    case (.settled, nil), (.settled, .redirect?): throw Finder.Failure.nobodyKnown
    case (.settled, .absent?): return nil
    case (.failed(let failure), _): throw failure
    case (.denied, _): throw DiscoveryError.permissionDenied
    case (.found, _): throw Finder.Failure.nobodyKnown
    }
  }

  private func perform(_ job: Job) async {
    let cluster = self.cluster
    switch job {
    case .find(let query):
      let search: Result<Search, any Error>
      do {
        search = .success(
          try await self.drive(Finder(query, choice: .random(in: 0 ... .max)), here: cluster.answer) {
            process, query in .answered(try await self.caller.find(query, at: process))
          })
      } catch {
        search = .failure(error)
      }
      for waiter in self.finish(query) { waiter.continuation.resume(with: search) }
    case .learn(let query):
      // What comes of it is in the book.
      _ = try? await self.drive(Finder(learning: query, choice: .random(in: 0 ... .max)), here: { _ in nil }) {
        process, query in .answered(try await self.caller.find(query, at: process))
      }
    }
  }

  /// Drives a search to its end.
  ///
  /// - Parameter ask: asks one process.
  private func drive(
    _ finder: Finder, here: @Sendable (FindQuery) -> FindAnswer?,
    _ ask: (RouteProcess, FindQuery) async throws -> Finder.Event
  ) async throws -> Search {
    var finder = finder
    var step = self.state.withLock { state in
      self.give(to: &state.book)
      return finder.begin(&state.book, now: self.now(), here: here)
    }
    while true {
      switch step {
      case .finished(let outcome): return Search(outcome: outcome, explanation: finder.explanation)
      case .ask(let process, let query):
        let event: Finder.Event
        do { event = try await ask(process, query) } catch {
          try Task.checkCancellation()
          event = Self.event(error)
        }
        step = self.state.withLock { finder.step(event, &$0.book, now: self.now(), here: here) }
      }
    }
  }

  /// What an error says about a process that was asked.
  private static func event(_ error: any Error) -> Finder.Event {
    switch error {
    case is UnreachableProcess: .unreachable
    case let details as StatusDetails where details.code == .permissionDenied: .denied
    case let details as StatusDetails: .unable(details.message)
    default: .unable("\(error)")
    }
  }

  private func give(to book: inout RouteBook) {
    if let members = self.members() { book.give(members.processes, of: members.directory) }
    guard let above = self.above() else { return }
    book.giveAbove(above.processes, of: above.directory)
  }

  // MARK: Answers

  /// What to tell somebody who asks about what is elsewhere; nil when nobody is known who knows more.
  ///
  /// - Parameter mayRead: whether the caller may know who is at the scope.
  package func answerElsewhere(_ query: FindQuery, mayRead: Bool) -> FindAnswer? {
    let elsewhere = self.state.withLock { state in
      self.give(to: &state.book)
      return state.book.answerElsewhere(query, mayRead: mayRead, now: self.now())
    }
    if let query = elsewhere.toLearn { self.job.yield(.learn(query)) }
    return elsewhere.answer
  }

  /// The processes of the cluster above; nil when none is known, and in the root's.
  package var processesAbove: Redirect? { self.above() }

  package func list(countMax: Int) -> (routes: [ListedRoute], total: Int) {
    let now = self.now()
    return self.state.withLock { state in
      (
        state.book.trie.list(count: countMax, now: now).map { ListedRoute($0, rest: $0.route.expiry - now) },
        state.book.trie.count
      )
    }
  }

  // MARK: Ends

  private func cancel(_ query: FindQuery, _ id: UInt64) {
    let waiter = self.state.withLock { $0.table.leave(query) { $0.id == id } }
    waiter?.continuation.resume(throwing: CancellationError())
  }

  private func finish(_ query: FindQuery) -> [Waiter] {
    self.state.withLock { state in
      state.queries.remove(query)
      return state.table.finish(query)
    }
  }

  private func stop() {
    let queries = self.state.withLock { state in
      state.isStopped = true
      return state.queries
    }
    self.job.finish()
    for query in queries {
      for waiter in self.finish(query) { waiter.continuation.resume(throwing: CancellationError()) }
    }
  }
}

/// What the process's own cluster says about queries, to itself.
package protocol OwnCluster: Sendable {
  /// The directory that it serves.
  var home: TreePath { get }
  /// Whether this process is a member, and knows by itself what its cluster knows.
  var isKnownHere: Bool { get }
  /// Its answer; nil when others know.
  func answer(_ query: FindQuery) -> FindAnswer?
  /// Who goes on to a credential file that it does not store; nil when that is for others to say.
  func redirect(toCredential path: TreePath) -> FindAnswer?
}

extension OwnCluster {
  package var isKnownHere: Bool { true }
}
