// SPDX-License-Identifier: Apache-2.0

import Foundation
import GRPCCore
import Logging
import NIOPosix
import Testing
import Transport
import Trust

@testable import Node

@Suite("The server of a node", .timeLimit(.minutes(5)))
struct ServingTests {
  private let health = HealthState()
  private let serving: Serving

  init() throws {
    let authority = try CertificateAuthority(newRoot: SigningKey(), at: .now)
    let (key, path) = (SigningKey(), try TreePath(parsing: "/node1"))
    let chain = try authority.issueCredential(
      .process, at: path, key: key.verifyingKey, validity: Validity(from: .now, lifetime: .seconds(3_600)))
    let listen = ListenAddress(host: "127.0.0.1", port: 0)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let transport = try NodeServerTransport(
      security: TransportSecurity(
        root: authority.root, identity: TransportSecurity.Identity(chain: chain, key: key)),
      listeningOn: [listen], group: MultiThreadedEventLoopGroup.singleton, logger: logger)
    self.serving = Serving(
      server: GRPCServer(transport: transport, services: []), transport: transport, health: self.health, listen: listen,
      process: DomainPath(domain: authority.root.domain, path: path), logger: logger, whenReady: { _ in })
  }

  @Test("ends in good order when it is stopped before it has begun")
  func stoppedBefore() async throws {
    self.serving.stop()
    try await self.serving.serveUntilStopped()
    #expect(!self.health.isServing)
  }

  @Test("ends in good order when it is stopped while it begins")
  func stoppedMeanwhile() async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await self.serving.serveUntilStopped() }
      await Task.yield()
      self.serving.stop()
      try await group.waitForAll()
    }
    #expect(!self.health.isServing)
  }
}
