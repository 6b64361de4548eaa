// SPDX-License-Identifier: Apache-2.0

/// Lists of routes by when they expire, a list for each second or so, so that what has expired is found without a
/// search.
///
/// Only where each list begins is here: the routes themselves hold the rest.
struct ExpiryWheel: Sendable {
  /// The first of each list.
  private var heads: [UInt32]
  /// All lists of times up to this one are empty.
  private(set) var swept: Int64 = .min

  /// The lists go round: there are enough of them that no two times that are at most `lifetimeMax` apart share one.
  init(lifetimeMax: Duration) {
    let spans = Self.number(of: RouteTime(nanoseconds: 0) + min(max(lifetimeMax, .zero), .seconds(1 << 16)))
    // Twice as many: so there is time to get rid of old ones before their lists are needed again.
    var count = 64
    while count < 2 * (Int(spans) + 2) { count *= 2 }
    self.heads = Array(repeating: RouteTrie.none, count: count)
  }

  var byteCount: Int { self.heads.capacity * MemoryLayout<UInt32>.stride }
  var listCount: Int64 { Int64(self.heads.count) }

  /// The number of the list for a moment: one for each 2^30 nanoseconds.
  static func number(of time: RouteTime) -> Int64 { time.nanoseconds >> 30 }

  subscript(number: Int64) -> UInt32 {
    get { self.heads[Int(number & (self.listCount - 1))] }
    set { self.heads[Int(number & (self.listCount - 1))] = newValue }
  }

  /// Says that the lists up to this one are empty.
  mutating func advance(to number: Int64) {
    self.swept = max(self.swept, number)
  }
}
