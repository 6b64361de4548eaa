// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Node
internal import Transport
internal import Trust

/// `btnode request`
struct Request: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes the keys of a new process, and prints its request for a credential.",
    discussion: """
      The request goes to somebody with an authority ('btrpc process add PATH --services … --request FILE'), and what
      that prints goes to 'btnode join'. The request is no secret. In the directory of a node that exists, it is for
      the keys that are there: that is how to renew a credential ('btrpc process add --replace …').
      """)

  @OptionGroup var place: DirectoryOption

  @Option(help: ArgumentHelp("Where the process will listen; port 0 chooses a free one.", valueName: "host:port"))
  var listen: ListenAddress?

  @Option(
    help: ArgumentHelp("What others dial, when that is not what the process listens on.", valueName: "host:port"))
  var advertise: NetworkAddress?

  func run() async throws {
    let enrollment = Enrollment(NodeDirectory(self.place.directory))
    // Only where there is no node yet: one that exists knows where it listens.
    let request = try await withOptions(["listen": "--listen"]) {
      try await enrollment.request(listen: self.listen, advertise: self.advertise)
    }
    Output.text(request)
  }
}
