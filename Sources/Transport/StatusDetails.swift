// SPDX-License-Identifier: Apache-2.0

package import GRPCCore
internal import GRPCProtobuf

/// What a failed call said, taken apart: the client's view of what `StatusConvertible` made.
package struct StatusDetails: Error, Hashable, Sendable {
  package let code: RPCError.Code
  /// For people.
  package let message: String
  /// The stable reason, when the error came from Blocktree; nothing, when the transport or somebody else made it.
  package let reason: String?
  /// What came with the reason. Empty without one.
  package let metadata: [String: String]
  /// How long to wait before trying again, when the server said so. Never negative.
  package let retryDelay: Duration?

  package init(
    code: RPCError.Code, message: String, reason: String? = nil, metadata: [String: String] = [:],
    retryDelay: Duration? = nil
  ) {
    self.code = code
    self.message = message
    self.reason = reason
    self.metadata = metadata
    self.retryDelay = retryDelay
  }

  /// Never fails: details that are missing, foreign or malformed leave `reason` empty.
  package init(_ error: RPCError) {
    var reason: String?
    var metadata: [String: String] = [:]
    var delay: Duration?
    for detail in (try? error.unpackGoogleRPCStatus())?.details ?? [] {
      if let info = detail.errorInfo, info.domain == GoogleRPCStatus.domain, reason == nil {
        reason = info.reason
        metadata = info.metadata
      }
      if let info = detail.retryInfo, info.delay >= .zero { delay = info.delay }
    }
    self.init(code: error.code, message: error.message, reason: reason, metadata: metadata, retryDelay: delay)
  }

  /// Whatever a call has thrown. Beside statuses that is what the client's own side has to say: that the connection has
  /// closed (`unavailable`: take another one), or that the task was cancelled.
  package init(describing error: any Error) {
    switch error {
    case let details as StatusDetails: self = details
    case let error as RPCError: self.init(error)
    case let error as any RPCErrorConvertible: self.init(RPCError(error))
    case let error as RuntimeError where error.code == .clientIsStopped:
      self.init(code: .unavailable, message: error.message)
    case is CancellationError: self.init(code: .cancelled, message: "The call was cancelled.")
    default: self.init(code: .unknown, message: "\(error)")
    }
  }

  /// What the caller may do with the same request.
  package enum Retry: Hashable, Sendable {
    /// At once, at another process or over a new connection. This one can not serve it.
    case elsewhere
    /// Here, but later; not before the delay, where one is known.
    case later(Duration?)
    /// Never as it is: the request or the state of things has to change first.
    case never
  }

  /// A timeout says nothing about whether the request was carried out, so it counts as `never` here: only a caller
  /// whose requests carry an identifier of their own may repeat it.
  package var retry: Retry {
    switch self.code {
    case .unavailable: self.retryDelay.map { .later($0) } ?? .elsewhere
    case .resourceExhausted: self.reason == MessageRefusal.tooLargeReason ? .never : .later(self.retryDelay)
    default: self.retryDelay.map { .later($0) } ?? .never
    }
  }
}
