// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
package import GRPCProtobuf
internal import Inodes
internal import Transport
internal import Trust

extension SectorError: StatusConvertible {
  package var status: GoogleRPCStatus {
    switch self {
    case .conflict(let file, let current):
      .init(.aborted, "The file changed.", reason: "CONFLICT", ["file": "\(file)", "current": "\(current)"])
    case .permissionDenied:
      .init(.permissionDenied, "You may not do this.", reason: "PERMISSION_DENIED")
    case .notFound(let file):
      .init(.notFound, "There is no such file.", reason: "NOT_FOUND", ["file": "\(file)"])
    case .badSignature(let file):
      .init(
        .unauthenticated, "A signature is wrong or its signer unknown.", reason: "BAD_SIGNATURE", ["file": "\(file)"])
    case .integrity(let file, let error):
      .init(
        .invalidArgument, "Sectors, tree nodes and record do not fit one another.", reason: "INTEGRITY_MISMATCH",
        ["file": "\(file)", "detail": "\(error)"])
    case .invalidRecord(let file, .tooLarge(let field)):
      .init(
        .invalidArgument, "Too large: \(field).", reason: "TOO_LARGE",
        ["field": field].merging(file.map { ["file": "\($0)"] } ?? [:]) { first, _ in first })
    case .invalidRecord(let file, let error):
      .init(
        .invalidArgument, "A record is malformed.", reason: "INVALID_REQUEST",
        ["field": error.field].merging(file.map { ["file": "\($0)"] } ?? [:]) { first, _ in first })
    case .invalid(let field):
      .init(.invalidArgument, "A field is malformed.", reason: "INVALID_REQUEST", ["field": field])
    case .tooLarge(let what, let limit, let found):
      .init(
        .invalidArgument, "Too large: \(what).", reason: "TOO_LARGE",
        ["field": what, "limit": "\(limit)", "found": "\(found)"])
    case .wrongGeneration(let generation):
      .init(
        .failedPrecondition, "This cluster serves another generation.", reason: "WRONG_GENERATION",
        ["generation": "\(generation)"])
    case .versionGone(let file, let version, let current):
      .init(
        .failedPrecondition, "That version is not kept any more.", reason: "VERSION_GONE",
        ["file": "\(file)", "version": "\(version)", "current": "\(current)"])
    case .dataLoss(let file, let place):
      .init(
        .dataLoss, "What is stored is damaged.", reason: "DATA_LOSS",
        place.metadata.merging(file.map { ["file": "\($0)"] } ?? [:]) { first, _ in first })
    case .noSpace:
      .init(
        .resourceExhausted, "There is no room on the disk.", reason: "NO_SPACE", ["retry_delay_ms": "5000"],
        retryAfter: .seconds(5))
    case .busy:
      .init(
        .resourceExhausted, "Too much at once.", reason: "BUSY", ["retry_delay_ms": "50"],
        retryAfter: .milliseconds(50))
    case .notServing:
      .init(.unavailable, "This process does not serve now.", reason: "NOT_SERVING")
    case .notLeader(let leader):
      .init(
        .unavailable, "Another process leads this cluster.", reason: "NOT_LEADER",
        leader.map { ["leader": "\($0.path)", "addresses": $0.addresses.map(\.description).joined(separator: ",")] }
          ?? [:])
    case .leadershipLost:
      .init(.unavailable, "This process has just stopped leading its cluster.", reason: "NOT_SERVING")
    case .operationTooOld:
      .init(
        .failedPrecondition, "The operation is older than what is remembered.", reason: "OPERATION_TOO_OLD")
    case .sessionUnknown:
      .init(.failedPrecondition, "The session is not known.", reason: "SESSION_UNKNOWN")
    case .fenced(let current):
      .init(.failedPrecondition, "The lease was lost.", reason: "FENCED", ["current": "\(current)"])
    case .lastProcess:
      .init(
        .failedPrecondition, "The domain would be left without a process that stores it.", reason: "LAST_PROCESS")
    case .processNeeded(let path):
      .init(
        .failedPrecondition, "The cluster can not go on without the process now.", reason: "PROCESS_NEEDED",
        ["process": "\(path)"])
    case .delegated(let directory):
      .init(
        .failedPrecondition, "The directory has a cluster of its own, and this is its last process.",
        reason: "DELEGATED",
        ["directory": "\(directory)"])
    case .generationUnknown(let generation):
      .init(
        .failedPrecondition, "The generation was not allocated, or not for you.", reason: "GENERATION_UNKNOWN",
        ["generation": "\(generation)"])
    case .frozen(let generation):
      .init(
        .unavailable, "What is stored here is being moved to the cluster above.", reason: "GENERATION_FROZEN",
        ["generation": "\(generation)", "retry_delay_ms": "200"], retryAfter: .milliseconds(200))
    case .unreachable(let generation):
      .init(
        .unavailable, "The processes that store this can not be reached.", reason: "PEER_UNREACHABLE",
        ["generation": "\(generation)"])
    case .limitReached(let what, let limit):
      .init(
        .resourceExhausted, "A limit is reached: \(what).", reason: "LIMIT_REACHED",
        ["limit": "\(limit)", "field": what])
    case .internalFault:
      // What went wrong is in the log, not in the answer.
      .init(.internalError, "A fault of this process.", reason: "INTERNAL")
    }
  }
}

extension SectorError.DataLossPlace {
  var metadata: [String: String] {
    switch self {
    case .block(let level, let index):
      ["part": level == 0 ? "sector" : "tree node", "level": "\(level)", "index": "\(index)"]
    case .record: ["part": "record"]
    case .store(let what): ["part": what]
    }
  }
}

extension RecordError {
  /// The field that is wrong.
  package var field: String {
    switch self {
    case .malformed(let field), .tooLarge(let field), .contradiction(let field): field
    }
  }
}
