// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import BlocktreeClient
internal import Node

/// `btnode restore`
struct Restore: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a node's store out of a backup, as the first process of its cluster.",
    discussion: """
      For a cluster that has lost its disks. The directory is that of a process which the backup knows, without its \
      store (generation-1): move a damaged one away. What happened after the backup is lost.

      Before the node runs again, move the stores of all other processes of the cluster away: they hold another history. \
      They join again by themselves and get all that there is.

      FILE is what 'btrpc cluster backup' made; - is standard input. All of it is checked before there is a store.
      """)

  @OptionGroup var place: DirectoryOption

  @Option(help: ArgumentHelp("What 'btrpc cluster backup' made.", valueName: "file"), completion: .file())
  var backup: String

  func run() async throws {
    let result = try await Restoration(NodeDirectory(self.place.directory)).run(backup: self.backup)
    Output.line(
      "restored \(result.process) from log entry \(result.backup.index): \(result.backup.recordCount) records; "
        + "it is the only process of its cluster now")
  }
}
