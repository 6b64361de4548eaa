// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import Trust

@Suite("A warrant of recovery")
struct RecoveryWarrantTests {
  private let rootKey = SigningKey()
  private let root: RootCertificate

  init() throws {
    self.root = try CertificateAuthority(newRoot: self.rootKey, at: Date()).root
  }

  private func warrant(
    incarnation: UInt64 = 2, process: String = "/node 1", member: UInt64 = 7, time: UInt64 = 1_000
  ) throws -> RecoveryWarrant {
    try RecoveryWarrant(
      signedBy: self.rootKey, root: self.root, generation: 1, incarnation: incarnation,
      process: TreePath(parsing: process), member: member, issuedAtMilliseconds: time)
  }

  @Test("gives back all that was signed")
  func roundTrip() throws {
    let warrant = try self.warrant()
    let read = try RecoveryWarrant(verifying: warrant.bytes, root: self.root)
    #expect(read == warrant)
    #expect(read.domain == self.root.domain && read.generation == 1 && read.incarnation == 2)
    #expect(try read.process == TreePath(parsing: "/node 1"))
    #expect(read.member == 7 && read.issuedAtMilliseconds == 1_000)
    #expect(warrant.bytes.count < 512)
  }

  @Test("is signed by nobody but the root principal")
  func signer() throws {
    #expect(throws: TrustError.wrongKey) {
      _ = try RecoveryWarrant(
        signedBy: SigningKey(), root: self.root, generation: 1, incarnation: 2, process: TreePath(parsing: "/node1"),
        member: 7, issuedAtMilliseconds: 1)
    }
  }

  @Test("of another domain is not believed")
  func otherDomain() throws {
    let other = try CertificateAuthority(newRoot: SigningKey(), at: Date()).root
    let bytes = try self.warrant().bytes
    #expect(throws: TrustError.foreignDomain) { _ = try RecoveryWarrant(verifying: bytes, root: other) }
  }

  @Test("of which any bit was changed is not believed")
  func everyBit() throws {
    let bytes = try self.warrant().bytes
    for bit in 0..<bytes.count * 8 {
      var forged = bytes
      forged[bit / 8] ^= 1 << (bit % 8)
      #expect(throws: TrustError.self, "bit \(bit)") { _ = try RecoveryWarrant(verifying: forged, root: self.root) }
    }
    for count in 0..<bytes.count {
      #expect(throws: TrustError.self) {
        _ = try RecoveryWarrant(verifying: Array(bytes.prefix(count)), root: self.root)
      }
    }
    #expect(throws: TrustError.self) { _ = try RecoveryWarrant(verifying: bytes + [0], root: self.root) }
    #expect(throws: TrustError.tooLong) {
      let tooMany = [UInt8](repeating: 1, count: RecoveryWarrant.byteCountMax + 1)
      _ = try RecoveryWarrant(verifying: tooMany, root: self.root)
    }
  }

  @Test("is not made for what needs none, or for nobody", arguments: [(1, 7), (0, 7), (2, 0)] as [(UInt64, UInt64)])
  func impossible(incarnation: UInt64, member: UInt64) {
    #expect(throws: TrustError.malformed) { _ = try self.warrant(incarnation: incarnation, member: member) }
  }

  @Test("comes after all lives before it, and of two with the same number the later counts")
  func order() throws {
    let warrants = [
      try self.warrant(incarnation: 2, time: 5), try self.warrant(incarnation: 2, member: 8, time: 5),
      try self.warrant(incarnation: 2, member: 1, time: 6), try self.warrant(incarnation: 3, time: 1),
    ]
    for (index, warrant) in warrants.enumerated() {
      #expect(warrant.supersedes(nil))
      for (other, earlier) in warrants.enumerated() { #expect(warrant.supersedes(earlier) == (index > other)) }
    }
  }
}
