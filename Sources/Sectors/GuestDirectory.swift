// SPDX-License-Identifier: Apache-2.0

private import Synchronization
package import Trust

/// Principals whose credentials are stored by other clusters, as far as these have confirmed them lately. Whoever asks
/// those fills it; here it is only remembered, each time for a while.
package final class GuestDirectory: Sendable {
  /// A principal as its own cluster knows it.
  package struct Guest: Hashable, Sendable {
    package let path: TreePath
    /// Of the signing key that stands in its credential file.
    package let keyID: Digest32
    package let kind: Credential.Kind
    /// The services that its marks name.
    package let services: [Service]

    package init(path: TreePath, keyID: Digest32, kind: Credential.Kind, services: [Service]) {
      self.path = path
      self.keyID = keyID
      self.kind = kind
      self.services = services
    }

    /// Whether it is a process that may host a service.
    package func hosts(_ service: Service) -> Bool { self.kind == .process && self.services.contains(service) }
  }

  private struct Confirmed {
    let guest: Guest
    let end: ContinuousClock.Instant
  }

  private struct State {
    var guests: [TreePath: Confirmed] = [:]
    /// How many lie below each directory of the root.
    var counts: [TreePath: Int] = [:]

    mutating func set(_ path: TreePath, _ confirmed: Confirmed?) {
      let old = self.guests[path]
      self.guests[path] = confirmed
      guard (old == nil) != (confirmed == nil), let part = path.prefix(depth: 1), part != path else { return }
      let count = self.counts[part, default: 0] + (confirmed == nil ? -1 : 1)
      self.counts[part] = count > 0 ? count : nil
    }
  }

  /// Guests that are remembered; beyond that, the one that would be forgotten first goes. Those who certify principals
  /// below one directory of the root fill no more than half of it.
  package static let countMax = 4_096

  private let state = Mutex(State())
  private let now: @Sendable () -> ContinuousClock.Instant

  package init(now: @escaping @Sendable () -> ContinuousClock.Instant = { .now }) { self.now = now }

  /// Remembers a guest for so long, in place of what was known of its path.
  package func confirm(_ guest: Guest, for lifetime: Duration) {
    let now = self.now()
    self.state.withLock { state in
      if state.guests[guest.path] == nil { Self.makeRoom(for: guest.path, now, &state) }
      state.set(guest.path, Confirmed(guest: guest, end: now + lifetime))
    }
  }

  /// Forgets a guest: its cluster does not confirm it any more.
  package func forget(_ path: TreePath) { self.state.withLock { $0.set(path, nil) } }

  private static func makeRoom(for path: TreePath, _ now: ContinuousClock.Instant, _ state: inout State) {
    let part = path.prefix(depth: 1)
    func isPartFull() -> Bool { part.map { state.counts[$0, default: 0] >= Self.countMax / 2 } ?? false }
    guard isPartFull() || state.guests.count >= Self.countMax else { return }
    for (path, known) in state.guests where known.end <= now { state.set(path, nil) }
    guard isPartFull() || state.guests.count >= Self.countMax else { return }
    let isOfPart = isPartFull()
    let candidates = state.guests.filter { !isOfPart || $0.key != part && $0.key.prefix(depth: 1) == part }
    if let first = candidates.min(by: { $0.value.end < $1.value.end })?.key { state.set(first, nil) }
  }

  /// Who is confirmed at a path at present.
  package func guest(at path: TreePath) -> Guest? {
    guard let known = self.state.withLock({ $0.guests[path] }), known.end > self.now() else { return nil }
    return known.guest
  }

  /// The guest that holds this credential, with this key and kind; nil when it is not confirmed at present.
  package func guest(_ credential: Credential) -> Guest? {
    guard let guest = self.guest(at: credential.path), guest.keyID == credential.keyID, guest.kind == credential.kind
    else { return nil }
    return guest
  }
}
