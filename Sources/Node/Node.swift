// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Filesystem
internal import GRPCCore
internal import Inodes
package import Logging
internal import NIOCore
internal import NIOPosix
package import SectorStore
internal import Sectors
internal import Raft
internal import Replication
internal import ServiceLifecycle
internal import Telemetry
internal import Transport
package import Trust
internal import UnixSignals

/// A running node: opens the store, puts the sector service over it and the filesystem service over that, and serves
/// both, with health and reflection, until it is told to stop.
package struct Node: Sendable {
  private let directory: NodeDirectory
  private let configuration: NodeConfiguration
  private let logger: Logger
  /// The store's files; another layer in tests.
  private let files: any FileLayer

  /// What is known when the node serves.
  package struct Readiness: Sendable {
    package let domain: DomainID
    package let process: TreePath
    package let addresses: [NetworkAddress]
  }

  /// Threads that seal and open large pieces, and open the store.
  private static let workerCount = 2

  package init(
    _ directory: NodeDirectory, _ configuration: NodeConfiguration, logger: Logger, files: any FileLayer = HostFiles()
  ) {
    self.directory = directory
    self.configuration = configuration
    self.logger = logger
    self.files = files
  }

  /// Serves until SIGTERM or SIGINT. Then it accepts nothing more, lets calls finish for the time of grace, writes a
  /// checkpoint, and returns with the store closed; also when the signal comes while it still starts. It throws when something fails, the store above all; everything is
  /// stopped in the same order then.
  ///
  /// - Parameters:
  ///   - trapsSignals: whether the signals are taken over from the whole process. If not, cancelling the task ends the
  ///     node.
  ///   - whenReady: called once, when calls are answered.
  package func run(
    trapsSignals: Bool = true, whenReady: @escaping @Sendable (Readiness) -> Void
  ) async throws {
    // Before anything else: opening a store can take a while.
    let signals = trapsSignals ? await UnixSignalsSequence(trapping: .sigterm, .sigint) : nil
    let end = NodeEnd()
    try await withThrowingTaskGroup(of: Void.self) { group in
      if let signals {
        group.addTask {
          for await _ in signals { end.request(.stop) }
        }
      }
      defer { group.cancelAll() }
      try await self.run(until: end, whenReady)
    }
  }

  private func run(until end: NodeEnd, _ whenReady: @escaping @Sendable (Readiness) -> Void) async throws {
    let identity = try self.directory.identity(at: WallClock.date())
    let generation = try self.generation(identity)
    let pool = NIOThreadPool(numberOfThreads: Self.workerCount)
    pool.start()
    let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: self.configuration.threads)
    let result: Result<Void, any Error>
    let (metrics, start) = (NodeMetrics.makeRegistry(), NodeMetrics.Start())
    do {
      let place = StorePlace(self.directory.store(generation: generation.rawValue), files: self.files)
      while end.beginAgain() {
        try place.settle()
        let surroundings = Surroundings(
          identity: identity, generation: generation, place: place, pool: pool, eventLoops: eventLoops, end: end,
          metrics: metrics, start: start)
        if place.hasStore {
          try await self.serve(surroundings, whenReady)
        } else {
          try await self.join(surroundings)
        }
        if end.reason == nil || Task.isCancelled { break }
      }
      result = .success(())
    } catch {
      result = .failure(error)
    }
    try? await eventLoops.shutdownGracefully()
    try? await pool.shutdownGracefully()
    try result.get()
  }

  /// The sector cluster that this process belongs to.
  private func generation(_ identity: NodeDirectory.Identity) throws -> Generation {
    if let number = try NodeDescription(readingFrom: self.directory.description).generation {
      return Generation(number)
    }
    // The root directory's cluster is the first one's.
    guard identity.credential.path.parent == .root, identity.file.services.contains(.sector) else {
      throw NodeError.notFirstMember(identity.credential.path)
    }
    return .root
  }

  /// What all that runs here shares.
  struct Surroundings: Sendable {
    let identity: NodeDirectory.Identity
    let generation: Generation
    let place: StorePlace
    let pool: NIOThreadPool
    let eventLoops: MultiThreadedEventLoopGroup
    let end: NodeEnd
    /// What is counted goes on when the node begins again with another store.
    let metrics: MetricsRegistry
    let start: NodeMetrics.Start
  }

  /// Serves until the end is near.
  private func serve(
    _ surroundings: Surroundings, _ whenReady: @escaping @Sendable (Readiness) -> Void
  ) async throws {
    let store = try await self.openStore(surroundings.generation, surroundings.pool)
    let services: [any ServiceLifecycle.Service]
    do {
      services = try await self.makeServices(store, surroundings, whenReady)
    } catch {
      try? await store.close()
      throw error
    }
    // The last to start, and so the first to end.
    try await self.run(services + [EndWatch(end: surroundings.end)])
  }

  // MARK: Parts

  private func openStore(_ generation: Generation, _ pool: NIOThreadPool) async throws -> SectorStore {
    let place = self.directory.store(generation: generation.rawValue)
    var configuration = StoreConfiguration(generation: generation.rawValue)
    configuration.checkpointBytes = self.configuration.checkpointBytes
    let (opening, files) = (configuration, self.files)
    let result = try await pool.runIfActive {
      Result { () throws(StoreError) in try SectorStore.open(at: place, opening, files: files, appliesLog: false) }
    }
    let store: SectorStore
    do { store = try result.get() } catch { throw NodeError.store(place, error) }
    guard store.configuration.generation == generation.rawValue else {
      store.abandon()
      throw NodeError.inconsistent("the store in \(place) is of generation \(store.configuration.generation)")
    }
    return store
  }

  /// What answers calls.
  private struct Parts {
    let sectors: SectorGroup
    let filesystem: Filesystem
    let connections: MemberConnections
    let dialer: Dialer
    let inbox: MemberInbox
  }

  private func makeParts(_ store: SectorStore, _ surroundings: Surroundings) async throws -> Parts {
    let identity = surroundings.identity
    guard let member = store.configuration.memberID else { throw NodeError.inconsistent("the store has no member id") }
    let inbox = MemberInbox()
    let dialer = try self.dialer(surroundings)
    let connections = MemberConnections(
      member: MemberID(member), generation: surroundings.generation.rawValue, dialer: dialer,
      receiver: inbox.receiver)
    let sectors = try await SectorGroup(
      store: store, generation: Generation(store.configuration.generation),
      sectorSize: store.configuration.sectorSize,
      member: SectorGroup.Member(credential: identity.credential, key: identity.keys.signing),
      verifier: ChainVerifier(root: identity.root), signatures: SignatureCache(), now: WallClock.nanoseconds,
      timing: self.configuration.timing, transport: connections)
    inbox.connect(sectors.replica)
    for file in sectors.credentials.damaged {
      self.logger.error(
        "a credential file is damaged: whoever it belongs to can not connect", metadata: ["file": "\(file)"])
    }
    let filesystem = try await Filesystem(
      sectors: sectors, identity: identity.credential, keys: identity.keys, pool: surroundings.pool,
      now: WallClock.nanoseconds)
    // Where there are others, they may just be uploading.
    if sectors.replica.status.membership.members == [sectors.replica.member] {
      let removed = try await filesystem.removePending()
      if removed > 0 {
        self.logger.info("removed unfinished files of the last run", metadata: ["count": "\(removed)"])
      }
    }
    return Parts(sectors: sectors, filesystem: filesystem, connections: connections, dialer: dialer, inbox: inbox)
  }

  private func dialer(_ surroundings: Surroundings) throws -> Dialer {
    let identity = surroundings.identity
    let security = try TransportSecurity(
      root: identity.root,
      identity: TransportSecurity.Identity(chain: identity.credential.chain, key: identity.keys.signing))
    return Dialer(
      security, group: surroundings.eventLoops.next(), limits: MemberLimits.transport(self.configuration.limits))
  }

  private func run(_ services: [any ServiceLifecycle.Service]) async throws {
    // Dependencies first: they are shut down in the opposite order. Whatever fails, the others end in order too.
    var configuration = ServiceGroupConfiguration(
      services: services.map {
        .init(
          service: $0, successTerminationBehavior: .gracefullyShutdownGroup,
          failureTerminationBehavior: .gracefullyShutdownGroup)
      },
      logger: self.logger.atLeast(.warning))
    // Calls are cut off at the end of the grace; this is for what should not happen.
    configuration.maximumGracefulShutdownDuration = self.configuration.grace + .seconds(30)
    try await ServiceGroup(configuration: configuration).run()
  }

  /// In the order of their dependencies. The first of them closes the store.
  private func makeServices(
    _ store: SectorStore, _ surroundings: Surroundings, _ whenReady: @escaping @Sendable (Readiness) -> Void
  ) async throws -> [any ServiceLifecycle.Service] {
    let identity = surroundings.identity
    let parts = try await self.makeParts(store, surroundings)
    let own = identity.credential.keyID
    let credentials = parts.sectors.credentials
    let security = try TransportSecurity(
      root: identity.root,
      identity: TransportSecurity.Identity(chain: identity.credential.chain, key: identity.keys.signing),
      // Whoever has no credential in the tree, or not any more, gets no connection.
      admits: { $0.keyID == own || credentials.confirms($0) })
    let transport = try NodeServerTransport(
      security: security, listeningOn: [self.configuration.listen], group: surroundings.eventLoops,
      limits: self.configuration.limits, logger: self.logger)
    let health = HealthState()
    let server = GRPCServer(
      transport: transport, services: try self.handlers(parts, surroundings, health),
      interceptors: [CallMetrics(surroundings.metrics), FailureInterceptor(logger: self.logger)])
    var services: [any ServiceLifecycle.Service] = [
      StoreKeeper(store: store, replica: parts.sectors.replica, health: health, logger: self.logger)
    ]
    services += self.metricsServices(surroundings, transport, group: parts.sectors)
    services += [
      MemberTraffic(connections: parts.connections),
      CertificateWatch(credential: identity.credential, logger: self.logger),
      RevocationWatch(
        connections: transport.connections, credentials: credentials, own: own, logger: self.logger),
      Serving(
        server: server, transport: transport, health: health, listen: self.configuration.listen,
        process: identity.credential.domainPath, logger: self.logger,
        whenReady: { addresses in
          whenReady(
            Readiness(
              domain: identity.credential.domain, process: identity.credential.path, addresses: addresses))
        }),
      GroupKeeper(
        group: parts.sectors, connections: parts.connections, dialer: parts.dialer, logger: self.logger),
      LeadershipHandover(replica: parts.sectors.replica),
    ]
    return services
  }

  private func handlers(
    _ parts: Parts, _ surroundings: Surroundings, _ health: HealthState
  ) throws -> [any RegistrableRPCService] {
    let identity = surroundings.identity
    let hosted = [Blocktree_V1_SectorService.descriptor, Blocktree_V1_FilesystemService.descriptor]
      .map(\.fullyQualifiedService)
    let own = [Grpc_Health_V1_Health.descriptor, Grpc_Reflection_V1_ServerReflection.descriptor]
      .map(\.fullyQualifiedService)
    let addresses = self.configuration.advertise ?? identity.file.addresses
    let introduction = FilesystemServiceHandler.Introduction(
      rootCertificate: identity.root.der,
      startFrom: [(path: identity.credential.path, addresses: addresses.map(\.description))])
    return [
      SectorServiceHandler(parts.sectors),
      FilesystemServiceHandler(parts.filesystem, introduction: introduction),
      HealthService(state: health, services: Set(hosted)),
      ReflectionService(index: try SchemaIndex(SchemaDescriptors.fileSet), services: (hosted + own).sorted()),
    ] + self.memberServices(parts, surroundings)
  }

  /// What other members call.
  private func memberServices(_ parts: Parts, _ surroundings: Surroundings) -> [any RegistrableRPCService] {
    let group = parts.sectors
    let identity: @Sendable () -> MemberIdentity? = {
      MemberIdentity(
        generation: group.generation.rawValue, member: group.replica.member, incarnation: GroupIncarnation(1),
        lastLogIndex: group.replica.status.persisted)
    }
    let configuration = MemberServiceHandler.Configuration(
      generation: group.generation.rawValue, store: group.store.configuration, identity: identity,
      admits: { group.isMember($0) }, memberID: { group.member(at: $0) })
    return [
      ClusterServiceHandler(group),
      BackupServiceHandler(group),
      MemberServiceHandler(configuration, receiver: parts.inbox.receiver),
      self.snapshotService(
        surroundings, configuration,
        wants: { index, term in group.replica.lacks(index, term: term) },
        hardState: {
          // From now on it promises nothing that the new store would not know of. That waits for a thread.
          await withCheckedContinuation { continuation in
            let isStarted = WorkerThread.start {
              group.replica.stop()
              continuation.resume()
            }
            if !isStarted {
              group.replica.stop()
              continuation.resume()
            }
          }
          let state = group.replica.hardState
          return LogHardState(term: state.term.rawValue, vote: state.vote?.rawValue)
        }),
    ]
  }

  /// Takes a snapshot of another member in, and has the node begin again with it.
  private func snapshotService(
    _ surroundings: Surroundings, _ member: MemberServiceHandler.Configuration,
    wants: @escaping @Sendable (StoreLogIndex, UInt64) -> Bool,
    hardState: @escaping @Sendable () async -> LogHardState
  ) -> any RegistrableRPCService {
    var configuration = SnapshotInbox.Configuration(
      directory: surroundings.place.incoming, store: member.store, files: self.files, wants: wants,
      hardState: hardState, installed: { _, _ in surroundings.end.request(.storeReplaced) })
    configuration.takesAnySectorSize = !surroundings.place.hasStore
    // The member has stopped already, and begins again with the store that it has.
    configuration.abandoned = { surroundings.end.request(.storeReplaced) }
    let inbox = SnapshotInbox(configuration)
    return SnapshotServiceHandler(
      SnapshotServiceHandler.Configuration(
        identity: member.identity, admits: member.admits, memberID: member.memberID, inbox: { inbox }))
  }

  // MARK: Joining

  /// Waits, without a store, for the cluster to make this process a member and to send it a snapshot.
  private func join(_ surroundings: Surroundings) async throws {
    let identity = surroundings.identity
    let own = identity.credential.path
    // Members are certified by the same domain, in the same directory. Who of them was struck out, this one can not know
    // yet.
    let admits: @Sendable (Credential) -> Bool = {
      $0.kind == .process && $0.path != own && $0.path.parent == own.parent
    }
    let security = try TransportSecurity(
      root: identity.root,
      identity: TransportSecurity.Identity(chain: identity.credential.chain, key: identity.keys.signing),
      admits: admits)
    let transport = try NodeServerTransport(
      security: security, listeningOn: [self.configuration.listen], group: surroundings.eventLoops,
      limits: self.configuration.limits, logger: self.logger)
    let health = HealthState()
    var store = StoreConfiguration(generation: surroundings.generation.rawValue)
    let member = UInt64.random(in: 1 ... .max)
    store.memberID = member
    let configuration = MemberServiceHandler.Configuration(
      generation: surroundings.generation.rawValue, store: store,
      identity: {
        MemberIdentity(
          generation: surroundings.generation.rawValue, member: MemberID(member), incarnation: GroupIncarnation(1),
          lastLogIndex: .zero)
      }, admits: admits, memberID: { _ in nil })
    let server = GRPCServer(
      transport: transport,
      services: [
        MemberServiceHandler(configuration, receiver: MemberInbox().receiver),
        self.snapshotService(
          surroundings, configuration, wants: { _, _ in true }, hardState: { LogHardState() }),
        HealthService(state: health, services: []),
      ], interceptors: [CallMetrics(surroundings.metrics), FailureInterceptor(logger: self.logger)])
    self.logger.notice(
      "there is no store here yet: waiting to be made a member of the cluster, and to be sent one",
      metadata: ["process": "\(own)"])
    try await self.run(
      self.metricsServices(surroundings, transport, group: nil) + [
        Serving(
          server: server, transport: transport, health: health, listen: self.configuration.listen,
          process: identity.credential.domainPath, logger: self.logger, whenReady: { _ in }),
        EndWatch(end: surroundings.end),
      ])
  }

  // MARK: Metrics

  /// Nothing, unless metrics are to be read somewhere. They can be read as long as calls are answered.
  private func metricsServices(
    _ surroundings: Surroundings, _ transport: NodeServerTransport, group: SectorGroup?
  ) -> [any ServiceLifecycle.Service] {
    guard let listen = self.configuration.metricsListen else { return [] }
    let metrics = NodeMetrics(
      registry: surroundings.metrics, start: surroundings.start, process: surroundings.identity.credential.domainPath,
      connections: transport.connections, group: group)
    let endpoint = MetricsEndpoint(
      listen: listen, eventLoops: surroundings.eventLoops, pool: surroundings.pool, logger: self.logger,
      text: metrics.text)
    return [endpoint] + (group.map { [LeaderWatch(replica: $0.replica, registry: surroundings.metrics)] } ?? [])
  }
}

extension Logger {
  /// The same logger, silent below a level.
  fileprivate func atLeast(_ level: Logger.Level) -> Logger {
    var logger = self
    logger.logLevel = max(level, logger.logLevel)
    return logger
  }
}
