// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient

/// An error with the path that it is about.
package struct PathFailure: Error {
  let path: String
  let error: any Error
}

/// Something that this program found out by itself.
package struct CommandFailure: Error {
  let message: String

  package init(_ message: String) {
    self.message = message
  }
}

/// Runs `body`; what it throws is about this path.
func about<Result>(_ path: String, _ body: () async throws -> Result) async throws -> Result {
  do {
    return try await body()
  } catch let error as BlocktreeError where error.reason != .localFile {
    throw PathFailure(path: path, error: error)
  }
}

/// Says in one line what went wrong and what to do about it.
package enum ErrorText {
  package static func line(for error: any Error) -> String {
    Terminal.escaped("btrpc: \(self.text(for: error))")
  }

  private static func text(for error: any Error) -> String {
    switch error {
    case let failure as PathFailure: "\(failure.path): \(self.text(for: failure.error))"
    case let failure as CommandFailure: failure.message
    case let error as BlocktreeError: self.text(for: error)
    case is CancellationError: "interrupted"
    default: "\(error)"
    }
  }

  private static func text(for error: BlocktreeError) -> String {
    switch error.reason {
    case .notFound: "there is no such file"
    case .alreadyExists: "the name is taken; choose another one, or remove it first"
    case .permissionDenied: "permission denied; ask the owner for access, or use another profile"
    case .noSuchService: "nobody hosts the service there"
    case .mailboxFull: "too many messages wait for the service; try again in a moment"
    case .messageExpired: "no answer came in time; the message may have been handled"
    case .actorStopped: "whoever hosts the service ended before it answered; the message may have been handled"
    case .messageRefused: "the service does not answer this\(error.metadata["refusal"].map { ": \($0)" } ?? "")"
    case .notDirectory: "this is not a directory"
    case .isDirectory: "this is a directory"
    case .notEmpty: "the directory is not empty"
    case .loop: "too many symbolic links, or a directory would come to lie in itself"
    case .crossGeneration: "the two places belong to different clusters; copy with get and put instead"
    case .redirected where error.metadata["rule"] == nil:
      "the processes of \(error.metadata["directory"] ?? "another directory") answer for this "
        + "(\(error.metadata["processes"] ?? "")); choose one with --address"
    case .redirected:
      "the clusters of the domain send from one to the other without end (\(self.details(error))); ask who runs them"
    case .parentUnreachable:
      "this takes the processes of \(error.metadata["directory"] ?? "a directory above"), which can not be reached from "
        + "there at present; what lies deeper goes on"
    case .delegated:
      "\(error.metadata["directory"] ?? "the directory") has a cluster of its own, and this is its last process; "
        + "see 'btrpc process drain'"
    case .wrongGeneration: "the file is stored by another cluster; name it by its path"
    case .wrongType: "this can not be done to a file of its type"
    case .invalidPath: "this is no path: \(self.rule(error.metadata["rule"]))"
    case .noSpace: "there is no room on the disk of the process; try again when there is"
    case .busy: "the process is busy; try again"
    case .dataLoss: "what is stored is damaged (\(self.details(error))); restore it from a copy"
    case .peerUnreachable where error.metadata["dns"] != nil: error.message
    case .peerUnreachable: "\(error.message); is the process running there, and is the address right?"
    case .peerNotTrusted: "\(error.message); is the address that of a process of this domain?"
    case .notLeader: "the cluster has no leader at the moment; try again, and see that most of its processes run"
    case .staleIncarnation:
      "the process belongs to a former life of the cluster, which a recovery has ended; ask another process"
    case .processNeeded:
      "the cluster can not do without this process now, as others do not run; see 'btrpc cluster status'"
    case .lastProcess:
      "this is the only process that stores the domain, which would be left without one; add another one first"
    case .operationTooOld, .sessionUnknown: "whether this was done can not be told; look, and repeat it if need be"
    case .credentialRefused:
      "the process refuses your credential: it was replaced or removed, or has expired; ask for a new one"
    case .localFile, .profile: error.message
    case .noKey where error.metadata["path"] != nil: error.message
    case .noKey: "the processes there have no key for this: it is cut off from them, or was given a new one"
    case .generationFrozen: "this is being moved to another cluster, which is done in a moment; try again"
    case .drainRefused: Self.drainRefusal(error.metadata["cause"])
    case .backupDamaged:
      "\(error.metadata["path"] ?? "") is no whole backup: \(error.metadata["fault"] ?? "") "
        + "at byte \(error.metadata["offset"] ?? "")"
    default: self.fallback(error)
    }
  }

  private static func drainRefusal(_ cause: String?) -> String {
    switch cause {
    case "NOT_DELEGATED": "the directory has no cluster of its own"
    case "NESTED": "a directory below it has a cluster of its own; drain that one first"
    case "NO_KEY": "it is cut off from the processes above, which can not read it; join it first with grant --parent"
    case "UNDER_WAY": "it, or a directory below it, is being taken back from its cluster; see 'btrpc tasks'"
    case "FINISHING": "it is about to be finished, and can not be given up any more"
    default: "the directory can not be taken back from its cluster (\(cause ?? "for a reason that is not known"))"
    }
  }

  private static func fallback(_ error: BlocktreeError) -> String {
    let details = error.metadata.isEmpty && error.reason == nil ? "" : " (\(self.details(error)))"
    let message = error.message.hasSuffix(".") ? String(error.message.dropLast()) : error.message
    return switch error.code {
    case .deadlineExceeded: "no answer in time, which does not say that nothing was done; see --timeout"
    case .unimplemented: "the process does not know this call; is it older than this program?"
    case .unavailable: "the process does not answer: \(message)\(details); try again"
    case .internalError, .unknown: "the process failed: \(message)\(details); see its log"
    default: "\(message)\(details)"
    }
  }

  private static func details(_ error: BlocktreeError) -> String {
    let pairs = error.metadata.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
    return ([error.reason?.rawValue].compactMap { $0 } + pairs).joined(separator: ", ")
  }

  static func rule(_ rule: String?) -> String {
    switch rule {
    case "empty": "it is empty"
    case "notAbsolute": "it has to begin with /"
    case "emptyComponent": "a name in it is empty"
    case "dotComponent": "names . and .. are not allowed"
    case "nul": "it contains a NUL byte"
    case "componentTooLong": "a name in it is longer than 255 bytes"
    case "pathTooLong": "it is longer than 4096 bytes"
    case "notUTF8": "it is not UTF-8"
    case "invalidDomain", "invalidURI": "it is not of the form bt://DOMAIN/PATH"
    case "otherDomain": "it is in another domain than the profile"
    default: rule ?? "it breaks a rule"
    }
  }
}
