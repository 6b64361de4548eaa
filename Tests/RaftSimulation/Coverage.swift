// SPDX-License-Identifier: Apache-2.0

/// How often what matters happened: a world in which nothing happens finds nothing.
package struct Coverage: Hashable, Sendable, CustomStringConvertible {
  package var leaders = 0
  package var commits = 0
  package var crashes = 0
  package var truncations = 0
  package var snapshotsInstalled = 0
  package var logsDiscarded = 0
  package var jointMemberships = 0
  package var membershipsLeft = 0
  package var transfers = 0
  package var readsByRound = 0
  package var readsByLease = 0
  package var readsOfFollowers = 0
  package var writesAnswered = 0
  package var unknownOutcomes = 0
  package var rejections = 0
  package var undecidedHistories = 0

  package init() {}

  package static func + (left: Coverage, right: Coverage) -> Coverage {
    var sum = left
    for path in Self.counters.map(\.1) { sum[keyPath: path] += right[keyPath: path] }
    return sum
  }

  package var description: String {
    Self.counters.map { "\($0.0) \(self[keyPath: $0.1])" }.joined(separator: ", ")
  }

  /// Those that stayed at zero, and should not.
  package var missing: [String] {
    Self.counters.filter { $0.1 != \.undecidedHistories && self[keyPath: $0.1] == 0 }.map(\.0)
  }

  private static var counters: [(String, WritableKeyPath<Coverage, Int>)] {
    [
      ("leaders", \.leaders), ("commits", \.commits), ("crashes", \.crashes), ("truncations", \.truncations),
      ("snapshots installed", \.snapshotsInstalled), ("logs discarded", \.logsDiscarded),
      ("joint memberships", \.jointMemberships), ("memberships left", \.membershipsLeft), ("transfers", \.transfers),
      ("reads by round", \.readsByRound), ("reads by lease", \.readsByLease),
      ("reads of followers", \.readsOfFollowers), ("writes answered", \.writesAnswered),
      ("unknown outcomes", \.unknownOutcomes), ("rejections", \.rejections),
      ("undecided histories", \.undecidedHistories),
    ]
  }
}
