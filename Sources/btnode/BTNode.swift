// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Node

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// The daemon, and what makes one.
@main
struct BTNode: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "btnode",
    abstract: "Runs a process of a Blocktree domain.",
    discussion: """
      'btnode init' makes a new domain with its first process; 'btnode run' serves it. A process of an existing domain
      begins with 'btnode request', and 'btnode join' when an authority has issued its credential.
      """,
    subcommands: [Init.self, Request.self, Join.self, Run.self, Restore.self, Demo.self])

  /// As ArgumentParser's own, but failures are one line, and the exit status is 1; wrong usage is 64, also where it shows
  /// only when a command runs.
  static func main() async {
    // Whoever reads our output may go away.
    signal(SIGPIPE, SIG_IGN)
    do {
      var command = try Self.parseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
    } catch let error as NodeError {
      Output.error("btnode: \(error)")
      Glibc.exit(1)
    } catch {
      Self.exit(withError: error)
    }
  }
}
