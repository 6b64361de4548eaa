// SPDX-License-Identifier: Apache-2.0

package import Transport

/// Every bound on what members say to one another, in one place.
package enum MemberLimits {
  /// Entries of one append. A driver must not let its `Replica` send more.
  package static let entriesPerAppendMax = 4_096
  /// Bytes of the payloads of one append: the encoded changes and their blocks.
  package static let appendByteCountMax = 8 << 20
  /// Bytes of payloads in one message on the stream. Larger ones are slow over TLS.
  package static let requestByteCount = 128 << 10
  /// Messages of consensus in one message on the stream.
  package static let messagesPerRequestMax = 1_024

  /// Urgent messages that wait for the stream to one member. The oldest goes first: what a member says now counts more
  /// than what it said before.
  package static let urgentCountMax = 1_024
  /// Bulk messages that wait for the stream to one member, and their bytes. One more is dropped: what follows a gap is
  /// of no use to the receiver.
  package static let bulkCountMax = 64
  package static let bulkByteCountMax = 32 << 20

  /// Bytes of incomplete appends, of all streams to this process together.
  package static let assemblyByteCountMax = 128 << 20

  /// Before a broken stream is opened again: at random between half of it and all; doubles with each failure in a row.
  package static let initialBackoff: Duration = .milliseconds(50)
  package static let maxBackoff: Duration = .seconds(1)
  /// For one answer to an introduction.
  package static let introductionTimeout: Duration = .seconds(5)

  /// The limits of connections between members: as others, but a peer that has become silent is noticed within
  /// seconds, and nothing waits for company, as all that goes out together already is one message.
  package static func transport(_ limits: TransportLimits = TransportLimits()) -> TransportLimits {
    var limits = limits
    limits.connectTimeout = .seconds(2)
    limits.handshakeTimeout = .seconds(5)
    // No more often than servers bear (`TransportLimits.minClientPingInterval`).
    limits.keepaliveInterval = .seconds(12)
    limits.keepaliveTimeout = .seconds(5)
    limits.flushDelay = .zero
    return limits
  }
}
