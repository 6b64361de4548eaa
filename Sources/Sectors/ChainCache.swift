// SPDX-License-Identifier: Apache-2.0

internal import Foundation
private import Synchronization
internal import Trust

/// The certificate chains of signers by digest, with the keys that they certify. Bounded; the store has them all.
final class ChainCache: Sendable {
  private struct State {
    var chains: [Digest32: CertificateChain] = [:]
    var keys: [Digest32: VerifyingKey] = [:]
    /// Chains that a commit of this run has stored.
    var stored: Set<Digest32> = []
  }

  private static let countMax = 4_096
  private static let storedCountMax = 65_536

  private let verifier: ChainVerifier
  private let state = Mutex(State())

  init(verifier: ChainVerifier) { self.verifier = verifier }

  func chain(_ digest: Digest32) -> CertificateChain? { self.state.withLock { $0.chains[digest] } }

  func key(_ digest: Digest32) -> VerifyingKey? { self.state.withLock { $0.keys[digest] } }

  /// Takes the chain of somebody who is verified.
  func add(_ credential: Credential, digest: Digest32) {
    self.insert(credential.chain, credential.verifyingKey, digest)
  }

  /// Takes a chain that was stored, if it leads to the root. Its time is not judged again: what was accepted once stays
  /// readable.
  func addStored(_ chain: CertificateChain, digest: Digest32) -> Bool {
    guard let credential = try? self.verifier.verifyAtIssue(chain) else { return false }
    self.insert(chain, credential.verifyingKey, digest)
    return true
  }

  /// Takes a chain that somebody sent, if it verifies now.
  func addSent(_ chain: CertificateChain, at time: Date) -> Bool {
    guard let credential = try? self.verifier.verify(chain, at: time) else { return false }
    self.insert(chain, credential.verifyingKey, chain.digest)
    return true
  }

  private func insert(_ chain: CertificateChain, _ key: VerifyingKey, _ digest: Digest32) {
    self.state.withLock { state in
      if state.keys[digest] != nil { return }
      if state.chains.count >= Self.countMax {
        state.chains.removeAll()
        state.keys.removeAll()
      }
      state.chains[digest] = chain
      state.keys[digest] = key
    }
  }

  /// Whether a commit of this run is known to have stored a chain. To store one again changes nothing.
  func isStored(_ digest: Digest32) -> Bool { self.state.withLock { $0.stored.contains(digest) } }

  /// A commit that carried these chains is durable.
  func noteStored(_ digests: [Digest32]) {
    if digests.isEmpty { return }
    self.state.withLock { state in
      if state.stored.count >= Self.storedCountMax { state.stored.removeAll() }
      state.stored.formUnion(digests)
    }
  }
}
