// SPDX-License-Identifier: Apache-2.0

package import Trust

/// The processes that a client knows, and which of them it asks first. Decides, and performs nothing.
///
/// The profile names some; others are learned from processes that say who leads their cluster. Whoever is asked at an
/// address has to show the certificate of the path that stands beside it, so a wrong hint costs a dial and nothing else.
package struct ProcessDirectory: Sendable {
  package typealias Place = Profile.StartingPoint

  /// Places that are remembered beside the profile's. The oldest give way.
  package static let learnedCountMax = 64
  /// How long a dial may take while other processes are known.
  package static let dialPatience: Duration = .seconds(1)
  /// The same at a place that did not answer in that time before. Its dial goes on all the same, so that a process which
  /// is only far away is found at the next attempt.
  package static let silentDialPatience: Duration = .milliseconds(100)

  /// The profile's places, then the learned ones, the oldest first.
  private var places: [Place]
  private var profileCount: Int
  /// Who answered at places for which the profile names no process.
  private var identities: [Place: TreePath] = [:]
  private var silent: Set<Place> = []
  /// Whom to ask first: who served last, or who comes after it when that has failed. Nil when nobody is known.
  package private(set) var current: Place?
  /// Whether ``current`` has served a call since it was turned to.
  package private(set) var isSettled = false
  /// Grows whenever a call was served by another process than before. Searches that are under way begin anew there.
  package private(set) var findingCount = 0

  package init(_ startingPoints: [Place]) {
    self.places = startingPoints
    self.profileCount = startingPoints.count
    self.current = startingPoints.first
  }

  /// All places, in the order in which they are asked.
  package var order: [Place] {
    guard let current, let index = self.places.firstIndex(of: current) else { return self.places }
    return Array(self.places[index...] + self.places[..<index])
  }

  /// Which process is there, as far as it is known.
  package func path(of place: Place) -> TreePath? { place.path ?? self.identities[place] }

  /// How long to wait for a connection to a place; nil for as long as it takes, since there is no other one.
  ///
  /// - Parameter isPatient: false when others are asked that are not here.
  package func dialPatience(for place: Place, isPatient: Bool = true) -> Duration? {
    guard self.places.count > 1 || !isPatient else { return nil }
    return self.silent.contains(place) ? Self.silentDialPatience : Self.dialPatience
  }

  // MARK: What happened

  /// There is a connection, to this process.
  package mutating func reached(_ place: Place, process: TreePath) {
    self.silent.remove(place)
    if place.path == nil, self.places.contains(place) { self.identities[place] = process }
  }

  /// A process did what it was asked, or said why not.
  package mutating func served(_ place: Place) {
    guard !self.isSettled || self.current != place else { return }
    // It may have given way to others meanwhile.
    guard self.places.contains(place) else { return }
    self.current = place
    self.isSettled = true
    self.findingCount += 1
  }

  /// A place could not be reached, or its connection broke.
  ///
  /// - Parameter wasSilent: whether nothing came back in the time that a dial may take.
  package mutating func failed(_ place: Place, wasSilent: Bool = false) {
    if wasSilent, self.places.contains(place) { self.silent.insert(place) }
    self.turnAway(from: place)
  }

  /// A process says that it does not lead its cluster, and who does if it knows.
  package mutating func declined(_ place: Place, leader: ProcessHint?) {
    self.turnAway(from: place)
    guard let leader else { return }
    self.learn(leader)
    // Late news from others do not lead away from who has just served, nor to who does not answer.
    guard !self.isSettled else { return }
    let first = self.places(of: leader.path).first { !self.silent.contains($0) }
    if let first { self.current = first }
  }

  /// What is there has nothing to do with the others.
  package mutating func forget(_ place: Place) {
    guard let index = self.places.firstIndex(of: place) else { return }
    self.turnAway(from: place)
    self.places.remove(at: index)
    if index < self.profileCount { self.profileCount -= 1 }
    self.silent.remove(place)
    if self.current == place { self.current = self.places.first }
  }

  /// Where a process is.
  func places(of path: TreePath) -> [Place] { self.places.filter { self.path(of: $0) == path } }

  private mutating func turnAway(from place: Place) {
    guard self.current == place else { return }
    self.isSettled = false
    guard let index = self.places.firstIndex(of: place) else { return }
    // Another address of the same process would say the same, or be as dead, more often than not.
    let others = self.places[(index + 1)...] + self.places[..<index]
    let path = self.path(of: place)
    self.current = others.first { path == nil || self.path(of: $0) != path } ?? others.first ?? place
  }

  /// There is such a process: it is asked after those that are known already.
  package mutating func learn(_ hint: ProcessHint) {
    for address in hint.addresses {
      let place = Place(path: hint.path, address: address)
      let isKnown = self.places.contains { $0.address == address && self.path(of: $0) == hint.path }
      if isKnown { continue }
      self.places.append(place)
      if self.current == nil { self.current = place }
    }
    self.trim()
  }

  /// These are all that there are, as those say who know: others that were learned of are not asked any more.
  package mutating func renew(_ hints: [ProcessHint]) {
    let paths = Set(hints.map(\.path))
    for place in Array(self.places.dropFirst(self.profileCount)) {
      if let path = self.path(of: place), !paths.contains(path) { self.forget(place) }
    }
    for hint in hints { self.learn(hint) }
  }

  /// Processes may be here, whichever: they are asked before those that did not serve.
  ///
  /// - Returns: whether one of the addresses was not known.
  package mutating func found(_ addresses: [NetworkAddress]) -> Bool {
    // At an address that is known another process may be by now than the one that was expected there.
    let places = addresses.prefix(Self.learnedCountMax).map { Place(path: nil, address: $0) }
    let new = places.filter { !self.places.contains($0) }
    guard let first = new.first else { return false }
    for place in new where !self.places.contains(place) { self.places.append(place) }
    if !self.isSettled { self.current = first }
    self.trim()
    return true
  }

  private mutating func trim() {
    while self.places.count > self.profileCount + Self.learnedCountMax {
      // Never the one that serves.
      let oldest = self.places[self.profileCount...].firstIndex { $0 != self.current }
      guard let oldest else { return }
      let place = self.places.remove(at: oldest)
      self.silent.remove(place)
    }
  }
}

/// Which process leads a cluster, or belongs to it, as another one said.
package struct ProcessHint: Hashable, Sendable {
  /// The most addresses that are taken from one hint.
  package static let addressCountMax = 8

  package let path: TreePath
  /// None when only its path is known.
  package let addresses: [NetworkAddress]

  package init(path: TreePath, addresses: [NetworkAddress]) {
    self.path = path
    self.addresses = Array(addresses.prefix(Self.addressCountMax))
  }

  /// What an error with the reason NOT_LEADER says; nil when it names no leader. What is malformed is passed over: it is
  /// only a hint.
  package init?(_ error: BlocktreeError) {
    guard error.reason == .notLeader, let leader = error.metadata["leader"],
      let path = try? TreePath(parsing: leader)
    else { return nil }
    let texts = error.metadata["addresses"]?.split(separator: ",").prefix(Self.addressCountMax) ?? []
    self.init(
      path: path,
      addresses: texts.compactMap { text in try? NetworkAddress(parsing: String(text.filter { $0 != " " })) })
  }
}
