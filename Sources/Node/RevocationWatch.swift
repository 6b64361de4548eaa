// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Logging
internal import ServiceLifecycle
internal import Transport
internal import Trust

/// Closes connections of principals whose credential file has been removed or replaced for another key, or whose
/// certificate has expired. New connections of theirs are refused, at the handshake or with their first call.
///
/// Credential files that are stored here are known at once. Those of others are asked for again while they have a
/// connection open, as `RevocationRule` says.
struct RevocationWatch: ServiceLifecycle.Service {
  let connections: ConnectionSource
  let rule: RevocationRule
  let logger: Logger

  private static let interval = Duration.seconds(1)

  func run() async throws {
    try? await cancelWhenGracefulShutdown {
      while true {
        try await Task.sleep(for: Self.interval)
        self.check()
      }
    }
  }

  private func check() {
    let now = WallClock.date()
    let count = self.connections.closeConnections { identity in
      guard let credential = identity.caller.credential else { return false }
      return self.rule.isRevoked(credential, at: now)
    }
    if count > 0 { self.logger.info("closed connections of revoked principals", metadata: ["count": "\(count)"]) }
  }
}
