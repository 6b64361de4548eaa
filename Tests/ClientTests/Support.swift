// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Routes
import Synchronization
import Testing
import Trust

/// Runs `body` with a new directory, which is removed after it.
func withDirectory<Result>(_ body: (String) async throws -> Result) async throws -> Result {
  let path = FileManager.default.temporaryDirectory.appendingPathComponent("ClientTests-\(UUID().uuidString)").path
  try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(atPath: path) }
  return try await body(path)
}

/// A domain with a person and a process in it.
struct TestDomain {
  let rootKey = SigningKey()
  let authority: CertificateAuthority

  init() throws {
    self.authority = try CertificateAuthority(newRoot: self.rootKey, at: .now)
  }

  func credential(
    _ kind: Credential.Kind, _ path: String, keys: PrincipalKeys, services: [Service] = [],
    validity: Validity = Validity(from: .now, lifetime: .seconds(3600))
  ) throws -> CredentialFile {
    let request = try CredentialRequest(keys: keys, issuedAtMilliseconds: 1)
    return try self.authority.issueCredentialFile(
      kind, at: TreePath(parsing: path), request: request, services: services, validity: validity, serial: 1,
      issuedAtMilliseconds: 1)
  }

  /// Makes the profile that `btnode init` makes.
  func makeProfile(
    at directory: String, path: String = "/people/ann",
    validity: Validity = Validity(from: .now, lifetime: .seconds(3600))
  ) throws {
    let (keys, authorityKeys) = (PrincipalKeys(), PrincipalKeys())
    let file = try self.credential(.user, path, keys: keys, validity: validity)
    let chain = try self.authority.issueAuthority(
      for: .root, key: authorityKeys.signing.verifyingKey, validity: Validity(from: .now, lifetime: .seconds(3600)))
    try Profile.create(
      at: directory, root: self.authority.root, credential: file.chain, keys: keys,
      authority: Profile.Authority(chain: chain, keys: authorityKeys), path: TreePath(parsing: path),
      processes: [Profile.Process(path: "/node1", addresses: ["127.0.0.1:7001", "[::1]:7001"])])
  }
}

/// A clock that is set by hand.
final class TestClock: Sendable {
  private let time = Mutex(RouteTime(nanoseconds: 1_000_000_000))

  func now() -> RouteTime { self.time.withLock { $0 } }
  func advance(by duration: Duration) { self.time.withLock { $0 = $0 + duration } }
}

/// A generator whose numbers follow from a seed. The seed of a failed test is in its output; set `BLOCKTREE_SEED` to it.
struct SeededGenerator: RandomNumberGenerator {
  let seed: UInt64
  private var state: UInt64

  init() {
    let named = ProcessInfo.processInfo.environment["BLOCKTREE_SEED"].flatMap { UInt64($0) }
    self.seed = named ?? UInt64.random(in: .min ... .max)
    self.state = self.seed
  }

  // SplitMix64.
  mutating func next() -> UInt64 {
    self.state &+= 0x9E37_79B9_7F4A_7C15
    var word = self.state
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
  }
}
