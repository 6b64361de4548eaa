// SPDX-License-Identifier: Apache-2.0

private import Synchronization
internal import Trust

/// Who signed the records of other clusters, by the digest of their certificate chains. Bounded: what does not fit any
/// more is fetched and verified again.
final class SignerCache: Sendable {
  /// A signer whose chain leads to the domain's root.
  struct Signer: Sendable {
    let key: VerifyingKey
    let path: TreePath
    let isProcess: Bool
  }

  private static let countMax = 4_096

  private let verifier: ChainVerifier
  private let signers = Mutex<[Digest32: Signer]>([:])

  init(verifier: ChainVerifier) { self.verifier = verifier }

  func signer(_ digest: Digest32) -> Signer? { self.signers.withLock { $0[digest] } }

  /// Takes the chain that a record names by its digest, if it is that one and leads to the root. Its time is not judged
  /// again: what was accepted once stays readable.
  func add(_ chain: CertificateChain, digest: Digest32) -> Bool {
    guard chain.digest == digest, let credential = try? self.verifier.verifyAtIssue(chain) else { return false }
    let signer = Signer(key: credential.verifyingKey, path: credential.path, isProcess: credential.kind == .process)
    self.signers.withLock { signers in
      if signers.count >= Self.countMax { signers.removeAll() }
      signers[digest] = signer
    }
    return true
  }
}
