// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import Sectors
internal import ServiceLifecycle
internal import Transport
internal import Trust

/// Closes connections of principals whose credential file has been removed or replaced for another key, or whose
/// certificate has expired. New connections of theirs are refused at the handshake.
struct RevocationWatch: ServiceLifecycle.Service {
  let connections: ConnectionSource
  let credentials: CredentialIndex
  /// The key of this process.
  let own: Digest32
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
      return credential.notAfter < now || credential.keyID != self.own && !self.credentials.confirms(credential)
    }
    if count > 0 { self.logger.info("closed connections of revoked principals", metadata: ["count": "\(count)"]) }
  }
}
