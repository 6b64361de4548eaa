// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Members of etcd, with the short times that let one be replaced soon.
struct EtcdCluster: MeasuredCluster {
  static let name = "etcd"

  let members: Members
  let log: String
  /// Holds `etcd` and `etcdload`, as scripts/install-etcd puts them.
  private let programs: String
  private let directory: String
  /// Ports of the loopback interface.
  private let ports: [(clients: Int, peers: Int)]

  private static let heartbeatMilliseconds = 20
  private static let electionMilliseconds = 200

  /// - Parameters:
  ///   - count: of its members.
  ///   - directory: on the disk to be measured; must not exist.
  init(_ count: Int, programs: String, directory: String) async throws {
    for name in ["etcd", "etcdload"] where !FileManager.default.isExecutableFile(atPath: "\(programs)/\(name)") {
      throw BenchFailure("\(programs)/\(name) is missing: scripts/install-etcd")
    }
    self.members = Members(count)
    self.programs = programs
    self.directory = directory
    self.log = "\(directory)/log"
    var ports: [(clients: Int, peers: Int)] = []
    for _ in 0..<count { ports.append((try await FreePort.find(), try await FreePort.find())) }
    self.ports = ports
  }

  private var certificate: String { "\(self.directory)/certificate.pem" }
  private var key: String { "\(self.directory)/key.pem" }
  private var endpoints: String { self.ports.map { "127.0.0.1:\($0.clients)" }.joined(separator: ",") }

  func start() async throws {
    try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
    // One for all, and its own authority: what the handshakes verify does not matter here.
    _ = try await Program.run(
      "openssl",
      [
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
        "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", self.key, "-out",
        self.certificate,
      ], log: self.log)
    for member in self.members.indices { try self.launch(member) }
    try await self.settledLeader()
  }

  func restart(_ member: Int) async throws {
    try self.launch(member)
    try await self.settledLeader()
  }

  private func launch(_ member: Int) throws {
    let own = self.ports[member]
    let clients = "https://127.0.0.1:\(own.clients)"
    let peers = "https://127.0.0.1:\(own.peers)"
    let cluster = self.ports.enumerated().map { "member\($0.offset)=https://127.0.0.1:\($0.element.peers)" }
    _ = try self.members.start(
      member, "\(self.programs)/etcd",
      [
        "--name", "member\(member)", "--data-dir", "\(self.directory)/member\(member)",
        "--listen-client-urls", clients, "--advertise-client-urls", clients,
        "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
        "--initial-cluster", cluster.joined(separator: ","), "--initial-cluster-state", "new",
        "--cert-file", self.certificate, "--key-file", self.key, "--trusted-ca-file", self.certificate,
        "--client-cert-auth", "--peer-cert-file", self.certificate, "--peer-key-file", self.key,
        "--peer-trusted-ca-file", self.certificate, "--peer-client-cert-auth",
        "--heartbeat-interval", "\(Self.heartbeatMilliseconds)", "--election-timeout", "\(Self.electionMilliseconds)",
        "--logger", "zap", "--log-level", "warn", "--quota-backend-bytes", "6000000000",
        "--auto-compaction-mode", "revision", "--auto-compaction-retention", "10000",
      ], log: self.log)
  }

  private struct Answer: Decodable {
    let leader: Int
  }

  func leader() async throws -> Int? {
    let lines = try await Program.run(
      "\(self.programs)/etcdload", ["-operation", "leader"] + self.common(self.endpoints), log: self.log)
    guard let line = lines.last else { return nil }
    let leader = try JSONDecoder().decode(Answer.self, from: Data(line.utf8)).leader
    return self.members.indices.contains(leader) ? leader : nil
  }

  func views() async -> String { "" }

  func fill() async throws {
    _ = try await Program.run(
      "\(self.programs)/etcdload", ["-operation", "fill"] + self.common(self.endpoints), log: self.log)
  }

  func program(for order: LoadOrder, leader: Int, start: Int64) -> (executable: String, arguments: [String]) {
    // One that does not lead would hand everything on.
    let endpoints = order.operation == .gap ? self.endpoints : "127.0.0.1:\(self.ports[leader].clients)"
    return (
      "\(self.programs)/etcdload",
      [
        "-operation", order.operation.rawValue, "-in-flight", "\(order.inFlight)", "-connections",
        "\(min(order.layout.connections, order.inFlight))", "-milliseconds", "\(order.milliseconds)", "-at", "\(start)",
      ] + self.common(endpoints)
    )
  }

  private func common(_ endpoints: String) -> [String] {
    ["-endpoints", endpoints, "-ca", self.certificate, "-certificate", self.certificate, "-key", self.key]
  }
}
