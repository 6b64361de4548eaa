// SPDX-License-Identifier: Apache-2.0

internal import SectorStore

/// Every bound on a snapshot that goes from one member to another.
package enum SnapshotLimits {
  /// Bytes of items in one message on the stream, as senders make them. Larger ones are slow over TLS.
  package static let requestByteCount = 128 << 10
  /// The same, as receivers take them.
  package static let requestByteCountMax = 1 << 20
  /// Items that begin in one message on the stream.
  package static let itemsPerRequestMax = 4_096
  /// Bytes of one item.
  package static let itemByteCountMax = SnapshotItem.encodedBytesMax
  /// The donor reads about this much at a time, one piece ahead of what it sends; the receiver imports and acknowledges
  /// about this much at a time, one piece behind what it receives. What either end holds is a small multiple of it.
  package static let pieceByteCount = 1 << 20
  /// What a sender has sent and the receiver has not taken in: far more than a receiver waits for before it answers.
  package static let unacknowledgedByteCountMax: UInt64 = 8 << 20
  /// A receiver that hears nothing for so long takes another sender.
  package static let idleTime: Duration = .seconds(10)
}
