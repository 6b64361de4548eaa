// SPDX-License-Identifier: Apache-2.0

/// SplitMix64: the same seed gives the same domain, and the same run.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  package init(seed: UInt64) {
    self.state = seed
  }

  package mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var z = self.state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  /// From 0 up to, but not including, 1.
  mutating func fraction() -> Double { Double(self.next() >> 11) / Double(1 << 53) }
}

/// Ranks from 0 on, of which each is drawn in proportion to 1 / (rank + 1).
struct ZipfRanks: Sendable {
  /// Up to and with each rank.
  private let sums: [Double]

  init(count: Int) {
    var sums: [Double] = []
    var sum = 0.0
    for rank in 0..<max(count, 1) {
      sum += 1 / Double(rank + 1)
      sums.append(sum)
    }
    self.sums = sums
  }

  func draw(_ random: inout SeededGenerator) -> Int {
    let target = random.fraction() * (self.sums.last ?? 1)
    var (low, high) = (0, self.sums.count - 1)
    while low < high {
      let middle = (low + high) / 2
      if self.sums[middle] > target { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
