// SPDX-License-Identifier: Apache-2.0

/// Why a directory can not be taken back from its cluster, as errors name it.
package enum DrainRefusal: String, Hashable, Sendable {
  /// It has no cluster of its own.
  case notDelegated = "NOT_DELEGATED"
  /// A directory below has processes of its own.
  case nested = "NESTED"
  /// The processes above can not read it, or something in it.
  case noKey = "NO_KEY"
  /// The two clusters store sectors of different sizes.
  case sectorSize = "SECTOR_SIZE"
  /// It is being taken back, which has to end before this.
  case underWay = "UNDER_WAY"
  /// What its cluster stores counts no more: it can only be finished.
  case finishing = "FINISHING"

  /// For people.
  var sentence: String {
    switch self {
    case .notDelegated: "it has no cluster of its own"
    case .nested: "a directory below has processes of its own"
    case .noKey: "the processes above have no key for it, or for something in it"
    case .sectorSize: "the clusters store sectors of different sizes"
    case .underWay: "it, or a directory below it, is being taken back"
    case .finishing: "it is about to be finished, or is"
    }
  }
}
