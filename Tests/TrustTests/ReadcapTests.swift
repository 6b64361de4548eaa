// SPDX-License-Identifier: Apache-2.0

import Crypto
import Testing
import Trust

@Suite("A readcap")
struct ReadcapTests {
  let domain = DomainID(rootKey: SigningKey().verifyingKey)
  let recipient = AgreementKey()
  let key = SymmetricKey(size: .bits256)

  private func context(
    domain: DomainID? = nil, generation: UInt64 = 7, inode: UInt64 = 9, epoch: UInt32 = 3, recipient: String = "/u"
  ) -> ReadcapContext {
    ReadcapContext(
      domain: domain ?? self.domain, generation: generation, inode: inode, epoch: epoch, recipient: path(recipient))
  }

  @Test("opens for its recipient")
  func opens() throws {
    let seal = try ReadcapSeal.seal(key, to: recipient.publicKey, context: context())
    #expect(seal.bytes.count == ReadcapSeal.byteCount)
    #expect(try ReadcapSeal(bytes: seal.bytes).open(with: recipient, context: context()) == key)
    #expect(try ReadcapSeal.seal(key, to: recipient.publicKey, context: context()) != seal)
  }

  @Test("does not open for another key, file, epoch, recipient or domain")
  func binding() throws {
    let seal = try ReadcapSeal.seal(key, to: recipient.publicKey, context: context())
    let others = [
      context(domain: DomainID(digest: .zero)), context(generation: 8), context(generation: 9, inode: 7),
      context(inode: 10), context(epoch: 4), context(recipient: "/v"), context(recipient: "/u/u"),
    ]
    for other in others {
      #expect(throws: TrustError.cryptographicFailure) { try seal.open(with: recipient, context: other) }
    }
    #expect(throws: TrustError.cryptographicFailure) { try seal.open(with: AgreementKey(), context: context()) }
  }

  @Test("does not open with any byte changed, or of another length")
  func tampering() throws {
    let seal = try ReadcapSeal.seal(key, to: recipient.publicKey, context: context())
    for index in seal.bytes.indices {
      var bytes = seal.bytes
      bytes[index] ^= 1
      #expect(throws: TrustError.self) { try ReadcapSeal(bytes: bytes).open(with: recipient, context: context()) }
    }
    #expect(throws: TrustError.malformed) { try ReadcapSeal(bytes: seal.bytes + [0]) }
    #expect(throws: TrustError.malformed) { try ReadcapSeal(bytes: []) }
    #expect(throws: TrustError.unknownVersion) { try ReadcapSeal(bytes: [2] + seal.bytes.dropFirst()) }
    #expect(throws: TrustError.malformed) {
      try ReadcapSeal.seal(SymmetricKey(size: .bits128), to: recipient.publicKey, context: context())
    }
  }
}
