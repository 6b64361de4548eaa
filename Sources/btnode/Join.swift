// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import BlocktreeClient
internal import Node

/// `btnode join`
struct Join: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Takes the credential that was issued for this process's request.",
    discussion: "FILE holds what 'btrpc process add' printed; - is standard input. All of it is verified.")

  @OptionGroup var place: DirectoryOption

  @Option(help: ArgumentHelp("What 'btrpc process add' printed.", valueName: "file"), completion: .file())
  var credential: String

  func run() async throws {
    let path = try Enrollment(NodeDirectory(self.place.directory)).join(packageIn: self.credential)
    Output.line("joined as \(path)")
  }
}
