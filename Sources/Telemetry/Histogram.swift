// SPDX-License-Identifier: Apache-2.0

/// How many values fell between bounds, and what they sum up to.
package struct Histogram: Hashable, Sendable {
  /// For durations in seconds, from a tenth of a millisecond to ten seconds.
  package static let durationBounds: [Double] = [
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
  ]
  package static let boundCountMax = 64

  /// The upper ends of the buckets, themselves included, ascending; behind them is a bucket without an end.
  package let bounds: [Double]
  /// One for each bound, and one for what is above all of them. Not cumulative.
  package private(set) var counts: [UInt64]
  package private(set) var sum = 0.0

  /// - Parameter bounds: in any order; those that are not finite are left out, as are those that are twice there, and
  ///   the largest beyond ``boundCountMax``.
  package init(bounds: [Double]) {
    let sorted = Set(bounds.filter(\.isFinite)).sorted().prefix(Self.boundCountMax)
    self.bounds = Array(sorted)
    self.counts = Array(repeating: 0, count: sorted.count + 1)
  }

  package var count: UInt64 { self.counts.reduce(0, &+) }

  /// Counts a value in. What is not a number is not counted.
  package mutating func record(_ value: Double) {
    guard !value.isNaN else { return }
    // A handful of bounds: nothing is quicker than to look at one after the other.
    let index = self.bounds.firstIndex { value <= $0 } ?? self.bounds.count
    self.counts[index] &+= 1
    self.sum += value
  }
}
