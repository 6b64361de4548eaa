// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc rm`
package struct Rm: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Remove files and directories.",
    discussion: """
      EXAMPLES:
        btrpc rm /home/ann/old.txt
        btrpc rm -r /home/ann/build
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: [.short, .customShort("R"), .long], help: "Remove directories and all that is in them.")
  var recursive = false

  @Flag(name: .shortAndLong, help: "Say nothing of files that are not there.")
  var force = false

  @Flag(name: .shortAndLong, help: "Remove empty directories too.")
  var directory = false

  @Flag(name: .shortAndLong, help: "Print what is removed.")
  var verbose = false

  @Argument(
    help: "Files and directories to be removed.", completion: RemotePath.completion, transform: RemotePath.parse)
  var paths: [RemotePath]

  package init() {}

  package func validate() throws {
    if self.paths.contains(where: { $0.name == nil }) { throw ValidationError("The root can not be removed.") }
  }

  private struct Removed: Encodable {
    var path: String
  }

  package func run(_ client: Client) async throws {
    var array = JSONArrayWriter()
    try await client.withFileSession { session in
      try await self.forEach(self.paths) { path in
        do {
          try await self.remove(path, session)
        } catch let failure as PathFailure where self.force {
          guard let error = failure.error as? BlocktreeError, error.reason == .notFound else { throw failure }
          return
        }
        if self.options.json { try array.append(Removed(path: path.text)) }
      }
    }
    if self.options.json { try array.finish() }
  }

  private func remove(_ path: RemotePath, _ session: FileSession) async throws {
    do {
      try await about(path.text) { try await session.remove(path.text, self.directory ? .any : .file) }
      return try self.tell(path)
    } catch let failure as PathFailure {
      let reason = (failure.error as? BlocktreeError)?.reason
      guard reason == .isDirectory || reason == .notEmpty else { throw failure }
      guard self.recursive else {
        throw CommandFailure("\(path): this is a directory; use -r to remove it with all that is in it")
      }
    }
    try await self.removeDirectory(path, session)
  }

  private func removeDirectory(_ path: RemotePath, _ session: FileSession) async throws {
    // The listing is complete before anything in it is removed, a directory at a time.
    var entries: [DirectoryEntry] = []
    try await about(path.text) {
      for try await entry in session.list(path.text) { entries.append(entry) }
    }
    for entry in entries where entry.type == .directory {
      try await self.removeDirectory(path.appending(entry.name), session)
    }
    let files = entries.filter { $0.type != .directory }.map { path.appending($0.name) }
    try await Parallel.forEach(files, limit: 64) { file in
      try await about(file.text) { try await session.remove(file.text) }
      try self.tell(file)
    }
    try await about(path.text) { try await session.remove(path.text, .directory) }
    try self.tell(path)
  }

  private func tell(_ path: RemotePath) throws {
    if self.verbose, !self.options.json { try Standard.line("removed \(path)") }
  }
}

/// Does the same to many things, several at a time.
enum Parallel {
  /// The first error ends it, when those that are under way have ended.
  static func forEach<Element: Sendable>(
    _ elements: [Element], limit: Int, _ body: @escaping @Sendable (Element) async throws -> Void
  ) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (index, element) in elements.enumerated() {
        if index >= limit { try await group.next() }
        group.addTask { try await body(element) }
      }
      try await group.waitForAll()
    }
  }
}
