// SPDX-License-Identifier: Apache-2.0

/// A set of the numbers below a count.
struct Bits {
  private(set) var words: [UInt64]
  /// No word from here on ever had a bit set: saves looking at them.
  private var highWater = 0

  init(count: Int) { self.words = Array(repeating: 0, count: (count + 63) / 64) }

  subscript(index: Int) -> Bool {
    get { self.words[index >> 6] & (1 << UInt64(index & 63)) != 0 }
    set {
      let bit: UInt64 = 1 << UInt64(index & 63)
      guard newValue else {
        self.words[index >> 6] &= ~bit
        return
      }
      self.words[index >> 6] |= bit
      self.highWater = max(self.highWater, (index >> 6) + 1)
    }
  }

  /// The index after the last word that is not zero.
  var end: Int {
    var end = self.highWater
    while end > 0, self.words[end - 1] == 0 { end -= 1 }
    return end
  }

  /// Whether all numbers of a set, given as its words up to the last that is not zero, are in this one or ignored.
  func contains(_ other: [UInt64], except isIgnored: (Int) -> Bool) -> Bool {
    for (index, word) in other.enumerated() {
      var missing = word & ~self.words[index]
      while missing != 0 {
        if !isIgnored((index << 6) + missing.trailingZeroBitCount) { return false }
        missing &= missing - 1
      }
    }
    return true
  }
}

/// Which of the operations that returned were placed, and the state after them.
///
/// Nearly always everything before some operation is placed and nothing long after it, so only the words between are
/// kept; most often that is a single one, and no array is allocated.
struct Configuration: Hashable {
  private let state: Int
  private let firstWord: Int
  private let word: UInt64
  private let rest: [UInt64]

  /// All operations before `first` are placed, and `first` is not.
  init(_ placed: Bits, from first: Int, state: Int) {
    self.state = state
    self.firstWord = first >> 6
    self.word = placed.words[self.firstWord]
    // While one slow operation waits, many may be placed after it, with empty words between: look for the last.
    let second = self.firstWord + 1
    self.rest = Array(placed.words[second..<max(placed.end, second)])
  }
}
