// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Logging
internal import ServiceLifecycle
internal import Trust

/// Reminds the log, once a day, of a certificate of which two thirds have passed. To renew it takes an authority, and
/// people: `btnode request`, `btrpc process add --replace`, `btnode join`, and a restart.
struct CertificateWatch: ServiceLifecycle.Service {
  let credential: Credential
  let logger: Logger

  func run() async throws {
    try? await cancelWhenGracefulShutdown {
      while true {
        self.check(at: WallClock.date())
        try await Task.sleep(for: .seconds(86_400))
      }
    }
  }

  private func check(at now: Date) {
    guard now >= self.credential.validity.renewAt else { return }
    let days = Int((self.credential.notAfter.timeIntervalSince(now) / 86_400).rounded(.down))
    self.logger.warning(
      "this process's certificate ends soon; renew it",
      metadata: ["process": "\(self.credential.path)", "days": "\(days)"])
  }
}
