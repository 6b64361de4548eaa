// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc get`
package struct Get: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Copy files from the domain to this machine.",
    usage: "btrpc get [-r] [-p] [-q] <path> ... [<local>]",
    discussion: """
      A file takes its name when all of it has arrived. With -r, permissions, modification times and symbolic links \
      are kept; setuid, setgid and sticky bits are not.

      EXAMPLES:
        btrpc get /home/ann/report.pdf
        btrpc get -r /home/ann/photos /tmp
        btrpc get /backup/shop.sql - | mysql shop
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: [.short, .customShort("R"), .long], help: "Copy directories and all that is in them.")
  var recursive = false

  @Flag(name: .shortAndLong, help: "Keep permissions and modification time.")
  var preserve = false

  @Flag(name: .shortAndLong, help: "Show no progress.")
  var quiet = false

  @Argument(
    help: ArgumentHelp(
      "Paths of the domain; and last a new file or a directory of this machine, or - for standard output. With one path alone it is copied to the current directory.",
      valueName: "paths"), completion: .file())
  var paths: [String]

  package init() {}

  private var sources: [RemotePath] {
    (self.paths.count == 1 ? self.paths : self.paths.dropLast()).compactMap { RemotePath(argument: $0) }
  }

  package func validate() throws {
    guard let first = self.paths.first else { throw ValidationError("Name what to copy.") }
    let sources = self.paths.count == 1 ? [first] : self.paths.dropLast()
    guard let wrong = sources.first(where: { RemotePath(argument: $0) == nil }) else { return }
    throw ValidationError("\(wrong) is not a path of the domain: these begin with /.")
  }

  package func run(_ client: Client) async throws {
    let sources = self.sources
    let destination = self.paths.count == 1 ? "." : self.paths.last ?? "."
    if destination == "-" {
      return try await self.forEach(sources) { path in
        try await about(path.text) {
          try await LocalOutput.translate { try await client.download(path.text, toDescriptor: 1) }
        }
      }
    }
    let kind = try? await LocalFile.onThread { try LocalFile.describe(destination, followsLink: true).kind }
    let intoDirectory = kind == .directory
    guard intoDirectory || sources.count == 1 && !destination.hasSuffix("/") else {
      throw CommandFailure("\(destination): this is not a directory")
    }
    let results = CopyResults()
    let total = sources.count == 1 && !self.recursive ? try? await client.stat(sources[0].text).size : nil
    let progress = Progress(sources.count == 1 ? sources[0].name ?? "/" : "get", total: total, isQuiet: self.quiet)
    defer { progress.finish() }
    let copy = DownloadCopy(
      client: client, results: results, progress: progress, isRecursive: self.recursive,
      keepsAttributes: self.preserve || self.recursive)
    try await copy.run(
      sources.map { source in
        (source, intoDirectory ? source.name.map { LocalPath.join(destination, $0) } ?? destination : destination)
      })
    if self.options.json { try results.print() }
    if results.hasFailed { throw ExitCode.failure }
  }
}
