// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import BlocktreeSchema
internal import GRPCCore
internal import Inodes
internal import Sectors
private import Synchronization
internal import Transport
internal import Trust

/// The sector cluster of another directory: finds the process to call, and calls again where that is safe.
///
/// All calls go to the process that served last, which is the one that leads once something was committed. It is left
/// when it can not be reached, falls silent, or says that another one leads. Who there is, is asked anew when nobody of
/// those that are known can be reached.
final class RemoteCluster: Sendable {
  private typealias Place = ProcessDirectory.Place

  /// What an answer that is missing says about the call.
  enum Purpose: Sendable {
    /// Nothing: it only reads.
    case read
    /// It may have been carried out.
    case change
  }

  /// One attempt's way to the services of a process.
  struct Call: Sendable {
    /// Serves small operations of the sector service, many at a time.
    let stream: SectorStream
    let options: CallOptions
    /// When whoever calls wants to have heard.
    let deadline: ContinuousClock.Instant?

    var sectors: some Blocktree_V1_SectorService.ClientProtocol {
      Blocktree_V1_SectorService.Client(wrapping: self.stream.connection.client)
    }

    var discovery: some Blocktree_V1_DiscoveryService.ClientProtocol {
      Blocktree_V1_DiscoveryService.Client(wrapping: self.stream.connection.client)
    }
  }

  private struct State {
    var directory = ProcessDirectory([])
    var hasPlaces = false
    /// The connection that was used last, by its stream.
    var connection: (place: Place, stream: SectorStream)?
    /// Whether the only known place did not answer a dial in time.
    var isSilent = false
    /// What was answered when it was looked last.
    var answeredBefore: UInt64?
    var isProbing = false
  }

  /// How long a dial may take at the only process that is known. It goes on all the same, for the next call.
  private static let dialPatience = Duration.seconds(2)
  /// The same after one that took longer.
  private static let silentDialPatience = Duration.milliseconds(100)
  /// How long it may take to find out who there is.
  private static let findingPatience = Duration.seconds(3)
  /// Processes of one answer that are taken.
  private static let processesMax = 16

  let generation: Generation
  let directory: TreePath
  private let pool: ConnectionPool
  private let timing: RemoteVolumes.Timing
  private let silence: ClusterSilence
  private let processes: RemoteVolumes.Processes
  /// Has a stream run.
  private let start: @Sendable (SectorStream) -> Void
  private let state = Mutex(State())
  private let open = Atomic<Int>(0)
  private let answered = Atomic<UInt64>(0)

  init(
    _ generation: Generation, serving directory: TreePath, pool: ConnectionPool, timing: RemoteVolumes.Timing,
    silence: ClusterSilence = ClusterSilence(), processes: @escaping RemoteVolumes.Processes,
    start: @escaping @Sendable (SectorStream) -> Void
  ) {
    self.generation = generation
    self.directory = directory
    self.pool = pool
    self.timing = timing
    self.silence = silence
    self.processes = processes
    self.start = start
  }

  deinit { self.state.withLock { $0.connection?.stream }?.finish() }

  // MARK: Calls

  /// Makes a call, again if need be, on the event loop of a connection. It has to be one that may be made again: because
  /// it changes nothing, or because it is told from others by an id of its own.
  ///
  /// - Throws: `unreachable` when nobody could be reached and nothing was done; for a change, `notServing` when that can
  ///   not be told. Otherwise what the process answered.
  func call<Answer: Sendable>(
    _ purpose: Purpose, _ body: @concurrent @escaping @Sendable (Call) async throws -> Answer
  ) async throws(SectorError) -> Answer {
    guard let waiting = self.silence.begin() else { throw .unreachable(self.generation) }
    var waited = Duration.zero
    do throws(SectorError) {
      let answer = try await self.attempt(purpose, &waited, body)
      self.silence.end(waiting, hasAnswered: true, waited: waited)
      return answer
    } catch {
      let hasAnswered: Bool? =
        switch error {
        case .unreachable(self.generation), .notServing: Task.isCancelled ? nil : false
        default: true
        }
      self.silence.end(waiting, hasAnswered: hasAnswered, waited: waited)
      throw error
    }
  }

  /// - Parameter waited: how long it has waited for one process that said nothing, at most.
  private func attempt<Answer: Sendable>(
    _ purpose: Purpose, _ waited: inout Duration,
    _ body: @concurrent @escaping @Sendable (Call) async throws -> Answer
  ) async throws(SectorError) -> Answer {
    let timeout = purpose == .read ? self.timing.readTimeout : self.timing.changeTimeout
    var schedule = RetrySchedule(timeout: timeout, patience: .zero, now: .now)
    var search = LeaderSearch()
    var random = SystemRandomNumberGenerator()
    var mayBeDone = false
    var hasAskedAnew = false
    if !self.state.withLock({ $0.hasPlaces }) {
      hasAskedAnew = true
      _ = await self.findProcesses()
    }
    while true {
      guard let place = self.state.withLock({ search.next(in: $0.directory) }) else {
        throw self.lost(purpose, mayBeDone)
      }
      var wasSent = false
      let begin = ContinuousClock.now
      let failure: BlocktreeError
      do {
        let stream = try await self.stream(to: place, remaining: schedule.remaining(.now))
        var options = CallOptions.defaults
        options.timeout = schedule.remaining(.now)
        let call = Call(stream: stream, options: options, deadline: schedule.deadline)
        wasSent = true
        schedule.reached(.now, patience: timeout)
        let answer = try await self.counting { try await stream.connection.onEventLoop { try await body(call) } }
        self.state.withLock { $0.directory.served(place) }
        return answer
      } catch let error as SectorError {
        // What it answered makes no sense: that is a fault of its own, and nobody else's.
        throw error
      } catch {
        guard !Task.isCancelled, let error = try? BlocktreeError(thrown: error) else {
          throw self.lost(purpose, mayBeDone || wasSent)
        }
        failure = error.ofAnotherCluster
      }
      if wasSent, failure.isOutcomeUnknown { mayBeDone = true }
      if failure.reason == nil || !wasSent { waited = max(waited, .now - begin) }
      let pause = self.failed(place, failure, wasSent: wasSent, &search)
      // Whoever was there may be somewhere else now.
      if !wasSent, pause == .outage, !hasAskedAnew {
        hasAskedAnew = true
        if await self.findProcesses() {
          search = LeaderSearch()
          continue
        }
      }
      let delay = schedule.delay(
        after: failure, wasSent: wasSent, isRepeatable: true, pause: pause, now: .now, using: &random)
      if let delay {
        if delay > .zero, (try? await Task.sleep(for: delay)) == nil { throw self.lost(purpose, mayBeDone) }
        continue
      }
      throw self.error(failure, purpose, wasSent: wasSent, mayBeDone: mayBeDone)
    }
  }

  /// The final error of a call.
  private func error(
    _ failure: BlocktreeError, _ purpose: Purpose, wasSent: Bool, mayBeDone: Bool
  ) -> SectorError {
    // What the last one says holds for the last attempt. Where an earlier one may have been carried out, only an answer
    // that takes the operation's id into account says what became of it.
    guard wasSent, failure.reason != nil, !failure.isOfOneProcess, failure.code != .deadlineExceeded else {
      return self.lost(purpose, mayBeDone)
    }
    let error = SectorError(remote: failure)
    switch error {
    // What was carried out may have been to take this process's credential away.
    case .sessionUnknown, .operationTooOld, .permissionDenied: return mayBeDone ? self.lost(purpose, true) : error
    default: return error
    }
  }

  private func lost(_ purpose: Purpose, _ mayBeDone: Bool) -> SectorError {
    purpose == .change && mayBeDone ? .notServing : .unreachable(self.generation)
  }

  /// The stream on the connection to a place, which is opened if need be.
  private func stream(to place: Place, remaining: Duration?) async throws -> SectorStream {
    let (open, patience) = self.state.withLock { state in
      let current = state.connection.flatMap { $0.place == place ? $0.stream : nil }
      let isOpen = current?.isOver == false && current?.connection.isUsable == true
      let own = state.isSilent ? Self.silentDialPatience : Self.dialPatience
      return (isOpen ? current : nil, state.directory.dialPatience(for: place) ?? own)
    }
    if let open { return open }
    let pool = self.pool
    let dialled = try await within(min(patience, max(remaining ?? patience, .zero))) {
      try await pool.connection(to: place.address, expecting: place.path)
    }
    guard let connection = dialled else {
      self.state.withLock { state in
        state.isSilent = true
        state.directory.failed(place, wasSilent: true)
      }
      throw BlocktreeError(
        code: .unavailable, reason: .peerUnreachable, message: "can not reach \(place.address): no answer in time",
        retry: .elsewhere)
    }
    let new = SectorStream(connection)
    let (stream, former) = self.state.withLock { state -> (SectorStream, SectorStream?) in
      state.isSilent = false
      state.directory.reached(place, process: connection.peer.path)
      let former = state.connection?.stream
      // Somebody else may have been faster.
      if let former, former.connection === connection, !former.isOver { return (former, nil) }
      state.connection = (place, new)
      return (new, former)
    }
    former?.finish()
    if stream === new { self.start(new) }
    return stream
  }

  /// Notes what a failed attempt says about the process, and answers what the search needs before the next one.
  private func failed(
    _ place: Place, _ error: BlocktreeError, wasSent: Bool, _ search: inout LeaderSearch
  ) -> LeaderSearch.Pause {
    self.state.withLock { state in
      if error.reason == .notLeader {
        // Whoever lies elsewhere is no member, whatever is said.
        let leader = ProcessHint(error).flatMap { $0.path.parent == self.directory ? $0 : nil }
        state.directory.declined(place, leader: leader)
        return search.declined(place, leader: leader, in: state.directory)
      }
      if !wasSent || error.isOfOneProcess {
        state.directory.failed(place)
        return search.failed(place, in: state.directory)
      }
      if error.reason != nil { state.directory.served(place) }
      return .outage
    }
  }

  // MARK: Who there is

  /// Asks who there is. Answers whether anybody new is among them; otherwise what is known of the others stays.
  private func findProcesses() async -> Bool {
    let (processes, directory) = (self.processes, self.directory)
    let found = try? await within(Self.findingPatience) { await processes(directory) }
    guard let found, !found.isEmpty else { return false }
    var places = ProcessDirectory([])
    for process in found.prefix(Self.processesMax) where process.path.parent == directory {
      places.learn(ProcessHint(path: process.path, addresses: process.addresses))
    }
    return self.state.withLock { state in
      guard !Set(places.order).isSubset(of: state.directory.order) else { return false }
      state.directory = places
      state.hasPlaces = true
      return true
    }
  }

  // MARK: Silence

  /// Whether calls wait, and nothing was answered since this was asked before. To be asked now and then.
  func noteSilence() -> Bool {
    let (isWaiting, answered) = (self.open.load(ordering: .relaxed) > 0, self.answered.load(ordering: .relaxed))
    return self.state.withLock { state in
      defer { state.answeredBefore = answered }
      guard isWaiting, state.answeredBefore == answered, !state.isProbing,
        state.connection?.stream.connection.isUsable == true
      else { return false }
      state.isProbing = true
      return true
    }
  }

  /// Asks the process whether it lives, and closes its connection when it does not say so: what waits there is called
  /// again then, elsewhere if there is somebody else. Otherwise calls would wait until their time is up.
  func probe() async {
    defer { self.state.withLock { $0.isProbing = false } }
    guard let (place, stream) = self.state.withLock({ $0.connection }) else { return }
    let connection = stream.connection
    var options = CallOptions.defaults
    options.timeout = self.timing.probePatience
    do {
      _ = try await Grpc_Health_V1_Health.Client(wrapping: connection.client).check(.init(), options: options)
      self.silence.noteLife()
    } catch {
      // Whatever else it says, it says something.
      guard (error as? RPCError)?.code == .deadlineExceeded else { return }
      self.state.withLock { state in
        state.isSilent = true
        state.directory.failed(place, wasSilent: true)
      }
      connection.close()
    }
  }

  private func counting<Result>(_ body: () async throws -> Result) async throws -> Result {
    self.open.add(1, ordering: .relaxed)
    defer {
      self.open.subtract(1, ordering: .relaxed)
      self.answered.add(1, ordering: .relaxed)
    }
    let result = try await body()
    self.silence.noteLife()
    return result
  }
}

/// Runs `body` for at most so long; nil when it took longer. It is cancelled then, and has to end soon.
private func within<Result: Sendable>(
  _ limit: Duration, _ body: @concurrent @escaping @Sendable () async throws -> Result
) async throws -> Result? {
  try await withThrowingTaskGroup(of: Result?.self) { group in
    group.addTask { try await body() }
    group.addTask {
      try await Task.sleep(for: limit)
      return nil
    }
    defer { group.cancelAll() }
    return try await group.next() ?? nil
  }
}

extension BlocktreeError {
  /// Whether a call that failed so may have been carried out.
  fileprivate var isOutcomeUnknown: Bool {
    if self.isCertainlyUndone { return false }
    return self.reason == nil || self.isOfOneProcess || self.code == .deadlineExceeded || self.code == .internalError
  }

  /// A process that serves another generation, or none, is as good as none.
  fileprivate var ofAnotherCluster: BlocktreeError {
    let servesAnother = self.reason == BlocktreeError.Reason(rawValue: "WRONG_GENERATION")
    guard servesAnother || self.reason == nil && self.code == .unimplemented else { return self }
    return BlocktreeError(
      code: .unavailable, reason: .notLeader, message: "The process does not serve this generation.",
      retry: .elsewhere)
  }
}
