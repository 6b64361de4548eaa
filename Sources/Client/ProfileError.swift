// SPDX-License-Identifier: Apache-2.0

/// Why a profile was not read or written.
public struct ProfileError: Error, Hashable, Sendable, CustomStringConvertible {
  package enum Problem: Hashable, Sendable {
    case missing
    case alreadyExists
    /// Others than the owner may use it.
    case tooOpen(mode: UInt16)
    case foreignOwner
    case wrongKind
    case malformed(String)
    case newerVersion(Int)
    /// The credential does not verify. Says why.
    case untrusted(String)
    case system(call: String, code: Int32, text: String)
  }

  /// The file or directory.
  public let path: String
  package let problem: Problem

  package init(_ path: String, _ problem: Problem) {
    self.path = path
    self.problem = problem
  }

  /// One line that says what is wrong and what to do.
  public var description: String {
    switch self.problem {
    case .missing:
      "\(self.path) is missing; name a profile directory, or make one with 'btnode init' or 'btrpc user add'"
    case .alreadyExists: "\(self.path) exists already; choose another directory"
    case .tooOpen(let mode):
      "\(self.path) is open to others (mode 0\(String(mode, radix: 8))); close it with 'chmod go= \(self.path)'"
    case .foreignOwner: "\(self.path) belongs to another user of this machine; use a profile of your own"
    case .wrongKind: "\(self.path) is not what a profile has there"
    case .malformed(let what): "\(self.path) is damaged: \(what)"
    case .newerVersion(let version): "\(self.path) has version \(version), which is newer than this program knows"
    case .untrusted(let why): "\(self.path) can not be used: \(why)"
    case .system(let call, _, let text): "\(self.path): \(call): \(text)"
    }
  }
}
