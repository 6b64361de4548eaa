// SPDX-License-Identifier: Apache-2.0

internal import Inodes
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
    let chain: CertificateChain
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
    let signer = Signer(
      key: credential.verifyingKey, path: credential.path, isProcess: credential.kind == .process,
      chain: chain)
    self.signers.withLock { signers in
      if signers.count >= Self.countMax { signers.removeAll() }
      signers[digest] = signer
    }
    return true
  }

  /// Whether a record was accepted by a process of a directory, and signed by whom it says. Who is not known here has
  /// signed nothing.
  func isVerified(_ record: InodeRecord, servedBy directory: TreePath, cache: SignatureCache) -> Bool {
    guard let acceptance = record.acceptance, let member = self.signer(acceptance.signer), member.isProcess,
      member.path.parent == directory,
      acceptance.signature.verify(
        digest: record.acceptanceDigest, purpose: .acceptance, key: member.key, cache: cache)
    else { return false }
    return self.isSigned(record.content, cache) && self.isSigned(record.attributes, cache)
      && self.isSigned(record.links, cache)
  }

  private func isSigned<Part>(_ part: Signed<Part>, _ cache: SignatureCache) -> Bool {
    guard let signer = self.signer(part.signer) else { return false }
    return part.signature.verify(digest: part.digest, purpose: Part.purpose, key: signer.key, cache: cache)
  }
}
