// SPDX-License-Identifier: Apache-2.0

internal import Trust

/// One call's way through the known processes to the one that serves it. Decides, and performs nothing.
///
/// A round asks each process once: whom the last answer named as the leader, then whom the directory puts first, then
/// the others. Those that can not be reached are passed over at once; the pauses lie between answers that name nobody
/// and between rounds.
package struct LeaderSearch: Sendable {
  package typealias Place = ProcessDirectory.Place

  /// How long to wait before the next attempt.
  package enum Pause: Hashable, Sendable {
    case none
    /// There are processes, but none that leads: an election takes a moment. Begins short and grows with the round,
    /// counted from 0.
    case election(round: Int)
    /// Nobody can be reached.
    case outage
  }

  /// Hints that one round follows without a pause: processes that name one another would be asked without end otherwise.
  package static let redirectCountMax = 8

  /// Those that could not be reached, or said that they do not lead, in this round.
  private var asked: Set<Place> = []
  private var declined: Set<TreePath> = []
  private var hasDeclined = false
  private var leader: TreePath?
  private var redirectCount = 0
  private var roundCount = 0
  private var findingCount: Int?

  package init() {}

  /// Whom to ask now; nil when nobody is known. The same one again, as long as nothing is reported about it.
  package mutating func next(in directory: ProcessDirectory) -> Place? {
    if let findingCount, findingCount != directory.findingCount { self.beginRound() }
    self.findingCount = directory.findingCount
    if let place = self.candidate(in: directory) { return place }
    self.roundCount += 1
    self.beginRound()
    return self.candidate(in: directory)
  }

  /// A place could not be reached, or its connection broke.
  package mutating func failed(_ place: Place, in directory: ProcessDirectory) -> Pause {
    self.asked.insert(place)
    if self.candidate(in: directory) != nil { return .none }
    return self.hasDeclined ? .election(round: self.roundCount) : .outage
  }

  /// A process says that it does not lead. The directory has heard of that already.
  package mutating func declined(_ place: Place, leader: ProcessHint?, in directory: ProcessDirectory) -> Pause {
    self.asked.insert(place)
    if let path = directory.path(of: place) { self.declined.insert(path) }
    self.hasDeclined = true
    self.leader = leader?.path
    guard let path = self.leader, self.redirectCount < Self.redirectCountMax,
      directory.places(of: path).contains(where: { self.isOpen($0, in: directory) })
    else {
      self.leader = nil
      return .election(round: self.roundCount)
    }
    self.redirectCount += 1
    return .none
  }

  private mutating func beginRound() {
    self.asked = []
    self.declined = []
    self.hasDeclined = false
    self.leader = nil
    self.redirectCount = 0
  }

  private func candidate(in directory: ProcessDirectory) -> Place? {
    if let leader {
      let place = directory.places(of: leader).first { self.isOpen($0, in: directory) }
      if let place { return place }
    }
    return directory.order.first { self.isOpen($0, in: directory) }
  }

  private func isOpen(_ place: Place, in directory: ProcessDirectory) -> Bool {
    if self.asked.contains(place) { return false }
    // It would say the same at another of its addresses.
    return directory.path(of: place).map { !self.declined.contains($0) } ?? true
  }
}
