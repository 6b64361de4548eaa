// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Dispatch
import Foundation
import GRPCCore
import GRPCProtobuf
import Logging
import NIOCore
import NIOPosix
import SwiftProtobuf
import Synchronization
import Testing
import Transport
import Trust

/// Processes on loopback that serve one tree of files, as a cluster does: real servers over mutual TLS. What they store
/// is one value in memory that all of them see, in the place of a replicated store; whoever does not lead declines.
final class TestCluster: Sendable {
  struct File {
    var inode: UInt64
    var version: UInt64 = 1
    var bytes: [UInt8]
  }

  /// What happens when the leader has received or sent so many bytes of one file.
  struct Disaster {
    enum Kind {
      /// It is killed: its connections break.
      case death
      /// It loses its office, and declines what is under way.
      case deposition
    }

    var kind: Kind
    var byteCount: Int
  }

  /// Who answers for a path instead.
  struct Redirect {
    var directory: String
    var processes: String
    var lifetime = 30_000
    var path: String?
  }

  struct State {
    /// Which paths others answer for.
    var redirect: (@Sendable (String) -> Redirect?)?
    /// What was asked for, redirected or not.
    var askedPaths: [String] = []
    var findings: (@Sendable (Blocktree_V1_FindRequest) -> Blocktree_V1_FindResponse)?
    var credentials: [[UInt8]] = []
    var renames: [String] = []
    /// Of keys and permissions.
    var changes: [String] = []
    var tasks: [Blocktree_V1_Task] = []
    /// How many more calls are refused because everything is being moved away.
    var frozenCount = 0
    /// What is said of a file, by path.
    var infos: [String: Blocktree_V1_FileInfo] = [:]
    /// What the sector service has.
    var sealed: SealedStore?
    /// Nobody, while an election is on.
    var leader: Int? = 0
    /// Whether those who decline say who leads.
    var namesLeader = true
    /// What those who decline say instead of the truth.
    var rumour: (path: String, addresses: String)?
    /// Who leads when so many more calls have been declined.
    var election: (declinations: Int, winner: Int)?
    var declinations: [Int]
    var files: [String: File] = [:]
    var lastInode: UInt64 = 1
    var sessions: Set<Data> = []
    /// What was applied, by session and sequence number.
    var results: [String: Blocktree_V1_FileInfo] = [:]
    var disaster: Disaster?
    /// Changes the file when the disaster comes.
    var disasterChanges: (path: String, bytes: [UInt8])?
    /// Whether the next mutation is applied, and the leader dies before it has answered.
    var diesAfterApplying = false
    var appliedCount = 0
    var winner = 1
  }

  final class Member: Sendable {
    let address: NetworkAddress
    let path: String
    private let server: GRPCServer<NodeServerTransport>
    private let transport: NodeServerTransport
    private let task: Task<Void, Never>
    private let group: MultiThreadedEventLoopGroup
    private let stop = DispatchSemaphore(value: 0)
    private let isStopped = Atomic(false)

    init(
      address: NetworkAddress, path: String, server: GRPCServer<NodeServerTransport>, transport: NodeServerTransport,
      task: Task<Void, Never>, group: MultiThreadedEventLoopGroup
    ) {
      self.transport = transport
      self.address = address
      self.path = path
      self.server = server
      self.task = task
      self.group = group
    }

    /// Does nothing any more, as after SIGSTOP: connections stay open, and the kernel takes new ones.
    func freeze() {
      self.isStopped.store(true, ordering: .relaxed)
      let stop = self.stop
      self.group.next().execute { stop.wait() }
    }

    /// Closes the port and all connections, at once.
    ///
    /// Not by cancelling the server: grpc-swift crashes when that happens while a call comes in.
    func kill() {
      self.transport.connections.closeConnections { _ in true }
      self.server.beginGracefulShutdown()
      self.transport.connections.closeConnections { _ in true }
    }

    var isConnected: Bool { self.transport.connections.counts.open > 0 }

    func end() async {
      if self.isStopped.exchange(false, ordering: .relaxed) {
        self.stop.signal()
        // What has come meanwhile is still to be read.
        self.server.beginGracefulShutdown()
      } else {
        self.kill()
      }
      await self.task.value
      try? await self.group.shutdownGracefully()
    }
  }

  let domain: TestDomain
  /// That the members' credentials lie in.
  let directory: String
  /// What the members say of the cluster's life.
  let life: RecoveryWarrant?
  let state: Mutex<State>
  private let running = Mutex<[Member]>([])

  var members: [Member] { self.running.withLock { $0 } }

  init(count: Int, in directory: String = "/", of domain: TestDomain? = nil, life: RecoveryWarrant? = nil) throws {
    self.domain = try domain ?? TestDomain()
    self.directory = directory
    self.life = life
    self.state = Mutex(State(declinations: Array(repeating: 0, count: count)))
  }

  /// Starts the members, calls `body`, and ends them.
  static func run(
    _ count: Int = 3, in directory: String = "/", of domain: TestDomain? = nil, life: RecoveryWarrant? = nil,
    _ body: (TestCluster) async throws -> Void
  ) async throws {
    let cluster = try TestCluster(count: count, in: directory, of: domain, life: life)
    let result: Result<Void, any Error>
    do {
      for index in 0..<count { try await cluster.start(index) }
      try await body(cluster)
      result = .success(())
    } catch {
      result = .failure(error)
    }
    for member in cluster.members { await member.end() }
    try result.get()
  }

  private func start(_ index: Int) async throws {
    let keys = PrincipalKeys()
    let path = (self.directory == "/" ? "" : self.directory) + "/node\(index + 1)"
    let file = try self.domain.credential(.process, path, keys: keys)
    let security = try TransportSecurity(
      root: self.domain.authority.root, identity: .init(chain: file.chain, key: keys.signing))
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let transport = try NodeServerTransport(
      security: security, listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)],
      group: group, logger: logger)
    let server = GRPCServer(
      transport: transport,
      services: [
        TestFilesystem(cluster: self, index: index), TestDiscovery(cluster: self),
        TestSectors(cluster: self, index: index),
      ],
      interceptors: self.life.map { [LifeInterceptor($0)] } ?? [])
    let task = Task<Void, Never> { try? await server.serve() }
    let address = try #require(try await transport.listeningAddresses.first)
    let member = Member(
      address: address, path: path, server: server, transport: transport, task: task, group: group)
    self.running.withLock { $0.append(member) }
  }

  /// The profile of a person, with these members to start from.
  func withProfile(_ known: [Int], _ body: (Profile) async throws -> Void) async throws {
    let members = self.members
    let keys = PrincipalKeys()
    let file = try self.domain.credential(.user, "/ann", keys: keys)
    try await withDirectory { directory in
      try Profile.create(
        at: "\(directory)/profile", root: self.domain.authority.root, credential: file.chain, keys: keys,
        path: TreePath(parsing: "/ann"),
        processes: known.map { .init(path: members[$0].path, addresses: ["\(members[$0].address)"]) })
      try await body(Profile(contentsOf: "\(directory)/profile"))
    }
  }

  func withClient(
    knowing known: [Int] = [0, 1, 2], configuration: ClientConfiguration = ClientConfiguration(),
    _ body: (Client) async throws -> Void
  ) async throws {
    try await self.withProfile(known) { profile in
      try await BlocktreeClient.withClient(profile, configuration: configuration, body)
    }
  }

  /// As an error says it.
  var processes: String { self.members.map { "\($0.path)=\($0.address)" }.joined(separator: ";") }

  /// Sends those who ask for these paths to another cluster.
  func redirect(
    to other: TestCluster, lifetime: Int = 30_000, _ paths: @escaping @Sendable (String) -> Bool
  ) {
    let redirect = Redirect(directory: other.directory, processes: other.processes, lifetime: lifetime)
    self.state.withLock { $0.redirect = { paths($0) ? redirect : nil } }
  }

  // MARK: What the members do

  /// Throws unless this cluster answers for the path.
  func requireHere(_ path: String) throws(Declined) {
    let (redirect, isFrozen) = self.state.withLock { state in
      state.askedPaths.append(path)
      defer { state.frozenCount = max(0, state.frozenCount - 1) }
      return (state.redirect?(path), state.frozenCount > 0)
    }
    if isFrozen { throw Declined(reason: "GENERATION_FROZEN", retryDelay: .milliseconds(20)) }
    guard let redirect else { return }
    throw Declined(reason: "REDIRECTED", code: .failedPrecondition, redirect: redirect)
  }

  /// Throws unless this member leads.
  func requireLeader(_ index: Int) throws(Declined) {
    let (leads, leader, rumour) = self.state.withLock { state in
      if state.leader == index { return (true, nil as Int?, state.rumour) }
      state.declinations[index] += 1
      let leader = state.namesLeader ? state.leader : nil
      if var election = state.election {
        election.declinations -= 1
        state.election = election.declinations > 0 ? election : nil
        if election.declinations <= 0 { state.leader = election.winner }
      }
      return (false, leader, state.rumour)
    }
    if leads { return }
    if let rumour { throw Declined(leader: rumour.path, addresses: rumour.addresses) }
    guard let leader else { throw Declined() }
    let member = self.members[leader]
    throw Declined(leader: member.path, addresses: "\(member.address)")
  }

  /// Passes on, or lets the disaster come.
  func passed(_ index: Int, byteCount: Int) async throws {
    let disaster = self.state.withLock { state -> Disaster? in
      guard let disaster = state.disaster, byteCount >= disaster.byteCount else { return nil }
      state.disaster = nil
      state.leader = nil
      state.election = (declinations: 3, winner: state.winner)
      if let change = state.disasterChanges {
        state.files[change.path]?.bytes = change.bytes
        state.files[change.path]?.version += 1
      }
      return disaster
    }
    guard let disaster else { return }
    switch disaster.kind {
    case .death: try await self.die(index)
    case .deposition: throw Declined()
    }
  }

  func die(_ index: Int) async throws {
    let member = self.members[index]
    member.kill()
    // Nothing is answered any more.
    while member.isConnected { try await Task.sleep(for: .milliseconds(1)) }
    throw CancellationError()
  }

  /// Applies a change once for each operation id.
  func apply(
    _ operation: Blocktree_V1_OperationId?, _ change: (inout State) -> Blocktree_V1_FileInfo
  ) throws(Declined) -> Blocktree_V1_FileInfo {
    let result = self.state.withLock { state -> Blocktree_V1_FileInfo? in
      let id = operation.map { "\($0.session.base64EncodedString()):\($0.sequence)" }
      if let operation, !state.sessions.contains(operation.session) { return nil }
      if let id, let former = state.results[id] { return former }
      let info = change(&state)
      state.appliedCount += 1
      if let id { state.results[id] = info }
      return info
    }
    guard let result else { throw Declined(reason: "SESSION_UNKNOWN", code: .failedPrecondition) }
    return result
  }

  static func task(_ kind: Blocktree_V1_TaskKind, _ path: String, _ state: Blocktree_V1_TaskState) -> Blocktree_V1_Task
  {
    .with {
      $0.id = "\(kind) \(path)"
      $0.kind = kind
      $0.path = path
      $0.fileID = .with {
        $0.generation = 1
        $0.inode = 9
      }
      $0.state = state
    }
  }

  static func info(_ file: File, isDirectory: Bool = false) -> Blocktree_V1_FileInfo {
    .with {
      $0.fileID = .with {
        $0.generation = 1
        $0.inode = file.inode
      }
      $0.type = isDirectory ? .directory : .file
      $0.size = UInt64(file.bytes.count)
      $0.version = file.version
      $0.linkCount = 1
      $0.mode = 0o644
      $0.owner = "/ann"
      $0.group = "/"
    }
  }
}

/// What a member answers that does not lead.
struct Declined: Error, StatusConvertible {
  var leader: String?
  var addresses: String?
  var reason = "NOT_LEADER"
  var code = RPCError.Code.unavailable
  var redirect: TestCluster.Redirect?
  var retryDelay: Duration?

  var metadata: [String: String] {
    var metadata: [String: String] = [:]
    if let redirect {
      metadata["directory"] = redirect.directory
      metadata["processes"] = redirect.processes
      metadata["lifetime_ms"] = "\(redirect.lifetime)"
      metadata["path"] = redirect.path
    }
    metadata["leader"] = self.leader
    metadata["addresses"] = self.addresses
    return metadata
  }

  var status: GoogleRPCStatus {
    GoogleRPCStatus(
      self.code, "Another one leads.", reason: self.reason, self.metadata, retryAfter: self.retryDelay)
  }
}

/// The filesystem service of a member: the calls that the tests make.
struct TestFilesystem: Blocktree_V1_FilesystemService.SimpleServiceProtocol {
  typealias Writer<Message: Sendable> = RPCWriter<Message>
  typealias Requests<Message: Sendable> = RPCAsyncSequence<Message, any Error>

  let cluster: TestCluster
  let index: Int

  private var unimplemented: RPCError { RPCError(code: .unimplemented, message: "not in these tests") }

  func stat(request: Blocktree_V1_StatRequest, context: ServerContext) async throws -> Blocktree_V1_StatResponse {
    try self.cluster.requireHere(request.path)
    try self.cluster.requireLeader(self.index)
    let info = self.cluster.state.withLock { $0.infos[request.path] }
    return .with { $0.info = info ?? TestCluster.info(self.file(request.path)) }
  }

  private func file(_ path: String) -> TestCluster.File {
    self.cluster.state.withLock { $0.files[path] } ?? TestCluster.File(inode: 1, bytes: [])
  }

  func statFilesystem(
    request: Blocktree_V1_StatFilesystemRequest, context: ServerContext
  ) async throws -> Blocktree_V1_StatFilesystemResponse {
    try self.cluster.requireHere(request.path)
    try self.cluster.requireLeader(self.index)
    return .with { $0.generation = UInt64(self.index + 1) }
  }

  func openSession(
    request: Blocktree_V1_FilesystemServiceOpenSessionRequest, context: ServerContext
  ) async throws -> Blocktree_V1_FilesystemServiceOpenSessionResponse {
    try self.cluster.requireLeader(self.index)
    let session = Data((0..<16).map { _ in UInt8.random(in: .min ... .max) })
    self.cluster.state.withLock { state in _ = state.sessions.insert(session) }
    return .with { $0.session = session }
  }

  func makeDirectory(
    request: Blocktree_V1_MakeDirectoryRequest, context: ServerContext
  ) async throws -> Blocktree_V1_MakeDirectoryResponse {
    try self.cluster.requireHere(request.path)
    try self.cluster.requireLeader(self.index)
    let info = try await self.makeDirectory(request)
    return .with { $0.info = info }
  }

  private func makeDirectory(_ request: Blocktree_V1_MakeDirectoryRequest) async throws -> Blocktree_V1_FileInfo {
    let info = try self.cluster.apply(request.hasOperation ? request.operation : nil) { state in
      state.lastInode += 1
      let file = TestCluster.File(inode: state.lastInode, bytes: [])
      state.files[request.path] = file
      return TestCluster.info(file, isDirectory: true)
    }
    let dies = self.cluster.state.withLock { state in
      defer { state.diesAfterApplying = false }
      if state.diesAfterApplying { state.leader = state.winner }
      return state.diesAfterApplying
    }
    if dies { try await self.cluster.die(self.index) }
    return info
  }

  func read(
    request: Blocktree_V1_ReadRequest, response: Writer<Blocktree_V1_ReadResponse>, context: ServerContext
  ) async throws {
    try self.cluster.requireHere(request.path)
    try self.cluster.requireLeader(self.index)
    let file = self.file(request.path)
    try await response.write(.with { $0.info = TestCluster.info(file) })
    let start = min(Int(request.offset), file.bytes.count)
    let end = request.length == 0 ? file.bytes.count : min(start + Int(request.length), file.bytes.count)
    for offset in stride(from: start, to: end, by: 64 << 10) {
      try await self.cluster.passed(self.index, byteCount: offset)
      try await response.write(.with { $0.data = Data(file.bytes[offset..<min(offset + 64 << 10, end)]) })
    }
  }

  func write(
    request: Requests<Blocktree_V1_WriteRequest>, context: ServerContext
  ) async throws -> Blocktree_V1_WriteResponse {
    try self.cluster.requireLeader(self.index)
    var header: Blocktree_V1_WriteHeader?
    var bytes: [UInt8] = []
    for try await message in request {
      if message.hasHeader {
        header = message.header
        try self.cluster.requireHere(message.header.path)
      }
      bytes.append(contentsOf: message.data)
      try await self.cluster.passed(self.index, byteCount: bytes.count)
    }
    let (how, content) = (try #require(header), bytes)
    let info = try self.cluster.apply(how.hasOperation ? how.operation : nil) { state in
      state.lastInode += 1
      let file = TestCluster.File(inode: state.lastInode, bytes: content)
      state.files[how.path] = file
      return TestCluster.info(file)
    }
    return .with { $0.info = info }
  }

  func session(
    request: Requests<Blocktree_V1_FilesystemServiceSessionRequest>,
    response: Writer<Blocktree_V1_FilesystemServiceSessionResponse>, context: ServerContext
  ) async throws {
    for try await message in request {
      var results: [Blocktree_V1_FilesystemResult] = []
      for operation in message.operations {
        do throws(Declined) {
          if case .makeDirectory(let request)? = operation.operation { try self.cluster.requireHere(request.path) }
          try self.cluster.requireLeader(self.index)
        } catch {
          let declined = error
          results.append(
            .with {
              $0.id = operation.id
              $0.failure = .with {
                $0.code = Int32(declined.code.rawValue)
                $0.reason = declined.reason
                $0.metadata = declined.metadata
              }
            })
          continue
        }
        guard case .makeDirectory(let request)? = operation.operation else { throw self.unimplemented }
        let info = try await self.makeDirectory(request)
        results.append(
          .with {
            $0.id = operation.id
            $0.info = info
          })
      }
      let answered = results
      try await response.write(.with { $0.results = answered })
    }
  }

  func list(request: Blocktree_V1_ListRequest, context: ServerContext) async throws -> Blocktree_V1_ListResponse {
    try self.cluster.requireHere(request.path)
    return .init()
  }

  func makeSymbolicLink(
    request: Blocktree_V1_MakeSymbolicLinkRequest, context: ServerContext
  ) async throws -> Blocktree_V1_MakeSymbolicLinkResponse { throw self.unimplemented }

  func readSymbolicLink(
    request: Blocktree_V1_ReadSymbolicLinkRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadSymbolicLinkResponse { throw self.unimplemented }

  func makeLink(
    request: Blocktree_V1_MakeLinkRequest, context: ServerContext
  ) async throws -> Blocktree_V1_MakeLinkResponse { throw self.unimplemented }

  func truncate(
    request: Blocktree_V1_TruncateRequest, context: ServerContext
  ) async throws -> Blocktree_V1_TruncateResponse { throw self.unimplemented }

  func rename(
    request: Blocktree_V1_RenameRequest, context: ServerContext
  ) async throws -> Blocktree_V1_RenameResponse {
    try self.cluster.requireHere(request.from)
    try self.cluster.requireHere(request.to)
    try self.cluster.requireLeader(self.index)
    let info = try self.cluster.apply(request.hasOperation ? request.operation : nil) { state in
      state.renames.append("\(request.from) \(request.to)")
      return TestCluster.info(TestCluster.File(inode: 9, bytes: []))
    }
    return .with { $0.info = info }
  }

  func remove(
    request: Blocktree_V1_RemoveRequest, context: ServerContext
  ) async throws -> Blocktree_V1_RemoveResponse { throw self.unimplemented }

  func setAttributes(
    request: Blocktree_V1_SetAttributesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SetAttributesResponse { throw self.unimplemented }

  func cutOff(
    request: Blocktree_V1_CutOffRequest, context: ServerContext
  ) async throws -> Blocktree_V1_CutOffResponse {
    let info = try self.change(
      request.path, "cut off \(request.isCutOff)", request.hasOperation ? request.operation : nil)
    return .with { $0.info = info }
  }

  func grant(request: Blocktree_V1_GrantRequest, context: ServerContext) async throws -> Blocktree_V1_GrantResponse {
    let what = "grant \(request.principal) \(request.permission) \(request.isGroup) \(request.withKey)"
    let info = try self.change(request.path, what, request.hasOperation ? request.operation : nil)
    return .with { $0.info = info }
  }

  func revoke(
    request: Blocktree_V1_RevokeRequest, context: ServerContext
  ) async throws -> Blocktree_V1_RevokeResponse {
    let what = "revoke \(request.principal) \(request.isGroup)"
    let info = try self.change(request.path, what, request.hasOperation ? request.operation : nil)
    return .with { $0.info = info }
  }

  func rekey(request: Blocktree_V1_RekeyRequest, context: ServerContext) async throws -> Blocktree_V1_RekeyResponse {
    let info = try self.change(request.path, "rekey", request.hasOperation ? request.operation : nil)
    return .with {
      $0.info = info
      $0.task = TestCluster.task(.rekey, request.path, .running)
    }
  }

  func drain(request: Blocktree_V1_DrainRequest, context: ServerContext) async throws -> Blocktree_V1_DrainResponse {
    _ = try self.change(request.path, "drain \(request.cancel)", nil)
    return .with { $0.task = TestCluster.task(.drain, request.path, request.cancel ? .cancelled : .running) }
  }

  func listTasks(
    request: Blocktree_V1_ListTasksRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ListTasksResponse {
    try self.cluster.requireLeader(self.index)
    let tasks = self.cluster.state.withLock { state in
      state.askedPaths.append(request.path)
      return state.tasks
    }
    return .with { $0.tasks = tasks }
  }

  /// Notes a change of a file's keys or permissions.
  private func change(
    _ path: String, _ what: String, _ operation: Blocktree_V1_OperationId?
  ) throws(Declined) -> Blocktree_V1_FileInfo {
    try self.cluster.requireHere(path)
    try self.cluster.requireLeader(self.index)
    return try self.cluster.apply(operation) { state in
      state.changes.append("\(path): \(what)\(operation == nil ? "" : ", numbered")")
      return TestCluster.info(TestCluster.File(inode: 9, bytes: []), isDirectory: true)
    }
  }

  func addCredential(
    request: Blocktree_V1_AddCredentialRequest, context: ServerContext
  ) async throws -> Blocktree_V1_AddCredentialResponse {
    let file = try CredentialFile(bytes: Array(request.credential))
    try self.cluster.requireHere(file.marks.place.path.description)
    self.cluster.state.withLock { $0.credentials.append(Array(request.credential)) }
    let root = Data(self.cluster.domain.authority.root.der)
    return .with {
      $0.joinPackage.rootCertificate = root
      $0.joinPackage.credential = request.credential
      $0.joinPackage.directory.generation = 1
      $0.joinPackage.directory.inode = 5
    }
  }
}

/// The discovery service of all members.
struct TestDiscovery: Blocktree_V1_DiscoveryService.SimpleServiceProtocol {
  let cluster: TestCluster

  func find(request: Blocktree_V1_FindRequest, context: ServerContext) async throws -> Blocktree_V1_FindResponse {
    guard let findings = self.cluster.state.withLock({ $0.findings }) else {
      throw RPCError(code: .unimplemented, message: "not in this test")
    }
    return findings(request)
  }

  func readCredential(
    request: Blocktree_V1_ReadCredentialRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReadCredentialResponse { throw RPCError(code: .unimplemented, message: "not here") }

  func listRoutes(
    request: Blocktree_V1_ListRoutesRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ListRoutesResponse { throw RPCError(code: .unimplemented, message: "not here") }
}
