// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
package import GRPCProtobuf
internal import Transport

/// Why a message was not delivered, or a program is not attached.
package enum MessageError: Error, Hashable, Sendable {
  case permissionDenied
  /// A request field that is malformed. Names it.
  case invalid(field: String)
  case tooLarge(field: String, limit: Int, found: Int)
  /// Nobody here hosts the service.
  case noSuchService
  /// No further message may wait.
  case mailboxFull
  /// The time was over. The message may have been handled.
  case expired
  /// Whoever hosts the service is gone. The message may have been handled.
  case stopped
  /// Whoever hosts the service does not answer this, and says why.
  case refused(String)
  /// One more is more than there may be. Names what.
  case limitReached(String, limit: Int)
}

extension MessageError: StatusConvertible {
  package var status: GoogleRPCStatus {
    switch self {
    case .permissionDenied: .init(.permissionDenied, "You may not do this.", reason: "PERMISSION_DENIED")
    case .invalid(let field):
      .init(.invalidArgument, "A field is malformed.", reason: "INVALID_REQUEST", ["field": field])
    case .tooLarge(let field, let limit, let found):
      .init(
        .invalidArgument, "A field is too large.", reason: "TOO_LARGE",
        ["field": field, "limit": "\(limit)", "found": "\(found)"])
    case .noSuchService: .init(.notFound, "Nobody hosts the service here.", reason: "NO_SUCH_SERVICE")
    case .mailboxFull:
      .init(
        .resourceExhausted, "Too many messages wait for whoever hosts the service.", reason: "MAILBOX_FULL",
        ["retry_delay_ms": "100"], retryAfter: .milliseconds(100))
    case .expired: .init(.deadlineExceeded, "No answer came in time.", reason: "MESSAGE_EXPIRED")
    case .stopped:
      .init(.aborted, "Whoever hosts the service ended before it answered.", reason: "ACTOR_STOPPED")
    case .refused(let why):
      .init(
        .failedPrecondition, "Whoever hosts the service does not answer this.", reason: "MESSAGE_REFUSED",
        why.isEmpty ? [:] : ["refusal": why])
    case .limitReached(let what, let limit):
      .init(
        .resourceExhausted, "There may be no more of these.", reason: "LIMIT_REACHED",
        ["field": what, "limit": "\(limit)"])
    }
  }
}
