// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials
private import Synchronization

/// A `ChainVerifier` that remembers: the chain of somebody who writes a thousand records a second is walked once.
/// Bounded, and safe to share between threads.
///
/// What is remembered does not outlive its validity, which is checked each time. Revocation is not its business, nor
/// the verifier's: ask by `Credential.keyID` and `authorityKeyIDs`.
package final class CredentialCache: Sendable {
  package let verifier: ChainVerifier
  private let credentials: Mutex<BoundedCache<Digest32, Credential>>

  /// - Parameter countMax: How many chains to remember at most; a few KiB each.
  package init(verifier: ChainVerifier, countMax: Int = 1024) {
    self.verifier = verifier
    self.credentials = Mutex(BoundedCache(countMax: countMax))
  }

  /// The same answer as `ChainVerifier.verify`.
  package func verify(_ chain: CertificateChain, at time: Date) throws(TrustError) -> Credential {
    let digest = chain.digest
    if let credential = self.credentials.withLock({ $0.find(digest) }) {
      try credential.validity.require(time)
      return credential
    }
    let credential = try self.verifier.verify(chain, at: time)
    self.credentials.withLock { $0.insert(credential, for: digest) }
    return credential
  }
}
