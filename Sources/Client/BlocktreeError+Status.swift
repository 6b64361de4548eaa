// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import GRPCCore
internal import NIOCore
internal import Transport
internal import Trust

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

extension BlocktreeError {
  /// What the runtime threw, in the words of this module. Cancellation is no error of a call: it is thrown on.
  package init(thrown error: any Error) throws(CancellationError) {
    switch error {
    case let error as BlocktreeError: self = error
    case let error as TransportError: self.init(error)
    case let error as RPCError: self.init(error)
    case is CancellationError: throw CancellationError()
    case let error as RuntimeError:
      // The connection was closed before the call began.
      self.init(code: .unavailable, message: error.message, retry: .elsewhere)
    case is ChannelError, is IOError:
      self.init(code: .unavailable, message: "The connection broke: \(Self.short("\(error)"))", retry: .elsewhere)
    default:
      self.init(code: .unknown, message: "\(error)")
    }
  }

  init(_ error: RPCError) {
    let details = StatusDetails(error)
    self.init(
      code: Code(rawValue: details.code.rawValue), reason: details.reason, message: details.message,
      metadata: details.metadata, retryDelay: details.retryDelay)
  }

  init(_ error: TransportError) {
    if case .handshakeFailed(let reason) = error, Self.isRefusal(reason) {
      self.init(
        code: .unauthenticated, reason: .credentialRefused,
        message: "The process refuses the caller's credential: it has been replaced or removed, or has expired.")
      return
    }
    let details = StatusDetails(RPCError(error))
    let message =
      switch error {
      case .unreachable(let address, let reason): "can not reach \(address): \(Self.short(reason))"
      case .backingOff(_, let reason): Self.short(reason)
      default: "\(error)"
      }
    self.init(
      code: Code(rawValue: details.code.rawValue), reason: details.reason, message: message,
      metadata: details.metadata, retryDelay: details.retryDelay)
  }

  /// Whether the other side's TLS said that our certificate is not good.
  private static func isRefusal(_ reason: String) -> Bool {
    ["CERTIFICATE_UNKNOWN", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED", "UNKNOWN_CA"].contains {
      reason.contains("ALERT_\($0)")
    }
  }

  /// What the system says where the network's error names its number; otherwise all of it.
  private static func short(_ reason: String) -> String {
    guard let range = reason.firstRange(of: "errno: "),
      let code = Int32(reason[range.upperBound...].prefix { $0.isNumber })
    else { return reason }
    return String(cString: strerror(code))
  }

  /// A failed operation of a session.
  package init(_ failure: Blocktree_V1_Failure) {
    let delay = failure.metadata["retry_delay_ms"].flatMap(Int.init).map { Duration.milliseconds($0) }
    self.init(
      code: Code(rawValue: Int(failure.code)), reason: failure.reason.isEmpty ? nil : failure.reason,
      message: failure.message, metadata: failure.metadata, retryDelay: delay.map { max($0, .zero) })
  }

  /// A local thing of trust that does not hold.
  init(_ error: TrustError, _ what: String) {
    self.init(
      code: .failedPrecondition, reason: .profile, message: "\(what): \(error.sentence)",
      metadata: ["detail": error.rawValue])
  }

  private init(
    code: Code, reason: String?, message: String, metadata: [String: String], retryDelay: Duration?
  ) {
    let reason = reason.map { Reason(rawValue: $0) }
    let retry: Retry =
      switch code {
      case .unavailable: retryDelay == nil ? .elsewhere : .later
      case .resourceExhausted: Self.lasting.contains(reason) ? .never : .later
      default: retryDelay == nil ? .never : .later
      }
    self.init(
      code: code, reason: reason, message: message, metadata: metadata, retry: retry, retryDelay: retryDelay)
  }

  /// Limits that time does not lift.
  private static let lasting: Set<Reason?> = [.limitReached, .tooLarge, Reason(rawValue: "MESSAGE_TOO_LARGE")]
}

extension TrustError {
  /// For people.
  package var sentence: String {
    switch self {
    case .expired: "it has expired"
    case .notYetValid: "it is not valid yet; is this machine's clock right?"
    case .foreignDomain: "it belongs to another domain"
    case .pathNotCovered: "its directory is not above the path"
    case .notAuthority: "it is no authority"
    case .notCredential: "it is no credential"
    case .wrongKey: "the key is another one"
    case .wrongPath: "the path is another one"
    case .badSignature: "a signature is wrong"
    case .unknownVersion: "its format is newer than this program"
    default: "it is not well-formed (\(self.rawValue))"
    }
  }
}
