// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
private import Synchronization
internal import Transport
internal import Trust

/// The processes of one directory as a client sees them: which of them it knows, the connection to the one that serves
/// it, and the numbers of its operations there.
final class ClusterCore: Sendable {
  let shared: ClientConnections
  private let operationIDs = OperationIDs()
  /// Whole files take long: under a session of their own they are not overtaken by a thousand small operations, after
  /// which the process could not tell any more whether they were done.
  private let transferIDs = OperationIDs()
  private let state: Mutex<State>
  /// What waits for an answer, calls and the operations of sessions alike; and how much has been answered.
  let waiting = WaitingCount()

  private struct State {
    var scope: TreePath
    /// Whether that is known, and not only supposed.
    var isIdentified: Bool
    var directory: ProcessDirectory
    /// The connection that was handed out last.
    var connection: (place: ProcessDirectory.Place, connection: NodeConnection)?
  }

  /// - Parameters:
  ///   - scope: the directory that the processes' credentials lie in; nil while nobody has said so.
  ///   - startingPoints: what the profile names there.
  init(_ scope: TreePath?, _ startingPoints: [ProcessDirectory.Place] = [], _ shared: ClientConnections) {
    self.shared = shared
    self.state = Mutex(
      State(
        scope: scope ?? .root, isIdentified: scope != nil, directory: ProcessDirectory(startingPoints)))
  }

  /// The directory that the processes' credentials lie in. It is the root while nobody has said what it is.
  var scope: TreePath { self.state.withLock { $0.scope } }

  var configuration: ClientConfiguration { self.shared.configuration }

  // MARK: Calls

  /// A connection to the process that is next on a call's way.
  ///
  /// - Parameters:
  ///   - remaining: how long the call may still take; nil for no limit.
  ///   - isPatient: whether nobody else would be asked if this one can not be reached.
  func connection(
    for route: inout CallRoute, remaining: Duration?, isPatient: Bool = true
  ) async throws -> NodeConnection {
    route.place = nil
    let (next, open, patience) = self.state.withLock { state in
      let place = route.search.next(in: state.directory)
      let isOpen = place != nil && state.connection?.place == place && state.connection?.connection.isUsable == true
      let patience = place.flatMap { state.directory.dialPatience(for: $0, isPatient: isPatient) }
      return (place, isOpen ? state.connection?.connection : nil, patience)
    }
    guard let place = next else {
      throw BlocktreeError(
        code: .unavailable, reason: .peerUnreachable, message: "no process of \(self.scope) is known",
        metadata: ["directory": "\(self.scope)"], retry: .elsewhere)
    }
    route.place = place
    if let open { return open }
    let limit = [patience, remaining].compactMap { $0 }.min()
    let connection = try await self.dial(place, limit: limit, isSilence: patience.map { $0 == limit } ?? false)
    let home = connection.peer.path.parent ?? .root
    let belongs = self.state.withLock { state in
      if !state.isIdentified {
        state.scope = home
        state.isIdentified = true
      }
      guard home == state.scope else {
        state.directory.forget(place)
        return false
      }
      state.directory.reached(place, process: connection.peer.path)
      state.connection = (place, connection)
      return true
    }
    guard belongs else {
      throw BlocktreeError(
        code: .unavailable, reason: .peerUnreachable,
        message: "\(place.address) is \(connection.peer.path), which is not in \(self.scope)",
        metadata: ["address": "\(place.address)"], retry: .elsewhere)
    }
    return connection
  }

  /// Asks the pool for a connection, but waits only so long. The dial goes on all the same, for the next who asks.
  ///
  /// - Parameter isSilence: whether a place that exceeds the limit is to be noted as silent.
  private func dial(
    _ place: ProcessDirectory.Place, limit: Duration?, isSilence: Bool
  ) async throws -> NodeConnection {
    guard let limit else { return try await self.shared.pool.connection(to: place.address, expecting: place.path) }
    let connection = try await withThrowingTaskGroup(of: NodeConnection?.self) { group in
      group.addTask { try await self.shared.pool.connection(to: place.address, expecting: place.path) }
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
      // One that can not reach those above is as good as any other one for everything else.
      if error.reason == .parentUnreachable { return route.search.failed(place, in: state.directory) }
      if !wasSent || error.isOfOneProcess {
        if let path = state.directory.path(of: place) { self.shared.answers.drop(process: path) }
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
    var trace = CallTrace()
    return try await self.call(
      timeout: timeout, &trace, isRepeatable: isRepeatable, isReplayable: isReplayable, body)
  }

  /// The same.
  ///
  /// - Parameter trace: says how patient to be, and hears what became of the call.
  func call<Result>(
    timeout: Duration?, _ trace: inout CallTrace, isRepeatable: () -> Bool = { true },
    isReplayable: () -> Bool = { true }, _ body: (NodeConnection, CallOptions) async throws -> Result
  ) async throws -> Result {
    var route = CallRoute()
    let patience = trace.isPatient ? self.configuration.connectionPatience : .zero
    var schedule = RetrySchedule(timeout: timeout, patience: patience, now: .now)
    var random = SystemRandomNumberGenerator()
    trace.isUnreachable = false
    // Once in a call: what DNS names may be forgotten at once, as it is not in the root, and would be found again.
    var hasFound = false
    while true {
      var wasSent = false
      do {
        let connection = try await self.connection(
          for: &route, remaining: schedule.remaining(.now), isPatient: trace.isPatient)
        var options = CallOptions.defaults
        if let remaining = schedule.remaining(.now) {
          guard remaining > .zero else { throw BlocktreeError.deadlineExceeded }
          options.timeout = remaining
        }
        wasSent = true
        trace.process = connection.peer.path
        if trace.isPatient { schedule.reached(.now, patience: self.configuration.reconnectionPatience) }
        let result = try await self.waiting.counting {
          try await connection.onEventLoop { try await body(connection, options) }
        }
        self.served(route)
        return result
      } catch {
        // A cancelled call ends with whatever error was first.
        try Task.checkCancellation()
        var error = try BlocktreeError(thrown: error)
        let pause = self.failed(&route, error, wasSent: wasSent)
        if !wasSent, pause == .outage, !hasFound {
          switch await self.bootstrap(within: schedule.remaining(.now)) {
          case .found:
            hasFound = true
            continue
          case .failed(let reason) where route.place == nil: error = reason
          case .failed, .nothing: break
          }
        }
        if wasSent, error.isTransient, !error.isCertainlyUndone, !trace.mayBeDone {
          trace.mayBeDone = true
          // Only these processes know whether it was done.
          trace.isPatient = trace.isPatient || trace.isMutation
          if trace.isPatient { schedule.reached(.now, patience: self.configuration.reconnectionPatience) }
        }
        guard !wasSent || isReplayable() else { throw error }
        let delay = schedule.delay(
          after: error, wasSent: wasSent, isRepeatable: isRepeatable(), pause: pause, now: .now, using: &random)
        guard let delay else {
          trace.isUnreachable = !wasSent && pause == .outage && error.code != .deadlineExceeded
          throw error
        }
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

  /// There is such a process. One of another directory is none of these.
  func learn(_ hint: ProcessHint) {
    self.state.withLock { state in
      guard (hint.path.parent ?? .root) == state.scope else { return }
      state.directory.learn(hint)
    }
  }

  /// These are its processes, as the cluster above says. Whoever is not among them any more, as it was revoked, is not
  /// asked again, but for those that the profile names.
  func renew(_ hints: [ProcessHint]) {
    self.state.withLock { state in
      state.directory.renew(hints.filter { ($0.path.parent ?? .root) == state.scope })
      // Nor is it asked over the connection that there is.
      if let place = state.connection?.place, !state.directory.order.contains(place) { state.connection = nil }
    }
  }

  /// Processes may be here, whichever.
  ///
  /// - Returns: whether one of the addresses was not known.
  func found(_ addresses: [NetworkAddress]) -> Bool { self.state.withLock { $0.directory.found(addresses) } }

  /// A process does not answer any more, though its connection is open.
  func silenced(_ place: ProcessDirectory.Place) {
    self.state.withLock { $0.directory.failed(place, wasSilent: true) }
  }

  /// Whether the next call goes to a process that has served one.
  var isSettled: Bool { self.state.withLock { $0.directory.isSettled } }

  /// An id for a mutating operation; nil for anonymous callers, who may change nothing and have no session.
  private func operationID(
    from ids: OperationIDs, timeout: Duration?, _ trace: inout CallTrace
  ) async throws -> Blocktree_V1_OperationId? {
    if self.shared.isAnonymous { return nil }
    // Opening a session changes nothing that anybody would miss.
    var own = CallTrace(isPatient: trace.isPatient)
    defer { trace.isUnreachable = own.isUnreachable }
    return try await ids.next {
      let session = try await self.call(timeout: timeout, &own) { connection, options in
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
    timeout: Duration?, _ trace: inout CallTrace, isTransfer: Bool = false,
    _ attempt: (Blocktree_V1_OperationId?, inout CallTrace, _ wasRepeated: inout Bool) async throws -> Result
  ) async throws -> Result {
    let ids = isTransfer ? self.transferIDs : self.operationIDs
    var mayReplace = true
    while true {
      let id = try await self.operationID(from: ids, timeout: timeout, &trace)
      var wasRepeated = false
      do {
        return try await attempt(id, &trace, &wasRepeated)
      } catch let error as BlocktreeError where error.reason == .sessionUnknown {
        if let id { ids.forget(id) }
        guard mayReplace, !wasRepeated else { throw error }
        mayReplace = false
      }
    }
  }
}

/// How a call is to be made, and what became of it.
struct CallTrace {
  /// Whether to wait for processes that can not be reached: nobody else would be asked.
  var isPatient = true
  /// Whether the call changes something.
  var isMutation = false
  /// Whether it may have been carried out, though it failed.
  var mayBeDone = false
  /// Whether it failed because nobody could be reached.
  var isUnreachable = false
  /// Who was asked last.
  var process: TreePath?
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
