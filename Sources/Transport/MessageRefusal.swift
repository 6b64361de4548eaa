// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
internal import GRPCProtobuf

/// Why the transport ends a call because of what it sends.
enum MessageRefusal {
  static let tooLargeReason = "MESSAGE_TOO_LARGE"

  /// A message exceeds ``TransportLimits/maxMessageByteCount``.
  case tooLarge(byteCount: Int, limit: Int)
  /// The connection, or all of them, has received more than it may hold (``TransportLimits``), and this call was the one
  /// that did it.
  case tooMuchAtOnce

  /// The stream ended in the middle of a message.
  case truncated

  var status: GoogleRPCStatus {
    switch self {
    case .tooLarge(let byteCount, let limit):
      GoogleRPCStatus(
        .resourceExhausted, "The message of \(byteCount) bytes is larger than \(limit) bytes.",
        reason: Self.tooLargeReason, ["byte_count": "\(byteCount)", "limit": "\(limit)"])
    case .tooMuchAtOnce:
      GoogleRPCStatus(
        .resourceExhausted, "More is being sent at once than the server keeps for its handlers.",
        reason: "TOO_MUCH_AT_ONCE", retryAfter: .seconds(1))
    case .truncated:
      GoogleRPCStatus(
        .invalidArgument, "The stream ended in the middle of a message.", reason: "INVALID_REQUEST",
        ["field": "message"])
    }
  }
}
