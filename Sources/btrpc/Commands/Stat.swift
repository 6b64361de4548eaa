// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc stat`
package struct Stat: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Describe files.",
    discussion: """
      EXAMPLES:
        btrpc stat /home/ann/notes.txt
        btrpc --json stat /home/ann/notes.txt | jq .version
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: .customShort("L"), help: "Follow a symbolic link at the end.")
  var follow = false

  @Argument(help: "Files and directories.", completion: RemotePath.completion, transform: RemotePath.parse)
  var paths: [RemotePath]

  package init() {}

  package func run(_ client: Client) async throws {
    var results: [FileJSON] = []
    try await self.forEach(self.paths) { path in
      try await about(path.text) {
        let info = try await client.stat(path.text, followsLink: self.follow)
        let target = info.type == .symbolicLink ? try await client.readSymbolicLink(path.text) : nil
        if self.options.json {
          results.append(FileJSON(path: path.text, info: info, target: target))
        } else {
          for line in Self.lines(path.text, info, target) { try Standard.line(line) }
        }
        if info.isStale { Standard.noteStale(path.text) }
      }
    }
    guard self.options.json else { return }
    if self.paths.count == 1, let result = results.first {
      try JSONOutput.print(result)
    } else {
      try JSONOutput.print(results)
    }
  }

  private static func lines(_ path: String, _ info: FileInfo, _ target: String?) -> [String] {
    var rows = [
      ["path:", Terminal.escaped(path) + (target.map { " -> \(Terminal.escaped($0))" } ?? "")],
      ["type:", info.type.description],
      ["size:", Format.exactSize(info.size)],
      ["stored:", Format.exactSize(info.storedByteCount)],
      ["id:", "\(info.id), version \(info.version)"],
      [
        "generation:",
        "\(info.id.generation)" + (info.servedByGeneration.map { ", served by generation \($0)" } ?? ""),
      ],
      ["links:", "\(info.linkCount)"],
      ["mode:", "\(info.mode) \(Format.mode(info.mode, info.type))"],
      ["owner:", info.owner],
      ["group:", info.group],
    ]
    for entry in info.access {
      let bits = Format.mode(FileMode(rawValue: UInt16(entry.permission)), .file).suffix(3)
      rows.append(["access:", "\(bits) \(entry.isGroup ? "group" : "principal") \(entry.path)"])
    }
    if let epoch = info.keyEpoch {
      rows.append(["key:", "epoch \(epoch)" + (info.isCutOff ? ", cut off: in no directory" : "")])
    }
    for principal in info.readcaps { rows.append(["readcap:", Terminal.escaped(principal)]) }
    for (name, time) in [
      ("modified:", info.modified), ("changed:", info.changed), ("accessed:", info.accessed),
      ("created:", info.created),
    ] { rows.append([name, Format.time(time, seconds: true)]) }
    return Format.table(rows)
  }
}
