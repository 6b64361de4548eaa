// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Filesystem
internal import Routes
internal import Sectors
internal import ServiceLifecycle
internal import Trust

/// What a node has to do with discovery: it answers queries, asks others, and confirms callers from elsewhere.
struct NodeDiscovery: Sendable {
  let routes: NodeRoutes
  let lookup: CredentialLookup
  let answers: DiscoveryAnswers

  /// For a member of a cluster.
  ///
  /// - Parameters:
  ///   - filesystem: says who may ask; nil where directories can not be read.
  ///   - above: the directory of the cluster above; nil in the root's.
  init(_ group: SectorGroup, _ filesystem: Filesystem?, _ network: NodeNetwork, above: TreePath?) {
    let cluster = GroupAnswers(group)
    self.init(
      cluster, own: cluster, guests: group.guests, group.verifier, filesystem, network, members: { nil }, above: above)
  }

  /// For a gateway.
  init(
    _ cluster: GatewayCluster, _ verifier: ChainVerifier, _ filesystem: Filesystem, _ network: NodeNetwork,
    above: TreePath?
  ) {
    let (known, directory) = (network.known, cluster.volume.directory)
    self.init(
      cluster, own: cluster, guests: cluster.guests, verifier, filesystem, network,
      members: { known.redirect(to: directory, hosting: .sector) }, above: above)
  }

  private init(
    _ cluster: any AnsweringCluster, own: any OwnCluster, guests: GuestDirectory, _ verifier: ChainVerifier,
    _ filesystem: Filesystem?, _ network: NodeNetwork, members: @escaping @Sendable () -> Redirect?, above: TreePath?
  ) {
    let known = network.known
    let routes = NodeRoutes(
      cluster: own, caller: DiscoveryCalls(network.pool), members: members,
      above: { above.flatMap { known.redirect(to: $0) } },
      // Whatever others say, it is asked for again as soon as an answer of this cluster would be.
      limits: RouteLimits(lifetimeMax: AnswerLifetime.positive),
      now: { RouteTime(nanoseconds: SteadyClock.nanoseconds()) })
    self.routes = routes
    self.lookup = CredentialLookup(
      source: routes, guests: guests, verifier: verifier, home: cluster.home,
      now: SteadyClock.nanoseconds, date: WallClock.date)
    self.answers = DiscoveryAnswers(cluster: cluster, filesystem: filesystem, routes: routes)
    known.readCredential = { path in (try? await routes.readCredential(path))?.file }
    known.find = { directory, service in
      guard case .found(let found)? = try? await routes.find(.contained, service, directory).outcome else { return [] }
      return found.processes.map { .init(path: $0.path, addresses: $0.addresses, services: $0.services) }
    }
  }

  var handler: DiscoveryServiceHandler { DiscoveryServiceHandler(self.answers, routes: self.routes) }
}

extension KnownProcesses {
  /// Sends queries to the processes of a directory; nil when none is known.
  fileprivate func redirect(to directory: TreePath, hosting service: Trust.Service = .filesystem) -> Redirect? {
    let processes = self.processes(in: directory, hosting: service)
    guard !processes.isEmpty else { return nil }
    return Redirect(
      directory: directory, processes: processes.map { RouteProcess(path: $0.path, addresses: $0.addresses) },
      lifetime: AnswerLifetime.positive)
  }
}

/// Asks questions of others while anything needs their answers.
struct DiscoveryTraffic: ServiceLifecycle.Service {
  let discovery: NodeDiscovery

  func run() async throws {
    await cancelWhenGracefulShutdown {
      await withTaskGroup(of: Void.self) { group in
        group.addTask { await self.discovery.routes.run() }
        group.addTask { await self.discovery.lookup.run() }
      }
    }
  }
}

/// A clock that never goes back, and says nothing of the time of day.
enum SteadyClock {
  private static let start = ContinuousClock.now

  /// Nanoseconds since the first call.
  static func nanoseconds() -> Int64 { (ContinuousClock.now - self.start).nanoseconds }
}
