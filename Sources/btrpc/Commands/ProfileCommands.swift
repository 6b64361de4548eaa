// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
internal import BlocktreeClient

/// `btrpc profile`
package struct ProfileCommand: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "profile", abstract: "Show the profile, or make one.",
    subcommands: [ProfileShow.self, ProfileRequest.self, ProfileJoin.self, ProfileDNS.self])

  package init() {}
}

/// `btrpc profile show`
package struct ProfileShow: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show who you are, in which domain, and where calls begin.")

  @OptionGroup package var options: GlobalOptions

  package init() {}

  private struct Shown: Encodable {
    var directory: String
    var domain: String
    var path: String?
    var expires: String?
    var hasAuthority: Bool
    var addresses: [String]
    var dns: String?
  }

  package func run() async throws {
    let profile = try self.options.loadProfile()
    let expires = profile.expires
    let shown = Shown(
      directory: self.options.profileDirectory, domain: profile.domain, path: profile.path,
      expires: expires?.description, hasAuthority: profile.authority != nil,
      addresses: profile.startingPoints.map { point in
        point.path.map { "\(point.address) (\($0))" } ?? "\(point.address)"
      }, dns: profile.dns)
    if self.options.json { return try JSONOutput.print(shown) }
    var rows = [
      ["profile:", shown.directory], ["domain:", "bt://\(shown.domain)/"], ["you are:", shown.path ?? "anonymous"],
    ]
    if let expires { rows.append(["expires:", Format.time(expires)]) }
    rows.append(["authority:", shown.hasAuthority ? "yes, you can add processes and users" : "no"])
    rows.append(["addresses:", shown.addresses.joined(separator: ", ")])
    if let dns = shown.dns { rows.append(["DNS name:", dns]) }
    for line in Format.table(rows) { try Standard.line(line) }
  }
}

/// `btrpc profile request`
package struct ProfileRequest: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "request",
    abstract: "Make keys in a new profile directory, and print the request for a credential.",
    discussion: """
      EXAMPLES:
        btrpc profile request ~/.config/blocktree > ann.request
      """)

  @OptionGroup package var options: GlobalOptions

  @Argument(help: "The new directory.", completion: .directory)
  var directory: String

  package init() {}

  private struct Made: Encodable {
    var directory: String
    var request: String
  }

  package func run() async throws {
    let directory = self.directory
    let request = try await LocalFile.onThread { try Profile.makeRequest(at: directory) }
    if self.options.json { return try JSONOutput.print(Made(directory: directory, request: request)) }
    try Standard.write(request)
  }
}

/// `btrpc profile join`
package struct ProfileJoin: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "join",
    abstract: "Complete a profile with the join package that was issued for its request.",
    discussion: """
      EXAMPLES:
        btrpc profile join ~/.config/blocktree --credential ann.join
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(help: ArgumentHelp("The join package, or -.", valueName: "file"), completion: .file())
  var credential: String

  @Argument(help: "The directory that 'btrpc profile request' made.", completion: .directory)
  var directory: String

  package init() {}

  package func run() async throws {
    let package = try JoinPackage(pemRepresentation: try await IssueOptions.read(self.credential))
    let directory = self.directory
    try await LocalFile.onThread { try Profile.join(package, in: directory) }
    try IssueOptions.report(package, profile: directory, json: self.options.json)
  }
}

/// `btrpc profile dns`
package struct ProfileDNS: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "dns",
    abstract: "Set the domain's name in DNS, by which processes are found when none of the profile's can be reached.",
    discussion: """
      DNS has SRV records for _blocktree._tcp.NAME, which name processes in the domain's root directory; or else \
      addresses of NAME itself, where processes listen on port 7777. Whoever answers has to be a process of the domain.

      EXAMPLES:
        btrpc profile dns blocktree.example.org
        btrpc profile dns --remove
      """)

  @OptionGroup package var options: GlobalOptions

  @Argument(help: "The name.")
  var name: String?

  @Flag(help: "Forget the name.")
  var remove = false

  package init() {}

  package func validate() throws {
    guard self.remove == (self.name == nil) else { throw ValidationError("Give either a name or --remove.") }
  }

  private struct Changed: Encodable {
    var directory: String
    var dns: String?
  }

  package func run() async throws {
    let (directory, name) = (self.options.profileDirectory, self.name)
    try await LocalFile.onThread { try Profile.setDNS(name, in: directory) }
    if self.options.json {
      return try JSONOutput.print(Changed(directory: directory, dns: try self.options.loadProfile().dns))
    }
  }
}
