// SPDX-License-Identifier: Apache-2.0

import DNSFixture
import Foundation
import Resolver
import Testing

/// SplitMix64: the same seed gives the same test.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) {
    self.state = seed
  }

  /// From BLOCKTREE_TEST_SEED, or new; printed either way.
  static func forTest(_ name: String = #function) -> SeededGenerator {
    let given = ProcessInfo.processInfo.environment["BLOCKTREE_TEST_SEED"].flatMap(UInt64.init)
    let seed = given ?? UInt64.random(in: .min ... .max)
    print("\(name): BLOCKTREE_TEST_SEED=\(seed)")
    return SeededGenerator(seed: seed)
  }

  mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var z = self.state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

extension DNSServer {
  func resolver() throws -> Resolver { Resolver(try .asking([self.port])) }
}

extension ResolverConfiguration {
  /// Asks servers of this machine, which are close by.
  static func asking(
    _ ports: [UInt16], attemptTimeout: Duration = .seconds(5), timeout: Duration = .seconds(60)
  ) throws -> ResolverConfiguration {
    var configuration = ResolverConfiguration()
    configuration.servers = try ports.map { try NameServer(parsing: "127.0.0.1:\($0)") }
    configuration.timeout = timeout
    configuration.attemptTimeout = attemptTimeout
    return configuration
  }
}

func name(_ text: String) throws -> DNSName { try DNSName(parsing: text) }
