// SPDX-License-Identifier: Apache-2.0

/// Bounds of a runtime, in one place. What belongs to one actor stands in `ActorOptions`.
@usableFromInline package struct ActorLimits: Hashable, Sendable {
  /// How many actors there may be at a time.
  package var actorCountMax = 8_000_000
  /// How many dead letters are kept; the oldest go first.
  package var deadLetterCountMax = 1_024
  /// How many actors one actor may watch at a time: each brings a notice that is taken even into a full mailbox.
  package var watchCountMax = 65_536
  /// How many members a group may have.
  package var memberCountMax = 4_096
  /// How many services may be registered.
  package var serviceCountMax = 4_096
  /// How many messages an actor handles before others get their turn.
  package var turnMessageCountMax = 64

  package init() {}

  /// How long a question waits for its answer when nobody says otherwise.
  @usableFromInline package static let patience = Duration.seconds(10)
  /// The longest name of an actor or a service, in bytes of UTF-8.
  package static let nameByteCountMax = 255
  /// The longest path of a process, and the longest scope, in bytes of UTF-8: a path of the tree with its domain.
  package static let pathByteCountMax = 4_224
  /// The most bytes in the payload of an envelope.
  package static let payloadByteCountMax = 1 << 20
  /// The most processes that an envelope may pass.
  package static let hopCountMax: UInt8 = 16
}
