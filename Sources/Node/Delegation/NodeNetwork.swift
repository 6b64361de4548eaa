// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import Filesystem
internal import NIOCore
internal import Sectors
private import Synchronization
internal import Transport
internal import Trust

/// What a node has to do with processes of other clusters: connections to them, and their volumes.
final class NodeNetwork: Sendable {
  let pool: ConnectionPool
  let known: KnownProcesses
  let volumes: RemoteVolumes

  init(
    _ identity: NodeDirectory.Identity, startingFrom description: NodeDescription, group: any EventLoop,
    limits: TransportLimits
  ) throws {
    let security = try TransportSecurity(
      root: identity.root,
      identity: TransportSecurity.Identity(chain: identity.credential.chain, key: identity.keys.signing))
    // Whoever has been recovered elsewhere is believed, and its former members are not.
    let lives = KnownLives(of: "", root: identity.root)
    var limits = limits
    // A cluster above that is back is to be noticed soon; calls have pauses of their own.
    limits.maxBackoff = Self.maxBackoff
    self.pool = ConnectionPool(
      Dialer(
        security, group: group, limits: limits,
        interceptorsForPeer: { [LifeCheck(lives: lives, directory: $0.path.parent ?? .root)] }))
    let known = KnownProcesses(description)
    self.known = known
    self.volumes = RemoteVolumes(
      pool: self.pool, verifier: ChainVerifier(root: identity.root), signatures: SignatureCache(),
      processes: { directory in await known.findProcesses(in: directory, hosting: .sector) })
  }

  private static let maxBackoff = Duration.seconds(1)

  /// Keeps connections while `body` runs.
  func running(_ body: () async throws -> Void) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { await self.pool.run() }
      group.addTask { await self.volumes.run() }
      defer { group.cancelAll() }
      try await body()
    }
  }
}

/// The processes that are known in other directories, and where they are.
final class KnownProcesses: Sendable {
  private struct State {
    /// Of directories above, by directory.
    var above: [TreePath: [RemoteVolumes.Process]] = [:]
    /// Of this process's own cluster: of the directories that it stores, and its own.
    var credentials: CredentialIndex?
    var find: Find?
    var readCredential: ReadCredential?
  }

  /// Asks others for the processes in a directory with a service, or any; answers none when they do not say.
  typealias Find = @Sendable (TreePath, Service?) async -> [RemoteVolumes.Process]

  /// Asks others for a principal's credential file; answers nil when there is none, or they do not say.
  typealias ReadCredential = @Sendable (TreePath) async -> [UInt8]?

  /// Directories above that anything is remembered of.
  private static let directoryCountMax = 64

  private let state: Mutex<State>

  /// - Parameter description: names processes to start from.
  init(_ description: NodeDescription) {
    var state = State()
    for process in (description.startFrom ?? [:]).values {
      guard let path = try? TreePath(parsing: process.path), let directory = path.parent else { continue }
      let addresses = process.addresses.compactMap { try? NetworkAddress(parsing: $0) }
      state.above[directory, default: []].append(.init(path: path, addresses: addresses))
    }
    self.state = Mutex(state)
  }

  /// The credential files of this process's own cluster, once it serves.
  var credentials: CredentialIndex? {
    get { self.state.withLock { $0.credentials } }
    set { self.state.withLock { $0.credentials = newValue } }
  }

  /// How others are asked, once this process serves.
  var find: Find? {
    get { self.state.withLock { $0.find } }
    set { self.state.withLock { $0.find = newValue } }
  }

  /// The same for credential files that are stored elsewhere.
  var readCredential: ReadCredential? {
    get { self.state.withLock { $0.readCredential } }
    set { self.state.withLock { $0.readCredential = newValue } }
  }

  /// As ``processes(in:hosting:)``; where none is known, others are asked.
  func findProcesses(in directory: TreePath, hosting service: Service) async -> [RemoteVolumes.Process] {
    let known = self.processes(in: directory, hosting: service)
    if !known.isEmpty { return known }
    return await self.find?(directory, service) ?? []
  }

  /// The key-agreement key in a credential file that is stored elsewhere; nil when there is none that verifies, or nobody
  /// who knows says so.
  func agreementKey(of path: TreePath, _ verifier: ChainVerifier) async -> AgreementPublicKey? {
    guard let bytes = await self.readCredential?(path), let file = try? CredentialFile(bytes: bytes),
      let verified = try? file.verify(with: verifier, at: WallClock.date()), verified.credential.path == path
    else { return nil }
    return verified.agreementKey
  }

  /// The processes in a directory above, as somebody there has said.
  func note(_ processes: [RemoteVolumes.Process], in directory: TreePath) {
    self.state.withLock { state in
      guard state.above[directory] != nil || state.above.count < Self.directoryCountMax else { return }
      state.above[directory] = processes
    }
  }

  /// The processes in a directory with a service by their marks; where marks are not known, all.
  func processes(in directory: TreePath, hosting service: Service) -> [RemoteVolumes.Process] {
    let (credentials, above) = self.state.withLock { ($0.credentials, $0.above[directory] ?? []) }
    let own = (credentials?.processes(in: directory) ?? []).filter { $0.credential.marks.services.contains(service) }
    if own.isEmpty { return above.filter { $0.mayHost(service) } }
    return own.map { entry in
      .init(
        path: entry.path, addresses: entry.credential.addresses?.addresses.addresses ?? [],
        services: entry.credential.marks.services)
    }
  }

  /// Sends callers to the processes of a directory above; nil when none is known.
  func redirection(to directory: TreePath) -> FilesystemRedirection? {
    let processes = self.processes(in: directory, hosting: .filesystem)
    guard !processes.isEmpty else { return nil }
    return FilesystemRedirection(
      directory: directory, processes: processes.map { .init(path: $0.path, addresses: $0.addresses) })
  }

  /// What a new process below starts from: the processes of this cluster, and those above that this one knows.
  func startingPoints(
    home: TreePath, own: (path: TreePath, addresses: [NetworkAddress])
  ) -> [(path: TreePath, addresses: [String])] {
    var siblings = self.processes(in: home, hosting: .sector).filter { $0.path != own.path }
    siblings.insert(.init(path: own.path, addresses: own.addresses), at: 0)
    let above = self.state.withLock { $0.above }.sorted { $0.key < $1.key }.flatMap(\.value)
    return (siblings + above.filter { $0.path.parent != home }).map { ($0.path, $0.addresses.map(\.description)) }
  }
}
