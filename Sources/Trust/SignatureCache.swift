// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// Remembers which signatures over tree roots were found valid, so that a batch is verified once and not once for each
/// of its messages. Bounded, and safe to share between threads.
///
/// It holds valid claims only, and a claim includes the signature's own bytes: a message with the right tree and broken
/// signature bytes must not be taken for good here and then be useless to everybody who has not seen the good one.
package final class SignatureCache: Sendable {
  struct Claim: Hashable, Sendable {
    let keyID: Digest32
    let purpose: SigningPurpose
    let treeSize: UInt16
    let root: Digest32
    let signature: [UInt8]
  }

  private let claims: Mutex<BoundedCache<Claim, Bool>>

  /// - Parameter countMax: How many signatures to remember at most; about 300 bytes each.
  package init(countMax: Int = 16384) {
    self.claims = Mutex(BoundedCache(countMax: countMax))
  }

  package var count: Int {
    self.claims.withLock { $0.count }
  }

  func contains(_ claim: Claim) -> Bool {
    self.claims.withLock { $0.find(claim) } ?? false
  }

  func insert(_ claim: Claim) {
    self.claims.withLock { $0.insert(true, for: claim) }
  }
}
