// SPDX-License-Identifier: Apache-2.0

package import Trust

/// Why there is no connection.
package enum TransportError: Error, Sendable {
  /// No TCP connection came about: no such host, refused, unreachable, timed out.
  case unreachable(NetworkAddress, String)
  /// TLS failed, or the peer speaks another protocol, or hung up. What the peer's TLS said is in the text.
  case handshakeFailed(String)
  /// The handshake took longer than ``TransportLimits/handshakeTimeout``.
  case handshakeTimedOut
  /// The peer's certificate chain does not verify.
  case untrustedPeer(TrustError)
  /// The peer is of the domain, but it is not the process that was to be reached.
  case unexpectedPeer(expected: TreePath?, found: TreePath)
  /// The peer's key has been revoked, or this process does not admit it for another reason.
  case peerNotAdmitted(TreePath)
  /// The peer could not be reached a moment ago; it will be tried again after this time.
  case backingOff(retryAfter: Duration, String)
  /// The pool or the server has as many connections as it may have.
  case tooManyConnections
  /// The connection, pool or server has been closed.
  case closed
  /// This process has no certificate, so it can not serve.
  case noIdentity
  /// A key or certificate of our own is not what TLS can use.
  case unusableIdentity(String)
  /// The channel handed in does not run on an event loop of this server.
  case foreignEventLoop
}

extension TransportError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .unreachable(let address, let reason): "can not reach \(address): \(reason)"
    case .handshakeFailed(let reason): "the TLS handshake failed: \(reason)"
    case .handshakeTimedOut: "the TLS handshake took too long"
    case .untrustedPeer(let error): "the peer's certificate is not to be trusted: \(error)"
    case .unexpectedPeer(let expected, let found):
      "expected \(expected.map { "\($0)" } ?? "a process"), but \(found) answered"
    case .peerNotAdmitted(let path): "\(path) is not admitted"
    case .backingOff(let delay, let reason): "will try again in \(delay): \(reason)"
    case .tooManyConnections: "too many connections"
    case .closed: "the connection is closed"
    case .noIdentity: "this process has no certificate"
    case .unusableIdentity(let reason): "the own key or certificate can not be used: \(reason)"
    case .foreignEventLoop: "the channel belongs to an event loop of somebody else"
    }
  }
}
