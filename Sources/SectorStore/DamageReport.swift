// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What is known to be damaged in a store that is open: by scrubs and by reads. It is not kept over a restart.
package struct DamageReport: Hashable, Sendable {
  /// In the order in which they were found.
  package private(set) var places: [DamagePlace] = []
  /// How many findings did not fit any more. One place may be counted more than once.
  package private(set) var omittedCount = 0

  /// Places that are remembered.
  package static let placesMax = 256

  package init() {}

  package var isEmpty: Bool { self.places.isEmpty && self.omittedCount == 0 }

  mutating func note(_ place: DamagePlace) {
    if self.places.contains(place) { return }
    if self.places.count < Self.placesMax { self.places.append(place) } else { self.omittedCount += 1 }
  }

  mutating func remove(_ place: DamagePlace) { self.places.removeAll { $0 == place } }

  /// A pass begins, which finds again what did not fit.
  mutating func forgetOmitted() { self.omittedCount = 0 }
}

extension SectorStore {
  /// What is known to be damaged now. Repairing a place takes it away, and so does asking to repair one that is whole.
  package var damageReport: DamageReport { self.live.damage.withLock { $0 } }
}
