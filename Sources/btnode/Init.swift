// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Node
internal import Transport
internal import Trust

/// `btnode init`
struct Init: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a new domain, with this process and the person who owns it.",
    discussion: """
      DIR must not exist, or be empty. Everything is made there, or nothing. The person's profile is DIR/profile.
      """)

  @OptionGroup var place: DirectoryOption

  @Option(help: ArgumentHelp("Where the process listens; port 0 chooses a free one.", valueName: "host:port"))
  var listen: ListenAddress

  @Option(
    help: ArgumentHelp(
      "What others dial, when that is not what the process listens on.", valueName: "host:port"))
  var advertise: NetworkAddress?

  @Option(help: "The name of this process, in the root directory.")
  var name = "node1"

  @Option(help: "The name of the person, in the root directory.")
  var user = "owner"

  @Option(
    help: ArgumentHelp(
      "The domain's name in DNS, where the person's programs look for processes when they reach none that they know.",
      valueName: "name"))
  var dns: String?

  @Option(help: ArgumentHelp("Bytes in a sector: a power of two from 4096 to 65536.", valueName: "bytes"))
  var sectorSize = 4_096

  func run() async throws {
    let directory = NodeDirectory(self.place.directory)
    let creation = DomainCreation(
      listen: self.listen, advertise: self.advertise, processName: self.name, userName: self.user,
      sectorSize: self.sectorSize, dns: self.dns)
    let options = ["name": "--name", "user": "--user", "sector-size": "--sector-size", "dns": "--dns"]
    let made = try await withOptions(options) { try await creation.run(at: directory) }
    Output.line(
      """
      domain   \(made.domain)
      process  \(made.process), at \(made.address)
      TLS name \(made.tlsName)
      person   \(made.user), with the profile \(directory.profile)

      \(directory.rootKey) is the root principal's key. Nothing needs it from day to day: move it to a place
      that is offline, and keep it safe. Whoever has it owns the domain; without it nobody can replace a lost authority.

      Start the process:   btnode run --dir \(directory.path)
      Look around:         btrpc --profile \(directory.profile) ls /
      """)
  }
}
