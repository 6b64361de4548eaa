// SPDX-License-Identifier: Apache-2.0

import Discovery
import Foundation
import Testing
import Trust

@testable import Node
@testable import Relay

@Suite("Who may host a service at a process that can not read directories")
struct MessageJudgeTests {
  private struct Nobody: PrincipalJudge {
    func isStoredHere(_: TreePath) -> Bool { true }
    func confirms(_: Credential) -> Bool { false }
  }

  @Test("is whoever has its name as a mark, in the directory of the process, and nobody else")
  func marks() async throws {
    let authority = try CertificateAuthority(newRoot: SigningKey(), at: .now)
    let shout = try Service("shout")
    func credential(_ path: String) throws -> Credential {
      let chain = try authority.issueCredential(
        .process, at: TreePath(parsing: path), key: SigningKey().verifyingKey,
        validity: Validity(from: .now, lifetime: .seconds(3_600)))
      return try ChainVerifier(root: authority.root).verify(chain, at: Date())
    }
    let marked = try credential("/site/program")
    let other = try credential("/site/other")
    let elsewhere = try credential("/program")
    let judge = RelayServiceHandler.Judge(
      Nobody(), home: try TreePath(parsing: "/site"), filesystem: nil,
      marks: { path in path == other.path ? [] : path == marked.path || path == elsewhere.path ? [shout] : nil })
    #expect(try await judge.mayHost(marked, shout))
    #expect(try await !judge.mayHost(marked, try Service("whisper")))
    #expect(try await !judge.mayHost(other, shout))
    #expect(try await !judge.mayHost(elsewhere, shout))
    #expect(try await !judge.mayHost(try credential("/site/unknown"), shout))
    #expect(!judge.confirms(marked))
  }
}
