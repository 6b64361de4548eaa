// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc tree`
package struct TreeCommand: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "tree",
    abstract: "Show directories with all that is in them.",
    discussion: """
      EXAMPLES:
        btrpc tree /home
        btrpc tree -L 2 -s /
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(name: .customShort("L"), help: ArgumentHelp("Go so many levels deep.", valueName: "levels"))
  var depth: Int?

  @Flag(name: .customShort("d"), help: "Show directories only.")
  var directoriesOnly = false

  @Flag(name: .customShort("s"), help: "Show sizes.")
  var sizes = false

  @Argument(help: "Where to begin.", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath?

  package init() {}

  package func validate() throws {
    if let depth, depth < 1 { throw ValidationError("The depth is at least 1.") }
  }

  private struct Node: Encodable {
    var name: String
    var type: String
    var size: UInt64?
    var error: String?
    var children: [Node]?
  }

  private struct Counts {
    var directories = 0
    var files = 0
  }

  package func run(_ client: Client) async throws {
    guard let path = self.path ?? RemotePath(argument: "/") else { return }
    try await client.withFileSession { session in
      let info = try await about(path.text) { try await session.stat(path.text) }
      if self.options.json {
        var node = Node(name: path.text, type: info.type.description, size: info.size)
        if info.type == .directory { try await self.fill(&node, path, session, level: 1) }
        return try JSONOutput.print(node)
      }
      try Standard.line(path.text)
      var counts = Counts()
      if info.type == .directory { try await self.show(path, session, prefix: "", level: 1, &counts) }
      try Standard.line("")
      try Standard.line(
        Self.count(counts.directories, "directory", "directories") + ", " + Self.count(counts.files, "file", "files"))
    }
  }

  private static func count(_ number: Int, _ one: String, _ many: String) -> String {
    "\(number) \(number == 1 ? one : many)"
  }

  private func entries(_ path: RemotePath, _ session: FileSession) async throws -> [DirectoryEntry] {
    var entries: [DirectoryEntry] = []
    for try await entry in session.list(path.text, includesInfo: self.sizes || self.options.json) {
      if !self.directoriesOnly || entry.type == .directory { entries.append(entry) }
    }
    return entries.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
  }

  /// What may not be read is part of the picture, not the end of it.
  private func show(
    _ path: RemotePath, _ session: FileSession, prefix: String, level: Int, _ counts: inout Counts
  ) async throws {
    let entries: [DirectoryEntry]
    do {
      entries = try await self.entries(path, session)
    } catch let error as BlocktreeError where level > 1 && error.code != .unavailable {
      return try Standard.line("\(prefix)└── [\(ErrorText.line(for: error).dropFirst("btrpc: ".count))]")
    } catch {
      throw PathFailure(path: path.text, error: error)
    }
    for (index, entry) in entries.enumerated() {
      let isLast = index == entries.count - 1
      let child = path.appending(entry.name)
      var text = Terminal.escaped(entry.name)
      if self.sizes, let info = entry.info { text = "[\(Format.size(info.size))] \(text)" }
      if entry.type == .symbolicLink, let target = try? await session.readSymbolicLink(child.text) {
        text += " -> \(Terminal.escaped(target))"
      }
      try Standard.line("\(prefix)\(isLast ? "└── " : "├── ")\(text)")
      guard entry.type == .directory else {
        counts.files += 1
        continue
      }
      counts.directories += 1
      if self.depth.map({ level < $0 }) ?? true {
        try await self.show(child, session, prefix: prefix + (isLast ? "    " : "│   "), level: level + 1, &counts)
      }
    }
  }

  private func fill(_ node: inout Node, _ path: RemotePath, _ session: FileSession, level: Int) async throws {
    var children: [Node] = []
    do {
      for entry in try await self.entries(path, session) {
        var child = Node(name: entry.name, type: entry.type.description, size: entry.info?.size)
        if entry.type == .directory, self.depth.map({ level < $0 }) ?? true {
          try await self.fill(&child, path.appending(entry.name), session, level: level + 1)
        }
        children.append(child)
      }
    } catch let error as BlocktreeError where level > 1 && error.code != .unavailable {
      node.error = error.reason?.rawValue ?? error.code.description
    }
    node.children = children
  }
}
