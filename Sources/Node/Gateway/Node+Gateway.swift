// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Discovery
internal import Filesystem
internal import GRPCCore
internal import Inodes
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import Relay
internal import Sectors
internal import ServiceLifecycle
internal import Telemetry
internal import Transport
internal import Trust

/// What all that runs in a gateway shares.
struct GatewaySurroundings: Sendable {
  let identity: NodeDirectory.Identity
  /// Nil for a process of the root directory.
  let home: NodeHome?
  let network: NodeNetwork
  /// With a port that stays the same when the node begins again.
  let listen: ListenAddress
  let pool: NIOThreadPool
  let eventLoops: MultiThreadedEventLoopGroup
  let end: NodeEnd
  let metrics: MetricsRegistry
  let start: NodeMetrics.Start
}

// A process with the filesystem mark and without the sector mark: it has the key of its directory and serves what others
// store. It keeps no state of its own but copies, so it may be put away and set up anew at any time.
extension Node {
  private static let homeInterval = Duration.seconds(1)

  /// Serves, each time another cluster serves the directory anew, until the end is near.
  func serveAsGateway(
    _ surroundings: GatewaySurroundings, _ whenReady: @escaping @Sendable (Readiness) -> Void
  ) async throws {
    let end = surroundings.end
    while end.beginAgain() {
      let parts = try await end.unlessRequested { try await self.gatewayParts(surroundings) }
      guard let parts = parts ?? nil else { break }
      try await self.run(try self.gatewayServices(parts, surroundings, whenReady) + [EndWatch(end: end)])
      if end.reason == nil || Task.isCancelled { break }
    }
  }

  private struct GatewayParts: Sendable {
    let home: GatewayHome
    let cluster: GatewayCluster
    let filesystem: Filesystem
    let above: ClusterAbove?
    let processes: ProcessNotes
    let copies: AboveCopies?
    let verifier: ChainVerifier
  }

  /// Waits until the cluster of the directory can be reached: before that there is nothing to serve.
  private func gatewayParts(_ surroundings: GatewaySurroundings) async throws -> GatewayParts {
    var lastError = ""
    while true {
      do { return try await self.makeGatewayParts(surroundings) } catch {
        // What does not get better by waiting is not waited for.
        guard error is SectorError || error is FilesystemError else { throw error }
        if case .noKey(let file)? = error as? FilesystemError, file == .rootDirectory { throw NodeError.noKey(.root) }
        if lastError != "\(error)" {
          lastError = "\(error)"
          self.logger.notice(
            "the cluster that serves the directory can not be reached: waiting for it",
            metadata: ["directory": "\(surroundings.home?.path ?? .root)", "error": "\(error)"])
        }
      }
      try await Task.sleep(for: Self.homeInterval)
    }
  }

  private func makeGatewayParts(_ surroundings: GatewaySurroundings) async throws -> GatewayParts {
    let (identity, network) = (surroundings.identity, surroundings.network)
    let description = try NodeDescription(readingFrom: self.directory.description)
    var key: FilesystemHome?
    if let place = surroundings.home {
      key = place.filesystem(description, identity)
      if key == nil { throw NodeError.noKey(place.path) }
    }
    let verifier = ChainVerifier(root: identity.root)
    let processes = ProcessNotes(
      known: network.known, directory: self.directory, pool: surroundings.pool, logger: self.logger)
    let home = try await GatewayHome.find(
      surroundings.home, knownBefore: description.generation.map { Generation($0) }, volumes: network.volumes,
      verifier: verifier, processes: processes)
    let volume = try await network.volumes.volume(
      home.cluster.generation, serving: home.cluster.path, home.cluster.fileID)
    guard let remote = volume as? RemoteVolume else { throw SectorError.internalFault("volume") }
    let guests = GuestDirectory()
    let cluster = GatewayCluster(home: home.path, volume: remote, guests: guests, identity: identity.credential)
    let (known, above) = (network.known, home.above)
    let filesystem = try await Filesystem(
      gatewayTo: remote, signatures: network.volumes.signatures, identity: identity.credential, keys: identity.keys,
      pool: surroundings.pool, home: key, volumes: network.volumes,
      neighbours: FilesystemNeighbours(
        above: { above.flatMap { known.redirection(to: $0) } },
        agreementKey: { await known.agreementKey(of: $0, verifier) },
        processes: { directory in
          (await known.find?(directory, nil) ?? []).map { process in
            FilesystemNeighbour(
              path: process.path, services: process.services ?? [], addresses: process.addresses)
          }
        }, confirms: { cluster.confirms($0) }), now: WallClock.nanoseconds)
    // Where the home's own cluster stores it, there is nothing that a copy would be good for without that.
    let isServedApart = home.place.map { $0.directory.generation != home.cluster.generation } ?? false
    let copies = home.place.flatMap { isServedApart ? self.copies(of: $0, network, surroundings.pool) : nil }
    _ = await copies?.restore(to: filesystem)
    return GatewayParts(
      home: home, cluster: cluster, filesystem: filesystem,
      above: home.place.map { ClusterAbove(home: $0, volumes: network.volumes, verifier: verifier) },
      processes: processes, copies: copies, verifier: verifier)
  }

  /// In the order of their dependencies.
  private func gatewayServices(
    _ parts: GatewayParts, _ surroundings: GatewaySurroundings, _ whenReady: @escaping @Sendable (Readiness) -> Void
  ) throws -> [any ServiceLifecycle.Service] {
    let (identity, health) = (surroundings.identity, HealthState())
    let discovery = NodeDiscovery(
      parts.cluster, parts.verifier, parts.filesystem, surroundings.network, above: parts.home.above)
    let hub = MessageHub(process: identity.credential.path)
    let messages = RelayServiceHandler(
      hub,
      RelayServiceHandler.Judge(
        parts.cluster, home: hub.scope, filesystem: parts.filesystem,
        marks: { [guests = parts.cluster.guests] in guests.guest(at: $0)?.services }))
    let security = try TransportSecurity(
      root: identity.root,
      // Everybody is confirmed with the first call.
      identity: TransportSecurity.Identity(chain: identity.credential.chain, key: identity.keys.signing))
    let transport = try NodeServerTransport(
      security: security, listeningOn: [surroundings.listen], group: surroundings.eventLoops,
      limits: self.configuration.limits, logger: self.logger)
    let server = GRPCServer(
      transport: transport, services: try self.gatewayHandlers(parts, discovery, identity, health) + [messages],
      interceptors: [
        CallMetrics(surroundings.metrics), FailureInterceptor(logger: self.logger),
        GuestInterceptor(principals: parts.cluster, lookup: discovery.lookup),
      ])
    let process = identity.credential.domainPath
    return self.metricsServices(
      surroundings.metrics, surroundings.start, process, surroundings.eventLoops, surroundings.pool, transport,
      group: nil, filesystem: parts.filesystem, scrub: nil) + [
        DiscoveryTraffic(discovery: discovery),
        CertificateWatch(credential: identity.credential, logger: self.logger),
        RevocationWatch(
          connections: transport.connections,
          rule: RevocationRule(principals: parts.cluster, lookup: discovery.lookup), logger: self.logger),
        Serving(
          server: server, transport: transport, health: health, listen: surroundings.listen, process: process,
          logger: self.logger,
          whenReady: { addresses in
            whenReady(
              Readiness(domain: process.domain, process: process.path, addresses: addresses))
          }),
        GatewayWatch(
          home: parts.home, filesystem: parts.filesystem, volume: parts.cluster.volume, above: parts.above,
          processes: parts.processes, copies: parts.copies, end: surroundings.end, logger: self.logger),
        try self.addressPublisher(identity, surroundings.home, surroundings.network, transport, group: nil),
        // Its streams end before calls are waited for.
        MessageTraffic(hub: hub),
      ]
  }

  private func gatewayHandlers(
    _ parts: GatewayParts, _ discovery: NodeDiscovery, _ identity: NodeDirectory.Identity, _ health: HealthState
  ) throws -> [any RegistrableRPCService] {
    let hosted = [
      Blocktree_V1_FilesystemService.descriptor, Blocktree_V1_DiscoveryService.descriptor,
      Blocktree_V1_RelayService.descriptor,
    ].map(\.fullyQualifiedService)
    let own = [Grpc_Health_V1_Health.descriptor, Grpc_Reflection_V1_ServerReflection.descriptor]
      .map(\.fullyQualifiedService)
    // Members let others in.
    let introduction = FilesystemServiceHandler.Introduction(rootCertificate: identity.root.der, startFrom: { [] })
    return [
      FilesystemServiceHandler(parts.filesystem, introduction: introduction),
      discovery.handler,
      HealthService(state: health, services: Set(hosted)),
      ReflectionService(index: try SchemaIndex(SchemaDescriptors.fileSet), services: (hosted + own).sorted()),
    ]
  }
}
