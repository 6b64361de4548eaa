// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import Synchronization

/// What became of the files of a copy, from all tasks that work on it.
final class CopyResults: Sendable {
  private struct File: Encodable {
    var local: String
    var path: String
    var size: UInt64
    var version: UInt64
  }

  private struct State {
    var files: [File] = []
    var hasFailed = false
  }

  private let state = Mutex(State())

  var hasFailed: Bool { self.state.withLock { $0.hasFailed } }

  func add(local: String, remote: String, _ info: FileInfo) {
    self.state.withLock {
      $0.files.append(File(local: local, path: remote, size: info.size, version: info.version))
    }
  }

  /// One file failed; the others go on. Throws what ends everything.
  func fail(_ error: any Error) throws {
    if error is CancellationError { throw error }
    self.state.withLock { $0.hasFailed = true }
    Standard.complain(ErrorText.line(for: error))
  }

  func print() throws {
    try JSONOutput.print(self.state.withLock { $0.files })
  }
}

/// Paths of this machine, as text.
package enum LocalPath {
  package static func join(_ directory: String, _ name: String) -> String {
    directory.hasSuffix("/") ? directory + name : "\(directory)/\(name)"
  }

  /// The last name; nil where there is none that could be a name elsewhere: `/`, `.`, `..`.
  package static func name(of path: String) -> String? {
    guard let name = path.split(separator: "/").last, name != ".", name != ".." else { return nil }
    return String(name)
  }
}
