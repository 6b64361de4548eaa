// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import BlocktreeClient
internal import Foundation
internal import Node

/// `btnode restore`
struct Restore: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a node's store out of a backup, as the first process of its cluster.",
    discussion: """
      For a cluster that has lost its disks. The directory is that of a process which the backup knows, without its \
      store (generation-1): move a damaged one away. What happened after the backup is lost.

      The other processes of the cluster hold another history. With the root principal's key, the restored process \
      begins another life of the cluster: the others give theirs up as soon as they meet it, and join again by \
      themselves. The key is the file that 'btnode init' made; it is used if it still lies in the directory, or named \
      with --root-key. Without it, move the stores of all other processes away before the node runs again.

      To try a backup beside the living cluster, use --apart, and a machine that does not reach the cluster.

      FILE is what 'btrpc cluster backup' made; - is standard input. All of it is checked before there is a store.
      """)

  @OptionGroup var place: DirectoryOption

  @Option(help: ArgumentHelp("What 'btrpc cluster backup' made.", valueName: "file"), completion: .file())
  var backup: String

  @Option(help: ArgumentHelp("The root principal's key.", valueName: "file"), completion: .file())
  var rootKey: String?

  @Flag(help: "Do not begin another life of the cluster, even if the root principal's key is there.")
  var apart = false

  func validate() throws {
    if self.apart, self.rootKey != nil { throw ValidationError("Give either --root-key or --apart.") }
  }

  func run() async throws {
    let directory = NodeDirectory(self.place.directory)
    let present = FileManager.default.fileExists(atPath: directory.rootKey) ? directory.rootKey : nil
    let restoration = Restoration(directory, rootKey: self.apart ? nil : self.rootKey ?? present)
    let result = try await restoration.run(backup: self.backup)
    Output.line(
      "restored \(result.process) from log entry \(result.backup.index): \(result.backup.recordCount) records; "
        + "it is the only process of its cluster now"
        + (result.incarnation.map { ", in incarnation \($0)" }
          ?? "; see that no other one runs with the store that it had"))
  }
}
