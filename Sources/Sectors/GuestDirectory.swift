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

  /// Guests that are remembered; beyond that, the one that would be forgotten first goes.
  package static let countMax = 4_096

  private let guests = Mutex<[TreePath: Confirmed]>([:])
  private let now: @Sendable () -> ContinuousClock.Instant

  package init(now: @escaping @Sendable () -> ContinuousClock.Instant = { .now }) { self.now = now }

  /// Remembers a guest for so long, in place of what was known of its path.
  package func confirm(_ guest: Guest, for lifetime: Duration) {
    let now = self.now()
    self.guests.withLock { guests in
      if guests.count >= Self.countMax, guests[guest.path] == nil {
        guests = guests.filter { $0.value.end > now }
        if guests.count >= Self.countMax, let first = guests.min(by: { $0.value.end < $1.value.end })?.key {
          guests[first] = nil
        }
      }
      guests[guest.path] = Confirmed(guest: guest, end: now + lifetime)
    }
  }

  /// Forgets a guest: its cluster does not confirm it any more.
  package func forget(_ path: TreePath) { self.guests.withLock { $0[path] = nil } }

  /// Who is confirmed at a path at present.
  package func guest(at path: TreePath) -> Guest? {
    guard let known = self.guests.withLock({ $0[path] }), known.end > self.now() else { return nil }
    return known.guest
  }

  /// The guest that holds this credential, with this key and kind; nil when it is not confirmed at present.
  package func guest(_ credential: Credential) -> Guest? {
    guard let guest = self.guest(at: credential.path), guest.keyID == credential.keyID, guest.kind == credential.kind
    else { return nil }
    return guest
  }
}
