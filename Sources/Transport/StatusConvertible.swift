// SPDX-License-Identifier: Apache-2.0

package import GRPCCore
package import GRPCProtobuf

/// An error that knows which gRPC status it becomes.
///
/// The runtime turns whatever a handler throws into a status by `RPCErrorConvertible`, in unary calls and in streams
/// alike. A module's errors conform to this protocol beside the handlers, in `X+Status.swift`, and name a status for
/// each case.
package protocol StatusConvertible: RPCErrorConvertible {
  var status: GoogleRPCStatus { get }
}

extension StatusConvertible {
  package var rpcErrorCode: RPCError.Code { self.status.code }
  package var rpcErrorMessage: String { self.status.message }
  package var rpcErrorMetadata: Metadata { self.status.rpcErrorMetadata }
}

extension GoogleRPCStatus {
  /// The domain of every reason in an `ErrorInfo` of ours.
  package static let domain = "blocktree"

  /// A status with an `ErrorInfo`.
  ///
  /// - Parameters:
  ///   - code: What kind of thing the caller should do.
  ///   - message: A sentence for people. Programs never look at it.
  ///   - reason: One of the stable reasons that the schema lists, in UPPER_SNAKE_CASE.
  ///   - metadata: What is needed to act.
  ///   - delay: How long to wait before the call is worth repeating; becomes a `RetryInfo`.
  package init(
    _ code: RPCError.Code,
    _ message: String,
    reason: String,
    _ metadata: [String: String] = [:],
    retryAfter delay: Duration? = nil
  ) {
    var details: [ErrorDetails] = [.errorInfo(reason: reason, domain: Self.domain, metadata: metadata)]
    if let delay { details.append(.retryInfo(delay: delay)) }
    self.init(code: code, message: message, details: details)
  }
}
