// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
internal import Routes
private import Synchronization
internal import Transport
internal import Trust

/// What all views of one client share: the clusters that it knows, and which of them serves what.
final class ClientCore: Sendable {
  let shared: ClientConnections
  private let state: Mutex<State>

  /// Who serves what, for one kind of calls: processes that answer queries need not be those that serve files.
  private struct Table {
    var routes: ClientRoutes
    /// Those of the routes; and those that routes led to which have ended meanwhile, so that connections and sessions
    /// are there when a new route leads to them.
    var clusters: [TreePath: ClusterCore]
  }

  private struct State {
    var files: Table
    var queries: Table
    /// The one of the profile's first process.
    let home: ClusterCore
    /// Whether a process of the profile has still to say what directory it is in.
    var isSupposed: Bool

    subscript(kind: CallKind) -> Table {
      get { kind == .files ? self.files : self.queries }
      _modify {
        switch kind {
        case .files: yield &self.files
        case .queries: yield &self.queries
        }
      }
    }
  }

  /// Clusters whose processes and connections are remembered, beside the profile's.
  private static let clusterCountMax = 256

  /// - Parameter now: the present time, on a clock that never goes back.
  init(
    _ profile: Profile, _ configuration: ClientConfiguration, now: @escaping @Sendable () -> RouteTime
  ) throws(BlocktreeError) {
    guard !profile.startingPoints.isEmpty || profile.dnsName != nil else {
      throw BlocktreeError(
        code: .failedPrecondition, reason: .profile, message: "The profile has no address to start from.")
    }
    let shared = try ClientConnections(profile, configuration, now: now)
    var directories: [TreePath] = []
    var clusters: [TreePath: ClusterCore] = [:]
    if profile.startingPoints.isEmpty {
      // DNS will name some.
      directories.append(.root)
      clusters[.root] = ClusterCore(.root, [], shared)
    }
    // Those without a path are in the root until they have said otherwise.
    let groups = Dictionary(grouping: profile.startingPoints) { Self.directory(of: $0) }
    for point in profile.startingPoints {
      let directory = Self.directory(of: point)
      guard clusters[directory] == nil, let points = groups[directory] else { continue }
      let isNamed = points.contains { $0.path != nil }
      directories.append(directory)
      clusters[directory] = ClusterCore(isNamed ? directory : nil, points, shared)
    }
    self.shared = shared
    let isSupposed = !profile.startingPoints.isEmpty && profile.startingPoints.allSatisfy { $0.path == nil }
    let home = directories.first.flatMap { clusters[$0] } ?? ClusterCore(nil, profile.startingPoints, shared)
    let table = Table(
      routes: ClientRoutes(directories, seed: .random(in: .min ... .max)), clusters: clusters)
    self.state = Mutex(State(files: table, queries: table, home: home, isSupposed: isSupposed))
  }

  /// The directory that a process serves: the one that its credential lies in.
  private static func directory(of point: Profile.StartingPoint) -> TreePath { point.path?.parent ?? .root }

  var profile: Profile { self.shared.profile }
  var configuration: ClientConfiguration { self.shared.configuration }
  var executor: EventLoopExecutor { self.shared.executor }
  var lives: KnownLives { self.shared.lives }
  var isAnonymous: Bool { self.shared.isAnonymous }

  /// Keeps connections going until it is cancelled or shut down.
  func run() async {
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await self.watchForSilence() }
      group.addTask { await self.learnMembers() }
      if let bootstrap = self.shared.bootstrap { group.addTask { await bootstrap.run() } }
      await self.shared.pool.run()
      group.cancelAll()
    }
  }

  func beginGracefulShutdown() { self.shared.pool.beginGracefulShutdown() }

  // MARK: Clusters

  /// Whom calls go to that are about no path.
  var home: ClusterCore { self.state.withLock { $0.home } }

  /// All that are known.
  var clusters: [ClusterCore] {
    self.state.withLock { state in
      let files = Array(state.files.clusters.values)
      let known = Set(files.map { ObjectIdentifier($0) })
      return files + state.queries.clusters.values.filter { !known.contains(ObjectIdentifier($0)) }
    }
  }

  /// Makes a call that is about no path, again if need be; see ``ClusterCore/call(timeout:isRepeatable:isReplayable:_:)``.
  func call<Result>(
    timeout: Duration?, isRepeatable: () -> Bool = { true }, isReplayable: () -> Bool = { true },
    _ body: (NodeConnection, CallOptions) async throws -> Result
  ) async throws -> Result {
    try await self.home.call(timeout: timeout, isRepeatable: isRepeatable, isReplayable: isReplayable, body)
  }

  // MARK: Routes

  /// The cluster that an operation goes to next; nil when none is known.
  func next(_ search: RouteSearch, _ kind: CallKind) -> (step: RouteSearch.Step, cluster: ClusterCore)? {
    self.state.withLock { state in
      guard let step = search.next(in: state[kind].routes, self.shared.now()) else { return nil }
      state[kind].routes.used(step.directory, self.shared.now())
      return (step, self.cluster(step.directory, in: &state[kind]))
    }
  }

  private func cluster(_ directory: TreePath, in table: inout Table) -> ClusterCore {
    if let known = table.clusters[directory] { return known }
    let cluster = ClusterCore(directory, [], self.shared)
    table.clusters[directory] = cluster
    if table.clusters.count > table.routes.permanentCount + Self.clusterCountMax {
      // In no order: connections are made again when they are needed. Those that no route leads to come first.
      let others = table.clusters.filter { $0.value !== cluster && !table.routes.isPermanent($0.key) }.keys
      if let former = others.first(where: { !table.routes.contains($0) }) ?? others.first {
        table.clusters[former] = nil
        table.routes.drop(former)
      }
    }
    return cluster
  }

  /// Processes of a directory have become known.
  ///
  /// - Parameter directory: whose processes say so.
  func learn(_ redirection: ClientRedirection, by directory: TreePath, _ kind: CallKind) {
    let cluster = self.state.withLock { state in
      state[kind].routes.learn(redirection.directory, for: redirection.lifetime, self.shared.now())
      return self.cluster(redirection.directory, in: &state[kind])
    }
    // Those above know who is there; those below, and beside, just know some. Where there are more than a redirect
    // names, it says nothing of the others.
    let count = redirection.processes.count
    if directory.isAncestor(of: redirection.directory), (1..<ClientRedirection.processCountMax).contains(count) {
      cluster.renew(redirection.processes)
    } else {
      for process in redirection.processes { cluster.learn(process) }
    }
  }

  func knowsRoot(_ kind: CallKind) -> Bool { self.state.withLock { $0[kind].routes.contains(.root) } }

  /// There may be processes of the root directory, though none is known yet.
  func supposeRoot(_ kind: CallKind) {
    self.state.withLock { state in
      state[kind].routes.learn(.root, for: ClientRoutes.emergencyLifetime, self.shared.now())
      _ = self.cluster(.root, in: &state[kind])
    }
  }

  /// An operation was done where a route led that was known before.
  func confirmed(_ step: RouteSearch.Step, _ kind: CallKind) {
    self.state.withLock { state in
      // Nobody above could be asked whether that still holds.
      let now = self.shared.now()
      let isExpired = state[kind].routes.directories(above: step.directory, now).expired.first == step.directory
      if isExpired { state[kind].routes.learn(step.directory, for: ClientRoutes.emergencyLifetime, now) }
    }
  }

  /// Nobody can be reached where a route led.
  func lost(_ step: RouteSearch.Step, _ kind: CallKind) { self.state.withLock { $0[kind].routes.drop(step.directory) } }

  /// A process of the profile may have said by now which directory it is in.
  func identify() {
    self.state.withLock { state in
      guard state.isSupposed else { return }
      let (former, scope) = (state.files.routes.home, state.home.scope)
      guard scope != former else { return }
      state.isSupposed = false
      for kind in CallKind.allCases {
        state[kind].routes.move(former, to: scope)
        state[kind].clusters[former] = nil
        state[kind].clusters[scope] = state.home
      }
    }
  }
}

/// What is asked of processes.
enum CallKind: CaseIterable {
  case files
  case queries
}
