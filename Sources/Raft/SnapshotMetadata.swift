// SPDX-License-Identifier: Apache-2.0

/// What the core knows of a snapshot: all entries through `position` are in it, and this membership was in force there.
public struct SnapshotMetadata: Hashable, Sendable {
  public var position: LogPosition
  public var membership: Membership
  /// The entry that this membership stands in, or zero for the group's first one.
  public var membershipIndex: LogIndex

  public init(position: LogPosition, membership: Membership, membershipIndex: LogIndex) {
    self.position = position
    self.membership = membership
    self.membershipIndex = membershipIndex
  }
}
