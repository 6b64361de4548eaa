// SPDX-License-Identifier: Apache-2.0

public import BlocktreeSchema
internal import GRPCCore
internal import NIOPosix
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// How a cluster is: what its leader says, and what each member says of itself.
public struct ClusterOverview: Sendable {
  /// A member as the membership names it, and what it answered.
  public struct Member: Sendable {
    public let member: Blocktree_V1_ClusterMember
    /// What it says of itself, or why it could not be asked.
    public let own: Result<Blocktree_V1_ClusterServiceGetStatusResponse, BlocktreeError>

    package init(
      _ member: Blocktree_V1_ClusterMember, own: Result<Blocktree_V1_ClusterServiceGetStatusResponse, BlocktreeError>
    ) {
      self.member = member
      self.own = own
    }
  }

  /// What the leader says; if none could be reached, what the member with the latest term says, which knows nothing of
  /// how far the others are.
  public let view: Blocktree_V1_ClusterServiceGetStatusResponse
  /// In the order of the view; at most 64.
  public let members: [Member]

  package init(view: Blocktree_V1_ClusterServiceGetStatusResponse, members: [Member]) {
    self.view = view
    self.members = members
  }

  /// Whether the view is a leader's.
  public var hasLeader: Bool { self.view.role == .leader }
}

/// The calls of the cluster service, for those who operate a cluster. Its messages are those of the schema.
public struct ClusterClient: Sendable {
  let client: Client
  let cluster: ClusterCore
  /// For each operation.
  public var timeout: Duration?

  var core: ClientCore { self.client.core }

  /// How long one member may take to be reached and to answer, when all are asked.
  public static let memberTimeout = Duration.seconds(2)
  /// Members that are taken from one answer, and addresses of each: as many as the schema allows.
  private static let memberCountMax = 64
  static let addressCountMax = 16

  /// How the cluster is, as the process that answers sees it: whichever is reached first.
  public func status() async throws -> Blocktree_V1_ClusterServiceGetStatusResponse {
    let status = try await self.cluster.call(timeout: self.timeout) { connection, options in
      try await connection.cluster.getStatus(.init(), options: options)
    }
    try Self.check(status)
    return status
  }

  /// Asks whichever process is reached, and then each member itself. One that does not answer within
  /// ``memberTimeout`` costs no more than that.
  ///
  /// - Throws: when no process answers at all.
  public func overview() async throws -> ClusterOverview {
    let first = try await self.status()
    var answers: [UInt64: Result<Blocktree_V1_ClusterServiceGetStatusResponse, BlocktreeError>] = [
      first.member: .success(first)
    ]
    var leader = Blocktree_V1_ClusterMember()
    leader.member = first.leader.member
    leader.process = first.leader.process
    leader.addresses = first.leader.addresses
    let others = first.members.filter { $0.member != leader.member } + (first.hasLeader ? [leader] : [])
    await self.ask(others, into: &answers)
    let view = Self.view(of: answers) ?? first
    // The first one may have been far behind.
    await self.ask(view.members, into: &answers)
    let unreachable = BlocktreeError(code: .unavailable, reason: .peerUnreachable, message: "It was not asked.")
    return ClusterOverview(
      view: view,
      members: view.members.map { .init($0, own: answers[$0.member] ?? .failure(unreachable)) })
  }

  /// Hands leadership over. It is repeated when its answer was lost, if it names a process.
  ///
  /// - Parameter path: the process that is to lead; nil for the voter that is furthest.
  /// - Returns: who leads now, and in which term.
  /// - Throws: with the reason ``BlocktreeError/Reason/transferFailed`` when nobody took over; metadata: `cause`, which
  ///   is `UNDER_WAY`, `UNFIT`, `TIMEOUT` or `LEADERSHIP_LOST`.
  public func transferLeadership(to path: String? = nil) async throws -> Blocktree_V1_TransferLeadershipResponse {
    var request = Blocktree_V1_TransferLeadershipRequest()
    if let path { request.to = try self.client.treePath(path) }
    let message = request
    return try await self.cluster.call(timeout: self.timeout, isRepeatable: { path != nil }) { connection, options in
      try await connection.cluster.transferLeadership(message, options: options)
    }
  }

  // MARK: Members

  typealias Answer = Result<Blocktree_V1_ClusterServiceGetStatusResponse, BlocktreeError>

  static func check(_ status: Blocktree_V1_ClusterServiceGetStatusResponse) throws(BlocktreeError) {
    guard status.member != 0 else { throw .malformedAnswer("member") }
    guard status.members.count <= Self.memberCountMax else { throw .malformedAnswer("members") }
  }

  /// The leader's of the latest term, or else the latest.
  private static func view(of answers: [UInt64: Answer]) -> Blocktree_V1_ClusterServiceGetStatusResponse? {
    let known = answers.values.compactMap { try? $0.get() }
    func rank(_ status: Blocktree_V1_ClusterServiceGetStatusResponse) -> (UInt64, Int, UInt64, UInt64) {
      // Whoever leads in a life that is over does not count.
      (status.incarnation, status.role == .leader ? 1 : 0, status.term, status.lastLogIndex)
    }
    return known.max { rank($0) < rank($1) }
  }

  /// Asks members, all at once.
  ///
  /// - Parameter first: what one of them has said already.
  func ask(
    _ members: [Blocktree_V1_ClusterMember], knowing first: Blocktree_V1_ClusterServiceGetStatusResponse
  ) async -> [UInt64: Answer] {
    var answers: [UInt64: Answer] = [first.member: .success(first)]
    await self.ask(members, into: &answers)
    return answers
  }

  /// Asks those that have not been asked yet, all at once.
  private func ask(_ members: [Blocktree_V1_ClusterMember], into answers: inout [UInt64: Answer]) async {
    let dialer: Dialer
    do throws(BlocktreeError) { dialer = try self.dialer() } catch {
      for member in members where answers[member.member] == nil { answers[member.member] = .failure(error) }
      return
    }
    await withTaskGroup(of: (UInt64, Answer).self) { tasks in
      var asked = Set(answers.keys)
      for member in members where asked.insert(member.member).inserted {
        tasks.addTask { (member.member, await self.ask(member, dialer)) }
      }
      for await (member, answer) in tasks { answers[member] = answer }
    }
  }

  /// Connections of their own: this client's lead to the process that serves it.
  func dialer() throws(BlocktreeError) -> Dialer {
    let profile = self.core.profile
    let identity = profile.caller.map {
      TransportSecurity.Identity(chain: $0.credential.chain, key: $0.keys.signing)
    }
    var limits = TransportLimits()
    limits.connectTimeout = Self.memberTimeout
    limits.handshakeTimeout = Self.memberTimeout
    do {
      return Dialer(
        try TransportSecurity(root: profile.root, identity: identity), group: MultiThreadedEventLoopGroup.singleton,
        limits: limits)
    } catch {
      throw BlocktreeError(error)
    }
  }

  private func ask(_ member: Blocktree_V1_ClusterMember, _ dialer: Dialer) async -> Answer {
    let timeout = min(self.timeout ?? Self.memberTimeout, Self.memberTimeout)
    let answer = await withTaskGroup(of: Answer?.self) { tasks in
      tasks.addTask { await Self.ask(member, dialer, timeout: timeout) }
      tasks.addTask {
        try? await Task.sleep(for: timeout)
        return nil
      }
      defer { tasks.cancelAll() }
      return await tasks.next() ?? nil
    }
    return answer ?? .failure(.deadlineExceeded)
  }

  private static func ask(_ member: Blocktree_V1_ClusterMember, _ dialer: Dialer, timeout: Duration) async -> Answer {
    var error = BlocktreeError(
      code: .unavailable, reason: .peerUnreachable, message: "No address of the process is known.", retry: .never)
    guard let path = try? TreePath(parsing: member.process) else { return .failure(error) }
    var options = CallOptions.defaults
    options.timeout = timeout
    for text in member.addresses.prefix(Self.addressCountMax) {
      guard !Task.isCancelled, let address = try? NetworkAddress(parsing: text) else { continue }
      do {
        let status = try await dialer.withConnection(to: address, expecting: path) { connection in
          try await connection.cluster.getStatus(.init(), options: options)
        }
        try Self.check(status)
        // A new store at the same address is another member.
        guard status.member == member.member else {
          throw BlocktreeError(
            code: .failedPrecondition, reason: .wrongMember, message: "The process has another store now.",
            metadata: ["member": "\(status.member)"])
        }
        return .success(status)
      } catch let thrown {
        guard let thrown = try? BlocktreeError(thrown: thrown) else { return .failure(.deadlineExceeded) }
        error = thrown
      }
    }
    return .failure(error)
  }
}

extension BlocktreeError.Reason {
  /// Leadership was not handed over. Metadata: `cause`.
  public static let transferFailed = BlocktreeError.Reason(rawValue: "TRANSFER_FAILED")
  /// The process is another member of its cluster than was meant.
  public static let wrongMember = BlocktreeError.Reason(rawValue: "WRONG_MEMBER")
}

extension NodeConnection {
  var cluster: some Blocktree_V1_ClusterService.ClientProtocol {
    Blocktree_V1_ClusterService.Client(wrapping: self.client)
  }
}

extension Client {
  /// The cluster service's calls, at the cluster of the profile's first process.
  public var cluster: ClusterClient {
    ClusterClient(client: self, cluster: self.core.home, timeout: self.timeout)
  }

  /// The cluster service's calls, at the cluster that serves a directory: the processes with the sector mark that are
  /// nearest at or above it.
  public func cluster(serving path: String) async throws -> ClusterClient {
    guard let directory = try? TreePath(parsing: try self.treePath(path)) else {
      throw BlocktreeError.invalidPath("malformed", path: path)
    }
    let (cluster, _) = try await self.sectorCluster(serving: directory)
    return ClusterClient(client: self, cluster: cluster, timeout: self.timeout)
  }

  /// The processes that store what is created in a directory, and the directory that they are in.
  func sectorCluster(serving directory: TreePath) async throws -> (ClusterCore, TreePath) {
    // Not from memory: the directory may have been handed to its own cluster meanwhile.
    let found = try await self.find(.nearest, service: "sector", scope: "\(directory)", refresh: true).found
    guard let place = found.directory.flatMap({ try? TreePath(parsing: $0) }), !found.processes.isEmpty else {
      throw BlocktreeError(
        code: .notFound, reason: .notFound, message: "No process stores what is in the directory.",
        metadata: ["path": "\(directory)"])
    }
    let cluster = ClusterCore(place, [], self.core.shared)
    for process in found.processes {
      guard let path = try? TreePath(parsing: process.path) else { continue }
      cluster.learn(
        ProcessHint(path: path, addresses: process.addresses.compactMap { try? NetworkAddress(parsing: $0) }))
    }
    return (cluster, place)
  }
}
