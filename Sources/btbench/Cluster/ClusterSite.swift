// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import BlocktreeSchema
internal import Foundation
internal import GRPCCore
internal import NIOPosix
internal import Node
internal import Transport
internal import Trust

/// A new domain that processes of this machine serve together, as people make it: the first with `btnode init`, each
/// further one with `btnode request`, `btrpc process add` and `btnode join`.
struct ClusterSite: MeasuredCluster {
  static let name = "blocktree"
  /// What is written gets its names in here.
  static let directory = "/bench"

  let members: Members
  private let programs: NodePrograms
  private let home: String

  private static let patience = Duration.seconds(30)
  private static let statusTimeout = Duration.seconds(2)

  /// - Parameter directory: on the disk to be measured; must not exist.
  init(_ count: Int, node: String, tool: String, directory: String) throws {
    self.members = Members(count)
    self.programs = try NodePrograms(node: node, tool: tool, log: "\(directory)/log")
    self.home = directory
  }

  var log: String { self.programs.log }

  private func directory(_ member: Int) -> String { "\(self.home)/node\(member + 1)" }
  private func path(_ member: Int) -> String { "/node\(member + 1)" }
  private var profile: String { "\(self.directory(0))/profile" }

  // MARK: Starting

  func start() async throws {
    try FileManager.default.createDirectory(atPath: self.home, withIntermediateDirectories: true)
    try await self.programs.makeDomain(in: self.directory(0))
    try await self.launch(0)
    for member in self.members.indices.dropFirst() {
      try await self.programs.join(
        self.directory(member), as: self.path(member), services: "sector,filesystem", owner: self.profile)
      try await self.launch(member)
    }
    try await self.settledLeader()
    try await withClient(Profile(contentsOf: self.profile)) { client in
      _ = try await client.makeDirectory(Self.directory)
    }
  }

  private func launch(_ member: Int) async throws {
    let process = try self.members.start(
      member, self.programs.node, ["run", "--dir", self.directory(member)], log: self.log)
    guard let line = try await process.line(within: Self.patience), line.hasPrefix("ready ") else {
      throw BenchFailure("member \(member) did not get ready\(Program.tail(of: self.log))")
    }
  }

  func restart(_ member: Int) async throws {
    try await self.launch(member)
    try await self.settledLeader()
  }

  // MARK: Who leads

  private func address(_ member: Int) throws -> String { try NodePrograms.address(of: self.directory(member)) }

  /// Asks one member, and no other in its place, as a client would.
  private func status(of member: Int) async throws -> Blocktree_V1_ClusterServiceGetStatusResponse {
    let profile = try Profile(contentsOf: self.profile)
    let identity = profile.caller.map {
      TransportSecurity.Identity(chain: $0.credential.chain, key: $0.keys.signing)
    }
    let security = try TransportSecurity(root: profile.root, identity: identity)
    let address = try NetworkAddress(parsing: self.address(member))
    let path = try TreePath(parsing: self.path(member))
    return try await Dialer(security, group: .singletonMultiThreadedEventLoopGroup)
      .withConnection(to: address, expecting: path) { connection in
        var options = CallOptions.defaults
        options.timeout = Self.statusTimeout
        return try await Blocktree_V1_ClusterService.Client(wrapping: connection.client)
          .getStatus(.init(), options: options)
      }
  }

  func leader() async throws -> Int? {
    var leaders: Set<String> = []
    for member in self.members.indices {
      guard let status = try? await self.status(of: member), status.members.count == self.members.indices.count,
        status.members.allSatisfy({ $0.vote == .voter })
      else { return nil }
      leaders.insert(status.leader.process)
    }
    return leaders.count == 1 ? self.members.indices.first { leaders.contains(self.path($0)) } : nil
  }

  func views() async -> String {
    var views: [String] = []
    for member in self.members.indices {
      do {
        let status = try await self.status(of: member)
        let members = status.members.map { "\($0.process) \($0.vote)" }.joined(separator: ", ")
        views.append(
          "\(self.path(member)): \(status.role) in term \(status.term), leader \(status.leader.process), "
            + "applied \(status.appliedIndex) of \(status.lastLogIndex), \(members)")
      } catch {
        views.append("\(self.path(member)): \(error)")
      }
    }
    return views.joined(separator: "\n")
  }

  // MARK: Files

  /// Calls `body` with a client that begins at the leader.
  func withFiles(_ leader: Int, _ scale: Scale, _ body: (FileLoads) async throws -> Void) async throws {
    let profile = try Profile(contentsOf: self.profile).starting(from: [self.address(leader)])
    try await withClient(profile) { client in
      try await body(FileLoads(client: client, directory: Self.directory, scale: scale))
    }
  }

  /// As if the disk of a member that is not running had been lost.
  func removeStore(of member: Int) throws {
    try FileManager.default.removeItem(atPath: "\(self.directory(member))/generation-1")
  }

  // MARK: Loads

  /// Each program of a load writes itself what it reads.
  func fill() async throws {}

  func program(for order: LoadOrder, leader: Int, start: Int64) -> (executable: String, arguments: [String]) {
    let first = order.operation == .gap ? 0 : leader
    let addresses = self.members.indices.map { (first + $0) % self.members.indices.count }
      .compactMap { try? self.address($0) }
    return (
      "\(BTBench.programDirectory)/btbench",
      [
        "cluster-load", "--profile", self.profile, "--addresses", addresses.joined(separator: ","), "--operation",
        order.operation.rawValue, "--in-flight", "\(order.inFlight)", "--connections",
        "\(min(order.layout.connections, order.inFlight))", "--milliseconds", "\(order.milliseconds)", "--at",
        "\(start)",
      ]
    )
  }
}
