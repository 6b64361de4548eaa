// SPDX-License-Identifier: Apache-2.0

package import Filesystem
internal import GRPCCore
package import GRPCProtobuf
internal import Transport
package import Trust

/// Why the discovery service gave no answer.
package enum DiscoveryError: Error, Hashable, Sendable {
  /// A path that breaks the rules for paths.
  case invalidPath(PathError)
  /// A request field that is malformed. Names it.
  case invalid(field: String)
  /// The caller may not ask this: whether there is anything there, or not.
  case permissionDenied
  /// This process can not read directories, so it can not judge who may ask.
  case notServing
  /// This takes the processes of a directory above, and none is known or can be reached. Nil when not even the
  /// directory is known.
  case parentUnreachable(TreePath?)
  /// More is asked at once than can be.
  case busy
  /// The filesystem service could not say who may ask.
  case filesystem(FilesystemError)

  init(_ error: FilesystemError) {
    switch error {
    case .permissionDenied: self = .permissionDenied
    case .invalidPath(let rule): self = .invalidPath(rule)
    case .parentUnreachable: self = .parentUnreachable(nil)
    default: self = .filesystem(error)
    }
  }
}

extension DiscoveryError: StatusConvertible {
  package var status: GoogleRPCStatus {
    switch self {
    case .invalidPath(let rule):
      .init(.invalidArgument, "The path breaks a rule.", reason: "INVALID_PATH", ["rule": rule.rawValue])
    case .invalid(let field):
      .init(.invalidArgument, "A field is malformed.", reason: "INVALID_REQUEST", ["field": field])
    case .permissionDenied: .init(.permissionDenied, "You may not do this.", reason: "PERMISSION_DENIED")
    case .notServing:
      .init(.unavailable, "This process does not answer such questions now.", reason: "NOT_SERVING")
    case .parentUnreachable(let directory):
      .init(
        .unavailable, "The processes of the directory above can not be reached.", reason: "PARENT_UNREACHABLE",
        directory.map { ["directory": "\($0)"] } ?? [:], retryAfter: .seconds(1))
    case .busy:
      .init(
        .resourceExhausted, "Too much at once.", reason: "BUSY", ["retry_delay_ms": "100"],
        retryAfter: .milliseconds(100))
    case .filesystem(let error): error.status
    }
  }
}
