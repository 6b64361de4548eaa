// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import Transport
import Trust

/// With an ordinary TLS stack on the other side, which resumes sessions: ours never does.
@Suite(
  "A resumed TLS session", .enabled(if: FileManager.default.isExecutableFile(atPath: OpenSSL.path)),
  .timeLimit(.minutes(5)))
struct ResumptionTests {
  @Test("is for the caller that it began with", arguments: [true, false])
  func identity(hasCertificate: Bool) async throws {
    let domain = try TestDomain()
    let security = try TransportSecurity(root: domain.root, identity: domain.identity(.process, "/node1"))
    let client = try OpenSSL(domain, hasCertificate ? domain.identity(.user, "/users/ada") : nil)
    defer { client.remove() }
    try await withServer(security) { server in
      var callers: [String] = []
      for arguments in [["-sess_out", client.file("session")], ["-sess_in", client.file("session")]] {
        let process = try client.start(server.address, arguments)
        // The session comes after the handshake.
        try await eventually { server.connections.counts == (0, 1) && client.hasSession }
        callers += server.connections.identities.map { $0.caller.credential.map { "\($0.path)" } ?? "anonymous" }
        let output = await process.end()
        #expect(output.contains("Reused, TLSv1.3") == (arguments[0] == "-sess_in"), "\(output)")
        try await eventually { server.connections.counts == (0, 0) }
      }
      let expected = hasCertificate ? "/users/ada" : "anonymous"
      #expect(callers == [expected, expected])
    }
  }

  @Test("is not for a key that has been revoked since")
  func revoked() async throws {
    let domain = try TestDomain()
    let isRevoked = Flag()
    let security = try TransportSecurity(root: domain.root, identity: domain.identity(.process, "/node1")) { _ in
      !isRevoked.isSet
    }
    let client = try OpenSSL(domain, domain.identity(.user, "/users/ada"))
    defer { client.remove() }
    try await withServer(security) { server in
      let first = try client.start(server.address, ["-sess_out", client.file("session")])
      try await eventually { server.connections.counts == (0, 1) && client.hasSession }
      _ = await first.end()
      try await eventually { server.connections.counts == (0, 0) }
      isRevoked.set()
      let second = try client.start(server.address, ["-sess_in", client.file("session")])
      // The server hangs up, whatever the client would like to say.
      _ = await second.output()
      try await eventually { server.connections.counts == (0, 0) }
      #expect(server.connections.identities.isEmpty)
    }
  }
}

/// `openssl s_client` with the certificate of a test.
private struct OpenSSL {
  static let path = "/usr/bin/openssl"

  private let directory: URL
  private let hasCertificate: Bool

  init(_ domain: TestDomain, _ identity: TransportSecurity.Identity?) throws {
    self.directory = FileManager.default.temporaryDirectory.appending(path: "blocktree-\(UUID())")
    self.hasCertificate = identity != nil
    try FileManager.default.createDirectory(
      at: self.directory, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    try Data(domain.root.pemRepresentation.utf8).write(to: URL(filePath: self.file("root")))
    if let identity {
      try Data(identity.chain.pemRepresentation.utf8).write(to: URL(filePath: self.file("chain")))
      try Data(identity.key.pemRepresentation.utf8).write(to: URL(filePath: self.file("key")))
    }
  }

  func file(_ name: String) -> String { self.directory.appending(path: name + ".pem").path }

  /// Whether OpenSSL has written down a session to resume.
  var hasSession: Bool { FileManager.default.fileExists(atPath: self.file("session")) }

  func remove() { try? FileManager.default.removeItem(at: self.directory) }

  func start(_ address: NetworkAddress, _ arguments: [String]) throws -> Running {
    var all = ["s_client", "-connect", "\(address)", "-tls1_3", "-alpn", "h2", "-CAfile", self.file("root")]
    if self.hasCertificate { all += ["-cert", self.file("chain"), "-key", self.file("key")] }
    let process = Process()
    process.executableURL = URL(filePath: Self.path)
    process.arguments = all + ["-verify_return_error"] + arguments
    let (input, output) = (Pipe(), Pipe())
    process.standardInput = input
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    try process.run()
    return Running(
      pid: process.processIdentifier, input: input.fileHandleForWriting, outputHandle: output.fileHandleForReading)
  }

  struct Running {
    fileprivate let pid: Int32
    fileprivate let input: FileHandle
    fileprivate let outputHandle: FileHandle

    /// Lets it end, and returns what it said.
    func end() async -> String {
      try? self.input.close()
      return await self.output()
    }

    /// What it says until it ends. One that does not end is killed, after a time that only a broken program needs.
    func output() async -> String {
      let pid = self.pid
      let watchdog = Task {
        try await Task.sleep(for: .seconds(60))
        kill(pid, SIGKILL)
      }
      defer { watchdog.cancel() }
      return await withCheckedContinuation { continuation in
        let handle = self.outputHandle
        // Reading blocks: on a thread of its own.
        Thread.detachNewThread {
          let data = (try? handle.readToEnd()) ?? Data()
          continuation.resume(returning: String(decoding: data, as: UTF8.self))
        }
      }
    }
  }
}
