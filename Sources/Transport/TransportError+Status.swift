// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
package import GRPCProtobuf

extension TransportError: StatusConvertible {
  /// For handlers that had to reach somebody else and could not. All but our own faults are UNAVAILABLE: another
  /// process, or the same one later, may do.
  package var status: GoogleRPCStatus {
    switch self {
    case .unreachable(let address, _):
      .init(.unavailable, "\(self)", reason: "PEER_UNREACHABLE", ["address": "\(address)"])
    case .handshakeFailed, .handshakeTimedOut:
      .init(.unavailable, "\(self)", reason: "PEER_HANDSHAKE_FAILED")
    case .untrustedPeer, .unexpectedPeer, .peerNotAdmitted:
      .init(.unavailable, "\(self)", reason: "PEER_NOT_TRUSTED")
    case .backingOff(let delay, _):
      .init(.unavailable, "\(self)", reason: "PEER_UNREACHABLE", retryAfter: delay)
    case .tooManyConnections:
      .init(.resourceExhausted, "\(self)", reason: "TOO_MANY_CONNECTIONS")
    case .closed:
      .init(.unavailable, "\(self)", reason: "SHUTTING_DOWN")
    case .noIdentity, .unusableIdentity, .foreignEventLoop:
      .init(.internalError, "\(self)", reason: "INTERNAL")
    }
  }
}
