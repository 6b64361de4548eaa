// SPDX-License-Identifier: Apache-2.0

internal import Crypto
internal import Inodes
internal import Trust

extension Readcap {
  /// Seals a file's or directory's key to a principal.
  init(
    sealing key: FileKey, of file: FileID, domain: DomainID, to recipient: AgreementPublicKey, at path: TreePath
  ) throws(TrustError) {
    let context = ReadcapContext(
      domain: domain, generation: file.generation.rawValue, inode: file.inode.rawValue, epoch: key.epoch,
      recipient: path)
    let seal = try ReadcapSeal.seal(SymmetricKey(data: key.bytes), to: recipient, context: context)
    self.init(
      principal: path, keyID: Digest32(sha256: recipient.x963Representation), epoch: key.epoch, sealedKey: seal.bytes,
      agreementKey: Array(recipient.x963Representation))
  }
}
