// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
internal import BlocktreeClient

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// The command line of a Blocktree domain.
@main
package struct Btrpc: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "btrpc",
    abstract: "Work with the files, processes and users of a Blocktree domain.",
    discussion: """
      A path is /a/b in the profile's domain, or bt://DOMAIN/a/b. Where a local file is expected, - stands for standard \
      input or output. The profile is the directory named by --profile, by $BLOCKTREE_PROFILE, or ~/.config/blocktree.

      Exit status: 0 done, 1 failed, 64 wrong usage.

      EXAMPLES:
        btrpc ls -l /
        btrpc put -r photos /home/ann
        btrpc get /home/ann/photos/1.jpg .
        tar c . | btrpc put - /backup/today.tar
        btrpc --json stat /home | jq .size
        btrpc find nearest --scope /home/ann --service filesystem
        btrpc grant /home/ann/photos /people/bob --key
        btrpc rpc blocktree.v1.FilesystemService/Stat '{"path": "/"}'
      """,
    groupedSubcommands: [
      CommandGroup(
        name: "Files",
        subcommands: [
          Ls.self, Stat.self, Cat.self, Get.self, Put.self, Mkdir.self, Rm.self, Mv.self, Ln.self, Chmod.self,
          Chown.self, Df.self, TreeCommand.self,
        ]),
      CommandGroup(
        name: "Keys and permissions",
        subcommands: [Grant.self, Revoke.self, Rekey.self]),
      CommandGroup(
        name: "Domain",
        subcommands: [
          ProcessCommand.self, ClusterCommand.self, UserCommand.self, ProfileCommand.self, TasksCommand.self,
        ]),
      CommandGroup(name: "Messages", subcommands: [MessageCommand.self]),
      CommandGroup(
        name: "Inside",
        subcommands: [StatusCommand.self, FindCommand.self, RoutesCommand.self, SectorCommand.self, Rpc.self]),
    ])

  // Declared here too, so that the options may also stand before the subcommand's name.
  @OptionGroup package var options: GlobalOptions

  package init() {}

  package static func main() async {
    // A reader that went away is told by the write that fails.
    signal(SIGPIPE, SIG_IGN)
    do {
      var command = try await self.asyncParseAsRoot()
      if var command = command as? any AsyncParsableCommand {
        try await command.run()
      } else {
        try command.run()
      }
      try Standard.flush()
    } catch is PipeClosed {
      Glibc.exit(1)
    } catch {
      Standard.flushQuietly()
      // Usage, help and requested exit statuses are the parser's business.
      let code = self.exitCode(for: error)
      if code != .failure || error is ExitCode { self.exit(withError: error) }
      Standard.complain(ErrorText.line(for: error))
      Glibc.exit(1)
    }
  }
}
