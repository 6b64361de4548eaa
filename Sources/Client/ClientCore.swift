// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import NIOCore
internal import NIOPosix
private import Synchronization
internal import Transport
internal import Trust

/// What all views of one client share: its connections, and the numbers of its operations.
final class ClientCore: Sendable {
  let profile: Profile
  let configuration: ClientConfiguration
  /// Runs tasks on the event loop that all connections of the client are on.
  let executor: EventLoopExecutor
  let lives: KnownLives
  private let pool: ConnectionPool
  private let operationIDs = OperationIDs()
  /// Whole files take long: under a session of their own they are not overtaken by a thousand small operations, after
  /// which the process could not tell any more whether they were done.
  private let transferIDs = OperationIDs()
  private let state: Mutex<State>
  /// What waits for an answer, calls and the operations of sessions alike; and how much has been answered.
  let waiting = WaitingCount()

  private struct State {
    var directory: ProcessDirectory
    /// The connection that was handed out last.
    var connection: (place: ProcessDirectory.Place, connection: NodeConnection)?
  }

  init(_ profile: Profile, _ configuration: ClientConfiguration) throws(BlocktreeError) {
    guard !profile.startingPoints.isEmpty else {
      throw BlocktreeError(
        code: .failedPrecondition, reason: .profile, message: "The profile has no address to start from.")
    }
    let identity = profile.caller.map {
      TransportSecurity.Identity(chain: $0.credential.chain, key: $0.keys.signing)
    }
    let security: TransportSecurity
    do {
      security = try TransportSecurity(root: profile.root, identity: identity)
    } catch {
      throw BlocktreeError(error)
    }
    self.profile = profile
    self.configuration = configuration
    // One loop, so that tasks which run on it reach every connection without waking another thread.
    let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
    self.executor = EventLoopExecutor(eventLoop)
    var limits = TransportLimits()
    // A process that starts again is to be found soon. How often calls ask for it is bounded by their own pauses.
    limits.maxBackoff = Self.maxBackoff
    self.lives = KnownLives(of: profile.directory, root: profile.root)
    self.pool = ConnectionPool(
      Dialer(
        security, group: eventLoop, limits: limits,
        interceptors: [LifeCheck(lives: self.lives)]))
    self.state = Mutex(State(directory: ProcessDirectory(profile.startingPoints)))
  }

  /// How long a process that could not be reached is left alone at most.
  private static let maxBackoff: Duration = .milliseconds(500)

  /// Keeps connections going until it is cancelled or shut down.
  func run() async {
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await self.watchForSilence() }
      group.addTask { await self.learnMembers() }
      await self.pool.run()
      group.cancelAll()
    }
  }

  func beginGracefulShutdown() { self.pool.beginGracefulShutdown() }

  var isAnonymous: Bool { self.profile.caller == nil }

  // MARK: Calls

  /// A connection to the process that is next on a call's way.
  ///
  /// - Parameter remaining: how long the call may still take; nil for no limit.
  func connection(for route: inout CallRoute, remaining: Duration?) async throws -> NodeConnection {
    route.place = nil
    let (next, open, patience) = self.state.withLock { state in
      let place = route.search.next(in: state.directory)
      let isOpen = place != nil && state.connection?.place == place && state.connection?.connection.isUsable == true
      let patience = place.flatMap { state.directory.dialPatience(for: $0) }
      return (place, isOpen ? state.connection?.connection : nil, patience)
    }
    guard let place = next else { throw BlocktreeError.closed }
    route.place = place
    if let open { return open }
    let limit = [patience, remaining].compactMap { $0 }.min()
    let connection = try await self.dial(place, limit: limit, isSilence: patience.map { $0 == limit } ?? false)
    self.state.withLock { state in
      state.directory.reached(place, process: connection.peer.path)
      state.connection = (place, connection)
    }
    return connection
  }

  /// Asks the pool for a connection, but waits only so long. The dial goes on all the same, for the next who asks.
  ///
  /// - Parameter isSilence: whether a place that exceeds the limit is to be noted as silent.
  private func dial(
    _ place: ProcessDirectory.Place, limit: Duration?, isSilence: Bool
  ) async throws -> NodeConnection {
    guard let limit else { return try await self.pool.connection(to: place.address, expecting: place.path) }
    let connection = try await withThrowingTaskGroup(of: NodeConnection?.self) { group in
      group.addTask { try await self.pool.connection(to: place.address, expecting: place.path) }
      group.addTask {
        try await Task.sleep(for: limit)
        return nil
      }
      defer { group.cancelAll() }
      return try await group.next() ?? nil
    }
    if let connection { return connection }
    if isSilence { self.state.withLock { $0.directory.failed(place, wasSilent: true) } }
    throw BlocktreeError(
      code: .unavailable, reason: .peerUnreachable, message: "can not reach \(place.address): no answer in time",
      metadata: ["address": "\(place.address)"], retry: .elsewhere)
  }

  /// A process did what the call wanted, or had an opinion about it.
  func served(_ route: CallRoute) {
    guard let place = route.place else { return }
    self.state.withLock { $0.directory.served(place) }
  }

  /// Notes what an attempt's failure says about the process, and answers what the search needs before the next attempt.
  func failed(_ route: inout CallRoute, _ error: BlocktreeError, wasSent: Bool) -> LeaderSearch.Pause {
    guard let place = route.place else { return .outage }
    return self.state.withLock { state in
      if error.reason == .notLeader {
        let leader = ProcessHint(error)
        state.directory.declined(place, leader: leader)
        return route.search.declined(place, leader: leader, in: state.directory)
      }
      if !wasSent || error.isOfOneProcess {
        state.directory.failed(place)
        return route.search.failed(place, in: state.directory)
      }
      if error.reason != nil { state.directory.served(place) }
      return .outage
    }
  }

  /// Makes a call, again if need be, on the event loop of a connection.
  ///
  /// - Parameters:
  ///   - timeout: for everything together; nil for no limit.
  ///   - isRepeatable: asked when an attempt failed that may have been carried out.
  ///   - isReplayable: asked whenever an attempt failed: whether `body` can be called again at all.
  func call<Result>(
    timeout: Duration?, isRepeatable: () -> Bool = { true }, isReplayable: () -> Bool = { true },
    _ body: (NodeConnection, CallOptions) async throws -> Result
  ) async throws -> Result {
    var route = CallRoute()
    var schedule = RetrySchedule(timeout: timeout, patience: self.configuration.connectionPatience, now: .now)
    var random = SystemRandomNumberGenerator()
    while true {
      var wasSent = false
      do {
        let connection = try await self.connection(for: &route, remaining: schedule.remaining(.now))
        var options = CallOptions.defaults
        if let remaining = schedule.remaining(.now) {
          guard remaining > .zero else { throw BlocktreeError.deadlineExceeded }
          options.timeout = remaining
        }
        wasSent = true
        schedule.reached(.now, patience: self.configuration.reconnectionPatience)
        let result = try await self.waiting.counting {
          try await connection.onEventLoop { try await body(connection, options) }
        }
        self.served(route)
        return result
      } catch {
        // A cancelled call ends with whatever error was first.
        try Task.checkCancellation()
        let error = try BlocktreeError(thrown: error)
        let pause = self.failed(&route, error, wasSent: wasSent)
        guard !wasSent || isReplayable() else { throw error }
        let delay = schedule.delay(
          after: error, wasSent: wasSent, isRepeatable: isRepeatable(), pause: pause, now: .now, using: &random)
        guard let delay else { throw error }
        if delay > .zero { try await Task.sleep(for: delay) }
      }
    }
  }

  /// The connection that was used last, if there is another process to turn to.
  var watched: (place: ProcessDirectory.Place, connection: NodeConnection)? {
    self.state.withLock { state in
      guard let (place, connection) = state.connection, connection.isUsable,
        state.directory.dialPatience(for: place) != nil
      else { return nil }
      return (place, connection)
    }
  }

  /// The connection that was used last.
  var openConnection: NodeConnection? {
    self.state.withLock { state in
      state.connection.flatMap { $0.connection.isUsable ? $0.connection : nil }
    }
  }

  /// There is such a process.
  func learn(_ hint: ProcessHint) { self.state.withLock { $0.directory.learn(hint) } }

  /// A process does not answer any more, though its connection is open.
  func silenced(_ place: ProcessDirectory.Place) {
    self.state.withLock { $0.directory.failed(place, wasSilent: true) }
  }

  /// Whether the next call goes to a process that has served one.
  private var isSettled: Bool { self.state.withLock { $0.directory.isSettled } }

  /// Finds the process that leads before a call is made that can not be made twice.
  func settle(timeout: Duration?) async throws {
    if self.isSettled { return }
    do {
      _ = try await self.call(timeout: timeout) { connection, options in
        try await connection.filesystem.statFilesystem(.init(), options: options)
      }
    } catch let error as BlocktreeError where !error.isTransient && error.code != .deadlineExceeded {
      // Whoever has an opinion is the one.
    }
  }

  /// An id for a mutating operation; nil for anonymous callers, who may change nothing and have no session.
  func operationID(timeout: Duration?) async throws -> Blocktree_V1_OperationId? {
    try await self.operationID(from: self.operationIDs, timeout: timeout)
  }

  private func operationID(
    from ids: OperationIDs, timeout: Duration?
  ) async throws -> Blocktree_V1_OperationId? {
    if self.isAnonymous { return nil }
    return try await ids.next {
      let session = try await self.call(timeout: timeout) { connection, options in
        try await connection.filesystem.openSession(.init(), options: options).session
      }
      guard session.count == 16 else { throw BlocktreeError.malformedAnswer("session") }
      return session
    }
  }

  /// Performs an operation with an id that it has or is given here, by `attempt`, which sends it.
  ///
  /// A session that the process does not know (any more) is replaced, if this operation can not have been carried out
  /// under it.
  func withOperationID<Result>(
    timeout: Duration?, isTransfer: Bool = false,
    _ attempt: (Blocktree_V1_OperationId?, _ wasRepeated: inout Bool) async throws -> Result
  ) async throws -> Result {
    let ids = isTransfer ? self.transferIDs : self.operationIDs
    var mayReplace = true
    while true {
      let id = try await self.operationID(from: ids, timeout: timeout)
      var wasRepeated = false
      do {
        return try await attempt(id, &wasRepeated)
      } catch let error as BlocktreeError where error.reason == .sessionUnknown {
        if let id { ids.forget(id) }
        guard mayReplace, !wasRepeated else { throw error }
        mayReplace = false
      }
    }
  }
}

/// One call's way to the process that serves it.
struct CallRoute {
  var search = LeaderSearch()
  /// Who is asked at the moment.
  var place: ProcessDirectory.Place?
}

extension NodeConnection {
  var filesystem: some Blocktree_V1_FilesystemService.ClientProtocol {
    Blocktree_V1_FilesystemService.Client(wrapping: self.client)
  }

  var sectors: some Blocktree_V1_SectorService.ClientProtocol {
    Blocktree_V1_SectorService.Client(wrapping: self.client)
  }
}
