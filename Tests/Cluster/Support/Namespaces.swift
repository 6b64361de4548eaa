// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A network namespace for each member, with an address of its own, all on one bridge. These tests, which are the
/// clients, stand where the bridge is. Packets are dropped by nftables inside of the members' namespaces only; nothing
/// that other programs of this machine use is touched.
///
/// Names hold the number of this process: several may run at once, and what one left behind that was killed is found
/// and removed by the next.
final class Namespaces: Sendable {
  /// Whoever sends or receives: a member by its index, or all clients together.
  enum Party: Hashable, Sendable {
    case member(Int)
    case clients
  }

  /// Nothing gets from one to the other any more. The way back is another cut.
  struct Cut: Hashable, Sendable {
    let sender: Party
    let receiver: Party
    /// Connections that are open go on: only new ones are not made.
    var sparesOpenConnections = false
  }

  private struct Tools {
    let ip: String
    let nft: String
    let nsenter: String

    init() throws {
      func find(_ name: String, package: String) throws -> String {
        guard let path = Installed.tool(name) else {
          throw ClusterFailure("\(name) is not installed (Debian package \(package))")
        }
        return path
      }
      self.ip = try find("ip", package: "iproute2")
      self.nft = try find("nft", package: "nftables")
      self.nsenter = try find("nsenter", package: "util-linux")
    }
  }

  static let membersMax = 12

  private let tools: Tools
  /// Distinguishes the networks of this process.
  private let number: Int
  /// The third byte and the last bit of the second one, of 198.18.0.0/15, which RFC 2544 keeps free for tests.
  private let block: Int
  private let count: Int
  private let log: String
  private let cuts = Mutex<Set<Cut>>([])

  private static let made = Atomic(0)
  /// Interfaces' names have 15 bytes at most.
  private static let prefix = "bt"

  private var stem: String { "\(Self.prefix)\(getpid())x\(self.number)" }
  private var bridge: String { "\(self.stem)b" }
  private func name(_ member: Int) -> String { "\(self.stem)m\(member)" }

  /// Of the clients, and of the bridge.
  var clientAddress: String { self.address(1) }
  func address(of member: Int) -> String { self.address(11 + member) }

  private func address(_ host: Int) -> String { "\(self.network).\(host)" }
  private var network: String { "198.\(18 + self.block / 256).\(self.block % 256)" }

  private init(_ count: Int, tools: Tools, block: Int, log: String) {
    self.count = count
    self.tools = tools
    self.number = Self.made.add(1, ordering: .relaxed).oldValue % 36
    self.block = block
    self.log = log
  }

  // MARK: Whether there can be any

  /// Why none can be made here; nil when they can.
  static func obstacle() async -> String? {
    do {
      let scratch = try Scratch()
      let log = "\(scratch.path)/log"
      let network = try await self.make(1, log: log)
      do {
        try await network.cut([Cut(sender: .clients, receiver: .member(0))])
      } catch {
        await network.remove()
        throw error
      }
      await network.remove()
      return nil
    } catch {
      return "Network namespaces can not be made here: \(error)"
    }
  }

  // MARK: Making and removing

  /// - Parameter log: a file that the tools' standard error is appended to.
  static func make(_ count: Int, log: String) async throws -> Namespaces {
    let tools = try Tools()
    guard geteuid() == 0 else { throw ClusterFailure("only root may") }
    await self.removeStale(tools, log: log)
    let network = try await self.reserve(count, tools, log: log)
    do {
      try await network.build()
    } catch {
      await network.remove()
      throw error
    }
    return network
  }

  /// Finds addresses that nobody has. The route stays until the end: a client that is too late for its member is told
  /// so at once, and its packets do not leave this machine.
  private static func reserve(_ count: Int, _ tools: Tools, log: String) async throws -> Namespaces {
    for _ in 0..<16 {
      let network = Namespaces(count, tools: tools, block: Int.random(in: 0..<512), log: log)
      // Fails where there is one already.
      if (try? await network.ip("route add unreachable \(network.network).0/24 metric 4096")) != nil { return network }
    }
    throw ClusterFailure("no route can be made\(LogFile.tail(of: log, lines: 2))")
  }

  private func build() async throws {
    try await self.ip("link add \(self.bridge) type bridge")
    try await self.ip("address add \(self.clientAddress)/24 dev \(self.bridge)")
    try await self.ip("link set \(self.bridge) up")
    for member in 0..<self.count {
      let name = self.name(member)
      try await self.ip("netns add \(name)")
      try await self.ip("link add \(name) type veth peer name eth0 netns \(name)")
      try await self.ip("link set \(name) master \(self.bridge) up")
      try await self.ip("-n \(name) address add \(self.address(of: member))/24 dev eth0")
      try await self.ip("-n \(name) link set eth0 up")
      try await self.ip("-n \(name) link set lo up")
    }
  }

  /// Removes everything. Whoever uses it has to be gone.
  func remove() async {
    for member in 0..<self.count {
      try? await self.ip("netns delete \(self.name(member))")
      // Goes with the namespace; where it was not in there yet, it does not.
      try? await self.ip("link delete \(self.name(member))")
    }
    try? await self.ip("link delete \(self.bridge)")
    try? await self.ip("route delete unreachable \(self.network).0/24 metric 4096")
  }

  /// Removes what processes left behind that made networks and are gone. Their routes stay; they hurt nobody.
  private static func removeStale(_ tools: Tools, log: String) async {
    func owner(_ name: Substring) -> Int32? {
      guard name.hasPrefix(self.prefix), let end = name.firstIndex(of: "x") else { return nil }
      return Int32(name.dropFirst(self.prefix.count)[..<end])
    }
    func isStale(_ name: Substring) -> Bool { owner(name).map { kill($0, 0) != 0 && errno == ESRCH } ?? false }
    let spaces = (try? await Command.run(tools.ip, ["netns", "list"], log: log)) ?? []
    for space in spaces.compactMap({ $0.split(separator: " ").first }) where isStale(space) {
      let name = String(space)
      for line in (try? await Command.run(tools.ip, ["netns", "pids", name], log: log)) ?? [] {
        if let process = Int32(line) { kill(process, SIGKILL) }
      }
      _ = try? await Command.run(tools.ip, ["netns", "delete", name], log: log)
    }
    let links = (try? await Command.run(tools.ip, ["-o", "link", "show", "type", "bridge"], log: log)) ?? []
    for link in links.compactMap({ $0.split(separator: ":").dropFirst().first?.drop { $0 == " " } }) where isStale(link)
    {
      _ = try? await Command.run(tools.ip, ["link", "delete", String(link)], log: log)
    }
  }

  private func ip(_ line: String) async throws {
    try await Command.run(self.tools.ip, line.split(separator: " ").map(String.init), log: self.log)
  }

  // MARK: Using them

  /// How to start a program at a member's address. The process that this makes becomes the program.
  func command(of member: Int, _ executable: String, _ arguments: [String]) -> (String, [String]) {
    (self.tools.nsenter, ["--net=/run/netns/\(self.name(member))", executable] + arguments)
  }

  /// Drops what these cuts are about, besides what is dropped already, connections that are open included.
  func cut(_ more: Set<Cut>) async throws {
    try await self.apply(
      self.cuts.withLock { cuts in
        cuts.formUnion(more)
        return cuts
      })
  }

  /// Lets everything through again.
  func heal() async throws {
    self.cuts.withLock { $0 = [] }
    try await self.apply([])
  }

  private func apply(_ cuts: Set<Cut>) async throws {
    for member in 0..<self.count {
      let received = cuts.filter { $0.receiver == .member(member) }.map { cut in
        "ip saddr \(self.address(of: cut.sender)) \(cut.sparesOpenConnections ? "tcp flags & (syn | ack) == syn " : "")drop"
      }
      // Clients have no namespace of their own: what goes to them is dropped where it comes from.
      let isMute = cuts.contains(Cut(sender: .member(member), receiver: .clients))
      let rules = """
        flush ruleset
        table inet cuts {
          chain input {
            type filter hook input priority 0
            \(received.sorted().joined(separator: "\n    "))
          }
          chain output {
            type filter hook output priority 0
            \(isMute ? "ip daddr \(self.clientAddress) drop" : "")
          }
        }

        """
      let (executable, arguments) = self.command(of: member, self.tools.nft, [rules])
      try await Command.run(executable, arguments, log: self.log)
    }
  }

  private func address(of party: Party) -> String {
    switch party {
    case .member(let member): self.address(of: member)
    case .clients: self.clientAddress
    }
  }
}
