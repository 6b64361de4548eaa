// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Testing
import Trust

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A running node, people who call it, and certificates that do not verify. What lies where in its directory is in
/// python/checks.py, which reads it, too.
final class Scene: Sendable {
  @TaskLocal private static var open: Scene?

  /// The one of the suite that runs.
  static var current: Scene { get throws { try #require(Self.open) } }

  let scratch: Scratch
  private let node: Program

  var directory: String { self.scratch.path }
  var owner: Profile { get throws { try Profile(contentsOf: "\(self.directory)/node/profile") } }
  /// `host:port` of the node.
  var address: String { get throws { try "\(#require(self.owner.startingPoints.first).address)" } }

  /// The DNS name under which ordinary TLS stacks know the process at a path.
  func dnsName(_ path: String) throws -> String {
    try DomainPath(domain: self.owner.root.domain, path: TreePath(parsing: path)).dnsName
  }

  private init(scratch: Scratch, node: Program) {
    self.scratch = scratch
    self.node = node
  }

  // MARK: From beginning to end

  /// Runs the tests of a suite with one scene. Fails when the node does not end well, or has met a fault of its own.
  static func with(settings: [String: String], _ body: () async throws -> Void) async throws {
    let scratch = try Scratch()
    let directory = scratch.path
    let btnode = try Installed.product("btnode")
    for domain in ["node", "foreign"] {
      try await Program.output(btnode, ["init", "--dir", "\(directory)/\(domain)", "--listen", "127.0.0.1:0"])
    }
    let node = try Program(btnode, ["run", "--dir", "\(directory)/node"], environment: settings)
    let line = await node.line()
    try #require(line.hasPrefix("ready "), "\(line) \(node.errors)")
    try "\(node.id)".write(toFile: "\(directory)/pid", atomically: true, encoding: .utf8)
    let scene = Scene(scratch: scratch, node: node)
    try await scene.prepare()
    try await Self.$open.withValue(scene) { try await body() }

    node.signal(SIGTERM)
    let end = try await node.end()
    #expect(end.status == 0, "\(end.errors)")
    let faults = end.errors.split(separator: "\n").filter { $0.contains("fault in a call") }
    #expect(faults.isEmpty, "\(faults.joined(separator: "\n"))")
  }

  private func prepare() async throws {
    try await Program.output(
      Installed.product("btrpc"),
      [
        "user", "add", "--profile", "\(self.directory)/node/profile", "/alice", "--create-profile",
        "\(self.directory)/alice",
      ])
    try await self.generateStubs()
    try self.write(self.expired(), to: "expired")
    try self.write(self.stray("/owner", .user), to: "sibling")
    try self.write(self.credential(.user, "/never-added"), to: "unknown")
  }

  /// What grpcio-tools makes of the schema.
  private func generateStubs() async throws {
    let stubs = "\(self.directory)/stubs"
    try FileManager.default.createDirectory(atPath: stubs, withIntermediateDirectories: true)
    let own = "blocktree/v1"
    let files = try FileManager.default.contentsOfDirectory(atPath: "\(Installed.schema)/\(own)").sorted()
      .filter { $0.hasSuffix(".proto") }.map { "\(own)/\($0)" }
    // The second root: a package of Python that is called "grpc" is there already.
    for (root, files) in [(Installed.schema, files), ("\(Installed.schema)/grpc", ["health/v1/health.proto"])] {
      try await Program.output(
        Installed.python,
        ["-m", "grpc_tools.protoc", "-I", root, "--python_out", stubs, "--grpc_python_out", stubs] + files)
    }
  }

  // MARK: Python

  /// Runs one of the scripts.
  func python(_ script: String, _ arguments: [String]) async throws -> Program.End {
    try await Program.run(
      Installed.python, ["\(Installed.clients)/python/\(script)"] + arguments, environment: self.pythonEnvironment)
  }

  var pythonEnvironment: [String: String] {
    ["PYTHONPATH": "\(self.directory)/stubs", "PYTHONDONTWRITEBYTECODE": "1", "GRPC_VERBOSITY": "NONE"]
  }

  /// Runs one check of a script, and fails with what it says.
  func check(_ script: String, _ name: String) async throws {
    let end = try await self.python(script, [self.directory, name])
    #expect(end.status == 0 && end.output == "ok \(name)\n", "\(end.output)\(end.errors)")
  }

  /// The names of a script's checks.
  func checks(_ script: String) async throws -> [String] {
    try await self.python(script, ["--list"]).output.split(separator: "\n").map(String.init)
  }

  // MARK: Certificates

  /// A chain and the keys that it certifies.
  struct Identity {
    let chain: CertificateChain
    let keys = PrincipalKeys()

    init(_ issue: (VerifyingKey) throws -> CertificateChain) rethrows {
      self.chain = try issue(self.keys.signing.verifyingKey)
    }
  }

  private static let hour = Duration.seconds(3600)

  /// What the person's authority for the whole domain certifies.
  func authority() throws -> CertificateAuthority {
    let profile = try self.owner
    let held = try #require(profile.authority)
    return try CertificateAuthority(key: held.keys.signing, chain: held.chain, root: profile.root, at: .now)
  }

  func credential(_ kind: Credential.Kind, _ path: String) throws -> Identity {
    try Identity { key in
      try self.authority().issueCredential(
        kind, at: TreePath(parsing: path), key: key, validity: Validity(from: .now, lifetime: Self.hour))
    }
  }

  /// Issued by an authority for `/b`.
  func below(_ path: String) throws -> Identity {
    let validity = Validity(from: .now, lifetime: Self.hour)
    let authorityKey = SigningKey()
    let chain = try self.authority().issueAuthority(
      for: TreePath(parsing: "/b"), key: authorityKey.verifyingKey, validity: validity)
    let authority = try CertificateAuthority(key: authorityKey, chain: chain, root: self.owner.root, at: .now)
    return try Identity { key in
      try authority.issueCredential(.process, at: TreePath(parsing: path), key: key, validity: validity)
    }
  }

  /// A credential at a path in the root directory, which an authority for `/b` has issued. Our own code does not make
  /// such a thing: the authority's key certifies as one for `/`, and shows what it has for `/b`.
  func stray(_ path: String, _ kind: Credential.Kind) throws -> Identity {
    let validity = Validity(from: .now, lifetime: Self.hour)
    let authorityKey = SigningKey()
    func chain(_ directory: String) throws -> CertificateChain {
      try self.authority().issueAuthority(
        for: TreePath(parsing: directory), key: authorityKey.verifyingKey, validity: validity)
    }
    let rightful = try CertificateAuthority(key: authorityKey, chain: chain("/"), root: self.owner.root, at: .now)
    return try Identity { key in
      let leaf = try rightful.issueCredential(kind, at: TreePath(parsing: path), key: key, validity: validity)
      return try CertificateChain([leaf.certificates[0]] + chain("/b").certificates)
    }
  }

  private func expired() throws -> Identity {
    try Identity { key in
      try self.authority().issueCredential(
        .user, at: TreePath(parsing: "/owner"), key: key,
        validity: Validity(notBefore: .now - 7200, notAfter: .now - 3600))
    }
  }

  /// Writes the files that TLS stacks load.
  @discardableResult
  func write(_ identity: Identity, to name: String) throws -> (chain: String, key: String) {
    let directory = "\(self.directory)/\(name)"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    let files = (chain: "\(directory)/credential.pem", key: "\(directory)/key.pem")
    try identity.chain.pemRepresentation.write(toFile: files.chain, atomically: true, encoding: .utf8)
    try KeyFile.create(identity.keys, at: files.key)
    return files
  }
}

/// Gives a suite a scene of its own.
struct SceneTrait: SuiteTrait, TestScoping {
  /// The node's, by environment variable.
  let settings: [String: String]

  func provideScope(
    for test: Test, testCase: Test.Case?, performing body: @concurrent @Sendable () async throws -> Void
  ) async throws {
    try await Scene.with(settings: self.settings, body)
  }
}

extension Trait where Self == SceneTrait {
  static func scene(_ settings: [String: String] = [:]) -> Self { SceneTrait(settings: settings) }
}
