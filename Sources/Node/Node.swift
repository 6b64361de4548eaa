// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Discovery
internal import Filesystem
internal import GRPCCore
internal import Inodes
package import Logging
internal import NIOCore
internal import NIOPosix
package import SectorStore
internal import Sectors
internal import Raft
internal import Relay
internal import Replication
internal import ServiceLifecycle
internal import Telemetry
internal import Transport
package import Trust
internal import UnixSignals

/// A running node: opens the store, puts the sector service over it and the filesystem service over that, and serves
/// both, with health and reflection, until it is told to stop.
package struct Node: Sendable {
  let directory: NodeDirectory
  let configuration: NodeConfiguration
  let logger: Logger
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
    let description = try NodeDescription(readingFrom: self.directory.description)
    let services = identity.file.services
    guard services.contains(.sector) || services.contains(.filesystem) else {
      throw NodeError.servesNothing(identity.credential.path)
    }
    let home = try NodeHome(description, of: identity.credential.path)
    let pool = NIOThreadPool(numberOfThreads: Self.workerCount)
    pool.start()
    let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: self.configuration.threads)
    let result: Result<Void, any Error>
    let (metrics, start) = (NodeMetrics.makeRegistry(), NodeMetrics.Start())
    do {
      let network = try NodeNetwork(
        identity, startingFrom: description, group: eventLoops.next(),
        limits: MemberLimits.transport(self.configuration.limits))
      try await network.running {
        guard services.contains(.sector) else {
          return try await self.serveAsGateway(
            GatewaySurroundings(
              identity: identity, home: home, network: network,
              listen: try LocalAddress.withChosenPort(self.configuration.listen), pool: pool, eventLoops: eventLoops,
              end: end, metrics: metrics, start: start), whenReady)
        }
        let generation = try await self.generation(identity, home, description, network, pool, end)
        guard let generation else { return }
        let place = StorePlace(self.directory.store(generation: generation.rawValue), files: self.files)
        let surroundings = Surroundings(
          identity: identity, generation: generation, home: home, network: network,
          listen: try LocalAddress.withChosenPort(self.configuration.listen), place: place,
          warrants: WarrantFile(
            path: self.directory.warrant(generation: generation.rawValue), root: identity.root,
            generation: generation.rawValue), pool: pool, eventLoops: eventLoops, end: end, metrics: metrics,
          start: start)
        try await self.serve(again: surroundings, whenReady)
      }
      result = .success(())
    } catch {
      result = .failure(error)
    }
    try? await eventLoops.shutdownGracefully()
    try? await pool.shutdownGracefully()
    try result.get()
  }

  /// Serves, or joins, again and again until the end is near.
  private func serve(
    again surroundings: Surroundings, _ whenReady: @escaping @Sendable (Readiness) -> Void
  ) async throws {
    let (place, end) = (surroundings.place, surroundings.end)
    while end.beginAgain() {
      try place.settle()
      do {
        if place.hasStore {
          try await self.serve(surroundings, whenReady)
        } else {
          try await self.join(surroundings)
        }
      } catch {
        try await self.outlive(error, surroundings)
      }
      if end.reason == .storeDamaged { try self.setAside(place) }
      if end.reason == nil || Task.isCancelled { break }
    }
  }

  /// The sector cluster that this process belongs to; nil when the node is to stop before that is known.
  private func generation(
    _ identity: NodeDirectory.Identity, _ home: NodeHome?, _ description: NodeDescription, _ network: NodeNetwork,
    _ pool: NIOThreadPool, _ end: NodeEnd
  ) async throws -> Generation? {
    if let number = description.generation { return Generation(number) }
    // The root directory's cluster is the first one's.
    guard let home else { return .root }
    let verifier = ChainVerifier(root: identity.root)
    let claim = GenerationClaim(
      directory: self.directory, identity: identity,
      above: ClusterAbove(home: home, volumes: network.volumes, verifier: verifier), pool: pool, files: self.files,
      logger: self.logger)
    return try await end.unlessRequested {
      var lastError = ""
      while true {
        do { return try await claim.settle() } catch let error as SectorError {
          // It, or this process's own credential, may not be there yet.
          if lastError != "\(error)" {
            lastError = "\(error)"
            self.logger.notice(
              "the cluster above does not say which cluster serves the directory: waiting for it",
              metadata: ["directory": "\(home.path)", "error": "\(error)"])
          }
        }
        try await Task.sleep(for: Self.claimInterval)
      }
    }
  }

  private static let claimInterval = Duration.seconds(1)

  // MARK: A damaged store

  /// After a store was found damaged, in opening or later: has the process come back with a new store, if the cluster
  /// does without this one. Rethrows the error otherwise.
  private func outlive(_ error: any Error, _ surroundings: Surroundings) async throws {
    // It was released already, and what happens to the store now does not matter.
    if surroundings.end.reason == .storeDamaged { return }
    guard surroundings.end.reason == nil, let damage = StoreDamage.found(in: error) else { throw error }
    let members = MemberList.read(self.directory)
    guard !members.isEmpty else { throw error }
    let kept = surroundings.place.setAside.filter { $0.contains(".damaged-") }
    guard kept.count < StorePlace.setAsideMax else {
      self.logger.error(
        "the store is damaged, and as many as there may be are set aside already: remove those that are not needed",
        metadata: ["damage": "\(damage)", "stores": "\(kept.joined(separator: " "))"])
      throw error
    }
    self.logger.error(
      "the store is damaged: asking the other members whether they do without it", metadata: ["damage": "\(damage)"])
    // Who of the members it was, the leader knows by the path.
    let release = StoreRelease(
      generation: surroundings.generation, member: nil, dialer: try self.dialer(surroundings))
    let (isGranted, why) = await self.wait(for: release, members, surroundings.end)
    guard isGranted else {
      self.logger.error("the cluster does not do without the store", metadata: ["why": "\(why)"])
      throw error
    }
    surroundings.end.request(.storeDamaged)
  }

  /// Asks again and again, as the others may just be starting, too; until the node is to stop or the time is up.
  private func wait(
    for release: StoreRelease, _ members: [SectorLeader], _ end: NodeEnd
  ) async -> (isGranted: Bool, why: String) {
    await withTaskGroup(of: (Bool, String).self) { group in
      group.addTask {
        let deadline = ContinuousClock.now + Self.releasePatience
        var why = ""
        repeat {
          switch await release.ask(members) {
          case .granted: return (true, "")
          case .refused(let reason): why = reason
          }
          try? await Task.sleep(for: .seconds(1))
        } while ContinuousClock.now < deadline && !Task.isCancelled
        return (false, why)
      }
      group.addTask {
        await end.wait()
        return (false, "the node stops")
      }
      defer { group.cancelAll() }
      return await group.next() ?? (false, "")
    }
  }

  private static let releasePatience = Duration.seconds(40)

  private func setAside(_ place: StorePlace) throws(NodeError) {
    guard place.hasStore else { return }
    let path = try place.setAside("damaged")
    self.logger.warning(
      "the damaged store is set aside, and a new one comes from the other members; remove the old one in time",
      metadata: ["store": "\(path)"])
  }

  /// What all that runs here shares.
  struct Surroundings: Sendable {
    let identity: NodeDirectory.Identity
    let generation: Generation
    /// Nil for a process of the root directory.
    let home: NodeHome?
    let network: NodeNetwork
    /// With a port that stays the same when the node begins again.
    let listen: ListenAddress
    let place: StorePlace
    let warrants: WarrantFile
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
    guard let store = try await self.openStore(surroundings) else { return surroundings.end.request(.warrant) }
    let services: [any ServiceLifecycle.Service]
    do {
      services = try await self.makeServices(store, surroundings, whenReady)
    } catch {
      let damage = StoreDamage.found(in: store)
      try? await store.close()
      if StoreDamage.found(in: error) == nil, let damage { throw NodeError.storeDamaged(damage) }
      throw error
    }
    // The last to start, and so the first to end.
    try await self.run(services + [EndWatch(end: surroundings.end)])
  }

  // MARK: Parts

  func openStore(
    _ generation: Generation, _ pool: NIOThreadPool, appliesLog: Bool = false
  ) async throws -> SectorStore {
    let place = self.directory.store(generation: generation.rawValue)
    var configuration = StoreConfiguration(generation: generation.rawValue)
    configuration.checkpointBytes = self.configuration.checkpointBytes
    let (opening, files) = (configuration, self.files)
    let result = try await pool.runIfActive {
      Result { () throws(StoreError) in try SectorStore.open(at: place, opening, files: files, appliesLog: appliesLog) }
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
    /// Nil when this process was not given the key of its directory.
    let filesystem: Filesystem?
    let above: ClusterAbove?
    let connections: MemberConnections
    let lives: LifeGuard
    let dialer: Dialer
    let inbox: MemberInbox
    let healer: SectorHealer
  }

  private func makeParts(
    _ store: SectorStore, _ surroundings: Surroundings, _ lifeEnd: LifeEnd
  ) async throws -> Parts {
    let identity = surroundings.identity
    guard let member = store.configuration.memberID else { throw NodeError.inconsistent("the store has no member id") }
    let inbox = MemberInbox()
    let dialer = try self.dialer(surroundings)
    let lives = LifeGuard(
      generation: surroundings.generation.rawValue, life: try GroupLife(of: store, root: identity.root),
      root: identity.root, heard: { lifeEnd.giveUp($0) { inbox.stop() } })
    let connections = MemberConnections(
      member: MemberID(member), lives: lives, dialer: dialer, receiver: inbox.receiver)
    let sectors = try await SectorGroup(
      store: store, generation: Generation(store.configuration.generation),
      sectorSize: store.configuration.sectorSize,
      member: SectorGroup.Member(credential: identity.credential, key: identity.keys.signing),
      verifier: ChainVerifier(root: identity.root), signatures: SignatureCache(), now: WallClock.nanoseconds,
      timing: self.configuration.timing, transport: connections)
    inbox.connect(sectors.replica)
    let source = BlockSource(generation: surroundings.generation.rawValue, dialer: dialer)
    let healer = SectorHealer(
      store: store, peers: { [weak sectors] in sectors.map { SectorHealer.peers(of: $0) } ?? [] },
      fetch: { blocks, peer in try await source.fetch(blocks, from: peer) })
    // What the filesystem service reads first may be damaged, too.
    sectors.setHealer(healer)
    for file in sectors.credentials.damaged {
      self.logger.error(
        "a credential file is damaged: whoever it belongs to can not connect", metadata: ["file": "\(file)"])
    }
    surroundings.network.known.credentials = sectors.credentials
    let filesystem = try await self.makeFilesystem(sectors, surroundings)
    return Parts(
      sectors: sectors, filesystem: filesystem,
      above: surroundings.home.map {
        ClusterAbove(home: $0, volumes: surroundings.network.volumes, verifier: sectors.verifier)
      }, connections: connections, lives: lives, dialer: dialer, inbox: inbox,
      healer: healer)
  }

  private func makeFilesystem(
    _ sectors: SectorGroup, _ surroundings: Surroundings
  ) async throws -> Filesystem? {
    let identity = surroundings.identity
    guard identity.file.services.contains(.filesystem) else { return nil }
    var home: FilesystemHome?
    if let place = surroundings.home {
      home = place.filesystem(try NodeDescription(readingFrom: self.directory.description), identity)
      if home == nil {
        self.logger.error("this process has the filesystem mark, but not the key of its directory: certify it anew")
        return nil
      }
    }
    let network = surroundings.network
    let above = surroundings.home?.above.last?.path
    let filesystem = try await Filesystem(
      sectors: sectors, identity: identity.credential, keys: identity.keys, pool: surroundings.pool, home: home,
      volumes: network.volumes,
      neighbours: FilesystemNeighbours(
        above: { above.flatMap { network.known.redirection(to: $0) } },
        agreementKey: { await network.known.agreementKey(of: $0, sectors.verifier) }),
      now: WallClock.nanoseconds)
    if let home = surroundings.home,
      let record = await self.copies(of: home, network, surroundings.pool).restore(to: filesystem)
    {
      sectors.noteHome(record.attributes.part)
    }
    // Where there are others, they may just be uploading.
    let others = sectors.credentials.processes(in: sectors.home.path).filter { process in
      process.path != identity.credential.path && process.credential.marks.services.contains(.filesystem)
    }
    if others.isEmpty, sectors.replica.status.membership.members == [sectors.replica.member] {
      let removed = try await filesystem.removePending(olderThan: 0)
      if removed > 0 {
        self.logger.info("removed unfinished files of the last run", metadata: ["count": "\(removed)"])
      }
    }
    return filesystem
  }

  func copies(of home: NodeHome, _ network: NodeNetwork, _ pool: NIOThreadPool) -> AboveCopies {
    AboveCopies(home: home, volumes: network.volumes, path: self.directory.above, pool: pool, logger: self.logger)
  }

  private func dialer(_ surroundings: Surroundings) throws -> Dialer {
    let identity = surroundings.identity
    let security = try TransportSecurity(
      root: identity.root,
      identity: TransportSecurity.Identity(chain: identity.credential.chain, key: identity.keys.signing))
    return Dialer(
      security, group: surroundings.eventLoops.next(), limits: MemberLimits.transport(self.configuration.limits))
  }

  func run(_ services: [any ServiceLifecycle.Service]) async throws {
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
    let health = HealthState()
    let lifeEnd = LifeEnd(
      warrants: surroundings.warrants, health: health, end: surroundings.end, logger: self.logger)
    let parts = try await self.makeParts(store, surroundings, lifeEnd)
    let scrub = self.scrubKeeper(parts, surroundings)
    let discovery = NodeDiscovery(
      parts.sectors, parts.filesystem, surroundings.network, above: surroundings.home?.above.last?.path)
    let own = identity.credential.keyID
    let credentials = parts.sectors.credentials
    let hub = MessageHub(process: identity.credential.path)
    let messages = RelayServiceHandler(
      hub,
      RelayServiceHandler.Judge(
        parts.sectors, home: hub.scope, filesystem: parts.filesystem,
        marks: { credentials.entry($0)?.credential.marks.services }))
    let security = try TransportSecurity(
      root: identity.root,
      identity: TransportSecurity.Identity(chain: identity.credential.chain, key: identity.keys.signing),
      // Whoever has no credential in the tree, or not any more, gets no connection.
      // Whose is stored elsewhere is asked for with the first call.
      admits: { [sectors = parts.sectors] in
        $0.keyID == own || credentials.confirms($0) || !sectors.isStoredHere($0.path)
      })
    let transport = try NodeServerTransport(
      security: security, listeningOn: [surroundings.listen], group: surroundings.eventLoops,
      limits: self.configuration.limits, logger: self.logger)
    let server = GRPCServer(
      transport: transport,
      services: try self.handlers(parts, surroundings, health, lifeEnd, scrub, discovery) + [messages],
      interceptors: Self.life(parts.sectors) + [
        CallMetrics(surroundings.metrics), FailureInterceptor(logger: self.logger),
        GuestInterceptor(principals: parts.sectors, lookup: discovery.lookup),
      ])
    var services: [any ServiceLifecycle.Service] = [
      StoreKeeper(store: store, replica: parts.sectors.replica, health: health, logger: self.logger)
    ]
    services += self.metricsServices(
      surroundings, transport, group: parts.sectors, filesystem: parts.filesystem, scrub: scrub)
    services += [
      MemberTraffic(connections: parts.connections),
      DiscoveryTraffic(discovery: discovery),
      CertificateWatch(credential: identity.credential, logger: self.logger),
      RevocationWatch(
        connections: transport.connections, rule: RevocationRule(principals: parts.sectors, lookup: discovery.lookup),
        logger: self.logger),
      Serving(
        server: server, transport: transport, health: health, listen: surroundings.listen,
        process: identity.credential.domainPath, logger: self.logger,
        whenReady: { addresses in
          whenReady(
            Readiness(
              domain: identity.credential.domain, process: identity.credential.path, addresses: addresses))
        }),
      GroupKeeper(
        group: parts.sectors, connections: parts.connections, lives: parts.lives, dialer: parts.dialer,
        members: MemberList(self.directory, logger: self.logger), logger: self.logger),
      scrub,
    ]
    if let above = parts.above {
      services.append(
        MemberCredentials(
          group: parts.sectors, above: above, inbox: parts.inbox, dialer: parts.dialer, logger: self.logger))
      services.append(
        AboveWatch(
          above: above, group: parts.sectors, filesystem: parts.filesystem,
          processes: ProcessNotes(
            known: surroundings.network.known, directory: self.directory, pool: surroundings.pool, logger: self.logger),
          copies: self.copies(of: above.home, surroundings.network, surroundings.pool)))
    }
    if let filesystem = parts.filesystem {
      services.append(MarkKeeper(group: parts.sectors, filesystem: filesystem, logger: self.logger))
      services.append(TaskKeeper(filesystem: filesystem))
    }
    services += [
      try self.addressPublisher(
        identity, surroundings.home, surroundings.network, transport, group: parts.sectors),
      LeadershipHandover(replica: parts.sectors.replica),
      // Its streams end before calls are waited for.
      MessageTraffic(hub: hub),
    ]
    return services
  }

  /// What tells clients of the life of the cluster, after the first one.
  private static func life(_ group: SectorGroup) -> [any ServerInterceptor] {
    group.life.warrant.map { [LifeInterceptor($0)] } ?? []
  }

  private func handlers(
    _ parts: Parts, _ surroundings: Surroundings, _ health: HealthState, _ lifeEnd: LifeEnd, _ scrub: ScrubKeeper,
    _ discovery: NodeDiscovery
  ) throws -> [any RegistrableRPCService] {
    let identity = surroundings.identity
    let hosted =
      [
        Blocktree_V1_SectorService.descriptor, Blocktree_V1_DiscoveryService.descriptor,
        Blocktree_V1_RelayService.descriptor,
      ]
      .map(\.fullyQualifiedService)
      + (parts.filesystem == nil ? [] : [Blocktree_V1_FilesystemService.descriptor.fullyQualifiedService])
    let own = [Grpc_Health_V1_Health.descriptor, Grpc_Reflection_V1_ServerReflection.descriptor]
      .map(\.fullyQualifiedService)
    let addresses = self.configuration.advertise ?? identity.file.addresses
    let introduction = FilesystemServiceHandler.Introduction(
      rootCertificate: identity.root.der,
      startFrom: { [known = surroundings.network.known, home = surroundings.home?.path ?? .root] in
        // What is published holds, wherever the process was when it was certified.
        let published = known.credentials?.entry(identity.credential.path)?.credential.addresses?.addresses.addresses
        return known.startingPoints(home: home, own: (identity.credential.path, published ?? addresses))
      })
    let filesystem = parts.filesystem.map { FilesystemServiceHandler($0, introduction: introduction) }
    return (filesystem.map { [$0] } ?? []) + [
      SectorServiceHandler(parts.sectors),
      discovery.handler,
      HealthService(state: health, services: Set(hosted)),
      ReflectionService(index: try SchemaIndex(SchemaDescriptors.fileSet), services: (hosted + own).sorted()),
    ] + self.memberServices(parts, surroundings, lifeEnd, scrub)
  }

  private func scrubKeeper(_ parts: Parts, _ surroundings: Surroundings) -> ScrubKeeper {
    ScrubKeeper(
      group: parts.sectors, healer: parts.healer,
      release: StoreRelease(
        generation: surroundings.generation, member: parts.sectors.replica.member, dialer: parts.dialer),
      place: surroundings.place, end: surroundings.end, pace: self.configuration.scrub, directory: self.directory,
      logger: self.logger)
  }

  /// What other members call.
  private func memberServices(
    _ parts: Parts, _ surroundings: Surroundings, _ lifeEnd: LifeEnd, _ scrub: ScrubKeeper
  ) -> [any RegistrableRPCService] {
    let (group, inbox) = (parts.sectors, parts.inbox)
    let identity: @Sendable () -> MemberIdentity? = {
      MemberIdentity(
        generation: group.generation.rawValue, member: group.replica.member, incarnation: group.life.incarnation,
        warrant: group.life.warrant?.bytes ?? [], lastLogIndex: group.replica.status.persisted)
    }
    var configuration = MemberServiceHandler.Configuration(
      generation: group.generation.rawValue, store: group.store.configuration, identity: identity,
      admits: { group.isMember($0) }, memberID: { group.member(at: $0) }, lives: parts.lives)
    configuration.release = { path, member in try await group.release(path, member: member) }
    // One that was revoked still answers, but replaces nobody's store.
    var snapshots = configuration
    snapshots.admits = { group.isMember($0) && !inbox.refuses(group.member(at: $0.path)) }
    return [
      RepairServiceHandler(group),
      ClusterServiceHandler(group, upkeep: scrub) { warrant in
        try await surroundings.pool.runIfActive { try lifeEnd.begin(warrant) { inbox.stop() } }
      },
      BackupServiceHandler(group),
      MemberServiceHandler(configuration, receiver: parts.inbox.receiver),
      self.snapshotService(
        surroundings, snapshots, parts.lives,
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
    _ surroundings: Surroundings, _ member: MemberServiceHandler.Configuration, _ lives: LifeGuard,
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
        identity: member.identity, admits: member.admits, memberID: member.memberID, inbox: { inbox },
        lives: lives))
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
      security: security, listeningOn: [surroundings.listen], group: surroundings.eventLoops,
      limits: self.configuration.limits, logger: self.logger)
    let health = HealthState()
    var store = StoreConfiguration(generation: surroundings.generation.rawValue)
    let member = UInt64.random(in: 1 ... .max)
    store.memberID = member
    let lives = LifeGuard(
      generation: surroundings.generation.rawValue, life: GroupLife(try surroundings.warrants.read()),
      root: identity.root, hasStore: false,
      heard: { warrant in
        // Should that fail, it is told again.
        _ = WorkerThread.start { try? surroundings.warrants.note(warrant) }
      })
    let configuration = MemberServiceHandler.Configuration(
      generation: surroundings.generation.rawValue, store: store,
      identity: {
        MemberIdentity(
          generation: surroundings.generation.rawValue, member: MemberID(member), incarnation: GroupIncarnation(0),
          lastLogIndex: .zero)
      }, admits: admits, memberID: { _ in nil }, lives: lives)
    let server = GRPCServer(
      transport: transport,
      services: [
        MemberServiceHandler(configuration, receiver: MemberInbox().receiver),
        self.snapshotService(
          surroundings, configuration, lives, wants: { _, _ in true }, hardState: { LogHardState() }),
        HealthService(state: health, services: []),
      ], interceptors: [CallMetrics(surroundings.metrics), FailureInterceptor(logger: self.logger)])
    self.logger.notice(
      "there is no store here yet: waiting to be made a member of the cluster, and to be sent one",
      metadata: ["process": "\(own)"])
    try await self.run(
      self.metricsServices(surroundings, transport, group: nil, filesystem: nil, scrub: nil) + [
        Serving(
          server: server, transport: transport, health: health, listen: surroundings.listen,
          process: identity.credential.domainPath, logger: self.logger, whenReady: { _ in }),
        try self.addressPublisher(identity, surroundings.home, surroundings.network, transport, group: nil),
        EndWatch(end: surroundings.end),
      ])
  }

  // MARK: Metrics

  /// Nothing, unless metrics are to be read somewhere. They can be read as long as calls are answered.
  private func metricsServices(
    _ surroundings: Surroundings, _ transport: NodeServerTransport, group: SectorGroup?,
    filesystem: Filesystem?, scrub: ScrubKeeper?
  ) -> [any ServiceLifecycle.Service] {
    self.metricsServices(
      surroundings.metrics, surroundings.start, surroundings.identity.credential.domainPath, surroundings.eventLoops,
      surroundings.pool, transport, group: group, filesystem: filesystem, scrub: scrub)
  }

  func metricsServices(
    _ registry: MetricsRegistry, _ start: NodeMetrics.Start, _ process: DomainPath,
    _ eventLoops: MultiThreadedEventLoopGroup, _ pool: NIOThreadPool, _ transport: NodeServerTransport,
    group: SectorGroup?, filesystem: Filesystem?, scrub: ScrubKeeper?
  ) -> [any ServiceLifecycle.Service] {
    guard let listen = self.configuration.metricsListen else { return [] }
    let metrics = NodeMetrics(
      registry: registry, start: start, process: process, connections: transport.connections, group: group,
      filesystem: filesystem, scrub: scrub)
    let endpoint = MetricsEndpoint(
      listen: listen, eventLoops: eventLoops, pool: pool, logger: self.logger, text: metrics.text)
    return [endpoint] + (group.map { [LeaderWatch(replica: $0.replica, registry: registry)] } ?? [])
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
