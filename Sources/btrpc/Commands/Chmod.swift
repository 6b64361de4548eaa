// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc chmod`
package struct Chmod: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Change the modes of files.",
    discussion: """
      A mode is octal, as 0644, or says what to change, as u=rw,g-w,o=,+X. One that begins with - follows --.

      EXAMPLES:
        btrpc chmod 0600 /home/ann/diary.txt
        btrpc chmod -R go-rwx /home/ann/private
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: .customShort("R"), help: "Change directories and all that is in them.")
  var recursive = false

  @Argument(help: "The mode. Put -- before one that begins with a dash.")
  var mode: ModeExpression

  @Argument(help: "Files and directories.", completion: RemotePath.completion, transform: RemotePath.parse)
  var paths: [RemotePath]

  package init() {}

  package func run(_ client: Client) async throws {
    let mode = self.mode
    try await AttributeChange(options: self.options, recursive: self.recursive).run(client, self.paths, self.forEach) {
      AttributeChanges(mode: mode.applied(to: $0.mode, isDirectory: $0.type == .directory))
    }
  }
}

/// `btrpc chown`
package struct Chown: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Change the owners and groups of files.",
    discussion: """
      An owner is the path of a credential, a group that of a directory. Only an authority above a file may give it away.

      EXAMPLES:
        btrpc chown /home/bob /projects/x
        btrpc chown -R /home/bob:/teams/x /projects/x
        btrpc chown :/teams/x /projects/x
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: .customShort("R"), help: "Change directories and all that is in them.")
  var recursive = false

  @Argument(help: ArgumentHelp("The new owner, group, or both.", valueName: "owner:group"))
  var ownership: Ownership

  @Argument(help: "Files and directories.", completion: RemotePath.completion, transform: RemotePath.parse)
  var paths: [RemotePath]

  package init() {}

  package func run(_ client: Client) async throws {
    let changes = AttributeChanges(owner: self.ownership.owner, group: self.ownership.group)
    try await AttributeChange(options: self.options, recursive: self.recursive).run(client, self.paths, self.forEach) {
      _ in changes
    }
  }
}

/// `/owner`, `/owner:/group` or `:/group`. A colon inside a path is no separator, as what follows does not begin with
/// a slash.
package struct Ownership: ExpressibleByArgument, Hashable, Sendable {
  package var owner: String?
  package var group: String?

  package init?(argument: String) {
    if argument.hasPrefix(":/") {
      self.group = String(argument.dropFirst())
    } else if argument.hasPrefix("/"), let separator = argument.firstRange(of: ":/") {
      self.owner = String(argument[..<separator.lowerBound])
      self.group = String(argument[argument.index(after: separator.lowerBound)...])
    } else if argument.hasPrefix("/") {
      self.owner = argument
    } else {
      return nil
    }
  }
}

/// Sets attributes of files, and of all below them where that is wanted.
struct AttributeChange {
  let options: GlobalOptions
  let recursive: Bool

  typealias ForEach = ([RemotePath], (RemotePath) async throws -> Void) async throws -> Void

  func run(
    _ client: Client, _ paths: [RemotePath], _ forEach: ForEach,
    _ changes: @escaping @Sendable (FileInfo) -> AttributeChanges
  ) async throws {
    var array = JSONArrayWriter()
    try await client.withFileSession { session in
      try await forEach(paths) { path in
        let info = try await about(path.text) { try await session.stat(path.text) }
        if self.recursive, info.type == .directory { try await self.changeContents(of: path, session, changes) }
        // Last, since it may take away what the rest needed.
        let changed = try await about(path.text) { try await session.setAttributes(path.text, changes(info)) }
        if self.options.json { try array.append(FileJSON(path: path.text, info: changed)) }
      }
    }
    if self.options.json { try array.finish() }
  }

  private func changeContents(
    of path: RemotePath, _ session: FileSession, _ changes: @escaping @Sendable (FileInfo) -> AttributeChanges
  ) async throws {
    var entries: [DirectoryEntry] = []
    try await about(path.text) {
      for try await entry in session.list(path.text, includesInfo: true) { entries.append(entry) }
    }
    for entry in entries where entry.type == .directory {
      try await self.changeContents(of: path.appending(entry.name), session, changes)
    }
    // As elsewhere, links are left alone: the files that they lead to may lie anywhere.
    try await Parallel.forEach(entries.filter { $0.type != .symbolicLink }, limit: 64) { entry in
      let path = path.appending(entry.name)
      try await about(path.text) {
        let known = entry.info
        let info = if let known { known } else { try await session.stat(path.text, followsLink: false) }
        try await session.setAttributes(path.text, changes(info), followsLink: false)
      }
    }
  }
}
