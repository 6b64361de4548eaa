// SPDX-License-Identifier: Apache-2.0

/// What the core knows of an entry of the log. Its payload is with the driver, under index and term.
///
/// Index and term name an entry uniquely in the whole group (dissertation, 3.5), so they are a good key for a cache.
public struct EntryHeader: Hashable, Sendable {
  public enum Kind: Hashable, Sendable {
    /// Something for the state machine.
    case command
    /// The first entry of a leader: commits what it found (dissertation, 3.6.2). Nothing for the state machine.
    case noop
    /// In force from when it is appended, not only when it is committed (dissertation, 4.1).
    case membership(Membership)
  }

  public var term: Term
  public var kind: Kind
  /// The payload's length in bytes; zero unless it is a command.
  public var byteCount: Int

  public init(term: Term, kind: Kind, byteCount: Int = 0) {
    self.term = term
    self.kind = kind
    self.byteCount = byteCount
  }
}
