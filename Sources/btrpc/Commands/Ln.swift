// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc ln`
package struct Ln: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Give files other names, or make symbolic links.",
    discussion: """
      EXAMPLES:
        btrpc ln /data/report.pdf /home/ann/report.pdf
        btrpc ln -s ../data /home/ann/data
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: .shortAndLong, help: "Make a symbolic link; the target is taken as it is.")
  var symbolic = false

  @Flag(name: .shortAndLong, help: "Replace a file that has the name.")
  var force = false

  @Argument(help: "What the new name leads to.")
  var target: String

  @Argument(
    help: "The new name, or a directory for it.", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath

  package init() {}

  package func validate() throws {
    if !self.symbolic, RemotePath(argument: self.target) == nil {
      throw ValidationError("The target of a hard link is a path that begins with /. For a symbolic link, use -s.")
    }
  }

  package func run(_ client: Client) async throws {
    var path = self.path
    if try await client.isDirectory(path, required: false) {
      let name = self.target.split(separator: "/").last.map(String.init) ?? "link"
      path = path.appending(name)
    }
    let info = try await about(path.text) {
      if self.force {
        do {
          try await client.remove(path.text)
        } catch let error as BlocktreeError where error.reason == .notFound {}
      }
      if self.symbolic { return try await client.makeSymbolicLink(path.text, to: self.target) }
      return try await client.makeLink(path.text, to: RemotePath(argument: self.target)?.text ?? self.target)
    }
    if self.options.json { try JSONOutput.print(FileJSON(path: path.text, info: info)) }
  }
}
