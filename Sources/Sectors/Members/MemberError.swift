// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import GRPCCore
package import GRPCProtobuf
package import Raft
internal import Transport
internal import Trust

/// Why a message of another member, or a stream of them, was refused. What came before it on the stream was handed over.
package enum MemberError: Error, Hashable, Sendable {
  /// The caller is no process of this cluster.
  case permissionDenied
  /// Another generation than the one here.
  case wrongGeneration(UInt64)
  /// The sender is not the member that its process is known as, or this process is not the receiver that is meant.
  case wrongMember(End, expected: MemberID?)
  /// The sender belongs to a life of the group that is over: this one came after it.
  case staleIncarnation(GroupLife)
  /// This process has no store yet, or does not serve now.
  case notServing
  /// More is under way to this process than it keeps. Later it may go.
  case busy
  /// A field that is malformed, missing or out of place. Names it.
  case invalid(field: String)
  /// More than a limit allows.
  case tooLarge(String, limit: Int, found: Int)

  package enum End: String, Hashable, Sendable {
    case sender
    case receiver
  }
}

extension MemberError: StatusConvertible {
  static let staleIncarnationReason = "STALE_INCARNATION"

  package var status: GoogleRPCStatus {
    switch self {
    case .permissionDenied:
      .init(.permissionDenied, "You may not do this.", reason: "PERMISSION_DENIED")
    case .wrongGeneration(let generation):
      .init(
        .failedPrecondition, "This cluster serves another generation.", reason: "WRONG_GENERATION",
        ["generation": "\(generation)"])
    case .wrongMember(let end, let expected):
      .init(
        .failedPrecondition, "The \(end.rawValue) is another member.", reason: "WRONG_MEMBER",
        ["field": end.rawValue].merging(expected.map { ["member": "\($0.rawValue)"] } ?? [:]) { first, _ in first })
    case .staleIncarnation(let life):
      .init(
        .failedPrecondition, "A recovery has ended that life of the cluster.", reason: Self.staleIncarnationReason,
        ["incarnation": "\(life.incarnation.rawValue)"]
          .merging(life.warrant.map { ["warrant": Data($0.bytes).base64EncodedString()] } ?? [:]) { first, _ in first })
    case .notServing:
      .init(.unavailable, "This process does not serve now.", reason: "NOT_SERVING")
    case .busy:
      .init(
        .resourceExhausted, "Too much at once.", reason: "BUSY", ["retry_delay_ms": "50"],
        retryAfter: .milliseconds(50))
    case .invalid(let field):
      .init(.invalidArgument, "A field is malformed.", reason: "INVALID_REQUEST", ["field": field])
    case .tooLarge(let what, let limit, let found):
      .init(
        .invalidArgument, "Too large: \(what).", reason: "TOO_LARGE",
        ["field": what, "limit": "\(limit)", "found": "\(found)"])
    }
  }
}
