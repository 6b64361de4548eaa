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
internal import ServiceLifecycle
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
    let identity = try self.directory.identity(at: WallClock.date())
    let description = try NodeDescription(readingFrom: self.directory.description)
    guard let number = description.generation else { throw NodeError.notFirstMember(identity.credential.path) }
    let pool = NIOThreadPool(numberOfThreads: Self.workerCount)
    pool.start()
    let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: self.configuration.threads)
    let result: Result<Void, any Error>
    do {
      let store = try await self.openStore(Generation(number), pool)
      let services: [any ServiceLifecycle.Service]
      do {
        services = try await self.makeServices(store, identity, pool, eventLoops, whenReady)
      } catch {
        try? await store.close()
        throw error
      }
      // The last to start, and so the first to end.
      try await self.run(services + (signals.map { [SignalWatch(signals: $0)] } ?? []))
      result = .success(())
    } catch {
      result = .failure(error)
    }
    try? await eventLoops.shutdownGracefully()
    try? await pool.shutdownGracefully()
    try result.get()
  }

  // MARK: Parts

  private func openStore(_ generation: Generation, _ pool: NIOThreadPool) async throws -> SectorStore {
    let place = self.directory.store(generation: generation.rawValue)
    var configuration = StoreConfiguration(generation: generation.rawValue)
    configuration.checkpointBytes = self.configuration.checkpointBytes
    let (opening, files) = (configuration, self.files)
    let result = try await pool.runIfActive {
      Result { () throws(StoreError) in try SectorStore.open(at: place, opening, files: files) }
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
  }

  private func makeParts(
    _ store: SectorStore, _ identity: NodeDirectory.Identity, _ pool: NIOThreadPool
  ) async throws -> Parts {
    let sectors = try await SectorGroup(
      store: store, generation: Generation(store.configuration.generation),
      sectorSize: store.configuration.sectorSize,
      member: SectorGroup.Member(credential: identity.credential, key: identity.keys.signing),
      verifier: ChainVerifier(root: identity.root), signatures: SignatureCache(), now: WallClock.nanoseconds)
    for file in sectors.credentials.damaged {
      self.logger.error(
        "a credential file is damaged: whoever it belongs to can not connect", metadata: ["file": "\(file)"])
    }
    let filesystem = try await Filesystem(
      sectors: sectors, identity: identity.credential, keys: identity.keys, pool: pool, now: WallClock.nanoseconds)
    let removed = try await filesystem.removePending()
    if removed > 0 {
      self.logger.info("removed unfinished files of the last run", metadata: ["count": "\(removed)"])
    }
    return Parts(sectors: sectors, filesystem: filesystem)
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
    _ store: SectorStore, _ identity: NodeDirectory.Identity, _ pool: NIOThreadPool,
    _ eventLoops: MultiThreadedEventLoopGroup, _ whenReady: @escaping @Sendable (Readiness) -> Void
  ) async throws -> [any ServiceLifecycle.Service] {
    let parts = try await self.makeParts(store, identity, pool)
    let own = identity.credential.keyID
    let credentials = parts.sectors.credentials
    let security = try TransportSecurity(
      root: identity.root,
      identity: TransportSecurity.Identity(chain: identity.credential.chain, key: identity.keys.signing),
      // Whoever has no credential in the tree, or not any more, gets no connection.
      admits: { $0.keyID == own || credentials.confirms($0) })
    let transport = try NodeServerTransport(
      security: security, listeningOn: [self.configuration.listen], group: eventLoops,
      limits: self.configuration.limits, logger: self.logger)
    let health = HealthState()
    let server = GRPCServer(
      transport: transport, services: try self.handlers(parts, identity, health),
      interceptors: [FailureInterceptor(logger: self.logger)])
    return [
      StoreKeeper(store: store, health: health, logger: self.logger),
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
    ]
  }

  private func handlers(
    _ parts: Parts, _ identity: NodeDirectory.Identity, _ health: HealthState
  ) throws -> [any RegistrableRPCService] {
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
    ]
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
