// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc ls`
package struct Ls: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "List directories.",
    discussion: """
      EXAMPLES:
        btrpc ls
        btrpc ls -l /home/ann
        btrpc --json ls -l / | jq -r '.[] | select(.size > 1000000) | .path'
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: .short, help: "Long: mode, links, owner, group, size, time and name.")
  var long = false

  @Flag(name: .shortAndLong, help: "Describe directories themselves, not what is in them.")
  var directory = false

  @Flag(name: .customShort("t"), help: "Sort by time, newest first.")
  var byTime = false

  @Flag(name: .customShort("S"), help: "Sort by size, largest first.")
  var bySize = false

  @Flag(name: .customShort("r"), help: "Reverse the order.")
  var reversed = false

  @Argument(help: "Directories and files.", completion: RemotePath.completion, transform: RemotePath.parse)
  var paths: [RemotePath] = []

  package init() {}

  private struct Row {
    let path: String
    let entry: DirectoryEntry
    var target: String?
  }

  package func run(_ client: Client) async throws {
    var array = JSONArrayWriter()
    let paths = self.paths.isEmpty ? RemotePath(argument: "/").map { [$0] } ?? [] : self.paths
    var isFirst = true
    var damaged: [String] = []
    try await self.forEach(paths) { path in
      let isStale = OneTime()
      let rows = try await about(path.text) { try await self.rows(client, path, isStale) }
      defer { if isStale.isSet { Standard.noteStale(path.text) } }
      for row in rows where row.entry.isDamaged { damaged.append(row.path) }
      if self.options.json {
        for row in rows { try array.append(FileJSON(path: row.path, entry: row.entry, target: row.target)) }
        return
      }
      if paths.count > 1 {
        if !isFirst { try Standard.line("") }
        try Standard.line("\(path):")
      }
      isFirst = false
      for line in self.long ? Self.table(rows) : rows.map(\.entry.name) { try Standard.line(line) }
    }
    if self.options.json { try array.finish() }
    if damaged.isEmpty { return }
    Standard.flushQuietly()
    for path in damaged {
      Standard.complain("\(Terminal.escaped(path)): what is stored is damaged; btrpc stat says how")
    }
    throw ExitCode.failure
  }

  private func rows(_ client: Client, _ path: RemotePath, _ isStale: OneTime) async throws -> [Row] {
    let needsInfo = self.long || self.byTime || self.bySize || self.options.json
    var rows: [Row] = []
    do {
      if self.directory { throw BlocktreeError(code: .failedPrecondition, reason: .notDirectory, message: "") }
      let listing = client.list(path.text, includesInfo: needsInfo) { isStale.set() }
      for try await entry in listing {
        rows.append(Row(path: path.appending(entry.name).text, entry: entry))
      }
    } catch let error as BlocktreeError where error.reason == .notDirectory {
      let info = try await client.stat(path.text, followsLink: !self.long)
      if info.isStale { isStale.set() }
      rows = [
        Row(path: path.text, entry: DirectoryEntry(name: path.text, id: info.id, type: info.type, info: info))
      ]
    }
    if self.long || self.options.json {
      for index in rows.indices where rows[index].entry.type == .symbolicLink {
        rows[index].target = try? await client.readSymbolicLink(rows[index].path)
      }
    }
    rows.sort { left, right in
      let (first, second) = (left.entry.info, right.entry.info)
      if self.byTime, let first, let second, first.modified != second.modified {
        return first.modified > second.modified
      }
      if self.bySize, let first, let second, first.size != second.size { return first.size > second.size }
      return left.entry.name.utf8.lexicographicallyPrecedes(right.entry.name.utf8)
    }
    return self.reversed ? rows.reversed() : rows
  }

  private static func table(_ rows: [Row]) -> [String] {
    let cells = rows.map { row -> [String] in
      let name = Terminal.escaped(row.entry.name) + (row.target.map { " -> \(Terminal.escaped($0))" } ?? "")
      guard let info = row.entry.info else {
        return [Format.mode(0, row.entry.type).prefix(1) + "?????????", "?", "?", "?", "?", "?", name]
      }
      return [
        Format.mode(info.mode, info.type, hasAccessList: !info.access.isEmpty), "\(info.linkCount)", info.owner,
        info.group, Format.size(info.size), Format.time(info.modified), name,
      ]
    }
    return Format.table(cells, right: [1, 4])
  }
}
