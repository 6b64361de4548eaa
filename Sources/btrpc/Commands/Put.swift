// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc put`
package struct Put: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Copy files from this machine into the domain.",
    usage: "btrpc put [-r] [-p] [-q] <local> ... <path>",
    discussion: """
      A file is replaced as a whole when all of it has arrived; until then, and if the transfer breaks off, it is as it \
      was. With -r, modes, modification times and symbolic links are kept.

      EXAMPLES:
        btrpc put report.pdf /home/ann
        btrpc put -r photos /home/ann
        mysqldump shop | btrpc put - /backup/shop.sql
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: [.short, .customShort("R"), .long], help: "Copy directories and all that is in them.")
  var recursive = false

  @Flag(name: .shortAndLong, help: "Keep mode and modification time.")
  var preserve = false

  @Flag(name: .shortAndLong, help: "Show no progress.")
  var quiet = false

  @Option(name: .shortAndLong, help: "The mode of a file that is made from standard input.")
  var mode: ModeExpression?

  @Argument(
    help: ArgumentHelp(
      "Files and directories of this machine, or - for standard input; and last the new path, or a directory to copy into.",
      valueName: "paths"), completion: .file())
  var paths: [String]

  package init() {}

  package func validate() throws {
    guard self.paths.count >= 2 else { throw ValidationError("Name what to copy, and where.") }
    guard let last = self.paths.last, RemotePath(argument: last) != nil else {
      throw ValidationError("The last argument is a path of the domain, which begins with /.")
    }
    if self.paths.dropLast().contains("-"), self.paths.count > 2 {
      throw ValidationError("Standard input can not be copied together with files.")
    }
  }

  package func run(_ client: Client) async throws {
    guard let destination = self.paths.last.flatMap({ RemotePath(argument: $0) }) else { return }
    let sources = Array(self.paths.dropLast())
    let results = CopyResults()
    if sources == ["-"] {
      let mode = self.mode?.applied(to: 0o644, isDirectory: false) ?? 0o644
      let progress = Progress("standard input", total: nil, isQuiet: self.quiet)
      defer { progress.finish() }
      let info = try await about(destination.text) {
        try await client.upload(
          fromDescriptor: 0, to: destination.text, mode: mode, progress: progress.forFile())
      }
      results.add(local: "-", remote: destination.text, info)
    } else {
      let intoDirectory = try await client.isDirectory(destination, required: sources.count > 1)
      let progress = try await self.progress(sources)
      defer { progress.finish() }
      let copy = UploadCopy(
        client: client, results: results, progress: progress, isRecursive: self.recursive,
        keepsAttributes: self.preserve || self.recursive)
      try await copy.run(
        sources.map { source in
          let name = LocalPath.name(of: source)
          return (source, intoDirectory ? name.map { destination.appending($0) } ?? destination : destination)
        })
    }
    if self.options.json { try results.print() }
    if results.hasFailed { throw ExitCode.failure }
  }

  private func progress(_ sources: [String]) async throws -> Progress {
    var total: UInt64? = 0
    for source in sources {
      let description = try? await LocalFile.onThread { try LocalFile.describe(source, followsLink: true) }
      if let description, description.kind == .file, let sum = total {
        total = sum &+ description.size
      } else {
        total = nil
      }
    }
    let label = sources.count == 1 ? LocalPath.name(of: sources[0]) ?? sources[0] : "put"
    return Progress(label, total: total, isQuiet: self.quiet)
  }
}
