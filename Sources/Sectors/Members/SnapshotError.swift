// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
package import GRPCProtobuf
package import SectorStore
internal import Transport

/// Why a snapshot was not taken in, beside what ``MemberError`` says. There is no new store.
package enum SnapshotError: Error, Hashable, Sendable {
  /// An item is not what was sent, or not of a version that is known here.
  case damagedItem
  /// The items break a rule of snapshots.
  case fault(SnapshotFault)
  /// What was taken in stays; the sender may go on when there is room.
  case noSpace
  /// The member has the log through the snapshot's index, or has applied more.
  case notNeeded
}

extension SnapshotError: StatusConvertible {
  package var status: GoogleRPCStatus {
    switch self {
    case .damagedItem:
      .init(.dataLoss, "An item of the snapshot is damaged.", reason: "DATA_LOSS", ["part": "snapshot"])
    case .fault(let fault):
      .init(
        .dataLoss, "What was sent is no snapshot.", reason: "DATA_LOSS",
        ["part": "snapshot", "fault": fault.rawValue])
    case .noSpace:
      .init(
        .resourceExhausted, "There is no room on the disk.", reason: "NO_SPACE", ["retry_delay_ms": "5000"],
        retryAfter: .seconds(5))
    case .notNeeded:
      .init(.failedPrecondition, "The member has all of this.", reason: "NOT_NEEDED")
    }
  }
}
