// SPDX-License-Identifier: Apache-2.0

import Foundation
import Linearizability
import Testing

/// A harness that finds nothing proves nothing: these show that it would.
@Suite("The harness for clusters", .timeLimit(.minutes(3)))
struct HarnessTests {
  @Test("finds that acknowledged writes are gone, when a member comes back with an old disk")
  func oldDisk() async throws {
    let random = SeededGenerator(for: "old disk")
    try await TestCluster.with { cluster in
      let workload = Workload(cluster, seed: random.seed)
      try await workload.prepare()
      try await workload.run { try await $0.progress(by: 20) }
      let store = cluster.directory(0)
      let copy = "\(store).old"
      try await cluster.stop(0)
      try await Self.copy(store, copy)
      try await cluster.start(0)
      // Enough for each register to have been written.
      try await workload.run { try await $0.progress(by: 120) }
      #expect(try await workload.readAll() == [])
      #expect(workload.verdict().isLinearizable)
      await cluster.kill(0)
      try FileManager.default.removeItem(atPath: store)
      try await Self.copy(copy, store)
      try await cluster.start(0)
      #expect(try await !workload.readAll().isEmpty)
      #expect(workload.verdict().isViolated)
    }
  }

  private static func copy(_ source: String, _ target: String) async throws {
    let copy = try #require(Installed.tool("cp"))
    try await Command.run(copy, ["-a", source, target], log: "/dev/null")
  }

  @Test(
    "cuts members off from each other and from clients, one way or both, and heals it",
    .enabled("Network namespaces can be made here.") { await NamespaceSupport.isPresent })
  func cuts() async throws {
    let scratch = try Scratch()
    let log = "\(scratch.path)/log"
    let network = try await Namespaces.make(3, log: log)
    do {
      try await Self.tryCuts(network, log: log)
    } catch {
      await network.remove()
      throw error
    }
    await network.remove()
    let ip = try #require(Installed.tool("ip"))
    let left = try await Command.run(ip, ["route", "show", "\(network.clientAddress)/24"], log: log)
    #expect(left == [])
  }

  /// What gets through is asked of connections, which need both ways.
  private static func tryCuts(_ network: Namespaces, log: String) async throws {
    #expect(try await self.reaches(network, 0, 1, log: log))
    #expect(try await self.reaches(network, 1, 2, log: log))
    for cut in [
      Namespaces.Cut(sender: .member(0), receiver: .member(1)),
      Namespaces.Cut(sender: .member(1), receiver: .member(0)),
    ] {
      try await network.cut([cut])
      #expect(try await !self.reaches(network, 0, 1, log: log))
      #expect(try await self.reaches(network, 0, 2, log: log))
      #expect(try await self.reaches(network, 2, 1, log: log))
      try await network.heal()
      #expect(try await self.reaches(network, 0, 1, log: log))
    }
  }

  /// Whether a member can open a connection to another one.
  private static func reaches(_ network: Namespaces, _ sender: Int, _ receiver: Int, log: String) async throws -> Bool {
    // Nobody listens there: what answers refuses, and what does not answer was cut off.
    let shell = try #require(Installed.tool("bash"))
    let (executable, arguments) = network.command(
      of: sender, try #require(Installed.tool("timeout")),
      ["1", shell, "-c", "exec 3<>/dev/tcp/\(network.address(of: receiver))/9 || echo refused"])
    do {
      return try await Command.run(executable, arguments, log: log) == ["refused"]
    } catch is ClusterFailure {
      return false
    }
  }
}

enum NamespaceSupport {
  /// Whether this machine lets network namespaces be made; says once why not.
  static var isPresent: Bool {
    get async { await Self.finding.value }
  }

  private static let finding = Task {
    guard let obstacle = await Namespaces.obstacle() else { return true }
    print("Tests with network namespaces are skipped. \(obstacle)")
    return false
  }
}
