// SPDX-License-Identifier: Apache-2.0

import Foundation

/// SplitMix64: small, and the same on every machine.
struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  init(seed: UInt64) { self.state = seed }

  mutating func next() -> UInt64 {
    self.state &+= 0x9E37_79B9_7F4A_7C15
    var value = self.state
    value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
    return value ^ (value >> 31)
  }

  mutating func bool() -> Bool { self.next() & 1 == 1 }
  mutating func chance(_ percent: Int) -> Bool { self.next() % 100 < UInt64(percent) }
  mutating func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }
}

enum Seeds {
  /// The seeds to run: the one of STORE_SEED if set, else `count` from a start that differs from run to run.
  static func take(_ count: Int) -> [UInt64] {
    if let text = ProcessInfo.processInfo.environment["STORE_SEED"], let seed = UInt64(text) { return [seed] }
    let start = UInt64.random(in: 0..<1 << 32)
    return (0..<UInt64(count)).map { start + $0 }
  }
}

/// A directory of its own for a test, removed with the value.
final class TemporaryDirectory: Sendable {
  let path: String

  init() throws {
    let parent = ProcessInfo.processInfo.environment["STORE_TEST_DIRECTORY"] ?? NSTemporaryDirectory() + "SectorStore"
    self.path = parent + "/" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: self.path) }
}
