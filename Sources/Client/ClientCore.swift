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
  private let pool: ConnectionPool
  private let operationIDs = OperationIDs()
  /// Whole files take long: under a session of their own they are not overtaken by a thousand small operations, after
  /// which the process could not tell any more whether they were done.
  private let transferIDs = OperationIDs()
  /// Which starting point served last.
  private let preferred = Atomic(0)

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
    self.pool = ConnectionPool(Dialer(security, group: eventLoop))
  }

  /// Keeps connections going until it is cancelled or shut down.
  func run() async { await self.pool.run() }

  func beginGracefulShutdown() { self.pool.beginGracefulShutdown() }

  var isAnonymous: Bool { self.profile.caller == nil }

  // MARK: Calls

  /// A connection to one of the processes that the profile names, the one that served last before others.
  func connection() async throws -> NodeConnection {
    let points = self.profile.startingPoints
    let first = self.preferred.load(ordering: .relaxed)
    var failure = BlocktreeError.closed
    for offset in points.indices {
      let index = (first + offset) % points.count
      let point = points[index]
      do {
        let connection = try await self.pool.connection(to: point.address, expecting: point.path)
        if offset > 0 { self.preferred.store(index, ordering: .relaxed) }
        return connection
      } catch {
        failure = try BlocktreeError(thrown: error)
      }
    }
    throw failure
  }

  /// Makes a call, again if need be, on the event loop of a connection.
  ///
  /// - Parameters:
  ///   - timeout: for everything together; nil for no limit.
  ///   - isRepeatable: asked when an attempt failed that may have reached a process.
  func call<Result>(
    timeout: Duration?, isRepeatable: () -> Bool = { true },
    _ body: (NodeConnection, CallOptions) async throws -> Result
  ) async throws -> Result {
    var schedule = RetrySchedule(timeout: timeout, patience: self.configuration.connectionPatience, now: .now)
    var random = SystemRandomNumberGenerator()
    while true {
      var wasSent = false
      do {
        let connection = try await self.connection()
        var options = CallOptions.defaults
        if let remaining = schedule.remaining(.now) {
          guard remaining > .zero else { throw BlocktreeError.deadlineExceeded }
          options.timeout = remaining
        }
        wasSent = true
        schedule.reached(.now, patience: self.configuration.reconnectionPatience)
        return try await connection.onEventLoop { try await body(connection, options) }
      } catch {
        // A cancelled call ends with whatever error was first.
        try Task.checkCancellation()
        let error = try BlocktreeError(thrown: error)
        let delay = schedule.delay(
          after: error, wasSent: wasSent, isRepeatable: isRepeatable(), now: .now, using: &random)
        guard let delay else { throw error }
        try await Task.sleep(for: delay)
      }
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

extension NodeConnection {
  var filesystem: some Blocktree_V1_FilesystemService.ClientProtocol {
    Blocktree_V1_FilesystemService.Client(wrapping: self.client)
  }

  var sectors: some Blocktree_V1_SectorService.ClientProtocol {
    Blocktree_V1_SectorService.Client(wrapping: self.client)
  }
}
