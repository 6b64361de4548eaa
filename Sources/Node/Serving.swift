// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
internal import Logging
internal import ServiceLifecycle
internal import Transport
internal import Trust

/// Answers calls until it is told to stop; then no new ones, and those under way may finish.
struct Serving: ServiceLifecycle.Service {
  let server: GRPCServer<NodeServerTransport>
  let transport: NodeServerTransport
  let health: HealthState
  let listen: ListenAddress
  /// What this process is.
  let process: DomainPath
  let logger: Logger
  let whenReady: @Sendable ([NetworkAddress]) -> Void

  func run() async throws {
    try await withGracefulShutdownHandler {
      try await self.serveUntilStopped()
    } onGracefulShutdown: {
      self.stop()
    }
    self.logger.info("stopped")
  }

  /// Takes no new calls from now on. May come at any time, also before ``serveUntilStopped()``.
  func stop() {
    self.logger.info("stopping")
    self.health.end()
    self.server.beginGracefulShutdown()
    // A server that has not begun yet does not tell its transport.
    self.transport.beginGracefulShutdown()
  }

  func serveUntilStopped() async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await self.serve() }
      group.addTask {
        // Throws when the server did not come so far: it failed, which the other task knows, or was told to stop.
        guard let addresses = try? await self.transport.listeningAddresses else { return }
        self.health.set(isServing: true)
        self.logger.info(
          "serving",
          metadata: [
            "address": "\(addresses.map(\.description).joined(separator: " "))", "process": "\(self.process.path)",
            "tls.name": "\(self.process.dnsName)",
          ])
        self.whenReady(addresses)
      }
      try await group.waitForAll()
    }
  }

  private func serve() async throws {
    do {
      try await self.server.serve()
    } catch let error as RuntimeError {
      // Told to stop before it had begun.
      if error.code == .serverIsStopped { return }
      throw NodeError.listening("\(self.listen)", why: error.cause.map { "\($0)" } ?? error.message)
    }
  }
}
