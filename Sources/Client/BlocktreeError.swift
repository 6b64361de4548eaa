// SPDX-License-Identifier: Apache-2.0

/// Why a call failed.
///
/// Programs act on ``code``, ``reason`` and ``retry``, never on the text of ``message``.
public struct BlocktreeError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What kind of thing went wrong: the codes of gRPC.
  public struct Code: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: Int

    public init(rawValue: Int) {
      self.rawValue = rawValue
    }

    public static let cancelled = Code(rawValue: 1)
    public static let unknown = Code(rawValue: 2)
    /// The request breaks a rule.
    public static let invalidArgument = Code(rawValue: 3)
    /// Too late. Whether the request was carried out can not be told.
    public static let deadlineExceeded = Code(rawValue: 4)
    public static let notFound = Code(rawValue: 5)
    public static let alreadyExists = Code(rawValue: 6)
    public static let permissionDenied = Code(rawValue: 7)
    /// Too much at once, or no room.
    public static let resourceExhausted = Code(rawValue: 8)
    /// The state of things does not allow this.
    public static let failedPrecondition = Code(rawValue: 9)
    /// Something changed meanwhile: read again and retry.
    public static let aborted = Code(rawValue: 10)
    public static let outOfRange = Code(rawValue: 11)
    public static let unimplemented = Code(rawValue: 12)
    public static let internalError = Code(rawValue: 13)
    /// The process can not be reached or does not serve.
    public static let unavailable = Code(rawValue: 14)
    /// What is stored is damaged.
    public static let dataLoss = Code(rawValue: 15)
    public static let unauthenticated = Code(rawValue: 16)

    /// As gRPC writes it: `NOT_FOUND`.
    public var description: String {
      Self.names.indices.contains(self.rawValue) ? Self.names[self.rawValue] : "CODE_\(self.rawValue)"
    }

    private static let names = [
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
      "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
      "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
    ]
  }

  /// Why exactly: one of the schema's reasons, without the prefix `REASON_`, or one of the connection's own.
  public struct Reason: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: String

    public init(rawValue: String) {
      self.rawValue = rawValue
    }

    public static let invalidRequest = Reason(rawValue: "INVALID_REQUEST")
    public static let invalidPath = Reason(rawValue: "INVALID_PATH")
    public static let tooLarge = Reason(rawValue: "TOO_LARGE")
    public static let permissionDenied = Reason(rawValue: "PERMISSION_DENIED")
    public static let notFound = Reason(rawValue: "NOT_FOUND")
    public static let alreadyExists = Reason(rawValue: "ALREADY_EXISTS")
    public static let notDirectory = Reason(rawValue: "NOT_DIRECTORY")
    public static let isDirectory = Reason(rawValue: "IS_DIRECTORY")
    public static let notEmpty = Reason(rawValue: "NOT_EMPTY")
    public static let loop = Reason(rawValue: "LOOP")
    public static let crossGeneration = Reason(rawValue: "CROSS_GENERATION")
    public static let wrongType = Reason(rawValue: "WRONG_TYPE")
    public static let conflict = Reason(rawValue: "CONFLICT")
    public static let operationTooOld = Reason(rawValue: "OPERATION_TOO_OLD")
    public static let sessionUnknown = Reason(rawValue: "SESSION_UNKNOWN")
    public static let versionGone = Reason(rawValue: "VERSION_GONE")
    public static let dataLoss = Reason(rawValue: "DATA_LOSS")
    public static let noSpace = Reason(rawValue: "NO_SPACE")
    public static let busy = Reason(rawValue: "BUSY")
    public static let notServing = Reason(rawValue: "NOT_SERVING")
    /// Another process leads the cluster, and nothing was done. Metadata: `leader` and `addresses`, if known. Clients go
    /// there by themselves; this is thrown when nobody led for too long.
    public static let notLeader = Reason(rawValue: "NOT_LEADER")
    public static let limitReached = Reason(rawValue: "LIMIT_REACHED")
    public static let outOfRange = Reason(rawValue: "OUT_OF_RANGE")
    /// No connection could be made.
    public static let peerUnreachable = Reason(rawValue: "PEER_UNREACHABLE")
    /// Who answered is not who should have, or has no good certificate.
    public static let peerNotTrusted = Reason(rawValue: "PEER_NOT_TRUSTED")
    /// The process does not accept the caller's certificate (any more).
    public static let credentialRefused = Reason(rawValue: "CREDENTIAL_REFUSED")
    /// The profile does not allow this: it has no authority, or its credential does not verify.
    public static let profile = Reason(rawValue: "PROFILE")
    /// A file of this machine could not be read or written. Metadata: `path`, `errno`.
    public static let localFile = Reason(rawValue: "LOCAL_FILE")
    /// What the process answered breaks the schema's rules. Metadata: `field`.
    public static let malformedAnswer = Reason(rawValue: "MALFORMED_ANSWER")

    public var description: String { self.rawValue }
  }

  /// What may become of the same request.
  public enum Retry: Hashable, Sendable {
    /// Never succeeds as it is: the request or the state of things has to change first.
    case never
    /// May succeed later; see ``BlocktreeError/retryDelay``.
    case later
    /// May succeed at another process.
    case elsewhere
  }

  public let code: Code
  /// Nil when it was no process of Blocktree that refused.
  public let reason: Reason?
  /// For people.
  public let message: String
  /// What is needed to act, as the schema lists it for each reason.
  public let metadata: [String: String]
  public let retry: Retry
  /// How long to wait before another attempt, if the process said so.
  public let retryDelay: Duration?

  public init(
    code: Code, reason: Reason? = nil, message: String, metadata: [String: String] = [:], retry: Retry = .never,
    retryDelay: Duration? = nil
  ) {
    self.code = code
    self.reason = reason
    self.message = message
    self.metadata = metadata
    self.retry = retry
    self.retryDelay = retryDelay
  }

  /// One line: code, reason, message and metadata.
  public var description: String {
    let why = self.reason.map { " (\($0))" } ?? ""
    let details = self.metadata.sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }.joined()
    return "\(self.code)\(why): \(self.message)\(details)"
  }
}

extension BlocktreeError {
  static func malformedAnswer(_ field: String) -> BlocktreeError {
    BlocktreeError(
      code: .internalError, reason: .malformedAnswer, message: "The process gave an answer that breaks the schema.",
      metadata: ["field": field])
  }

  static func invalidPath(_ rule: String, path: String) -> BlocktreeError {
    BlocktreeError(
      code: .invalidArgument, reason: .invalidPath, message: "The path breaks a rule.",
      metadata: ["rule": rule, "path": path])
  }

  static func invalid(_ message: String, field: String) -> BlocktreeError {
    BlocktreeError(code: .invalidArgument, reason: .invalidRequest, message: message, metadata: ["field": field])
  }

  static let deadlineExceeded = BlocktreeError(code: .deadlineExceeded, message: "The answer did not come in time.")

  static let closed = BlocktreeError(code: .unavailable, message: "The client or session has been closed.")

  /// Whether another attempt is worth making soon, without anything else having to change.
  package var isTransient: Bool { self.retry != .never && (self.code == .unavailable || self.reason == .busy) }

  /// Whether the request certainly was not carried out.
  package var isCertainlyUndone: Bool {
    switch self.reason {
    case .busy, .notLeader, .staleIncarnation, .redirected, .parentUnreachable, .generationFrozen: true
    default: false
    }
  }

  /// Whether another process may do better: this one can not be reached, or does not serve.
  package var isOfOneProcess: Bool {
    // What a whole cluster does not take now, another one of its processes does not take either.
    if self.reason == .generationFrozen { return false }
    return self.isUnknownCall || self.code == .unavailable || self.reason == Reason(rawValue: "TOO_MANY_CONNECTIONS")
  }

  /// Whether the process does not host the service, or is of a release that does not know the call: nothing was done.
  package var isUnknownCall: Bool { self.code == .unimplemented && self.reason == nil }

  /// A file was changed between two parts of it that were read.
  static func changed(_ path: String) -> BlocktreeError {
    BlocktreeError(
      code: .aborted, reason: .conflict, message: "The file was changed while it was read.", metadata: ["path": path],
      retry: .later)
  }
}
