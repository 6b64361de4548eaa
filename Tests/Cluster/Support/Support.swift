// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A directory that is removed with all that is in it.
final class Scratch: Sendable {
  let path: String

  init() throws {
    var template = Array("\(FileManager.default.temporaryDirectory.path)/blocktree-cluster.XXXXXX".utf8CString)
    try #require(mkdtemp(&template) != nil)
    self.path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit { try? FileManager.default.removeItem(atPath: self.path) }
}

/// A sequence of random numbers that a failing test can be run with again. What the processes of a cluster do is not
/// decided by it: only what is asked of them, and which faults they meet.
struct SeededGenerator: RandomNumberGenerator {
  let seed: UInt64
  private var state: UInt64

  /// From the environment variable `BLOCKTREE_TEST_SEED`, or at random. Prints it.
  init(for test: String) {
    let given = ProcessInfo.processInfo.environment["BLOCKTREE_TEST_SEED"].flatMap { UInt64($0) }
    self.init(seed: given ?? UInt64.random(in: .min ... .max))
    print("BLOCKTREE_TEST_SEED=\(self.seed): \(test)")
  }

  init(seed: UInt64) {
    self.seed = seed
    self.state = seed
  }

  /// SplitMix64.
  mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = self.state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}

/// Waits until `condition` holds. Fails the test after a time that only a broken program needs.
func eventually(
  _ what: String, within patience: Duration = TestCluster.patience, _ condition: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + patience
  while try await !condition() {
    guard ContinuousClock.now < deadline else { throw ClusterFailure("This never came true: \(what).") }
    try await Task.sleep(for: .milliseconds(2))
  }
}
