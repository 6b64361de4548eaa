// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import GRPCCore
import NIOPosix
import Node
import Synchronization
import Testing
import Transport
import Trust

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A domain of its own and the processes that serve it, each a real `btnode`; and what can happen to them.
///
/// Members are counted from 0; member 0 is `/node1`. One that was removed keeps its number, and nobody else gets it. They
/// are killed when nobody holds this any more.
final class TestCluster: Sendable {
  /// How the members reach each other.
  enum Network: Sendable {
    /// At an address of the loopback interface that nobody else has. Nothing can be cut.
    case loopback
    /// In a network namespace for each.
    case namespaces
  }

  /// For whatever is waited for. Generous: nothing waits for it when all is well.
  static let patience = Duration.seconds(60)
  /// How long one question about a member's status may take.
  private static let statusTimeout = Duration.seconds(2)

  private let scratch: Scratch
  private let namespaces: Namespaces?
  private let disks: [Int: TestDisk]
  private let state = Mutex(State())

  private struct State {
    /// Those that belong to the cluster.
    var members: [Int] = []
    /// How many there have ever been.
    var madeCount = 0
    var processes: [Int: NodeProcess] = [:]
    /// `host:port` of each member, once it is known.
    var addresses: [Int: String] = [:]
    var paused: Set<Int> = []
    /// Of those that do not lie in the root directory, by the directory that they lie in.
    var sites: [String: [Int]] = [:]
    /// Their paths.
    var paths: [Int: String] = [:]
  }

  /// Whether the members say what they have done: see ``metric(_:of:)``.
  private let hasMetrics: Bool

  private init(scratch: Scratch, namespaces: Namespaces?, disks: [Int: TestDisk], hasMetrics: Bool) {
    self.scratch = scratch
    self.namespaces = namespaces
    self.disks = disks
    self.hasMetrics = hasMetrics
  }

  // MARK: From beginning to end

  /// Makes a cluster whose members all serve, and calls `body`. Then stops those that run, each of which has to end
  /// with status 0, and removes everything. Fails, too, when a member has met a fault of its own.
  ///
  /// - Parameters:
  ///   - network: in namespaces, no more than `spare` processes can be added later.
  ///   - disks: the members that have a disk of their own, and how many bytes are on it.
  ///   - metrics: whether the members say what they have done.
  static func with<Result>(
    _ count: Int = 1, on network: Network = .loopback, spare: Int = 0, disks: [Int: Int] = [:], metrics: Bool = false,
    _ body: (TestCluster) async throws -> Result
  ) async throws -> Result {
    let scratch = try Scratch()
    let toolsLog = "\(scratch.path)/tools.log"
    let made = try await TestDisk.make(disks, in: scratch.path, log: toolsLog)
    do {
      let namespaces: Namespaces? =
        switch network {
        case .loopback: nil
        case .namespaces: try await Namespaces.make(count + spare, log: toolsLog)
        }
      let cluster = TestCluster(scratch: scratch, namespaces: namespaces, disks: made, hasMetrics: metrics)
      let result = await cluster.run(count, body)
      await namespaces?.remove()
      for disk in made.values { await disk.remove() }
      return try result.get()
    } catch {
      for disk in made.values { await disk.remove() }
      throw error
    }
  }

  private func run<Success>(
    _ count: Int, _ body: (TestCluster) async throws -> Success
  ) async -> Result<Success, any Error> {
    do {
      try await self.make(count)
      let result = try await body(self)
      try await self.end()
      return .success(result)
    } catch {
      // Whoever waits for a disk that is frozen can not be killed.
      for disk in self.disks.values { await disk.thaw() }
      for member in 0..<self.state.withLock({ $0.madeCount }) {
        print("The log of member \(member) ends with:\(LogFile.tail(of: self.log(member), lines: 30))")
        await self.kill(member)
      }
      return .failure(error)
    }
  }

  /// The names in the tree of those in the root directory.
  static func path(_ member: Int) -> String { "/node\(member + 1)" }

  func path(of member: Int) -> String { self.state.withLock { $0.paths[member] } ?? Self.path(member) }

  func directory(_ member: Int) -> String {
    self.disks[member].map { "\($0.path)/node" } ?? "\(self.scratch.path)/node\(member + 1)"
  }

  private func log(_ member: Int) -> String { "\(self.scratch.path)/node\(member + 1).log" }
  /// The owner's, which programs on the command line use. They keep the list of processes in it.
  var profileDirectory: String { "\(self.directory(0))/profile" }
  private var toolsLog: String { "\(self.scratch.path)/tools.log" }

  /// The owner's, with the addresses of all members.
  var profile: Profile {
    get throws {
      let addresses = self.state.withLock { state in state.members.compactMap { state.addresses[$0] } }
      return try Profile(contentsOf: self.profileDirectory).starting(from: addresses)
    }
  }

  /// The owner's, knowing one member only.
  func profile(startingFrom member: Int) throws -> Profile {
    let address = try #require(self.state.withLock { $0.addresses[member] })
    return try Profile(contentsOf: self.profileDirectory).starting(from: [address])
  }

  /// Calls `body` with a client of the owner.
  func withClient<Result>(_ body: (Client) async throws -> Result) async throws -> Result {
    try await BlocktreeClient.withClient(self.profile, body)
  }

  /// Runs `btrpc` with the owner's profile, as a user does. It has to succeed.
  ///
  /// - Returns: the lines that it printed.
  @discardableResult
  func btrpc(_ arguments: String...) async throws -> [String] {
    try await Command.run(
      Installed.product("btrpc"), arguments + ["--profile", self.profileDirectory], log: self.toolsLog)
  }

  /// Runs `btnode`. It has to end, and to succeed.
  @discardableResult
  private func btnode(_ arguments: String...) async throws -> [String] {
    try await Command.run(Installed.product("btnode"), arguments, log: self.toolsLog)
  }

  private func make(_ count: Int) async throws {
    let first = self.nextMember()
    try await self.btnode("init", "--dir", self.directory(first), "--listen", self.listenAddress(first))
    try self.learnAddress(first)
    self.state.withLock { $0.members.append(first) }
    try await self.start(first)
    for _ in 1..<max(count, 1) { try await self.add() }
    try await self.settle()
  }

  private func nextMember() -> Int {
    self.state.withLock { state in
      defer { state.madeCount += 1 }
      return state.madeCount
    }
  }

  /// Adds a process as a user does, and waits until it serves. It votes some time later: see ``settle()``.
  ///
  /// - Parameter moves: whether it listens somewhere else than its credential says.
  @discardableResult
  func add(moves: Bool = false) async throws -> Int {
    let member = try await self.enroll()
    self.state.withLock { $0.members.append(member) }
    try await self.start(member, listeningOn: moves ? self.newAddress(member) : nil)
    return member
  }

  /// Starts a member that does not run at an address that nobody knows, and waits until it says that it is ready.
  ///
  /// - Returns: the address.
  func startElsewhere(_ member: Int) async throws -> String {
    let address = self.newAddress(member)
    try await self.start(member, listeningOn: address)
    return address
  }

  /// One with a port, so that it stays the same when the member begins again with another store. It is free, as no other
  /// test has the address.
  private func newAddress(_ member: Int) -> String {
    self.listenAddress(member).split(separator: ":")[0] + ":\(UInt16.random(in: 10_000...29_999))"
  }

  /// Gives one more process its keys and its credential. It does not run, and is not counted among the members.
  ///
  /// - Parameters:
  ///   - directory: where its credential is to lie, if not in the root directory.
  ///   - services: its marks.
  func enroll(in directory: String? = nil, services: String = "sector,filesystem") async throws -> Int {
    let member = self.nextMember()
    if let directory { self.state.withLock { $0.paths[member] = "\(directory)/nas\(member)" } }
    let (request, package) = ("\(self.scratch.path)/request-\(member)", "\(self.scratch.path)/package-\(member)")
    let lines = try await self.btnode(
      "request", "--dir", self.directory(member), "--listen", self.listenAddress(member))
    try lines.joined(separator: "\n").appending("\n").write(toFile: request, atomically: true, encoding: .utf8)
    try await self.btrpc(
      "process", "add", self.path(of: member), "--services", services, "--request", request, "--output",
      package)
    try await self.btnode("join", "--dir", self.directory(member), "--credential", package)
    try self.learnAddress(member)
    return member
  }

  /// Adds processes to a directory as a user does, and waits until they serve it.
  ///
  /// - Parameter services: their marks.
  /// - Returns: all that are there.
  @discardableResult
  func add(_ count: Int, to directory: String, services: String = "sector,filesystem") async throws -> [Int] {
    for _ in 0..<count {
      let member = try await self.enroll(in: directory, services: services)
      self.state.withLock { $0.sites[directory, default: []].append(member) }
      try await self.start(member)
    }
    try await self.settle(directory)
    return self.site(directory)
  }

  /// Adds a process that stores nothing and has the filesystem mark, and waits until it serves.
  ///
  /// - Parameter directory: where its credential is to lie, if not in the root directory.
  func addGateway(to directory: String? = nil) async throws -> Int {
    let member = try await self.enroll(in: directory, services: "filesystem")
    try await self.start(member)
    return member
  }

  /// Adds a person as a user does.
  ///
  /// - Returns: their profile, with the addresses of all processes that were made so far.
  func addUser(_ path: String) async throws -> Profile {
    let directory =
      "\(self.scratch.path)/profile-\(self.state.withLock { $0.madeCount })-\(UInt32.random(in: 0 ... .max))"
    try await self.btrpc("user", "add", path, "--create-profile", directory)
    let addresses = self.state.withLock { state in state.addresses.sorted { $0.key < $1.key }.map(\.value) }
    return try Profile(contentsOf: directory).starting(from: addresses)
  }

  /// A profile that knows these members only.
  func profile(_ profile: Profile, startingFrom members: [Int]) throws -> Profile {
    try profile.starting(from: self.state.withLock { state in members.compactMap { state.addresses[$0] } })
  }

  /// Those that lie in a directory, running or not.
  func site(_ directory: String) -> [Int] { self.state.withLock { $0.sites[directory] ?? [] } }

  /// A process belongs to no directory any more; it may run.
  func forget(_ member: Int) {
    self.state.withLock { state in
      for directory in state.sites.keys { state.sites[directory]?.removeAll { $0 == member } }
    }
  }

  /// Waits until all processes of a directory vote, and know the same leader in the same term.
  func settle(_ directory: String) async throws { try await self.settle(self.site(directory)) }

  /// Removes a process as a user does: takes its credential away, waits until the others go on without it, and stops it
  /// if it runs.
  func remove(_ member: Int) async throws {
    try await self.btrpc("process", "remove", Self.path(member))
    self.state.withLock { $0.members.removeAll { $0 == member } }
    try await self.settle()
    if self.isRunning(member) { try await self.stop(member) }
  }

  /// Has the cluster go on from a backup, at a process that has its credential and nothing else; see ``enroll()``. No other
  /// process may run. That one is the only member then.
  func restore(_ backup: String, at member: Int) async throws {
    guard self.members.allSatisfy({ !self.isRunning($0) }) else { throw ClusterFailure("a member runs") }
    try await self.btnode("restore", "--dir", self.directory(member), "--backup", backup)
    self.state.withLock { $0.members = [member] }
    try await self.start(member)
  }

  /// The same for the cluster of a directory, in which this process then is, too.
  func restore(_ backup: String, at member: Int, serving directory: String, rootKey: String) async throws {
    guard self.site(directory).allSatisfy({ !self.isRunning($0) }) else { throw ClusterFailure("a member runs") }
    try await self.btnode("restore", "--dir", self.directory(member), "--backup", backup, "--root-key", rootKey)
    self.state.withLock { $0.sites[directory, default: []].append(member) }
    try await self.start(member)
  }

  private func end() async throws {
    let made = 0..<self.state.withLock { $0.madeCount }
    for member in made where self.isRunning(member) {
      self.resume(member)
      try await self.stop(member)
    }
    for member in made {
      let text = (try? String(contentsOfFile: self.log(member), encoding: .utf8)) ?? ""
      let faults = text.split(separator: "\n").filter { $0.contains("fault in a call") }
      #expect(faults.isEmpty, "member \(member): \(faults.joined(separator: "\n"))")
    }
  }

  /// Port 0 of the loopback interface: 'btnode' chooses one, and it stays free, as no other test has the address.
  private func listenAddress(_ member: Int) -> String {
    if let namespaces { return "\(namespaces.address(of: member)):7777" }
    let host = (0..<3).map { _ in "\(UInt8.random(in: 1...254))" }.joined(separator: ".")
    return "127.\(host):0"
  }

  /// What the member's description says, which holds the port that was chosen.
  private func learnAddress(_ member: Int) throws {
    struct Description: Decodable { let listen: String }
    let file = URL(filePath: "\(self.directory(member))/node.json")
    let description = try JSONDecoder().decode(Description.self, from: Data(contentsOf: file))
    self.state.withLock { $0.addresses[member] = description.listen }
  }

  // MARK: What can happen to members

  /// Those that belong to the cluster, running or not.
  var members: [Int] { self.state.withLock { $0.members } }
  var count: Int { self.members.count }

  func isRunning(_ member: Int) -> Bool { self.process(member).map { $0.pollEnd() == nil } ?? false }

  private func process(_ member: Int) -> NodeProcess? { self.state.withLock { $0.processes[member] } }

  func pid(of member: Int) -> Int32? { self.process(member)?.pid }

  /// Starts a member that does not run, and waits until it says that it is ready.
  ///
  /// - Parameter address: where to listen, if not where its description says.
  func start(_ member: Int, listeningOn address: String? = nil) async throws {
    guard !self.isRunning(member) else { throw ClusterFailure("member \(member) runs already") }
    let btnode = try Installed.product("btnode")
    let arguments = ["run", "--dir", self.directory(member)] + (address.map { ["--listen", $0] } ?? [])
    let (executable, all) =
      self.namespaces?.command(of: member, btnode, arguments) ?? (btnode, arguments)
    let settings = self.hasMetrics ? ["BLOCKTREE_METRICS_LISTEN=\(try self.host(of: member)):\(Self.metricsPort)"] : []
    let process = try NodeProcess(
      executable, all, environment: Command.environment + settings, log: self.log(member))
    self.state.withLock { $0.processes[member] = process }
    let line = try await process.line(within: Self.patience)
    guard line?.hasPrefix("ready ") == true else {
      throw ClusterFailure("member \(member) did not get ready\(LogFile.tail(of: self.log(member)))")
    }
    if let address { self.state.withLock { $0.addresses[member] = address } }
  }

  /// SIGTERM: the member finishes what it has promised. It has to end with status 0.
  func stop(_ member: Int) async throws {
    guard let process = self.process(member) else { throw ClusterFailure("member \(member) never ran") }
    process.signal(SIGTERM)
    let end = try await process.end(within: Self.patience)
    guard end == .exited(0) else {
      throw ClusterFailure("member \(member) should have stopped: \(String(describing: end))")
    }
  }

  /// SIGKILL, whatever state the member is in; returns when it is gone.
  func kill(_ member: Int) async {
    guard let process = self.process(member) else { return }
    process.signal(SIGKILL)
    _ = try? await process.end(within: Self.patience)
    _ = self.state.withLock { $0.paused.remove(member) }
  }

  /// SIGSTOP: connections stay open, and nothing is answered.
  func pause(_ member: Int) {
    self.process(member)?.signal(SIGSTOP)
    _ = self.state.withLock { $0.paused.insert(member) }
  }

  func resume(_ member: Int) {
    guard self.state.withLock({ $0.paused.remove(member) }) != nil else { return }
    self.process(member)?.signal(SIGCONT)
  }

  // MARK: What can happen to disks

  /// The disk that a member has for itself.
  func disk(of member: Int) throws -> TestDisk {
    guard let disk = self.disks[member] else { throw ClusterFailure("member \(member) has no disk of its own") }
    return disk
  }

  // MARK: What can happen to the network

  /// Cuts a member off from the others, both ways.
  ///
  /// - Parameter clients: whether from the clients, too.
  func isolate(_ member: Int, fromClients clients: Bool) async throws {
    var others = self.members.filter { $0 != member }.map { Namespaces.Party.member($0) }
    if clients { others.append(.clients) }
    try await self.cut(Set(others.flatMap { Self.bothWays(.member(member), $0) }))
  }

  /// Cuts two members off from each other; both still reach the rest.
  func separate(_ one: Int, _ other: Int) async throws {
    try await self.cut(Set(Self.bothWays(.member(one), .member(other))))
  }

  /// Nothing that a member sends gets to the others; what they send gets to it.
  func mute(_ member: Int) async throws {
    let others = self.members.filter { $0 != member }
    try await self.cut(Set(others.map { Namespaces.Cut(sender: .member(member), receiver: .member($0)) }))
  }

  /// Nothing that the others send gets to a member; what it sends gets to them.
  func deafen(_ member: Int) async throws {
    let others = self.members.filter { $0 != member }
    try await self.cut(Set(others.map { Namespaces.Cut(sender: .member($0), receiver: .member(member)) }))
  }

  /// Nobody makes a new connection to a member any more, but clients.
  func keepNewConnections(from others: [Int], to member: Int) async throws {
    try await self.cut(
      Set(
        others.map {
          Namespaces.Cut(sender: .member($0), receiver: .member(member), sparesOpenConnections: true)
        }))
  }

  /// Cuts the processes of a directory off from those above, both ways. Clients reach all.
  func cutOff(_ directory: String) async throws {
    let site = self.site(directory)
    let cuts = site.flatMap { one in self.members.flatMap { Self.bothWays(.member(one), .member($0)) } }
    try await self.cut(Set(cuts))
  }

  func heal() async throws { try await self.network.heal() }

  private func cut(_ cuts: Set<Namespaces.Cut>) async throws { try await self.network.cut(cuts) }

  private var network: Namespaces {
    get throws {
      guard let namespaces else { throw ClusterFailure("the loopback interface can not be cut") }
      return namespaces
    }
  }

  private static func bothWays(_ one: Namespaces.Party, _ other: Namespaces.Party) -> [Namespaces.Cut] {
    [Namespaces.Cut(sender: one, receiver: other), Namespaces.Cut(sender: other, receiver: one)]
  }

  // MARK: What members say

  /// Free, as no other member and no other test has the address.
  private static let metricsPort = 9_464

  func networkAddress(of member: Int) throws -> NetworkAddress {
    try NetworkAddress(parsing: try #require(self.state.withLock { $0.addresses[member] }))
  }

  private func host(of member: Int) throws -> String {
    let address = try #require(self.state.withLock { $0.addresses[member] })
    return String(address.split(separator: ":")[0])
  }

  /// The sum of what a member tells under this name, in samples that have all of these labels.
  func metric(_ name: String, of member: Int, _ labels: [String: String] = [:]) async throws -> Double {
    let page = try await MetricsPage.read(from: try self.host(of: member), port: Self.metricsPort)
    return page.sum(of: name, labels)
  }

  /// Asks this member, and no other one in its place.
  func status(of member: Int) async throws -> Blocktree_V1_ClusterServiceGetStatusResponse {
    let profile = try Profile(contentsOf: self.profileDirectory)
    let identity = profile.caller.map {
      TransportSecurity.Identity(chain: $0.credential.chain, key: $0.keys.signing)
    }
    let security = try TransportSecurity(root: profile.root, identity: identity)
    let address = try NetworkAddress(parsing: self.state.withLock { $0.addresses[member] } ?? "")
    return try await Dialer(security, group: .singletonMultiThreadedEventLoopGroup)
      .withConnection(to: address, expecting: TreePath(parsing: self.path(of: member))) { connection in
        var options = CallOptions.defaults
        options.timeout = Self.statusTimeout
        return try await Blocktree_V1_ClusterService.Client(wrapping: connection.client)
          .getStatus(.init(), options: options)
      }
  }

  /// What a member does in its term; nil when it does not answer.
  func role(of member: Int) async -> Blocktree_V1_ClusterRole? {
    guard self.isRunning(member), !self.state.withLock({ $0.paused.contains(member) }) else { return nil }
    return try? await self.status(of: member).role
  }

  /// Waits until all members vote, and know the same leader in the same term.
  func settle() async throws { try await self.settle(self.members) }

  private func settle(_ members: [Int]) async throws {
    var views: [String] = []
    do {
      try await eventually("all members vote and know the same leader, and nobody else is a member") {
        views = []
        var leaders: Set<String> = []
        var (voterCount, memberCount) = (0, 0)
        for member in members {
          do {
            let status = try await self.status(of: member)
            voterCount += status.members.count { $0.vote == .voter }
            memberCount += status.members.count
            let leader = "\(status.leader.process) in term \(status.term)"
            if !status.leader.process.isEmpty { leaders.insert(leader) }
            let others = status.members.map { "\($0.process) \($0.vote)" }.joined(separator: ", ")
            views.append("member \(member): leader \(leader), applied \(status.appliedIndex), \(others)")
          } catch {
            views.append("member \(member): \(error)")
            return false
          }
        }
        let expected = members.count * members.count
        return leaders.count == 1 && voterCount == expected && memberCount == expected
      }
    } catch let failure as ClusterFailure {
      throw ClusterFailure(([failure.description] + views).joined(separator: "\n"))
    }
  }

  /// The member that leads, once there is one. Those in `except` are not asked: one that can not know that it was
  /// replaced may still say so.
  func leader(except: Set<Int> = [], of directory: String? = nil) async throws -> Int {
    var leader: Int?
    try await eventually("a member leads") {
      for member in directory.map(self.site) ?? self.members where !except.contains(member) {
        if await self.role(of: member) == .leader {
          leader = member
          return true
        }
      }
      return false
    }
    return try #require(leader)
  }

  /// Has this member lead.
  func transferLeadership(to member: Int) async throws {
    try await eventually("member \(member) leads") {
      if await self.role(of: member) == .leader { return true }
      // It may be refused, for one moment or another.
      _ = try? await self.withClient { try await $0.cluster.transferLeadership(to: Self.path(member)) }
      return false
    }
  }

  /// Expects all members to come to the same place in the log, once nobody writes any more.
  func expectAllApplied() async throws {
    try await eventually("all members have applied the same") {
      var indexes: Set<UInt64> = []
      for member in self.members {
        guard let status = try? await self.status(of: member) else { return false }
        indexes.insert(status.appliedIndex)
      }
      return indexes.count == 1
    }
  }
}
