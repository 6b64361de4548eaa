// SPDX-License-Identifier: Apache-2.0

import Testing
import Trust

extension OtherLanguageTests {
  /// TLS stacks that know nothing of paths, and go by DNS names and their constraints alone.
  @Suite("A stock verifier")
  struct VerifierTests {
    enum Verifier: String, CaseIterable {
      case grpcio, openssl
    }

    let scene: Scene

    init() throws { self.scene = try Scene.current }

    @Test("accepts the node by its DNS name, and by no other", arguments: Verifier.allCases)
    func name(verifier: Verifier) async throws {
      let address = try self.scene.address
      try await self.expect(verifier, accepts: address, name: self.scene.dnsName("/node1"))
      for other in ["/node2", "/node1/x", "/"] {
        try await self.expect(
          verifier, refuses: address, name: self.scene.dnsName(other), because: ["hostname", "Hostname"])
      }
    }

    @Test("refuses the node with another domain's root", arguments: Verifier.allCases)
    func foreignRoot(verifier: Verifier) async throws {
      try await self.expect(
        verifier, refuses: self.scene.address, name: self.scene.dnsName("/node1"), root: "foreign/root.pem",
        because: ["unable to get local issuer certificate"])
    }

    @Test("refuses a node that a sibling directory's authority certified", arguments: Verifier.allCases)
    func sibling(verifier: Verifier) async throws {
      let name = try self.scene.dnsName("/node1")
      // The same authority, below its own directory: the refusal has no other reason.
      try await self.serving(self.scene.below("/b/node1")) { address in
        try await self.expect(verifier, accepts: address, name: self.scene.dnsName("/b/node1"))
        try await self.expect(verifier, refuses: address, name: name, because: ["hostname", "Hostname"])
      }
      try await self.serving(self.scene.stray("/node1", .process)) { address in
        try await self.expect(
          verifier, refuses: address, name: name, because: ["permitted subtree violation"])
      }
      try await self.serving(self.scene.credential(.process, "/node1")) { address in
        try await self.expect(verifier, accepts: address, name: name)
      }
    }

    @Test("refuses a person's credential as a server's", arguments: Verifier.allCases)
    func user(verifier: Verifier) async throws {
      try await self.serving(self.scene.credential(.user, "/node1")) { address in
        try await self.expect(
          verifier, refuses: address, name: self.scene.dnsName("/node1"),
          because: ["unsuitable certificate purpose", "unsupported certificate purpose"])
      }
    }

    // MARK: Helpers

    private func expect(_ verifier: Verifier, accepts address: String, name: String) async throws {
      let (accepted, text) = try await self.verify(verifier, address, name, root: "node/root.pem")
      #expect(accepted, "\(text)")
    }

    /// - Parameter reasons: what it may say, any of them.
    private func expect(
      _ verifier: Verifier, refuses address: String, name: String, root: String = "node/root.pem",
      because reasons: [String]
    ) async throws {
      let (accepted, text) = try await self.verify(verifier, address, name, root: root)
      #expect(!accepted && reasons.contains { text.contains($0) }, "\(text)")
    }

    private func verify(
      _ verifier: Verifier, _ address: String, _ name: String, root: String
    ) async throws -> (accepted: Bool, text: String) {
      let root = "\(self.scene.directory)/\(root)"
      switch verifier {
      case .grpcio:
        let end = try await self.scene.python("verifiers.py", ["call", address, root, name])
        try #require(end.status == 0, "\(end.errors)")
        return (end.output == "accepted\n", end.output + end.errors)
      case .openssl:
        let end = try await Program.run(
          Installed.openssl,
          [
            "s_client", "-connect", address, "-servername", name, "-alpn", "h2", "-CAfile", root, "-no-CApath",
            "-no-CAstore", "-verify_return_error", "-verify_hostname", name, "-x509_strict", "-brief",
          ])
        return (end.status == 0, end.output + end.errors)
      }
    }

    /// Has a stock server show this certificate.
    private func serving(_ identity: Scene.Identity, _ body: (String) async throws -> Void) async throws {
      let files = try self.scene.write(identity, to: "server-\(UInt64.random(in: .min ... .max))")
      let server = try Program(
        Installed.python, ["\(Installed.clients)/python/verifiers.py", "serve", files.chain, files.key],
        environment: self.scene.pythonEnvironment)
      let address = await server.line()
      try #require(address.hasPrefix("127.0.0.1:"), "\(server.errors)")
      try await body(address)
      let end = try await server.end()
      #expect(end.status == 0, "\(end.errors)")
    }
  }
}
