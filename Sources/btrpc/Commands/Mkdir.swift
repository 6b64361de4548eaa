// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc mkdir`
package struct Mkdir: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Make directories.",
    discussion: """
      EXAMPLES:
        btrpc mkdir /home/ann/photos
        btrpc mkdir -p -m 0700 /home/ann/private/keys
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: .shortAndLong, help: "Make missing parents too; an existing directory is no error.")
  var parents = false

  @Option(name: .shortAndLong, help: "The mode of the new directories.")
  var mode: ModeExpression?

  @Argument(help: "Directories to be made.", completion: RemotePath.completion, transform: RemotePath.parse)
  var paths: [RemotePath]

  package init() {}

  package func run(_ client: Client) async throws {
    let mode = self.mode?.applied(to: 0o755, isDirectory: true) ?? 0o755
    var array = JSONArrayWriter()
    try await self.forEach(self.paths) { path in
      try await about(path.text) {
        let info = try await client.makeDirectory(path.text, mode: mode, makesParents: self.parents)
        if self.options.json { try array.append(FileJSON(path: path.text, info: info)) }
      }
    }
    if self.options.json { try array.finish() }
  }
}
