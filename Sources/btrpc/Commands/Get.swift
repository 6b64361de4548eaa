// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc get`
package struct Get: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Copy files from the domain to this machine.",
    usage: "btrpc get [-r] [-p] [-q] [--sealed] <path> ... [<local>]",
    discussion: """
      A file takes its name when all of it has arrived. With -r, permissions, modification times and symbolic links \
      are kept; setuid, setgid and sticky bits are not.

      With --sealed, sealed sectors are fetched from the processes that store them, and verified and decrypted here, with the \
      key that was given to you by 'btrpc grant --key' for the file or a directory above it.

      EXAMPLES:
        btrpc get /home/ann/report.pdf
        btrpc get -r /home/ann/photos /tmp
        btrpc get /backup/shop.sql - | mysql shop
        btrpc get --sealed /projects/x/plan.pdf
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: [.short, .customShort("R"), .long], help: "Copy directories and all that is in them.")
  var recursive = false

  @Flag(name: .shortAndLong, help: "Keep permissions and modification time.")
  var preserve = false

  @Flag(name: .shortAndLong, help: "Show no progress.")
  var quiet = false

  @Flag(help: "Decrypt here, with your own key.")
  var sealed = false

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
    guard !(self.sealed && self.recursive) else { throw ValidationError("--sealed takes files, not directories.") }
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
          try await LocalOutput.translate {
            if self.sealed {
              try await client.downloadSealed(path.text, toDescriptor: 1)
            } else {
              try await client.download(path.text, toDescriptor: 1)
            }
          }
        }
      }
    }
    let kind = try? await LocalFile.onThread { try LocalFile.describe(destination, followsLink: true).kind }
    let intoDirectory = kind == .directory
    guard intoDirectory || sources.count == 1 && !destination.hasSuffix("/") else {
      throw CommandFailure("\(destination): this is not a directory")
    }
    let pairs = sources.map { source in
      (source, intoDirectory ? source.name.map { LocalPath.join(destination, $0) } ?? destination : destination)
    }
    let results = CopyResults()
    if self.sealed {
      try await self.copySealed(pairs, results, client)
    } else {
      try await self.copy(pairs, results, client)
    }
    if self.options.json { try results.print() }
    if results.hasFailed { throw ExitCode.failure }
  }

  private func copy(
    _ pairs: [(remote: RemotePath, local: String)], _ results: CopyResults, _ client: Client
  ) async throws {
    let sources = pairs.map(\.remote)
    let total = sources.count == 1 && !self.recursive ? try? await client.stat(sources[0].text).size : nil
    let progress = Progress(sources.count == 1 ? sources[0].name ?? "/" : "get", total: total, isQuiet: self.quiet)
    defer { progress.finish() }
    let copy = DownloadCopy(
      client: client, results: results, progress: progress, isRecursive: self.recursive,
      keepsAttributes: self.preserve || self.recursive)
    try await copy.run(pairs)
  }

  private func copySealed(
    _ pairs: [(remote: RemotePath, local: String)], _ results: CopyResults, _ client: Client
  ) async throws {
    let progress = Progress(pairs.count == 1 ? pairs[0].remote.name ?? "/" : "get", total: nil, isQuiet: self.quiet)
    defer { progress.finish() }
    for (remote, local) in pairs {
      do {
        let info = try await about(remote.text) {
          try await client.downloadSealed(
            remote.text, toFile: local,
            options: CopyOptions(keepsAttributes: self.preserve, progress: progress.forFile()))
        }
        progress.addFile()
        results.add(local: local, remote: remote.text, info)
      } catch {
        try results.fail(error)
      }
    }
  }
}
