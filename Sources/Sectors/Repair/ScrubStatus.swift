// SPDX-License-Identifier: Apache-2.0

package import SectorStore

/// One pass over all that a member stores.
package struct ScrubPass: Codable, Hashable, Sendable {
  /// From 1.
  package var number: UInt64
  /// Seconds since 1970.
  package var start: Int64
  /// Nil while it goes on.
  package var end: Int64?
  package var verifiedByteCount: UInt64 = 0
  /// About how much there was when it began.
  package var expectedByteCount: UInt64
  /// Places that were found damaged, and those of them that were healed.
  package var foundCount: UInt64 = 0
  package var healedCount: UInt64 = 0

  package init(number: UInt64, start: Int64, expectedByteCount: UInt64) {
    self.number = number
    self.start = start
    self.expectedByteCount = expectedByteCount
  }
}

/// Something that is damaged, and could not be healed so far.
package struct UnhealedDamage: Hashable, Sendable {
  package var place: DamagePlace
  /// What came of the last attempt.
  package var healing: SectorHealer.Healing
  /// More about that, for people.
  package var detail: String

  package init(place: DamagePlace, healing: SectorHealer.Healing, detail: String = "") {
    self.place = place
    self.healing = healing
    self.detail = detail
  }
}

/// What is known of the state of what a member stores.
package struct ScrubStatus: Hashable, Sendable {
  package var running: ScrubPass?
  package var last: ScrubPass?
  /// At most ``damagesMax``, in the order in which they were found.
  package var damages: [UnhealedDamage] = []
  package var omittedCount: UInt64 = 0

  package static let damagesMax = 32

  package init() {}
}

/// Who looks after what a member stores. All functions are called on event loops and must answer from memory.
package protocol StoreUpkeep: Sendable {
  var scrubStatus: ScrubStatus { get }
  /// Names of stores that were set aside; see ``ClusterStatus``.
  var storesSetAside: [String] { get }
  /// Begins a pass now, and gives one that goes on up for it.
  ///
  /// - Parameter rate: bytes in a second; nil for what is set.
  /// - Returns: its number.
  func beginScrub(rate: UInt64?) -> UInt64
}
