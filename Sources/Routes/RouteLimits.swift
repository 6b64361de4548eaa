// SPDX-License-Identifier: Apache-2.0

/// How much a trie may hold.
package struct RouteLimits: Hashable, Sendable {
  /// Of memory, in bytes: all that the trie has taken from the system, used or not yet. While a table grows, the old
  /// and the new one exist side by side for a moment, which is not counted.
  package var byteCountMax: Int
  /// How long a route may be remembered at most, whatever its expiry says; `RouteTime.never` excepted.
  package var lifetimeMax: Duration

  package init(byteCountMax: Int = 64 << 20, lifetimeMax: Duration = .seconds(600)) {
    self.byteCountMax = byteCountMax
    self.lifetimeMax = lifetimeMax
  }
}

/// What has happened in a trie since it was made.
package struct RouteCounters: Hashable, Sendable {
  /// Questions that were answered; negative answers are answers.
  package var hits: UInt64 = 0
  package var misses: UInt64 = 0
  package var insertions: UInt64 = 0
  /// Routes that were removed after they had expired.
  package var expirations: UInt64 = 0
  /// Routes that made room for others while they were still good.
  package var evictions: UInt64 = 0
  /// Routes that were not taken, as they are larger than all that a trie may hold.
  package var refusals: UInt64 = 0
}
